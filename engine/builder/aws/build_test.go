package aws

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/builder/buildertest"
	"github.com/gildhq/gild/engine/spec"
)

func TestContract(t *testing.T) {
	w := newWorld(t)
	buildertest.Run(t, buildertest.Fixture{
		New:      func(*testing.T) builder.Builder { return w.builder() },
		Pipeline: testPipeline(), Region: abroad, Sweep: builder.SweepRequest{Regions: []string{home, abroad}},
	})
}

func TestBuild(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(*spec.Pipeline)
		want   []string
	}{
		{name: "ssm", change: func(*spec.Pipeline) {}},
		{name: "ssh", change: func(p *spec.Pipeline) { p.AWS.Connect.By = "ssh" }},
		{name: "instance connect, given network and profile", change: func(p *spec.Pipeline) { p.AWS.Connect.By = "instance-connect" }},
		{name: "spot", change: func(p *spec.Pipeline) { p.AWS.Instance.Spot = "only" }},
		{name: "other boot mode and TPM", change: func(p *spec.Pipeline) { p.AWS.Image.BootMode, p.AWS.Image.TPM = "uefi", "v2.0" }},
		{name: "encrypted volumes", change: func(p *spec.Pipeline) {
			yes := true
			p.AWS.Volume.Encrypted, p.AWS.Volume.Size = &yes, 3<<30
			p.AWS.Volumes = []spec.AWSVolume{{Device: "/dev/sdf", Size: 10 << 30, Type: "gp3", IOPS: 4000, Throughput: 200}}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			p := testPipeline()
			tt.change(p)
			f := newFlow(w, p)
			if err := f.all(t.Context()); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(whole, w.remains()); diff != "" {
				t.Errorf("left behind (-want +got):\n%s", diff)
			}
			for _, l := range f.ledgers {
				if open := l.Open(); len(open) > 0 {
					t.Errorf("claims of %s are open: %v", l.Work().Node, open)
				}
			}
			// Building again does nothing but look.
			before := w.calls("RunInstances") + w.calls("CreateImage")
			again := newFlow(w, p)
			again.published = true
			if _, ok, err := again.b.FindImage(t.Context(), p, keyImage); !ok || err != nil {
				t.Errorf("the image isn't found again: %v, %v", ok, err)
			}
			if after := w.calls("RunInstances") + w.calls("CreateImage"); after != before {
				t.Errorf("looking for the image launched or made %d things", after-before)
			}
		})
	}
}

// TestNothingIsOpenOrShown looks at every call of a build: who is let in, whether the
// metadata service needs tokens, and where secrets went.
func TestNothingIsOpenOrShown(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"ssm", "ssh", "instance-connect"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			p := testPipeline()
			p.AWS.Connect.By = by
			f := newFlow(w, p)
			if err := f.all(t.Context()); err != nil {
				t.Fatal(err)
			}
			launched, rules := 0, 0
			for _, c := range w.Calls() {
				text, err := json.Marshal(c.Params)
				if err != nil {
					t.Fatal(err)
				}
				if strings.Contains(string(text), f.secret) {
					t.Errorf("%s has the secret in its parameters: %s", c.Action, text)
				}
				if strings.Contains(string(text), "0.0.0.0/0") || strings.Contains(string(text), "::/0") {
					t.Errorf("%s names the whole world: %s", c.Action, text)
				}
				switch c.Action {
				case "RunInstances":
					launched++
					options, _ := c.Params["MetadataOptions"].(map[string]any)
					if options["HttpTokens"] != "required" || options["HttpPutResponseHopLimit"] != int64(1) {
						t.Errorf("launched with the metadata options %v", options)
					}
					if c.Params["UserData"] != nil {
						t.Errorf("user data: %v", c.Params["UserData"])
					}
				case "AuthorizeSecurityGroupIngress":
					rules++
					if !strings.Contains(string(text), `"CidrIp":"127.0.0.1/32"`) || !strings.Contains(string(text), `"FromPort":22`) {
						t.Errorf("let in: %s", text)
					}
				case "ModifyImageAttribute", "ModifySnapshotAttribute":
					if strings.Contains(string(text), "LaunchPermission") || c.Action == "ModifySnapshotAttribute" {
						t.Errorf("%s shares something: %s", c.Action, text)
					}
				}
			}
			want := 0
			if by != "ssm" {
				want = launched
			}
			if launched != 2 || rules != want {
				t.Errorf("%d instances and %d rules that let somebody in", launched, rules)
			}
		})
	}
}

