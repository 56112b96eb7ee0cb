package file

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/gildhq/gild/engine/step"
)

// copyFolder streams the folder to a tar on the machine: one command however many files,
// and every link is followed inside the machine's root only.
func copyFolder(ctx context.Context, t *step.Target, c Config, in step.Input) error {
	if c.Mode != "" {
		return &step.Permanent{Err: fmt.Errorf("mode has no meaning for the folder %q, whose files keep theirs", c.From)}
	}
	if err := checkLinks(in.Files()); err != nil {
		return &step.Permanent{Err: fmt.Errorf("folder %q: %w", c.From, err)}
	}
	owner, err := lookUp(ctx, t.Machine, c)
	if err != nil {
		return err
	}
	if err := makeFolder(ctx, t, c, owner); err != nil {
		return fmt.Errorf("make %s: %w", c.To, err)
	}
	r, w := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		err := writeTar(w, in, owner, t)
		w.CloseWithError(err)
		sent <- err
	}()
	argv := []string{"tar", "--extract", "--file=-", "--directory=" + c.To, "--same-permissions",
		"--same-owner", "--numeric-owner", "--keep-directory-symlink", "--no-overwrite-dir"}
	err = t.Machine.Exec(ctx, step.Cmd{Argv: argv, Stdin: r, Stdout: t.Log, Stderr: t.Log})
	r.CloseWithError(errStopped)
	if sendErr := <-sent; sendErr != nil && !errors.Is(sendErr, errStopped) {
		return fmt.Errorf("copy %q to %s: %w", c.From, c.To, sendErr)
	}
	if err != nil {
		return fmt.Errorf("copy %q to %s: %w", c.From, c.To, err)
	}
	fmt.Fprintf(t.Log, "copied %d entries to %s\n", len(in.Files()), c.To)
	return nil
}

// errStopped is what the sender sees when the machine's tar ended before it.
var errStopped = errors.New("the machine's tar ended early")

// checkLinks refuses links that lead out of the folder.
func checkLinks(files []step.InputFile) error {
	for _, f := range files {
		if f.Mode&fs.ModeSymlink == 0 {
			continue
		}
		target := path.Join(path.Dir(f.Path), f.Link)
		if path.IsAbs(f.Link) || target == ".." || strings.HasPrefix(target, "../") {
			return fmt.Errorf("link %q leads to %q, out of the folder", f.Path, f.Link)
		}
	}
	return nil
}

// ids are the numbers of a user and a group on the machine.
type ids struct{ uid, gid int }

func lookUp(ctx context.Context, m step.MachineHandle, c Config) (ids, error) {
	uid, err := lookUpID(ctx, m, "passwd", c.Owner)
	if err != nil {
		return ids{}, err
	}
	gid, err := lookUpID(ctx, m, "group", c.Group)
	return ids{uid, gid}, err
}

// lookUpID finds the number of a user or group on the machine; it is the third field of both.
func lookUpID(ctx context.Context, m step.MachineHandle, database, name string) (int, error) {
	if name == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	var entry bytes.Buffer
	err := m.Exec(ctx, step.Cmd{Argv: []string{"getent", database, name}, Stdout: &entry})
	var none *step.ExitError
	if errors.As(err, &none) {
		return 0, &step.Permanent{Err: fmt.Errorf("%q is not in the machine's %s database", name, database)}
	}
	if err != nil {
		return 0, fmt.Errorf("look up %q: %w", name, err)
	}
	fields := strings.Split(entry.String(), ":")
	if len(fields) < 3 {
		return 0, fmt.Errorf("look up %q: unexpected entry %q", name, entry.String())
	}
	return strconv.Atoi(fields[2])
}

// makeFolder makes the folder to copy to unless it is there.
func makeFolder(ctx context.Context, t *step.Target, c Config, owner ids) error {
	const make = `set -eu
if [ -d "$1" ]; then exit 0; fi
if [ "$3" = true ]; then mkdir -p -- "$(dirname -- "$1")"; fi
mkdir -m 0755 -- "$1"
chown -- "$2" "$1"`
	argv := []string{"/bin/sh", "-c", make, "make-folder", c.To, fmt.Sprintf("%d:%d", owner.uid, owner.gid), strconv.FormatBool(c.Parents)}
	return t.Machine.Exec(ctx, step.Cmd{Argv: argv, Stdout: t.Log, Stderr: t.Log})
}

// writeTar writes the folder's content, without the folder itself.
func writeTar(w io.Writer, in step.Input, owner ids, t *step.Target) error {
	tw := tar.NewWriter(w)
	for _, f := range in.Files() {
		if f.Path == "." {
			continue
		}
		if err := writeEntry(tw, in, f, owner, t); err != nil {
			return err
		}
	}
	return tw.Close()
}

func writeEntry(tw *tar.Writer, in step.Input, f step.InputFile, owner ids, t *step.Target) error {
	h := &tar.Header{
		Name: f.Path, Mode: int64(f.Mode.Perm()), ModTime: t.Clock,
		Uid: owner.uid, Gid: owner.gid, Format: tar.FormatPAX,
	}
	switch {
	case f.Mode.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, f.Path+"/"
	case f.Mode&fs.ModeSymlink != 0:
		h.Typeflag, h.Linkname = tar.TypeSymlink, f.Link
	case f.Mode.IsRegular():
		h.Typeflag, h.Size = tar.TypeReg, f.Size
	default:
		return &step.Permanent{Err: fmt.Errorf("%q is neither a file, a folder nor a link", f.Path)}
	}
	if err := tw.WriteHeader(h); err != nil || !f.Mode.IsRegular() {
		return err
	}
	r, err := in.Open(f.Path)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(tw, r)
	return err
}
