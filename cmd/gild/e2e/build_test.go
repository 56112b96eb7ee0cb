package e2e_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestOnlyWhatChangedRuns builds with nothing changed, then with one character of the
// last step changed.
func TestOnlyWhatChangedRuns(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	out := s.ok("build", "small.yaml")
	contains(t, "the result of a build with nothing to do", out.stdout, "nothing to do")
	if ran := s.build("small.yaml").ran(); len(ran) > 0 {
		t.Errorf("nothing was changed, and %v ran", ran)
	}
	s.edit("small.yaml", "/opt/built", "/opt/builT")
	plan := s.ok("plan", "small.yaml").stdout
	contains(t, "the plan", plan, "with.run changed", "upstream two changed")
	ran := s.build("small.yaml", "--only", "files").ran()
	if diff := cmp.Diff([]string{"two", "seal", "disk", "files"}, ran); diff != "" {
		t.Errorf("what ran (-want +got):\n%s", diff)
	}
	// A comment, another order of keys and other quotes mean the same.
	s.edit("small.yaml", "uses: file\n    with: {to: /etc/motd, content: \"small\\n\"}",
		"with: # words\n      content: \"small\\n\"\n      to: '/etc/motd'\n    uses: file")
	if ran := s.build("small.yaml", "--only", "files").ran(); len(ran) > 0 {
		t.Errorf("the meaning was not changed, and %v ran", ran)
	}
}

// TestTwoBuildsAreEqual builds from nothing in another state folder, from the same lock,
// and as a user without any rights.
func TestTwoBuildsAreEqual(t *testing.T) {
	t.Parallel()
	first := newSite(t).build("small.yaml", "--locked").digest(t)
	s := emptySite(t)
	s.asUser()
	second := s.build("small.yaml", "--locked", "--only", "files")
	if got := second.digest(t); got != first {
		t.Errorf("two builds of one lock have the digests %s and %s", first, got)
	}
	if !slices.Contains(second.ran(), "base") {
		t.Error("the second build didn't make its own base; the test proves nothing")
	}
	s.noDebris("after the build")
}

// asUser makes the site that of a new user, who has a range of ids and nothing else.
func (s *site) asUser() {
	s.t.Helper()
	if os.Geteuid() != 0 {
		return // it is one already
	}
	name := fmt.Sprintf("gild-e2e-%d", os.Getpid())
	s.must("useradd", "--no-create-home", name)
	s.t.Cleanup(func() { s.must("userdel", name) })
	u, err := user.Lookup(name)
	if err != nil {
		s.t.Fatal(err)
	}
	uid, errUID := strconv.ParseUint(u.Uid, 10, 32)
	gid, errGID := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(errUID, errGID); err != nil {
		s.t.Fatal(err)
	}
	s.credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	s.program = filepath.Join(s.project, "gild")
	s.must("cp", gild, s.program)
	s.must("chown", "-R", name, filepath.Dir(s.project))
	s.env = []string{"HOME=" + s.project}
}

// TestDigestsAreThoseOfTheFiles reads every file that a build reports.
func TestDigestsAreThoseOfTheFiles(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.edit("small.yaml", "formats: [raw]", "formats: [raw, qcow2]")
	r := s.build("small.yaml")
	if len(r.Images[0].Files) != 2 {
		t.Fatalf("the image has the files %v", r.Images[0].Files)
	}
	for _, f := range r.Images[0].Files {
		if got := fileSHA256(t, f.Path); got != f.SHA256 {
			t.Errorf("%s has the digest %s, not %s", f.Path, got, f.SHA256)
		}
		region := filepath.Join(s.state, "regions", "east", filepath.Base(filepath.Dir(f.Path)), filepath.Base(f.Path))
		if got := fileSHA256(t, region); got != f.SHA256 {
			t.Errorf("the copy %s has the digest %s, not %s", region, got, f.SHA256)
		}
	}
}