// TestEverythingIsTaggedFromTheStart looks at every call that makes something.
func TestEverythingIsTaggedFromTheStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := testPipeline()
	p.AWS.Instance.Spot = "only"
	if err := newFlow(w, p).all(t.Context()); err != nil {
		t.Fatal(err)
	}
	p = testPipeline()
	p.AWS.Connect.By = "ssh"
	other := newFlow(w, p)
	other.run = "20261123-130000-fedcba"
	if err := other.remake(t); err != nil {
		t.Fatal(err)
	}
	kinds := map[string][]string{
		"RunInstances": {"instance", "volume", "network-interface"}, "CreateSecurityGroup": {"security-group"}, "ImportKeyPair": {"key-pair"},
		"CreateImage": {"image", "snapshot"}, "CopyImage": {"image", "snapshot"}, "CreateRole": nil, "CreateInstanceProfile": nil,
	}
	seen := map[string]bool{}
	for _, c := range w.Calls() {
		want, ok := kinds[c.Action]
		if !ok || c.Error != "" {
			continue
		}
		seen[c.Action] = true
		text, err := json.Marshal(c.Params)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range want {
			if !strings.Contains(string(text), `"ResourceType":"`+k+`"`) {
				t.Errorf("%s tags no %s: %s", c.Action, k, text)
			}
		}
		for _, tag := range []string{tagRun, tagNode, tagKind, tagToken, tagExpires, tagPipeline, tagName, "team"} {
			if !strings.Contains(string(text), `"Key":"`+tag+`"`) {
				t.Errorf("%s has no tag %s: %s", c.Action, tag, text)
			}
		}
	}
	if len(seen) != len(kinds) {
		t.Errorf("only %v were called", seen)
	}
}

// remake opens a bench and ends it.
func (f *flow) remake(t *testing.T) error {
	base, err := f.b.Resolve(t.Context(), f.p, nil)
	if err != nil {
		return err
	}
	m, err := f.b.Open(t.Context(), f.ledger("web/x"), builder.OpenRequest{Pipeline: f.p, Base: base, Layers: []string{keyBase}, Key: "x", Bench: "x"})
	if err != nil {
		return err
	}
	if err := m.Close(); err != nil {
		return err
	}
	return f.b.Release(t.Context(), "x")
}

// counter counts requests.
type counter struct {
	next http.RoundTripper
	n    *atomic.Int64
}

func (c counter) RoundTrip(r *http.Request) (*http.Response, error) {
	c.n.Add(1)
	return c.next.RoundTrip(r)
}

// BenchmarkBuild measures how many calls a build takes: bench, checkpoint, image, guest,
// publishing and one copy. What waits costs calls too: the sandbox's pending states end at
// once, so that only what every build needs is counted.
func BenchmarkBuild(b *testing.B) {
	var n atomic.Int64
	w := newWorld(b)
	w.transport = func(next http.RoundTripper) http.RoundTripper { return counter{next, &n} }
	for i := range b.N {
		f := newFlow(w, testPipeline())
		f.run = "20261123-120000-" + strings.Repeat(string(rune('a'+i%26)), 6)
		if err := f.all(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		for _, region := range []string{home, abroad} {
			r, err := f.b.region(b.Context(), region)
			if err != nil {
				b.Fatal(err)
			}
			found, err := r.findImages(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			for _, image := range found {
				if err := r.removeImage(b.Context(), image); err != nil {
					b.Fatal(err)
				}
			}
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(n.Load())/float64(b.N), "calls/op")
}
