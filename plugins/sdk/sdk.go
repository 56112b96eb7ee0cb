// Package sdk is what the author of a plugin in Go imports: it makes steps from typed
// functions and serves them to gild.
//
//	//go:embed main.go
//	var source string
//
//	type Config struct {
//		// Text of the message.
//		Text string `json:"text"`
//	}
//
//	func main() {
//		sdk.Serve(sdk.Plugin{Name: "acme/motd", Version: "1.0.0", Steps: []sdk.Step{
//			sdk.Define(sdk.Step{
//				Name: "acme/motd", Summary: "set the message of the day",
//				Sections: []sdk.Section{sdk.Customize}, Cacheable: true,
//			}, run, sdk.Source(source)),
//		}})
//	}
//
//	func run(ctx context.Context, t *sdk.Target, c Config) (struct{}, error) {
//		return struct{}{}, t.Machine.Put(ctx, sdk.PutFile{Path: "/etc/motd"}, strings.NewReader(c.Text+"\n"))
//	}
//
// A step is the same value as one that is built into gild; [Define] fills in its schema and
// the types of its outputs from the function's types. What a step can do is what its
// [Target] offers: the machine, the project's files, the log, claims on resources. A failure
// is an error; [Permanent], [TestFailed] and [Skipped] are the ones that mean more. A panic
// fails the step too, but one in a goroutine that the step started ends the whole process.
//
// Anything a step prints goes to Target.Log: standard output and standard error are the
// plugin's own, for messages about the plugin itself.
//
// [Serve] is the whole of main. The package sdktest tests a step without gild.
package sdk

import (
	"github.com/gildhq/gild/engine/step"
)

// The types of gild's step contract, under one import. See package step for what they say.
type (
	Step          = step.Step
	Target        = step.Target
	Outputs       = step.Outputs
	Section       = step.Section
	Problem       = step.Problem
	Resource      = step.Resource
	PipelineInfo  = step.PipelineInfo
	MachineHandle = step.MachineHandle
	Guest         = step.Guest
	Facts         = step.Facts
	Cmd           = step.Cmd
	PutFile       = step.PutFile
	Input         = step.Input
	InputFile     = step.InputFile
	ImageInfo     = step.ImageInfo
	ImageFile     = step.ImageFile
	Duration      = step.Duration
)

// The errors that mean more than that a step failed.
type (
	ExitError  = step.ExitError
	Permanent  = step.Permanent
	TestFailed = step.TestFailed
	Skipped    = step.Skipped
)

// The sections in which a plugin's step may stand. A step of customize changes a machine,
// one of tests looks at the image and the guest booted from it, one of publish takes the
// image somewhere else.
const (
	Customize = step.Customize
	Tests     = step.Tests
	Publish   = step.Publish
)

// Plugin is what [Serve] serves.
type Plugin struct {
	// Name is "owner/name" in lower-case letters, digits and dashes.
	Name string
	// Version is a semantic version, such as "1.2.0".
	Version string
	// Steps are what the plugin adds. Each is named like the plugin, or begins with the
	// plugin's name and "/". A Cleanup of one step gets the resources of all of them; one
	// of a kind that it doesn't know is no error. Steps can claim when at least one has a
	// Cleanup.
	Steps []Step
}
