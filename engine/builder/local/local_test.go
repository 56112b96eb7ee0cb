package local

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/builder/local/sandbox"
	"github.com/gildhq/gild/engine/spec"
	"github.com/gildhq/gild/engine/step"
	"github.com/google/go-cmp/cmp"
)

func TestMain(m *testing.M) {
	sandbox.Init()
	os.Exit(m.Run())
}

func TestHostSources(t *testing.T) {
	t.Parallel()
	const targets = `http://mirror.example/debian/|bookworm|main|Debian|yes
http://mirror.example/debian/|bookworm|contrib|Debian|yes
http://mirror.example/debian/|bookworm-updates|main|Debian|yes
http://mirror.example/debian-security/|bookworm-security|main|Debian|yes
http://other.example/apt/|bookworm|main|Somebody|yes
http://odd.example/debian/|bookworm|main|Debian|no
`
	cases := []struct {
		name string
		base spec.DistroBase
		want []string
	}{
		{"the host's own suite", spec.DistroBase{Distro: "debian", Suite: "bookworm"}, []string{
			"deb http://mirror.example/debian/ bookworm main",
			"deb http://mirror.example/debian/ bookworm-updates main",
			"deb http://mirror.example/debian-security/ bookworm-security main",
		}},
		{"another suite", spec.DistroBase{Distro: "debian", Suite: "trixie"}, nil},
		{"another distribution", spec.DistroBase{Distro: "ubuntu", Suite: "noble"}, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(c.want, hostSources([]byte(targets), c.base)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestMirrorSources(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name string
		base spec.DistroBase
		want []string
	}{
		{"debian", spec.DistroBase{Distro: "debian", Suite: "bookworm", Mirror: "http://m.example/debian/"}, []string{
			"deb http://m.example/debian bookworm main",
			"deb http://m.example/debian bookworm-updates main",
			"deb http://m.example/debian-security bookworm-security main",
		}},
		{"snapshot", spec.DistroBase{Distro: "debian", Suite: "bookworm", Mirror: "http://s.example/{snapshot}", Snapshot: "20261101T000000Z"}, []string{
			"deb http://s.example/20261101T000000Z bookworm main",
			"deb http://s.example/20261101T000000Z bookworm-updates main",
		}},
		{"ubuntu", spec.DistroBase{Distro: "ubuntu", Suite: "noble", Mirror: "http://u.example/ubuntu"}, []string{
			"deb http://u.example/ubuntu noble main universe",
			"deb http://u.example/ubuntu noble-updates main universe",
			"deb http://u.example/ubuntu noble-security main universe",
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(c.want, mirrorSources(c.base)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestReadIndex: the address of the mirror isn't part of what an index is.
func TestReadIndex(t *testing.T) {
	t.Parallel()
	read := func(mirror, packages string) map[string]string {
		dir := t.TempDir()
		for name, text := range map[string]string{
			mirror + "_dists_bookworm_InRelease":                          "Date: Sat, 21 Nov 2026 02:10:00 UTC\n",
			mirror + "_dists_bookworm-updates_InRelease":                  "Date: Fri, 20 Nov 2026 02:10:00 UTC\n",
			mirror + "_dists_bookworm_main_binary-amd64_Packages":         packages,
			mirror + "_dists_bookworm-updates_main_binary-amd64_Packages": "",
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		lock, err := readIndex(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		return lock
	}
	one := read("a.example_debian", "Package: x\n")
	if one["clock"] != "2026-11-21T02:10:00Z" {
		t.Errorf("clock is %s, not the newest date", one["clock"])
	}
	if diff := cmp.Diff(one, read("b.example_mirror_debian", "Package: x\n")); diff != "" {
		t.Errorf("another mirror of the same state (-want +got):\n%s", diff)
	}
	if one["index"] == read("a.example_debian", "Package: y\n")["index"] {
		t.Error("other packages gave the same index")
	}
	if _, err := readIndex(t.Context(), t.TempDir()); err == nil {
		t.Error("an empty folder was taken for an index")
	}
}

func TestOverlap(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name       string
		a, b, want []string
	}{
		{"apart", []string{"/a", "/b/c"}, []string{"/b/d", "/e"}, nil},
		{"same file", []string{"/a", "/b"}, []string{"/b", "/c"}, []string{"/b"}},
		{"one removed the other's folder", []string{"/etc/x"}, []string{"/etc/x/y"}, []string{"/etc/x"}},
		{"a name that sorts between", []string{"/etc/foo"}, []string{"/etc/foo-x", "/etc/foo/bar"}, []string{"/etc/foo"}},
		{"same beginning of a name", []string{"/etc/x"}, []string{"/etc/xy"}, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(c.want, overlap(c.a, c.b)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// book is a ledger that remembers what is open.
type book struct{ open map[string]bool }

func (b *book) Intent(_ context.Context, r builder.Resource) (builder.Claim, error) {
	b.open[r.ID] = true
	return claim{b, r.ID}, nil
}

func (b *book) Work() builder.Work { return builder.Work{} }

type claim struct {
	book *book
	id   string
}

func (c claim) Settle(context.Context) error {
	delete(c.book.open, c.id)
	return nil
}

// TestMachineIsCommittedOrGone: a machine leaves a layer under its key, or nothing.
func TestMachineIsCommittedOrGone(t *testing.T) {
	t.Parallel()
	b, err := New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ledger := &book{open: map[string]bool{}}
	open := func(key string, layers ...string) builder.Machine {
		m, err := b.Open(t.Context(), ledger, builder.OpenRequest{Key: key, Layers: layers})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Put(t.Context(), step.PutFile{Path: "/etc/" + key, Parents: true}, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
		return m
	}
	dropped := open("dropped")
	if len(ledger.open) != 1 {
		t.Errorf("an open machine has the claims %v", ledger.open)
	}
	if err := dropped.Close(); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"kept", "kept"} { // the second replaces the first
		m := open(key)
		if err := m.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for key, want := range map[string]bool{"dropped": false, "kept": true} {
		if got, err := b.HasState(t.Context(), nil, key); err != nil || got != want {
			t.Errorf("state %s is stored: %v, %v", key, got, err)
		}
	}
	if len(ledger.open) > 0 {
		t.Errorf("claims are open: %v", ledger.open)
	}
	above := open("above", "kept")
	var content strings.Builder
	if err := above.Get(t.Context(), "/etc/kept", &content); err != nil || content.String() != "x" {
		t.Errorf("the layer below isn't seen: %q, %v", content.String(), err)
	}
	if found, err := b.Sweep(t.Context(), builder.SweepRequest{}); err != nil || len(found.Removed) > 0 {
		t.Errorf("a sweep took what is in use: %v, %v", found, err)
	}
	if err := above.Close(); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(b.store.temps(), "layer-left")
	if err := os.Mkdir(left, 0o711); err != nil {
		t.Fatal(err)
	}
	if found, err := b.Sweep(t.Context(), builder.SweepRequest{}); err != nil || len(found.Removed) != 1 {
		t.Errorf("a sweep found %v, %v", found, err)
	}
	if _, err := os.Stat(left); err == nil {
		t.Error("a sweep left what it found")
	}
}
