// Package broker lets the step of a plugin work on gild's side: on the machine, the inputs
// and the journal of its [step.Target], over gRPC on a unix socket.
//
// On gild's side a [Server] has one socket in a folder of its own that only this user can
// enter. [Server.Open] gives out a token for a target; calls that carry the token work on
// it until it is closed. [Server.Request] is what a plugin is told of the target. On the plugin's side a [Client] turns address and token back into a
// step.MachineHandle, step.Input values and claims that behave like the real ones, errors
// included ([ToFailure], [FromFailure]).
//
// The package never starts a process, never decides what a step may do, and never trusts
// the plugin: what a plugin sends is bounded in size and number, and nothing it leaves
// undone keeps a call alive once its token is closed.
package broker
