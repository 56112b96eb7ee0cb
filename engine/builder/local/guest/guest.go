// Package guest boots a throw-away copy of a raw disk image in QEMU and runs commands
// in it, so that tests can look at the image as it boots.
//
// A raw disk goes in; a running machine comes out. The disk itself is never written
// and never booted: Start copies it sparsely, puts a small agent on the copy (a unit
// and a POSIX shell script, see agent.sh), and boots the copy through its own firmware,
// boot loader, kernel and init. The agent needs nothing but what a minimal Debian or
// Ubuntu has, speaks over virtio-serial, and starts before everything else, so that a
// boot that hangs can still be asked why.
//
// The guest has a network card on which it gets an address, and no way out: nothing of
// the host or beyond can be reached from it. Connections go only from the host to the
// guest ([Guest.Dial]).
//
// [Run] starts the other kind of machine, for those who mean its disks: it writes them in
// place, puts nothing on them, and may restart.
//
// A guest dies with the process that started it. The package never removes the folder
// it was given: the caller does, after Close or [Kill].
package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/gildhq/gild/engine/step"
)

var _ step.Guest = (*Guest)(nil)

// Accelerators of [Config].
const (
	KVM = "kvm"
	TCG = "tcg"
)

// answerTimeout bounds a boot whose context has no deadline. It is many times what a
// boot takes without KVM on a busy machine.
const answerTimeout = 5 * time.Minute

// Config says what to boot and how.
type Config struct {
	// Disk is the raw image. It is only read.
	Disk string
	// RootOffset is where the ext4 root file system starts in Disk, in bytes; 0 means
	// that it is looked up in the partition table.
	RootOffset int64
	// Arch in Go's names: "amd64" or "arm64".
	Arch string
	// Firmware is "bios" or "uefi".
	Firmware string
	// MemoryMiB of the guest; 0 means 1024.
	MemoryMiB int
	// CPUs of the guest; 0 means 2.
	CPUs int
	// Dir is an empty folder for the copy of the disk, best on the file system of Disk.
	// The caller makes and removes it.
	Dir string
	// Token finds the guest's process again, see [Kill]: letters, digits, '-', '_' and '.'.
	Token string
	// Accel is [KVM], [TCG], or empty for KVM where it works.
	Accel string
	// CacheDir keeps what [WorkingKVM] found out when Accel is empty; empty means Dir.
	CacheDir string
	// Log takes the serial console line by line, control characters removed; nil discards it.
	Log io.Writer
}

var tokenRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

func (c *Config) fill() error {
	if c.MemoryMiB == 0 {
		c.MemoryMiB = 1024
	}
	if c.CPUs == 0 {
		c.CPUs = 2
	}
	if c.CacheDir == "" {
		c.CacheDir = c.Dir
	}
	if c.Log == nil {
		c.Log = io.Discard
	}
	switch {
	case c.MemoryMiB < 0 || c.CPUs < 0:
		return fmt.Errorf("%d MiB of memory and %d processors: both must be positive", c.MemoryMiB, c.CPUs)
	case !tokenRE.MatchString(c.Token):
		return fmt.Errorf("token %q: only letters, digits, '-', '_' and '.' are allowed", c.Token)
	case c.Accel != "" && c.Accel != KVM && c.Accel != TCG:
		return fmt.Errorf("accelerator %q: give %q, %q or nothing", c.Accel, KVM, TCG)
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return err
	}
	c.Dir = dir
	return nil
}

// BootError is the error of an image that didn't boot: the image is at fault, not the host.
type BootError struct {
	// Reason is what was seen.
	Reason string
	// Console is the end of what the serial console said.
	Console string
}

// Error gives the reason and the last lines of the console.
func (e *BootError) Error() string {
	if e.Console == "" {
		return e.Reason + "; the serial console said nothing"
	}
	return e.Reason + "; the serial console ended with:\n" + e.Console
}

// Unwrap makes it a failed test, whichever call of a test it comes from.
func (e *BootError) Unwrap() error { return &step.TestFailed{Checks: []string{e.Error()}} }

// Guest is a running guest. Exec, Put, Get and Facts run one at a time, in the order of
// their calls; everything else may be called at any time.
type Guest struct {
	qemu      *qemu
	agent     *agent
	console   *console
	forwards  forwards
	poweredOn time.Time

	mu sync.Mutex // one command at a time

	close func() error // closes the channels to QEMU, once

	end     sync.Once
	ended   chan struct{}
	endedBy error // set before ended is closed
}

