package aws

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"go.uber.org/goleak"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/builder/aws/client"
	"github.com/gildhq/gild/engine/builder/buildertest"
	"github.com/gildhq/gild/engine/sandbox"
	"github.com/gildhq/gild/engine/spec"
	"github.com/gildhq/gild/engine/step"
)

func TestMain(m *testing.M) {
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": sandbox.DefaultKey, "AWS_SECRET_ACCESS_KEY": sandbox.DefaultKey, "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
	} {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m)
}

const (
	home   = "eu-west-1"
	abroad = "eu-central-1"

	debian  = "136693071363"
	hostile = "999988887777"
)

// world is a sandbox with fake machines, and builders on it.
type world struct {
	*sandbox.Server
	t     testing.TB
	srv   *httptest.Server
	fakes *fakeMachines
	// transport goes between the builders that are made and the sandbox, when set.
	transport func(http.RoundTripper) http.RoundTripper
	now       func() time.Time
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldOf(t, sandbox.Config{})
}

func newWorldOf(t testing.TB, c sandbox.Config) *world {
	t.Helper()
	w := &world{t: t, fakes: newFakes(), now: time.Now}
	c.Dir = t.TempDir()
	if c.Machines == nil {
		c.Machines = w.fakes
	}
	s, err := sandbox.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	w.Server, w.srv = s, httptest.NewServer(s.Handler())
	t.Cleanup(func() {
		w.srv.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	w.seed(debian, "debian-12-amd64-20261101-2000", time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC))
	return w
}

func (w *world) seed(account, name string, created time.Time) string {
	w.t.Helper()
	id, err := w.AddImage(w.t.Context(), sandbox.SeedImage{Account: account, Name: name, SizeGiB: 1, Created: created, Region: home})
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// hurry makes waiting short.
var hurry = Timing{
	Timing: client.Timing{Attempt: 5 * time.Second, Patience: 20 * time.Second, Settling: 5 * time.Second, Backoff: time.Millisecond},
	Poll:   time.Millisecond, PollMost: 10 * time.Millisecond, Looks: 15 * time.Millisecond,
}

func (w *world) builder() *Builder {
	w.t.Helper()
	tr := w.srv.Client().Transport
	if w.transport != nil {
		tr = w.transport(tr)
	}
	b, err := New(Config{Endpoint: w.srv.URL, Transport: tr, Timing: hurry, Now: func() time.Time { return w.now() }})
	if err != nil {
		w.t.Fatal(err)
	}
	b.connect = w.fakes.connect
	return b
}

func testPipeline() *spec.Pipeline {
	return &spec.Pipeline{
		File: "web.yaml", Name: "web", Release: "1.0.0", Arch: "amd64", Builder: Kind,
		Base: spec.Base{Known: &spec.KnownBase{Name: "debian", Version: "12"}},
		AWS: &spec.AWSBuilder{
			Region: home, Instance: spec.AWSInstance{Types: []string{"t3.small", "t3.medium"}, Spot: "never"},
			Volume: spec.AWSVolume{Type: "gp3"}, Connect: spec.AWSConnect{By: "ssm", Port: 22},
			Image: spec.AWSImage{IMDSv2: true, ENA: true}, Within: 20 * time.Second, Tags: map[string]string{"team": "tests"},
			Checkpoints: spec.AWSCheckpoints{Keep: 3, MaxAge: 24 * time.Hour},
		},
	}
}

// flow builds as the engine does: what is stored isn't made again, and what is open when it
// dies is cleaned up by the next.
type flow struct {
	w       *world
	b       *Builder
	p       *spec.Pipeline
	run     string
	ledgers []*buildertest.Ledger
	secret  string
	// published is set when the catalog has the image.
	published bool
}

func newFlow(w *world, p *spec.Pipeline) *flow {
	return &flow{w: w, b: w.builder(), p: p, run: "20261123-120000-abcdef", secret: "hunter2"}
}

func (f *flow) ledger(node string) *buildertest.Ledger {
	l := buildertest.NewLedger(f.run, node)
	f.ledgers = append(f.ledgers, l)
	return l
}

const (
	keyBase  = "ba5e000000000000000000000000000000000000000000000000000000000000"
	keyFirst = "f125700000000000000000000000000000000000000000000000000000000000"
	keySeal  = "5ea1000000000000000000000000000000000000000000000000000000000000"
	keyImage = "1a6e000000000000000000000000000000000000000000000000000000000000"
)

// all builds, tests, publishes and copies.
func (f *flow) all(ctx context.Context) error {
	base, err := f.b.Resolve(ctx, f.p, nil)
	if err != nil {
		return err
	}
	info, ok, err := f.b.FindImage(ctx, f.p, keyImage)
	if err == nil && !ok {
		info, err = f.image(ctx, base)
	}
	if err != nil {
		return err
	}
	if _, err := f.b.Finish(ctx, f.ledger("web/files"), builder.FinishRequest{Pipeline: f.p, Key: keyImage, Progress: func(int64, int64) {}}); err != nil {
		return err
	}
	if err := f.test(ctx, info); err != nil {
		return err
	}
	err = f.b.PublishImage(ctx, f.ledger("web/publish"), builder.PublishRequest{
		Pipeline: f.p, Key: keyImage, ID: "web-1", Build: 1,
		PublishRequest: step.PublishRequest{Name: "web-1.0.0", Channel: "stable", DeprecateAfter: 720 * time.Hour},
	})
	if err != nil {
		return err
	}
	_, err = f.b.CopyImage(ctx, f.ledger("web/copy"), builder.CopyRequest{Pipeline: f.p, Key: keyImage, Region: abroad, Progress: func(int64, int64) {}})
	return err
}

// image makes the image, on a bench that is released in the end.
func (f *flow) image(ctx context.Context, base builder.Base) (info step.ImageInfo, err error) {
	const bench = "bench web"
	shared := f.ledger(bench)
	defer func() {
		if ctx.Err() == nil { // a dead process releases nothing
			err = errors.Join(err, f.b.Release(ctx, bench))
		}
	}()
	if err := f.b.MakeBase(ctx, f.ledger("web/base"), builder.BaseRequest{Pipeline: f.p, Base: base, Key: keyBase}); err != nil {
		return info, err
	}
	layers := []string{keyBase}
	for _, s := range []struct {
		key        string
		checkpoint bool
	}{{keyFirst, true}, {keySeal, false}} {
		ok, err := f.b.HasState(ctx, f.p, s.key)
		if err == nil && !ok {
			err = f.step(ctx, shared, builder.OpenRequest{
				Pipeline: f.p, Base: base, Layers: slices.Clone(layers), Key: s.key, Bench: bench, Checkpoint: s.checkpoint,
			})
		}
		if err != nil {
			return info, err
		}
		layers = append(layers, s.key)
	}
	return f.b.MakeImage(ctx, f.ledger("web/disk"), builder.ImageRequest{
		Pipeline: f.p, Base: base, Layers: layers, Bench: bench, Key: keyImage, Name: "web", Clock: base.Clock,
		Log: io.Discard, Progress: func(int64, int64, string) {},
	})
}

func (f *flow) step(ctx context.Context, l builder.Ledger, req builder.OpenRequest) (err error) {
	m, err := f.b.Open(ctx, l, req)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	if err := m.Put(ctx, step.PutFile{Path: "/" + req.Key}, strings.NewReader(f.secret)); err != nil {
		return err
	}
	return m.Commit(ctx)
}

func (f *flow) test(ctx context.Context, info step.ImageInfo) (err error) {
	g, err := f.b.Boot(ctx, f.ledger("web/test"), builder.BootRequest{Pipeline: f.p, Image: info, Firmware: "ec2", Log: io.Discard})
	if err != nil {
		return err
	}
	for _, key := range []string{keyFirst, keySeal} {
		var text strings.Builder
		if err := g.Get(ctx, "/"+key, &text); err != nil || text.String() != f.secret {
			return fmt.Errorf("the guest has %q at %s: %w", text.String(), key, err)
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return g.Close()
}

// cleanUp is what the next process does with what was open when the last one died.
func (f *flow) cleanUp(ctx context.Context, b *Builder) error {
	for _, l := range slices.Backward(f.ledgers) {
		for _, r := range slices.Backward(l.Open()) {
			if mine, err := b.Cleanup(ctx, r); err != nil || !mine {
				return fmt.Errorf("clean up %s %s: mine %v, %w", r.Kind, r.ID, mine, err)
			}
		}
	}
	f.ledgers = nil
	return nil
}

// remains lists all that there is of the account in its regions, but for what every account
// has: "kind of what".
func (w *world) remains() []string {
	w.t.Helper()
	ctx := context.Background()
	b := w.builder()
	b.clients = mustClients(w)
	var all []string
	for _, name := range []string{home, abroad} {
		c, err := b.clients.Region(ctx, name)
		if err != nil {
			w.t.Fatal(err)
		}
		r := b.newRegion(c)
		instances, err1 := r.findInstances(ctx)
		volumes, err2 := r.findVolumes(ctx)
		images, err3 := r.findImages(ctx)
		snapshots, err4 := r.findSnapshots(ctx)
		groups, err5 := r.findGroups(ctx)
		spot, err6 := r.findSpot(ctx)
		keys, err7 := r.EC2.DescribeKeyPairs(ctx, nil)
		if err := errors.Join(err1, err2, err3, err4, err5, err6, err7); err != nil {
			w.t.Fatal(err)
		}
		has := map[string]string{}
		for _, i := range images {
			kind := tagValue(i.Tags, tagKind)
			all = append(all, fmt.Sprintf("%s image %s %s", name, kind, i.State))
			for _, id := range snapshotIDs(i) {
				has[id] = kind
			}
		}
		for _, s := range snapshots {
			if kind, ok := has[*s.SnapshotId]; !ok || tagValue(s.Tags, tagKind) != kind {
				all = append(all, fmt.Sprintf("%s snapshot %s of image %q", name, tagValue(s.Tags, tagKind), kind))
			}
		}
		for _, i := range instances {
			if i.State.Name != types.InstanceStateNameTerminated {
				all = append(all, fmt.Sprintf("%s instance %s %s", name, tagValue(i.Tags, tagKind), i.State.Name))
			}
		}
		for _, v := range volumes {
			all = append(all, name+" volume "+string(v.State))
		}
		for _, g := range groups {
			if aws.ToString(g.GroupName) != "default" {
				all = append(all, name+" group")
			}
		}
		for range spot {
			all = append(all, name+" spot request")
		}
		for range keys.KeyPairs {
			all = append(all, name+" key pair")
		}
		if name == home {
			names, err := r.profileNames(ctx)
			if err != nil {
				w.t.Fatal(err)
			}
			for range names {
				all = append(all, "profile")
			}
		}
	}
	slices.Sort(all)
	return all
}

// mustClients makes clients without what a test put into the way.
func mustClients(w *world) *client.Clients {
	w.t.Helper()
	c, err := client.New(client.Config{Endpoint: w.srv.URL, Transport: w.srv.Client().Transport, Timing: hurry.Timing})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// calls counts the calls of an action since the beginning.
func (w *world) calls(action string) int {
	n := 0
	for _, c := range w.Calls() {
		if c.Action == action {
			n++
		}
	}
	return n
}

// whole is what a build leaves behind.
var whole = []string{
	abroad + " image published available", home + " image checkpoint available", home + " image published available",
}
