package conformance

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v5"

	"github.com/gildhq/gild/engine/plan"
	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/broker"
	"github.com/gildhq/gild/plugins/manifest"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
	"github.com/gildhq/gild/plugins/store"
)

// clock is the build's clock during tests.
var clock = time.Unix(1_790_000_000, 0).UTC()

const buildArch = runtime.GOARCH

// session is one test of a plugin. Not safe for concurrent use.
type session struct {
	options  Options
	dir      string // removed at the end
	store    *store.Store
	content  store.Content
	launch   launch
	fixtures fixtures
	// project is where the fixtures' inputs lie.
	project *plan.Project
	broker  *broker.Server
	image   *step.ImageInfo
	// secret is in the env of every run.
	secret string

	// p is the process that most checks ask. It is nil before the first check and when the
	// plugin can't be started any more; dead says why.
	p    *process
	dead string
	// described is what the plugin said of itself; nil until it did.
	described *pluginv1.DescribeResponse
	// schemas are those that compile, by step.
	schemas map[string]*jsonschema.Schema
	// broken tells that a check failed.
	broken bool
	// runs are all runs that came to an end.
	runs []*ran
	// realRuns counts those on a real machine.
	realRuns int
	// ended are the processes that are gone.
	ended []*process
	hung  atomic.Bool // a run didn't end in its time
}

func open(ctx context.Context, o Options) (s *session, err error) {
	found, err := locate(o.Path)
	if err != nil {
		return nil, err
	}
	if found.exec && len(o.Self) == 0 {
		return nil, fmt.Errorf("%s is a plugin of kind exec, and no adapter is known", o.Path)
	}
	must := o.Fixtures != ""
	if !must {
		o.Fixtures = found.fixtures
	}
	s = &session{options: o, secret: "secret-" + rand.Text(), schemas: map[string]*jsonschema.Schema{}}
	if s.fixtures, err = readFixtures(o.Fixtures, must); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.project, err = plan.OpenProject(o.Fixtures); err != nil {
		return nil, err
	}
	if s.dir, err = os.MkdirTemp("", "gild-conformance-"); err != nil {
		return nil, fmt.Errorf("make a folder for the test: %w", err)
	}
	// The plugin runs from where gild would put it, so that one that reads what lies beside
	// it, or needs its working directory, is found out.
	if s.store, err = store.Open(filepath.Join(s.dir, "store")); err != nil {
		return nil, err
	}
	if s.content, err = s.store.Add(ctx, found.path); err != nil {
		return nil, fmt.Errorf("read plugin %s: %w", o.Path, err)
	}
	s.launch = launch{argv: s.argv(), dir: s.content.Dir, tls: s.content.Manifest.TLS != manifest.TLSNone, within: o.Within}
	for _, name := range s.content.Manifest.Environment {
		if value, ok := os.LookupEnv(name); ok {
			s.launch.env = append(s.launch.env, name+"="+value)
		}
	}
	if s.image, err = newImage(s.dir); err != nil {
		return nil, err
	}
	if s.broker, err = broker.Listen(s.dir); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *session) argv() []string {
	if s.content.Manifest.Exec != nil {
		return append(append([]string{}, s.options.Self...), s.content.Dir)
	}
	command := s.content.Manifest.Command
	return append([]string{filepath.Join(s.content.Dir, command[0])}, command[1:]...)
}

func (s *session) close() error {
	var errs []error
	if s.p != nil {
		errs = append(errs, s.p.kill())
	}
	if s.broker != nil {
		errs = append(errs, s.broker.Close())
	}
	if s.project != nil {
		errs = append(errs, s.project.Close())
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}

// verdict is how a check came out.
type verdict struct {
	status Status
	detail string
}

func holds() verdict                           { return verdict{status: OK} }
func saw(format string, args ...any) verdict   { return verdict{OK, fmt.Sprintf(format, args...)} }
func fails(format string, args ...any) verdict { return verdict{Failed, fmt.Sprintf(format, args...)} }
func skips(format string, args ...any) verdict { return verdict{Skipped, fmt.Sprintf(format, args...)} }

// check is one thing that must hold.
type check struct {
	name, means string
	run         func(ctx context.Context, s *session) verdict
}

// check makes one check, with a living process before it.
func (s *session) check(ctx context.Context, c check) Result {
	result := func(v verdict) Result { return Result{c.name, c.means, v.status, v.detail} }
	if s.p == nil && s.dead == "" && c.name != "starts" {
		p, err := s.launch.start(ctx, false)
		if err != nil {
			s.dead = "the plugin doesn't start any more: " + err.Error()
		} else {
			s.p = p
		}
	}
	if s.dead != "" {
		return result(skips("%s", s.dead))
	}
	v := c.run(ctx, s)
	if s.p != nil && !s.p.alive() {
		if v.status != Failed {
			v = fails("%v", s.p.explain(errors.New("the plugin ended during this check")))
		}
		if err := s.retire(s.p); err != nil {
			s.dead = err.Error()
		}
		s.p = nil
	}
	s.broken = s.broken || v.status == Failed
	return result(v)
}

// retire ends a process and keeps what it printed.
func (s *session) retire(p *process) error {
	s.ended = append(s.ended, p)
	return p.kill()
}

// with starts a second process for the time of a check.
func (s *session) with(ctx context.Context, adopt bool, do func(p *process) verdict) (v verdict) {
	p, err := s.launch.start(ctx, adopt)
	if err != nil {
		return fails("start another process of the plugin: %v", err)
	}
	defer func() {
		if err := s.retire(p); err != nil && v.status == OK {
			v = fails("%v", err)
		}
	}()
	return do(p)
}
