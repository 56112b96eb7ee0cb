package packages_test

import (
	"context"
	"strings"
	"testing"

	"github.com/gildhq/gild/steps/packages"
	"github.com/gildhq/gild/steps/steptest"
)

func newTarget(t *testing.T) *steptest.Target {
	t.Helper()
	return steptest.NewTarget(steptest.New(t, steptest.Tree(t)))
}

func TestInstallsWithoutStartingAnything(t *testing.T) {
	t.Parallel()
	target := newTarget(t)
	if _, err := target.Run(t.Context(), packages.Step, `{"install": ["cron"]}`); err != nil {
		t.Fatalf("%v\n%s", err, target.Log)
	}
	if got := target.Sh(t, "dpkg-query --show --showformat='${db:Status-Abbrev}' cron"); got != "ii" {
		t.Errorf("cron's state is %q", got)
	}
	if !strings.Contains(target.Log.String(), "policy-rc.d denied execution of start") {
		t.Errorf("nothing tells that the service was kept from starting:\n%s", target.Log)
	}
	if got := target.Sh(t, "ls /usr/sbin/policy-rc.d /var/cache/apt/archives/*.deb 2>/dev/null || true"); got != "" {
		t.Errorf("left behind: %s", got)
	}
}

func TestRemoves(t *testing.T) {
	t.Parallel()
	target := newTarget(t)
	if _, err := target.Run(t.Context(), packages.Step, `{"remove": ["tzdata", "never-heard-of"], "purge": true, "hold": ["tar"]}`); err != nil {
		t.Fatalf("%v\n%s", err, target.Log)
	}
	if got := target.Sh(t, "dpkg-query --show --showformat='${db:Status-Abbrev}' tzdata 2>&1 || true"); strings.HasPrefix(got, "ii") {
		t.Errorf("tzdata is still there: %q", got)
	}
	if got := target.Sh(t, "apt-mark showhold"); got != "tar" {
		t.Errorf("held: %q, want tar", got)
	}
}

func TestRemovingWhatIsGoneDoesNothing(t *testing.T) {
	t.Parallel()
	target := newTarget(t)
	if _, err := target.Run(t.Context(), packages.Step, `{"remove": ["never-heard-of"]}`); err != nil {
		t.Fatalf("%v\n%s", err, target.Log)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		prepare string
		config  string
		want    []string
	}{
		"typing mistake": {"", `{"install": ["nginx-lihgt"]}`, []string{`install nginx-lihgt: no package is called "nginx-lihgt"; did you mean "nginx-light"`}},
		"no such name":   {"", `{"install": ["qqqqzzzzqqqqzzzz"]}`, []string{`no package is called "qqqqzzzzqqqqzzzz"`}},
		"no pattern":     {"", `{"install": ["nginx.light"]}`, []string{`no package is called "nginx.light"`}},
		"no option":      {"", `{"install": ["--reinstall"]}`, []string{`install --reinstall`}},
		"no version":     {"", `{"install": ["cron=0.0-none"]}`, []string{`Version '0.0-none' for 'cron' was not found`}},
		"moved archive": {
			// The lists name a file that the archive doesn't have.
			`apt-cache show cron >/dev/null; cd /var/lib/apt/lists; rm -rf /var/cache/apt/*.bin
			 sed -i 's,^Filename: pool/main/c/cron/cron_.*,Filename: pool/main/c/cron/cron_0.0_amd64.deb,' $(ls *_main_binary-*_Packages)`,
			`{"install": ["cron"]}`,
			[]string{"moved past the locked state; run gild lock", "404"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := newTarget(t)
			target.Sh(t, tc.prepare)
			_, err := target.Run(t.Context(), packages.Step, tc.config)
			steptest.WantError(t, err, tc.want...)
			if got := target.Sh(t, "ls /usr/sbin/policy-rc.d 2>/dev/null || true"); got != "" {
				t.Errorf("%s is left behind", got)
			}
		})
	}
}

func TestCancelledKeepsPolicy(t *testing.T) {
	t.Parallel()
	target := newTarget(t)
	target.Sh(t, `printf '#!/bin/sh\nexit 0 # the base has its own\n' > /usr/sbin/policy-rc.d`)
	ctx, cancel := context.WithCancel(t.Context())
	target.Progress = func(int64, int64, string) {}
	target.Target.Log = cancelOnWrite{target.Log, cancel}
	if _, err := target.Run(ctx, packages.Step, `{"install": ["cron"]}`); err == nil {
		t.Fatal("a cancelled step succeeded")
	}
	if got := target.Sh(t, "cat /usr/sbin/policy-rc.d"); !strings.Contains(got, "its own") {
		t.Errorf("the base's policy became %q", got)
	}
}

// cancelOnWrite cancels the step as soon as it says something.
type cancelOnWrite struct {
	*steptest.Log
	cancel context.CancelFunc
}

func (c cancelOnWrite) Write(p []byte) (int, error) {
	c.cancel()
	return c.Log.Write(p)
}
