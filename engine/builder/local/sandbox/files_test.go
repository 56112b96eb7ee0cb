package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/step"
)

func TestPut(t *testing.T) {
	t.Parallel()
	m := openMachine(t)
	m.mustSh(t, `cd /root; echo old >old; ln -s old link; ln -s ../srv/new dangling; mkdir dir`)
	when := time.Unix(1_600_000_000, 123)
	tests := []struct {
		name string
		file step.PutFile
		look string
		want string
	}{
		{"plain", step.PutFile{Path: "/root/plain"}, "stat -c '%a %u %g' /root/plain", "644 0 0\n"},
		{"mode", step.PutFile{Path: "/root/mode", Mode: 0o4751 & 0o777}, "stat -c %a /root/mode", "751\n"},
		{"set-id bits", step.PutFile{Path: "/root/suid", Mode: 0o755 | fs.ModeSetuid | fs.ModeSetgid, Owner: "web"}, "stat -c '%a %u' /root/suid", "6755 33\n"},
		{"owner by name", step.PutFile{Path: "/root/owner", Owner: "web", Group: "adm"}, "stat -c '%u %g' /root/owner", "33 4\n"},
		{"owner by number", step.PutFile{Path: "/root/number", Owner: "1000", Group: "65534"}, "stat -c '%u %g' /root/number", "1000 65534\n"},
		{"time", step.PutFile{Path: "/root/time", ModTime: when}, "stat -c %Y /root/time", "1600000000\n"},
		{"replace", step.PutFile{Path: "/root/old"}, "cat /root/old", "content"},
		{"through a link", step.PutFile{Path: "/root/link", Mode: 0o600}, "readlink /root/link; stat -c %a /root/old", "old\n600\n"},
		{"through a dangling link", step.PutFile{Path: "/root/dangling", Parents: true}, "cat /srv/new", "content"},
		{"parents", step.PutFile{Path: "/a/b/c/d", Parents: true, Owner: "web"}, "stat -c '%a %u' /a /a/b/c", "755 0\n755 0\n"},
		{"scratch folder", step.PutFile{Path: "/tmp/script"}, "cat /tmp/script", "content"},
		{"no temporary files", step.PutFile{Path: "/root/dir/x"}, "ls -A /root/dir", "x\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if err := m.Put(t.Context(), test.file, strings.NewReader("content")); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, m.mustSh(t, test.look)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestPutErrors(t *testing.T) {
	t.Parallel()
	m := openMachine(t)
	m.mustSh(t, "mkdir /root/dir; echo old >/root/old")
	broken := io.MultiReader(strings.NewReader("half of it"), failingReader{})
	tests := []struct {
		name    string
		file    step.PutFile
		content io.Reader
		want    string
	}{
		{"relative", step.PutFile{Path: "x"}, nil, `put "x": path "x" is not absolute`},
		{"folder", step.PutFile{Path: "/root/dir"}, nil, `put "/root/dir": is a directory`},
		{"folder by name", step.PutFile{Path: "/root/dir/"}, nil, `put "/root/dir/": path "/root/dir/" names a folder: is a directory`},
		{"no parent", step.PutFile{Path: "/none/x"}, nil, `put "/none/x": open /none/: no such file or directory`},
		{"parent is a file", step.PutFile{Path: "/root/old/x", Parents: true}, nil, `put "/root/old/x": open /root/old: not a directory`},
		{"no such owner", step.PutFile{Path: "/root/x", Owner: "nobody-here"}, nil, `put "/root/x": owner "nobody-here": not in the machine's /etc/passwd`},
		{"no such group", step.PutFile{Path: "/root/x", Group: "nobody-here"}, nil, `put "/root/x": group "nobody-here": not in the machine's /etc/group`},
		{"owner outside of the range", step.PutFile{Path: "/root/x", Owner: "4000000"}, nil, `put "/root/x": invalid argument`},
		{"proc", step.PutFile{Path: "/proc/sys/x"}, nil, `put "/proc/sys/x": open /proc/sys/: no such file or directory`},
		{"sys", step.PutFile{Path: "/sys/x"}, nil, `put "/sys/x": make a file in its folder: read-only file system`},
		{"broken content", step.PutFile{Path: "/root/old"}, broken, `put "/root/old": disk on fire`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.content == nil {
				test.content = strings.NewReader("content")
			}
			err := m.Put(t.Context(), test.file, test.content)
			if err == nil {
				t.Fatal("no error")
			}
			if diff := cmp.Diff(test.want, err.Error()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
	if got := m.mustSh(t, "cat /root/old; ls -A /root"); got != "old\ndir\nold\n" {
		t.Errorf("something was changed: %s", got)
	}
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errors.New("disk on fire") }

// TestPutAtomic reads a file while it is replaced: every reader sees one of the two.
func TestPutAtomic(t *testing.T) {
	t.Parallel()
	m := openMachine(t)
	versions := []string{strings.Repeat("a", 100_000), strings.Repeat("b", 100_000)}
	put := func(i int) error {
		return m.Put(t.Context(), step.PutFile{Path: "/root/file"}, strings.NewReader(versions[i%2]))
	}
	if err := put(0); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		for i := range 100 {
			if err := put(i); err != nil {
				done <- err
				return
			}
		}
		close(done)
	}()
	for {
		var got bytes.Buffer
		if err := m.Get(t.Context(), "/root/file", &got); err != nil {
			t.Fatal(err)
		}
		if got.String() != versions[0] && got.String() != versions[1] {
			t.Fatalf("read a mixture of %d bytes", got.Len())
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return
		default:
		}
	}
}

func TestGet(t *testing.T) {
	t.Parallel()
	m := openMachine(t)
	m.mustSh(t, `cd /root; printf text >file; ln -s /root/file link; mkdir dir; head -c 3000000 /dev/zero >big; chmod 0 file`)
	for name, size := range map[string]int{"file": 4, "link": 4, "big": 3_000_000} {
		var got bytes.Buffer
		if err := m.Get(t.Context(), "/root/"+name, &got); err != nil || got.Len() != size {
			t.Errorf("%s: %d bytes, %v", name, got.Len(), err)
		}
	}
	for path, want := range map[string]string{
		"/root/none":   `get "/root/none": open /root/none: no such file or directory`,
		"/none/none":   `get "/none/none": open /none/none: no such file or directory`,
		"/root/dir":    `get "/root/dir": /root/dir is not a regular file`,
		"/dev/zero":    `get "/dev/zero": /dev/zero is not a regular file`,
		"/root/file/x": `get "/root/file/x": open /root/file/x: not a directory`,
		"root/file":    `get "root/file": path "root/file" is not absolute`,
	} {
		err := m.Get(t.Context(), path, io.Discard)
		if got := fmt.Sprint(err); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if missing := strings.Contains(path, "none"); errors.Is(err, fs.ErrNotExist) != missing {
			t.Errorf("%s: is it fs.ErrNotExist? %v", path, err)
		}
	}
	err := m.Get(t.Context(), "/root/big", failing{})
	if got := fmt.Sprint(err); got != `get "/root/big": log is full` {
		t.Errorf("got %s", got)
	}
}

func TestFacts(t *testing.T) {
	t.Parallel()
	m := openMachine(t)
	tests := []struct {
		name, script string
		want         step.Facts
	}{
		{"tiny", "true", step.Facts{OS: "tiny", Version: "1", Arch: runtime.GOARCH}},
		{"apt", "touch /usr/bin/apt-get", step.Facts{OS: "tiny", Version: "1", Arch: runtime.GOARCH, PackageManager: "apt"}},
		{"link", "mkdir -p /usr/lib; printf 'ID=x\\nVERSION_ID=2\\n' >/usr/lib/os-release; ln -sf ../usr/lib/os-release /etc/os-release", step.Facts{OS: "x", Version: "2", Arch: runtime.GOARCH, PackageManager: "apt"}},
		{"only in usr", "rm /etc/os-release", step.Facts{OS: "x", Version: "2", Arch: runtime.GOARCH, PackageManager: "apt"}},
		{"nothing", "rm /usr/lib/os-release", step.Facts{Arch: runtime.GOARCH, PackageManager: "apt"}},
		{"another architecture", `{ head -c18 /bin/busybox; printf '\363\000'; tail -c+21 /bin/busybox; } >/bin/foreign; mv /bin/foreign /bin/sh`, step.Facts{Arch: "riscv64", PackageManager: "apt"}},
	}
	for _, test := range tests {
		m.mustSh(t, test.script)
		got, err := m.Facts(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", test.name, diff)
		}
	}
}

func FuzzParseRelease(f *testing.F) {
	for _, seed := range []string{"ID=debian\nVERSION_ID=\"12\"\n", "ID='x'", "ID\n=\n", "ID=\"\r\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		id, version := parseRelease(text)
		if strings.Contains(id+version, "\n") || len(id)+len(version) > len(text) {
			t.Errorf("%q gives %q and %q", text, id, version)
		}
	})
}
