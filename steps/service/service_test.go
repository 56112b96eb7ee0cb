package service_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/gildhq/gild/steps/service"
	"github.com/gildhq/gild/steps/steptest"
	"github.com/google/go-cmp/cmp"
)

const unit = `[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n`

func newTarget(t *testing.T) *steptest.Target {
	t.Helper()
	target := steptest.NewTarget(steptest.New(t, steptest.Tree(t, "systemd", "dbus", "openssh-server")))
	file := filepath.Join(t.TempDir(), "app.timer")
	if err := os.WriteFile(file, []byte("[Timer]\nOnCalendar=daily\n[Install]\nWantedBy=timers.target\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	target.Inputs["./app.timer"] = steptest.Folder(file)
	target.Inputs["./units"] = steptest.Folder(t.TempDir())
	return target
}

func TestUnits(t *testing.T) {
	t.Parallel()
	state := func(unit string) string { return "systemctl --root=/ is-enabled " + unit + " 2>/dev/null || true" }
	for name, tc := range map[string]struct{ prepare, config, look, want string }{
		"disable":    {``, `{"name": "ssh", "enable": false}`, state("ssh.service"), "disabled"},
		"enable":     {`systemctl --root=/ disable ssh`, `{"name": "ssh", "enable": true}`, state("ssh.service"), "enabled"},
		"mask":       {``, `{"name": "apt-daily.timer", "mask": true}`, state("apt-daily.timer"), "masked"},
		"unmask":     {`systemctl --root=/ mask ssh`, `{"name": "ssh", "mask": false, "enable": true}`, state("ssh.service"), "enabled"},
		"both":       {``, `{"name": "ssh", "enable": false, "mask": true}`, state("ssh.service"), "masked"},
		"unit":       {``, `{"name": "app", "enable": true, "unit": "` + unit + `"}`, state("app.service") + "; cat /etc/systemd/system/app.service; stat -c %a /etc/systemd/system/app.service", "enabled\n[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n644"},
		"unit alone": {``, `{"name": "app", "unit": "` + unit + `"}`, state("app.service"), "disabled"},
		"from":       {``, `{"name": "app.timer", "from": "./app.timer", "enable": true}`, state("app.timer") + "; stat -c %a /etc/systemd/system/app.timer", "enabled\n644"},
		"drop-in":    {``, `{"name": "ssh", "dropin": "[Service]\nRestart=always\n"}`, "cat /etc/systemd/system/ssh.service.d/50-gild.conf", "[Service]\nRestart=always"},
		"template":   {`printf '` + unit + `' >/etc/systemd/system/app@.service`, `{"name": "app@1", "enable": true}`, "readlink /etc/systemd/system/multi-user.target.wants/app@1.service", "/etc/systemd/system/app@.service"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := newTarget(t)
			target.Sh(t, tc.prepare)
			for range 2 { // the second time changes nothing
				if _, err := target.Run(t.Context(), service.Step, tc.config); err != nil {
					t.Fatalf("%v\n%s", err, target.Log)
				}
				if d := cmp.Diff(tc.want, target.Sh(t, tc.look)); d != "" {
					t.Errorf("(-want +got)\n%s", d)
				}
			}
		})
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ prepare, config, want string }{
		"unknown unit": {``, `{"name": "nginx", "enable": true}`, "enable nginx.service: systemctl: exit status 1: Failed to enable unit, unit nginx.service does not exist"},
		"folder":       {``, `{"name": "app", "from": "./units"}`, `write unit app.service: "./units" is a folder`},
		"no systemd":   {`rm /usr/bin/systemctl`, `{"name": "ssh", "enable": true}`, "there is no systemd on the machine; add it with the step packages"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := newTarget(t)
			target.Sh(t, tc.prepare)
			_, err := target.Run(t.Context(), service.Step, tc.config)
			steptest.WantError(t, err, tc.want)
		})
	}
}
