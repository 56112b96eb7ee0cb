// Package lock reads and writes gild.lock: what a folder's pipelines are built from, so
// that the same commit gives the same image on every machine.
//
// It holds what each base resolved to when it was "the newest", and the plugins the
// pipelines may use, by digest. It lies beside the pipelines and is meant to be committed.
package lock

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"

	"golang.org/x/sys/unix"
	"gopkg.in/yaml.v3"

	"github.com/gildhq/gild/engine/atomicfile"
)

// Name is the file's name.
const Name = "gild.lock"

// version of the format.
const version = 1

const header = "# Made by gild; commit it. `gild lock` and `gild plugin` bring it up to date.\n"

// File is one gild.lock.
type File struct {
	Version int `yaml:"gild"`
	// Bases holds what each base resolved to, by a name that the engine makes.
	Bases map[string]map[string]string `yaml:"bases,omitempty"`
	// Plugins are the plugins that pipelines may use, by name ("acme/agent").
	Plugins map[string]Plugin `yaml:"plugins,omitempty"`

	path string
	text []byte // as read
}

// Plugin is one locked plugin.
type Plugin struct {
	// Source is where `gild plugin install` fetches it: a path relative to the lock
	// file's folder or absolute, an https address, or an OCI reference ("oci://...").
	Source string `yaml:"source"`
	// Version is what the plugin said of itself.
	Version string `yaml:"version"`
	// Platforms holds the digest for each platform ("linux/amd64"), or for AnyPlatform.
	Platforms map[string]Platform `yaml:"platforms"`
}

// AnyPlatform is the platform of a plugin without compiled programs.
const AnyPlatform = "any"

// Platform is a plugin's content for one platform.
type Platform struct {
	// Digest of the content, "sha256:" and 64 hex digits: what plugins/store computes.
	Digest string `yaml:"digest"`
	// Source overrides that of the plugin, for an address with one file per platform.
	Source string `yaml:"source,omitempty"`
}

// On returns the platform's entry.
func (p Plugin) On(os, arch string) (Platform, bool) {
	for _, name := range []string{os + "/" + arch, AnyPlatform} {
		if found, ok := p.Platforms[name]; ok {
			return found, true
		}
	}
	return Platform{}, false
}

// Read reads the lock file of a folder. One that isn't there is empty.
func Read(dir string) (*File, error) {
	path := filepath.Join(dir, Name)
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return Parse(path, text)
}

var (
	pluginName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*/[a-z0-9][a-z0-9-]*$`)
	digestText = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

// ValidPluginName reports whether a name is "owner/name" in lower-case letters, digits
// and dashes.
func ValidPluginName(name string) bool { return pluginName.MatchString(name) }

// Parse reads the text of a lock file; no text is an empty file.
func Parse(path string, text []byte) (*File, error) {
	f := &File{Version: version, path: path, text: text}
	if len(text) > 0 {
		dec := yaml.NewDecoder(bytes.NewReader(text))
		dec.KnownFields(true)
		err := dec.Decode(f)
		if err == nil {
			err = f.check()
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w; mend it, or remove it to lock anew", path, err)
		}
	}
	if f.Bases == nil {
		f.Bases = map[string]map[string]string{}
	}
	if f.Plugins == nil {
		f.Plugins = map[string]Plugin{}
	}
	return f, nil
}

func (f *File) check() error {
	if f.Version != version {
		return fmt.Errorf("its version is %d, and this gild knows %d", f.Version, version)
	}
	for name, p := range f.Plugins {
		if !ValidPluginName(name) {
			return fmt.Errorf("%q is no name of a plugin; one looks like acme/agent", name)
		}
		for platform, on := range p.Platforms {
			if !digestText.MatchString(on.Digest) {
				return fmt.Errorf("plugin %s on %s has the digest %q, not sha256: and 64 hex digits", name, platform, on.Digest)
			}
		}
	}
	return nil
}

// Path is where the file is, or will be.
func (f *File) Path() string { return f.path }

// Text is the file as it was read or last saved.
func (f *File) Text() []byte { return f.text }

// Save writes the file if it says something new. What another process wrote into it
// meanwhile stays, but for the entries that were changed here.
func (f *File) Save() (changed bool, err error) {
	before, err := Parse(f.path, f.text)
	if err != nil || f.equal(before) {
		return false, err
	}
	unlock, err := lockDir(filepath.Dir(f.path))
	if err != nil {
		return false, fmt.Errorf("write %s: %w", f.path, err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if err := f.merge(before); err != nil {
		return false, err
	}
	text, err := f.Encode()
	if err != nil {
		return false, err
	}
	if err := atomicfile.Write(f.path, filepath.Dir(f.path), text, 0o644); err != nil {
		return false, fmt.Errorf("write %s: %w", f.path, err)
	}
	f.text = text
	return true, nil
}

// Encode returns the text that Save would write if nobody else did.
func (f *File) Encode() ([]byte, error) {
	var buf bytes.Buffer
	buf.WriteString(header)
	enc := yaml.NewEncoder(&buf)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(f), enc.Close()); err != nil {
		return nil, fmt.Errorf("encode %s: %w", f.path, err)
	}
	return buf.Bytes(), nil
}

// merge takes over what is in the file now and wasn't when it was read.
func (f *File) merge(before *File) error {
	now, err := Read(filepath.Dir(f.path))
	if err != nil || bytes.Equal(now.text, f.text) {
		return err
	}
	f.Bases = merged(before.Bases, f.Bases, now.Bases, maps.Equal)
	f.Plugins = merged(before.Plugins, f.Plugins, now.Plugins, Plugin.equal)
	return nil
}

func (f *File) equal(g *File) bool {
	return maps.EqualFunc(f.Bases, g.Bases, maps.Equal) && maps.EqualFunc(f.Plugins, g.Plugins, Plugin.equal)
}

func (p Plugin) equal(q Plugin) bool {
	return p.Source == q.Source && p.Version == q.Version && maps.Equal(p.Platforms, q.Platforms)
}

// merged is theirs with what differs between before and ours.
func merged[V any](before, ours, theirs map[string]V, same func(a, b V) bool) map[string]V {
	out := maps.Clone(theirs)
	for name := range before {
		if _, kept := ours[name]; !kept {
			delete(out, name)
		}
	}
	for name, v := range ours {
		if old, ok := before[name]; !ok || !same(old, v) {
			out[name] = v
		}
	}
	return out
}

// lockDir keeps other processes from saving a lock file of the folder.
func lockDir(dir string) (unlock func() error, err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d.Close, nil
}
