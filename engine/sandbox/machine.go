package sandbox

import (
	"context"
	"net/http"

	"github.com/gildhq/gild/engine/step"
)

// Machines makes the machines behind instances.
type Machines interface {
	// Start starts a machine on the disks of an instance, which it writes in place, and
	// returns as soon as it runs: [Machine.Ready] tells when it answers. ctx bounds the
	// start only; the machine goes on after it has ended.
	Start(ctx context.Context, spec MachineSpec) (Machine, error)
}

// MachineSpec says which machine to start.
type MachineSpec struct {
	// InstanceID is the instance's id, "i-0123456789abcdef0". A machine's process can be
	// found by it after a crash.
	InstanceID string
	// Disks are the attached volumes, the root volume first.
	Disks []MachineDisk
	// Arch in Go's names.
	Arch string
	// Firmware is "bios" or "uefi".
	Firmware string
	// MemoryMiB and CPUs of the instance type.
	MemoryMiB, CPUs int
	// Address is the instance's public address, one of the loopback network: the
	// machine's ports that a security group lets in are reached there.
	Address string
	// Ports are the TCP ports that are let in.
	Ports []int
	// Metadata is the instance metadata service, to be reached from inside the machine at
	// 169.254.169.254 port 80.
	Metadata http.Handler
	// Dir is an empty folder that is the machine's until it has ended.
	Dir string
}

// MachineDisk is one disk of a machine.
type MachineDisk struct {
	// Device is the name in the block device mapping, such as "/dev/xvda".
	Device string
	// Path of the raw file with the bytes.
	Path string
	// VolumeID is the serial number that the machine sees.
	VolumeID string
}

// Machine is a running machine. Safe for concurrent use.
type Machine interface {
	// Ready is closed when Exec can be used, which says nothing about the boot being complete.
	Ready() <-chan struct{}
	// Done is closed when the machine is off, by itself or by a call.
	Done() <-chan struct{}
	// Exec runs a command as root, as an agent in the machine would.
	Exec(ctx context.Context, cmd step.Cmd) error
	// SetPorts changes which TCP ports are let in.
	SetPorts(ports []int) error
	// Console returns what the serial console said last, at most 64 KiB.
	Console() string
	// Reboot asks the machine's system to restart.
	Reboot(ctx context.Context) error
	// Stop shuts the machine down, so that its disks are complete, and by force at the end of ctx.
	Stop(ctx context.Context) error
	// Kill ends it at once. Calling it again, or after it has ended, does nothing.
	Kill() error
}
