package plugins_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/lock"
	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins"
)

// withMotd is a project with one plugin installed.
func withMotd(t *testing.T) *project {
	t.Helper()
	p := newProject(t)
	write(t, p.path("motd"), string(script(t, "acme/motd", "1.0.0")))
	p.install("motd")
	return p
}

func (p *project) locked(name string) lock.Plugin {
	p.Helper()
	l, err := plugins.Locked(p.lock(), name)
	if err != nil {
		p.Fatal(err)
	}
	return l
}

func TestNotInstalled(t *testing.T) {
	t.Parallel()
	p := withMotd(t)
	p.state = t.TempDir()
	p.open()
	motd := p.locked("acme/motd")
	_, err := p.Steps(t.Context(), "acme/motd", motd)
	var missing *plugins.NotInstalledError
	if !errors.As(err, &missing) || *missing != (plugins.NotInstalledError{Name: "acme/motd", Version: "1.0.0", Digest: motd.Platforms["any"].Digest}) {
		t.Errorf("steps: %v", err)
	}
	fails(t, err, `"gild plugin install"`)
	err = p.Manager.Cleanup(t.Context(), "acme/motd@"+motd.Platforms["any"].Digest, step.Resource{Kind: "upload", ID: "x"})
	if !errors.As(err, &missing) {
		t.Errorf("cleanup: %v", err)
	}
	fails(t, err, `remove upload "x"`, "acme/motd (sha256:", "install the version that has it")
	all, err := p.List(t.Context(), p.lock())
	if err != nil || len(all) != 1 || all[0].Installed || all[0].Problem != nil {
		t.Errorf("list: %+v, %v", all, err)
	}
	checks, err := p.Verify(t.Context(), p.lock())
	if err != nil || len(checks) != 1 || checks[0].Status != plugins.StatusMissing {
		t.Errorf("verify: %+v, %v", checks, err)
	}
}

func TestStepsChecksTheLock(t *testing.T) {
	t.Parallel()
	p := withMotd(t)
	motd := p.locked("acme/motd")
	_, err := p.Steps(t.Context(), "acme/other", motd)
	fails(t, err, "gild.lock names plugin acme/other 1.0.0, but", "says that it is acme/motd 1.0.0")
	motd.Version = "1.0.1"
	_, err = p.Steps(t.Context(), "acme/motd", motd)
	fails(t, err, "acme/motd 1.0.1, but")
	motd.Platforms = map[string]lock.Platform{"plan9/amd64": motd.Platforms["any"]}
	_, err = p.Steps(t.Context(), "acme/motd", motd)
	fails(t, err, "for plan9/amd64, and not for "+plugins.Here())
}

func TestCleanup(t *testing.T) {
	t.Parallel()
	p := withMotd(t)
	digest := p.locked("acme/motd").Platforms["any"].Digest
	if err := p.Remove(t.Context(), p.lock(), "acme/motd", false); err != nil {
		t.Fatal(err)
	}
	// A lock that doesn't name the plugin any more doesn't keep it from cleaning up.
	fails(t, p.Manager.Cleanup(t.Context(), "acme/motd@"+digest, step.Resource{Kind: "upload", ID: "x"}), "cleaned up")
	fails(t, p.Manager.Cleanup(t.Context(), "acme/motd", step.Resource{}), "names no plugin with its digest")
}

