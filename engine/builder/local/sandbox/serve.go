package sandbox

import (
	"bufio"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// errLoop is too many links in a path.
var errLoop = fmt.Errorf("too many links: %w", unix.ELOOP)

// inTree opens a path of the tree. Every link in it is resolved with the tree's root as
// the root, and none of /proc's links, which lead anywhere, is followed.
func inTree(path string, flags uint64) (int, error) {
	root, err := unix.Open(stage, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(root)
	fd, err := openIn(root, path, flags)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", path, err)
	}
	return fd, nil
}

// openIn opens a path below the folder root. While anything on the machine is renamed or
// mounted, the kernel can't tell whether ".." leaves the root and answers EAGAIN: see
// openat2(2). It is asked again for about five seconds.
func openIn(root int, path string, flags uint64) (fd int, err error) {
	for try := range time.Duration(1000) {
		err = retry(func() (err error) {
			fd, err = unix.Openat2(root, path, &unix.OpenHow{
				Flags:   flags | unix.O_CLOEXEC,
				Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
			})
			return err
		})
		if !errors.Is(err, unix.EAGAIN) {
			break
		}
		time.Sleep(try * 10 * time.Microsecond)
	}
	return fd, err
}

// openParent opens the folder in which the file that path means is, or would be, and
// returns the file's name in it. A link at the end of the path is followed.
func openParent(path string, makeParents bool) (dir int, base string, err error) {
	if !strings.HasPrefix(path, "/") {
		return -1, "", fmt.Errorf("path %q is not absolute", path)
	}
	for range 40 {
		cut := strings.LastIndex(path, "/")
		folder, base := path[:cut+1], path[cut+1:]
		if base == "" || base == "." || base == ".." {
			return -1, "", fmt.Errorf("path %q names a folder: %w", path, unix.EISDIR)
		}
		if makeParents {
			if err := makeFolders(folder); err != nil {
				return -1, "", err
			}
		}
		dir, err := inTree(folder, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return -1, "", err
		}
		if err := refuseProc(dir); err != nil {
			unix.Close(dir)
			return -1, "", fmt.Errorf("%s: %w", folder, err)
		}
		link, err := readLink(dir, base)
		if err != nil {
			unix.Close(dir)
			return -1, "", err
		}
		if link == "" {
			return dir, base, nil
		}
		unix.Close(dir)
		if path = link; !strings.HasPrefix(link, "/") {
			path = folder + link
		}
	}
	return -1, "", errLoop
}

// readLink returns what a link says; empty when there is no link of the name.
func readLink(dir int, base string) (string, error) {
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, base, target)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read link %s: %w", base, err)
	}
	return string(target[:n]), nil
}

// refuseProc keeps calls out of /proc: this process has more rights there than commands.
func refuseProc(fd int) error {
	var s unix.Statfs_t
	if err := unix.Fstatfs(fd, &s); err != nil {
		return err
	}
	if s.Type == unix.PROC_SUPER_MAGIC {
		return fmt.Errorf("/proc is not a part of the machine's files: %w", unix.EACCES)
	}
	return nil
}

// makeFolders makes every missing folder of a path that ends with a slash.
func makeFolders(path string) error {
	for i, c := range path {
		if c != '/' || i == 0 {
			continue
		}
		fd, err := inTree(path[:i], unix.O_PATH|unix.O_DIRECTORY)
		if err == nil {
			unix.Close(fd)
			continue
		}
		if !errors.Is(err, unix.ENOENT) {
			return err
		}
		if err := makeFolder(path[:i]); err != nil {
			return err
		}
	}
	return nil
}

