package vm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/builder/local/guest"
	cloud "github.com/gildhq/gild/engine/sandbox"
	"github.com/gildhq/gild/engine/step"
)

// TestMachine starts one machine and uses it for all that a machine can do; the last test
// stops it.
func TestMachine(t *testing.T) {
	t.Parallel()
	root, data := rootDisk(t), blankDisk(t)
	m := launch(t, cloud.MachineSpec{
		InstanceID: "i-00000000000000001", Firmware: "bios", Address: "127.77.2.1",
		Disks: []cloud.MachineDisk{{Path: root, VolumeID: "vol-00000000000000001"}, {Path: data, VolumeID: "vol-00000000000000002"}},
	})
	for _, test := range []struct {
		name string
		run  func(*testing.T, cloud.Machine)
	}{
		{"restarts while it starts", testEarlyReboot},
		{"looks like an instance", testLooks},
		{"metadata", testMetadata},
		{"ports", testPorts},
		{"held still", testPause},
		{"rebooted", testReboot},
		{"reboots by itself", testOwnReboot},
		{"one machine to a disk", func(t *testing.T, _ cloud.Machine) { testLocked(t, root) }},
		{"stopped", func(t *testing.T, m cloud.Machine) { testStop(t, m, root, data) }},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, m) })
	}
}

// testEarlyReboot restarts by force a system that doesn't know of its power button yet.
func testEarlyReboot(t *testing.T, m cloud.Machine) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	must(t, m.Reboot(ctx))
	ready(t, m)
}

func testLooks(t *testing.T, m cloud.Machine) {
	const script = `cd /sys/class/dmi/id
echo $(cat sys_vendor bios_vendor product_name board_asset_tag)
[ $(cat product_uuid) = $(cat product_serial) ] && cut -c1-3 product_uuid
echo $(cat /sys/block/nvme?n1/device/serial)
cat /sys/class/net/en*/address
networkctl --no-pager status 2>/dev/null | grep -q . || true
until ip -4 -o addr show scope global | grep -q .; do sleep 0.2; done
ip -4 -o addr show scope global | sed 's/.*inet \([^ ]*\).*/\1/'
ip route show default | cut -d' ' -f1-3
`
	want := `Amazon EC2 Amazon EC2 t3.small i-00000000000000001
ec2
vol00000000000000001 vol00000000000000002
02:11:22:33:44:55
172.31.16.77/20
default via 172.31.16.1`
	if diff := cmp.Diff(want, output(t, m, script)); diff != "" {
		t.Errorf("the machine (-want +got):\n%s", diff)
	}
	if !strings.Contains(m.Console(), "Linux version 6.1") {
		t.Errorf("no kernel on the console:\n%s", m.Console())
	}
}

// testMetadata asks the metadata service several times at once.
func testMetadata(t *testing.T, m cloud.Machine) {
	const script = `ask() {
	exec 3<>/dev/tcp/169.254.169.254/80
	printf 'GET /latest/meta-data/instance-type HTTP/1.0\r\nX-aws-ec2-metadata-token: %s\r\n\r\n' "$1" >&3
	sed -n '1p;$p' <&3
}
for i in 1 2 3 4 5 6 7 8; do ask a-token & done
wait
ask none
`
	got := output(t, m, script)
	if n := strings.Count(got, "200 OK\r\nt3.small"); n != 8 {
		t.Errorf("%d of 8 questions were answered:\n%s", n, got)
	}
	if !strings.Contains(got, "401 Unauthorized") {
		t.Errorf("a question without a token was answered:\n%s", got)
	}
}

func testPorts(t *testing.T, m cloud.Machine) {
	output(t, m, "systemd-run -q --unit=echo systemd-socket-activate -l 7 --accept --inetd cat")
	must(t, m.SetPorts([]int{7}))
	var got string
	for deadline := time.Now().Add(time.Minute); got == "" && time.Now().Before(deadline); {
		// The service may not listen yet: the connection is reset then.
		got = echo("127.77.2.1:7")
	}
	if got != "hello\n" {
		t.Errorf("the echo is %q", got)
	}
	must(t, m.SetPorts(nil))
	if _, err := net.Dial("tcp", "127.77.2.1:7"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a port that isn't let in: %v, want that it is refused", err)
	}
}

// echo returns the line that comes back, or nothing.
func echo(address string) string {
	conn, err := net.DialTimeout("tcp", address, 20*time.Second)
	if err != nil {
		return ""
	}
	defer conn.Close()
	if conn.SetDeadline(time.Now().Add(20*time.Second)) != nil {
		return ""
	}
	if _, err := fmt.Fprintln(conn, "hello"); err != nil {
		return ""
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return ""
	}
	return line
}

