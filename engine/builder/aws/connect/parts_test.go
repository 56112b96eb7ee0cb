package connect

import (
	"bytes"
	"crypto/rand"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/step"
)

// shells are those that may be a machine's /bin/sh.
func shells(tb testing.TB) map[string][]string {
	tb.Helper()
	list := map[string][]string{"sh": {"sh"}, "bash": {"bash", "--posix"}, "busybox": {"busybox", "sh"}}
	for name, argv := range list {
		if _, err := exec.LookPath(argv[0]); err != nil {
			tb.Fatalf("the test needs %s: install its package: %v", name, err)
		}
	}
	return list
}

// FuzzRequest gives real shells a request as the agent does, and looks at what comes out.
func FuzzRequest(f *testing.F) {
	f.Add("a b", "'", "$(id)")
	f.Add("", "\n\n", `\`)
	f.Add("-n", "'\\''", "`id`")
	f.Add(everyByte, "\x81\x88\x01\x7f", "\xff'\xfe")
	f.Add("!! * ~ ${x}", "\r\n", "ünï'cödé\x00")
	all := shells(f)
	f.Fuzz(func(t *testing.T, one, two, value string) {
		text, err := request(step.Cmd{Argv: []string{one, two, ""}, Env: map[string]string{"VALUE": value, "IFS": one, "LC_ALL": "C.UTF-8"}}, nil)
		if strings.ContainsRune(one+two+value, 0) != (err != nil) {
			t.Fatalf("request: %v", err)
		}
		if err != nil {
			return
		}
		for name, argv := range all {
			cmd := exec.Command(argv[0], append(argv[1:], "-c", `eval "$1"; printf '%s\0' "$@" "$VALUE" "$#"`, "sh", text)...)
			cmd.Env = []string{"PATH=/usr/bin:/bin"}
			var complaints bytes.Buffer
			cmd.Stderr = &complaints
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%s: %v: %s", name, err, complaints.String())
			}
			want := one + "\x00" + two + "\x00\x00" + value + "\x003\x00"
			if diff := cmp.Diff(want, string(out)); diff != "" {
				t.Errorf("%s (-want +got)\n%s", name, diff)
			}
		}
	})
}

// openssl runs a function of the agent with a key.
func openssl(t *testing.T, s sealer, function string, in []byte) []byte {
	t.Helper()
	dir := t.TempDir()
	text, _, _ := strings.Cut(agentText, "\n_gild_setsid=")
	cmd := exec.Command("sh", "-c", text+"\nprintf %s \"$KEY\" >\"$work/key\"\n"+function, "agent", dir, "none")
	cmd.Env = []string{"PATH=/usr/bin:/bin", "KEY=" + s.password}
	cmd.Stdin = bytes.NewReader(in)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s", function, err, complaints.String())
	}
	return out
}

func newSealer() sealer { return sealer{rand.Text()} }

func TestSeal(t *testing.T) {
	t.Parallel()
	s := newSealer()
	for _, data := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte("text "), 100_000), randomBytes(50_001)} {
		sealed, err := s.seal(data)
		must(t, err)
		if got := openssl(t, s, "decode", []byte(sealed)); !bytes.Equal(got, data) {
			t.Errorf("%d bytes reach the machine of %d", len(got), len(data))
		}
		got, err := s.open(string(openssl(t, s, "encode", data)))
		must(t, err)
		if !bytes.Equal(got, data) {
			t.Errorf("%d bytes come from the machine of %d", len(got), len(data))
		}
		again, err := s.seal(data)
		must(t, err)
		if again == sealed {
			t.Error("the same message twice looks the same")
		}
		if _, err := newSealer().open(sealed); err == nil {
			t.Error("another key opens it")
		}
	}
	bomb, err := s.seal(make([]byte, maxMessage+1))
	must(t, err)
	if _, err := s.open(bomb); err == nil {
		t.Error("a message has no limit")
	}
}

func FuzzOpen(f *testing.F) {
	s := sealer{"key"}
	for _, data := range []string{"", "state running\nhave 0 0\n"} {
		sealed, err := s.seal([]byte(data))
		must(f, err)
		f.Add(sealed)
		f.Add(sealed[:len(sealed)-4])
	}
	f.Fuzz(func(t *testing.T, text string) {
		if data, err := s.open(text); err != nil && data != nil {
			t.Error("data and an error")
		}
	})
}

// FuzzTake reads answers of a machine that may say anything.
func FuzzTake(f *testing.F) {
	f.Add([]byte("state ended 3\nhave 2 1\no 0 2 5\nhelloe 0 1 3\nabc"))
	f.Add([]byte("state failed x\nhave 99999999999 -1\no 5 1 0\n"))
	f.Add([]byte("e 0 1 -1\n"))
	s := &session{sealer: sealer{"key"}}
	f.Fuzz(func(t *testing.T, data []byte) {
		sealed, err := s.seal(data)
		must(t, err)
		var out, errs bytes.Buffer
		x := &runJob{s: s, most: 16, streams: [2]stream{{w: &out, held: map[int]answer{}}, {w: &errs, held: map[int]answer{}}}}
		if err := x.take(sealed); err != nil {
			return
		}
		must(t, x.pass())
		if out.Len()+errs.Len() > len(data) {
			t.Errorf("%d bytes of output from %d", out.Len()+errs.Len(), len(data))
		}
		for _, s := range x.streams {
			if from := slices.Collect(maps.Keys(s.held)); slices.ContainsFunc(from, func(n int) bool { return n <= s.next }) {
				t.Errorf("files %v are held though %d is next", from, s.next)
			}
		}
	})
}

func TestPieces(t *testing.T) {
	t.Parallel()
	s := &session{sealer: newSealer()}
	data := append(randomBytes(300_000), make([]byte, 3<<20)...)
	p := newPieces(bytes.NewReader(data))
	defer p.stop()
	if sealed, err := p.first(s, 10_000); sealed != "" || err != nil {
		t.Fatalf("%d characters at once, %v", len(sealed), err)
	}
	var got []byte
	for last := false; !last; {
		var sealed string
		var err error
		sealed, last, err = p.next(t.Context(), s)
		must(t, err)
		if len(sealed) > mostParameters {
			t.Errorf("a piece of %d characters", len(sealed))
		}
		piece, err := s.open(sealed)
		must(t, err)
		got = append(got, piece...)
	}
	if !bytes.Equal(got, data) {
		t.Errorf("%d bytes of %d", len(got), len(data))
	}
}
