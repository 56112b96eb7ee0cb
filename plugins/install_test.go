package plugins_test

import (
	"debug/elf"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/lock"
	"github.com/gildhq/gild/plugins"
	"github.com/gildhq/gild/plugins/store"
)

// machines are the platform of the tests and another one.
func machines(t *testing.T) (own, other elf.Machine, otherName string) {
	t.Helper()
	switch runtime.GOARCH {
	case "amd64":
		return elf.EM_X86_64, elf.EM_AARCH64, "linux/arm64"
	case "arm64":
		return elf.EM_AARCH64, elf.EM_X86_64, "linux/amd64"
	}
	t.Fatalf("the tests don't know the ELF machine of %s", runtime.GOARCH)
	return
}

func digest(t *testing.T, path string) string {
	t.Helper()
	d, err := store.Digest(path)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestInstall(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	write(t, p.path("plugins/motd"), string(script(t, "acme/motd", "1.0.0")))
	got := p.install("plugins/motd")
	want := lock.Plugin{Source: "./plugins/motd", Version: "1.0.0", Platforms: map[string]lock.Platform{"any": {Digest: digest(t, p.path("plugins/motd"))}}}
	if diff := cmp.Diff(plugins.Change{Name: "acme/motd", New: want, Steps: []string{"acme/motd"}}, got); diff != "" {
		t.Errorf("change (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]lock.Plugin{"acme/motd": want}, p.lock().Plugins); diff != "" {
		t.Errorf("lock (-want +got):\n%s", diff)
	}
	steps, err := p.Steps(t.Context(), "acme/motd", want)
	if err != nil || len(steps) != 1 || steps[0].Plugin != "acme/motd@"+want.Platforms["any"].Digest || steps[0].Version != want.Platforms["any"].Digest {
		t.Errorf("steps: %+v, %v", steps, err)
	}
	if again := p.install("./plugins/motd"); !again.Same() {
		t.Errorf("installed again: %+v", again)
	}
}

// A lock is of use on every platform only if it has the digests of all of them.
func TestInstallRecordsEveryPlatform(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	own, other, otherName := machines(t)
	compiled(t, p.path("dist/"+strings.Replace(plugins.Here(), "/", "_", 1)), "acme/motd", "1.0.0", own)
	compiled(t, p.path("dist/"+strings.Replace(otherName, "/", "_", 1)), "acme/motd", "1.0.0", other)
	c := p.install("dist/{os_arch}")
	want := map[string]lock.Platform{
		plugins.Here(): {Digest: digest(t, p.path("dist/"+strings.Replace(plugins.Here(), "/", "_", 1)))},
		otherName:      {Digest: digest(t, p.path("dist/"+strings.Replace(otherName, "/", "_", 1)))},
	}
	if diff := cmp.Diff(want, c.New.Platforms); diff != "" || c.New.Source != "./dist/{os_arch}" {
		t.Errorf("%s (-want +got):\n%s", c.New.Source, diff)
	}
	p.open()
	if err := os.RemoveAll(p.path("dist/" + strings.Replace(otherName, "/", "_", 1))); err != nil {
		t.Fatal(err)
	}
	// Only this machine's is needed to install what the lock names.
	p.state = t.TempDir()
	p.open()
	if got, err := p.InstallLocked(t.Context(), p.lock(), plugins.LockedRequest{}); err != nil || len(got) != 1 {
		t.Errorf("install what the lock names: %+v, %v", got, err)
	}
}

func TestInstallForAnotherPlatform(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	own, other, otherName := machines(t)
	compiled(t, p.path("own"), "acme/motd", "1.0.0", own)
	compiled(t, p.path("other"), "acme/motd", "1.0.0", other)
	named := func(r *plugins.InstallRequest) { r.Name = "acme/motd" }
	_, err := p.tryInstall("other")
	fails(t, err, "it is for ["+otherName+"]", "--name")
	_, err = p.tryInstall("other", named)
	fails(t, err, "install it for "+plugins.Here()+" first")
	p.install("own")
	c := p.install("other", named)
	want := map[string]lock.Platform{
		plugins.Here(): {Digest: digest(t, p.path("own"))},
		otherName:      {Digest: digest(t, p.path("other")), Source: "./other"},
	}
	if diff := cmp.Diff(want, c.New.Platforms); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if again := p.install("own"); !again.Same() {
		t.Errorf("the same again drops the other platform: %+v", again)
	}
	compiled(t, p.path("own"), "acme/motd", "2.0.0", own)
	c = p.install("own")
	delete(want, otherName)
	want[plugins.Here()] = lock.Platform{Digest: digest(t, p.path("own"))}
	if diff := cmp.Diff(want, c.New.Platforms); diff != "" || !cmp.Equal(c.Dropped, []string{otherName}) {
		t.Errorf("a new version, dropped %v (-want +got):\n%s", c.Dropped, diff)
	}
}

func TestInstallRefuses(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	own, other, otherName := machines(t)
	write(t, p.path("motd"), string(script(t, "acme/motd", "1.0.0")))
	write(t, p.path("broken"), "#!/bin/sh\necho oops >&2\nexit 3\n")
	compiled(t, p.path("wrong_"+strings.Replace(plugins.Here(), "/", "_", 1)), "acme/motd", "1.0.0", other)
	compiled(t, p.path("manifest"), "acme/motd", "1.0.0", own)
	write(t, p.path("manifest/plugin.yaml"), "gild-plugin: 1\nname: acme/other\ncommand: [./run]\n")
	for source, test := range map[string]struct {
		req  func(*plugins.InstallRequest)
		want []string
	}{
		"none":              {nil, []string{"none", "no such file"}},
		"motd":              {func(r *plugins.InstallRequest) { r.Name = "acme/other" }, []string{"its name is acme/motd, and not acme/other"}},
		"./motd":            {func(r *plugins.InstallRequest) { r.SHA256 = map[string]string{"": digest(t, p.path("broken"))} }, []string{digest(t, p.path("motd")), digest(t, p.path("broken"))}},
		"broken":            {nil, []string{"install plugin from ./broken: ", "oops"}},
		"wrong_{os_arch}":   {func(r *plugins.InstallRequest) { r.Platforms = []string{plugins.Here()} }, []string{"it should be for " + plugins.Here() + ", but holds programs for " + otherName}},
		"manifest":          {nil, []string{"acme/other"}},
		"git://example/x":   {nil, []string{"begins with git://"}},
		"https://example/x": {nil, []string{"--sha256"}},
	} {
		if test.req == nil {
			test.req = func(*plugins.InstallRequest) {}
		}
		_, err := p.tryInstall(source, test.req)
		fails(t, err, test.want...)
	}
	if _, err := os.Stat(p.path(lock.Name)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a lock file was written: %v", err)
	}
}

// The folder of a plugin's sources means the program that was built in it.
func TestInstallFolderOfSources(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	write(t, p.path("gild-plugin-motd/gild-plugin-motd"), string(script(t, "acme/motd", "1.0.0")))
	write(t, p.path("gild-plugin-motd/main.go"), "package main\n")
	c := p.install("gild-plugin-motd")
	if c.New.Source != "./gild-plugin-motd/gild-plugin-motd" || c.New.Platforms["any"].Digest != digest(t, p.path("gild-plugin-motd/gild-plugin-motd")) {
		t.Errorf("%+v", c.New)
	}
}

func TestInstallFromWeb(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	site := t.TempDir()
	write(t, filepath.Join(site, "motd"), string(script(t, "acme/motd", "1.0.0")))
	server := httptest.NewServer(http.FileServer(http.Dir(site)))
	t.Cleanup(server.Close)
	sum := digest(t, filepath.Join(site, "motd"))
	c := p.install(server.URL+"/motd", func(r *plugins.InstallRequest) { r.SHA256 = map[string]string{"": sum} })
	want := lock.Plugin{Source: server.URL + "/motd", Version: "1.0.0", Platforms: map[string]lock.Platform{"any": {Digest: sum}}}
	if diff := cmp.Diff(want, c.New); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	p.state = t.TempDir()
	p.open()
	if _, err := p.InstallLocked(t.Context(), p.lock(), plugins.LockedRequest{}); err != nil {
		t.Error(err)
	}
	if c, err := p.Update(t.Context(), p.lock(), "acme/motd", nil, false); err != nil || !c.Same() {
		t.Errorf("update to the same: %+v, %v", c, err)
	}
	write(t, filepath.Join(site, "motd"), string(script(t, "acme/motd", "1.1.0")))
	next := digest(t, filepath.Join(site, "motd"))
	_, err := p.Update(t.Context(), p.lock(), "acme/motd", nil, false)
	fails(t, err, sum, next, "--sha256")
	if c, err := p.Update(t.Context(), p.lock(), "acme/motd", map[string]string{"": next}, false); err != nil || c.Old.Version != "1.0.0" || c.New.Version != "1.1.0" {
		t.Errorf("update: %+v, %v", c, err)
	}
}
