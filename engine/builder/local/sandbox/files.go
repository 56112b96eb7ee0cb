package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"strings"
	"time"

	"github.com/gildhq/gild/engine/step"
)

// putSpec says how to write a file.
type putSpec struct {
	Path         string
	Mode         uint32 // as in chmod
	Owner, Group string
	ModTime      time.Time
	Parents      bool
}

// commit ends the content of a put; without it the file isn't kept.
type commit struct{ Size int64 }

// getSpec says which file to read.
type getSpec struct{ Path string }

// Put writes a file in one piece: whoever opens it sees the old content or the new.
// Links are followed inside the tree only.
func (s *Session) Put(ctx context.Context, f step.PutFile, r io.Reader) error {
	spec := putSpec{
		Path: f.Path, Mode: unixMode(f.Mode), Owner: f.Owner, Group: f.Group,
		ModTime: f.ModTime, Parents: f.Parents,
	}
	if err := s.put(ctx, spec, r); err != nil {
		return fmt.Errorf("put %q: %w", f.Path, err)
	}
	return nil
}

func (s *Session) put(ctx context.Context, spec putSpec, r io.Reader) error {
	data, theirs, err := pipes(true)
	if err != nil {
		return err
	}
	defer data.Close()
	call, err := s.child.start(request{Op: opPut}, theirs)
	if err != nil {
		return err
	}
	defer call.conn.Close()
	stop := context.AfterFunc(ctx, func() { call.conn.Close(); data.Close() })
	defer stop()
	if err := call.wire.send(spec); err != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	content := &errReader{r: r}
	n, copyErr := io.Copy(data, content)
	data.Close()
	if content.err != nil {
		return content.err
	}
	// When the other side stopped reading, its reply tells why.
	sendErr := copyErr
	if copyErr == nil {
		sendErr = call.wire.send(commit{Size: n})
	}
	var rep reply
	if err := call.wire.receive(&rep); err != nil {
		return errors.Join(context.Cause(ctx), sendErr, err)
	}
	if err := rep.err(); err != nil {
		return err
	}
	return sendErr
}

// errReader keeps the error of reading apart from that of writing.
type errReader struct {
	r   io.Reader
	err error
}

func (e *errReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if err != nil && err != io.EOF {
		e.err = err
	}
	return n, err
}

// unixMode returns the bits of chmod; 0 stands for 0644.
func unixMode(m fs.FileMode) uint32 {
	if m == 0 {
		return 0o644
	}
	bits := uint32(m.Perm())
	for flag, bit := range map[fs.FileMode]uint32{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if m&flag != 0 {
			bits |= bit
		}
	}
	return bits
}

// Get copies the content of a regular file to w. The error wraps fs.ErrNotExist when
// there is none.
func (s *Session) Get(ctx context.Context, path string, w io.Writer) error {
	if err := s.get(ctx, path, w); err != nil {
		return fmt.Errorf("get %q: %w", path, err)
	}
	return nil
}

func (s *Session) get(ctx context.Context, path string, w io.Writer) error {
	data, theirs, err := pipes(false)
	if err != nil {
		return err
	}
	defer data.Close()
	call, err := s.child.start(request{Op: opGet}, theirs)
	if err != nil {
		return err
	}
	defer call.conn.Close()
	stop := context.AfterFunc(ctx, func() { call.conn.Close(); data.Close() })
	defer stop()
	if err := call.wire.send(getSpec{Path: path}); err != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	n, err := io.Copy(w, data)
	if err != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	var r reply
	if err := call.wire.receive(&r); err != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	if err := r.err(); err != nil {
		return err
	}
	if r.Size != n {
		return fmt.Errorf("%d bytes came, %d were sent: %w", n, r.Size, io.ErrUnexpectedEOF)
	}
	return nil
}

// Facts tells what the tree holds. Fields it can't find out are empty, except the
// architecture: without a shell to look at, it is the host's.
func (s *Session) Facts(ctx context.Context) (step.Facts, error) {
	facts, err := s.facts(ctx)
	if err != nil {
		return step.Facts{}, fmt.Errorf("find out what the machine is: %w", err)
	}
	return facts, nil
}

func (s *Session) facts(ctx context.Context) (step.Facts, error) {
	var release bytes.Buffer
	err := s.Get(ctx, "/etc/os-release", &release)
	if errors.Is(err, fs.ErrNotExist) {
		err = s.Get(ctx, "/usr/lib/os-release", &release)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return step.Facts{}, err
	}
	call, err := s.child.start(request{Op: opFacts})
	if err != nil {
		return step.Facts{}, err
	}
	defer call.conn.Close()
	stop := context.AfterFunc(ctx, func() { call.conn.Close() })
	defer stop()
	var r reply
	if err := call.wire.receive(&r); err != nil {
		return step.Facts{}, errors.Join(context.Cause(ctx), err)
	}
	if err := r.err(); err != nil {
		return step.Facts{}, err
	}
	facts := step.Facts{Arch: r.Arch}
	facts.OS, facts.Version = parseRelease(release.String())
	if facts.Arch == "" {
		facts.Arch = runtime.GOARCH
	}
	if r.Apt {
		facts.PackageManager = "apt"
	}
	return facts, nil
}

// parseRelease reads ID and VERSION_ID of an os-release file.
func parseRelease(text string) (id, version string) {
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		value = strings.Trim(value, `"'`)
		switch name {
		case "ID":
			id = value
		case "VERSION_ID":
			version = value
		}
	}
	return id, version
}
