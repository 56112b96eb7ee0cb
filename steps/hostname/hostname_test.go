package hostname_test

import (
	"fmt"
	"testing"

	"github.com/gildhq/gild/steps/hostname"
	"github.com/gildhq/gild/steps/steptest"
	"github.com/google/go-cmp/cmp"
)

func TestSets(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ hosts, host, want string }{
		"added":     {`127.0.0.1 localhost\n# comment\n`, "web", "127.0.0.1 localhost\n# comment\n127.0.1.1\tweb"},
		"no end":    {`127.0.0.1 localhost`, "web", "127.0.0.1 localhost\n127.0.1.1\tweb"},
		"replaced":  {`127.0.1.1 old old2\n::1 localhost\n127.0.1.1\told3\n`, "web", "127.0.1.1\tweb\n::1 localhost"},
		"full name": {`127.0.1.1 old\n127.0.1.10 other\n`, "web.example.com", "127.0.1.1\tweb.example.com web\n127.0.1.10 other"},
		"no file":   {"", "web", "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\tweb"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := steptest.NewTarget(steptest.New(t, steptest.Tree(t)))
			target.Sh(t, fmt.Sprintf(`rm -f /etc/hosts; if [ -n '%s' ]; then printf '%[1]s' >/etc/hosts; fi`, tc.hosts))
			for range 2 { // the second time changes nothing
				if _, err := target.Run(t.Context(), hostname.Step, fmt.Sprintf(`{"name": %q}`, tc.host)); err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(tc.want, target.Sh(t, "cat /etc/hosts")); d != "" {
					t.Errorf("(-want +got)\n%s", d)
				}
				if got := target.Sh(t, "cat /etc/hostname; stat -c %a /etc/hostname"); got != tc.host+"\n644" {
					t.Errorf("/etc/hostname is %q", got)
				}
			}
		})
	}
}
