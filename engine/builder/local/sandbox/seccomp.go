package sandbox

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// deniedCalls are system calls no command has a use for, which either act on the
// kernel as a whole or have been the way out of many sandboxes. They end with EPERM.
var deniedCalls = []uint32{
	// Mounts and namespaces. clone and unshare are looked at closer below.
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_FSOPEN, unix.SYS_FSCONFIG,
	unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE,
	unix.SYS_MOUNT_SETATTR, unix.SYS_SETNS, unix.SYS_OPEN_BY_HANDLE_AT,
	// Keys belong to the id, which other machines share.
	unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY,
	// Large interfaces of the kernel.
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_IO_URING_SETUP,
	unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER, unix.SYS_PTRACE,
	unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV,
	// The host itself.
	unix.SYS_SYSLOG, unix.SYS_REBOOT, unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD,
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_SWAPON,
	unix.SYS_SWAPOFF, unix.SYS_ACCT, unix.SYS_QUOTACTL, unix.SYS_SETTIMEOFDAY,
	unix.SYS_CLOCK_SETTIME,
}

// newNamespaces are the flags of clone and unshare that make namespaces.
const newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// Offsets in struct seccomp_data; both architectures are little-endian.
const (
	offsetCall = 0
	offsetArch = 4
	offsetArg0 = 16
	offsetArg2 = 32
)

const (
	retAllow = unix.SECCOMP_RET_ALLOW
	retDeny  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	// retMissing makes programs use an older call, or tell that the call isn't there.
	retMissing = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	retNoAudit = unix.SECCOMP_RET_ERRNO | uint32(unix.EAFNOSUPPORT)
)

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func ret(value uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: value}
}

// jump skips yes instructions when the test holds, else no.
func jump(test uint16, value uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_K | test, K: value, Jt: yes, Jf: no}
}

// callFilter is the filter program.
func callFilter() []unix.SockFilter {
	program := []unix.SockFilter{
		// Calls of other architectures have other numbers and would pass unseen.
		load(offsetArch),
		jump(unix.BPF_JEQ, nativeArch, 1, 0),
		ret(retMissing),
		load(offsetCall),
		jump(unix.BPF_JGE, foreignCalls, 0, 1),
		ret(retMissing),
		// The flags of clone3 are in memory, where a filter can't look.
		jump(unix.BPF_JEQ, unix.SYS_CLONE3, 0, 1),
		ret(retMissing),
	}
	for _, call := range deniedCalls {
		program = append(program, jump(unix.BPF_JEQ, call, 0, 1), ret(retDeny))
	}
	program = append(program,
		jump(unix.BPF_JEQ, unix.SYS_CLONE, 1, 0),
		jump(unix.BPF_JEQ, unix.SYS_UNSHARE, 0, 3),
		load(offsetArg0),
		jump(unix.BPF_JSET, newNamespaces, 0, 7),
		ret(retDeny),
		// The kernel's audit doesn't answer in a user namespace. Without it, programs go
		// on; with it not answering, some stop.
		jump(unix.BPF_JEQ, unix.SYS_SOCKET, 0, 5),
		load(offsetArg0),
		jump(unix.BPF_JEQ, unix.AF_NETLINK, 0, 3),
		load(offsetArg2),
		jump(unix.BPF_JEQ, unix.NETLINK_AUDIT, 0, 1),
		ret(retNoAudit),
		ret(retAllow))
	return program
}

// filterSystemCalls installs the filter for the calling thread.
func filterSystemCalls() error {
	program := callFilter()
	if len(program) > unix.BPF_MAXINSNS {
		return errors.New("the filter is too long")
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&filter)))
	if errno != 0 {
		return errno
	}
	return nil
}
