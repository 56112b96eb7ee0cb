package adapter

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/internal/procs"
)

const (
	// path is the programs' PATH, unless the step says another.
	path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	// callEnv marks the processes of one call.
	callEnv = "GILD_PLUGIN_CALL"
)

// call is one start of a program.
type call struct {
	argv    []string
	request request
	env     []string
	events  *events
	log     *log
}

// call starts the program, and returns when it and all it started are gone.
func (a *Adapter) call(ctx context.Context, c *call) (err error) {
	ctx, leave, err := a.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	temp, err := os.MkdirTemp(a.config.Temp, "call-")
	if err != nil {
		return fmt.Errorf("make a folder for the call: %w", err)
	}
	defer func() {
		if gone := os.RemoveAll(temp); gone != nil {
			err = errors.Join(err, fmt.Errorf("remove the folder of the call: %w", gone))
		}
	}()
	text, err := json.Marshal(c.request)
	if err != nil {
		return fmt.Errorf("encode the request: %w", err)
	}
	mark := rand.Text()
	p, err := start(program{
		path: filepath.Join(a.dir, c.argv[0]), args: append(slices.Clone(c.argv[1:]), c.events.verb),
		dir: a.dir, env: a.environment(c.env, temp, mark), mark: mark, stdin: text,
		grace: a.config.Grace, kill: a.closed.Done(),
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", c.argv[0], err)
	}
	return c.follow(ctx, p)
}

// enter counts a call in, for Close to wait for. Its context ends at Close too.
func (a *Adapter) enter(ctx context.Context) (context.Context, func(), error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed.Err() != nil {
		return nil, nil, errClosed
	}
	a.calls.Add(1)
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(a.closed, func() { cancel(errClosed) })
	return ctx, func() {
		stop()
		cancel(context.Canceled)
		a.calls.Done()
	}, nil
}

// environment is the whole environment of a program. What comes last wins.
func (a *Adapter) environment(own []string, temp, mark string) []string {
	env := []string{"PATH=" + path, "LANG=C.UTF-8", "HOME=" + temp, "TMPDIR=" + temp}
	for _, v := range a.config.Environ {
		name, _, _ := strings.Cut(v, "=")
		if name == procs.RunEnv || slices.Contains(a.manifest.Environment, name) {
			env = append(env, v)
		}
	}
	for _, v := range own {
		if name, _, _ := strings.Cut(v, "="); name != procs.RunEnv {
			env = append(env, v)
		}
	}
	return append(env, "GILD="+a.config.Gild, "GILD_PLUGIN_DIR="+a.dir, callEnv+"="+mark)
}

// follow takes what the program says until it has ended, and tells how the call went.
func (c *call) follow(ctx context.Context, p *process) error {
	within, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var readers sync.WaitGroup
	var wrong, unlogged error
	readers.Go(func() {
		if wrong = c.events.read(p.stdout); wrong != nil {
			stop(wrong)
		}
		p.stdout.drain()
	})
	readers.Go(func() {
		if _, unlogged = p.stderr.copyTo(c.log); unlogged != nil {
			stop(unlogged)
		}
		p.stderr.drain()
	})
	status, err := p.end(within)
	readers.Wait()
	err = errors.Join(err, p.close())
	if cause := context.Cause(within); cause != nil && ctx.Err() == nil {
		err = errors.Join(fmt.Errorf("%s: %w", c.argv[0], cause), err)
	}
	return c.outcome(ctx, status, err)
}

// outcome weighs what was wanted, how the program behaved, what it said and how it ended.
func (c *call) outcome(ctx context.Context, status int, err error) error {
	if ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	if err != nil {
		return err
	}
	if c.events.result != nil {
		if err := c.events.result.err(); err != nil {
			return err
		}
	}
	if status == 0 {
		return nil
	}
	exit := &step.ExitError{Argv: append(slices.Clone(c.argv), c.events.verb), Status: status}
	if last := c.log.last(); last != "" {
		return fmt.Errorf("%w: %s", exit, last)
	}
	return exit
}