func fileSHA256(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// TestRetention publishes the same disk three times under other tags, with keep: 1,
// then another disk, and looks at what stays.
func TestRetention(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, tag := range []string{"b", "c"} {
		s.ok("build", "small.yaml", "--param", "tag="+tag)
	}
	type image struct {
		Build int
		Files []struct{ Path string }
	}
	images := decode[[]image](t, s.ok("images", "--json").stdout)
	if len(images) != 1 || images[0].Build != 3 {
		t.Fatalf("with keep: 1 the catalog has %v", images)
	}
	for _, f := range images[0].Files {
		if _, err := os.Stat(f.Path); err != nil {
			t.Errorf("retiring an older build of the same disk removed what the newest has: %v", err)
		}
	}
	history := s.ok("channel", "history", "small", "stable").stdout
	if n := strings.Count(history, "img-"); n < 3 {
		t.Errorf("the channel's history names %d images:\n%s", n, history)
	}
}

// TestChildImage builds a folder of two pipelines, the second from the first one's image.
// What the child installs is decided by the lock of the first, not by the day.
func TestChildImage(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.write("a-child.yaml", `gild: 1
name: child
release: 0.1.0
base: {image: small@stable}
builders: {local: {disk: {size: 1GiB}, formats: [raw], firmware: [bios]}}
customize:
  - uses: shell
    with: {run: "test -f /opt/built && echo child > /opt/child"}
  - uses: packages
    with: {install: [hello]}
`)
	r := s.build(".")
	if diff := cmp.Diff([]string{"base", "shell", "packages", "seal", "disk", "files"}, r.ran()); diff != "" {
		t.Errorf("what ran (-want +got):\n%s", diff)
	}
	log := s.ok("logs", r.Run, "child/packages").stdout
	contains(t, "the log of the child's packages", log, "Setting up hello")
	if strings.Contains(log, "InRelease") {
		t.Errorf("the child asked the archive what it has today:\n%s", log)
	}
	if r.Images[0].Name != "small" || r.Images[1].Name != "child" {
		t.Errorf("the images came in the order %v", r.Images)
	}
	// Alone, it starts from the catalog.
	if ran := s.build("a-child.yaml").ran(); len(ran) > 0 {
		t.Errorf("from the catalog the same base gave other keys: %v ran", ran)
	}
}

// TestTwoProcessesShareTheWork starts two builds of the same at once.
func TestTwoProcessesShareTheWork(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.edit("small.yaml", "date -d", "sleep 2; date -d")
	reports := make([]report, 2)
	var wg sync.WaitGroup
	for i := range reports {
		wg.Add(1)
		go func() {
			defer wg.Done()
			out, err := s.command("build", "--json", "small.yaml", "--only", "files").Output()
			if err != nil {
				t.Errorf("build %d: %v", i, err)
				return
			}
			reports[i] = decode[report](t, string(out))
		}()
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	both := append(reports[0].ran(), reports[1].ran()...)
	slices.Sort(both)
	if diff := cmp.Diff([]string{"disk", "files", "seal", "two"}, both); diff != "" {
		t.Errorf("what the two did together (-want +got):\n%s", diff)
	}
	if a, b := reports[0].digest(t), reports[1].digest(t); a != b {
		t.Errorf("the two have the digests %s and %s", a, b)
	}
}

// TestSideBySide runs two independent steps, and two that change the same file.
func TestSideBySide(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	pipeline := `gild: 1
name: wide
release: 1.0.0
base: debian/12
builders: {local: {disk: {size: 1GiB}, formats: [raw], firmware: [bios]}}
customize:
  - {id: left, uses: shell, needs: [], with: {run: "echo left > /opt/left"}}
  - {id: right, uses: shell, needs: [], with: {run: "echo right > /opt/RIGHT"}}
  - id: join
    uses: shell
    needs: [left, right]
    with: {run: "cat /opt/left /opt/right"}
`
	s.write("wide.yaml", strings.Replace(pipeline, "RIGHT", "right", 1))
	s.ok("build", "wide.yaml", "--until", "join")
	s.write("wide.yaml", strings.Replace(pipeline, "RIGHT", "left", 1))
	out := s.gild("build", "wide.yaml", "--until", "join")
	if out.code != 1 {
		t.Errorf("two steps that wrote the same file ended with %d", out.code)
	}
	contains(t, "the failure", out.stderr, "/opt/left", "let one of them need the other")
}

// TestContinueOnError: what follows a failed step is built without it, and isn't taken
// for the real thing by a build in which the step succeeds.
func TestContinueOnError(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.write("maybe.yaml", `gild: 1
name: maybe
release: 1.0.0
base: debian/12
builders: {local: {disk: {size: 1GiB}, formats: [raw], firmware: [bios]}}
customize:
  - id: may-fail
    uses: shell
    continue-on-error: true
    retry: {attempts: 2, backoff: 1s}
    with: {network: true, run: "test -e /etc/allowed && touch /opt/worked"}
  - id: after
    uses: shell
    with: {run: "ls /opt"}
`)
	first := s.build("maybe.yaml")
	if diff := cmp.Diff([]string{"after", "seal", "disk", "files"}, first.ran()); diff != "" {
		t.Errorf("what ran without the step (-want +got):\n%s", diff)
	}
	again := s.build("maybe.yaml")
	if len(again.ran()) > 0 || again.digest(t) != first.digest(t) {
		t.Errorf("the same failure gave another image: %v ran", again.ran())
	}
	s.edit("maybe.yaml", "test -e /etc/allowed && ", "")
	fixed := s.build("maybe.yaml")
	if fixed.digest(t) == first.digest(t) {
		t.Error("the image with the step is the one without it")
	}
}

// TestSecretsStayInside looks for a secret in everything a build leaves.
func TestSecretsStayInside(t *testing.T) {
	t.Parallel()
	const canary = "c4n4ry-Zx81-9b/7+x"
	s := newSite(t)
	s.env = []string{"GILD_TEST_CANARY=" + canary}
	s.write("secret.yaml", `gild: 1
name: secret
release: 1.0.0
base: debian/12
secrets: {token: {env: GILD_TEST_CANARY}}
builders: {local: {disk: {size: 1GiB}, formats: [raw], firmware: [bios]}}
customize:
  - uses: shell
    env: {TOKEN: "${{ secrets.token }}"}
    with: {run: "echo the token is $TOKEN; printf %s \"$TOKEN\" | base64; printf %s \"$TOKEN\" | sha256sum > /opt/token.sha256"}
`)
	out := s.ok("build", "secret.yaml", "--events", "events.jsonl")
	if strings.Contains(out.stdout+out.stderr, canary) {
		t.Error("the secret was printed")
	}
	contains(t, "the log", out.stderr, "the token is ***")
	for _, form := range []string{canary, "YzRuNHJ5LVp4ODEtOWIvNyt4"} {
		// grep exits with 1 when it found nothing.
		found, err := s.grep(form)
		if err == nil {
			t.Errorf("%q was found in:\n%s", form, found)
		}
	}
	s.env = []string{"GILD_TEST_CANARY=another value"}
	if ran := s.build("secret.yaml", "--until", "shell").ran(); !slices.Contains(ran, "shell") {
		t.Error("another secret gave the same key")
	}
}
