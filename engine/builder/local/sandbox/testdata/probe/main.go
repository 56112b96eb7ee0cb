// Command probe tries to break out of a machine. It exits with 0 when the attempt that
// its first argument names has succeeded, and with 7 when it was stopped.
package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

const stopped = 7

var attempts = map[string]func(arg string) error{
	"mknod":       mknod,
	"mount":       func(string) error { return unix.Mount("tmpfs", "/tmp", "tmpfs", 0, "") },
	"bind":        func(string) error { return unix.Mount("/", "/tmp", "", unix.MS_BIND, "") },
	"remount":     func(string) error { return unix.Mount("", "/proc/sys", "", unix.MS_REMOUNT|unix.MS_BIND, "") },
	"umount":      func(string) error { return unix.Unmount("/proc/sys", unix.MNT_DETACH) },
	"fsopen":      func(string) error { _, err := unix.Fsopen("tmpfs", 0); return err },
	"open-tree":   func(string) error { _, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE); return err },
	"pivot":       func(string) error { return unix.PivotRoot("/", "/") },
	"unshare-ns":  func(string) error { return unix.Unshare(unix.CLONE_NEWNS) },
	"clone-user":  cloneUser,
	"clone3":      clone3,
	"setns":       setns,
	"chroot":      chroot,
	"ptrace":      func(string) error { return unix.PtraceSeize(1) },
	"read-init":   readInit,
	"kill-init":   killInit,
	"keyctl":      func(string) error { _, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, true); return err },
	"bpf":         bpf,
	"perf":        perf,
	"userfaultfd": func(string) error { return call(unix.SYS_USERFAULTFD, 1, 0, 0) },
	"io-uring":    ioUring,
	"kernel-log": func(string) error {
		_, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, make([]byte, 1024))
		return err
	},
	"kmsg":        kmsg,
	"hostname":    func(string) error { return unix.Sethostname([]byte("pwned")) },
	"clock":       func(string) error { return unix.Settimeofday(&unix.Timeval{Sec: 1}) },
	"module":      func(string) error { return call(unix.SYS_FINIT_MODULE, ^uintptr(0), 0, 0) },
	"by-handle":   byHandle,
	"abstract":    abstract,
	"raw-socket":  rawSocket,
	"sysctl":      sysctl,
	"capability":  capability,
	"scan":        scan,
	"descriptors": descriptors,
	"open":        func(path string) error { f, err := os.Open(path); f.Close(); return err },
}

func main() {
	attempt, ok := attempts[os.Args[1]]
	if !ok {
		fmt.Fprintln(os.Stderr, "unknown attempt", os.Args[1])
		os.Exit(2)
	}
	arg := ""
	if len(os.Args) > 2 {
		arg = os.Args[2]
	}
	if err := attempt(arg); err != nil {
		fmt.Println("stopped:", err)
		os.Exit(stopped)
	}
	fmt.Println("succeeded")
}

func call(number, a, b, c uintptr) error {
	if _, _, errno := unix.Syscall(number, a, b, c); errno != 0 {
		return errno
	}
	return nil
}

func mknod(path string) error {
	err := unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(254, 0)))
	if err == nil {
		os.Remove(path)
	}
	return err
}

func cloneUser(string) error {
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, unix.CLONE_NEWUSER|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	if pid == 0 {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
	return nil
}

func clone3(string) error {
	args := [11]uint64{0: unix.CLONE_NEWUSER, 4: uint64(unix.SIGCHLD)}
	pid, _, errno := unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args), 0)
	if errno != 0 {
		return errno
	}
	if pid == 0 {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
	return nil
}

func setns(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	return unix.Setns(fd, 0)
}

// chroot is the classic way out: a root folder below the working folder.
func chroot(marker string) error {
	if err := os.MkdirAll("/tmp/jail", 0o755); err != nil {
		return err
	}
	up, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	if err := unix.Chroot("/tmp/jail"); err != nil {
		return err
	}
	if err := unix.Fchdir(up); err != nil {
		return err
	}
	for range 64 {
		if err := unix.Chdir(".."); err != nil {
			return err
		}
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	_, err = os.Stat(marker)
	return err
}

// readInit looks at the first process through every door /proc has.
func readInit(marker string) error {
	for _, path := range []string{"/proc/1/root" + marker, "/proc/1/cwd" + marker, "/proc/1/environ", "/proc/1/mem", "/proc/1/maps", "/proc/1/exe", "/proc/1/fd/3"} {
		if f, err := os.Open(path); err == nil {
			data := make([]byte, 64)
			if n, _ := f.Read(data); n > 0 {
				return nil
			}
		}
	}
	return unix.EACCES
}

// killInit sends the first process everything. Being able to go on is being stopped.
func killInit(string) error {
	for sig := unix.Signal(1); sig <= 64; sig++ {
		_ = unix.Kill(1, sig)
	}
	return unix.EPERM
}

func bpf(string) error {
	attr := [16]uint64{0: 2 | 4<<32, 1: 4 | 1<<32} // an array map
	return call(unix.SYS_BPF, 0, uintptr(unsafe.Pointer(&attr)), 72)
}

func perf(string) error {
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Bits: unix.PerfBitExcludeKernel | unix.PerfBitExcludeHv}
	attr.Size = uint32(unsafe.Sizeof(attr))
	_, err := unix.PerfEventOpen(&attr, 0, -1, -1, 0)
	return err
}

func ioUring(string) error {
	var params [120]byte
	return call(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
}

func kmsg(string) error {
	f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("gild probe\n")
	return err
}

func byHandle(string) error {
	handle, mount, err := unix.NameToHandleAt(unix.AT_FDCWD, "/tmp", 0)
	if err != nil {
		return err
	}
	_ = mount
	_, err = unix.OpenByHandleAt(unix.AT_FDCWD, handle, unix.O_RDONLY)
	return err
}

func abstract(name string) error {
	conn, err := net.Dial("unix", "@"+name)
	if err != nil {
		return err
	}
	return conn.Close()
}

func rawSocket(string) error {
	_, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
	return err
}

// sysctl writes back the value a setting has.
func sysctl(name string) error {
	path := "/proc/sys/" + name
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, old, 0)
}

func capability(string) error {
	had, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, unix.CAP_SYS_ADMIN, 0, 0, 0)
	if err == nil && had == 0 {
		err = unix.EPERM
	}
	return err
}

// scan looks for a text in what /proc tells about any process.
func scan(text string) error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		files := []string{"environ", "mountinfo", "cmdline"}
		if entry.Name() == strconv.Itoa(os.Getpid()) {
			files = files[:2] // the text is in our own arguments
		}
		if _, err := strconv.Atoi(entry.Name()); err != nil {
			continue
		}
		for _, file := range files {
			data, _ := os.ReadFile("/proc/" + entry.Name() + "/" + file)
			if bytes.Contains(data, []byte(text)) {
				return nil
			}
		}
	}
	return fmt.Errorf("%q isn't in /proc", text)
}

// descriptors finds open files other than pipes, /dev/null and the runtime's own.
func descriptors(string) error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		to, err := os.Readlink("/proc/self/fd/" + entry.Name())
		harmless := err != nil || strings.HasPrefix(to, "pipe:") || to == "/dev/null" ||
			strings.HasPrefix(to, "anon_inode:") || strings.HasPrefix(to, "/proc/")
		if !harmless {
			fmt.Println(entry.Name(), to)
			return nil
		}
	}
	return fmt.Errorf("%d descriptors, all harmless", len(entries))
}
