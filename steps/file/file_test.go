package file_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/gildhq/gild/steps/file"
	"github.com/gildhq/gild/steps/steptest"
	"github.com/google/go-cmp/cmp"
)

func newTarget(t *testing.T) *steptest.Target {
	t.Helper()
	return steptest.NewTarget(steptest.New(t, steptest.Tree(t)))
}

// write makes a project file and names it as the input "./"+name.
func write(t *testing.T, target *steptest.Target, name, text string, mode os.FileMode) {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	target.Inputs["./"+name] = steptest.Folder(p)
}

func TestWrites(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		config, path, want string
	}{
		"content":       {`{"to": "/etc/motd", "content": "hello $(reboot)\n"}`, "/etc/motd", "644 root:root hello $(reboot)"},
		"empty content": {`{"to": "/etc/motd", "content": ""}`, "/etc/motd", "644 root:root "},
		"mode and owner": {`{"to": "/etc/secret", "content": "x", "mode": "0640", "owner": "www-data", "group": "33"}`,
			"/etc/secret", "640 www-data:www-data x"},
		"parents":        {`{"to": "/opt/a/b/c", "content": "x", "parents": true}`, "/opt/a/b/c", "644 root:root x"},
		"from":           {`{"to": "/etc/app.conf", "from": "./app.conf"}`, "/etc/app.conf", "644 root:root listen"},
		"executable":     {`{"to": "/usr/local/bin/run", "from": "./run"}`, "/usr/local/bin/run", "755 root:root #!/bin/sh"},
		"from with mode": {`{"to": "/usr/local/bin/run", "from": "./run", "mode": "0700"}`, "/usr/local/bin/run", "700 root:root #!/bin/sh"},
		"through link":   {`{"to": "/bin/hello", "content": "x"}`, "/usr/bin/hello", "644 root:root x"},
		"template": {`{"to": "/etc/t", "template": "./t.tmpl", "vars": {"port": 8080, "ratio": 0.5, "on": true, "hosts": ["a", "b"]}}`,
			"/etc/t", "644 root:root port=8080 big ratio=0.5 on a;b;"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := newTarget(t)
			write(t, target, "app.conf", "listen", 0o644)
			write(t, target, "run", "#!/bin/sh", 0o755)
			write(t, target, "t.tmpl", `port={{ .port }}{{ if gt .port 1024 }} big{{ end }} ratio={{ .ratio }}{{ if .on }} on{{ end }} {{ range .hosts }}{{ . }};{{ end }}`, 0o644)
			if _, err := target.Run(t.Context(), file.Step, tc.config); err != nil {
				t.Fatal(err)
			}
			got := target.Sh(t, fmt.Sprintf(`stat -c '%%a %%U:%%G' %s | tr '\n' ' '; cat %[1]s`, tc.path))
			if got != tc.want && got+" " != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if got, want := target.Sh(t, "stat -c %Y "+tc.path), strconv.FormatInt(steptest.Clock.Unix(), 10); got != want {
				t.Errorf("changed at %s, want the build's clock %s", got, want)
			}
		})
	}
}

func TestCopiesFolder(t *testing.T) {
	t.Parallel()
	target := newTarget(t)
	dir := t.TempDir()
	for name, text := range map[string]string{"index.html": "hi", "sub/deep/run": "#!/bin/sh", "own": "new"} {
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{
		os.Chmod(filepath.Join(dir, "sub/deep/run"), 0o755),
		os.Symlink("../index.html", filepath.Join(dir, "sub/link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	target.Inputs["./www"] = steptest.Folder(dir)
	target.Sh(t, "mkdir -m 0711 /srv/www; echo old >/srv/www/own; echo kept >/srv/www/kept; ln -s /srv/www /srv/current")
	if _, err := target.Run(t.Context(), file.Step, `{"to": "/srv/current", "from": "./www", "owner": "www-data", "group": "www-data"}`); err != nil {
		t.Fatalf("%v\n%s", err, target.Log)
	}
	got := target.Sh(t, `cd /srv/www; touch -d @1 kept; stat -c '%a %U' .; find . -mindepth 1 -printf '%P %y %m %u %g %l %T@\n' | sed 's/\.0*$//' | sort; cat own kept`)
	now := strconv.FormatInt(steptest.Clock.Unix(), 10)
	want := "711 root\nindex.html f 644 www-data www-data  " + now + `
kept f 644 root root  1
own f 644 www-data www-data  ` + now + `
sub d 755 www-data www-data  ` + now + `
sub/deep d 755 www-data www-data  ` + now + `
sub/deep/run f 755 www-data www-data  ` + now + `
sub/link l 777 www-data www-data ../index.html ` + now + `
newkept`
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Symlink("../../etc/passwd", filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		config string
		want   []string
	}{
		"volatile":           {`{"to": "/tmp/x", "content": ""}`, []string{`"/tmp/x" is not part of the image`}},
		"no parent":          {`{"to": "/opt/a/b", "content": ""}`, []string{"write /opt/a/b"}},
		"unknown owner":      {`{"to": "/etc/x", "content": "", "owner": "nemo"}`, []string{"write /etc/x", "nemo"}},
		"unknown group":      {`{"to": "/etc/x", "from": "./folder", "group": "nemo"}`, []string{`"nemo" is not in the machine's group database`}},
		"mode of folder":     {`{"to": "/etc/x", "from": "./folder", "mode": "0644"}`, []string{`mode has no meaning for the folder "./folder"`}},
		"link outside":       {`{"to": "/etc/x", "from": "./links"}`, []string{`folder "./links": link "out" leads to "../../etc/passwd", out of the folder`}},
		"missing name":       {`{"to": "/etc/x", "template": "./t.tmpl", "vars": {"host": "a"}}`, []string{`fill in template "./t.tmpl"`, `map has no entry for key "port"`}},
		"bad template":       {`{"to": "/etc/x", "template": "./bad.tmpl"}`, []string{`parse template "./bad.tmpl"`, "bad.tmpl:1"}},
		"folder as template": {`{"to": "/etc/x", "template": "./folder"}`, []string{`template "./folder" is a folder`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := newTarget(t)
			write(t, target, "t.tmpl", "{{ .port }}", 0o644)
			write(t, target, "bad.tmpl", "{{ .port ", 0o644)
			target.Inputs["./folder"] = steptest.Folder(t.TempDir())
			target.Inputs["./links"] = steptest.Folder(dir)
			_, err := target.Run(t.Context(), file.Step, tc.config)
			steptest.WantError(t, err, tc.want...)
		})
	}
}
