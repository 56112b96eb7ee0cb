// Package adapter lets a folder with a plugin.yaml of kind exec and a program in any
// language be a plugin: it makes a [step.Step] of each step of the manifest, whose
// functions start the program. `gild plugin adapt` serves these steps like any other
// plugin's, so nothing else of gild knows this kind.
//
// # The protocol
//
// Each call starts the program of the step's `command` in the plugin's folder. Its last
// argument, after the fixed ones, is what is wanted:
//
//	run       work on the machine or the image
//	validate  report what is wrong with a configuration; only for steps with validates: true
//	key       name what else decides over the result; only for steps with keyed: true
//	cleanup   remove a resource that a run claimed and didn't settle
//
// The request is one JSON object on standard input, then its end. "gild" is the version of
// this protocol; fields that the request has no value for are left out:
//
//	{
//	  "gild": 1,
//	  "step": "acme/motd",
//	  "config": {"text": "hello"},
//	  "inputs": ["./motd.txt"],
//	  "clock": "2026-01-02T03:04:05Z",
//	  "pipeline": {"name": "web", "release": "1.4.0", "arch": "amd64"},
//	  "image": {"key": "…", "size": 1, "files": [{"format": "raw", "path": "/…", "size": 1, "allocated": 1, "sha256": "…"}],
//	            "id": "of an image in a cloud, which has no files", "region": "…"},
//	  "machine": {"guest": true, "powered_on": "2026-01-02T03:04:05Z"},
//	  "attempt": 1,
//	  "token": "constant over all attempts"
//	}
//
// validate and key get "gild", "step" and "config"; cleanup gets "gild" and
// "resource": {"kind": "…", "id": "…", "note": "…"}. Who ignores unknown fields keeps
// working with later versions of gild.
//
// Standard output takes events: one JSON object with one key on each line of at most
// 1 MiB. A line that is none fails the call.
//
//	{"log": "a line"}                                            all
//	{"progress": {"done": 1, "total": 2, "unit": "files"}}       run
//	{"output": {"path": "/etc/motd"}}                            run; outputs of the manifest, together at most 64 KiB
//	{"diagnostic": {"severity": "error", "message": "…",
//	   "hint": "…", "pointer": "/text"}}                         validate; or severity "warning"
//	{"key": {"tool": "1.2"}}                                     key; texts, together at most 64 KiB
//	{"result": {"outcome": "ok"}}                                all; the last event
//
// The outcome is "ok", "failed" (trying again may help), "permanent" (it doesn't), or, of
// run only, "test-failed" (the image didn't pass; "checks" is the list of what failed) or
// "skipped" (there was nothing to do). All but "ok" say why in "message", test-failed in
// "checks" or "message". Without a result the exit status decides: 0 is "ok", another is
// "failed". A status other than 0 turns "ok" into "failed".
//
// Standard error is the log too, as it comes.
//
// The environment is PATH, LANG, HOME and TMPDIR (a private folder that is removed after
// the call, for both), the variables that the manifest's `environment` names, and
//
//	GILD                the gild program
//	GILD_PLUGIN_DIR     the plugin's folder; it is also the working directory
//
// and, in a run, the step's `env`, GILD_TARGET and GILD_TARGET_TOKEN. With these `gild
// target` works on the step's machine and inputs until the call ends:
//
//	"$GILD" target facts                     what the machine is, as JSON
//	"$GILD" target exec [--network] [--env K=V] [--dir D] -- COMMAND...
//	"$GILD" target put [--mode 0644] [--owner U] [--group G] [--parents] LOCAL|- REMOTE
//	"$GILD" target get REMOTE LOCAL|-
//	"$GILD" target dial PORT                 standard input and output to a guest's port
//	"$GILD" target console                   the end of a guest's serial console
//	"$GILD" target input NAME [LOCAL|-]      list an input as JSON, or copy it
//	"$GILD" target claim KIND ID [NOTE]      record a resource; prints the claim
//	"$GILD" target settle CLAIM              the resource is gone, or is meant to stay
//
// A resource must be claimed before it is made: only when `claim` has returned will gild
// remember it if everything is killed, and have it removed by the verb cleanup. That is
// why a claim is a command and not an event. Cleanup finds a resource that is gone, or was
// never made, in order, and one of a kind that it doesn't know. It is asked of the plugin's command; of each step's, in turn,
// when the plugin has none.
//
// A call that isn't wanted any more gets SIGTERM, with all processes of its group, and
// SIGKILL some seconds later. What a program leaves running in the background is killed
// when the program ends.
//
// The package never trusts the program: sizes are bounded, and it is never waited for
// longer than the context of the call and the grace after it.
package adapter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/manifest"
	"github.com/santhosh-tekuri/jsonschema/v5"
)

