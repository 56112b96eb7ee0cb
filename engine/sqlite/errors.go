package sqlite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	modernc "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

// Kind is what is wrong with the database file or its surroundings.
type Kind int

// The kinds of errors.
const (
	// Damaged means that the file is not a database or that parts of it were overwritten.
	Damaged Kind = iota + 1
	// Foreign means that the file is a database of another program.
	Foreign
	// Full means that the disk, or the user's quota, has no room.
	Full
	// ReadOnly means that the file or its folder can't be written.
	ReadOnly
	// Missing means that the folder doesn't exist, or that the file is not a file.
	Missing
	// Busy means that another process held the file for longer than a minute.
	Busy
	// Broken means that the disk reported an error of another kind.
	Broken
)

// errForeign is found out by reading, not reported by SQLite.
var errForeign = errors.New("its application id is not gild's")

// Error is a trouble with the file itself, as opposed to a mistake in what was asked of it.
type Error struct {
	// Path of the database.
	Path string
	Kind Kind
	// Err is the cause, with what was being done.
	Err error
}

// Error says what is wrong and what to do.
func (e *Error) Error() string {
	return fmt.Sprintf("the state database %s %s: %v; %s", e.Path, e.state(), e.Err, e.remedy())
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func (e *Error) state() string {
	switch e.Kind {
	case Damaged:
		return "is damaged"
	case Foreign:
		return "belongs to another program"
	case Full:
		return "can't grow, the disk is full"
	case ReadOnly:
		return "can't be written"
	case Missing:
		return "can't be opened"
	case Busy:
		return "is held by another process"
	default:
		return "can't be read or written"
	}
}

func (e *Error) remedy() string {
	switch e.Kind {
	case Damaged:
		return fmt.Sprintf("move it away together with its -wal and -shm files (images and layers stay in %s), then run gild gc", filepath.Dir(e.Path))
	case Foreign:
		return "choose another state folder with --state"
	case Full:
		return "what was finished is safe: make room, or move the state folder, and run the command again"
	case ReadOnly:
		return "make the folder and the file writable for this user, or choose another state folder with --state"
	case Missing:
		return "see that its folder is there and that nothing but a file has its name, or choose another state folder with --state"
	case Busy:
		return "look for a gild that hangs (gild runs), end it, and run the command again"
	default:
		return "what was finished is safe: look at the kernel's log for errors of the disk, and run the command again"
	}
}

// wrap turns what SQLite reports about the file into an *Error; other errors pass as they are.
func (d *DB) wrap(err error) error {
	if err == nil {
		return nil
	}
	if already := (*Error)(nil); errors.As(err, &already) {
		return err
	}
	kind, ok := kindOf(err)
	if !ok {
		return err
	}
	if kind == Broken || kind == Missing {
		kind = d.circumstance(kind)
	}
	return &Error{Path: d.path, Kind: kind, Err: err}
}

// kindOf tells what an error says about the file; ok is false when it says nothing.
func kindOf(err error) (kind Kind, ok bool) {
	if errors.Is(err, errForeign) {
		return Foreign, true
	}
	if errors.Is(err, errRow) {
		return Damaged, true
	}
	var e *modernc.Error
	if !errors.As(err, &e) {
		return 0, false
	}
	switch e.Code() & 0xff {
	case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB:
		return Damaged, true
	case lib.SQLITE_ERROR:
		// Our statements are fixed and fit our schema: one that doesn't fit the file's means
		// that the file's was overwritten.
		return Damaged, true
	case lib.SQLITE_FULL:
		return Full, true
	case lib.SQLITE_READONLY, lib.SQLITE_PERM:
		return ReadOnly, true
	case lib.SQLITE_CANTOPEN:
		return Missing, true
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED, lib.SQLITE_PROTOCOL:
		return Busy, true
	case lib.SQLITE_IOERR:
		return Broken, true
	}
	return 0, false
}

// circumstance looks for the reason of an error for which SQLite has only a general code:
// it can't make its -shm file on a full disk or in a read-only folder, for example.
func (d *DB) circumstance(kind Kind) Kind {
	dir := filepath.Dir(d.path)
	if _, err := os.Stat(dir); err != nil {
		return Missing
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err == nil && fs.Bavail*uint64(fs.Bsize) < 128<<10 {
		return Full
	}
	if unix.Access(dir, unix.W_OK) != nil || errors.Is(unix.Access(d.path, unix.W_OK), unix.EACCES) {
		return ReadOnly
	}
	return kind
}

// errRow marks a value that SQLite handed over but that can't be what was stored.
var errRow = errors.New("a stored value can't be read")

// DamagedRow returns an error which, returned from [DB.Read] or [DB.Write], becomes an [*Error]
// of kind [Damaged]: a stored value isn't one that gild writes.
func DamagedRow(err error) error { return fmt.Errorf("%w: %w", errRow, err) }
