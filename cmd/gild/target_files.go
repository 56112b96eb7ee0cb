package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/broker"
)

// stream is the argument that means standard input or output.
const stream = "-"

func (a *app) targetPutCommand() *cobra.Command {
	var mode string
	var file step.PutFile
	cmd := &cobra.Command{
		Use:   "put LOCAL|- REMOTE",
		Short: "Write a file on the machine",
		Long: `Put copies a file of this host, or standard input, to an absolute path on the machine.
Whoever reads REMOTE sees the old content or the new one, whole.`,
		Example: `  gild target put --mode 0755 ./agent /usr/local/bin/agent
  echo "$text" | gild target put - /etc/motd`,
		Args: argsBetween(2, 2, "a file of this host and a path on the machine"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if file.Mode, err = parseMode(mode); err != nil {
				return usagef(cmd, "--mode: %w", err)
			}
			file.Path = args[1]
			return a.targetPut(cmd.Context(), args[0], file)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&mode, "mode", "0644", "permission `BITS`")
	flags.StringVar(&file.Owner, "owner", "", "`USER` of the machine, by name or number (default root)")
	flags.StringVar(&file.Group, "group", "", "`GROUP` of the machine, by name or number (default root)")
	flags.BoolVar(&file.Parents, "parents", false, "make missing folders above it")
	return cmd
}

func (a *app) targetPut(ctx context.Context, local string, file step.PutFile) error {
	content := a.stdin
	if local != stream {
		f, err := os.Open(local)
		if err != nil {
			return err
		}
		defer f.Close()
		content = f
	}
	return a.withMachine(ctx, func(ctx context.Context, m step.Guest) error {
		return m.Put(ctx, file, content)
	})
}

// parseMode reads permission bits such as 0644.
func parseMode(text string) (fs.FileMode, error) {
	n, err := strconv.ParseUint(text, 8, 32)
	if err != nil || n == 0 || n > 0o7777 {
		return 0, fmt.Errorf("%q is no mode such as 0644", text)
	}
	mode := fs.FileMode(n) & fs.ModePerm
	for bit, special := range map[uint64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if n&bit != 0 {
			mode |= special
		}
	}
	return mode, nil
}

func (a *app) targetGetCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "get REMOTE LOCAL|-",
		Short: "Read a file of the machine",
		Example: `  gild target get /etc/os-release -
  gild target get /var/log/dpkg.log "$TMPDIR/dpkg.log"`,
		Args: argsBetween(2, 2, "a path on the machine and a file of this host"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withMachine(cmd.Context(), func(ctx context.Context, m step.Guest) error {
				return a.save(args[1], 0o644, func(w io.Writer) error { return m.Get(ctx, args[0], w) })
			})
		},
	}
}

// save writes a file of this host, or standard output. The file is there only when it is whole.
func (a *app) save(local string, mode fs.FileMode, write func(io.Writer) error) error {
	if local == stream {
		return write(a.stdout)
	}
	f, err := os.CreateTemp(filepath.Dir(local), ".gild-*")
	if err != nil {
		return err
	}
	err = errors.Join(write(f), f.Chmod(mode), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), local)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

type jsonInput struct {
	Dir   bool            `json:"dir"`
	Files []jsonInputFile `json:"files"`
}

type jsonInputFile struct {
	Path string `json:"path"`
	// Mode as ls shows it.
	Mode string `json:"mode"`
	Size int64  `json:"size"`
	Link string `json:"link,omitempty"`
}

func (a *app) targetInputCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "input NAME [LOCAL|-]",
		Short: "List or copy a file or folder of the project",
		Long: `Input works on a file or folder that the step's configuration names, by the text that
names it there. Without LOCAL it prints as JSON what is in it. With LOCAL it copies the
file, or the folder, which must not be there yet; "-" prints a file.`,
		Example: `  gild target input ./site "$TMPDIR/site"
  gild target input ./motd.txt - | gild target put - /etc/motd`,
		Args: argsBetween(1, 2, "an input and perhaps where to copy it to"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTarget(cmd.Context(), func(ctx context.Context, c *broker.Client) error {
				inputs, err := c.Inputs(ctx, args[:1])
				switch {
				case err != nil:
					return err
				case len(args) == 1:
					return a.printInput(inputs[args[0]])
				case inputs[args[0]].IsDir():
					return copyFolder(inputs[args[0]], args[1])
				default:
					return a.copyInput(inputs[args[0]], args[1])
				}
			})
		},
	}
}

func (a *app) printInput(in step.Input) error {
	out := jsonInput{Dir: in.IsDir(), Files: []jsonInputFile{}}
	for _, f := range in.Files() {
		out.Files = append(out.Files, jsonInputFile{f.Path, f.Mode.String(), f.Size, f.Link})
	}
	return a.printJSON(out)
}

func (a *app) copyInput(in step.Input, local string) error {
	files := in.Files()
	if len(files) != 1 {
		return fmt.Errorf("the input has %d files, not one", len(files))
	}
	return a.save(local, files[0].Mode.Perm(), func(w io.Writer) error { return copyFile(in, files[0].Path, w) })
}

func copyFile(in step.Input, path string, w io.Writer) error {
	r, err := in.Open(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, r.Close())
}

// copyFolder copies an input that is a folder. A copy that failed is left as far as it came.
func copyFolder(in step.Input, local string) (err error) {
	if local == stream {
		return errors.New("the input is a folder, which standard output can't take")
	}
	if err := os.Mkdir(local, 0o755); err != nil {
		return err
	}
	// What is written stays inside, whatever the input has for links.
	root, err := os.OpenRoot(local)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	for _, f := range in.Files() {
		if err := copyEntry(root, in, f); err != nil {
			return fmt.Errorf("copy %q: %w", f.Path, err)
		}
	}
	return nil
}

func copyEntry(root *os.Root, in step.Input, f step.InputFile) error {
	path := filepath.FromSlash(f.Path)
	switch {
	case path == ".":
		return nil
	case f.Mode.IsDir():
		return root.Mkdir(path, f.Mode.Perm()|0o700)
	case f.Mode&fs.ModeSymlink != 0:
		return root.Symlink(f.Link, path)
	}
	w, err := root.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.Mode.Perm())
	if err != nil {
		return err
	}
	// The mode again, for the umask.
	return errors.Join(copyFile(in, f.Path, w), w.Chmod(f.Mode.Perm()), w.Close())
}
