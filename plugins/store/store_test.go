package store_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/plugins/store"
)

const (
	script     = "#!/bin/sh\nexit 0\n"
	pluginYAML = "gild-plugin: 1\nname: acme/motd\nversion: 1.0.0\ncommand: [./bin/motd]\n"
)

// files writes a folder. A name that ends with "*" is executable, a content that begins
// with "-> " is a link.
func files(t *testing.T, content map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range content {
		mode := fs.FileMode(0o644)
		if rest, ok := strings.CutSuffix(name, "*"); ok {
			name, mode = rest, 0o755
		}
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			err = errors.Join(err, os.Symlink(target, path))
		} else {
			err = errors.Join(err, os.WriteFile(path, []byte(text), mode))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func sample(t *testing.T) string {
	t.Helper()
	return files(t, map[string]string{
		"plugin.yaml": pluginYAML, "bin/motd*": script, "data/text": "hello\n", "bin/data": "-> ../data",
		".git/index": "changes", "data/__pycache__/x.pyc": "changes",
	})
}

func open(t *testing.T) (*store.Store, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "plugins")
	s, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s, dir
}

func hexSum(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func TestDigest(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "gild-plugin-motd")
	if err := os.WriteFile(program, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("sha256sum", program).Output()
	if err != nil {
		t.Fatalf("sha256sum of package coreutils: %v", err)
	}
	folder := "gild plugin folder 1\n" +
		"d - bin\n" +
		"l " + hexSum("../data") + " bin/data\n" +
		"x " + hexSum(script) + " bin/motd\n" +
		"d - data\n" +
		"f " + hexSum("hello\n") + " data/text\n" +
		"f " + hexSum(pluginYAML) + " plugin.yaml\n"
	dir := sample(t)
	for _, test := range []struct{ path, want string }{
		{program, "sha256:" + strings.Fields(string(out))[0]},
		{dir, "sha256:" + hexSum(folder)},
		{tarball(t, "-C", dir, "."), "sha256:" + hexSum(folder)},
		{tarball(t, "-C", filepath.Dir(dir), filepath.Base(dir)), "sha256:" + hexSum(folder)},
	} {
		got, err := store.Digest(test.path)
		if err != nil || got != test.want {
			t.Errorf("digest of %s: got %s, %v; want %s", test.path, got, err, test.want)
		}
	}
}

// tarball makes a .tar.gz with tar.
func tarball(t *testing.T, args ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "plugin.tar.gz")
	if out, err := exec.Command("tar", append([]string{"-czf", path}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("tar of package tar: %v: %s", err, out)
	}
	return path
}

func TestAddFindCopy(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "gild-plugin-motd")
	if err := os.WriteFile(program, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := sample(t)
	folder := map[string]string{
		"bin": "drwx------", "bin/data": "Lrwxrwxrwx ../data", "bin/motd": "-r-x------ " + script,
		"data": "drwx------", "data/text": "-r-------- hello\n", "plugin.yaml": "-r-------- " + pluginYAML,
	}
	for name, test := range map[string]struct {
		path    string
		single  bool
		command string
		want    map[string]string
	}{
		"program":          {program, true, store.Program, map[string]string{store.Program: "-r-x------ " + script}},
		"folder":           {dir, false, "./bin/motd", folder},
		"archive":          {tarball(t, "-C", dir, "."), false, "./bin/motd", folder},
		"archive of a dir": {tarball(t, "-C", filepath.Dir(dir), filepath.Base(dir)), false, "./bin/motd", folder},
		"folder without manifest": {
			files(t, map[string]string{"gild-plugin-motd*": script, "README": "r"}), false, "gild-plugin-motd",
			map[string]string{"gild-plugin-motd": "-r-x------ " + script, "README": "-r-------- r"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, storeDir := open(t)
			c, err := s.Add(t.Context(), test.path)
			if err != nil {
				t.Fatal(err)
			}
			if want, err := store.Digest(test.path); err != nil || c.Digest != want {
				t.Errorf("digest: got %s; want %s, %v", c.Digest, want, err)
			}
			if c.Single != test.single || filepath.Clean(c.Manifest.Command[0]) != filepath.Clean(test.command) {
				t.Errorf("got single %v, command %q; want %v, %q", c.Single, c.Manifest.Command, test.single, test.command)
			}
			if diff := cmp.Diff(test.want, listing(t, c.Dir)); diff != "" {
				t.Errorf("content (-want +got):\n%s", diff)
			}
			found, ok, err := s.Find(c.Digest)
			if err != nil || !ok {
				t.Fatalf("find: %v, %v", ok, err)
			}
			if diff := cmp.Diff(c, found); diff != "" {
				t.Errorf("found (-added +found):\n%s", diff)
			}
			out := t.TempDir()
			if err := s.CopyTo(t.Context(), found, out); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, listing(t, out)); diff != "" {
				t.Errorf("copy (-want +got):\n%s", diff)
			}
			if err := s.Verify(t.Context(), c.Digest); err != nil {
				t.Errorf("verify: %v", err)
			}
			left, err := os.ReadDir(filepath.Join(storeDir, "incoming"))
			if err != nil || len(left) != 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// listing tells mode and content of all that is in a folder.
func listing(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		info, err := d.Info()
		if err != nil {
			return err
		}
		all[rel] = info.Mode().String()
		if d.Type() == fs.ModeSymlink {
			target, err := os.Readlink(path)
			all[rel] += " " + target
			return err
		}
		if d.IsDir() {
			return nil
		}
		text, err := os.ReadFile(path)
		all[rel] += " " + string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestAddRefuses(t *testing.T) {
	t.Parallel()
	pipe := files(t, map[string]string{"a*": script})
	if err := syscall.Mkfifo(filepath.Join(pipe, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	with := func(name, text string) string { return files(t, map[string]string{"motd*": script, name: text}) }
	bad := files(t, map[string]string{"plugin.yaml": "nonsense: 1\n"})
	packed := filepath.Join(t.TempDir(), "bad.tar.gz")
	if out, err := exec.Command("tar", "-czf", packed, "-C", bad, ".").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	for name, test := range map[string]struct{ path, want string }{
		"missing":           {filepath.Join(t.TempDir(), "none"), "no such file"},
		"page of a website": {filepath.Join(files(t, map[string]string{"x": "<html>"}), "x"), "neither a program"},
		"empty file":        {filepath.Join(files(t, map[string]string{"x": ""}), "x"), "neither a program"},
		"empty folder":      {t.TempDir(), "it is empty"},
		"absolute link":     {with("l", "-> /etc/passwd"), `the link "l" leads to "/etc/passwd"`},
		"link out":          {with("d/l", "-> ../../x"), `the link "d/l" leads to "../../x"`},
		"link to above":     {with("l", "-> .."), `the link "l" leads to ".."`},
		"link by a link":    {with("l", "-> d/up/.."), `the link "l"`},
		"pipe":              {pipe, `"pipe" is a device, pipe or socket`},
		"pipe itself":       {filepath.Join(pipe, "pipe"), "neither a file nor a folder"},
		"control character": {with("a\nb", ""), `"a\nb" is no name`},
		"no program":        {files(t, map[string]string{"README": "x"}), "0 executable files"},
		"two programs":      {files(t, map[string]string{"a*": script, "b*": script}), "2 executable files"},
		"bad manifest":      {bad, filepath.Join(bad, "plugin.yaml") + ":1:1: "},
		"packed manifest":   {packed, "\x00plugin.yaml:1:1: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, dir := open(t)
			_, err := s.Add(t.Context(), test.path)
			if err == nil || !strings.Contains("\x00"+err.Error(), test.want) || strings.Contains(err.Error(), dir) {
				t.Errorf("got %v; want %q and no path of the store", err, test.want)
			}
			if got := listing(t, filepath.Join(dir, "content")); len(got) != 0 {
				t.Errorf("the store has %v", got)
			}
		})
	}
}

func TestChangedContent(t *testing.T) {
	t.Parallel()
	s, _ := open(t)
	src := sample(t)
	c, err := s.Add(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(c.Dir, "bin", "motd")
	if err := errors.Join(os.Chmod(path, 0o700), os.WriteFile(path, []byte(script+"#"), 0o700)); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"verify": s.Verify(t.Context(), c.Digest),
		"copy":   s.CopyTo(t.Context(), c, t.TempDir()),
	} {
		var changed *store.DigestError
		if !errors.As(err, &changed) || changed.Want != c.Digest || changed.Got == c.Digest ||
			!strings.Contains(err.Error(), changed.Want) || !strings.Contains(err.Error(), changed.Got) {
			t.Errorf("%s: got %v; want both digests", what, err)
		}
	}
	if _, err := s.Add(t.Context(), src); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), c.Digest); err != nil {
		t.Errorf("added again: %v", err)
	}
}

func TestManifestChangesBetweenFindAndCopy(t *testing.T) {
	t.Parallel()
	s, _ := open(t)
	c, err := s.Add(t.Context(), sample(t))
	if err != nil {
		t.Fatal(err)
	}
	c.Manifest.Environment = append(c.Manifest.Environment, "AWS_SECRET_ACCESS_KEY")
	if err := s.CopyTo(t.Context(), c, t.TempDir()); err == nil || !strings.Contains(err.Error(), "manifest") {
		t.Errorf("got %v; want a word about the manifest", err)
	}
}

func TestListRemove(t *testing.T) {
	t.Parallel()
	s, dir := open(t)
	var digests []string
	for i := range 3 {
		c, err := s.Add(t.Context(), files(t, map[string]string{"motd*": fmt.Sprint(script, i)}))
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, c.Digest)
	}
	for range 2 { // what is gone is gone
		if err := s.Remove(t.Context(), digests[0]); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok, err := s.Find(digests[0]); ok || err != nil {
		t.Errorf("found after its removal: %v, %v", ok, err)
	}
	if err := s.Verify(t.Context(), digests[0]); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("verify what was removed: %v", err)
	}
	all, err := s.List()
	if err != nil || len(all) != 2 || all[0].Digest >= all[1].Digest {
		t.Errorf("list: %v, %v", all, err)
	}
	for _, c := range all {
		if c.Bytes != int64(len(script)+1) || c.Problem != nil || c.Manifest.Command[0] != "motd" {
			t.Errorf("listed: %+v", c)
		}
	}
	// What is broken is listed, and can be removed.
	broken := filepath.Join(dir, "content", strings.TrimPrefix(all[0].Digest, "sha256:"))
	if err := os.RemoveAll(filepath.Join(broken, "folder")); err != nil {
		t.Fatal(err)
	}
	got, err := s.List()
	if err != nil || len(got) != 2 || got[0].Digest != all[0].Digest || got[0].Problem == nil || got[0].Bytes != 0 {
		t.Errorf("list with a broken one: %+v, %v", got, err)
	}
	if err := s.Remove(t.Context(), all[0].Digest); err != nil {
		t.Error(err)
	}
	if got, err := s.List(); err != nil || len(got) != 1 {
		t.Errorf("list without it: %+v, %v", got, err)
	}
	if got := listing(t, filepath.Join(dir, "incoming")); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
}

func TestNoDigest(t *testing.T) {
	t.Parallel()
	s, _ := open(t)
	for _, bad := range []string{"", "sha256:", "../../etc", "sha256:../" + strings.Repeat("a", 61), "sha256:" + strings.Repeat("A", 64), strings.Repeat("a", 64)} {
		_, _, err := s.Find(bad)
		for what, err := range map[string]error{"find": err, "verify": s.Verify(t.Context(), bad), "remove": s.Remove(t.Context(), bad)} {
			if err == nil || !strings.Contains(err.Error(), "is no digest") {
				t.Errorf("%s %q: %v", what, bad, err)
			}
		}
	}
}

func TestAddAtOnce(t *testing.T) {
	t.Parallel()
	_, dir := open(t)
	src := sample(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			s, err := store.Open(dir) // as another process does
			if err != nil {
				t.Error(err)
				return
			}
			c, err := s.Add(t.Context(), src)
			if err == nil {
				err = s.CopyTo(t.Context(), c, t.TempDir())
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if left, err := os.ReadDir(filepath.Join(dir, "incoming")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// What a killed process was adding can be listed and removed, what is being added now can't.
func TestSweep(t *testing.T) {
	t.Parallel()
	s, dir := open(t)
	left := filepath.Join(dir, "incoming", "left")
	if err := os.MkdirAll(filepath.Join(left, "entry", "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	scratch, done, err := s.Scratch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("who adds doesn't remove what was left: %v", err)
	}
	if err := os.Mkdir(left, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		dry        bool
		gone, here []string
	}{
		{true, []string{left}, []string{filepath.Base(scratch), "left"}},
		{false, []string{left}, []string{filepath.Base(scratch)}},
		{false, nil, []string{filepath.Base(scratch)}},
	} {
		gone, err := s.Sweep(t.Context(), test.dry)
		if diff := cmp.Diff(test.gone, gone); diff != "" || err != nil {
			t.Errorf("dry %v: %v (-want +got):\n%s", test.dry, err, diff)
		}
		entries, err := os.ReadDir(filepath.Join(dir, "incoming"))
		if err != nil {
			t.Fatal(err)
		}
		var here []string
		for _, e := range entries {
			here = append(here, e.Name())
		}
		slices.Sort(test.here)
		if diff := cmp.Diff(test.here, here); diff != "" {
			t.Errorf("after dry %v (-want +got):\n%s", test.dry, diff)
		}
	}
	if err := done(); err != nil {
		t.Error(err)
	}
}

// What a killed process was adding is removed by the next that adds.
func TestAddSweeps(t *testing.T) {
	t.Parallel()
	s, dir := open(t)
	left := filepath.Join(dir, "incoming", "left", "entry", "folder")
	if err := errors.Join(os.MkdirAll(left, 0o700), os.WriteFile(filepath.Join(left, "x"), nil, 0o400)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Add(t.Context(), sample(t)); err != nil {
		t.Fatal(err)
	}
	if got := listing(t, filepath.Join(dir, "incoming")); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	s, dir := open(t)
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if _, err := s.Add(ctx, sample(t)); !errors.Is(err, why) {
		t.Errorf("got %v; want the cause", err)
	}
	if got := listing(t, filepath.Join(dir, "incoming")); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
}