// Version is the version of the protocol between the adapter and a program.
const Version = 1

// defaultGrace leaves the adapter's own host, which waits for 10 s, time to hear of it.
const defaultGrace = 5 * time.Second

// Targets gives out the addresses under which `gild target` reaches a step's target;
// *broker.Server does.
type Targets interface {
	// Address is the path of a unix socket.
	Address() string
	// Open returns a token for t that works until end is called.
	Open(t *step.Target) (token string, end func())
}

// Config is what an [Adapter] needs to know.
type Config struct {
	// Gild is the absolute path of gild, the program's $GILD.
	Gild string
	// Targets serves the targets of runs.
	Targets Targets
	// Temp is the folder for the private folders of calls; empty means the host's.
	Temp string
	// Environ is the environment from which the manifest's variables are taken, in the
	// form of os.Environ.
	Environ []string
	// Log takes what programs say outside of runs. Nil discards it.
	Log io.Writer
	// Grace is the time between SIGTERM and SIGKILL; 0 means 5 s.
	Grace time.Duration
}

// Adapter starts the programs of one plugin. It is safe for concurrent use and must be closed.
type Adapter struct {
	dir      string
	manifest manifest.Manifest
	config   Config
	schemas  map[string]*jsonschema.Schema // by step

	// closed ends when the adapter is closed; calls is what then has to be waited for.
	closed context.Context
	close  context.CancelCauseFunc
	mu     sync.Mutex
	calls  sync.WaitGroup
}

var errClosed = errors.New("the plugin is being stopped")

// New makes an adapter for the folder of a plugin of kind exec. It starts nothing.
func New(dir string, m manifest.Manifest, c Config) (*Adapter, error) {
	if m.Exec == nil {
		return nil, fmt.Errorf("the plugin in %s is not of kind exec", dir)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if c.Grace == 0 {
		c.Grace = defaultGrace
	}
	if c.Log == nil {
		c.Log = io.Discard
	}
	schemas, err := compile(m.Exec.Steps)
	if err != nil {
		return nil, fmt.Errorf("the plugin in %s: %w", dir, err)
	}
	a := &Adapter{dir: dir, manifest: m, config: c, schemas: schemas}
	a.closed, a.close = context.WithCancelCause(context.Background())
	return a, nil
}

// Close kills what is running, and waits for it.
func (a *Adapter) Close() {
	a.mu.Lock()
	a.close(errClosed)
	a.mu.Unlock()
	a.calls.Wait()
}

// Steps returns the manifest's steps, whose functions start its programs. The first one's
// Cleanup is that of all.
func (a *Adapter) Steps() []step.Step {
	var all []step.Step
	for i, m := range a.manifest.Exec.Steps {
		s := step.Step{
			Name: m.Name, Summary: m.Summary, Doc: m.Doc, Schema: m.Schema, Outputs: m.Outputs,
			Sections: m.Sections, Effect: effect(m.Sections), Cacheable: m.Cacheable,
			Run: a.runStep(m),
		}
		// A request to clean up names no step, so all steps are asked: one answers for all.
		if i == 0 {
			s.Cleanup = a.cleanup
		}
		if m.Validates {
			s.Validate = a.validateStep(m)
		}
		if m.Keyed {
			s.KeyParts = a.keyStep(m)
		}
		all = append(all, s)
	}
	return all
}

func effect(sections []step.Section) step.Effect {
	switch {
	case slices.Contains(sections, step.Customize):
		return step.Machine
	case slices.Contains(sections, step.Tests):
		return step.Image
	default:
		return step.None
	}
}
