package sandbox

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// ownProgram is the path under which this program can be started again.
const ownProgram = "/proc/self/exe"

// program is this program as container root can start it.
type program struct{ path string }

// findProgram returns this program as it can be started once the ids are taken, which
// takeIDs does. Where only its owner may run it, it is copied into memory.
func findProgram(takeIDs func() error) (program, error) {
	file, openErr := os.Open(ownProgram) // with the caller's rights
	if openErr == nil {
		defer file.Close()
	}
	if err := takeIDs(); err != nil {
		return program{}, err
	}
	err := unix.Faccessat(unix.AT_FDCWD, ownProgram, unix.X_OK, unix.AT_EACCESS)
	if err == nil {
		return program{path: ownProgram}, nil
	}
	if !errors.Is(err, fs.ErrPermission) || openErr != nil {
		return program{}, fmt.Errorf("start gild again as another user: %w", errors.Join(err, openErr))
	}
	memory, err := copyToMemory(file)
	if err != nil {
		return program{}, fmt.Errorf("copy gild, which other users may not run, into memory: %w", err)
	}
	return program{path: fmt.Sprintf("/proc/self/fd/%d", memory)}, nil
}

// outOfReach is a descriptor above all that are in use here. [syscall.ForkExec] moves others
// in the child to the numbers just above those it is given, whatever is open there.
const outOfReach = 1000

// copyToMemory returns a descriptor of the copy, which stays open as long as the process
// lives. It is none of an *os.File, which would be closed once nothing refers to it.
func copyToMemory(file *os.File) (int, error) {
	fd, err := unix.MemfdCreate("gild", unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3 every such file could be run
		fd, err = unix.MemfdCreate("gild", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return -1, err
	}
	memory := os.NewFile(uintptr(fd), "gild")
	if _, err := io.Copy(memory, file); err != nil {
		return -1, errors.Join(err, memory.Close())
	}
	// A file that is open for writing can't be started.
	again, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, errors.Join(err, memory.Close())
	}
	kept, err := unix.FcntlInt(uintptr(again), unix.F_DUPFD_CLOEXEC, outOfReach)
	return kept, errors.Join(err, unix.Close(again), memory.Close())
}
