// Package builder is the contract between the engine and what makes machines and
// images: local disks here, EC2 elsewhere.
//
// The engine hands a builder keys (see engine/plan); the builder stores what was
// made under them and finds it again. Whatever a builder makes that a crash could
// leave behind is recorded in the [Ledger] before it is made.
package builder

import (
	"context"
	"io"
	"time"

	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/spec"
	"github.com/gildhq/gild/engine/step"
)

// Resource is something that outlives the process that made it unless it is removed.
type Resource = step.Resource

// Ledger records resources before they are made. Safe for concurrent use.
type Ledger interface {
	// Intent records r durably. Only after it returns may r be made.
	Intent(ctx context.Context, r Resource) (Claim, error)
	// Work names what is being done. Resources of a cloud carry it as tags, and their
	// idempotency tokens are made of it, so that another machine can find them.
	Work() Work
}

// Work is one piece of work of one run.
type Work struct {
	// Run is the run's id, Node the node's, such as "web/packages".
	Run, Node string
}

// Claim is an open entry of a [Ledger]. What is still open when an attempt ends, or
// when its process is found dead, is given to [Builder.Cleanup].
type Claim interface {
	// Settle closes the entry: the resource is gone, or has become a permanent part of the store.
	Settle(ctx context.Context) error
}

// Base is a base resolved to something immutable.
type Base struct {
	// ID identifies the content; equal IDs give equal machines. Part of the key.
	ID string
	// Clock is the newest time in the base: the build's clock unless SOURCE_DATE_EPOCH is set.
	Clock time.Time
	// Summary says what was resolved, for people: "debian bookworm of 2026-11-20".
	Summary string
	// Lock is what the distribution was locked to, by name: gild.lock records it, and an
	// image keeps it for those built from it. Nil when there is nothing to record.
	Lock map[string]string
	// Parent is the image id in the catalog when the base is another image, else empty.
	Parent string
	// Layers are machine states that lie under the base, bottom first; nil for a base
	// that starts from nothing.
	Layers []string
	// Image is the key of the image that the base is, or empty.
	Image string
}

// Machine is an open machine whose changes are kept or dropped as a whole.
type Machine interface {
	step.MachineHandle
	// Commit ends the machine and stores its state under the key it was opened with.
	// The state is durable when Commit returns.
	Commit(ctx context.Context) error
	// Close ends the machine and drops its changes unless they were committed.
	// Calling it again does nothing.
	Close() error
}

// BaseRequest says which base to make.
type BaseRequest struct {
	Pipeline *spec.Pipeline
	// Base is what Resolve or ImageBase gave.
	Base Base
	// Key is what the state is stored under.
	Key string
	// Log takes what the tools say.
	Log io.Writer
}

// OpenRequest says which machine to open.
type OpenRequest struct {
	Pipeline *spec.Pipeline
	// Base is the pipeline's, resolved.
	Base Base
	// Layers are the keys of the states below, bottom first.
	Layers []string
	// Key is what Commit stores the new state under.
	Key string
	// Bench names the machine that the steps of one image change one after another, where
	// states don't stack; see [Builder.Stacks].
	Bench string
	// Checkpoint asks for a state that can be started from again, where Commit otherwise
	// need only leave it in the running machine.
	Checkpoint bool
	Clock      time.Time
	// Log takes what is to be told about getting the machine; nil discards it.
	Log io.Writer
}

// ImageRequest says which disk to make.
type ImageRequest struct {
	Pipeline *spec.Pipeline
	// Base is the pipeline's, resolved. Its Lock is kept with the image.
	Base Base
	// Layers, Bench as in [OpenRequest].
	Layers []string
	Bench  string
	// Key is the key of the image.
	Key string
	// Name seeds the identifiers (disk, partitions, file systems) together with Clock.
	Name  string
	Clock time.Time
	// Log takes what the tools say. Progress reports work done; neither is nil.
	Log      io.Writer
	Progress func(done, total int64, unit string)
}

// FinishRequest says what to finish of an image.
type FinishRequest struct {
	Pipeline *spec.Pipeline
	// Key is the key of the image.
	Key string
	// Progress reports bytes done. Never nil.
	Progress func(done, total int64)
}

// BootRequest says how to boot an image.
type BootRequest struct {
	Pipeline *spec.Pipeline
	Image    step.ImageInfo
	// Firmware is one of the pipeline's.
	Firmware string
	// MemoryMiB of the guest; 0 means 1024.
	MemoryMiB int
	// Log takes the serial console.
	Log io.Writer
}

// PublishRequest says how a tested image is called where the builder keeps it.
type PublishRequest struct {
	Pipeline *spec.Pipeline
	// Key is the key of the image.
	Key string
	// ID is its id in the catalog, Build its build number.
	ID    string
	Build int
	step.PublishRequest
}

// CopyRequest says what to copy where.
type CopyRequest struct {
	Pipeline *spec.Pipeline
	// Key is the key of the image.
	Key    string
	Region string
	// Progress reports work done. Never nil.
	Progress func(done, total int64)
}

