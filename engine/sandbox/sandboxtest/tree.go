package sandboxtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// osRelease is that of Debian 12.
const osRelease = `PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
NAME="Debian GNU/Linux"
VERSION_ID="12"
VERSION="12 (bookworm)"
VERSION_CODENAME=bookworm
ID=debian
HOME_URL="https://www.debian.org/"
`

// NewDisk writes a disk with the tree of a machine that nothing has changed yet.
func NewDisk(path string) error {
	tree, err := os.MkdirTemp("", "gild-quick-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tree)
	if err := errors.Join(makeTree(tree), os.WriteFile(path, nil, 0o600), os.Truncate(path, 1<<20)); err != nil {
		return fmt.Errorf("make a quick machine's disk: %w", err)
	}
	return packDisk(tree, path)
}

func makeTree(tree string) error {
	for _, dir := range strings.Fields(`dev etc home mnt opt proc run srv sys usr usr/local usr/local/bin usr/sbin var var/cache var/lib var/log var/mail var/spool`) {
		if err := os.Mkdir(filepath.Join(tree, dir), 0o755); err != nil {
			return err
		}
	}
	for dir, mode := range map[string]fs.FileMode{"root": 0o700, "tmp": 0o777 | fs.ModeSticky, "var/tmp": 0o777 | fs.ModeSticky} {
		path := filepath.Join(tree, dir)
		if err := errors.Join(os.Mkdir(path, 0o700), os.Chmod(path, mode)); err != nil {
			return err
		}
	}
	// What the host's owner has put there isn't the machine's. It also has no SSH server, for
	// which host keys would have to be made at boot.
	if err := errors.Join(
		unix.Lsetxattr(filepath.Join(tree, "usr/local"), opaqueMark, []byte("y"), 0),
		unix.Mknod(filepath.Join(tree, "usr/sbin/sshd"), unix.S_IFCHR, 0),
	); err != nil {
		return err
	}
	// Where the host has its programs, which are the machine's.
	for _, name := range []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"} {
		target, err := os.Readlink("/" + name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("the host's /%s isn't a link into /usr: %w", name, err)
		}
		if err := os.Symlink(target, filepath.Join(tree, name)); err != nil {
			return err
		}
	}
	// Debian's awk is what a link in /etc says.
	if awk, err := os.Readlink("/etc/alternatives/awk"); err == nil {
		links := filepath.Join(tree, "etc/alternatives")
		if err := errors.Join(os.Mkdir(links, 0o755), os.Symlink(awk, filepath.Join(links, "awk"))); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{
		"etc/os-release":    osRelease,
		"etc/passwd":        "root:x:0:0:root:/root:/bin/bash\nwww-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
		"etc/group":         "root:x:0:\nadm:x:4:\nwww-data:x:33:\nnogroup:x:65534:\n",
		"etc/hostname":      "localhost\n",
		"etc/hosts":         "127.0.0.1\tlocalhost\n",
		"etc/machine-id":    "",
		"etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
	} {
		if err := os.WriteFile(filepath.Join(tree, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(tree, "etc/shadow"), []byte("root:*:19000:0:99999:7:::\nwww-data:*:19000:0:99999:7:::\nnobody:*:19000:0:99999:7:::\n"), 0o640)
}
