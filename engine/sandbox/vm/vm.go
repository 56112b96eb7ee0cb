// Package vm makes the machines behind the sandbox's instances: QEMU guests that write
// their volumes in place.
//
// A [sandbox.MachineSpec] goes in, a running machine comes out. Disks, firmware, power
// button, console and the conversation with the image's agent are those of package guest;
// the network, with the metadata service in it, is that of package lan. The machine looks
// like an instance to what is in it: NVMe disks with the volumes' ids as serial numbers,
// the BIOS's words by which programs know EC2, and the addresses that its metadata tells.
//
// A machine dies with the process that started it, as in a power cut, and is found again
// by its instance's id. LIMITS.md says what isn't as on AWS.
package vm

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"regexp"
	"strings"

	"github.com/google/uuid"

	"github.com/gildhq/gild/engine/builder/local/guest"
	"github.com/gildhq/gild/engine/sandbox"
	"github.com/gildhq/gild/engine/sandbox/vm/lan"
	"github.com/gildhq/gild/engine/step"
)

// Config says how machines are made. The zero value works.
type Config struct {
	// CacheDir keeps what was found out about KVM; empty means that each machine finds out anew.
	CacheDir string
	// Accel is [guest.KVM], [guest.TCG], or empty for KVM where it works.
	Accel string
	// MaxMemoryMiB and MaxCPUs bound what a machine gets of its instance type's; 0 means
	// 2048 and 2.
	MaxMemoryMiB, MaxCPUs int
	// Env is added to the environment of the agent's commands, which win: a proxy, say.
	Env map[string]string
	// Log takes what goes wrong without failing a call; nil discards it.
	Log *slog.Logger
}

// AgentPorts begins the names of the virtio-serial ports that an image's agent speaks on;
// see [guest.AgentScript]. It isn't that of package guest, so that an image can have an
// agent of its own and be booted by that package too.
const AgentPorts = "gild.ssm"

// Machines starts machines. Safe for concurrent use.
type Machines struct{ config Config }

var (
	_ sandbox.Machines = (*Machines)(nil)
	_ sandbox.Reaper   = (*Machines)(nil)
	_ sandbox.Machine  = (*Machine)(nil)
	_ sandbox.Pauser   = (*Machine)(nil)
)

// New returns a maker of machines.
func New(c Config) *Machines {
	if c.MaxMemoryMiB == 0 {
		c.MaxMemoryMiB = 2048
	}
	if c.MaxCPUs == 0 {
		c.MaxCPUs = 2
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Machines{config: c}
}

// Kill ends the machine of an instance, whichever process started it, and returns when it
// is gone. That there is none is no error.
func Kill(instanceID string) error { return guest.Kill(instanceID) }

// Reap ends the machines of these instances that a dead process left.
func (m *Machines) Reap(_ context.Context, instanceIDs []string) error {
	var errs []error
	for _, id := range instanceIDs {
		errs = append(errs, Kill(id))
	}
	return errors.Join(errs...)
}

// Start starts a machine. One of the same instance that another process has left behind is
// ended first.
func (m *Machines) Start(ctx context.Context, spec sandbox.MachineSpec) (sandbox.Machine, error) {
	started, err := m.start(ctx, spec)
	if err != nil {
		return nil, fmt.Errorf("start the machine of %s: %w", spec.InstanceID, err)
	}
	return started, nil
}

func (m *Machines) start(ctx context.Context, spec sandbox.MachineSpec) (_ *Machine, err error) {
	public, err := netip.ParseAddr(spec.Address)
	if err != nil && spec.Address != "" {
		return nil, fmt.Errorf("its public address: %w", err)
	}
	if err := Kill(spec.InstanceID); err != nil {
		return nil, err
	}
	about := askMetadata(spec.Metadata)
	network, wire, err := lan.New(lan.Config{Machine: about.address, Public: public, Metadata: spec.Metadata, Log: m.config.Log})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, wire.Close()) }()
	if err := network.Forward(spec.Ports); err != nil {
		return nil, errors.Join(err, network.Close())
	}
	machine, err := guest.Run(ctx, guest.MachineConfig{
		Disks: disks(spec.Disks), Network: wire, MAC: about.mac, SMBIOS: smbios(spec.InstanceID, about.kind), AgentPorts: AgentPorts,
		Arch: spec.Arch, Firmware: spec.Firmware, Token: spec.InstanceID, Dir: spec.Dir,
		MemoryMiB: min(spec.MemoryMiB, m.config.MaxMemoryMiB), CPUs: min(spec.CPUs, m.config.MaxCPUs),
		Accel: m.config.Accel, CacheDir: m.config.CacheDir,
	})
	if err != nil {
		return nil, errors.Join(err, network.Close())
	}
	started := &Machine{guest: machine, network: network, env: m.config.Env, done: make(chan struct{})}
	go func() {
		<-machine.Done()
		if err := network.Close(); err != nil {
			m.config.Log.Warn("close a machine's network", "instance", spec.InstanceID, "err", err)
		}
		close(started.done)
	}()
	return started, nil
}

