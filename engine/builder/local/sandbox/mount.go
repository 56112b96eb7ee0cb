package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// stage is a folder every system has. New trees are mounted over it, where only the
// child's own mount namespace sees them, before they are moved to their place.
const stage = "/tmp"

// nothingSpecial are mount flags for trees and file systems that hold neither devices
// nor programs that change the user.
const nothingSpecial = unix.MS_NOSUID | unix.MS_NODEV

// makePrivate cuts the mount namespace off from the host's.
func makePrivate() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	return nil
}

// mountTree mounts the tree of a setup on the stage. folders are s.Lower layers, then
// the upper and the work folder where there are such.
func mountTree(s setup, folders []*os.File) error {
	lower, rest := folders[:s.Lower], folders[s.Lower:]
	if s.Work {
		if err := clearWork(rest[1]); err != nil {
			return err
		}
	}
	switch {
	case len(lower) == 0:
		return bindTree(rest[0], false)
	case len(lower) == 1 && !s.Upper:
		return bindTree(lower[0], true)
	default:
		return mountOverlay(lower, s, rest)
	}
}

// mountOverlay names its folders by descriptor: neither the length of paths nor the
// rights on the folders above them matter, and 500 layers fit the kernel's one page.
func mountOverlay(lower []*os.File, s setup, rest []*os.File) error {
	if err := unix.Chdir("/proc/self/fd"); err != nil {
		return err
	}
	defer unix.Chdir("/")
	var names []string
	for i := len(lower) - 1; i >= 0; i-- {
		names = append(names, strconv.Itoa(int(lower[i].Fd())))
	}
	options := "userxattr,index=off,lowerdir=" + strings.Join(names, ":")
	if s.Upper {
		options += fmt.Sprintf(",volatile,upperdir=%d,workdir=%d", rest[0].Fd(), rest[1].Fd())
	}
	if err := unix.Mount("overlay", stage, "overlay", nothingSpecial, options); err != nil {
		return fmt.Errorf("mount %d layers: %w", len(lower), err)
	}
	return nil
}

// clearWork removes the kernel's mark that the folder was in use by a volatile mount
// before, which a session that is opened again on the same folders finds.
func clearWork(work *os.File) error {
	mark := fmt.Sprintf("/proc/self/fd/%d/work/incompat", work.Fd())
	if err := os.RemoveAll(mark); err != nil {
		return fmt.Errorf("clear the work folder: %w", err)
	}
	return nil
}

func bindTree(folder *os.File, readOnly bool) error {
	tree, err := cloneMount(folder)
	if err != nil {
		return fmt.Errorf("mount %q: %w", folder.Name(), err)
	}
	defer unix.Close(tree)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	if readOnly {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
		return fmt.Errorf("mount %q: %w", folder.Name(), err)
	}
	return attach(tree, stage)
}

