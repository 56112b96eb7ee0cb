package check

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/steps/internal/capture"
)

// look asks the guest about one thing and words what isn't as asked.
type look struct {
	guest step.Guest
	env   map[string]string
}

// maxAnswer is how much of a command's output and of a file's content counts.
const maxAnswer = 4 << 20

// ask runs a command and returns its output and exit status.
func (l look) ask(ctx context.Context, argv ...string) (out *capture.Output, status int, err error) {
	out = capture.New(io.Discard, maxAnswer)
	cmd := step.Cmd{Argv: argv, Env: map[string]string{"LC_ALL": "C"}, Stdout: out.Stdout(), Stderr: out.Stderr()}
	for k, v := range l.env {
		cmd.Env[k] = v
	}
	err = l.guest.Exec(ctx, cmd)
	var exit *step.ExitError
	if errors.As(err, &exit) {
		return out, exit.Status, nil
	}
	return out, 0, err
}

// wants tells whether something that is so unless given shall be so.
func wants(b *bool) bool { return b == nil || *b }

// differs returns a line when something asked for isn't so.
func differs(what, want, got string) []string {
	if want == "" || want == got {
		return nil
	}
	return []string{fmt.Sprintf("%s is %s, want %s", what, got, want)}
}

// existence compares whether something is there with whether it shall be. done is true when
// there is nothing more to look at.
func existence(there bool, want *bool, is, isNot string) (failed []string, done bool) {
	switch {
	case there && !wants(want):
		return []string{is}, true
	case !there && wants(want):
		return []string{isNot}, true
	default:
		return nil, !there
	}
}

func (l look) file(ctx context.Context, path string, want File) ([]string, error) {
	out, status, err := l.ask(ctx, "stat", "--format=%F\t%a\t%U\t%G", "--", path)
	if err != nil {
		return nil, err
	}
	failed, done := existence(status == 0, want.Exists, "exists", "doesn't exist")
	if done {
		return failed, nil
	}
	fields := strings.Split(strings.TrimSpace(out.StdoutText()), "\t")
	if len(fields) != 4 {
		return nil, fmt.Errorf("unexpected answer of stat: %q", out.StdoutText())
	}
	failed = append(failed, differs("type", want.Type, fileType(fields[0]))...)
	failed = append(failed, differs("mode", octal(want.Mode), octal(fields[1]))...)
	failed = append(failed, differs("owner", want.Owner, fields[2])...)
	failed = append(failed, differs("group", want.Group, fields[3])...)
	if want.LinkedTo != "" {
		out, _, err := l.ask(ctx, "readlink", "--", path)
		if err != nil {
			return nil, err
		}
		failed = append(failed, differs("target", want.LinkedTo, strings.TrimSuffix(out.StdoutText(), "\n"))...)
	}
	lines, err := l.content(ctx, path, want)
	return append(failed, lines...), err
}

// fileType shortens stat's words.
func fileType(s string) string {
	switch s {
	case "regular file", "regular empty file":
		return "file"
	case "symbolic link":
		return "symlink"
	default:
		return s
	}
}

// octal writes a mode with four digits; an empty one stays empty.
func octal(mode string) string {
	bits, err := strconv.ParseUint(mode, 8, 32)
	if err != nil {
		return mode
	}
	return fmt.Sprintf("%04o", bits)
}

// content compares what is in the file, when anything is asked of it.
func (l look) content(ctx context.Context, path string, want File) ([]string, error) {
	if want.SHA256 == "" && len(want.Contains) == 0 && want.Content.Equals == nil &&
		len(want.Content.Contains) == 0 && want.Content.Matches == "" {
		return nil, nil
	}
	var text bytes.Buffer
	sum := sha256.New()
	if err := l.guest.Get(ctx, path, io.MultiWriter(sum, &head{&text})); err != nil {
		return nil, err
	}
	failed := differs("sha256", strings.ToLower(want.SHA256), hex.EncodeToString(sum.Sum(nil)))
	failed = append(failed, want.Contains.Missing("content", text.String())...)
	lines, err := want.Content.Check("content", text.String())
	return append(failed, lines...), err
}

// head keeps the first maxAnswer bytes.
type head struct{ *bytes.Buffer }

