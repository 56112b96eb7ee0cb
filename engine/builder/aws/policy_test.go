package aws

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/builder/aws/access"
	"github.com/gildhq/gild/engine/sandbox"
	"github.com/gildhq/gild/engine/sandbox/sandboxtest"
	"github.com/gildhq/gild/engine/spec"
)

// wholePipeline is what [flow.all] does, as a file asks for it.
func wholePipeline(by string) *spec.Pipeline {
	p := testPipeline()
	p.AWS.Connect.By = by
	p.Publish = &spec.Publish{Name: "web-1.0.0", Channel: "stable", DeprecateAfter: 720 * time.Hour}
	p.Copy = &spec.Copy{Regions: []string{abroad}}
	return p
}

// bound lets the builders' key do what a policy allows, and no more; nil takes the bounds away.
func (w *world) bound(d *access.Document) {
	w.t.Helper()
	text, err := json.Marshal(d)
	if err == nil {
		err = w.SetPolicy(sandbox.DefaultKey, string(text))
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// called are the permissions of the calls that were not refused.
func (w *world) called() []string {
	var all []string
	for _, c := range w.Calls() {
		if c.Error != "AccessDenied" && c.Error != "UnauthorizedOperation" {
			all = append(all, c.Service+":"+c.Action)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// newMachineWorld is a world whose machines run commands, for SSM.
func newMachineWorld(t testing.TB) *world {
	t.Helper()
	w := newWorldOf(t, sandbox.Config{Machines: sandboxtest.Machines{}})
	disk := filepath.Join(t.TempDir(), "debian.disk")
	if err := sandboxtest.NewDisk(disk); err != nil {
		t.Fatal(err)
	}
	newest := sandbox.SeedImage{
		Account: debian, Name: "debian-12-amd64-20261108-2000", SizeGiB: 1, DiskPath: disk, Region: home, Created: time.Date(2026, 11, 8, 0, 0, 0, 0, time.UTC),
	}
	if _, err := w.AddImage(t.Context(), newest); err != nil {
		t.Fatal(err)
	}
	return w
}

// newSSHFlow is a build that reads host keys as over SSH, and then works on the fakes.
func newSSHFlow(w *world, p *spec.Pipeline) *flow {
	f := newFlow(w, p)
	f.b.connect = func(ctx context.Context, in *instance, i types.Instance) (connection, error) {
		in.hostKeys(ctx)
		return w.fakes.connect(ctx, in, i)
	}
	return f
}

// newSSMFlow is a build over SSM.
func newSSMFlow(w *world, p *spec.Pipeline) *flow {
	f := newFlow(w, p)
	f.b.connect = f.b.reach
	return f
}

// debris is what an earlier run leaves that dies late: a candidate, and a bench with all that
// belongs to it, which was restarted.
func (f *flow) debris(ctx context.Context) error {
	base, err := f.b.Resolve(ctx, f.p, nil)
	if err != nil {
		return err
	}
	if _, err := f.image(ctx, base); err != nil {
		return err
	}
	m, err := f.open(ctx, "x")
	if err != nil {
		return err
	}
	return errors.Join(m.(*machine).Reboot(ctx), m.Close())
}

// TestThePolicyIsExact looks at an account, collects the garbage of a run and builds, all
// with the policy of the pipeline alone. It must be enough, and what it allows beyond the
// calls that were made must have a reason.
func TestThePolicyIsExact(t *testing.T) {
	t.Parallel()
	rare := []string{
		"ec2:DeleteVolume when a volume was left", "ec2:ModifyInstanceAttribute when the base doesn't say that it has ENA",
	}
	for _, tt := range []struct {
		by     string
		world  func(testing.TB) *world
		flow   func(*world, *spec.Pipeline) *flow
		left   []string
		unused []string
	}{
		{"ssh", newWorld, newSSHFlow, []string{"aws-profile eu-west-1/*"}, rare},
		{"ssm", newMachineWorld, newSSMFlow, nil, append(slices.Clone(rare),
			"iam:ListInstanceProfileTags when a profile was left", "ssm:CancelCommand when a command is cut off")},
	} {
		t.Run(tt.by, func(t *testing.T) {
			t.Parallel()
			w, p := tt.world(t), wholePipeline(tt.by)
			policy := access.Policy(p)
			w.bound(&policy)
			for _, f := range looked(t, w.builder(), p) {
				t.Errorf("looking found %s: %s", f.Name, f.Detail)
			}
			if err := tt.flow(w, p).debris(t.Context()); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.left, swept(t, w.builder())); diff != "" {
				t.Errorf("the sweep left (-want +got):\n%s", diff)
			}
			f := tt.flow(w, p)
			f.run = "20261124-120000-fedcba"
			if err := f.all(t.Context()); err != nil {
				t.Fatal(err)
			}
			called := w.called()
			w.bound(nil)
			if diff := cmp.Diff(whole, w.remains()); diff != "" {
				t.Errorf("left behind (-want +got):\n%s", diff)
			}
			_, unused := access.Compare(called, p)
			var reasons []string
			for _, n := range unused {
				reasons = append(reasons, n.Action+" when "+n.When)
			}
			if diff := cmp.Diff(tt.unused, reasons); diff != "" {
				t.Errorf("allowed and not called (-want +got):\n%s", diff)
			}
		})
	}
}

// looked are the findings of a look that aren't good, but for what can't be found out.
func looked(t *testing.T, b *Builder, p *spec.Pipeline) []builder.Finding {
	t.Helper()
	findings, _ := b.Survey(t.Context(), p)
	if len(findings) == 0 {
		t.Error("looking found nothing")
	}
	return slices.DeleteFunc(findings, func(f builder.Finding) bool { return f.OK || f.Optional })
}

// swept collects the garbage, and returns what of it stayed without being kept on purpose.
func swept(t *testing.T, b *Builder) []string {
	t.Helper()
	found, err := b.Sweep(t.Context(), builder.SweepRequest{
		Regions: []string{home, abroad}, Busy: func(string) (bool, bool, error) { return false, true, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, l := range found.Left {
		if !strings.Contains(l.Err.Error(), "checkpoint is kept") {
			left = append(left, l.Kind+" "+l.ID)
		}
	}
	return left
}
