package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// runSession is the first process of a session: it makes the file system, then
// answers calls until the caller is gone.
func runSession() error {
	unix.Umask(0)
	s, folders, err := awaitSetup()
	if err != nil {
		return err
	}
	self, err := findProgram(takeIDs)
	if err == nil {
		err = makeMachine(s, folders)
	}
	closeAll(folders)
	if err := errors.Join(err, answerSetup(err)); err != nil {
		return err
	}
	for {
		var req request
		files, err := readPacket(controlFD, &req)
		if err != nil {
			return err
		}
		go serve(self, req, files)
	}
}

// makeMachine mounts the machine's file system on the stage. The session itself stays
// outside of it: this program may need the host's shared libraries to be started again.
func makeMachine(s setup, folders []*os.File) error {
	if err := makePrivate(); err != nil {
		return err
	}
	devices, err := cloneDevices()
	if err != nil {
		return err
	}
	if err := mountTree(s, folders); err != nil {
		return err
	}
	err = errors.Join(
		mountDev(stage, devices),
		mountScratch(stage),
		ensureDir(stage+"/proc"),
		forbidUserNamespaces())
	if err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
		return fmt.Errorf("set the host name %q: %w", s.Hostname, err)
	}
	return nil
}

// forbidUserNamespaces keeps what runs inside from becoming root of a namespace of its
// own, which is how most kernel holes are reached.
func forbidUserNamespaces() error {
	if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
		return fmt.Errorf("forbid further user namespaces: %w", err)
	}
	return nil
}

// serve answers one call. files are the call's socket, then its streams.
func serve(self program, req request, files []*os.File) {
	defer closeAll(files)
	if len(files) == 0 {
		return
	}
	socket, streams := files[0], files[1:]
	if req.Op == opExec {
		serveExec(self, req, socket, streams)
		return
	}
	w := newWire(socket)
	var r reply
	var err error
	switch req.Op {
	case opPut:
		err = servePut(w, streams)
	case opGet:
		r, err = serveGet(w, streams)
	case opFacts:
		r, err = serveFacts()
	default:
		err = fmt.Errorf("unknown call %q", req.Op)
	}
	if err != nil {
		r = failed(err)
	}
	// The caller that doesn't take the answer any more has cancelled the call.
	_ = w.send(r)
}

// serveExec starts an exec's init and waits for it. The init reports to the caller
// itself; the call ends when its socket has been closed by both, at which time every
// process of the exec is gone.
func serveExec(self program, req request, socket *os.File, streams []*os.File) {
	if err := superviseExec(self, req, socket, streams); err != nil {
		_ = newWire(socket).send(failed(err))
	}
}

func superviseExec(self program, req request, socket *os.File, streams []*os.File) error {
	if req.Resolver {
		remove, err := placeResolver()
		if err != nil {
			return fmt.Errorf("make place for resolv.conf: %w", err)
		}
		defer remove()
	}
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	stream := func(n int) uintptr {
		if n > 0 && n <= len(streams) {
			return streams[n-1].Fd()
		}
		return null.Fd()
	}
	flags := uintptr(unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC)
	if !req.Network {
		flags |= unix.CLONE_NEWNET
	}
	pid, err := syscall.ForkExec(self.path, []string{childName, roleExec}, &syscall.ProcAttr{
		Dir:   "/",
		Files: []uintptr{stream(req.Stdin), stream(req.Stdout), stream(req.Stderr), socket.Fd()},
		Sys:   &syscall.SysProcAttr{Cloneflags: flags, Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("start a command's first process: %w", err)
	}
	var status syscall.WaitStatus
	err = retry(func() error {
		_, err := syscall.Wait4(pid, &status, 0, nil)
		return err
	})
	if err == nil && status.Signaled() {
		err = fmt.Errorf("all its processes were killed from outside by signal %d (%v): out of memory?", status.Signal(), status.Signal())
	}
	return err
}

const resolver = "/etc/resolv.conf"

// placeResolver makes sure there is a file to mount the host's resolv.conf over, and
// returns what takes it away again: the layer must not keep it.
func placeResolver() (remove func(), err error) {
	dir, base, err := openParent(resolver, false)
	if errors.Is(err, fs.ErrNotExist) {
		dir, base, err = openParent(resolver, true)
	}
	if err != nil {
		return nil, err
	}
	fd, err := unix.Openat(dir, base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o644)
	if errors.Is(err, unix.EEXIST) {
		unix.Close(dir)
		return func() {}, nil
	}
	if err != nil {
		unix.Close(dir)
		return nil, err
	}
	var made unix.Stat_t
	if err := errors.Join(unix.Fstat(fd, &made), unix.Close(fd)); err != nil {
		return nil, err
	}
	return func() {
		defer unix.Close(dir)
		var now unix.Stat_t
		err := unix.Fstatat(dir, base, &now, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil && now.Ino == made.Ino && now.Size == 0 {
			_ = unix.Unlinkat(dir, base, 0)
		}
	}, nil
}
