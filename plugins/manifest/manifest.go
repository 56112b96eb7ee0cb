// Package manifest reads plugin.yaml, the file in a plugin's folder that says how the
// plugin is started and, for a plugin of kind exec, which steps it has:
//
//	gild-plugin: 1
//	name: acme/motd
//	version: 1.0.0
//	kind: exec                   # or grpc, the default
//	command: [./motd]            # a program of this folder and fixed arguments
//	tls: auto                    # kind grpc only: auto, the default, or none
//	environment: [HTTPS_PROXY]   # names of gild's variables that the plugin may see
//	limits: {memory: 512MiB, files: 256}
//	steps:                       # kind exec only
//	  - name: acme/motd          # the plugin's name, or it and a further part: acme/motd/remove
//	    summary: writes the message of the day
//	    doc: |
//	      Help text in Markdown.
//	    sections: [customize]    # customize, tests or publish
//	    cacheable: true
//	    validates: false         # the program answers "validate"
//	    keyed: false             # the program answers "key"
//	    command: [./motd]        # if it isn't the plugin's
//	    schema:                  # JSON Schema of `with`
//	      type: object
//	      additionalProperties: false
//	      properties: {text: {type: string}}
//	    outputs: {path: string}
//
// A plugin that is a single program has no such file; [Single] stands for it. The text of
// a plugin.yaml goes in and a [Manifest] comes out, or every mistake with its place. The
// package starts nothing and never reads outside of the folder it is given.
package manifest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gildhq/gild/engine/step"
)

// Name is the file's name.
const Name = "plugin.yaml"

// The limits of a plugin whose manifest sets none.
const (
	DefaultMemory = 2 << 30
	DefaultFiles  = 1024
)

// The values of [Manifest.TLS].
const (
	// TLSAuto encrypts the connection by go-plugin's AutoMTLS.
	TLSAuto = "auto"
	// TLSNone speaks plain text on a socket in a private folder.
	TLSNone = "none"
)

// maxFile bounds the size of a plugin.yaml in bytes.
const maxFile = 1 << 20

// Manifest is what a plugin.yaml says, defaults filled in. The zero value is no manifest.
type Manifest struct {
	// Name is "owner/name" and Version a semantic version. Both are set when Exec is. Of a
	// gRPC plugin they may be empty; when they aren't, the plugin must describe itself so.
	Name, Version string
	// Command is the program and its fixed arguments. The program is a path relative to
	// the plugin's folder that doesn't leave it. Empty only when Exec is set and each of
	// its steps has a command.
	Command []string
	// TLS is TLSAuto or TLSNone.
	TLS string
	// Environment names the variables of gild's own environment that the plugin may see.
	Environment []string
	// Limits hold for the plugin's process.
	Limits Limits
	// Exec is set for a plugin of kind exec, which gild's adapter serves.
	Exec *Exec
}

// Limits bound what a plugin's process may use.
type Limits struct {
	// Memory in bytes, at least 16 MiB.
	Memory int64
	// Files is how many it may have open, at least 16.
	Files int
}

// Exec holds the steps of a plugin of kind exec.
type Exec struct {
	// Steps is never empty, and no two have the same name.
	Steps []Step
}

// Step is one step of a plugin of kind exec; the fields are those of [step.Step].
type Step struct {
	Name, Summary, Doc string
	// Schema is the JSON Schema of `with`, as canonical JSON.
	Schema    []byte
	Outputs   map[string]string
	Sections  []step.Section
	Cacheable bool
	// Validates and Keyed say that the command answers the verbs "validate" and "key".
	Validates, Keyed bool
	// Command is the step's own, or the plugin's. Never empty.
	Command []string
}

// Parse reads the text of a plugin.yaml. The error has one line for each mistake, with
// path, line and column.
func Parse(path string, text []byte) (Manifest, error) {
	m, _, err := parse(path, text)
	return m, err
}

// Read reads the plugin.yaml of a folder and checks that the programs it names are there
// and can be executed. ok is false when the folder has none. Links that lead out of the
// folder are not followed. Mistakes call the file by its path.
func Read(dir string) (m Manifest, ok bool, err error) {
	return ReadAs(dir, filepath.Join(dir, Name))
}

// ReadAs is [Read] for the copy of a file: mistakes call it by the name given.
func ReadAs(dir, path string) (m Manifest, ok bool, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Manifest{}, false, fmt.Errorf("read the plugin's folder: %w", err)
	}
	defer root.Close()
	text, err := readFile(root)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Manifest{}, false, nil
	case err != nil:
		return Manifest{}, false, fmt.Errorf("read %s: %w", path, err)
	}
	m, r, err := parse(path, text)
	if err != nil {
		return Manifest{}, false, err
	}
	for _, p := range r.programs {
		if why := checkProgram(root, p.path); why != "" {
			r.mistake(p.node, "%q %s", p.path, why)
		}
	}
	if err := r.err(); err != nil {
		return Manifest{}, false, err
	}
	return m, true, nil
}

func readFile(root *os.Root) ([]byte, error) {
	// A pipe or a device could hold the reader up for ever.
	if info, err := root.Stat(Name); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, errors.New("it is no regular file")
	}
	f, err := root.Open(Name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// One byte more than allowed, so that parse sees that it is too much.
	return io.ReadAll(io.LimitReader(f, maxFile+1))
}

func checkProgram(root *os.Root, path string) string {
	info, err := root.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "isn't in the plugin's folder"
	case err != nil:
		return fmt.Sprintf("can't be read: %v", err)
	case !info.Mode().IsRegular():
		return "is no regular file"
	case info.Mode().Perm()&0o111 == 0:
		return "is not executable: chmod +x it"
	}
	return ""
}

// Single is the manifest of a plugin that is one program, named by its file.
func Single(file string) Manifest {
	return Manifest{
		Command: []string{filepath.Base(file)},
		TLS:     TLSAuto,
		Limits:  Limits{Memory: DefaultMemory, Files: DefaultFiles},
	}
}
