package journal_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/event"
	"github.com/gildhq/gild/engine/journal"
	"github.com/gildhq/gild/engine/sqlite"
	"github.com/gildhq/gild/engine/step"
	"golang.org/x/sys/unix"
)

// childVar names the role that this test binary plays when a test starts it again.
const childVar = "GILD_TEST_CHILD"

func TestMain(m *testing.M) {
	role, dir := os.Getenv(childVar), os.Getenv(childVar+"_DIR")
	if role == "" {
		os.Exit(m.Run())
	}
	if err := children[role](dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var children = map[string]func(dir string) error{
	"claim":         claimMany,
	"claim forever": claimForever,
	"full":          fillDisk,
	"work":          work,
}

// child prepares a test binary to play a role.
func child(binary, role, dir string, env ...string) *exec.Cmd {
	cmd := exec.Command(binary)
	cmd.Env = append(append(os.Environ(), childVar+"="+role, childVar+"_DIR="+dir), env...)
	return cmd
}

const claimsPerChild = 40

// claimMany opens many entries, settles every second one and leaves the rest.
func claimMany(dir string) error {
	ctx := context.Background()
	j, err := journal.Open(ctx, filepath.Join(dir, "gild.db"))
	if err != nil {
		return err
	}
	run := fmt.Sprint("run-", os.Getpid())
	for i := range claimsPerChild {
		id, err := j.Intent(ctx, run, "node", builder.Resource{Kind: "tmpdir", ID: fmt.Sprint(i)})
		if err != nil {
			return err
		}
		if i%2 == 0 {
			if err := j.Settle(ctx, id); err != nil {
				return err
			}
		}
		if err := j.SetNode(journal.Node{Run: run, ID: fmt.Sprint(i), State: event.Done}); err != nil {
			return err
		}
	}
	return j.Close()
}

// claimForever opens entries, with states of nodes between them, and tells of each.
func claimForever(dir string) error {
	ctx := context.Background()
	j, err := journal.Open(ctx, filepath.Join(dir, "gild.db"))
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		for n := range 20 {
			if err := j.SetNode(journal.Node{Run: "run", ID: fmt.Sprint(i, "/", n), State: event.Done}); err != nil {
				return err
			}
		}
		id, err := j.Intent(ctx, "run", "node", builder.Resource{Kind: "tmpdir", ID: fmt.Sprint(i)})
		if err != nil {
			return err
		}
		if _, err := fmt.Println(id); err != nil {
			return err
		}
	}
}

// fillDisk lets asynchronous records get lost, and checks who is told and what still works.
func fillDisk(dir string) error {
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		return fmt.Errorf("mount a small disk: %w", err)
	}
	ctx := context.Background()
	j, err := journal.Open(ctx, filepath.Join(dir, "gild.db"))
	if err != nil {
		return err
	}
	early, err := j.Intent(ctx, "run", "node", builder.Resource{Kind: "tmpdir", ID: "early"})
	if err != nil {
		return err
	}
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 600<<10), 0o600); err != nil {
		return err
	}
	for i := 0; err == nil && i < 100; i++ {
		err = errors.Join(
			j.SetNode(journal.Node{Run: "run", ID: fmt.Sprint(i), Error: string(make([]byte, 20000))}),
			j.Flush(ctx))
	}
	_, refusal := j.Intent(ctx, "run", "node", builder.Resource{Kind: "tmpdir", ID: "late"})
	for _, err := range []error{err, refusal, j.SetNode(journal.Node{}), j.AddEvent(event.Event{}), j.Flush(ctx)} {
		var e *sqlite.Error
		if !errors.As(err, &e) || e.Kind != sqlite.Full {
			return fmt.Errorf("got error %v; want a full disk", err)
		}
	}
	if err := os.Remove(ballast); err != nil {
		return err
	}
	open, err := j.OpenIntents(ctx, "")
	if err != nil || len(open) != 1 || open[0].ID != early {
		return fmt.Errorf("got %v, %w; want the early intent alone", open, err)
	}
	if err := j.Settle(ctx, early); err != nil {
		return fmt.Errorf("settle after room was made: %w", err)
	}
	if err := j.Close(); err == nil {
		return errors.New("closing an incomplete journal said nothing")
	}
	return nil
}

// workRecords is how many records work writes.
const workRecords = 9

// work does what a small run does, telling the parent on stdout of each durable call that returned.
func work(dir string) error {
	ctx := context.Background()
	j, err := journal.Open(ctx, filepath.Join(dir, "gild.db"))
	if err != nil {
		return err
	}
	at := time.Unix(1700000000, 0)
	said := func(what string, err error) error {
		if err == nil {
			_, err = fmt.Println(what)
		}
		return err
	}
	claim := func(name string) (id int64, err error) {
		id, err = j.Intent(ctx, "run", "node", builder.Resource{Kind: "tmpdir", ID: name})
		return id, said("intent "+name, err)
	}
	if err := said("start", j.StartRun(ctx, journal.Run{ID: "run", State: event.Running, Started: at})); err != nil {
		return err
	}
	if err := j.SetNode(journal.Node{Run: "run", ID: "node", State: event.Running}); err != nil {
		return err
	}
	first, err := claim("first")
	if err != nil {
		return err
	}
	if _, err := claim("second"); err != nil {
		return err
	}
	if err := said("settle first", j.Settle(ctx, first)); err != nil {
		return err
	}
	if err := j.AddEvent(event.Event{Run: "run", Kind: event.Notice, Text: "half-way"}); err != nil {
		return err
	}
	if err := said("result", j.SaveResult(ctx, "key", step.Outputs{"n": 1.0})); err != nil {
		return err
	}
	if err := j.SetNode(journal.Node{Run: "run", ID: "node", State: event.Done}); err != nil {
		return err
	}
	if err := said("end", j.EndRun(ctx, "run", event.Done, 0, at)); err != nil {
		return err
	}
	return j.Close()
}

// killed reports whether a command ended by SIGKILL.
func killed(err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}
