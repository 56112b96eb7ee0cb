package boot_test

import (
	_ "embed"
	"strings"
	"testing"
	"time"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/steps/boot"
	"github.com/gildhq/gild/steps/steptest"
	"github.com/google/go-cmp/cmp"
)

// systemctl answers like systemd's from the files in /system, which the tests write and
// which it changes itself as a boot goes on. A guest with a real systemd takes minutes
// without hardware support; the builder's own tests boot one.
//
//go:embed testdata/systemctl
var systemctl string

// newTarget returns a guest that was switched on ago, in the state that setup makes.
func newTarget(t *testing.T, ago time.Duration, setup string) *steptest.Target {
	t.Helper()
	machine := steptest.New(t, steptest.Tree(t))
	target := steptest.NewTarget(&steptest.Guest{MachineHandle: machine, Started: time.Now().Add(-ago)})
	put := step.PutFile{Path: "/usr/bin/systemctl", Mode: 0o755}
	if err := machine.Put(t.Context(), put, strings.NewReader(systemctl)); err != nil {
		t.Fatal(err)
	}
	target.Sh(t, `mkdir -p /system/failed; cd /system; echo running >state; echo 0 >polls; echo active >target
		mkdir -p /proc; test -e /proc/uptime || echo '30.00 20.00' >/proc/uptime
		awk '{printf "%.0f\n", ($1 - 10) * 1000000}' /proc/uptime >finish
		`+setup)
	return target
}

func TestPasses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ config, setup string }{
		"running":        {`{}`, ``},
		"starts later":   {`{"within": "60s"}`, `echo 2 >polls`},
		"allowed":        {`{"allow-failed": ["foo.service"]}`, `echo degraded >state; echo exit-code >failed/foo.service`},
		"other target":   {`{"target": "graphical.target"}`, `echo graphical.target >want-target`},
		"asked too late": {`{"within": "25s"}`, ``},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// Finished 10 s ago by the guest's account, so 20 s after power on.
			target := newTarget(t, 30*time.Second, tc.setup)
			got, err := target.Run(t.Context(), boot.Step, tc.config)
			if err != nil {
				t.Fatalf("%v\n%s", err, target.Log)
			}
			if s, ok := got["seconds"].(float64); !ok || s < 19 || s > 23 {
				t.Errorf("outputs are %v, want about 20 seconds", got)
			}
		})
	}
}

func TestFails(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		config, setup string
		want          []string
		log           string
	}{
		"failed units": {`{"allow-failed": ["other.service"]}`, `echo degraded >state; echo exit-code >failed/foo.service; echo timeout >failed/bar.mount`,
			[]string{"unit bar.mount failed: timeout: bar.mount said its last words", "unit foo.service failed: exit-code: foo.service said its last words"},
			"foo.service - a unit"},
		"too slow":    {`{"within": "5s"}`, ``, []string{"the boot took 20s, 5s is allowed"}, ""},
		"never":       {`{"within": "31s"}`, `echo 1000 >polls`, []string{"the system is still starting after 31s"}, "dev-slow.device"},
		"maintenance": {`{"within": "31s"}`, `echo maintenance >state`, []string{"the system is still maintenance after 31s"}, "debian login:"},
		"no target":   {`{"target": "graphical.target"}`, ``, []string{"graphical.target is inactive"}, ""},
		"no systemd":  {`{"within": "31s"}`, `echo 'System has not been booted with systemd' >broken`, []string{"systemd gives no answer after 31s"}, "not been booted with systemd"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := newTarget(t, 30*time.Second, tc.setup)
			_, err := target.Run(t.Context(), boot.Step, tc.config)
			if d := cmp.Diff(tc.want, steptest.FailedChecks(t, err)); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
			if !strings.Contains(target.Log.String(), tc.log) {
				t.Errorf("the log doesn't say %q:\n%s", tc.log, target.Log)
			}
			if strings.Contains(target.Log.String(), "\x1b") {
				t.Errorf("the guest's control characters reached the log: %q", target.Log)
			}
		})
	}
}

func TestNeedsAGuest(t *testing.T) {
	t.Parallel()
	target := steptest.NewTarget(steptest.New(t, steptest.Tree(t)))
	_, err := target.Run(t.Context(), boot.Step, `{}`)
	steptest.WantError(t, err, "the machine is no guest")
}
