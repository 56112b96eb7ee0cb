package sandbox

import (
	"fmt"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCopyStarts starts a program that was copied into memory, with inputs of all numbers
// around: what the child puts just above its input must not take the copy's place. It isn't
// parallel, as low descriptors must be free.
func TestCopyStarts(t *testing.T) {
	file, err := os.Open("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var low [4]int
	for i := range low {
		if low[i], err = unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
			t.Fatal(err)
		}
	}
	memory, err := copyToMemory(file)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(memory)
	for _, fd := range low {
		if err := unix.Close(fd); err != nil {
			t.Fatal(err)
		}
	}
	for least := range 64 {
		start(t, memory, file, least)
	}
}

// start starts the descriptor with an input whose number is at least that.
func start(t *testing.T, program int, file *os.File, least int) {
	t.Helper()
	input, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, least)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(input)
	pid, err := syscall.ForkExec(fmt.Sprintf("/proc/self/fd/%d", program), []string{"true"}, &syscall.ProcAttr{Files: []uintptr{uintptr(input)}})
	if err != nil {
		t.Fatalf("start descriptor %d with %d as its input: %v", program, input, err)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil || status.ExitStatus() != 0 {
		t.Errorf("the copy ended with %d, %v", status.ExitStatus(), err)
	}
}
