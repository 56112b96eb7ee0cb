package connect

import (
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

// putScript writes its input to the path $1 with mode $2, owner $3, group $4 and time $5
// (empty: now); $6 says whether to make missing folders. The file appears under its name
// when it is complete, which it is when it ends with $7: a connection that breaks looks
// like the end of the input. The dot keeps newlines at the end of a path.
const putScript = `set -eu
umask 022
path=$(readlink -m -- "$1" && echo .)
path=${path%??}
dir=$(dirname -- "$path" && echo .)
dir=${dir%??}
[ -z "$6" ] || mkdir -p -- "$dir"
[ ! -d "$path" ] || { echo "is a folder" >&2; exit 1; }
umask 077
tmp=$(mktemp -- "$dir/.gild-XXXXXXXXXX" && echo .)
tmp=${tmp%??}
trap 'rm -f -- "$tmp"' EXIT
cat >"$tmp"
[ "$(tail -c "${#7}" -- "$tmp" | tr -d '\000')" = "$7" ] || { echo "the content ended too early" >&2; exit 1; }
truncate -s "-${#7}" -- "$tmp"
chown -- "$3:$4" "$tmp"
chmod -- "$2" "$tmp"
[ -z "$5" ] || touch -d "$5" -- "$tmp"
mv -fT -- "$tmp" "$path"
`

// Put writes a file on the machine. Links are followed, as on the machine itself.
func (m *Machine) Put(ctx context.Context, file step.PutFile, content io.Reader) error {
	if !path.IsAbs(file.Path) {
		return fmt.Errorf("write %q on %s: the path isn't absolute", file.Path, m.in.ID)
	}
	mode := file.Mode
	if mode == 0 {
		mode = 0o644
	}
	if content == nil {
		content = strings.NewReader("")
	}
	end := newID()
	args := []string{file.Path, fmt.Sprintf("%04o", unixMode(mode)), orRoot(file.Owner), orRoot(file.Group), "", "", end}
	if !file.ModTime.IsZero() {
		args[4] = fmt.Sprintf("@%d.%09d", file.ModTime.Unix(), file.ModTime.Nanosecond())
	}
	if file.Parents {
		args[5] = "yes"
	}
	if err := m.script(ctx, putScript, args, io.MultiReader(content, strings.NewReader(end)), nil); err != nil {
		return fmt.Errorf("write %q: %w", file.Path, err)
	}
	return nil
}

// unixMode turns Go's permission bits into those of chmod.
func unixMode(mode fs.FileMode) uint32 {
	bits := uint32(mode.Perm())
	for _, b := range []struct {
		mode fs.FileMode
		bit  uint32
	}{{fs.ModeSetuid, 0o4000}, {fs.ModeSetgid, 0o2000}, {fs.ModeSticky, 0o1000}} {
		if mode&b.mode != 0 {
			bits |= b.bit
		}
	}
	return bits
}

func orRoot(name string) string {
	if name == "" {
		return "root"
	}
	return name
}

// missing is the status with which getScript says that there is no such file.
const missing = 44

const getScript = `[ -e "$1" ] || exit 44
exec cat -- "$1"
`

// Get copies the content of a file of the machine to w.
func (m *Machine) Get(ctx context.Context, name string, w io.Writer) error {
	if !path.IsAbs(name) {
		return fmt.Errorf("read %q on %s: the path isn't absolute", name, m.in.ID)
	}
	err := m.script(ctx, getScript, []string{name}, nil, w)
	var exit *step.ExitError
	if errors.As(err, &exit) && exit.Status == missing {
		err = fs.ErrNotExist
	}
	if err != nil {
		return fmt.Errorf("read %q on %s: %w", name, m.in.ID, err)
	}
	return nil
}

const factsScript = `. /etc/os-release
printf '%s\n%s\n' "${ID:-}" "${VERSION_ID:-}"
uname -m
[ ! -x /usr/bin/apt-get ] || echo apt
`

// Facts tells what the machine runs.
func (m *Machine) Facts(ctx context.Context) (step.Facts, error) {
	var out bytes.Buffer
	if err := m.script(ctx, factsScript, nil, nil, &out); err != nil {
		return step.Facts{}, fmt.Errorf("find out what %s is: %w", m.in.ID, err)
	}
	lines := append(strings.Split(out.String(), "\n"), "", "", "", "")
	arch := lines[2]
	switch arch {
	case "x86_64":
		arch = "amd64"
	case "aarch64":
		arch = "arm64"
	}
	return step.Facts{OS: lines[0], Version: lines[1], Arch: arch, PackageManager: lines[3]}, nil
}

// script runs one of the scripts above. What it complains of is part of the error.
func (m *Machine) script(ctx context.Context, script string, args []string, stdin io.Reader, stdout io.Writer) error {
	complaint := &beginning{most: 4 << 10}
	argv := append([]string{"/bin/sh", "-c", script, "sh"}, args...)
	err := m.Exec(ctx, step.Cmd{Argv: argv, Stdin: stdin, Stdout: stdout, Stderr: complaint})
	if said := strings.TrimSpace(complaint.String()); err != nil && said != "" {
		return fmt.Errorf("%w: %s", err, strconv.Quote(said))
	}
	return err
}

// beginning keeps the first bytes of what is written to it.
type beginning struct {
	bytes.Buffer
	most int
}

func (b *beginning) Write(p []byte) (int, error) {
	keep := min(len(p), b.most-b.Len())
	b.Buffer.Write(p[:keep])
	return len(p), nil
}
