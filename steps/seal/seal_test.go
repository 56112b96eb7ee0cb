package seal_test

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gildhq/gild/schemas"
	"github.com/gildhq/gild/steps/internal/sshkeys"
	"github.com/gildhq/gild/steps/seal"
	"github.com/gildhq/gild/steps/steptest"
	"github.com/google/go-cmp/cmp"
)

// newTarget returns a machine with systemd and sshd.
func newTarget(t testing.TB) *steptest.Target {
	t.Helper()
	return steptest.NewTarget(steptest.New(t, steptest.Tree(t, "systemd", "dbus", "openssh-server")))
}

// soil leaves traces of every item but passwords and secrets, the way people and programs do.
const soil = `
echo 0123456789abcdef0123456789abcdef >/etc/machine-id
echo 0123456789abcdef0123456789abcdef >/var/lib/dbus/machine-id
ls /etc/ssh/ssh_host_ed25519_key
useradd --create-home alice
for home in /root /home/alice; do
	mkdir -p $home/.ssh $home/.cache/pip $home/.npm
	echo secret >$home/.ssh/id_rsa; echo host >$home/.ssh/known_hosts; echo key >$home/.ssh/authorized_keys
	echo ls >$home/.bash_history; echo SELECT >$home/.psql_history; echo x >$home/.viminfo; echo x >$home/.cache/pip/x
done
printf '%s\nssh-ed25519 AAAA alice\n' "$MARK" >/home/alice/.ssh/authorized_keys
echo 'Host *' >/home/alice/.ssh/config
mkdir -p /var/lib/cloud/instances/i-1 /var/log/journal/0123 /var/log/apt /var/lib/dhcp /var/lib/systemd /var/crash /var/mail
echo x >/var/lib/cloud/instances/i-1/user-data.txt
echo 'alice ALL=(ALL) NOPASSWD:ALL' >/tmp/x; mkdir -p /etc/sudoers.d; cp /tmp/x /etc/sudoers.d/90-cloud-init-users
echo x >/var/log/journal/0123/system.journal; echo x >/var/log/syslog; echo x >/var/log/syslog.1; echo x >/var/log/syslog.2.gz; echo x >/var/log/wtmp
echo gild >/etc/hostname; echo 'nameserver 192.0.2.1' >/etc/resolv.conf
echo lease >/var/lib/dhcp/dhclient.eth0.leases; head -c 32 /dev/zero >/var/lib/systemd/random-seed
echo x >/var/cache/apt/archives/x.deb; echo x >/var/lib/dpkg/status-old; echo '#!/bin/sh' >/usr/sbin/policy-rc.d
cp /etc/passwd /etc/passwd-; cp /etc/shadow /etc/shadow-; echo x >/var/tmp/x; echo core >/var/crash/core; echo mail >/var/mail/alice
`

func TestSeals(t *testing.T) {
	t.Parallel()
	target := newTarget(t)
	target.Sh(t, "MARK='"+sshkeys.Mark+"'\n"+soil)
	if _, err := target.Run(t.Context(), seal.Step, `{}`); err != nil {
		t.Fatalf("%v\n%s", err, target.Log)
	}
	got := target.Sh(t, `
stat -c '%n %s %a' /etc/machine-id /etc/resolv.conf
readlink /var/lib/dbus/machine-id
ls -A /etc/ssh | grep -c ssh_host_ || true
cat /etc/hostname
ls -A /root /home/alice | grep -v -e bashrc -e profile -e bash_logout
ls -A /home/alice/.ssh
find /var/log -type f -size +0; find /var/lib/apt/lists /var/cache/apt /var/tmp /var/crash /var/mail /var/lib/cloud /var/lib/dhcp -type f
ls /usr/sbin/policy-rc.d /etc/*- /var/lib/dpkg/*-old /var/lib/systemd/random-seed /etc/sudoers.d/90* 2>/dev/null || true
ls /var/log/wtmp /var/log/syslog /var/log/syslog.1 2>/dev/null || true
systemctl --root=/ is-enabled gild-ssh-host-keys.service`)
	want := `/etc/machine-id 0 444
/etc/resolv.conf 0 644
/etc/machine-id
0
localhost
/home/alice:
.ssh

/root:
authorized_keys
config
/var/log/syslog
/var/log/wtmp
enabled`
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if !strings.Contains(target.Log.String(), "kept /home/alice/.ssh/authorized_keys") {
		t.Errorf("the log doesn't tell of the kept keys:\n%s", target.Log)
	}
}

