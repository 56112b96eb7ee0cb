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

// OpenRequest says which machine to open.
type OpenRequest struct {
	// Layers are the keys of the states below, bottom first.
	Layers []string
	// Key is what Commit stores the new state under.
	Key string
	// Hostname inside the machine; empty means "gild".
	Hostname string
	// Arch in Go's names.
	Arch  string
	Clock time.Time
}

// ImageRequest says which disk to make.
type ImageRequest struct {
	// Layers as in [OpenRequest].
	Layers []string
	// Key is the key of the image.
	Key string
	// Name seeds the identifiers (disk, partitions, file systems) together with Clock.
	Name string
	// Lock is that of the base, kept with the image.
	Lock     map[string]string
	Arch     string
	Clock    time.Time
	Size     int64
	Firmware []string
	// Log takes what the tools say.
	Log io.Writer
}

// BootRequest says how to boot an image.
type BootRequest struct {
	Image    step.ImageInfo
	Arch     string
	Firmware string
	// MemoryMiB of the guest; 0 means 1024.
	MemoryMiB int
	// Log takes the serial console.
	Log io.Writer
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
	// Resolve turns a distribution base into an immutable one. locked is what gild.lock
	// has for it, or nil. It may ask the network only when the base isn't stored yet.
	Resolve(ctx context.Context, base spec.DistroBase, arch string, locked map[string]string) (Base, error)

	// HasState reports whether the machine state of key is stored.
	HasState(key string) (bool, error)
	// MakeBase makes the machine state of a resolved base and stores it under key. On an
	// image it lays what sealing took away and steps need: the locked package lists.
	MakeBase(ctx context.Context, l Ledger, base spec.Base, arch string, resolved Base, key string, log io.Writer) error
	// Open opens a machine on top of stored states.
	Open(ctx context.Context, l Ledger, req OpenRequest) (Machine, error)

	// FindImage returns the stored image of key with the files it has; ok is false when there is none.
	FindImage(key string) (info step.ImageInfo, ok bool, err error)
	// ImageVersion identifies what, besides layers and layout, decides over the bytes of an
	// image made here: the builder's own version and the host's boot loader. Part of the key.
	ImageVersion(arch string, firmware []string) (string, error)
	// ImageBase returns a stored image as a base for another; ok is false when the image,
	// or a state it was made from, isn't stored any more.
	ImageBase(key string) (base Base, ok bool, err error)
	// MakeImage makes the raw disk of a machine state and stores it under its key.
	MakeImage(ctx context.Context, l Ledger, req ImageRequest) (step.ImageInfo, error)
	// Finish makes the formats asked for and the digest of every file. It may run beside tests.
	Finish(ctx context.Context, l Ledger, key string, formats []string, progress func(done, total int64)) (step.ImageInfo, error)
	// Boot boots a throw-away copy of an image and waits until commands can be run in it.
	Boot(ctx context.Context, l Ledger, req BootRequest) (Guest, error)

	// CopyImage copies an image to a region and verifies the copy.
	CopyImage(ctx context.Context, l Ledger, key, region string, progress func(done, total int64)) (location string, err error)
	// HasCopy returns where a region's verified copy of the image is; ok is false when it has none.
	HasCopy(key, region string) (location string, ok bool, err error)
	// RemoveImage removes the files of an image from the store and from every region.
	// What isn't there any more is no error.
	RemoveImage(ctx context.Context, key string) error

	// Cleanup removes a resource that a dead process or a failed attempt left. It is
	// idempotent: a resource that is gone, or was never made, is no error.
	Cleanup(ctx context.Context, r Resource) error
	// Sweep lists debris that no ledger knows and no living process uses, and removes it
	// unless dry.
	Sweep(ctx context.Context, dry bool) ([]Resource, error)
}
