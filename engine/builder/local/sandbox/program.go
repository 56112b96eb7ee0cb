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
type program struct {
	path string
	// copied holds the copy open while it is in use; nil when there is none.
	copied *os.File
}

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
	return program{path: fmt.Sprintf("/proc/self/fd/%d", memory.Fd()), copied: memory}, nil
}

func copyToMemory(file *os.File) (*os.File, error) {
	fd, err := unix.MemfdCreate("gild", unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3 every such file could be run
		fd, err = unix.MemfdCreate("gild", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, err
	}
	memory := os.NewFile(uintptr(fd), "gild")
	if _, err := io.Copy(memory, file); err != nil {
		return nil, errors.Join(err, memory.Close())
	}
	// A file that is open for writing can't be started.
	again, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	return again, errors.Join(err, memory.Close())
}
