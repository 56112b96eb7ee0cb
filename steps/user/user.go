package user

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/schemas"
	"github.com/gildhq/gild/steps/internal/capture"
	"github.com/gildhq/gild/steps/internal/help"
	"github.com/gildhq/gild/steps/internal/script"
	"github.com/gildhq/gild/steps/internal/sshkeys"
)

//go:embed doc.go
var doc string

// Step is the step's declaration.
var Step = step.Define(step.Step{
	Name:      "user",
	Version:   "1",
	Summary:   "make, change or remove a user account",
	Doc:       help.Text(doc),
	Schema:    schemas.Step("user"),
	Sections:  []step.Section{step.Customize},
	Effect:    step.Machine,
	Cacheable: true,
}, run)

// Config is the step's `with`.
type Config struct {
	Name string `json:"name"`
	// UID is 0 for the next free one.
	UID int `json:"uid"`
	// Group is the primary group; empty means one of the account's name.
	Group string `json:"group"`
	// GID is the primary group's number, with which it is made when missing; 0 for the next free one.
	GID int `json:"gid"`
	// Groups are further groups, added to those the account is in.
	Groups []string `json:"groups"`
	Home   string   `json:"home"`
	Shell  string   `json:"shell"`
	Gecos  *string  `json:"gecos"`
	System bool     `json:"system"`
	// AuthorizedKeys is the whole list; nil leaves it as it is.
	AuthorizedKeys []string `json:"authorized-keys"`
	// Sudo is "none", "password" or "nopasswd"; empty leaves it as it is.
	Sudo string `json:"sudo"`
	// Absent removes the account.
	Absent bool `json:"absent"`
}

func run(ctx context.Context, t *step.Target, c Config) (struct{}, error) {
	a := &accounts{target: t}
	if c.Absent {
		return struct{}{}, a.remove(ctx, c)
	}
	if err := a.makeGroup(ctx, c); err != nil {
		return struct{}{}, err
	}
	if err := a.apply(ctx, c); err != nil {
		return struct{}{}, err
	}
	if err := a.grantSudo(ctx, c); err != nil {
		return struct{}{}, fmt.Errorf("set sudo of %s: %w", c.Name, err)
	}
	if err := a.putKeys(ctx, c); err != nil {
		return struct{}{}, fmt.Errorf("write the keys of %s: %w", c.Name, err)
	}
	return struct{}{}, nil
}

// accounts changes the machine's accounts through its own tools.
type accounts struct{ target *step.Target }

// exec runs a tool and adds what it complained about to its error.
func (a *accounts) exec(ctx context.Context, argv ...string) error {
	out := capture.New(a.target.Log, 16<<10)
	err := a.target.Machine.Exec(ctx, step.Cmd{Argv: argv, Stdout: out.Stdout(), Stderr: out.Stderr()})
	var failed *step.ExitError
	if !errors.As(err, &failed) {
		return err
	}
	// The rest is how the tool is used.
	complaint, _, _ := strings.Cut(strings.TrimSpace(out.StderrText()), "\n")
	return fmt.Errorf("%w: %s", err, complaint)
}

// has tells whether a name is in one of the machine's databases.
func (a *accounts) has(ctx context.Context, database, name string) (bool, error) {
	err := a.target.Machine.Exec(ctx, step.Cmd{Argv: []string{"getent", database, name}})
	var no *step.ExitError
	if errors.As(err, &no) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up %s: %w", name, err)
	}
	return true, nil
}

// makeGroup makes the primary group when its number is given and it isn't there.
func (a *accounts) makeGroup(ctx context.Context, c Config) error {
	if c.GID == 0 {
		return nil
	}
	group := c.primaryGroup()
	there, err := a.has(ctx, "group", group)
	if err != nil {
		return err
	}
	verb := "groupadd"
	if there {
		verb = "groupmod"
	}
	if err := a.exec(ctx, verb, "--gid", strconv.Itoa(c.GID), "--", group); err != nil {
		return fmt.Errorf("make group %s with number %d: %w", group, c.GID, err)
	}
	return nil
}

func (c Config) primaryGroup() string {
	if c.Group != "" {
		return c.Group
	}
	return c.Name
}

// apply makes or changes the account itself.
func (a *accounts) apply(ctx context.Context, c Config) error {
	there, err := a.has(ctx, "passwd", c.Name)
	if err != nil {
		return err
	}
	verb, argv := "make", c.useradd()
	if there {
		verb, argv = "change", c.usermod()
	}
	if len(argv) == 1 {
		return nil // nothing to change, which usermod takes for a mistake
	}
	if err := a.exec(ctx, append(argv, "--", c.Name)...); err != nil {
		return fmt.Errorf("%s account %s: %w", verb, c.Name, err)
	}
	return nil
}

