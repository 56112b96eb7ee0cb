package guest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// processName is what the guest of a token is called in QEMU's arguments.
func processName(token string) string { return "gild-" + token }

// killWait is how long a killed QEMU may take to be gone.
const killWait = 10 * time.Second

// Kill ends the QEMU that was started with token, whoever started it, and returns when
// it is gone. That there is none is no error.
func Kill(token string) error {
	if !tokenRE.MatchString(token) {
		return fmt.Errorf("end the guest %q: not a token of a guest", token)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return fmt.Errorf("look for the guest %s: %w", token, err)
	}
	var errs []error
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && isGuest(pid, token) {
			errs = append(errs, killGuest(pid, token))
		}
	}
	return errors.Join(errs...)
}

// isGuest tells whether a process is a QEMU with the token's name. A process that can't
// be looked at is another user's.
func isGuest(pid int, token string) bool {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil || !bytes.Contains(cmdline, []byte("\x00-name\x00"+processName(token)+"\x00")) {
		return false
	}
	program, err := os.Readlink(filepath.Join(dir, "exe"))
	return err == nil && strings.HasPrefix(filepath.Base(program), "qemu-system-")
}

func killGuest(pid int, token string) error {
	// The handle stays with this process: a later one with the same number isn't hit.
	p, err := os.FindProcess(pid)
	if err != nil {
		return fmt.Errorf("end the guest %s: %w", token, err)
	}
	defer p.Release()
	if !isGuest(pid, token) {
		return nil
	}
	if err := p.Signal(syscall.SIGKILL); errors.Is(err, os.ErrProcessDone) {
		return nil
	} else if err != nil {
		return fmt.Errorf("end the guest %s: process %d: %w", token, pid, err)
	}
	for deadline := time.Now().Add(killWait); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		// A zombie has no arguments any more.
		if !isGuest(pid, token) {
			return nil
		}
	}
	return fmt.Errorf("end the guest %s: process %d is still there %s after it was killed", token, pid, killWait)
}
