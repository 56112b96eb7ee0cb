package guest

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// probeTimeout is how long a working KVM may take for a guest of a dozen instructions;
// it takes a fraction of a second.
const probeTimeout = 3 * time.Second

// probeStatus is QEMU's exit status after a guest has written 0x10 to isa-debug-exit.
const probeStatus = 0x10<<1 | 1

// probeSector is the boot sector of a guest that ends QEMU with probeStatus.
var probeSector = [sectorSize]byte{
	0xb0, 0x10, // mov al, 0x10
	0xba, 0x01, 0x05, // mov dx, 0x501
	0xee,       // out dx, al
	0xf4,       // hlt
	0xeb, 0xfd, // jmp to hlt
	510: 0x55, 511: 0xaa,
}

// kvmAnswer is what the probe found, as it is kept in a file.
type kvmAnswer struct {
	// What the answer holds for.
	BootID string `json:"boot_id"`
	QEMU   string `json:"qemu"`
	User   int    `json:"user"`

	Works bool `json:"works"`
}

// WorkingKVM tells whether guests really run under KVM: there are machines whose
// /dev/kvm opens and whose guests never get anywhere. It runs a guest that ends itself
// at once, for at most three seconds, and keeps the answer in cacheDir for as long as
// the host runs; a cache that can't be read or written is only slower. It is false
// where this can't be found out, and on every host that isn't amd64.
func WorkingKVM(ctx context.Context, cacheDir string) bool {
	if runtime.GOARCH != "amd64" {
		return false
	}
	binary, err := exec.LookPath(platforms["amd64"].binary)
	if err != nil {
		return false
	}
	device, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil || device.Close() != nil {
		return false
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return false
	}
	question := kvmAnswer{BootID: strings.TrimSpace(string(boot)), QEMU: binary, User: os.Getuid()}
	file := filepath.Join(cacheDir, "kvm.json")
	if answer, ok := cachedAnswer(file, question); ok {
		return answer
	}
	question.Works = probeKVM(ctx, binary)
	if ctx.Err() == nil {
		// Not being able to keep the answer costs the next guest three seconds.
		_ = keepAnswer(file, question)
	}
	return question.Works
}

func cachedAnswer(file string, question kvmAnswer) (works, ok bool) {
	data, err := os.ReadFile(file)
	if err != nil {
		return false, false
	}
	var kept kvmAnswer
	if json.Unmarshal(data, &kept) != nil {
		return false, false
	}
	question.Works = kept.Works
	return kept.Works, kept == question
}

// keepAnswer writes the file in place: half an answer is no answer.
func keepAnswer(file string, answer kvmAnswer) error {
	data, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o600)
}

// probeKVM runs the probe's guest, whose disk is in memory.
func probeKVM(ctx context.Context, binary string) bool {
	fd, err := unix.MemfdCreate("gild-kvm-probe", unix.MFD_CLOEXEC)
	if err != nil {
		return false
	}
	disk := os.NewFile(uintptr(fd), "gild-kvm-probe")
	defer disk.Close()
	if _, err := disk.Write(probeSector[:]); err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	return runProbe(ctx, binary, disk, "kvm", "host") == probeStatus
}

// runProbe returns QEMU's exit status, or -1 when it was killed or didn't start.
func runProbe(ctx context.Context, binary string, disk *os.File, accel, cpu string) int {
	cmd := exec.CommandContext(ctx, binary, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", "pc", "-accel", accel, "-cpu", cpu, "-m", "32",
		"-drive", "if=ide,format=raw,file=/proc/self/fd/3", "-device", "isa-debug-exit,iobase=0x501,iosize=1")
	cmd.Env, cmd.ExtraFiles = toolEnv(), []*os.File{disk}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if cmd.Start() != nil {
		return -1
	}
	// A process that was killed has the status -1.
	_ = cmd.Wait()
	return cmd.ProcessState.ExitCode()
}
