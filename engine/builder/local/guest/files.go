package guest

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
// when it is complete. The dot keeps newlines at the end of a path.
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
chown -- "$3:$4" "$tmp"
chmod -- "$2" "$tmp"
[ -z "$5" ] || touch -d "$5" -- "$tmp"
mv -fT -- "$tmp" "$path"
`

// Put writes a file in the guest.
func (g *Guest) Put(ctx context.Context, file step.PutFile, content io.Reader) error {
	if !path.IsAbs(file.Path) {
		return fmt.Errorf("write %q in the guest: the path isn't absolute", file.Path)
	}
	mode := file.Mode
	if mode == 0 {
		mode = 0o644
	}
	args := []string{file.Path, fmt.Sprintf("%04o", unixMode(mode)), orRoot(file.Owner), orRoot(file.Group), "", ""}
	if !file.ModTime.IsZero() {
		args[4] = fmt.Sprintf("@%d.%09d", file.ModTime.Unix(), file.ModTime.Nanosecond())
	}
	if file.Parents {
		args[5] = "yes"
	}
	if err := g.script(ctx, putScript, args, content, nil); err != nil {
		return fmt.Errorf("write %q in the guest: %w", file.Path, err)
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

// Get copies the content of a file of the guest to w.
func (g *Guest) Get(ctx context.Context, name string, w io.Writer) error {
	if !path.IsAbs(name) {
		return fmt.Errorf("read %q in the guest: the path isn't absolute", name)
	}
	err := g.script(ctx, getScript, []string{name}, nil, w)
	var exit *step.ExitError
	if errors.As(err, &exit) && exit.Status == missing {
		err = fs.ErrNotExist
	}
	if err != nil {
		return fmt.Errorf("read %q in the guest: %w", name, err)
	}
	return nil
}

const factsScript = `. /etc/os-release
printf '%s\n%s\n' "${ID:-}" "${VERSION_ID:-}"
uname -m
[ ! -x /usr/bin/apt-get ] || echo apt
`

var goArch = map[string]string{"x86_64": "amd64", "aarch64": "arm64"}

// Facts tells what the guest runs.
func (g *Guest) Facts(ctx context.Context) (step.Facts, error) {
	var out bytes.Buffer
	if err := g.script(ctx, factsScript, nil, nil, &out); err != nil {
		return step.Facts{}, fmt.Errorf("find out what the guest is: %w", err)
	}
	lines := append(strings.Split(out.String(), "\n"), "", "", "", "")
	arch, ok := goArch[lines[2]]
	if !ok {
		arch = lines[2]
	}
	return step.Facts{OS: lines[0], Version: lines[1], Arch: arch, PackageManager: lines[3]}, nil
}

// script runs one of the scripts above. What it complains of is part of the error.
func (g *Guest) script(ctx context.Context, script string, args []string, stdin io.Reader, stdout io.Writer) error {
	var complaint lastBytes
	argv := append([]string{"/bin/sh", "-c", script, "sh"}, args...)
	err := g.Exec(ctx, step.Cmd{Argv: argv, Stdin: stdin, Stdout: stdout, Stderr: &complaint})
	if said := strings.TrimSpace(complaint.String()); err != nil && said != "" {
		return fmt.Errorf("%w: %s", err, strconv.Quote(said))
	}
	return err
}