// cloneMount makes a mount of a folder or file that isn't attached anywhere yet.
func cloneMount(f *os.File) (int, error) {
	return unix.OpenTree(int(f.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
}

func attach(mount int, target string) error {
	err := unix.MoveMount(mount, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("mount on %q: %w", target, err)
	}
	return nil
}

// enterTree makes the mount on the stage the root, has setUp done there, and lets go of
// the host's files. While setUp runs they are still mounted on top of the root: the
// kernel allows a new /proc only where there is one already. Paths that lead there by
// ".." would get out, so setUp follows no link.
func enterTree(setUp func() error) error {
	if err := unix.Chdir(stage); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change the root folder: %w", err)
	}
	if err := setUp(); err != nil {
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("let go of the host's files: %w", err)
	}
	return unix.Chdir("/")
}

// mountDir mounts a file system on a folder of the tree, which is made when missing.
func mountDir(kind, target string, flags uintptr, options string) error {
	if err := ensureDir(target); err != nil {
		return err
	}
	if err := unix.Mount(kind, target, kind, flags, options); err != nil {
		return fmt.Errorf("mount %s on %s: %w", kind, target, err)
	}
	return nil
}

// ensureDir makes a folder unless it is there. It refuses links: a mount through one
// would land somewhere else.
func ensureDir(target string) error {
	info, err := os.Lstat(target)
	if errors.Is(err, fs.ErrNotExist) {
		mode := fs.FileMode(0o755)
		if path.Base(target) == "tmp" {
			mode = 0o777 | fs.ModeSticky
		}
		return os.Mkdir(target, mode)
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s in the tree is a %s, not a folder", target, info.Mode().Type())
	}
	return nil
}

func mountProc() error {
	return mountDir("proc", "/proc", nothingSpecial|unix.MS_NOEXEC, "")
}

// procReadOnly are the parts of /proc that change the host where rights are missing
// to stop it; procHidden are those that tell about it.
var (
	procReadOnly = []string{"sys", "sysrq-trigger", "irq", "bus", "fs", "acpi", "scsi"}
	procHidden   = []string{"kcore", "keys", "timer_list", "sched_debug", "latency_stats", "kmsg", "key-users", "kallsyms"}
)

// protectProc closes the parts of /proc that commands have no business with. Not every
// kernel has every one of them.
func protectProc() error {
	for _, name := range procReadOnly {
		if err := readOnly(path.Join("/proc", name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("protect /proc/%s: %w", name, err)
		}
	}
	for _, name := range procHidden {
		err := unix.Mount("/dev/null", path.Join("/proc", name), "", unix.MS_BIND, "")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("hide /proc/%s: %w", name, err)
		}
	}
	return nil
}

// readOnly mounts a path over itself, read-only.
func readOnly(target string) error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, target, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
		return err
	}
	return attach(tree, target)
}

// devices are the device files every program may count on.
var devices = []string{"null", "zero", "full", "random", "urandom", "tty"}

// cloneDevices takes the host's device files, while they can still be seen.
func cloneDevices() (map[string]int, error) {
	mounts := map[string]int{}
	for _, name := range devices {
		fd, err := unix.OpenTree(unix.AT_FDCWD, "/dev/"+name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return nil, fmt.Errorf("take /dev/%s: %w", name, err)
		}
		mounts[name] = fd
	}
	return mounts, nil
}

// mountDev mounts a dev folder with the given devices and nothing else below root.
func mountDev(root string, mounts map[string]int) error {
	dev := path.Join(root, "dev")
	if err := mountDir("tmpfs", dev, unix.MS_NOSUID|unix.MS_NOEXEC, "mode=0755,size=1m"); err != nil {
		return err
	}
	for _, name := range devices {
		file := path.Join(dev, name)
		if err := os.WriteFile(file, nil, 0o666); err != nil {
			return err
		}
		if err := attach(mounts[name], file); err != nil {
			return err
		}
		unix.Close(mounts[name])
	}
	links := map[string]string{
		"ptmx": "pts/ptmx", "fd": "/proc/self/fd",
		"stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	}
	for name, to := range links {
		if err := os.Symlink(to, path.Join(dev, name)); err != nil {
			return err
		}
	}
	return errors.Join(
		mountDir("devpts", path.Join(dev, "pts"), unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"),
		mountDir("tmpfs", path.Join(dev, "shm"), nothingSpecial, "mode=1777"))
}

// mountScratch mounts the folders that are empty at every boot below root.
func mountScratch(root string) error {
	err := errors.Join(
		mountDir("tmpfs", path.Join(root, "tmp"), nothingSpecial, "mode=1777"),
		mountDir("tmpfs", path.Join(root, "run"), nothingSpecial, "mode=0755"),
		mountDir("tmpfs", path.Join(root, "sys"), nothingSpecial|unix.MS_NOEXEC|unix.MS_RDONLY, "mode=0555"))
	if err != nil {
		return err
	}
	lock := path.Join(root, "run/lock")
	return errors.Join(os.Mkdir(lock, 0o777), os.Chmod(lock, 0o777|fs.ModeSticky))
}