// Write takes everything and keeps what fits.
func (h *head) Write(p []byte) (int, error) {
	h.Buffer.Write(p[:min(len(p), maxAnswer-h.Len())])
	return len(p), nil
}

func (l look) service(ctx context.Context, name string, want Service) (failed []string, err error) {
	for _, q := range []struct {
		verb   string
		want   *bool
		yes    string
		answer string
	}{
		{"is-enabled", want.Enabled, "enabled", "not known"},
		{"is-active", want.Running, "running", "inactive"},
	} {
		if q.want == nil {
			continue
		}
		out, status, err := l.ask(ctx, "systemctl", q.verb, "--", name)
		if err != nil {
			return nil, err
		}
		if (status == 0) == *q.want {
			continue
		}
		if text := strings.TrimSpace(out.StdoutText()); text != "" {
			q.answer = text
		}
		if !*q.want {
			q.yes = "not " + q.yes
		}
		failed = append(failed, fmt.Sprintf("is %s, want it %s", q.answer, q.yes))
	}
	return failed, nil
}

func (l look) pkg(ctx context.Context, name string, want Package) ([]string, error) {
	out, status, err := l.ask(ctx, "dpkg-query", "--show", "--showformat=${db:Status-Status}\t${Version}\n", "--", name)
	if err != nil {
		return nil, err
	}
	// A package of several architectures has a line for each.
	line, _, _ := strings.Cut(out.StdoutText(), "\n")
	state, version, _ := strings.Cut(line, "\t")
	installed := status == 0 && state == "installed"
	failed, done := existence(installed, want.Installed, "is installed", "isn't installed")
	if done || len(want.Versions) == 0 || slices.Contains(want.Versions, version) {
		return failed, nil
	}
	return append(failed, fmt.Sprintf("version is %s, want %s", version, strings.Join(want.Versions, " or "))), nil
}

func (l look) user(ctx context.Context, name string, want User) ([]string, error) {
	out, status, err := l.ask(ctx, "getent", "passwd", name)
	if err != nil {
		return nil, err
	}
	failed, done := existence(status == 0, want.Exists, "exists", "doesn't exist")
	if done {
		return failed, nil
	}
	fields := strings.Split(strings.TrimSpace(out.StdoutText()), ":")
	if len(fields) != 7 {
		return nil, fmt.Errorf("unexpected answer of getent: %q", out.StdoutText())
	}
	failed = append(failed, differs("uid", number(want.UID), fields[2])...)
	failed = append(failed, differs("gid", number(want.GID), fields[3])...)
	failed = append(failed, differs("home", want.Home, fields[5])...)
	failed = append(failed, differs("shell", want.Shell, fields[6])...)
	if len(want.Groups) == 0 {
		return failed, nil
	}
	if out, _, err = l.ask(ctx, "id", "-nG", "--", name); err != nil {
		return nil, err
	}
	groups := strings.Fields(out.StdoutText())
	for _, g := range want.Groups {
		if !slices.Contains(groups, g) {
			failed = append(failed, fmt.Sprintf("is in the groups %s, and not in %s", strings.Join(groups, " "), g))
		}
	}
	return failed, nil
}

func number(n *int) string {
	if n == nil {
		return ""
	}
	return strconv.Itoa(*n)
}

func (l look) kernelParam(ctx context.Context, name string, want KernelParam) ([]string, error) {
	out, status, err := l.ask(ctx, "cat", "--", "/proc/sys/"+strings.ReplaceAll(name, ".", "/"))
	if err != nil {
		return nil, err
	}
	if status != 0 {
		return []string{"the kernel has no such parameter"}, nil
	}
	got := strings.Join(strings.Fields(out.StdoutText()), " ")
	if got != want.Value {
		return []string{fmt.Sprintf("is %q, want %q", got, want.Value)}, nil
	}
	return nil, nil
}

func (l look) command(ctx context.Context, line string, want Command) ([]string, error) {
	out, status, err := l.ask(ctx, "/bin/sh", "-c", line)
	if err != nil {
		return nil, err
	}
	var failed []string
	if status != want.ExitStatus {
		failed = append(failed, fmt.Sprintf("exit status is %d, want %d", status, want.ExitStatus))
	}
	failed = append(failed, want.Stdout.Missing("stdout", out.StdoutText())...)
	return append(failed, want.Stderr.Missing("stderr", out.StderrText())...), nil
}
