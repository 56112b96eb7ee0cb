package lock_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/lock"
)

func TestFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f, err := lock.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	f.Bases["debian/bookworm/amd64"] = map[string]string{"index": "sha256:00", "clock": "2026-11-21T02:10:00Z"}
	f.Plugins["acme/agent"] = lock.Plugin{
		Source: "https://plugins.example/agent", Version: "1.2.0",
		Platforms: map[string]lock.Platform{"linux/amd64": {Digest: "sha256:" + strings.Repeat("ab", 32)}},
	}
	for _, want := range []bool{true, false} {
		if changed, err := f.Save(); err != nil || changed != want {
			t.Errorf("save: changed is %v, %v; want %v", changed, err, want)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, lock.Name))
	if err != nil {
		t.Fatal(err)
	}
	back, err := lock.Parse(f.Path(), text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(f.Bases, back.Bases); diff != "" {
		t.Errorf("bases read back (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(f.Plugins, back.Plugins); diff != "" {
		t.Errorf("plugins read back (-want +got):\n%s", diff)
	}
}

// TestSaveMerges: two processes that read the same file, and each change something.
func TestSaveMerges(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := func() *lock.File {
		f, err := lock.Read(dir)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	save := func(f *lock.File) {
		if _, err := f.Save(); err != nil {
			t.Fatal(err)
		}
	}
	first := open()
	first.Bases["kept"] = map[string]string{"index": "1"}
	first.Bases["removed"] = map[string]string{"index": "1"}
	save(first)
	one, other := open(), open()
	one.Bases["one"] = map[string]string{"index": "1"}
	delete(one.Bases, "removed")
	other.Plugins["acme/agent"] = lock.Plugin{Source: "./agent", Version: "1.0.0"}
	other.Bases["kept"] = map[string]string{"index": "2"}
	save(one)
	save(other)
	want := map[string]map[string]string{"kept": {"index": "2"}, "one": {"index": "1"}}
	if diff := cmp.Diff(want, open().Bases); diff != "" {
		t.Errorf("bases after both (-want +got):\n%s", diff)
	}
	if n := len(open().Plugins); n != 1 {
		t.Errorf("%d plugins after both, want 1", n)
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]string{
		"unknown key": "gild: 1\nbasis: {}\n",
		"version":     "gild: 2\n",
		"syntax":      "gild: [\n",
		"plugin name": "gild: 1\nplugins: {../x: {}}\n",
		"digest":      "gild: 1\nplugins: {a/b: {platforms: {any: {digest: abc}}}}\n",
	} {
		if _, err := lock.Parse("here/gild.lock", []byte(bad)); err == nil || !strings.Contains(err.Error(), "here/gild.lock") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOn(t *testing.T) {
	t.Parallel()
	script := lock.Plugin{Platforms: map[string]lock.Platform{lock.AnyPlatform: {Digest: "x"}}}
	binary := lock.Plugin{Platforms: map[string]lock.Platform{"linux/arm64": {Digest: "y"}}}
	if p, ok := script.On("linux", "amd64"); !ok || p.Digest != "x" {
		t.Errorf("a plugin for any platform: %v, %v", p, ok)
	}
	if _, ok := binary.On("linux", "amd64"); ok {
		t.Error("a plugin for arm64 was found on amd64")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("gild: 1\nbases: {a: {index: x}}\n")
	f.Add("gild: 1\nplugins: {a/b: {source: ./x, version: 1.0.0, platforms: {any: {digest: x}}}}\n")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := lock.Parse("gild.lock", []byte(text))
		if err == nil && (l.Bases == nil || l.Plugins == nil) {
			t.Error("a file without its maps")
		}
	})
}
