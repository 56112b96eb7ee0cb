package sandbox

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestChooseIDs(t *testing.T) {
	t.Parallel()
	anna := idOwner{uid: 1000, name: "anna"}
	root := idOwner{uid: 0, name: "root"}
	both := func(lines ...string) [2][]string { return [2][]string{lines, lines} }
	tests := []struct {
		name  string
		owner idOwner
		files [2][]string // /etc/subuid, /etc/subgid
		want  IDs
		err   string
	}{
		{"by name", anna, both("bob:100000:65536", "anna:165536:65536"), IDs{165536, 165536, 65536}, ""},
		{"by number", anna, both("1000:231072:65536"), IDs{231072, 231072, 65536}, ""},
		{"larger range", anna, both("anna:100000:1000000"), IDs{100000, 100000, 65536}, ""},
		{"different starts", anna, [2][]string{{"anna:100000:65536"}, {"anna:200000:65536"}}, IDs{100000, 200000, 65536}, ""},
		{"first that is large enough", anna, both("anna:100000:10", "anna:200000:65536"), IDs{200000, 200000, 65536}, ""},
		{"broken lines", anna, both("", "# x", "anna", "anna:x:65536", "anna:1:2:3", ":1:65536", "anna:-5:65536", " anna:300000:65536 "), IDs{300000, 300000, 65536}, ""},
		{"not the host's root", anna, both("anna:0:65536", "anna:100000:65536"), IDs{100000, 100000, 65536}, ""},
		{"root with an entry", root, both("root:100000:65536"), IDs{100000, 100000, 65536}, ""},
		{"root on an empty host", root, both(), IDs{524288, 524288, 65536}, ""},
		{"root beside users", root, both("anna:100000:65536", "bob:524288:65536"), IDs{589824, 589824, 65536}, ""},
		{"root beside an odd range", root, both("anna:524289:65536"), IDs{655360, 655360, 65536}, ""},
		{"root with half an entry", root, [2][]string{{"root:600000:65536"}, nil}, IDs{720896, 720896, 65536}, ""},
		{
			"nothing", anna, both("bob:100000:65536"), IDs{},
			`user "anna" has no range of 65536 subordinate ids in /etc/subuid and /etc/subgid; run: sudo usermod --add-subuids 524288-589823 --add-subgids 524288-589823 anna`,
		},
		{
			"no group ids", anna, [2][]string{{"anna:100000:65536"}, {"anna:100000:100"}}, IDs{},
			`user "anna" has no range of 65536 subordinate ids in /etc/subgid; run: sudo usermod --add-subgids 524288-589823 anna`,
		},
		{
			"no name", idOwner{uid: 4711}, both(":100000:65536"), IDs{},
			`user 4711 has no name in /etc/passwd, so it can't be given subordinate ids`,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := chooseIDs(test.owner, writeRanges(t, test.files[0]), writeRanges(t, test.files[1]))
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			text := ""
			if err != nil {
				text = err.Error()
			}
			if diff := cmp.Diff(test.err, text); diff != "" {
				t.Errorf("error (-want +got)\n%s", diff)
			}
		})
	}
}

// writeRanges lets lines be read from a file.
func writeRanges(t *testing.T, lines []string) []idRange {
	t.Helper()
	path := filepath.Join(t.TempDir(), "subid")
	text := ""
	for _, line := range lines {
		text += line + "\n"
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ranges, err := readRanges(path)
	if err != nil {
		t.Fatal(err)
	}
	return ranges
}

func TestReadRangesMissing(t *testing.T) {
	t.Parallel()
	ranges, err := readRanges(filepath.Join(t.TempDir(), "none"))
	if ranges != nil || err != nil {
		t.Errorf("got %v, %v", ranges, err)
	}
}

func TestIDsCheck(t *testing.T) {
	t.Parallel()
	me := os.Geteuid()
	tests := []struct {
		name string
		ids  IDs
		ok   bool
	}{
		{"good", IDs{524288, 600000, 65536}, true},
		{"host's root", IDs{0, 524288, 65536}, false},
		{"host's root group", IDs{524288, 0, 65536}, false},
		{"too small", IDs{524288, 524288, 1000}, false},
		{"the caller", IDs{max(me, 1), 524288, 65536}, me == 0},
		{"negative", IDs{-1, 524288, 65536}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if err := test.ids.check(); (err == nil) != test.ok {
				t.Errorf("got %v", err)
			}
		})
	}
}

func FuzzParseRange(f *testing.F) {
	for _, seed := range []string{"anna:100000:65536", "1000:1:1", ":::", "a:99999999999:1", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		r, ok := parseRange(line)
		if ok != (r.owner != "") || r.start < 0 || r.size < 0 {
			t.Errorf("%q gives %+v, %v", line, r, ok)
		}
	})
}
