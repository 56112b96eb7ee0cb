package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// jobRoot is where a job finds its tree.
const jobRoot = "/tmp/root"

// outFD is the descriptor a job's result goes to.
const outFD = 4

// Job is work on a tree that must see it with its true owners. It runs as root of the
// tree in a process of its own; root is the folder of the tree, empty when the job was
// given none. What it writes to out is its result.
type Job func(ctx context.Context, root string, args json.RawMessage, out io.Writer) error

// jobs are all registered jobs by name. Children of this program look theirs up here,
// which is why it is package-level state: it is the same in every process, because it
// is filled before main begins.
var jobs = map[string]Job{}

// Register makes a job known. Call it from a package-level variable or init of the
// package that runs the job, never later: [Init] runs jobs. It panics when the name is taken.
func Register(name string, job Job) {
	if _, taken := jobs[name]; taken {
		panic("sandbox: job " + name + " is registered twice")
	}
	jobs[name] = job
}

// JobConfig says what a job works on.
type JobConfig struct {
	// Lower, Upper and Work make the tree as in [Config]. All empty means no tree.
	Lower       []string
	Upper, Work string
	IDs         IDs
	// Writable are the folders of the host the job may write to. When there are any, the
	// job also has the caller's own rights there, as the id [IDs].Size inside, so it must
	// not run code out of the tree. What it makes belongs to its root unless it gives it
	// to that id.
	Writable []string
}

// RunJob runs a registered job and returns its result. args is marshalled as JSON; log
// takes what the job and the tools it starts print, nil discards it.
//
// The job has the host's files read-only, apart from Writable, with a /tmp, /dev and
// /proc of its own; the host's network; and a minimal environment. It is the first
// process of its namespaces: nothing it starts outlives it, and cancelling ctx kills it.
func RunJob(ctx context.Context, c JobConfig, name string, args any, log io.Writer) ([]byte, error) {
	if _, ok := jobs[name]; !ok {
		return nil, fmt.Errorf("job %q is not registered", name)
	}
	out, err := startJob(ctx, c, name, args, log)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return out, nil
}

func startJob(ctx context.Context, c JobConfig, name string, args any, log io.Writer) (result []byte, err error) {
	raw, err := json.Marshal(args)
	if err != nil {
		return nil, err
	}
	tree := treeFolders{lower: c.Lower, upper: c.Upper, work: c.Work}
	if err := tree.check(); err != nil {
		return nil, err
	}
	writable, err := realPaths(c.Writable)
	if err != nil {
		return nil, err
	}
	out, theirs, err := pipes(false)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	ch, err := startChild(ctx, roleJob, c.IDs, childOptions{
		mapCaller: len(writable) > 0, output: log, files: []*os.File{theirs},
	})
	theirs.Close()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, ch.stop()) }()
	if err := ch.setUp(ctx, setup{Hostname: "gild"}, tree, writable); err != nil {
		return nil, err
	}
	return ch.work(ctx, jobSpec{Name: name, Args: raw}, out)
}

func realPaths(paths []string) ([]string, error) {
	var real []string
	for _, p := range paths {
		r, err := realPath(p)
		if err != nil {
			return nil, err
		}
		real = append(real, r)
	}
	return real, nil
}

// jobSpec is the job to run.
type jobSpec struct {
	Name string
	Args json.RawMessage
}

// work lets a child that is set up do its one task.
func (c *child) work(ctx context.Context, spec any, out io.Reader) ([]byte, error) {
	call, err := c.start(request{})
	if err != nil {
		return nil, err
	}
	defer call.conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.cmd.Process.Kill() })
	defer stop()
	if err := call.wire.send(spec); err != nil {
		return nil, c.explain(err)
	}
	var result bytes.Buffer
	if out != nil {
		if _, err := result.ReadFrom(out); err != nil {
			return nil, fmt.Errorf("read the result: %w", err)
		}
	}
	var r reply
	if err := call.wire.receive(&r); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, c.explain(err)
	}
	return result.Bytes(), r.err()
}

// runJob is the process of a job.
func runJob() error {
	s, folders, err := awaitSetup()
	if err != nil {
		return err
	}
	root := ""
	if err = takeIDs(); err == nil {
		root, err = makeJobFiles(s, folders)
	}
	closeAll(folders)
	if err := errors.Join(err, answerSetup(err)); err != nil {
		return err
	}
	return serveWork(func(ctx context.Context, w *wire) error {
		var spec jobSpec
		if err := w.receive(&spec); err != nil {
			return err
		}
		out := os.NewFile(outFD, "out")
		defer out.Close()
		if err := setJobEnvironment(); err != nil {
			return err
		}
		return jobs[spec.Name](ctx, root, spec.Args, out)
	})
}

func setJobEnvironment() error {
	unix.Umask(0o022)
	os.Clearenv()
	return errors.Join(
		os.Setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
		os.Setenv("HOME", stage),
		os.Setenv("LANG", "C.UTF-8"))
}

// serveWork takes the one call of a child that isn't a session, and ends the process
// when the caller goes away.
func serveWork(work func(ctx context.Context, w *wire) error) error {
	files, err := readPacket(controlFD, &request{})
	if err != nil {
		return err
	}
	go func() {
		_, _ = readPacket(controlFD, &request{}) // nothing more comes until the end
		exit(1)
	}()
	w := newWire(files[0])
	return w.send(failed(work(context.Background(), w)))
}

// makeJobFiles makes what the job sees of the host, and mounts its tree.
func makeJobFiles(s setup, folders []*os.File) (root string, err error) {
	if err := makePrivate(); err != nil {
		return "", err
	}
	tree, err := detachTree(s, folders)
	if err != nil {
		return "", err
	}
	writable := folders[len(folders)-len(s.Writable):]
	var doors []int
	for _, folder := range writable {
		door, err := cloneMount(folder)
		if err != nil {
			return "", fmt.Errorf("make %q writable: %w", folder.Name(), err)
		}
		doors = append(doors, door)
	}
	devices, err := cloneDevices()
	if err != nil {
		return "", err
	}
	if err := closeHost(devices); err != nil {
		return "", err
	}
	for i, door := range doors {
		if err := openDoor(door, s.Writable[i]); err != nil {
			return "", err
		}
	}
	if tree < 0 {
		return "", nil
	}
	if err := os.Mkdir(jobRoot, 0o755); err != nil {
		return "", err
	}
	return jobRoot, attach(tree, jobRoot)
}

// detachTree mounts the tree where nothing else is, to be attached later; -1 is no tree.
func detachTree(s setup, folders []*os.File) (int, error) {
	if s.Lower == 0 && !s.Upper {
		return -1, nil
	}
	if err := mountTree(s, folders[:len(folders)-len(s.Writable)]); err != nil {
		return -1, err
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, stage, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("take the tree: %w", err)
	}
	return tree, unix.Unmount(stage, unix.MNT_DETACH)
}

// closeHost makes everything of the host read-only and covers what must be private.
func closeHost(devices map[string]int) error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &attr); err != nil {
		return fmt.Errorf("make the host's files read-only: %w", err)
	}
	return errors.Join(
		mountDir("tmpfs", stage, nothingSpecial, "mode=1777"),
		mountProc(),
		protectProc(),
		mountDev("/", devices))
}

// openDoor mounts a writable folder at its own path.
func openDoor(door int, path string) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return fmt.Errorf("reach folder %q: %w", path, err)
	}
	return attach(door, filepath.Clean(path))
}
