package sandbox

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// keptCapabilities are what package managers and maintainer scripts need. They count
// inside the machine only; none of them has an effect on the host.
const keptCapabilities = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_FOWNER |
	1<<unix.CAP_FSETID | 1<<unix.CAP_KILL | 1<<unix.CAP_SETGID | 1<<unix.CAP_SETUID |
	1<<unix.CAP_NET_BIND_SERVICE | 1<<unix.CAP_SYS_CHROOT | 1<<unix.CAP_SETFCAP

// confine takes everything from the calling thread that a command must not have.
// It can't be undone; only processes the thread starts are affected.
func confine() error {
	if err := dropCapabilities(); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid new privileges: %w", err)
	}
	if err := scopeSockets(); err != nil {
		return fmt.Errorf("close off abstract sockets: %w", err)
	}
	if err := filterSystemCalls(); err != nil {
		return fmt.Errorf("filter system calls: %w", err)
	}
	return nil
}

func dropCapabilities() error {
	for c := uintptr(0); ; c++ {
		if c < 64 && keptCapabilities&(uint64(1)<<c) != 0 {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			break // one above the kernel's last
		}
		if err != nil {
			return err
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return err
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: keptCapabilities, Permitted: keptCapabilities}}
	if keptCapabilities>>32 != 0 {
		return errors.New("a kept capability doesn't fit the first word")
	}
	return unix.Capset(&header, &data[0])
}

// landlockRuleset is struct landlock_ruleset_attr.
type landlockRuleset struct {
	fileSystem, network, scoped uint64
}

// scopeSockets keeps commands that share the host's network away from the host's
// abstract unix sockets, which belong to it. Kernels before 6.12 can't, and there only
// the listening program's own checks help.
func scopeSockets() error {
	if !canScopeSockets() {
		return nil
	}
	rules := landlockRuleset{scoped: unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL}
	fd, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&rules)), unsafe.Sizeof(rules), 0)
	if errno != 0 {
		return errno
	}
	defer unix.Close(int(fd))
	if _, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

func canScopeSockets() bool {
	const withScopes = 6
	version, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	return errno == 0 && version >= withScopes
}
