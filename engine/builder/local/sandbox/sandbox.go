// Package sandbox is the machine in which build steps run: a tree of overlay
// layers as the root folder of a set of Linux namespaces.
//
// In go layers, bottom first, and a folder for the changes; out comes the same
// folder holding exactly what the commands changed. Commands inside see the tree,
// a private /proc, /dev, /tmp and /run, and nothing of the host: no file, process,
// terminal, environment or device, and the network only when it is asked for.
// Root inside is an unused id outside (see [IDs]), the same for a caller that is
// root and for one that isn't.
//
// A session is this program started again (see [Init]) as the first process of new
// namespaces. It ends, with every process in it, when the caller closes it or dies.
// Each command runs under an init of its own, in a process namespace of its own, so
// nothing a command starts outlives it.
//
// The package never mounts anything where the host can see it, never runs a command
// as the caller, and never writes to a folder it wasn't given.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// Config says which machine to open. Folders may be given relative to the working
// folder; only the caller needs to be able to reach them.
type Config struct {
	// Lower are the layers, bottom first; they are never changed. About 500 fit.
	Lower []string
	// Upper takes the changes. It must have been made by [MakeDirs]. With no Lower it is
	// the tree itself. Empty means a tree that can't be changed.
	//
	// It is mounted so that the machine's own fsync does nothing: whoever keeps Upper
	// syncs its file system after Close.
	Upper string
	// Work is an empty folder for the kernel beside Upper, on the same file system, also
	// made by [MakeDirs]. Needed when there are both Lower and Upper.
	Work string
	// IDs is the range of ids the machine uses; all layers must have been made with it.
	IDs IDs
	// Hostname inside; empty means "gild".
	Hostname string
	// Clock is given to commands as SOURCE_DATE_EPOCH unless zero.
	Clock time.Time
}

// Session is an open machine. It is safe for concurrent use and must be closed.
// It implements step.MachineHandle.
type Session struct {
	child *child
	clock time.Time
}

// Open starts a machine. Cancelling ctx afterwards does not end it; Close does.
func Open(ctx context.Context, c Config) (*Session, error) {
	s, err := open(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("open sandbox: %w", err)
	}
	return s, nil
}

func open(ctx context.Context, c Config) (*Session, error) {
	tree := treeFolders{lower: c.Lower, upper: c.Upper, work: c.Work}
	if err := tree.check(); err != nil {
		return nil, err
	}
	if len(tree.lower) == 0 && tree.upper == "" {
		return nil, errors.New("neither layers nor a folder for changes were given")
	}
	hostname := c.Hostname
	if hostname == "" {
		hostname = "gild"
	}
	ch, err := startChild(ctx, roleSession, c.IDs, childOptions{})
	if err != nil {
		return nil, err
	}
	if err := ch.setUp(ctx, setup{Hostname: hostname}, tree, nil); err != nil {
		return nil, errors.Join(err, ch.stop())
	}
	return &Session{child: ch, clock: c.Clock}, nil
}

// Close ends every process of the machine and takes its mounts away.
// Calling it again does nothing.
func (s *Session) Close() error {
	if err := s.child.stop(); err != nil {
		return fmt.Errorf("close sandbox: %w", err)
	}
	return nil
}

// call is one request to a session, on a connection of its own. Closing the
// connection for writing cancels it; the session closes it when all is over.
type call struct {
	conn *net.UnixConn
	wire *wire
}

// start sends a request with the child's ends of its streams, which it closes.
func (c *child) start(req request, files ...*os.File) (*call, error) {
	defer closeAll(files)
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	if err := sendPacket(c.control, req, append([]*os.File{theirs}, files...)); err != nil {
		ours.Close()
		return nil, c.explain(err)
	}
	return &call{conn: ours, wire: newWire(ours)}, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}
