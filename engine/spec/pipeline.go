package spec

import (
	"time"

	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/step"
)

// Pipeline is one image asked for: a pipeline file with its params given and one
// combination of its matrix chosen. Every expression that can be evaluated before a
// run has been; what needs secrets or another step's outputs waits in a [Value].
type Pipeline struct {
	// File is the path as the user gave it.
	File string
	// Name, Release and Description are the file's own.
	Name, Release, Description string
	// Cell names the matrix combination, such as "arch=amd64,flavour=slim", keys sorted;
	// empty without a matrix.
	Cell string
	// Matrix holds the combination's values.
	Matrix map[string]any
	// Arch is the image's architecture in Go's names; "amd64" unless the matrix has `arch`.
	Arch string
	// Params are the typed values of all params, defaults filled in.
	Params map[string]any
	// Secrets are references, never values, by name.
	Secrets map[string]Secret
	// Builder is the kind of builder to use: "local" or "aws".
	Builder string
	Local   LocalBuilder
	// AWS is set when the file has builders.aws.
	AWS  *AWSBuilder
	Base Base
	// Steps are those of customize and tests, in file order, customize first.
	Steps []Step
	// Harden, Publish, Copy and Retain are nil when the file doesn't have them.
	Harden  *Harden
	Publish *Publish
	Copy    *Copy
	Retain  *Retain
}

// Formats are the formats of the image's files; none where an image isn't files.
func (p *Pipeline) Formats() []string {
	if p.Builder == "aws" {
		return nil
	}
	return p.Local.Formats
}

// Firmware lists what the image must boot with, the first being what tests run with.
func (p *Pipeline) Firmware() []string {
	if p.Builder == "aws" {
		// An AMI has one boot mode, and EC2 chooses the firmware by it.
		return []string{"ec2"}
	}
	return p.Local.Firmware
}

// BuilderPos is the place of the settings of the pipeline's builder, zero when there are none.
func (p *Pipeline) BuilderPos() diag.Pos {
	if p.Builder == "aws" && p.AWS != nil {
		return p.AWS.Pos
	}
	return p.Local.Pos
}

// Secret says where a secret comes from. It never holds the value.
type Secret struct {
	// Source is "env", "file", "aws-ssm", "aws-secretsmanager" or "exec".
	Source string
	// Ref is the variable, path or name; Argv the command of an exec secret.
	Ref  string
	Argv []string
	Pos  diag.Pos
}

// Step is one step of a pipeline.
type Step struct {
	// ID is the file's `id`, or made from `uses` and the position: "packages", "packages-2".
	// Unique within the pipeline.
	ID      string
	Section step.Section
	// Uses is the name of the step's kind.
	Uses string
	Pos  diag.Pos
	With Value
	Env  map[string]Value
	// When is whether the step runs: nil for always; else a Value that evaluates to a bool.
	// A condition known before the run that is false leaves the step in place, with Skip set.
	When *Value
	// Skip is the reason the step won't run, empty when it will.
	Skip string
	// Needs are ids of steps of the same section that must be done before. NeedsSet tells
	// an empty list given by the user from an absent one (which means the previous step).
	Needs    []string
	NeedsSet bool
	// NeedsPos is the place of each entry of Needs.
	NeedsPos []diag.Pos
	// Timeout of one attempt; 0 means the engine's default.
	Timeout time.Duration
	Retry   Retry
	// ContinueOnError lets the run go on when the step fails.
	ContinueOnError bool
	// Checkpoint keeps the machine's state after the step, where builders don't keep all.
	Checkpoint bool
}

// Waits tells a config that has no value before other steps have run: it uses their outputs.
func (s *Step) Waits() bool { return len(s.With.Steps()) > 0 }

// Retry says how often a failed step is tried again. The zero value means never.
type Retry struct {
	// Attempts is the number of tries in all; 0 and 1 both mean one.
	Attempts int
	// Backoff is the pause before the second try; it doubles with each further one.
	Backoff time.Duration
}

