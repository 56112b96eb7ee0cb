// Package step is the contract between the engine and a step.
//
// A step is a plain [Step] value: a name, a JSON Schema for its `with`, what
// it has an effect on, and a function. Built-in steps are made with [Define]
// from a typed function; a plugin is the same value with its Run filled in by
// the adapter. The package knows no builder and no other step, and does no I/O.
package step

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"time"
)

// Section is a part of a pipeline file in which a step may stand.
type Section string

// The sections of a pipeline, in the order in which they run.
const (
	Customize Section = "customize"
	Harden    Section = "harden"
	Seal      Section = "seal"
	Tests     Section = "tests"
	Publish   Section = "publish"
	Copy      Section = "copy"
	Retain    Section = "retain"
)

// Effect is what a step changes.
type Effect string

const (
	// Machine steps change the machine they are given and nothing else.
	Machine Effect = "machine"
	// Image steps read or boot a finished image.
	Image Effect = "image"
	// None steps change nothing.
	None Effect = "none"
)

// Outputs are a step's results, by declared name. Values are JSON values.
type Outputs map[string]any

// Step is one kind of step. It is a value: nothing in it changes after it is made.
type Step struct {
	// Name is what `uses:` says, such as "packages" or "acme/agent".
	Name string
	// Version changes when the same config gives another result; part of every key.
	// For a plugin it is the digest of its files.
	Version string
	// Plugin is what the step comes from, "acme/agent@sha256:...", or empty for a built-in
	// step. It finds the plugin again when a resource of the step must be removed.
	Plugin string
	// Summary is one line for lists.
	Summary string
	// Doc is the help text: Markdown with YAML examples.
	Doc string
	// Schema is the JSON Schema (2020-12) of `with`. A string property with
	// "format": "gild-path" names a file or folder of the project that the step reads;
	// "gild-script" is a script, which names a file when it begins with "./" or "../"
	// and has no newline. Both end up in the step's key and in [Target.Inputs].
	Schema []byte
	// Outputs maps each output's name to its type: "string", "integer", "number", "boolean" or "list".
	Outputs map[string]string
	// Sections lists where the step may stand. Never empty.
	Sections []Section
	// Internal steps are placed by the engine; a file can't name them.
	Internal bool
	// Effect is what the step changes.
	Effect Effect
	// Cacheable says that the same key gives the same result, so a done step is not run again.
	Cacheable bool
	// Run does the work. config is the canonical JSON of `with`, defaults not filled in,
	// every expression evaluated.
	Run func(ctx context.Context, t *Target, config json.RawMessage) (Outputs, error)
	// Validate reports what is wrong with a config beyond its schema. It is quick, and uses
	// neither network nor machine. It is asked when every expression has its value. Nil
	// when the schema says it all.
	Validate func(ctx context.Context, config json.RawMessage) ([]Problem, error)
	// KeyParts names what else decides over the result, such as the version of a tool. The
	// same config gets the same parts. Nil when nothing does.
	KeyParts func(ctx context.Context, config json.RawMessage) (map[string]string, error)
	// Cleanup removes a resource that the step claimed and didn't settle. One that is gone,
	// or was never made, is no error. Nil when the step claims none.
	Cleanup func(ctx context.Context, r Resource) error
}

// Problem is something wrong with the config of a step.
type Problem struct {
	// Pointer is a JSON Pointer into the config; empty means the whole.
	Pointer string
	// Message says what is wrong, Hint what to do about it; the hint may be empty.
	Message, Hint string
	// Warning tells what may stay from what may not.
	Warning bool
}

// Resource is something outside that outlives the process that made it unless it is removed.
type Resource struct {
	// Kind is the maker's own word, such as "tmpdir" or "upload".
	Kind string
	// ID finds the resource again: a path, an address, a token in a process's arguments.
	ID string
	// Note says what it is for, to be shown to people.
	Note string
}

// Define returns meta with Run set to a typed function: C is decoded strictly from
// `with`, O is encoded as the outputs (use struct{} for none).
func Define[C, O any](meta Step, run func(ctx context.Context, t *Target, config C) (O, error)) Step {
	meta.Run = func(ctx context.Context, t *Target, raw json.RawMessage) (Outputs, error) {
		var config C
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&config); err != nil {
			return nil, fmt.Errorf("decode with: %w", err)
		}
		out, err := run(ctx, t, config)
		if err != nil {
			return nil, err
		}
		return encodeOutputs(out)
	}
	return meta
}

func encodeOutputs(v any) (Outputs, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode outputs: %w", err)
	}
	var out Outputs
	if err := json.Unmarshal(data, &out); err != nil {
		return nil, fmt.Errorf("encode outputs: %w", err)
	}
	return out, nil
}

