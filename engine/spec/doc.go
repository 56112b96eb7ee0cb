// Package spec turns a pipeline file into what it asks for.
//
// Bytes of YAML go in, first through [Parse] (is it well-formed, and does it have the
// right shape?) and then through [File.Resolve] (params given, matrix spread out,
// expressions checked and evaluated); out come resolved [Pipeline] values, one per
// combination of the matrix, and every mistake found, each at its place in the file.
// What can only be known during a run, secrets and outputs of other steps, waits in a
// [Value].
//
// The package does no I/O beyond the bytes it is given and reads no clock: the same
// bytes and inputs give the same answer twice. Everything it exports is safe for
// concurrent use, except while a value is still being built by the caller.
package spec
