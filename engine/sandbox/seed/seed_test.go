package seed

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/builder/local/guest"
)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// TestWriteProject checks that every file the pipeline names is there, and that scripts are
// scripts.
func TestWriteProject(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, WriteProject(dir))
	lock := filepath.Join(dir, "gild.lock")
	must(t, os.WriteFile(lock, []byte("kept"), 0o644))
	stale := filepath.Join(dir, Pipeline)
	must(t, os.WriteFile(stale, []byte("of an older gild"), 0o644))
	must(t, WriteProject(dir))
	pipeline, err := os.ReadFile(stale)
	must(t, err)
	named := regexp.MustCompile(`\./(files/[a-z.-]+)`).FindAllStringSubmatch(string(pipeline), -1)
	if len(named) < 5 {
		t.Errorf("the pipeline names %d files:\n%s", len(named), pipeline)
	}
	for _, n := range named {
		data, err := os.ReadFile(filepath.Join(dir, n[1]))
		must(t, err)
		if !strings.HasPrefix(string(data), "#!/bin/sh\n") {
			continue
		}
		if out, err := exec.Command("sh", "-n", filepath.Join(dir, n[1])).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", n[1], err, out)
		}
	}
	agent, err := os.ReadFile(filepath.Join(dir, agentName))
	must(t, err)
	if diff := cmp.Diff(string(guest.AgentScript()), string(agent)); diff != "" {
		t.Errorf("the agent (-want +got):\n%s", diff)
	}
	if data, err := os.ReadFile(lock); err != nil || string(data) != "kept" {
		t.Errorf("gild.lock holds %q, %v", data, err)
	}
	if err := WriteProject(filepath.Join(lock, "below")); err == nil {
		t.Error("a project was written below a file")
	}
}

// TestInstanceConnectKeys runs the script that sshd asks, with a curl that acts the
// metadata service out.
func TestInstanceConnectKeys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, WriteProject(dir))
	const curl = `#!/bin/sh
case "$*" in
*PUT*/latest/api/token) echo token-1 ;;
*X-aws-ec2-metadata-token:\ token-1*/active-keys/admin) printf '#Timestamp=1\nssh-ed25519 AAAA one\necdsa-sha2-nistp256 BBBB\nc2lnbmF0dXJl\n' ;;
*) exit 22 ;;
esac
`
	must(t, os.WriteFile(filepath.Join(dir, "curl"), []byte(curl), 0o755))
	for user, want := range map[string]string{
		"admin": "ssh-ed25519 AAAA one\necdsa-sha2-nistp256 BBBB\n",
		"other": "", "": "", "../admin": "", "admin admin": "", "a$(id)": "",
	} {
		cmd := exec.Command("sh", filepath.Join(dir, "files/instance-connect-keys"), user)
		cmd.Env = []string{"PATH=" + dir + ":/usr/bin:/bin"}
		out, err := cmd.Output()
		if err != nil || string(out) != want {
			t.Errorf("keys of %q: %q, %v, want %q", user, out, err, want)
		}
	}
}

func TestImages(t *testing.T) {
	t.Parallel()
	made := time.Date(2024, 5, 7, 23, 30, 0, 0, time.UTC)
	images := Images(made, func(context.Context) (string, error) { return "", errors.New("asked") })
	type summary struct {
		Account, Name string
		Created       time.Time
		Parameters    []string
	}
	var got []summary
	for _, i := range images {
		got = append(got, summary{i.Account, i.Name, i.Created, i.SSMParameters})
		if _, err := i.Bytes(t.Context()); err == nil {
			t.Errorf("%s has bytes of its own", i.Name)
		}
	}
	want := []summary{
		// Debian's own name of that day.
		{Debian, "debian-12-amd64-20240507-1740", made, []string{"/aws/service/debian/release/12/latest/amd64"}},
		{Debian, "debian-12-amd64-20240423-1726", made.Add(-older), nil},
		{Lookalike, "debian-12-amd64-20240508-1741", made, nil},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("images (-want +got):\n%s", diff)
	}
}
