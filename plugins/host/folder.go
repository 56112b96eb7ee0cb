package host

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/gildhq/gild/plugins/internal/procs"
)

// runsDir is the folder, in that of the host, with one folder for each host that runs
// plugins. Such a folder is locked (flock) as long as its host lives.
const runsDir = "run"

// socketsLink is the name, in a run folder, of the link to the folder for sockets.
const socketsLink = "sockets"

// socketsPattern is how folders for sockets are named in the folder for temporary files.
// The path of a socket has at most 107 bytes, which the host's folder may use up alone.
var socketsPattern = regexp.MustCompile(`^gild-[0-9a-f]{16}$`)

// runFolder is the folder of one host. It holds the copies of the plugins that run.
type runFolder struct {
	dir     string
	id      string   // its name; processes have it in their environment
	sockets string   // short path of a private folder
	lock    *os.File // of dir

	mu   sync.Mutex
	last int
}

func newRunFolder(dir string) (*runFolder, error) {
	f, err := makeRunFolder(filepath.Join(dir, runsDir))
	if err != nil {
		return nil, fmt.Errorf("make a folder to run plugins in: %w", err)
	}
	return f, nil
}

func makeRunFolder(runs string) (_ *runFolder, err error) {
	if err := os.MkdirAll(runs, 0o700); err != nil {
		return nil, err
	}
	// Until the new folder is locked, a sweep would take it for that of a dead host.
	all, err := lockDir(runs, unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, all.Close()) }()
	random := make([]byte, 8)
	rand.Read(random)
	f := &runFolder{id: hex.EncodeToString(random)}
	f.dir = filepath.Join(runs, f.id)
	f.sockets = filepath.Join(os.TempDir(), "gild-"+f.id)
	if err := os.Mkdir(f.dir, 0o700); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.remove())
		}
	}()
	if f.lock, err = lockDir(f.dir, unix.LOCK_EX); err != nil {
		return nil, err
	}
	// The link comes first, so that a sweep finds the folder.
	if err := os.Symlink(f.sockets, filepath.Join(f.dir, socketsLink)); err != nil {
		return nil, err
	}
	return f, os.Mkdir(f.sockets, 0o700)
}

// lockDir opens and locks a folder. Closing it unlocks.
func lockDir(path string, how int) (*os.File, error) {
	d, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(d.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), d.Close())
	}
	return d, nil
}

// seat is the place of one process in a run folder.
type seat struct {
	token   string // in the process's environment, and in that of what it starts
	content string // folder for the copy of the plugin
	sockets string
	temp    string // the process's TMPDIR
}

// seat makes the folders for one more process.
func (f *runFolder) seat() (seat, error) {
	f.mu.Lock()
	f.last++
	name := strconv.Itoa(f.last)
	f.mu.Unlock()
	s := seat{
		token:   f.id + "." + name,
		content: filepath.Join(f.dir, name),
		sockets: filepath.Join(f.sockets, name),
	}
	s.temp = filepath.Join(s.sockets, "tmp")
	for _, dir := range []string{s.content, s.sockets, s.temp} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return seat{}, errors.Join(err, s.remove())
		}
	}
	return s, nil
}

// holds tells of the processes that have the seat's token.
func (s seat) holds(pid int) bool { return procs.Variable(pid, procs.RunEnv) == s.token }

func (s seat) remove() error {
	return errors.Join(removeAll(s.content), removeAll(s.sockets))
}

// remove removes the folder and, last, unlocks it.
func (f *runFolder) remove() error {
	err := removeRun(f.dir)
	if f.lock != nil {
		err = errors.Join(err, f.lock.Close())
	}
	return err
}

// removeRun removes a run folder and its folder for sockets.
func removeRun(dir string) error {
	link, err := os.Readlink(filepath.Join(dir, socketsLink))
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case socketsPattern.MatchString(filepath.Base(link)):
		if err := removeAll(link); err != nil {
			return err
		}
	}
	return removeAll(dir)
}

// removeAll removes a tree. A plugin may have taken rights away from folders in it, which
// holds up everyone but root.
func removeAll(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(path, 0o700)
		}
		return err
	})
	return errors.Join(err, os.RemoveAll(dir))
}