// testPause checks that a machine does nothing while it is held still.
func testPause(t *testing.T, m cloud.Machine) {
	resume, err := m.(cloud.Pauser).Pause(t.Context())
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- m.Exec(t.Context(), step.Cmd{Argv: []string{"true"}}) }()
	select {
	case err := <-done:
		t.Errorf("a machine that is held still ran a command: %v", err)
	case <-ctx.Done():
	}
	must(t, resume())
	must(t, <-done)
}

const bootID = "cat /proc/sys/kernel/random/boot_id"

func testReboot(t *testing.T, m cloud.Machine) {
	before := output(t, m, bootID+"; echo kept >/root/kept")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	must(t, m.Reboot(ctx))
	if ctx.Err() != nil {
		t.Error("the system didn't obey the power button")
	}
	if after := output(t, m, bootID); after == before {
		t.Error("the system is the same after a reboot")
	}
	if kept := output(t, m, "cat /root/kept"); kept != "kept" {
		t.Errorf("the file written before the reboot holds %q", kept)
	}
}

func testOwnReboot(t *testing.T, m cloud.Machine) {
	before := output(t, m, bootID)
	err := m.Exec(t.Context(), step.Cmd{Argv: []string{"sh", "-c", "systemctl reboot; sleep 1000"}})
	if err == nil || !strings.Contains(err.Error(), "was restarted") {
		t.Errorf("a command during a reboot: %v, want that the restart ended it", err)
	}
	if after := output(t, m, bootID); after == before {
		t.Error("the system is the same after its reboot")
	}
}

func testLocked(t *testing.T, root string) {
	_, err := New(Config{Accel: guest.TCG}).Start(t.Context(), cloud.MachineSpec{
		InstanceID: "i-00000000000000002", Firmware: "bios", Arch: "amd64", Dir: t.TempDir(), MemoryMiB: 64, CPUs: 1,
		Disks: []cloud.MachineDisk{{Path: root, VolumeID: "vol-1"}},
	})
	if err == nil || !strings.Contains(err.Error(), "lock") {
		t.Errorf("a second machine on a disk: %v, want that the disk is locked", err)
	}
}

func testStop(t *testing.T, m cloud.Machine, root, data string) {
	output(t, m, "echo last >/root/last; printf 'bytes of the second disk' | dd of=/dev/nvme1n1 conv=notrunc 2>/dev/null")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	must(t, m.Stop(ctx))
	if ctx.Err() != nil {
		t.Error("the system didn't obey the power button")
	}
	select {
	case <-m.Done():
	default:
		t.Error("the machine isn't off after Stop")
	}
	if err := m.Exec(t.Context(), step.Cmd{Argv: []string{"true"}}); !errors.Is(err, guest.ErrOff) {
		t.Errorf("Exec in a machine that is off: %v", err)
	}
	must(t, m.Stop(t.Context()))
	// The third partition, after GRUB's and the EFI system partition.
	const rootAt = "?offset=69206016"
	if out, err := exec.Command("e2fsck", "-fn", root+rootAt).CombinedOutput(); err != nil {
		t.Errorf("the root file system isn't complete: %v\n%s", err, out)
	}
	out, err := exec.Command("debugfs", "-R", "cat /root/last", root+rootAt).Output()
	must(t, err)
	if string(out) != "last\n" {
		t.Errorf("/root/last on the disk holds %q", out)
	}
	bytes, err := os.ReadFile(data)
	must(t, err)
	if got := string(bytes[:24]); got != "bytes of the second disk" {
		t.Errorf("the second disk begins with %q", got)
	}
}

func TestUEFI(t *testing.T) {
	t.Parallel()
	m := launch(t, cloud.MachineSpec{
		InstanceID: "i-00000000000000003", Firmware: "uefi", Disks: []cloud.MachineDisk{{Path: rootDisk(t), VolumeID: "vol-1"}},
	})
	ready(t, m)
	if got := output(t, m, "ls -d /sys/firmware/efi; cat /sys/class/dmi/id/sys_vendor"); got != "/sys/firmware/efi\nAmazon EC2" {
		t.Errorf("the firmware is %q", got)
	}
}

