package user_test

import (
	"testing"

	"github.com/gildhq/gild/steps/internal/sshkeys"
	"github.com/gildhq/gild/steps/steptest"
	"github.com/gildhq/gild/steps/user"
	"github.com/google/go-cmp/cmp"
)

func newTarget(t *testing.T) *steptest.Target {
	t.Helper()
	return steptest.NewTarget(steptest.New(t, steptest.Tree(t, "sudo")))
}

func TestAccounts(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ prepare, config, look, want string }{
		"new": {``, `{"name": "ops"}`, `getent passwd ops; getent shadow ops | cut -d: -f2; stat -c '%a %U:%G' /home/ops; id ops`,
			"ops:x:1000:1000::/home/ops:/bin/bash\n!\n755 ops:ops\nuid=1000(ops) gid=1000(ops) groups=1000(ops)"},
		"all": {``, `{"name": "ops", "uid": 1500, "gid": 1600, "group": "staff2", "groups": ["adm", "sudo"], "home": "/srv/ops", "shell": "/bin/sh", "gecos": "Op S."}`,
			`getent passwd ops; id ops; ls -d /srv/ops`,
			"ops:x:1500:1600:Op S.:/srv/ops:/bin/sh\nuid=1500(ops) gid=1600(staff2) groups=1600(staff2),4(adm),27(sudo)\n/srv/ops"},
		"system": {``, `{"name": "app", "system": true, "uid": 950, "home": "/var/lib/app"}`, `getent passwd app; ls -d /var/lib/app || true`,
			"app:x:950:950::/var/lib/app:/usr/sbin/nologin"},
		"changed": {`useradd -m -G adm ops; echo x >/home/ops/x; chown ops /home/ops/x`, `{"name": "ops", "uid": 1700, "groups": ["sudo"], "shell": "/bin/sh", "home": "/srv/ops", "gecos": ""}`,
			`getent passwd ops; id -nG ops; cat /srv/ops/x; stat -c %u /srv/ops/x`, "ops:x:1700:1000::/srv/ops:/bin/sh\nops adm sudo\nx\n1700"},
		"nothing to change": {`useradd -m ops; getent passwd ops >/before`, `{"name": "ops"}`, `getent passwd ops | cmp - /before`, ""},
		"absent":            {`useradd -m ops; touch /etc/sudoers.d/90-gild-ops`, `{"name": "ops", "absent": true}`, `getent passwd ops || true; ls -d /home/ops /etc/sudoers.d/90-gild-ops || true`, ""},
		"absent already":    {``, `{"name": "ops", "absent": true}`, `getent passwd ops || true`, ""},
		"keys": {``, `{"name": "ops", "authorized-keys": ["ssh-ed25519 AAAA a b", "ssh-rsa BBBB"]}`, `stat -c '%a %U:%G' /home/ops/.ssh /home/ops/.ssh/authorized_keys; cat /home/ops/.ssh/authorized_keys`,
			"700 ops:ops\n600 ops:ops\n" + sshkeys.Mark + "\nssh-ed25519 AAAA a b\nssh-rsa BBBB"},
		"root's keys": {``, `{"name": "root", "authorized-keys": ["ssh-rsa BBBB"]}`, `tail -n 1 /root/.ssh/authorized_keys`, "ssh-rsa BBBB"},
		"sudo":        {``, `{"name": "ops", "sudo": "nopasswd"}`, `stat -c %a /etc/sudoers.d/90-gild-ops; sudo -l -U ops | grep -c 'NOPASSWD: ALL'`, "440\n1"},
		"no sudo":     {`echo 'ops ALL=(ALL) ALL' >/etc/sudoers.d/90-gild-ops`, `{"name": "ops", "sudo": "none"}`, `ls /etc/sudoers.d/90-gild-ops || true`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := newTarget(t)
			target.Sh(t, tc.prepare)
			for range 2 { // the second time changes nothing
				if _, err := target.Run(t.Context(), user.Step, tc.config); err != nil {
					t.Fatalf("%v\n%s", err, target.Log)
				}
				if d := cmp.Diff(tc.want, target.Sh(t, "exec 2>/dev/null; "+tc.look)); d != "" {
					t.Errorf("(-want +got)\n%s", d)
				}
			}
		})
	}
}

// TestIsDeterministic makes the same account on two machines at different times.
func TestIsDeterministic(t *testing.T) {
	t.Parallel()
	var states [2]string
	for i := range states {
		target := newTarget(t)
		if i == 1 {
			target.Sh(t, "sleep 1.1")
		}
		if _, err := target.Run(t.Context(), user.Step, `{"name": "ops", "sudo": "nopasswd"}`); err != nil {
			t.Fatal(err)
		}
		states[i] = target.Sh(t, "cat /etc/passwd /etc/shadow /etc/group /etc/gshadow /etc/subuid /etc/subgid")
	}
	if d := cmp.Diff(states[0], states[1]); d != "" {
		t.Errorf("the accounts differ (-first +second)\n%s", d)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ prepare, config, want string }{
		"unknown group": {``, `{"name": "ops", "groups": ["nemo"]}`, "make account ops: useradd: exit status 6: useradd: group 'nemo' does not exist"},
		"taken number":  {``, `{"name": "ops", "uid": 1}`, "useradd: UID 1 is not unique"},
		"taken group":   {``, `{"name": "ops", "gid": 4}`, "make group ops with number 4: groupadd: exit status 4: groupadd: GID '4' already exists"},
		"no sudo":       {`rm /usr/bin/sudo`, `{"name": "ops", "sudo": "password"}`, "set sudo of ops: sudo isn't installed; add it with the step packages"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := newTarget(t)
			target.Sh(t, tc.prepare)
			_, err := target.Run(t.Context(), user.Step, tc.config)
			steptest.WantError(t, err, tc.want)
		})
	}
}
