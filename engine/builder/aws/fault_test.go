package aws

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/sandbox"
	"github.com/gildhq/gild/engine/step"
)

func (w *world) faults(f sandbox.Faults) {
	w.t.Helper()
	if err := w.SetFaults(f); err != nil {
		w.t.Fatal(err)
	}
}

// TestFaultsAllTheTime builds while 30 % of the calls are throttled, 10 % fail with 5xx and
// the answers of 5 % are lost.
func TestFaultsAllTheTime(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		for _, by := range []string{"ssm", "ssh"} {
			t.Run(fmt.Sprintf("%s %d", by, seed), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				p := testPipeline()
				p.AWS.Connect.By = by
				f := newFlow(w, p)
				w.faults(sandbox.Faults{Seed: seed, Throttle: 0.3, Unavailable: 0.1, Lost: 0.05, Lag: 2})
				if err := f.all(t.Context()); err != nil {
					t.Fatal(err)
				}
				w.faults(sandbox.Faults{})
				if diff := cmp.Diff(whole, w.remains()); diff != "" {
					t.Errorf("left behind (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// TestLostAnswers loses the answer of each kind of call that makes something, three times.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	for _, action := range []string{
		"RunInstances", "CreateImage", "CopyImage", "RegisterImage", "CreateSecurityGroup", "AuthorizeSecurityGroupIngress", "ImportKeyPair",
		"CreateRole", "CreateInstanceProfile", "AddRoleToInstanceProfile", "TerminateInstances", "DeleteSecurityGroup", "CreateTags", "StopInstances",
		"DeleteRole", "DeregisterImage",
	} {
		t.Run(action, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			p := testPipeline()
			if strings.Contains(action, "Key") || strings.Contains(action, "Ingress") {
				p.AWS.Connect.By = "ssh"
			}
			if action == "RegisterImage" || action == "DeregisterImage" {
				p.AWS.Image.BootMode = "uefi"
			}
			f := newFlow(w, p)
			var list []sandbox.Fault
			for n := 1; n <= 3; n++ {
				list = append(list, sandbox.Fault{Action: action, Nth: n, Kind: sandbox.Lost})
			}
			w.faults(sandbox.Faults{List: list})
			if err := f.all(t.Context()); err != nil {
				t.Fatal(err)
			}
			if w.calls(action) < 4 {
				t.Errorf("%s was called %d times; no answer was lost", action, w.calls(action))
			}
			if diff := cmp.Diff(whole, w.remains()); diff != "" {
				t.Errorf("left behind (-want +got):\n%s", diff)
			}
		})
	}
}

// open opens a bench on the base.
func (f *flow) open(ctx context.Context, key string, layers ...string) (builder.Machine, error) {
	base, err := f.b.Resolve(ctx, f.p, nil)
	if err != nil {
		return nil, err
	}
	return f.b.Open(ctx, f.ledger("bench"), builder.OpenRequest{Pipeline: f.p, Base: base, Layers: append([]string{keyBase}, layers...), Key: key, Bench: "bench"})
}

func (f *flow) instanceTypes() []string {
	var types []string
	for _, c := range f.w.Calls() {
		if c.Action == "RunInstances" && c.Error == "" {
			s := fmt.Sprint(c.Params["InstanceType"])
			if c.Params["InstanceMarketOptions"] != nil {
				s += " spot"
			}
			types = append(types, s)
		}
	}
	return types
}

func TestCapacity(t *testing.T) {
	t.Parallel()
	none := func(where map[string]string) sandbox.Fault {
		return sandbox.Fault{Action: "RunInstances", Kind: sandbox.Capacity, Where: where}
	}
	spot := map[string]string{"InstanceMarketOptions.MarketType": "spot"}
	for _, tt := range []struct {
		name    string
		spot    string
		faults  []sandbox.Fault
		want    []string
		wantErr string
	}{
		{name: "another zone", spot: "never", faults: []sandbox.Fault{{Action: "RunInstances", Kind: sandbox.Capacity, Nth: 1}}, want: []string{"t3.small"}},
		{name: "another type", spot: "never", faults: []sandbox.Fault{none(map[string]string{"InstanceType": "t3.small"})}, want: []string{"t3.medium"}},
		{name: "spot is preferred", spot: "prefer", want: []string{"t3.small spot"}},
		{name: "on demand where spot is full", spot: "prefer", faults: []sandbox.Fault{none(spot)}, want: []string{"t3.small"}},
		{name: "spot only", spot: "only", faults: []sandbox.Fault{none(spot)}, wantErr: "InsufficientInstanceCapacity for t3.small in eu-west-1a (spot), t3.small in eu-west-1b (spot)"},
		{name: "nowhere", spot: "prefer", faults: []sandbox.Fault{none(nil)}, wantErr: "allow more types, zones or spot: prefer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			p := testPipeline()
			p.AWS.Instance.Spot = tt.spot
			f := newFlow(w, p)
			w.faults(sandbox.Faults{List: tt.faults})
			m, err := f.open(t.Context(), "x")
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Errorf("error %v, want %q in it", err, tt.wantErr)
				}
			} else if err != nil {
				t.Fatal(err)
			} else if err := m.Close(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, f.instanceTypes()); diff != "" {
				t.Errorf("launched (-want +got):\n%s", diff)
			}
			if err := f.b.Release(t.Context(), "bench"); err != nil {
				t.Fatal(err)
			}
			if left := w.remains(); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestQuota(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, sandbox.Config{Quotas: sandbox.Quotas{VCPUs: 1}})
	_, err := newFlow(w, testPipeline()).open(t.Context(), "x")
	if err == nil || !strings.Contains(err.Error(), "VcpuLimitExceeded") || !strings.Contains(err.Error(), "Service Quotas") {
		t.Errorf("error %v", err)
	}
	if left := w.remains(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestSpotInterruption takes the instance away while a command runs.
func TestSpotInterruption(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := testPipeline()
	p.AWS.Instance.Spot = "prefer"
	f := newFlow(w, p)
	w.faults(sandbox.Faults{List: []sandbox.Fault{{Action: "RunInstances", Nth: 1, Kind: sandbox.SpotInterruption, For: time.Minute}}})
	m, err := f.open(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- m.Exec(t.Context(), step.Cmd{Argv: []string{"sleep", "infinity"}}) }()
	if err := w.Advance(5 * time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, errInterrupted) || !strings.Contains(err.Error(), "EC2 has taken the instance back") {
		t.Errorf("error of the command: %v", err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	w.faults(sandbox.Faults{})
	again, err := f.open(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"t3.small spot", "t3.small"}, f.instanceTypes()); diff != "" {
		t.Errorf("launched (-want +got):\n%s", diff)
	}
	if err := f.b.Release(t.Context(), "bench"); err != nil {
		t.Fatal(err)
	}
	if left := w.remains(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestStuck waits for what never comes, no longer than is allowed, and leaves nothing.
func TestStuck(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		action, want string
	}{
		{"RunInstances", "to run (it is pending): it took too long: no more than 500ms is allowed; see builders.aws.within"},
		{"CreateImage", "it took too long: no more than 500ms is allowed"},
		{"CopyImage", "it took too long: no more than 500ms is allowed"},
	} {
		t.Run(tt.action, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			p := testPipeline()
			p.AWS.Within = 500 * time.Millisecond
			f := newFlow(w, p)
			fault := sandbox.Fault{Action: tt.action, Kind: sandbox.Stuck}
			if tt.action == "CreateImage" {
				fault.Nth = 2 // the first is the checkpoint
			}
			w.faults(sandbox.Faults{List: []sandbox.Fault{fault}})
			err := f.all(t.Context())
			if !errors.Is(err, errWithin) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
			for _, r := range w.remains() {
				if !strings.HasSuffix(r, "checkpoint available") && !strings.HasSuffix(r, "published available") {
					t.Errorf("left behind: %s", r)
				}
			}
		})
	}
}

// TestACheckpointThatFails is no failure of the build.
func TestACheckpointThatFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := testPipeline()
	p.AWS.Within = time.Second
	f := newFlow(w, p)
	w.faults(sandbox.Faults{List: []sandbox.Fault{{Action: "CreateImage", Nth: 1, Kind: sandbox.Stuck}}})
	if err := f.all(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{whole[0], whole[2]}
	if diff := cmp.Diff(want, w.remains()); diff != "" {
		t.Errorf("left behind (-want +got):\n%s", diff)
	}
}

// TestDenied names the action that is missing, and leaves nothing.
func TestDenied(t *testing.T) {
	t.Parallel()
	for _, action := range []string{"ec2:RunInstances", "ec2:CreateSecurityGroup", "iam:CreateRole", "ec2:CreateImage", "ec2:CopyImage", "ec2:DescribeImages"} {
		t.Run(action, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			f := newFlow(w, testPipeline())
			doc := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"},{"Effect":"Deny","Action":"` + action + `","Resource":"*"}]}`
			if err := w.SetPolicy(sandbox.DefaultKey, doc); err != nil {
				t.Fatal(err)
			}
			err := f.all(t.Context())
			if err == nil || !strings.Contains(err.Error(), action) {
				t.Errorf("error %v, want %s in it", err, action)
			}
			if err := w.SetPolicy(sandbox.DefaultKey, ""); err != nil {
				t.Fatal(err)
			}
			for _, r := range w.remains() {
				if !strings.HasSuffix(r, "checkpoint available") && !strings.HasSuffix(r, "published available") {
					t.Errorf("left behind: %s", r)
				}
			}
		})
	}
}