// Skipped is the error of a step that found nothing to do.
// It ends the step as skipped, with the reason, and is not a failure.
type Skipped struct{ Reason string }

// Error returns the reason.
func (s *Skipped) Error() string { return "skipped: " + s.Reason }

// TestFailed is the error of a test whose assertion didn't hold: the image is at
// fault, not the world. A build that ends with one exits with code 3.
type TestFailed struct {
	// Checks are the assertions that failed, one line each.
	Checks []string
}

// Error lists the failed checks.
func (t *TestFailed) Error() string {
	if len(t.Checks) == 1 {
		return t.Checks[0]
	}
	s := fmt.Sprintf("%d checks failed", len(t.Checks))
	for _, c := range t.Checks {
		s += "\n  " + c
	}
	return s
}

// Permanent marks an error that a retry can't mend.
type Permanent struct{ Err error }

// Error returns the text of the wrapped error.
func (p *Permanent) Error() string { return p.Err.Error() }

// Unwrap returns the wrapped error.
func (p *Permanent) Unwrap() error { return p.Err }

// Target is what a step is given to work on.
type Target struct {
	// Machine is the machine to change (effect machine) or the guest booted from the
	// image (section tests; also a Guest). Nil in publish, copy and retain.
	Machine MachineHandle
	// Image is the image under work in sections tests, publish, copy and retain, else nil.
	Image *ImageInfo
	// Registry publishes, copies and retires images; nil outside publish, copy and retain.
	Registry Registry
	// Inputs are the project's files that `with` names, by the text that names them.
	Inputs map[string]Input
	// Env is the step's `env:`, secrets included. Pass it on only as the environment of Exec.
	Env map[string]string
	// SecretEnv names the variables of Env that hold secrets.
	SecretEnv []string
	// Log takes the step's output, line by line, secrets masked. Never nil.
	Log io.Writer
	// Progress reports work done; total 0 means unknown. Never nil.
	Progress func(done, total int64, unit string)
	// Clock is the build's clock (SOURCE_DATE_EPOCH): what a step writes as "now".
	Clock time.Time
	// Pipeline describes the image being built.
	Pipeline PipelineInfo
	// Claim records a resource durably. Only after it returns may the resource be made.
	// settle closes the claim: the resource is gone, or is meant to stay. What is still
	// open when the step ends, or when its process is found dead, is given to
	// [Step.Cleanup]. Never nil.
	Claim func(ctx context.Context, r Resource) (settle func(context.Context) error, err error)
	// Attempt counts from 1; more than 1 when the step is tried again.
	Attempt int
	// Token is constant over all attempts of this piece of work, in every process: for the
	// idempotency tokens of services.
	Token string
}

// Secrets returns the variables of Env that hold secrets.
func (t *Target) Secrets() map[string]string {
	secrets := map[string]string{}
	for _, name := range t.SecretEnv {
		secrets[name] = t.Env[name]
	}
	return secrets
}

// PipelineInfo names the image being built.
type PipelineInfo struct {
	Name    string
	Release string
	// Arch is the image's architecture in Go's names: "amd64" or "arm64".
	Arch string
}

// Input is a file or folder of the project, with the digest that is part of the key.
type Input interface {
	// IsDir tells a folder from a file.
	IsDir() bool
	// Files lists what is in it, sorted by path; a file has one entry with the path ".".
	Files() []InputFile
	// Open opens one entry. Reading fails when the content no longer has the digest
	// that was planned with.
	Open(rel string) (io.ReadCloser, error)
}

// InputFile is one entry of an [Input].
type InputFile struct {
	// Path is relative to the input, with forward slashes.
	Path string
	// Mode holds the type and permission bits.
	Mode fs.FileMode
	// Size in bytes; 0 for folders and links.
	Size int64
	// Link is the target of a symbolic link, else empty.
	Link string
}

// Cmd is a command to run on a machine. No shell is involved unless Argv names one.
type Cmd struct {
	// Argv is the program and its arguments; the program is looked up in the machine's PATH.
	Argv []string
	// Env is the whole environment on top of the machine's minimal one (PATH, HOME, LANG).
	Env map[string]string
	// Dir is the working directory; empty means "/".
	Dir string
	// Stdin is read until EOF; nil means an empty input.
	Stdin io.Reader
	// Stdout and Stderr take the output as it comes; nil discards it.
	Stdout, Stderr io.Writer
	// Network gives the command the host's network; without it there is only loopback.
	// Guests ignore it: they have the network they booted with.
	Network bool
}

// ExitError is the error of a command that ran and ended with a status other than 0.
type ExitError struct {
	Argv []string
	// Status is the exit status, or 128 plus the signal that ended it.
	Status int
}

