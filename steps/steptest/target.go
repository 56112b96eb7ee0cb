// Package steptest is what the tests of steps share: a real Debian tree, a machine on it,
// and a step's target with its inputs and a log.
//
// A tree is made once by mmdebstrap and never changed; each test works on its own overlay
// of it. The package is used by tests only.
package steptest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gildhq/gild/engine/step"
)

// Clock is the build's clock in tests.
var Clock = time.Unix(1_790_000_000, 0).UTC()

// Target is a step's target with a log that can be read.
type Target struct {
	*step.Target
	Log *Log
}

// Log collects a step's output. Safe for concurrent use.
type Log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String returns what was written so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// NewTarget returns a target on machine, which may be nil.
func NewTarget(machine step.MachineHandle) *Target {
	log := &Log{}
	return &Target{Log: log, Target: &step.Target{
		Machine:  machine,
		Inputs:   map[string]step.Input{},
		Env:      map[string]string{},
		Log:      log,
		Progress: func(int64, int64, string) {},
		Clock:    Clock,
		Pipeline: step.PipelineInfo{Name: "web", Release: "1.4.0", Arch: "amd64"},
	}}
}

// Run runs s on the target with the JSON text as its config.
func (t *Target) Run(ctx context.Context, s step.Step, config string) (step.Outputs, error) {
	return s.Run(ctx, t.Target, json.RawMessage(config))
}

// Sh runs a shell command on the target's machine and returns what it printed, trimmed.
func (t *Target) Sh(tb testing.TB, command string) string {
	tb.Helper()
	var out, errs bytes.Buffer
	err := t.Machine.Exec(tb.Context(), step.Cmd{Argv: []string{"/bin/sh", "-eu", "-c", command}, Stdout: &out, Stderr: &errs})
	if err != nil {
		tb.Fatalf("%s: %v\n%s", command, err, errs.String())
	}
	return strings.TrimSpace(out.String())
}

// Folder is a file or folder on disk as a step's input.
type Folder string

// IsDir implements step.Input.
func (f Folder) IsDir() bool {
	info, err := os.Stat(string(f))
	return err == nil && info.IsDir()
}

// Files implements step.Input; it panics when the folder can't be read.
func (f Folder) Files() []step.InputFile {
	var files []step.InputFile
	err := filepath.WalkDir(string(f), func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(string(f), p)
		if err != nil {
			return err
		}
		file := step.InputFile{Path: filepath.ToSlash(rel), Mode: info.Mode()}
		switch {
		case info.Mode().IsRegular():
			file.Size = info.Size()
		case info.Mode()&fs.ModeSymlink != 0:
			file.Link, err = os.Readlink(p)
		}
		files = append(files, file)
		return err
	})
	if err != nil {
		panic(err)
	}
	return files
}

// Open implements step.Input.
func (f Folder) Open(rel string) (io.ReadCloser, error) {
	return os.Open(filepath.Join(string(f), filepath.FromSlash(rel)))
}

// WantError fails the test unless err's text holds every one of parts.
func WantError(tb testing.TB, err error, parts ...string) {
	tb.Helper()
	if err == nil {
		tb.Fatalf("no error, want one with %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			tb.Errorf("error %q doesn't say %q", err, part)
		}
	}
}

// FailedChecks returns the checks of a step.TestFailed, and fails the test for any other error.
func FailedChecks(tb testing.TB, err error) []string {
	tb.Helper()
	var failed *step.TestFailed
	if !errors.As(err, &failed) {
		tb.Fatalf("got %v, want a TestFailed", err)
	}
	return failed.Checks
}
