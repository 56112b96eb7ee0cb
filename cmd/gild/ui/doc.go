// Package ui draws what people see of a run.
//
// In go the events of engine/event; out come, on the writers it is given, the live
// view of a terminal ([Live]), the plain lines of a CI log ([Plain]), and after the run
// the failure report and the end table ([Story]).
//
// The package never asks the engine anything, never changes a mode of the terminal
// (so there is nothing to restore, even after kill -9), and never passes a control
// character of a build's output on to the terminal.
package ui
