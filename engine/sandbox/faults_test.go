package sandbox_test

import (
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/sandbox"
)

func TestFaultsOfCertainCalls(t *testing.T) {
	t.Parallel()
	for kind, want := range map[sandbox.FaultKind]string{
		sandbox.Throttle:    "RequestLimitExceeded",
		sandbox.Unavailable: "Unavailable",
		sandbox.Capacity:    "InsufficientInstanceCapacity",
		sandbox.Slow:        "",
	} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			w := open(t, sandbox.Config{})
			c := w.mine(t)
			base := w.seed(t, "base")
			must(t, w.SetFaults(sandbox.Faults{List: []sandbox.Fault{{Service: "ec2", Action: "RunInstances",
				Where: map[string]string{"InstanceType": "t3.micro", "Placement.AvailabilityZone": "us-east-1a"}, Nth: 2, Kind: kind, For: time.Millisecond}}}))
			at := func(zone string) func(*ec2.RunInstancesInput) {
				return func(in *ec2.RunInstancesInput) { in.Placement = &types.Placement{AvailabilityZone: &zone} }
			}
			var got []string
			for _, zone := range []string{"us-east-1a", "us-east-1b", "us-east-1a", "us-east-1a"} {
				_, err := c.RunInstances(t.Context(), runInput(base, at(zone)))
				got = append(got, code(err))
			}
			if diff := cmp.Diff([]string{"", "", want, ""}, got); diff != "" {
				t.Errorf("answers (-want +got):\n%s", diff)
			}
			out, err := c.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{})
			must(t, err)
			made := 4
			if want != "" {
				made = 3
			}
			if len(out.Reservations) != made {
				t.Errorf("%d reservations were made, want %d", len(out.Reservations), made)
			}
		})
	}
}

// A lost answer: the effect is there, the caller sees a broken connection, and the client
// token gives the answer that was lost.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	w := open(t, sandbox.Config{})
	c := w.mine(t)
	base := w.seed(t, "base")
	must(t, w.SetFaults(sandbox.Faults{List: []sandbox.Fault{{Action: "RunInstances", Nth: 1, Kind: sandbox.Lost}}}))
	in := runInput(base, func(in *ec2.RunInstancesInput) { in.ClientToken = aws.String("once") })
	_, err := c.RunInstances(t.Context(), in)
	if err == nil || code(err) == "InternalError" {
		t.Fatalf("the answer came: %v", err)
	}
	again, err := c.RunInstances(t.Context(), in)
	must(t, err)
	out, err := c.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{})
	must(t, err)
	if len(out.Reservations) != 1 || *out.Reservations[0].Instances[0].InstanceId != *again.Instances[0].InstanceId {
		t.Errorf("%d reservations", len(out.Reservations))
	}
	last := w.Calls()
	if diff := cmp.Diff([]sandbox.FaultKind{sandbox.Lost}, last[0].Faults); diff != "" {
		t.Errorf("the audit log (-want +got):\n%s", diff)
	}
}

func TestRatesAreSeeded(t *testing.T) {
	t.Parallel()
	play := func(seed uint64, calls int) (got []string) {
		w := open(t, sandbox.Config{})
		c := w.mine(t)
		must(t, w.SetFaults(sandbox.Faults{Seed: seed, Throttle: 0.3, Unavailable: 0.2}))
		for range calls {
			_, err := c.DescribeRegions(t.Context(), &ec2.DescribeRegionsInput{})
			got = append(got, code(err))
		}
		return got
	}
	first := play(7, 200)
	if diff := cmp.Diff(first[:50], play(7, 50)); diff != "" {
		t.Errorf("the same seed plays differently:\n%s", diff)
	}
	count := func(code string) (n int) {
		for _, c := range first {
			if c == code {
				n++
			}
		}
		return n
	}
	if a, b := count("RequestLimitExceeded"), count("Unavailable"); a < 40 || a > 80 || b < 20 || b > 60 {
		t.Errorf("of 200 calls %d were throttled and %d failed, with rates of 30%% and 20%%", a, b)
	}
	if slices.Equal(first[:50], play(8, 50)) {
		t.Error("another seed plays the same")
	}
}

func TestLag(t *testing.T) {
	t.Parallel()
	w := open(t, sandbox.Config{})
	c := w.mine(t)
	base := w.seed(t, "base")
	must(t, w.SetFaults(sandbox.Faults{Lag: 2}))
	i := run(t, c, base)
	var got []string
	for range 4 {
		_, err := c.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{InstanceIds: []string{*i.InstanceId}})
		got = append(got, code(err))
	}
	if diff := cmp.Diff([]string{"InvalidInstanceID.NotFound", "InvalidInstanceID.NotFound", "", ""}, got); diff != "" {
		t.Errorf("answers (-want +got):\n%s", diff)
	}
}

func TestStuck(t *testing.T) {
	t.Parallel()
	w := open(t, sandbox.Config{})
	c := w.mine(t)
	base := w.seed(t, "base")
	must(t, w.SetFaults(sandbox.Faults{List: []sandbox.Fault{{Action: "RunInstances", Nth: 1, Kind: sandbox.Stuck}}}))
	stuck, fine := run(t, c, base), run(t, c, base)
	waitInstance(t, c, fine.InstanceId, "running")
	must(t, w.Advance(24*time.Hour))
	if got := instance(t, c, stuck.InstanceId); got.State.Name != "pending" {
		t.Errorf("the stuck instance is %s", got.State.Name)
	}
	_, err := c.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{*stuck.InstanceId}})
	must(t, err)
	waitInstance(t, c, stuck.InstanceId, "terminated")
}

func TestFaultsThatMakeNoSense(t *testing.T) {
	t.Parallel()
	w := open(t, sandbox.Config{})
	for name, f := range map[string]sandbox.Faults{
		"kind": {List: []sandbox.Fault{{Kind: "gremlins"}}},
		"rate": {Throttle: 30},
	} {
		if w.SetFaults(f) == nil {
			t.Errorf("a bad %s was taken", name)
		}
	}
	if w.Advance(-time.Second) == nil {
		t.Error("the clock was turned back")
	}
}

func TestAuditLog(t *testing.T) {
	t.Parallel()
	w := open(t, sandbox.Config{Now: clock})
	c := w.mine(t)
	_, err := c.CreateKeyPair(t.Context(), &ec2.CreateKeyPairInput{KeyName: aws.String("k"), KeyType: "ed25519"})
	must(t, err)
	_, err = c.DeleteSnapshot(t.Context(), &ec2.DeleteSnapshotInput{SnapshotId: aws.String("snap-0123456789abcdef0")})
	wantCode(t, "InvalidSnapshot.NotFound", err)
	got := w.Calls()
	for i := range got {
		if got[i].ID == "" {
			t.Error("a call without id")
		}
		got[i].ID = ""
	}
	base := sandbox.Call{At: clock(), Service: "ec2", Region: "us-east-1", Account: sandbox.DefaultAccount}
	one, two := base, base
	one.Action, one.Params = "CreateKeyPair", map[string]any{"KeyName": "k", "KeyType": "ed25519"}
	two.Action, two.Params, two.Error = "DeleteSnapshot", map[string]any{"SnapshotId": "snap-0123456789abcdef0"}, "InvalidSnapshot.NotFound"
	if diff := cmp.Diff([]sandbox.Call{one, two}, got); diff != "" {
		t.Errorf("the audit log (-want +got):\n%s", diff)
	}
}
