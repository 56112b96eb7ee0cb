package run

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// fileLock is a name locked between processes. The kernel frees it when the process
// dies, so there is no stale lock to find out about.
type fileLock struct{ file *os.File }

// lock waits until name is locked or ctx ends. While another holds it, waiting is called
// with the holder's process id, and again when that changes.
func lock(ctx context.Context, dir, name string, waiting func(pid int)) (*fileLock, error) {
	sum := sha256.Sum256([]byte(name))
	path := filepath.Join(dir, hex.EncodeToString(sum[:])+".lock")
	const slowest = 200 * time.Millisecond
	holder := 0
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, slowest) {
		l, err := tryLock(path)
		if l != nil || err != nil {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(pause):
		}
		if pid := lockHolder(path); pid != 0 && pid != holder {
			holder = pid
			waiting(pid)
		}
	}
}

// tryLock returns nil without an error when another holds the lock.
func tryLock(path string) (*fileLock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
		return nil, f.Close()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	current, err := isCurrent(f, path)
	if err != nil || !current {
		return nil, errors.Join(err, f.Close())
	}
	l := &fileLock{file: f}
	if err := l.sign(); err != nil {
		return nil, errors.Join(err, l.unlock())
	}
	return l, nil
}

// isCurrent tells whether the path still names the file: the holder before us removes
// it, and then a lock on it excludes nobody.
func isCurrent(f *os.File, path string) (bool, error) {
	have, err := f.Stat()
	if err != nil {
		return false, fmt.Errorf("look at lock: %w", err)
	}
	there, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at lock: %w", err)
	}
	return os.SameFile(have, there), nil
}

// sign writes our process id for those who wait.
func (l *fileLock) sign() error {
	if err := l.file.Truncate(0); err != nil {
		return fmt.Errorf("sign lock: %w", err)
	}
	if _, err := l.file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return fmt.Errorf("sign lock: %w", err)
	}
	return nil
}

// unlock removes the file and frees the lock.
func (l *fileLock) unlock() error {
	err := os.Remove(l.file.Name())
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	if err := errors.Join(err, l.file.Close()); err != nil {
		return fmt.Errorf("release lock: %w", err)
	}
	return nil
}

// lockHolder reads who signed the lock; 0 when that can't be told, as when it was just
// taken or freed. It is only shown to people, so that is no error.
func lockHolder(path string) int {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 32))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return pid
}
