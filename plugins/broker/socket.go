package broker

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

const (
	// maxPath is the longest path of a socket, without the zero at its end.
	maxPath    = 107
	socketName = "s"
	shortTries = 100
)

// socket is a listener in a folder of its own.
type socket struct {
	*net.UnixListener
	dir, path string
}

func listen(dir string) (*socket, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	own, err := os.MkdirTemp(dir, "broker-") // mode 0700
	if err != nil {
		return nil, err
	}
	if len(filepath.Join(own, socketName)) > maxPath {
		if err := os.Remove(own); err != nil {
			return nil, err
		}
		if own, err = shortDir(os.TempDir()); err != nil {
			return nil, err
		}
	}
	path := filepath.Join(own, socketName)
	if len(path) > maxPath {
		return nil, errors.Join(fmt.Errorf("%s has more than %d bytes, the most a socket's path can have; set TMPDIR to a short one", path, maxPath), os.Remove(own))
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, errors.Join(err, os.Remove(own))
	}
	return &socket{UnixListener: l, dir: own, path: path}, nil
}

func (s *socket) remove() error { return removeAll(s.dir) }

// shortDir makes a private folder outside of gild's state, which no sweep of that state
// would find again: so it looks for those that killed processes left.
func shortDir(tmp string) (string, error) {
	prefix := "gild-broker-" + strconv.Itoa(os.Getuid()) + "-"
	old, err := filepath.Glob(filepath.Join(tmp, prefix+"*"))
	if err != nil {
		return "", err
	}
	for _, dir := range old {
		if err := removeDead(dir); err != nil {
			return "", err
		}
	}
	return os.MkdirTemp(tmp, prefix)
}

// removeDead removes a folder of this user with a socket that nobody listens on.
func removeDead(dir string) error {
	var st syscall.Stat_t
	if err := syscall.Lstat(dir, &st); err != nil || st.Mode&syscall.S_IFMT != syscall.S_IFDIR || int(st.Uid) != os.Getuid() {
		return nil
	}
	conn, err := net.Dial("unix", filepath.Join(dir, socketName))
	if err == nil {
		return conn.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return nil
	}
	if err := os.RemoveAll(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove what a killed gild left: %w", err)
	}
	return nil
}