func makeFolder(path string) error {
	cut := strings.LastIndex(path, "/")
	dir, err := inTree(path[:cut+1], unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if err := unix.Mkdirat(dir, path[cut+1:], 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make folder %s: %w", path, err)
	}
	return nil
}

// putCount tells the temporary files of one session apart.
var putCount atomic.Uint64

func servePut(w *wire, streams []*os.File) error {
	var spec putSpec
	if err := w.receive(&spec); err != nil || len(streams) != 1 {
		return errors.Join(errors.New("bad call"), err)
	}
	uid, err := lookUpID("/etc/passwd", spec.Owner)
	if err != nil {
		return fmt.Errorf("owner %q: %w", spec.Owner, err)
	}
	gid, err := lookUpID("/etc/group", spec.Group)
	if err != nil {
		return fmt.Errorf("group %q: %w", spec.Group, err)
	}
	dir, base, err := openParent(spec.Path, spec.Parents)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	temporary := fmt.Sprintf(".gild-put-%d", putCount.Add(1))
	fd, err := unix.Openat(dir, temporary, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("make a file in its folder: %w", err)
	}
	err = fill(os.NewFile(uintptr(fd), base), spec, uid, gid, w, streams[0])
	if err == nil {
		err = unix.Renameat(dir, temporary, dir, base)
	}
	if err != nil {
		return errors.Join(err, unix.Unlinkat(dir, temporary, 0))
	}
	return nil
}

// fill writes the content and everything else of a file, and closes it.
func fill(f *os.File, spec putSpec, uid, gid int, w *wire, content io.Reader) error {
	n, err := io.Copy(f, content)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	var end commit
	if err := w.receive(&end); err != nil {
		return errors.Join(errors.New("the content broke off"), f.Close())
	}
	if end.Size != n {
		return errors.Join(io.ErrUnexpectedEOF, f.Close())
	}
	fd := int(f.Fd())
	err = errors.Join(
		unix.Fchown(fd, uid, gid),
		unix.Fchmod(fd, spec.Mode)) // after chown, which clears the set-id bits
	if err == nil && !spec.ModTime.IsZero() {
		err = setTime(fd, spec.ModTime)
	}
	return errors.Join(err, f.Close())
}

func setTime(fd int, t time.Time) error {
	ts, err := unix.TimeToTimespec(t)
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), []unix.Timespec{ts, ts}, 0)
}

// lookUpID finds the number of a user or group in a file of the tree; empty is root.
func lookUpID(file, name string) (int, error) {
	if name == "" {
		return 0, nil
	}
	if id, err := parseID(name); err == nil {
		return id, nil
	}
	f, err := openRegular(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) >= 3 && fields[0] == name {
			return parseID(fields[2])
		}
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	return 0, fmt.Errorf("not in the machine's %s", file)
}

func parseID(text string) (int, error) {
	id, err := strconv.ParseUint(text, 10, 31)
	return int(id), err
}

func serveGet(w *wire, streams []*os.File) (reply, error) {
	var spec getSpec
	if err := w.receive(&spec); err != nil || len(streams) != 1 {
		return reply{}, errors.Join(errors.New("bad call"), err)
	}
	// The end of the pipe is what the caller waits for before it asks for the reply.
	defer streams[0].Close()
	if !strings.HasPrefix(spec.Path, "/") {
		return reply{}, fmt.Errorf("path %q is not absolute", spec.Path)
	}
	f, err := openRegular(spec.Path)
	if err != nil {
		return reply{}, err
	}
	defer f.Close()
	n, err := io.Copy(streams[0], f)
	return reply{Size: n}, err
}

// openRegular opens a regular file of the tree. It doesn't hang on a named pipe.
func openRegular(path string) (*os.File, error) {
	fd, err := inTree(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err == nil {
		err = refuseProc(fd)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func serveFacts() (reply, error) {
	r := reply{Arch: shellArch()}
	apt, err := openRegular("/usr/bin/apt-get")
	if err == nil {
		apt.Close()
		r.Apt = true
	} else if !errors.Is(err, unix.ENOENT) {
		return reply{}, err
	}
	return r, nil
}

// shellArch returns the architecture that the tree's shell is for, or "".
func shellArch() string {
	f, err := openRegular("/bin/sh")
	if err != nil {
		return ""
	}
	defer f.Close()
	shell, err := elf.NewFile(f)
	if err != nil {
		return ""
	}
	switch shell.Machine {
	case elf.EM_X86_64:
		return "amd64"
	case elf.EM_AARCH64:
		return "arm64"
	case elf.EM_RISCV:
		return "riscv64"
	default:
		return ""
	}
}