// disks are named as EBS volumes are: without the dash of the id.
func disks(attached []sandbox.MachineDisk) []guest.Disk {
	var list []guest.Disk
	for _, d := range attached {
		list = append(list, guest.Disk{Path: d.Path, Serial: strings.ReplaceAll(d.VolumeID, "-", "")})
	}
	return list
}

var notPlain = regexp.MustCompile(`[^a-z0-9.-]`)

// smbios are the words by which programs know an EC2 instance.
func smbios(instanceID, kind string) []string {
	digest := sha256.Sum256([]byte(instanceID))
	id := "ec2" + uuid.UUID(digest[:16]).String()[3:]
	return []string{
		"type=0,vendor=Amazon EC2,version=1.0",
		"type=1,manufacturer=Amazon EC2,product=" + notPlain.ReplaceAllString(kind, "") + ",serial=" + id + ",uuid=" + id,
		"type=2,manufacturer=Amazon EC2,asset=" + notPlain.ReplaceAllString(instanceID, ""),
		"type=3,manufacturer=Amazon EC2,asset=Amazon EC2",
	}
}

// Machine is a running machine. Safe for concurrent use.
type Machine struct {
	guest   *guest.Machine
	network *lan.LAN
	env     map[string]string
	done    chan struct{} // closed when the process and the network are gone
}

// Ready is closed when the agent of the image has answered for the first time. An image
// without one is never ready.
func (m *Machine) Ready() <-chan struct{} { return m.guest.Ready() }

// Done is closed when the machine is off and its address free.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Exec runs a command through the image's agent, one at a time. It waits for the agent
// while the system starts again; a command that the restart has cut fails.
func (m *Machine) Exec(ctx context.Context, cmd step.Cmd) error {
	env := maps.Clone(m.env)
	if env == nil {
		env = map[string]string{}
	}
	maps.Copy(env, cmd.Env)
	cmd.Env = env
	return m.guest.Exec(ctx, cmd)
}

// SetPorts lets exactly these TCP ports in. Connections that there are stay.
func (m *Machine) SetPorts(ports []int) error { return m.network.Forward(ports) }

// Console returns what the serial console said last, control characters removed.
func (m *Machine) Console() string { return m.guest.Console() }

// Reboot restarts the system as its power button would stop it, and by force at the end of ctx.
func (m *Machine) Reboot(ctx context.Context) error { return m.guest.Reboot(ctx) }

// Pause holds the machine still while its disks are copied.
func (m *Machine) Pause(ctx context.Context) (resume func() error, err error) {
	return m.guest.Pause(ctx)
}

// Stop presses the power button and waits until the machine is off, which it is by force
// at the end of ctx.
func (m *Machine) Stop(ctx context.Context) error {
	err := m.guest.Stop(ctx)
	<-m.done
	return err
}

// Kill ends the machine at once, as a power cut would.
func (m *Machine) Kill() error {
	err := m.guest.Kill()
	<-m.done
	return err
}