// Error names the command and its status.
func (e *ExitError) Error() string {
	return fmt.Sprintf("%s: exit status %d", e.Argv[0], e.Status)
}

// PutFile says where and how [MachineHandle.Put] writes.
type PutFile struct {
	// Path is absolute on the machine. Links are resolved inside the machine's root.
	Path string
	// Mode holds the permission bits; 0 means 0644.
	Mode fs.FileMode
	// Owner and Group are names or numbers on the machine; empty means root.
	Owner, Group string
	// ModTime is set on the file unless zero.
	ModTime time.Time
	// Parents makes missing parent folders, mode 0755, owned by root.
	Parents bool
}

// Facts describe a machine.
type Facts struct {
	// OS and Version are ID and VERSION_ID of os-release, such as "debian" and "12".
	OS, Version string
	// Arch in Go's names.
	Arch string
	// PackageManager is "apt" or empty when none is known.
	PackageManager string
}

// MachineHandle is a machine a step can work on: a namespaced tree, a booted guest
// or an instance. It is safe for one call at a time, and is closed by the engine.
type MachineHandle interface {
	// Exec runs a command and waits for it. The error is an *ExitError when the command
	// ran and failed; cancelling ctx kills it with all its children.
	Exec(ctx context.Context, cmd Cmd) error
	// Put writes a file in one piece: a reader of it sees the old content or the new.
	Put(ctx context.Context, file PutFile, content io.Reader) error
	// Get copies the content of a file to w.
	// The error wraps fs.ErrNotExist when there is no such file.
	Get(ctx context.Context, path string, w io.Writer) error
	// Facts tells what the machine is.
	Facts(ctx context.Context) (Facts, error)
}

// Guest is a machine booted from the image under test. It has its own throw-away
// disk; nothing done to it reaches the image.
type Guest interface {
	MachineHandle
	// PoweredOn is when the guest was started.
	PoweredOn() time.Time
	// Dial connects to a TCP port of the guest through its network card.
	Dial(ctx context.Context, port int) (net.Conn, error)
	// Console returns the last bytes of the serial console, control characters removed.
	Console() string
}

// ImageInfo describes a finished image.
type ImageInfo struct {
	// Key is the key of the disk node: the image's identity in the cache.
	Key string
	// ID is what the builder's platform calls it, such as an AMI id, and Region where it is;
	// empty for an image that is files.
	ID, Region string
	// Size of the disk in bytes.
	Size int64
	// Files are the image's files, one per format.
	Files []ImageFile
}

// ImageFile is one file of an image.
type ImageFile struct {
	// Format is "raw" or "qcow2".
	Format string
	// Path on this machine, absolute.
	Path string
	// Size in bytes as `ls` shows it; Allocated is what it takes on disk.
	Size, Allocated int64
	// SHA256 is the lower-case hex digest of the file.
	SHA256 string
}

// Registry is where finished images are published: the catalog together with the
// builder's storage. Every call is idempotent: doing it again changes nothing.
type Registry interface {
	// Publish records the image under a name and release, gives it a build number,
	// and moves the channel to it when one is named.
	Publish(ctx context.Context, req PublishRequest) (PublishResult, error)
	// Copy copies the published image to a region and verifies the copy's digests.
	Copy(ctx context.Context, region string, progress func(done, total int64)) (CopyResult, error)
	// Retain removes older builds that the rule lets go, everywhere they are.
	Retain(ctx context.Context, rule RetainRule) ([]Retired, error)
}

// PublishRequest is what a pipeline's publish section asks for.
type PublishRequest struct {
	// Name is the image's full name, such as "web-1.4.0-amd64".
	Name string
	// Channel is a pointer to move to the image, or empty.
	Channel string
	Tags    map[string]string
	// DeprecateAfter is how long after publication the image counts as deprecated; 0 means never.
	DeprecateAfter time.Duration
}

// PublishResult is what publishing gave.
type PublishResult struct {
	// ID is the image's id in the catalog.
	ID string
	// Build counts from 1 within one name and release.
	Build int
}

// CopyResult is one region's copy.
type CopyResult struct {
	Region string
	// Location is where the copy is, such as a folder.
	Location string
}

// RetainRule says which older builds may go. An image stays when any rule keeps it,
// when a channel points to it, or when another image was built from it.
type RetainRule struct {
	// Keep is how many of the newest builds stay, the one just published included; 0 means no limit.
	Keep int
	// MaxAge lets builds older than it go even if Keep would keep them; 0 means no limit.
	MaxAge time.Duration
	// MinAge keeps every build younger than it.
	MinAge time.Duration
}

// Retired is an image that retention removed, with the reason.
type Retired struct {
	ID, Name string
	Build    int
	Reason   string
}
