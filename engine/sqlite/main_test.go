package sqlite_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gildhq/gild/engine/sqlite"
	"golang.org/x/sys/unix"
)

// childVar names the role that this test binary plays when a test starts it again.
const childVar = "GILD_TEST_CHILD"

func TestMain(m *testing.M) {
	role, dir := os.Getenv(childVar), os.Getenv(childVar+"_DIR")
	if role == "" {
		os.Exit(m.Run())
	}
	if err := children[role](dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var children = map[string]func(dir string) error{
	"count": countUp,
	"full":  fillDisk,
	"read-only system": func(dir string) error {
		return errors.Join(smallDisk(dir, "8m"), openReadOnly(dir, remountReadOnly))
	},
	"read-only folder": func(dir string) error { return openReadOnly(dir, dropPrivileges) },
}

// child prepares this test binary to play a role; with mounts it gets a mount namespace of its own.
func child(t *testing.T, role, dir string, mounts bool) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childVar+"="+role, childVar+"_DIR="+dir)
	if mounts {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		if os.Getuid() != 0 {
			cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
		}
	}
	return cmd
}

// smallDisk mounts a file system of a few hundred KiB on dir, for this process only.
func smallDisk(dir, size string) error {
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755,size="+size); err != nil {
		return fmt.Errorf("mount a small disk: %w", err)
	}
	return nil
}

func countUp(dir string) error {
	ctx := context.Background()
	d, err := sqlite.Open(ctx, filepath.Join(dir, "gild.db"), counters)
	if err != nil {
		return err
	}
	for range countsPerChild {
		if err := count(ctx, d); err != nil {
			return err
		}
	}
	return d.Close()
}

// fillDisk writes until there is no room, and checks what that says and leaves.
func fillDisk(dir string) error {
	if err := smallDisk(dir, "700k"); err != nil {
		return err
	}
	ctx := context.Background()
	path := filepath.Join(dir, "gild.db")
	d, err := sqlite.Open(ctx, path, counters)
	if err != nil {
		return err
	}
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 300<<10), 0o600); err != nil {
		return err
	}
	written := 0
	for err == nil {
		if err = count(ctx, d); err == nil {
			written++
			err = d.Write(ctx, func(tx *sqlite.Tx) error {
				_, err := tx.Exec(`INSERT INTO blobs (data) VALUES (zeroblob(20000))`)
				return err
			})
		}
	}
	if err := wantKind(err, sqlite.Full, "what was finished is safe: make room"); err != nil {
		return err
	}
	_, err = sqlite.Open(ctx, filepath.Join(dir, "new.db"), counters)
	if err := wantKind(err, sqlite.Full, "make room"); err != nil {
		return fmt.Errorf("open on a full disk: %w", err)
	}
	if err := os.Remove(ballast); err != nil {
		return err
	}
	if err := count(ctx, d); err != nil {
		return fmt.Errorf("after room was made: %w", err)
	}
	if got, err := total(ctx, d); err != nil || got != written+1 {
		return fmt.Errorf("got %d, %v; want %d counts", got, err, written+1)
	}
	if err := d.Close(); err != nil {
		return err
	}
	return sqlite.Check(ctx, path)
}

// openReadOnly makes a database, lets protect take the right to write, and checks what
// opening says, with and without what a killed process leaves beside the file.
func openReadOnly(dir string, protect func(dir string) error) error {
	ctx := context.Background()
	closed, killed := filepath.Join(dir, "closed.db"), filepath.Join(dir, "killed.db")
	for _, path := range []string{closed, killed} {
		d, err := sqlite.Open(ctx, path, counters)
		if err != nil {
			return err
		}
		if err := count(ctx, d); err != nil {
			return err
		}
		if path == closed {
			if err := d.Close(); err != nil {
				return err
			}
			continue
		}
		for _, suffix := range []string{"", "-wal"} {
			data, err := os.ReadFile(path + suffix)
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, "left.db"+suffix), data, 0o644); err != nil {
				return err
			}
		}
		if err := d.Close(); err != nil {
			return err
		}
	}
	if err := protect(dir); err != nil {
		return err
	}
	for _, name := range []string{"closed.db", "left.db", "new.db"} {
		d, err := sqlite.Open(ctx, filepath.Join(dir, name), counters)
		if err == nil {
			err = errors.Join(count(ctx, d), d.Close())
		}
		if err := wantKind(err, sqlite.ReadOnly, "make the folder and the file writable"); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func remountReadOnly(dir string) error {
	return unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
}

// dropPrivileges leaves the folder to its owner and becomes somebody else: root isn't held back by modes.
func dropPrivileges(dir string) error {
	if os.Getuid() != 0 {
		return os.Chmod(dir, 0o555)
	}
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			return err
		}
	}
	return syscall.Setresuid(65534, 65534, 65534)
}

// wantKind checks that err is an Error of a kind which says what to do.
func wantKind(err error, kind sqlite.Kind, remedy string) error {
	var e *sqlite.Error
	if !errors.As(err, &e) || e.Kind != kind || !strings.Contains(err.Error(), remedy) {
		return fmt.Errorf("got error %v; want kind %d saying %q", err, kind, remedy)
	}
	return nil
}
