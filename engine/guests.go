package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/plan"
	"github.com/gildhq/gild/engine/run"
	"github.com/gildhq/gild/engine/step"
)

// guests are the booted images of a run. The tests of one image share one boot per
// firmware; the first that needs it boots it, and run releases it after the last.
type guests struct {
	x    *execution
	mu   sync.Mutex
	open map[string]*sharedGuest
}

type sharedGuest struct {
	mu    sync.Mutex // held for the length of a test: they share files and ports
	guest builder.Guest
	log   *os.File
}

func guestName(n *plan.Node) string { return "guest " + n.Image.Name + " " + n.Firmware }

// get boots the image unless it runs already. A test that is tried again gets a fresh guest.
// The guest is the caller's alone until it calls done.
func (g *guests) get(ctx context.Context, a *run.Attempt, n *plan.Node, info step.ImageInfo) (_ step.Guest, done func(), err error) {
	name := guestName(n)
	g.mu.Lock()
	s := g.open[name]
	if s == nil {
		s = &sharedGuest{}
		g.open[name] = s
	}
	g.mu.Unlock()
	s.mu.Lock()
	if err := g.boot(ctx, a, n, info, s); err != nil {
		s.mu.Unlock()
		return nil, nil, err
	}
	return s.guest, s.mu.Unlock, nil
}

func (g *guests) boot(ctx context.Context, a *run.Attempt, n *plan.Node, info step.ImageInfo, s *sharedGuest) error {
	name, img := guestName(n), n.Image
	if s.guest != nil && a.Number == 1 {
		return nil
	}
	if s.guest != nil {
		// What made the test fail may have ended the guest, or spoilt it.
		err := errors.Join(s.guest.Close(), s.log.Close())
		s.guest = nil
		if err != nil {
			return err
		}
	}
	path := filepath.Join(g.x.logs, run.LogName(img.Name+"/console-"+n.Firmware))
	log, err := os.Create(path)
	if err != nil {
		return err
	}
	guest, err := g.x.builderOf(img.Pipeline).Boot(ctx, a.Shared(name), builder.BootRequest{
		Pipeline: img.Pipeline, Image: info, Firmware: n.Firmware, Log: g.x.mask.Writer(log),
	})
	if err != nil {
		return errors.Join(fmt.Errorf("boot the image (console: %s): %w", path, err), log.Close())
	}
	s.guest, s.log = guest, log
	return nil
}

// release ends a guest; run calls it when no test can need it any more.
func (g *guests) release(_ context.Context, name string) error {
	g.mu.Lock()
	s := g.open[name]
	delete(g.open, name)
	g.mu.Unlock()
	if s == nil || s.guest == nil {
		return nil
	}
	return errors.Join(s.guest.Close(), s.log.Close())
}
