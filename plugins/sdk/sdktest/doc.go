// Package sdktest tests the steps of a plugin without gild.
//
// A step runs with [Target.Run], on a machine of the test's choice:
//
//   - [NewMachine] is one in memory. It records what the step does, and answers commands
//     as the test says.
//   - [Local] is a real Debian system in namespaces of this host, as builds use it. It
//     needs mmdebstrap.
//   - [Guest] makes of either one a guest booted from an image.
//
// A step of the program under test is run in the test's process. The same step as gild
// runs it, in a process of its own and through gRPC, is among [Self]'s; [Installed] does
// the same for any other plugin. A test function can take the step as an argument and
// be run with both.
//
// Every package that uses Local, Self or Installed calls [Main] from TestMain:
//
//	func TestMain(m *testing.M) { sdktest.Main(m, plugin()) }
//
// The package is used by tests only.
package sdktest
