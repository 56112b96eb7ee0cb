package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// Check finds out whether this host can run machines for the caller, by opening one.
// The error says what is missing and the command that brings it.
func Check(ctx context.Context) error {
	if err := check(ctx); err != nil {
		return fmt.Errorf("sandboxes don't work here: %w", err)
	}
	return nil
}

func check(ctx context.Context) (err error) {
	ids, err := FindIDs()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "gild-check-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, Remove(context.WithoutCancel(ctx), ids, dir)) }()
	if err := MakeDirs(ctx, ids, dir, "lower", "upper", "work"); err != nil {
		return err
	}
	s, err := Open(ctx, Config{Lower: []string{dir + "/lower"}, Upper: dir + "/upper", Work: dir + "/work", IDs: ids})
	if err != nil {
		return err
	}
	return s.Close()
}

// explainStart adds to the error of starting a child what the administrator can do.
func explainStart(err error) error {
	switch {
	case err == nil:
		return nil
	case sysctl("user/max_user_namespaces") == "0":
		return fmt.Errorf("user namespaces are switched off; run: sudo sysctl -w user.max_user_namespaces=15000: %w", err)
	case os.Geteuid() != 0 && sysctl("kernel/unprivileged_userns_clone") == "0":
		return fmt.Errorf("user namespaces are for root only; run: sudo sysctl -w kernel.unprivileged_userns_clone=1: %w", err)
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("too many user namespaces; run: sudo sysctl -w user.max_user_namespaces=15000: %w", err)
	case errors.Is(err, fs.ErrPermission):
		return explainSetup(fmt.Errorf("new namespaces are refused (in a container, it must run with --privileged): %w", err))
	default:
		return err
	}
}

// explainSetup does the same for making the file system.
func explainSetup(err error) error {
	restricted := os.Geteuid() != 0 && sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1"
	if restricted && errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("AppArmor restricts user namespaces; run: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0: %w", err)
	}
	return err
}

func sysctl(name string) string {
	data, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return "" // a kernel without the setting doesn't have the restriction
	}
	return strings.TrimSpace(string(data))
}