// Place is where an image is: an AMI in its region, a folder.
type Place struct {
	Region, Location string
}

// SweepRequest says what a sweep is to look at.
type SweepRequest struct {
	// Dry only lists.
	Dry bool
	// Regions are the cloud's regions to look at; a builder of this machine has none.
	Regions []string
	// Run limits it to what one run made; empty means all runs.
	Run string
	// Resuming keeps what the run, which is about to go on, can go on from: finished images
	// and checkpoints.
	Resuming bool
	// Busy tells whether a process on this machine works on a run, whose resources must
	// stay. known is false for the runs of other machines.
	Busy func(run string) (busy, known bool, err error)
}

// Swept is what a sweep found.
type Swept struct {
	// Removed is gone now, or would be without Dry.
	Removed []Resource
	// Left could not be removed, or must not be: with the reason.
	Left []Left
}

// Kept is the error of a [Left] that stays on purpose, and is no failure: its text says why.
type Kept string

// Error returns the text.
func (k Kept) Error() string { return string(k) }

// Left is a resource that stays, and why.
type Left struct {
	Resource
	Err error
}

// Guest is a booted guest that must be closed.
type Guest interface {
	step.Guest
	io.Closer
}

// Builder makes machines and images. Safe for concurrent use. Every method that makes
// something takes the ledger of the node it works for.
type Builder interface {
	// Kind is the builder's name in the language; part of every key.
	Kind() string
	// Unsupported tells what the pipeline asks for that this builder can't do.
	Unsupported(p *spec.Pipeline) diag.List
	// Stacks reports whether machine states are layers that lie on one another. Where they
	// don't, each state is whole: the steps of an image change one machine (the bench) one
	// after another, whatever they need; a machine is opened on the last state of Layers
	// that is stored or that the bench is in; and nothing below a stored state is needed.
	Stacks() bool
	// Resolve turns a base that isn't an image of the catalog into an immutable one. locked is
	// what gild.lock has for it, or nil. The local builder asks the network only when the base
	// isn't stored yet.
	Resolve(ctx context.Context, p *spec.Pipeline, locked map[string]string) (Base, error)

	// HasState reports whether the machine state of key is stored.
	HasState(ctx context.Context, p *spec.Pipeline, key string) (bool, error)
	// MakeBase makes the machine state of a resolved base and stores it under the key. On an
	// image it lays what sealing took away and steps need: the locked package lists.
	MakeBase(ctx context.Context, l Ledger, req BaseRequest) error
	// Open opens a machine on top of stored states. Where states don't stack, the ledger is
	// the bench's, which outlives the node.
	Open(ctx context.Context, l Ledger, req OpenRequest) (Machine, error)
	// Release ends the bench of that name. One that was never made is no error.
	Release(ctx context.Context, bench string) error

	// FindImage returns the stored image of key with the files it has; ok is false when there is none.
	FindImage(ctx context.Context, p *spec.Pipeline, key string) (info step.ImageInfo, ok bool, err error)
	// ImageVersion identifies what, besides layers and layout, decides over an image made
	// here: the builder's own version and the host's boot loader. Part of the key.
	ImageVersion(p *spec.Pipeline) (string, error)
	// ImageBase returns a stored image as a base for another; ok is false when the image,
	// or a state it was made from, isn't stored any more.
	ImageBase(ctx context.Context, p *spec.Pipeline, key string) (base Base, ok bool, err error)
	// MakeImage makes the image of a machine state and stores it under its key.
	MakeImage(ctx context.Context, l Ledger, req ImageRequest) (step.ImageInfo, error)
	// Finish makes the formats asked for and the digest of every file. It may run beside tests.
	Finish(ctx context.Context, l Ledger, req FinishRequest) (step.ImageInfo, error)
	// Boot boots a throw-away copy of an image and waits until commands can be run in it.
	Boot(ctx context.Context, l Ledger, req BootRequest) (Guest, error)

	// PublishImage marks an image as published where the builder keeps it. Doing it again
	// changes nothing.
	PublishImage(ctx context.Context, l Ledger, req PublishRequest) error
	// CopyImage copies an image to a region and verifies the copy.
	CopyImage(ctx context.Context, l Ledger, req CopyRequest) (location string, err error)
	// HasCopy returns where a region's verified copy of the image is; ok is false when it has none.
	HasCopy(ctx context.Context, p *spec.Pipeline, key, region string) (location string, ok bool, err error)
	// RemoveImage removes an image from the store and from the places that it is known to
	// be in. What isn't there any more, or is another builder's, is no error.
	RemoveImage(ctx context.Context, key string, places []Place) error

	// Cleanup removes a resource that a dead process or a failed attempt left. It is
	// idempotent: a resource that is gone, or was never made, is no error. mine is false
	// for a kind of resource that this builder doesn't make.
	Cleanup(ctx context.Context, r Resource) (mine bool, err error)
	// Sweep lists debris that no ledger knows and no living process uses, and removes it
	// unless asked only to look.
	Sweep(ctx context.Context, req SweepRequest) (Swept, error)
}
