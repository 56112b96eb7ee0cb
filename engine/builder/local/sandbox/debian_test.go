package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gildhq/gild/engine/step"
)

// debianTar names a file with the Debian tree, for a second run by another user.
const debianTar = "GILD_TEST_DEBIAN_TAR"

// makeDebian makes a layer with a Debian that has apt.
func makeDebian() (string, error) {
	ctx := context.Background()
	ids, err := FindIDs()
	if err != nil {
		return "", err
	}
	if err := MakeDirs(ctx, ids, shared.dir, "debian"); err != nil {
		return "", err
	}
	layer := filepath.Join(shared.dir, "debian")
	job := JobConfig{Upper: layer, IDs: ids}
	script := "mmdebstrap --quiet --mode=root --variant=apt --skip=check/empty,cleanup/apt/lists bookworm ."
	if tar := os.Getenv(debianTar); tar != "" {
		job.Writable = []string{filepath.Dir(tar)}
		script = fmt.Sprintf("tar -xf %q", tar)
	}
	var log strings.Builder
	if _, err := RunJob(ctx, job, "test-shell", script, &log); err != nil {
		return "", fmt.Errorf("make a Debian tree (it needs the package mmdebstrap): %w: %s", err, log.String())
	}
	return layer, nil
}

// TestPackages installs packages whose maintainer scripts make users, keys and links to
// units, and start daemons.
func TestPackages(t *testing.T) {
	t.Parallel()
	c := configOn(t, shared.debian)
	m := openOn(t, c)
	var out bytes.Buffer
	err := m.Exec(t.Context(), step.Cmd{
		Argv:    []string{"apt-get", "install", "-y", "--no-install-recommends", "systemd-sysv", "openssh-server", "chrony", "iputils-ping"},
		Stdout:  &out,
		Stderr:  &out,
		Network: true,
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, check := range []string{
		"getent passwd sshd",
		"getent passwd _chrony",
		"test -f /etc/ssh/ssh_host_ed25519_key",
		"test -L /etc/systemd/system/multi-user.target.wants/ssh.service",
		"test -L /etc/systemd/system/multi-user.target.wants/chrony.service",
		"test $(stat -c %U:%G:%a /usr/bin/ssh-agent) = root:_ssh:2755",
		"test $(dpkg -l | grep -c '^i[^i]') = 0",
		"test $(dpkg -l | grep -c '^ii') -gt 100",
		"useradd -m someone && test $(stat -c %U /home/someone) = someone",
		"su someone -c 'test $(id -un) = someone'",
		"systemctl enable systemd-networkd.service && systemctl mask getty@tty1.service",
		"! pgrep sshd",
	} {
		m.mustSh(t, check)
	}
	for _, clean := range []string{"tmp", "run", "dev", "proc", "sys"} {
		entries, err := os.ReadDir(filepath.Join(m.upper, clean))
		if err == nil && len(entries) > 0 {
			t.Errorf("the layer holds %v in /%s", entries, clean)
		}
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	// A capability must look as on a real system to what writes the disk: version 2, not
	// bound to a user namespace.
	view := JobConfig{Lower: append(c.Lower, c.Upper), IDs: c.IDs}
	got, err := RunJob(t.Context(), view, "test-capability", "usr/bin/ping", os.Stderr)
	if err != nil || !bytes.HasPrefix(got, []byte{1, 0, 0, 2}) || len(got) != 20 {
		t.Errorf("the capability of ping is %x, %v", got, err)
	}
}

func init() {
	Register("test-capability", func(_ context.Context, root string, raw json.RawMessage, out io.Writer) error {
		var name string
		if err := json.Unmarshal(raw, &name); err != nil {
			return err
		}
		value := make([]byte, 64)
		n, err := unix.Lgetxattr(filepath.Join(root, name), "security.capability", value)
		if err != nil {
			return err
		}
		_, err = out.Write(value[:n])
		return err
	})
}
