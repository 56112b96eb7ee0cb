package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// child is this program started again in namespaces of its own. Its first process
// ends when the control connection does, and the kernel then ends all others.
type child struct {
	cmd     *exec.Cmd
	control *net.UnixConn
	said    *tail
	stopped func() error
}

type childOptions struct {
	// mapCaller gives the child the caller's own id too, after the last of its range.
	mapCaller bool
	// output takes what the child prints; nil keeps the end of it for error messages.
	output io.Writer
	// files are passed on as descriptors from 4.
	files []*os.File
}

// namespaces of every child. The network stays the host's; commands leave it.
const namespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID |
	unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

// lastCapability is the last one of the oldest kernel supported, Linux 5.11.
const lastCapability = unix.CAP_CHECKPOINT_RESTORE

// startChild starts a child and gives it its ids. It must be stopped.
func startChild(ctx context.Context, role string, ids IDs, o childOptions) (*child, error) {
	if err := ids.check(); err != nil {
		return nil, err
	}
	control, theirs, err := socketPairOf(unix.SOCK_SEQPACKET)
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	c := &child{control: control, said: &tail{next: o.output}}
	c.cmd = childCommand(role, append([]*os.File{theirs}, o.files...), c.said)
	if err := c.cmd.Start(); err != nil {
		control.Close()
		return nil, explainStart(err)
	}
	c.stopped = sync.OnceValue(c.end)
	if err := writeMaps(c.cmd.Process.Pid, ids, o.mapCaller); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	if err := ctx.Err(); err != nil {
		return nil, errors.Join(context.Cause(ctx), c.stop())
	}
	return c, nil
}

func childCommand(role string, files []*os.File, output io.Writer) *exec.Cmd {
	var capabilities []uintptr
	for c := range uintptr(lastCapability + 1) {
		capabilities = append(capabilities, c)
	}
	return &exec.Cmd{
		Path:       "/proc/self/exe",
		Args:       []string{childName, role},
		Env:        []string{},
		Dir:        "/",
		Stdout:     output,
		Stderr:     output,
		ExtraFiles: files,
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: namespaces,
			// The program is started before its ids are mapped, when only ambient
			// capabilities survive that.
			AmbientCaps: capabilities,
			// Without a terminal of its own the child gets no Ctrl-C, and nothing in it
			// can type into the caller's terminal.
			Setsid: true,
		},
	}
}

// stop ends the child and everything in it, and waits until that is done.
func (c *child) stop() error { return c.stopped() }

func (c *child) end() error {
	// Killing the first process of a process namespace kills the namespace; there is
	// nothing in it that would have to be put in order first.
	err := c.cmd.Process.Kill()
	c.control.Close()
	var exit *exec.ExitError
	if werr := c.cmd.Wait(); werr != nil && !errors.As(werr, &exit) {
		return errors.Join(err, werr)
	}
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// explain turns an error of talking to the child into what has become of it.
func (c *child) explain(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return errors.New("the sandbox is closed")
	}
	if !isEnd(err) && !errors.Is(err, syscall.EPIPE) {
		return err
	}
	// Only after it has been waited for is all there that it had to say. Whoever started
	// it stops it once more and gets the error of that.
	_ = c.stop()
	if said := c.said.gist(); said != "" {
		return fmt.Errorf("the sandbox's first process ended: %s", said)
	}
	return fmt.Errorf("the sandbox's first process ended: %v", c.cmd.ProcessState)
}

// setUp hands the child its folders and waits until its file system is made.
func (c *child) setUp(ctx context.Context, s setup, tree treeFolders, writable []string) error {
	stop := context.AfterFunc(ctx, func() { c.control.Close() })
	defer stop()
	files, err := c.openFolders(slices.Concat(tree.all(), writable))
	defer closeAll(files)
	if err != nil {
		return err
	}
	s.Lower, s.Upper, s.Work = len(tree.lower), tree.upper != "", tree.work != ""
	s.Writable, s.Files = writable, len(files)
	var r reply
	err = c.handOver(s, files)
	if err == nil {
		err = c.receive(&r)
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return c.explain(err)
	default:
		return explainSetup(r.err())
	}
}

func (c *child) handOver(s setup, files []*os.File) error {
	if err := sendPacket(c.control, s, nil); err != nil {
		return err
	}
	for chunk := range slices.Chunk(files, maxFiles) {
		if err := sendPacket(c.control, request{}, chunk); err != nil {
			return err
		}
	}
	return nil
}

func (c *child) receive(r *reply) error {
	data := make([]byte, maxPacket)
	n, err := c.control.Read(data)
	if err != nil {
		return err
	}
	if n == 0 {
		return io.EOF
	}
	return json.Unmarshal(data[:n], r)
}

// openFolders opens folders in the child's mount namespace with the caller's rights.
// The child itself couldn't: its ids have no rights in a state folder of mode 0700,
// and mounts must not be made from folders of another mount namespace.
func (c *child) openFolders(paths []string) ([]*os.File, error) {
	var files []*os.File
	for _, path := range paths {
		real, err := realPath(path)
		if err != nil {
			return files, err
		}
		name := fmt.Sprintf("/proc/%d/root%s", c.cmd.Process.Pid, real)
		fd, err := unix.Open(name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return files, fmt.Errorf("open folder %q: %w", path, err)
		}
		files = append(files, os.NewFile(uintptr(fd), path))
	}
	return files, nil
}

func realPath(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}

// treeFolders are the folders a tree is made of.
type treeFolders struct {
	lower       []string
	upper, work string
}

func (t treeFolders) check() error {
	if t.upper != "" && len(t.lower) > 0 && t.work == "" {
		return errors.New("changes on top of layers need a work folder")
	}
	if t.upper == "" && t.work != "" {
		return errors.New("a work folder is of no use without a folder for changes")
	}
	return nil
}

// all lists the folders in the order in which the child takes them.
func (t treeFolders) all() []string {
	all := slices.Clone(t.lower)
	if t.upper != "" {
		all = append(all, t.upper)
	}
	if t.work != "" {
		all = append(all, t.work)
	}
	return all
}
