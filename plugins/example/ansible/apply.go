package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gildhq/gild/plugins/broker"
	"github.com/gildhq/gild/plugins/sdk"
)

// source has the comments of Config, for the schema.
//
//go:embed apply.go
var source string

// Config is the step's `with`.
type Config struct {
	// The playbook: a file, or a folder with it and its roles, files and collections.
	Playbook string `json:"playbook" jsonschema:"format=gild-path,minLength=1"`
	// The playbook's file in a folder.
	Main string `json:"main,omitempty" jsonschema:"default=site.yml"`
	// Variables for the playbook. They win over all others.
	Vars map[string]any `json:"vars,omitempty"`
	// Groups that the machine is in, for plays with other hosts than all.
	Groups []string `json:"groups,omitempty" jsonschema:"pattern=^[a-zA-Z_][a-zA-Z0-9_]*$"`
	// Run only what has one of these tags.
	Tags []string `json:"tags,omitempty"`
	// Leave out what has one of these tags.
	SkipTags []string `json:"skip-tags,omitempty"`
	// Give the tasks the host's network.
	Network bool `json:"network,omitempty"`
	// What to do about python3 on the machine: it must be there (required), is installed with
	// apt where it isn't (install), or isn't looked for (none), which is enough for raw tasks.
	Python string `json:"python,omitempty" jsonschema:"enum=required,enum=install,enum=none,default=required"`
}

// Outputs are the step's outputs: how many tasks there were of each kind.
type Outputs struct {
	OK      int `json:"ok"`
	Changed int `json:"changed"`
	Skipped int `json:"skipped"`
}

// apply runs the playbook and returns what it did.
func apply(ctx context.Context, t *sdk.Target, c Config) (out Outputs, err error) {
	program, err := findAnsible()
	if err != nil {
		return Outputs{}, &sdk.Permanent{Err: err}
	}
	if err := checkEnv(t.Env); err != nil {
		return Outputs{}, &sdk.Permanent{Err: err}
	}
	machine := networked{t.Machine, c.Network}
	python, err := findPython(ctx, t, c.Python)
	if err != nil {
		return Outputs{}, err
	}
	f, err := makeFolder()
	if err != nil {
		return Outputs{}, err
	}
	defer func() { err = errors.Join(err, f.remove()) }()
	play, err := f.fill(t, c, python)
	if err != nil {
		return Outputs{}, err
	}
	server, err := broker.Listen(f.path("broker"))
	if err != nil {
		return Outputs{}, fmt.Errorf("let ansible reach the machine: %w", err)
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	token, end := server.Open(&sdk.Target{Machine: machine})
	res, err := play.run(ctx, t, command{program: program, address: server.Address(), token: token})
	end()
	if err != nil {
		return Outputs{}, err
	}
	return Outputs{OK: res.OK, Changed: res.Changed, Skipped: res.Skipped}, tidy(ctx, t)
}

// remoteTemp is where Ansible keeps its files on the machine; it is removed afterwards.
const remoteTemp = "/tmp/.gild-ansible"

func tidy(ctx context.Context, t *sdk.Target) error {
	if err := t.Machine.Exec(ctx, sdk.Cmd{Argv: []string{"rm", "-rf", remoteTemp}}); err != nil {
		return fmt.Errorf("remove ansible's temporary files from the machine: %w", err)
	}
	return nil
}

// networked is a machine whose commands all have the network, or none.
type networked struct {
	sdk.MachineHandle
	network bool
}

// Exec implements sdk.MachineHandle.
func (n networked) Exec(ctx context.Context, cmd sdk.Cmd) error {
	cmd.Network = n.network
	return n.MachineHandle.Exec(ctx, cmd)
}

// defaultPython is what tasks are told to use where python3 isn't looked for.
const defaultPython = "/usr/bin/python3"

// findPython returns the machine's python3, which Ansible's modules are written in.
func findPython(ctx context.Context, t *sdk.Target, wish string) (string, error) {
	if wish == "none" {
		return defaultPython, nil
	}
	path, err := lookForPython(ctx, t)
	if path != "" || err != nil {
		return path, err
	}
	if wish != "install" {
		return "", &sdk.Permanent{Err: errors.New("the machine has no python3, which Ansible's modules need; install the package python3 in a step before, or set python: install")}
	}
	facts, err := t.Machine.Facts(ctx)
	if err != nil {
		return "", err
	}
	if facts.PackageManager != "apt" {
		return "", &sdk.Permanent{Err: fmt.Errorf("the machine (%s %s) has no python3, and gild/ansible can install it only with apt", facts.OS, facts.Version)}
	}
	fmt.Fprintln(t.Log, "installing python3 on the machine")
	// python3-apt is what the apt module works with.
	for _, args := range [][]string{{"update"}, {"install", "--yes", "--no-install-recommends", "python3", "python3-apt"}, {"clean"}} {
		err := t.Machine.Exec(ctx, sdk.Cmd{
			Argv: append([]string{"apt-get"}, args...), Env: map[string]string{"DEBIAN_FRONTEND": "noninteractive"},
			Stdout: t.Log, Stderr: t.Log, Network: true,
		})
		if err != nil {
			return "", fmt.Errorf("install python3 on the machine: %w", err)
		}
	}
	return lookForPython(ctx, t)
}

// lookForPython returns the path of python3, or nothing when the machine has none.
func lookForPython(ctx context.Context, t *sdk.Target) (string, error) {
	var out bytes.Buffer
	err := t.Machine.Exec(ctx, sdk.Cmd{Argv: []string{"/bin/sh", "-c", "command -v python3"}, Stdout: &out, Stderr: t.Log})
	var exit *sdk.ExitError
	if errors.As(err, &exit) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("look for python3 on the machine: %w", err)
	}
	return strings.TrimSpace(out.String()), nil
}

// vaultVar in the step's env is the password of files that ansible-vault encrypted.
const vaultVar = "ANSIBLE_VAULT_PASSWORD"

// checkEnv refuses variables that would change Ansible itself.
func checkEnv(env map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(env)) {
		fixed := name == "PATH" || name == "HOME" || name == "TMPDIR"
		for _, prefix := range []string{"ANSIBLE_", "GILD_ANSIBLE_", "GILD_PLUGIN_", "PYTHON", "LD_", "LC_"} {
			fixed = fixed || strings.HasPrefix(name, prefix)
		}
		if fixed && name != vaultVar {
			return fmt.Errorf("env has %s, which would change how ansible itself works; choose another name", name)
		}
	}
	return nil
}

// keyParts makes another version of Ansible another key.
func keyParts(ctx context.Context, _ Config) (map[string]string, error) {
	program, err := findAnsible()
	if err != nil {
		return nil, err
	}
	v, err := ansibleVersion(ctx, program)
	if err != nil {
		return nil, err
	}
	return map[string]string{"ansible": v}, nil
}
