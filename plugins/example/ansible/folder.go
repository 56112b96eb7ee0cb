package main

import (
	"cmp"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/gildhq/gild/plugins/sdk"
)

// plugins are our plugins for Ansible.
//
//go:embed python
var plugins embed.FS

// folder is a private folder with all that Ansible reads and writes on the host. It lies in
// the plugin's own folder for temporary files, which gild removes should the plugin be killed.
type folder string

func (f folder) path(name ...string) string {
	return filepath.Join(append([]string{string(f)}, name...)...)
}

func makeFolder() (folder, error) {
	dir, err := os.MkdirTemp("", "ansible-") // mode 0700
	if err != nil {
		return "", err
	}
	f := folder(dir)
	for _, name := range []string{"home", "tmp", "project"} {
		if err := os.Mkdir(f.path(name), 0o700); err != nil {
			return "", errors.Join(err, f.remove())
		}
	}
	return f, nil
}

func (f folder) remove() error { return os.RemoveAll(string(f)) }

// fill puts the playbook, what belongs to it, and our plugins into the folder.
func (f folder) fill(t *sdk.Target, c Config, python string) (*play, error) {
	input, ok := t.Inputs[c.Playbook]
	if !ok {
		return nil, fmt.Errorf("the playbook %q is none of the step's inputs", c.Playbook)
	}
	main := path.Base(filepath.ToSlash(c.Playbook))
	if input.IsDir() {
		main = cmp.Or(c.Main, "site.yml")
	} else if c.Main != "" {
		return nil, &sdk.Permanent{Err: fmt.Errorf("%s is a file; main is for a folder", c.Playbook)}
	}
	if err := copyInput(input, f.path("project"), main); err != nil {
		return nil, fmt.Errorf("copy %s: %w", c.Playbook, err)
	}
	if !filepath.IsLocal(main) {
		return nil, &sdk.Permanent{Err: fmt.Errorf("main %q is no path in the folder %s", main, c.Playbook)}
	}
	if _, err := os.Stat(f.path("project", main)); err != nil {
		return nil, &sdk.Permanent{Err: fmt.Errorf("the folder %s has no file %s; name the playbook with main", c.Playbook, main)}
	}
	if err := f.writePlugins(); err != nil {
		return nil, err
	}
	vars := c.Vars
	if vars == nil {
		vars = map[string]any{}
	}
	return &play{folder: f, main: main, config: c}, errors.Join(
		f.writeJSON("vars.json", vars),
		f.writeJSON("inventory.yaml", inventory(c.Groups, python)),
		os.WriteFile(f.path("ansible.cfg"), nil, 0o600),
		f.writeVault(t.Env),
	)
}

// inventory holds one host, the machine. JSON is YAML.
func inventory(groups []string, python string) any {
	type hosts map[string]map[string]string
	all := map[string]any{"hosts": hosts{"machine": {
		"ansible_connection":         "gild",
		"ansible_python_interpreter": python,
	}}}
	children := map[string]any{}
	for _, g := range groups {
		children[g] = map[string]any{"hosts": hosts{"machine": {}}}
	}
	all["children"] = children
	return map[string]any{"all": all}
}

func (f folder) writeJSON(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	return os.WriteFile(f.path(name), data, 0o600)
}

func (f folder) writeVault(env map[string]string) error {
	if password, ok := env[vaultVar]; ok {
		return os.WriteFile(f.path("vault"), []byte(password), 0o600)
	}
	return nil
}

func (f folder) writePlugins() error {
	return os.CopyFS(string(f), plugins)
}

// copyInput copies a file to dir under a name, or what is in a folder to dir.
func copyInput(input sdk.Input, dir, name string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	// Only closes the folder's descriptor.
	defer root.Close()
	for _, file := range input.Files() {
		to := filepath.FromSlash(file.Path)
		switch {
		case !input.IsDir():
			to = name
		case file.Path == ".":
			continue
		}
		if err := copyEntry(root, input, file, to); err != nil {
			return fmt.Errorf("%s: %w", file.Path, err)
		}
	}
	return nil
}

func copyEntry(root *os.Root, input sdk.Input, file sdk.InputFile, to string) error {
	switch {
	case file.Mode.IsDir():
		return root.MkdirAll(to, 0o700)
	case file.Mode&fs.ModeSymlink != 0:
		if !filepath.IsLocal(filepath.Join(filepath.Dir(to), file.Link)) || filepath.IsAbs(file.Link) {
			return &sdk.Permanent{Err: fmt.Errorf("the link to %q leads out of the folder", file.Link)}
		}
		return root.Symlink(file.Link, to)
	}
	from, err := input.Open(file.Path)
	if err != nil {
		return err
	}
	defer from.Close()
	if err := root.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	target, err := root.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600|file.Mode.Perm()&0o100)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, from)
	return errors.Join(err, target.Close())
}
