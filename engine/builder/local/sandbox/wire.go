package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// The control socket of a child carries packets: one JSON value each, with files.
// Every call gets a stream socket of its own as the first file of its packet.

// setup is the first packet: what to make of the namespaces. Count files follow it,
// in packets of maxFiles.
type setup struct {
	Hostname string
	// Lower is how many of the files are lower layers; upper and work come after them.
	Lower int
	Upper bool
	Work  bool
	// Writable are the paths of the folders a job may write to; their files come last.
	Writable []string
	Files    int
}

// request starts a call.
type request struct {
	Op string
	// Network and Resolver matter to exec: join the host's network, and mount a resolv.conf.
	Network, Resolver bool `json:",omitempty"`
	// Stdin, Stdout and Stderr tell which streams have a file; two that share one are equal.
	Stdin, Stdout, Stderr int `json:",omitempty"`
}

// The calls a child answers.
const (
	opExec  = "exec"
	opPut   = "put"
	opGet   = "get"
	opFacts = "facts"
)

// reply ends a call, and the setup.
type reply struct {
	Error  string        `json:",omitempty"`
	Errno  syscall.Errno `json:",omitempty"`
	Status int           `json:",omitempty"`
	Size   int64         `json:",omitempty"`
	Arch   string        `json:",omitempty"`
	Apt    bool          `json:",omitempty"`
}

// failed makes the reply of a call that ended with err.
func failed(err error) reply {
	if err == nil {
		return reply{}
	}
	r := reply{Error: err.Error()}
	errors.As(err, &r.Errno)
	return r
}

// err returns the error of the other side, which compares equal to its cause
// (fs.ErrNotExist and the like).
func (r reply) err() error {
	switch {
	case r.Error == "":
		return nil
	case r.Errno == 0:
		return errors.New(r.Error)
	default:
		return &remoteError{text: r.Error, errno: r.Errno}
	}
}

type remoteError struct {
	text  string
	errno syscall.Errno
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.errno }

// maxFiles is how many files one packet carries; the kernel takes 253.
const maxFiles = 200

// maxPacket is the size of the largest packet in bytes.
const maxPacket = 64 << 10

func sendPacket(conn *net.UnixConn, v any, files []*os.File) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(data) > maxPacket {
		return fmt.Errorf("send %d bytes: at most %d fit", len(data), maxPacket)
	}
	var fds []int
	for _, f := range files {
		raw, err := f.SyscallConn()
		if err != nil {
			return err
		}
		if err := raw.Control(func(fd uintptr) { fds = append(fds, int(fd)) }); err != nil {
			return err
		}
	}
	_, _, err = conn.WriteMsgUnix(data, unix.UnixRights(fds...), nil)
	return err
}

// readPacket reads one packet in a child. The error is io.EOF when the other side is gone.
func readPacket(fd int, v any) ([]*os.File, error) {
	data := make([]byte, maxPacket)
	rights := make([]byte, unix.CmsgSpace(4*253))
	var n, oobn int
	err := retry(func() (err error) {
		n, oobn, _, _, err = unix.Recvmsg(fd, data, rights, unix.MSG_CMSG_CLOEXEC)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}
	if n == 0 {
		return nil, io.EOF
	}
	files, err := parseRights(rights[:oobn])
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data[:n], v); err != nil {
		closeAll(files)
		return nil, fmt.Errorf("receive: %w", err)
	}
	return files, nil
}

func parseRights(oob []byte) ([]*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("receive files: %w", err)
	}
	var files []*os.File
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			closeAll(files)
			return nil, fmt.Errorf("receive files: %w", err)
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}

// retry repeats a system call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// wire carries JSON values over the stream socket of a call.
type wire struct {
	enc *json.Encoder
	dec *json.Decoder
}

func newWire(rw io.ReadWriter) *wire {
	return &wire{enc: json.NewEncoder(rw), dec: json.NewDecoder(rw)}
}

func (w *wire) send(v any) error    { return w.enc.Encode(v) }
func (w *wire) receive(v any) error { return w.dec.Decode(v) }

// socketPair makes a stream socket: a connection for this process and a blocking
// file for a child.
func socketPair() (*net.UnixConn, *os.File, error) {
	return socketPairOf(unix.SOCK_STREAM)
}

func socketPairOf(kind int) (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "socket")
	ours := os.NewFile(uintptr(fds[0]), "socket")
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	return conn.(*net.UnixConn), theirs, nil
}

// pipes makes a pipe whose end for the child blocks, as commands expect of their
// standard streams, while ours doesn't hold a thread.
func pipes(childReads bool) (ours, theirs *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("make a pipe: %w", err)
	}
	if childReads {
		fds[0], fds[1] = fds[1], fds[0]
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, nil, fmt.Errorf("make a pipe: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "pipe"), os.NewFile(uintptr(fds[1]), "pipe"), nil
}