// TestForce stops and reboots a machine that has nothing to boot.
func TestForce(t *testing.T) {
	t.Parallel()
	m := launch(t, cloud.MachineSpec{
		InstanceID: "i-00000000000000004", Firmware: "bios", Disks: []cloud.MachineDisk{{Path: blankDisk(t), VolumeID: "vol-1"}},
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	must(t, m.Reboot(ctx))
	select {
	case <-m.Done():
		t.Fatal("a forced restart ended the machine")
	default:
	}
	must(t, m.Stop(ctx))
	<-m.Done()
	must(t, m.Kill())
	if err := m.Reboot(t.Context()); !errors.Is(err, guest.ErrOff) {
		t.Errorf("Reboot of a machine that is off: %v", err)
	}
	select {
	case <-m.Ready():
		t.Error("a machine without an agent is ready")
	default:
	}
}

func TestStartRefused(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.77.2.9:0")
	must(t, err)
	t.Cleanup(func() { must(t, taken.Close()) })
	_, port, err := net.SplitHostPort(taken.Addr().String())
	must(t, err)
	var used int
	_, err = fmt.Sscan(port, &used)
	must(t, err)
	blank := blankDisk(t)
	for _, test := range []struct {
		name   string
		change func(*cloud.MachineSpec)
		want   string
	}{
		{"address", func(s *cloud.MachineSpec) { s.Address = "192.0.2.1" }, "give one of 127.0.0.0/8"},
		{"no address", func(s *cloud.MachineSpec) { s.Address = "here" }, "its public address"},
		{"port", func(s *cloud.MachineSpec) { s.Address, s.Ports = "127.77.2.9", []int{used} }, "another program of this host"},
		{"id", func(s *cloud.MachineSpec) { s.InstanceID = "i 1" }, "not a token"},
		{"architecture", func(s *cloud.MachineSpec) { s.Arch = "vax" }, `no machine for architecture "vax"`},
		{"no disks", func(s *cloud.MachineSpec) { s.Disks = nil }, "needs a disk"},
		{"no such disk", func(s *cloud.MachineSpec) { s.Disks[0].Path = "/nowhere/at,all" }, "/nowhere/at,all"},
		{"volume", func(s *cloud.MachineSpec) { s.Disks[0].VolumeID = "vol-1,bootindex=7" }, "serial number"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			spec := cloud.MachineSpec{
				InstanceID: "i-00000000000000005", Firmware: "bios", Arch: "amd64", Dir: t.TempDir(), MemoryMiB: 64, CPUs: 1,
				Disks: []cloud.MachineDisk{{Path: blank, VolumeID: "vol-1"}},
			}
			test.change(&spec)
			m, err := New(Config{Accel: guest.TCG}).Start(t.Context(), spec)
			if err == nil {
				must(t, m.Kill())
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v\nwant %q in it", err, test.want)
			}
		})
	}
}

const (
	abandonEnv = "GILD_TEST_ABANDON"
	abandoned  = "i-0000000000000000a"
)

// abandon starts a machine and never ends it.
func abandon(dir string) error {
	m, err := New(Config{Accel: guest.TCG}).Start(context.Background(), cloud.MachineSpec{
		InstanceID: abandoned, Firmware: "bios", Arch: "amd64", Dir: dir, MemoryMiB: 64, CPUs: 1,
		Disks: []cloud.MachineDisk{{Path: filepath.Join(dir, "blank.raw"), VolumeID: "vol-1"}},
	})
	if err != nil {
		return err
	}
	fmt.Println("started")
	<-m.Done()
	return errors.New("the machine ended")
}

// TestReap ends a machine of another process, and sees a machine end with its process.
func TestReap(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"reaped", "killed with its process"} {
		cmd := exec.Command(os.Args[0])
		blank := blankDisk(t)
		cmd.Env = append(os.Environ(), abandonEnv+"="+filepath.Dir(blank))
		stdout, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		if _, err := io.ReadFull(stdout, make([]byte, len("started"))); err != nil {
			t.Fatalf("the other process: %v, %v", err, cmd.Wait())
		}
		if n := machines(t); n != 1 {
			t.Errorf("%d machines run, want 1", n)
		}
		if way == "reaped" {
			must(t, New(Config{}).Reap(t.Context(), []string{"i-0000000000000000b", abandoned}))
		} else {
			must(t, cmd.Process.Kill())
		}
		deadline := time.Now().Add(20 * time.Second)
		for machines(t) > 0 && time.Now().Before(deadline) {
			time.Sleep(10 * time.Millisecond)
		}
		if n := machines(t); n > 0 {
			t.Errorf("%s: %d machines run, want none", way, n)
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) {
			t.Errorf("%s: the other process ended with %v", way, err)
		}
	}
}

// machines counts the processes of the abandoned instance's machine.
func machines(t *testing.T) int {
	t.Helper()
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	n := 0
	for _, p := range processes {
		// One that has ended meanwhile has no arguments.
		line, err := os.ReadFile(p)
		if err == nil && strings.Contains(string(line), "gild-"+abandoned) {
			n++
		}
	}
	return n
}

func TestAskMetadata(t *testing.T) {
	t.Parallel()
	whole := askMetadata(metadata)
	if diff := cmp.Diff([]string{"02:11:22:33:44:55", "172.31.16.77/20", "t3.small"}, []string{whole.mac.String(), whole.address.String(), whole.kind}); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for name, service := range map[string]http.Handler{
		"none": nil, "off": http.NotFoundHandler(),
		"nonsense": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "nonsense,x=y") }),
	} {
		got := askMetadata(service)
		if got.mac.String() != defaultMAC.String() || got.address != (netip.Prefix{}) {
			t.Errorf("%s: %+v", name, got)
		}
		for _, arg := range smbios("i-1", got.kind) {
			if strings.Contains(arg, "x=y") {
				t.Errorf("%s: %s", name, arg)
			}
		}
	}
}