func TestMakesHostKeysAgain(t *testing.T) {
	t.Parallel()
	target := newTarget(t)
	if _, err := target.Run(t.Context(), seal.Step, `{}`); err != nil {
		t.Fatalf("%v\n%s", err, target.Log)
	}
	command := target.Sh(t, `sed -n s/^ExecStart=//p /etc/systemd/system/gild-ssh-host-keys.service`)
	target.Sh(t, command)
	if got := target.Sh(t, "mkdir -p /run/sshd; /usr/sbin/sshd -t && ls /etc/ssh/ssh_host_*_key | wc -l"); got != "3" {
		t.Errorf("sshd has %s host keys, want 3", got)
	}
}

func TestTwiceIsOnce(t *testing.T) {
	t.Parallel()
	target := newTarget(t)
	state := `find /etc /var /root -xdev -printf '%p %m %u %g %s %l\n' | sort`
	var states [2]string
	for i := range states {
		if _, err := target.Run(t.Context(), seal.Step, `{}`); err != nil {
			t.Fatalf("%v\n%s", err, target.Log)
		}
		states[i] = target.Sh(t, state)
	}
	if d := cmp.Diff(states[0], states[1]); d != "" {
		t.Errorf("the second seal changed something (-first +second)\n%s", d)
	}
}

