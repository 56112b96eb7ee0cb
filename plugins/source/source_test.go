package source_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/gildhq/gild/plugins/source"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func sum(text string) string {
	s := sha256.Sum256([]byte(text))
	return "sha256:" + hex.EncodeToString(s[:])
}

func parse(t *testing.T, text string) source.Source {
	t.Helper()
	s, err := source.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// read turns items into platform, source and content.
func read(t *testing.T, items []source.Item) [][3]string {
	t.Helper()
	var got [][3]string
	for _, i := range items {
		text, err := os.ReadFile(i.Path)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, [3]string{i.Platform, i.Source, string(text)})
	}
	return got
}

func TestParse(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"./plugins/motd":                         "",
		"/opt/motd":                              "",
		"motd":                                   "",
		"https://plugins.example/motd":           "",
		"https://plugins.example/motd_{os_arch}": "",
		"http://127.0.0.1/motd":                  "",
		"oci://registry.example/acme/motd:1.0.0": "",
		"":                                       "is empty",
		"https://":                               "names no host",
		"https:///motd":                          "names no host",
		"https://ann:pw@host.example/x":          "holds a user",
		"https://host.example/%zz":               "no address",
		"git://host.example/x":                   "begins with git://",
		"oci://registry.example/acme":            "no tag or digest",
		"oci://registry.example":                 "no OCI reference",
		"oci://REGISTRY/..:x":                    "no OCI reference",
	} {
		s, err := source.Parse(text)
		if want == "" && (err != nil || s.String() != text) {
			t.Errorf("%q: %v, %v", text, s, err)
		}
		if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: got %v; want %q", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "pw") {
			t.Errorf("%q: the error shows a password: %v", text, err)
		}
	}
}

func TestFor(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"./motd_{os_arch}":              "./motd_linux_arm64",
		"https://h.example/{os}/{arch}": "https://h.example/linux/arm64",
		"./{motd}":                      "./{motd}",
	} {
		if got := parse(t, text).For("linux/arm64").String(); got != want {
			t.Errorf("%s: got %s; want %s", text, got, want)
		}
	}
}

func TestRelative(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ text, from, to, want string }{
		{"motd", "/a/b", "/a/b", "./motd"},
		{"./motd", "/a/b", "/a", "./b/motd"},
		{"../motd", "/a/b", "/a/b/c", "../../motd"},
		{"/motd", "/a", "/b", "/motd"},
		{"https://h.example/x", "/a", "/b", "https://h.example/x"},
	} {
		got, err := parse(t, test.text).Relative(test.from, test.to)
		if err != nil || got.String() != test.want {
			t.Errorf("%+v: got %s, %v", test, got, err)
		}
	}
}

func TestPath(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"motd", "dist_linux_amd64", "dist_linux_arm64"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := &source.Client{Dir: dir}
	for name, test := range map[string]struct {
		text string
		req  source.Request
		want [][3]string
		err  string
	}{
		"file":        {"./motd", source.Request{}, [][3]string{{"", "./motd", "motd"}}, ""},
		"checked":     {"./motd", source.Request{SHA256: map[string]string{"": sum("motd")}}, [][3]string{{"", "./motd", "motd"}}, ""},
		"changed":     {"./motd", source.Request{SHA256: map[string]string{"": sum("x")}}, nil, "has the digest " + sum("motd") + ", and not " + sum("x")},
		"missing":     {"./none", source.Request{}, nil, "fetch plugin from ./none: stat"},
		"all":         {"dist_{os_arch}", source.Request{}, [][3]string{{"linux/amd64", "dist_linux_amd64", "dist_linux_amd64"}, {"linux/arm64", "dist_linux_arm64", "dist_linux_arm64"}}, ""},
		"one of all":  {"dist_{os}_{arch}", source.Request{Platforms: []string{"linux/arm64"}}, [][3]string{{"linux/arm64", "dist_linux_arm64", "dist_linux_arm64"}}, ""},
		"none of all": {"none_{os_arch}", source.Request{}, nil, "a file for none of linux/amd64, linux/arm64, such as none_linux_amd64"},
		"not there":   {"dist_{os_arch}", source.Request{Platforms: []string{"linux/riscv64"}}, nil, "dist_linux_riscv64"},
	} {
		items, err := c.Fetch(t.Context(), parse(t, test.text), test.req)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s: got %v; want %q", name, err, test.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(test.want, read(t, items)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"./x", "https://h.example/{os}", "oci://r.example/a:1", "oci://r.example/a@sha256:" + strings.Repeat("a", 64), "http://[::1]/x"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := source.Parse(text)
		if err == nil && s.String() != text {
			t.Errorf("%q became %q", text, s)
		}
		_ = s.For("linux/amd64")
	})
}