// LocalBuilder is builders.local with defaults filled in.
type LocalBuilder struct {
	// DiskSize in bytes, a multiple of 1 MiB.
	DiskSize int64
	// Formats holds "raw" and "qcow2"; raw is always made, but kept only when listed.
	Formats []string
	// Firmware holds "bios" and "uefi"; never empty.
	Firmware []string
	Pos      diag.Pos
}

// Base says what the image starts from. Exactly one of Distro, Image, AMI, SSM and Other
// is set, or Known alone.
type Base struct {
	Pos    diag.Pos
	Distro *DistroBase
	Image  *ImageBase
	AMI    *AMIBase
	// SSM is the parameter that holds the id of an AMI.
	SSM string
	// Known is set for every short form: with Distro where an archive has the distribution too.
	Known *KnownBase
	// Other holds a base that is part of the language but made by no builder here yet:
	// "disk", "rootfs" or "oci".
	Other string
}

// Form is the key that gives the base in the language, such as "debian" or "ami".
func (b Base) Form() string {
	switch {
	case b.Distro != nil:
		return b.Distro.Distro
	case b.Image != nil:
		return "image"
	case b.AMI != nil:
		return "ami"
	case b.SSM != "":
		return "ssm"
	case b.Known != nil:
		return b.Known.Name
	}
	return b.Other
}

// KnownBase is the system of a publisher that builders know, given in the short form.
type KnownBase struct {
	// Name is "debian", "ubuntu", "amazon-linux", "rhel", "rocky" or "alma".
	Name string
	// Version is as people say it: "12", "24.04", "2023".
	Version string
}

// DistroBase is a Debian or Ubuntu root file system made from an archive.
type DistroBase struct {
	// Distro is "debian" or "ubuntu".
	Distro string
	// Suite is the archive's code name, such as "bookworm".
	Suite string
	// Variant is mmdebstrap's: "minbase" (default), "important", "standard", ...
	Variant string
	// Snapshot is a time stamp like 20261101T000000Z, or empty.
	Snapshot string
	// Mirror is the archive's address; empty means the host's configuration or the tool's own.
	Mirror string
	// Packages are installed with the base, on top of what makes it boot.
	Packages []string
	// Bootable tells whether a kernel and init are part of it; true unless the file says no.
	Bootable bool
}

// AMIBase is an AMI.
type AMIBase struct {
	// ID of the AMI; empty means the newest with the Name.
	ID string
	// Owner is an account, "amazon" or "self". Never empty.
	Owner string
	// Name may hold the wildcards * and ?.
	Name string
	// Deprecated lets a deprecated AMI be used.
	Deprecated bool
}

// ImageBase is another image of the catalog.
type ImageBase struct {
	// Name is the pipeline's name, Channel the channel ("latest" means the newest build).
	Name, Channel string
}

// Harden is the harden section.
type Harden struct {
	Profile string
	Except  []Exception
	Pos     diag.Pos
}

// Exception lets one control of a profile fail.
type Exception struct {
	Control, Reason string
	Until           time.Time
	Pos             diag.Pos
}

// Publish is the publish section.
type Publish struct {
	Name    string
	Channel string
	Tags    map[string]string
	Share   *Share
	// DeprecateAfter is 0 for never.
	DeprecateAfter time.Duration
	Pos            diag.Pos
}

// Share says who else may use the image.
type Share struct {
	Accounts, Organizations []string
	Public                  bool
	Pos                     diag.Pos
}

// Copy is the copy section.
type Copy struct {
	Regions []string
	// KMSKey is encrypt.kms-key, or empty.
	KMSKey string
	// EncryptPos is the place of `encrypt`, zero when absent.
	EncryptPos diag.Pos
	Pos        diag.Pos
}

// Retain is the retain section.
type Retain struct {
	Keep           int
	MaxAge, MinAge time.Duration
	Pos            diag.Pos
}