// Start boots a copy of the disk and returns when commands can be run in it, which is
// early in the boot. It fails with a [*BootError] when the image doesn't get that far:
// as soon as the console or QEMU tells, at the deadline of ctx, or after five minutes if
// ctx has none. ctx doesn't limit the guest's life: Close does.
func Start(ctx context.Context, c Config) (*Guest, error) {
	if err := c.fill(); err != nil {
		return nil, fmt.Errorf("boot %s: %w", c.Disk, err)
	}
	g, err := start(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("boot %s with %s: %w", c.Disk, c.Firmware, err)
	}
	return g, nil
}

func start(ctx context.Context, c Config) (*Guest, error) {
	m, err := chooseMachine(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := makeDisk(ctx, c); err != nil {
		return nil, err
	}
	q, err := startQEMU(c, m, throwAway())
	if err != nil {
		return nil, err
	}
	g := &Guest{qemu: q, poweredOn: q.started, close: sync.OnceValue(q.close), ended: make(chan struct{})}
	g.forwards.qmp = q.qmp
	g.forwards.byPort = make(map[int]string)
	g.agent = newAgent(q.ports)
	g.console = newConsole(c.Log, g.sawFault)
	go g.console.read(q.serial)
	go g.watch()
	if err := g.waitForAgent(ctx); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

// watch notes the end of QEMU's process.
func (g *Guest) watch() {
	<-g.qemu.done
	// The reader ends with the process: what it said last belongs to the reason.
	<-g.console.done
	if g.qemu.err != nil {
		g.fail(g.qemu.crash())
		return
	}
	g.fail(&BootError{Reason: g.qemu.qmp.shutdownReason(), Console: g.console.tail()})
}

// sawFault is told by the console that the guest can't go on. A guest that answers can
// be asked what is wrong with it, unless its kernel is gone.
func (g *Guest) sawFault(reason string, fatal bool) {
	// The lines that explain it, or the agent's first words, may still be on their way.
	time.AfterFunc(faultDelay, func() {
		if !fatal && g.agent.answered() {
			return
		}
		g.fail(&BootError{Reason: reason, Console: g.console.tail()})
	})
}

// faultDelay is how long the console is read on after a fault was seen.
const faultDelay = 500 * time.Millisecond

// fail ends the guest; every call that waits for it returns err.
func (g *Guest) fail(err error) {
	g.end.Do(func() {
		g.endedBy = err
		close(g.ended)
		g.qemu.kill()
	})
}

func (g *Guest) waitForAgent(ctx context.Context) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, answerTimeout)
		defer cancel()
	}
	select {
	case <-g.agent.hello:
		return nil
	case <-g.ended:
		return g.endedBy
	case <-ctx.Done():
		if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return context.Cause(ctx)
		}
		waited := time.Since(g.poweredOn).Round(time.Second)
		return &BootError{Reason: fmt.Sprintf("no answer from the guest within %s", waited), Console: g.console.tail()}
	}
}

// PoweredOn is when QEMU was started.
func (g *Guest) PoweredOn() time.Time { return g.poweredOn }

// Console returns the last bytes of the serial console, control characters removed:
// at most 64 KiB.
func (g *Guest) Console() string { return g.console.text() }

var errClosed = errors.New("the guest is closed")

// Close ends the guest at once, without shutting it down: its disk is thrown away.
// Calling it again does nothing.
func (g *Guest) Close() error {
	g.fail(errClosed)
	<-g.qemu.done
	<-g.console.done
	return g.close()
}

// Tool is a program of the host that guests need.
type Tool struct {
	// Name is the program, or the absolute path of a file.
	Name string
	// Package is what it is in, in Debian's and Ubuntu's names.
	Package string
	// Why is what it is needed for.
	Why string
}

// Tools lists what the host needs to boot guests of its own architecture.
func Tools() []Tool {
	return []Tool{
		{"qemu-system-x86_64", "qemu-system-x86", "boots images for their tests"},
		{"debugfs", "e2fsprogs", "puts the test agent on the throw-away copy of a disk"},
		{platforms["amd64"].firmware[0][0], "ovmf", "the UEFI firmware that images are booted with"},
	}
}