func TestFindsSecrets(t *testing.T) {
	t.Parallel()
	// Put together here so that no scanner takes this file for a leak.
	pem := "-----BEGIN RSA PRIVATE " + "KEY-----"
	for name, tc := range map[string]struct{ prepare, config, want string }{
		"private key":     {"printf -- '" + pem + "\\nMII\\n' >/etc/site.pem", `{}`, "secrets: /etc/site.pem holds a private key"},
		"key with CRLF":   {"printf -- '" + pem + "\\r\\nMII\\n' >/opt/x", `{}`, "secrets: /opt/x holds a private key"},
		"key in JSON":     {`printf '{"k": "` + pem + `\\nMII"}' >/srv/sa.json`, `{}`, "secrets: /srv/sa.json holds a private key"},
		"key in a home":   {"useradd -m bob; printf -- '" + pem + "\\nMII' >'/home/bob/my key'", `{}`, "secrets: /home/bob/my key holds a private key"},
		"access key":      {"echo key=AK" + "IAQWERTYUIOP234567 >/var/lib/x.conf", `{}`, "secrets: /var/lib/x.conf holds an AWS access key"},
		"secret key":      {"echo aws_secret_access_key = $(head -c 40 /dev/zero | tr '\\0' a) >/etc/x", `{}`, "secrets: /etc/x holds an AWS secret key"},
		"token":           {"echo gh" + "p_$(head -c 36 /dev/zero | tr '\\0' a) >/usr/local/x", `{}`, "secrets: /usr/local/x holds an access token"},
		"netrc":           {"echo machine x >/root/.netrc", `{}`, "secrets: /root/.netrc is a file of credentials"},
		"aws":             {"mkdir /root/.aws; echo x >/root/.aws/credentials", `{}`, "secrets: /root/.aws/credentials is a file of credentials"},
		"docker":          {`mkdir /root/.docker; echo '{"auths": {"r": {"auth": "eDp5"}}}' >/root/.docker/config.json`, `{}`, "secrets: /root/.docker/config.json holds a registry's password or token"},
		"password":        {`useradd bob; usermod --password '$y$j9T$abc' bob`, `{}`, "passwords: /etc/shadow bob has a password"},
		"empty password":  {`useradd bob; usermod --password '' bob`, `{}`, "passwords: /etc/shadow bob has an empty password"},
		"machine without": {"rm -rf /etc/shadow /home /srv /opt", `{}`, ""},
		"allowed":         {"printf -- '" + pem + "\\n' >/etc/site.pem", `{"allow": [{"path": "/etc/site.pem", "reason": "a test vector"}]}`, ""},
		"other allowed":   {"printf -- '" + pem + "\\n' >/etc/site.pem", `{"allow": [{"path": "/etc", "reason": "no"}]}`, "secrets: /etc/site.pem holds a private key"},
		"skipped":         {"printf -- '" + pem + "\\n' >/etc/site.pem", `{"skip": [{"item": "secrets", "reason": "a lab"}]}`, ""},
		"example key":     {"echo AK" + "IAIOSFODNN7EXAMPLE >/etc/x", `{}`, ""},
		"key in code":     {`echo 'START = b"` + pem + `"' >/usr/local/x.py`, `{}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := newTarget(t)
			target.Sh(t, tc.prepare)
			_, err := target.Run(t.Context(), seal.Step, tc.config)
			switch {
			case tc.want == "" && err != nil:
				t.Error(err)
			case tc.want != "":
				steptest.WantError(t, err, "the machine can't become an image:\n  "+tc.want)
			}
			if strings.Contains(target.Log.String(), "MII") {
				t.Errorf("the log shows the secret:\n%s", target.Log)
			}
		})
	}
}

func TestSkips(t *testing.T) {
	t.Parallel()
	target := newTarget(t)
	target.Sh(t, "echo kept >/var/log/install.log")
	if _, err := target.Run(t.Context(), seal.Step, `{"skip": [{"item": "logs", "reason": "part of the delivery"}]}`); err != nil {
		t.Fatal(err)
	}
	if got := target.Sh(t, "cat /var/log/install.log"); got != "kept" {
		t.Errorf("the log is %q", got)
	}
	if !strings.Contains(target.Log.String(), "skipped logs: part of the delivery\n") {
		t.Errorf("the reason isn't logged:\n%s", target.Log)
	}
}

// TestVerifyIsNotFooled lets the removal fail silently and expects the second pass to see it.
func TestVerifyIsNotFooled(t *testing.T) {
	t.Parallel()
	target := newTarget(t)
	target.Sh(t, `mv /usr/bin/truncate /usr/bin/truncate.real; ln -s true /usr/bin/truncate; echo x >/var/log/syslog`)
	_, err := target.Run(t.Context(), seal.Step, `{}`)
	steptest.WantError(t, err, "logs: /var/log/syslog is still there")
}

// TestItems compares the items of the schema, the help and the scripts.
func TestItems(t *testing.T) {
	t.Parallel()
	var schema struct {
		Properties struct {
			Skip struct {
				Items struct {
					Properties struct{ Item struct{ Enum []string } }
				}
			}
		}
	}
	if err := json.Unmarshal(schemas.Step("seal"), &schema); err != nil {
		t.Fatal(err)
	}
	want := slices.Sorted(slices.Values(schema.Properties.Skip.Items.Properties.Item.Enum))
	for source, pattern := range map[string]string{
		"verify.sh": `(?m)^verify_([a-z_]+)\(\)`,
		"doc.go":    `(?m)^//   - ([a-z-]+):`,
		"seal.go":   `\{name: "([a-z-]+)"`,
	} {
		text, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(text), -1) {
			got = append(got, strings.ReplaceAll(m[1], "_", "-"))
		}
		slices.Sort(got)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-schema +source)\n%s", source, d)
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	target := newTarget(b)
	for b.Loop() {
		if _, err := target.Run(b.Context(), seal.Step, `{}`); err != nil {
			b.Fatal(err)
		}
	}
}
