package kernelargs_test

import (
	"testing"

	"github.com/gildhq/gild/steps/kernelargs"
	"github.com/gildhq/gild/steps/steptest"
)

func TestChanges(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ prepare, config, want string }{
		"first":     {``, `{"add": ["quiet", "audit=1"]}`, "quiet audit=1"},
		"kept":      {`printf 'ro quiet\n' >/etc/kernel/cmdline`, `{"add": ["quiet", "audit=1"]}`, "ro quiet audit=1"},
		"by value":  {`printf 'console=tty0 console=ttyS0' >/etc/kernel/cmdline`, `{"remove": ["console=tty0"]}`, "console=ttyS0"},
		"by name":   {`printf 'console=tty0 a console=ttyS0 consoleblank=0' >/etc/kernel/cmdline`, `{"remove": ["console"], "add": ["console=hvc0"]}`, "a consoleblank=0 console=hvc0"},
		"not there": {``, `{"remove": ["quiet"]}`, ""},
		"with grub": {`mkdir -p /etc/default; echo GRUB_TIMEOUT=0 >/etc/default/grub`, `{"add": ["quiet", "console=ttyS0,115200"]}`, "quiet console=ttyS0,115200"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := steptest.NewTarget(steptest.New(t, steptest.Tree(t)))
			target.Sh(t, "mkdir -p /etc/kernel; "+tc.prepare)
			for range 2 { // the second time changes nothing
				if _, err := target.Run(t.Context(), kernelargs.Step, tc.config); err != nil {
					t.Fatal(err)
				}
				if got := target.Sh(t, "cat /etc/kernel/cmdline; wc -l </etc/kernel/cmdline | tr -d ' '"); got != tc.want+"\n1" && tc.want != "" {
					t.Errorf("got %q, want %q in one line", got, tc.want)
				}
			}
			wantGrub := "none"
			if name == "with grub" {
				wantGrub = tc.want
			}
			// Read as update-grub does.
			got := target.Sh(t, "if [ -e /etc/default/grub.d/50-gild.cfg ]; then . /etc/default/grub.d/50-gild.cfg; echo $GRUB_CMDLINE_LINUX; else echo none; fi")
			if got != wantGrub {
				t.Errorf("GRUB has %q, want %q", got, wantGrub)
			}
		})
	}
}