// What a killed installation left is found by a sweep, and not what one that goes on has.
func TestSweepInstallations(t *testing.T) {
	t.Parallel()
	p := withMotd(t)
	left := filepath.Join(p.state, "plugins", "incoming", "1")
	write(t, filepath.Join(left, "download"), "half a plugin")
	want := []step.Resource{{Kind: "plugin files", ID: left, Note: "of an installation that was killed"}}
	for _, dry := range []bool{true, false} {
		got, err := p.Sweep(t.Context(), dry)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("dry %v: %v (-want +got):\n%s", dry, err, diff)
		}
	}
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestInstallLocked(t *testing.T) {
	t.Parallel()
	p := withMotd(t)
	write(t, p.path("agent"), string(script(t, "acme/agent", "2.0.0")))
	p.install("agent")
	motd, agent := p.locked("acme/motd").Platforms["any"].Digest, p.locked("acme/agent").Platforms["any"].Digest
	install := func(want ...plugins.Installed) {
		t.Helper()
		got, err := p.InstallLocked(t.Context(), p.lock(), plugins.LockedRequest{})
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	install(plugins.Installed{Name: "acme/agent", Version: "2.0.0", Digest: agent, Already: true},
		plugins.Installed{Name: "acme/motd", Version: "1.0.0", Digest: motd, Already: true})
	p.state = t.TempDir()
	p.open()
	install(plugins.Installed{Name: "acme/agent", Version: "2.0.0", Digest: agent}, plugins.Installed{Name: "acme/motd", Version: "1.0.0", Digest: motd})

	// A changed program is refused; the other one is installed all the same.
	before := p.lock().Text()
	write(t, p.path("agent"), string(script(t, "acme/agent", "2.0.0"))+"# evil\n")
	p.state = t.TempDir()
	p.open()
	got, err := p.InstallLocked(t.Context(), p.lock(), plugins.LockedRequest{})
	var changed *plugins.ChangedError
	if !errors.As(err, &changed) || *changed != (plugins.ChangedError{
		Name: "acme/agent", Platform: "any", Source: "./agent", Want: agent, Got: digest(t, p.path("agent")),
	}) {
		t.Errorf("changed: %v", err)
	}
	fails(t, err, changed.Want, changed.Got, `"gild plugin update acme/agent"`)
	if _, err := os.Stat(filepath.Join(p.state, "plugins", "content", strings.TrimPrefix(changed.Got, "sha256:"))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the changed plugin is in the state folder: %v", err)
	}
	if diff := cmp.Diff([]plugins.Installed{{Name: "acme/motd", Version: "1.0.0", Digest: motd}}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := p.Steps(t.Context(), "acme/agent", p.locked("acme/agent")); err == nil {
		t.Error("the changed plugin has steps")
	}
	if string(before) != string(p.lock().Text()) {
		t.Error("the lock file changed")
	}
}

// content is the path of a plugin's program in the store.
func (p *project) content(name string) string {
	p.Helper()
	digits := strings.TrimPrefix(p.locked(name).Platforms["any"].Digest, "sha256:")
	return filepath.Join(p.state, "plugins", "content", digits, "program", "plugin")
}

func TestChangedInStore(t *testing.T) {
	t.Parallel()
	p := withMotd(t)
	path := p.content("acme/motd")
	text := string(script(t, "acme/motd", "1.0.0")) + "# evil\n"
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write(t, path, text)
	checks, err := p.Verify(t.Context(), p.lock())
	want := []plugins.Check{{
		Name: "acme/motd", Version: "1.0.0", Platform: "any", Digest: p.locked("acme/motd").Platforms["any"].Digest,
		Got: digest(t, path), Status: plugins.StatusChanged,
	}}
	if diff := cmp.Diff(want, checks); diff != "" || err != nil {
		t.Errorf("verify: %v (-want +got):\n%s", err, diff)
	}
	if _, err := p.InstallLocked(t.Context(), p.lock(), plugins.LockedRequest{}); err != nil {
		t.Errorf("install mends it: %v", err)
	}
	if checks, err := p.Verify(t.Context(), p.lock()); err != nil || checks[0].Status != plugins.StatusOK {
		t.Errorf("verify: %+v, %v", checks, err)
	}
}

func TestUpdate(t *testing.T) {
	t.Parallel()
	p := withMotd(t)
	old := p.locked("acme/motd")
	if c, err := p.Update(t.Context(), p.lock(), "acme/motd", nil, false); err != nil || !c.Same() {
		t.Errorf("nothing new: %+v, %v", c, err)
	}
	write(t, p.path("motd"), string(script(t, "acme/motd", "1.1.0")))
	c, err := p.Update(t.Context(), p.lock(), "acme/motd", nil, false)
	if err != nil {
		t.Fatal(err)
	}
	want := plugins.Change{Name: "acme/motd", Old: old, Steps: []string{"acme/motd"}, New: lock.Plugin{
		Source: "./motd", Version: "1.1.0", Platforms: map[string]lock.Platform{"any": {Digest: digest(t, p.path("motd"))}},
	}}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	write(t, p.path("motd"), string(script(t, "acme/agent", "1.1.0")))
	_, err = p.Update(t.Context(), p.lock(), "acme/motd", nil, false)
	fails(t, err, "its name is acme/agent, and not acme/motd")
	_, err = p.Update(t.Context(), p.lock(), "acme/agent", nil, false)
	fails(t, err, `names no plugin "acme/agent"; it names acme/motd`)
}

func TestRemove(t *testing.T) {
	t.Parallel()
	p := withMotd(t)
	motd := p.locked("acme/motd")
	if err := p.Remove(t.Context(), p.lock(), "acme/motd", false); err != nil {
		t.Fatal(err)
	}
	if len(p.lock().Plugins) != 0 {
		t.Errorf("the lock has %v", p.lock().Plugins)
	}
	if _, err := p.Steps(t.Context(), "acme/motd", motd); err != nil {
		t.Errorf("the content is gone too: %v", err)
	}
	err := p.Remove(t.Context(), p.lock(), "acme/motd", false)
	fails(t, err, "and no other", "gild plugin install SOURCE")
	p.install("motd")
	stored, err := p.Stored()
	want := []plugins.Stored{{Name: "acme/motd", Version: "1.0.0", Digest: motd.Platforms["any"].Digest, Bytes: int64(len(script(t, "acme/motd", "1.0.0")))}}
	if d := cmp.Diff(want, stored); d != "" || err != nil {
		t.Errorf("stored: %v (-want +got)\n%s", err, d)
	}
	if err := p.Remove(t.Context(), p.lock(), "acme/motd", true); err != nil {
		t.Fatal(err)
	}
	if stored, err := p.Stored(); err != nil || len(stored) > 0 {
		t.Errorf("stored after a purge: %v, %v", stored, err)
	}
	if left, err := os.ReadDir(filepath.Join(p.state, "plugins", "described")); err != nil || len(left) > 0 {
		t.Errorf("left of what it said of itself: %v, %v", left, err)
	}
	p.open()
	var missing *plugins.NotInstalledError
	if _, err := p.Steps(t.Context(), "acme/motd", motd); !errors.As(err, &missing) {
		t.Errorf("after a purge: %v", err)
	}
}

func TestVendor(t *testing.T) {
	t.Parallel()
	p := withMotd(t)
	own, _, _ := machines(t)
	compiled(t, p.path("agent"), "acme/agent", "2.0.0", own)
	p.install("agent")
	vendor := p.path("vendor")
	paths, err := p.Vendor(t.Context(), p.lock(), vendor, false)
	if err != nil || len(paths) != 2 {
		t.Fatalf("%v, %v", paths, err)
	}
	for _, path := range paths {
		if got := strings.Replace(filepath.Base(path), "-", ":", 1); got != digest(t, path) {
			t.Errorf("%s has the digest %s", path, digest(t, path))
		}
	}
	if again, err := p.Vendor(t.Context(), p.lock(), vendor, false); err != nil || !cmp.Equal(paths, again) {
		t.Errorf("again: %v, %v", again, err)
	}
	if left, err := os.ReadDir(vendor); err != nil || len(left) != 2 {
		t.Errorf("the folder has %v, %v", left, err)
	}
	// Nothing but the folder is needed to install.
	if err := errors.Join(os.Remove(p.path("motd")), os.RemoveAll(p.path("agent"))); err != nil {
		t.Fatal(err)
	}
	p.state = t.TempDir()
	p.open()
	if got, err := p.InstallLocked(t.Context(), p.lock(), plugins.LockedRequest{Vendor: vendor}); err != nil || len(got) != 2 {
		t.Errorf("offline: %+v, %v", got, err)
	}
	// What the folder has is checked like anything else.
	motd := filepath.Join(vendor, strings.Replace(p.locked("acme/motd").Platforms["any"].Digest, ":", "-", 1))
	write(t, motd, "#!/bin/sh\n")
	p.state = t.TempDir()
	p.open()
	_, err = p.InstallLocked(t.Context(), p.lock(), plugins.LockedRequest{Vendor: vendor})
	var changed *plugins.ChangedError
	if !errors.As(err, &changed) || changed.Source != motd {
		t.Errorf("changed: %v", err)
	}
	if err := os.Remove(motd); err != nil {
		t.Fatal(err)
	}
	_, err = p.InstallLocked(t.Context(), p.lock(), plugins.LockedRequest{Vendor: vendor})
	fails(t, err, "has no sha256-", "gild plugin vendor")
}