// useradd is the command that makes the account.
func (c Config) useradd() []string {
	argv := append([]string{"useradd"}, c.common()...)
	if c.System {
		argv = append(argv, "--system", "--no-create-home")
	} else {
		argv = append(argv, "--create-home")
	}
	if c.Shell == "" {
		shell := "/bin/bash"
		if c.System {
			shell = "/usr/sbin/nologin"
		}
		argv = append(argv, "--shell", shell)
	}
	if c.Group != "" || c.GID != 0 {
		argv = append(argv, "--gid", c.primaryGroup())
	} else {
		argv = append(argv, "--user-group")
	}
	if len(c.Groups) > 0 {
		argv = append(argv, "--groups", strings.Join(c.Groups, ","))
	}
	return argv
}

// usermod is the command that changes what is given of an account.
func (c Config) usermod() []string {
	argv := append([]string{"usermod"}, c.common()...)
	if c.Home != "" {
		argv = append(argv, "--move-home")
	}
	if c.Group != "" || c.GID != 0 {
		argv = append(argv, "--gid", c.primaryGroup())
	}
	if len(c.Groups) > 0 {
		argv = append(argv, "--append", "--groups", strings.Join(c.Groups, ","))
	}
	return argv
}

// common are the options that useradd and usermod share.
func (c Config) common() []string {
	var argv []string
	if c.UID != 0 {
		argv = append(argv, "--uid", strconv.Itoa(c.UID))
	}
	if c.Home != "" {
		argv = append(argv, "--home", c.Home)
	}
	if c.Shell != "" {
		argv = append(argv, "--shell", c.Shell)
	}
	if c.Gecos != nil {
		argv = append(argv, "--comment", *c.Gecos)
	}
	return argv
}

// putKeys writes the authorized_keys file, marked so that sealing keeps it.
func (a *accounts) putKeys(ctx context.Context, c Config) error {
	if c.AuthorizedKeys == nil {
		return nil
	}
	m := a.target.Machine
	who, err := script.LookUp(ctx, m, c.Name)
	if err != nil {
		return err
	}
	folder := who.Home + "/.ssh"
	err = a.exec(ctx, "install", "--directory", "--mode=0700", "--owner="+who.UID, "--group="+who.GID, "--", folder)
	if err != nil {
		return err
	}
	file := step.PutFile{Path: folder + "/authorized_keys", Mode: 0o600, Owner: who.UID, Group: who.GID, ModTime: a.target.Clock}
	return m.Put(ctx, file, strings.NewReader(sshkeys.File(c.AuthorizedKeys)))
}

// grantSudo writes or removes the account's file in sudoers.d.
func (a *accounts) grantSudo(ctx context.Context, c Config) error {
	file := step.PutFile{Path: sudoers(c.Name), Mode: 0o440, ModTime: a.target.Clock}
	rule := ""
	switch c.Sudo {
	case "":
		return nil
	case "none":
		return a.exec(ctx, "rm", "-f", "--", file.Path)
	case "password":
		rule = c.Name + " ALL=(ALL:ALL) ALL\n"
	case "nopasswd":
		rule = c.Name + " ALL=(ALL:ALL) NOPASSWD: ALL\n"
	}
	if err := a.exec(ctx, "test", "-x", "/usr/bin/sudo"); err != nil {
		return &step.Permanent{Err: errors.New("sudo isn't installed; add it with the step packages before this one")}
	}
	if err := a.target.Machine.Put(ctx, file, strings.NewReader(rule)); err != nil {
		return err
	}
	return a.exec(ctx, "visudo", "--check", "--quiet", "--file="+file.Path)
}

func sudoers(name string) string { return "/etc/sudoers.d/90-gild-" + name }

// remove removes the account, its home folder and its right to use sudo, as far as they exist.
func (a *accounts) remove(ctx context.Context, c Config) error {
	there, err := a.has(ctx, "passwd", c.Name)
	if err != nil {
		return err
	}
	if err := a.exec(ctx, "rm", "-f", "--", sudoers(c.Name)); err != nil {
		return fmt.Errorf("remove sudo of %s: %w", c.Name, err)
	}
	if !there {
		return nil
	}
	if err := a.exec(ctx, "userdel", "--remove", "--", c.Name); err != nil {
		return fmt.Errorf("remove account %s: %w", c.Name, err)
	}
	return nil
}
