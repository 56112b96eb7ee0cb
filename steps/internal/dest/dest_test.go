package dest_test

import (
	"testing"
	"time"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/steps/internal/dest"
	"github.com/google/go-cmp/cmp"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		file dest.File
		want string
	}{
		"fine":       {dest.File{To: "/etc/motd", Mode: "0644"}, ""},
		"no mode":    {dest.File{To: "/temporary/x"}, ""},
		"relative":   {dest.File{To: "etc/motd"}, `"etc/motd" is not a plain absolute path`},
		"climbs":     {dest.File{To: "/etc/../motd"}, `"/etc/../motd" is not a plain absolute path`},
		"trailing":   {dest.File{To: "/etc/"}, `"/etc/" is not a plain absolute path`},
		"volatile":   {dest.File{To: "/run/x"}, `"/run/x" is not part of the image: /run is empty when it boots`},
		"no octal":   {dest.File{To: "/etc/motd", Mode: "0888"}, `mode "0888" is not an octal number up to "0777"`},
		"other bits": {dest.File{To: "/etc/motd", Mode: "4755"}, `mode "4755" is not an octal number up to "0777"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := ""
			if err := tc.file.Check(); err != nil {
				got = err.Error()
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestPut(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	got, err := dest.File{To: "/a/b", Mode: "0600", Owner: "www-data", Parents: true}.Put(0o644, now)
	if err != nil {
		t.Fatal(err)
	}
	want := step.PutFile{Path: "/a/b", Mode: 0o600, Owner: "www-data", ModTime: now, Parents: true}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}
