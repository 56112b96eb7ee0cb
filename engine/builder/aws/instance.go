package aws

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/builder/aws/client"
)

// instance is one that the builder launched, with all that was made for it alone.
type instance struct {
	order
	builder *Builder
	image   types.Image
	// first is set for a bench on a base: only then there is user data, and further volumes.
	first bool
	log   io.Writer

	id   string
	spot bool
	key  ed25519.PrivateKey
	last types.Instance // as it was when it began to run
	conn connection
	// made is what has to be removed, in the order in which it was made.
	made []made
}

type made struct {
	claim  builder.Claim
	remove func(context.Context) error
}

// claimed records what is about to be made and how it is removed.
func (in *instance) claimed(ctx context.Context, kind, note string, remove func(context.Context) error) error {
	c, err := in.claim(ctx, kind, note)
	if err == nil {
		in.made = append(in.made, made{c, remove})
	}
	return err
}

// start launches the instance and connects to it. When that fails nothing of it is left, or
// its claims are still open.
func (in *instance) start(ctx context.Context, onDemand bool) error {
	err := in.launch(ctx, onDemand)
	if err == nil {
		err = in.open(ctx)
	}
	if err == nil {
		return nil
	}
	return errors.Join(err, in.end(ctx))
}

func (in *instance) launch(ctx context.Context, onDemand bool) error {
	subnets, err := in.region.findSubnets(ctx, in.p.AWS.Instance)
	if err != nil {
		return err
	}
	run, err := in.prepare(ctx, subnets[0])
	if err != nil {
		return err
	}
	err = in.claimed(ctx, claimInstance, "the "+in.kind+" instance", func(ctx context.Context) error {
		if in.id != "" {
			return in.region.terminateAll(ctx, []string{in.id})
		}
		return in.region.terminate(ctx, in.token) // no answer came: there may be one all the same
	})
	if err != nil {
		return err
	}
	if err := in.run(ctx, run, subnets, onDemand); err != nil {
		return err
	}
	return in.running(ctx)
}

// prepare makes what the instance needs, and returns what all tries to launch it ask for.
func (in *instance) prepare(ctx context.Context, subnet types.Subnet) (*ec2.RunInstancesInput, error) {
	a := in.p.AWS
	run := &ec2.RunInstancesInput{
		ImageId: in.image.ImageId, MinCount: aws.Int32(1), MaxCount: aws.Int32(1), SecurityGroupIds: a.Instance.SecurityGroups,
		MetadataOptions: &types.InstanceMetadataOptionsRequest{
			HttpEndpoint: types.InstanceMetadataEndpointStateEnabled, HttpTokens: types.HttpTokensStateRequired, HttpPutResponseHopLimit: aws.Int32(1),
		},
	}
	var err error
	if run.BlockDeviceMappings, err = in.mappings(); err != nil {
		return nil, err
	}
	if in.first && a.Instance.UserData != "" {
		run.UserData = aws.String(base64Text(a.Instance.UserData))
	}
	if err := in.giveProfile(ctx, run); err != nil {
		return nil, err
	}
	if err := in.giveGroup(ctx, run, subnet); err != nil {
		return nil, err
	}
	return run, in.giveKey(ctx, run)
}

// giveProfile names the instance profile: the one given, or one that only lets the SSM agent work.
func (in *instance) giveProfile(ctx context.Context, run *ec2.RunInstancesInput) error {
	switch given := in.p.AWS.Instance.Profile; {
	case strings.HasPrefix(given, "arn:"):
		run.IamInstanceProfile = &types.IamInstanceProfileSpecification{Arn: aws.String(given)}
		return nil
	case given != "":
		run.IamInstanceProfile = &types.IamInstanceProfileSpecification{Name: aws.String(given)}
		return nil
	case in.p.AWS.Connect.By != "ssm":
		return nil
	}
	err := in.claimed(ctx, claimProfile, "the instance profile", func(ctx context.Context) error { return in.region.removeProfile(ctx, profileName(in.token)) })
	if err != nil {
		return err
	}
	name, err := in.makeProfile(ctx)
	run.IamInstanceProfile = &types.IamInstanceProfileSpecification{Name: aws.String(name)}
	return err
}

func (in *instance) giveGroup(ctx context.Context, run *ec2.RunInstancesInput, subnet types.Subnet) error {
	if len(run.SecurityGroupIds) > 0 {
		return nil
	}
	var from netip.Prefix // none: nothing is let in
	var err error
	if in.p.AWS.Connect.By != "ssm" {
		if from, err = in.builder.callerRange(ctx, in.p, subnet); err != nil {
			return err
		}
	}
	var id string
	err = in.claimed(ctx, claimGroup, "the security group", func(ctx context.Context) error {
		if id != "" {
			return in.region.removeGroup(ctx, id)
		}
		return in.region.removeGroups(ctx, in.token)
	})
	if err != nil {
		return err
	}
	id, err = in.makeGroup(ctx, aws.ToString(subnet.VpcId), in.p.AWS.Connect.Port, from)
	run.SecurityGroupIds = []string{id}
	return err
}

func (in *instance) giveKey(ctx context.Context, run *ec2.RunInstancesInput) error {
	if in.p.AWS.Connect.By != "ssh" {
		return nil
	}
	err := in.claimed(ctx, claimKeyPair, "the SSH key", func(ctx context.Context) error { return in.region.removeKeyPair(ctx, keyName(in.token)) })
	if err != nil {
		return err
	}
	name, key, err := in.makeKeyPair(ctx)
	run.KeyName, in.key = aws.String(name), key
	return err
}

// running waits until the instance runs, or has ended instead.
func (in *instance) running(ctx context.Context) error {
	ctx, cancel := limit(ctx, in.p.AWS.Within)
	defer cancel()
	last, err := in.region.instances.Wait(ctx, in.id, func(i types.Instance, found bool) (bool, error) {
		if !found {
			return false, errors.New("EC2 doesn't know it any more")
		}
		switch i.State.Name {
		case types.InstanceStateNamePending:
			return false, nil
		case types.InstanceStateNameRunning:
			return true, nil
		}
		return false, endedError(i)
	})
	if err != nil {
		return fmt.Errorf("wait for %s in %s to run%s: %w", in.id, in.region.Name, stateOf(last), err)
	}
	in.last = last
	return nil
}

func stateOf(i types.Instance) string {
	if i.State == nil {
		return ""
	}
	return fmt.Sprintf(" (it is %s)", i.State.Name)
}

// endedError says why an instance that should run doesn't.
func endedError(i types.Instance) error {
	why := reason(i.StateReason)
	if i.StateReason != nil && aws.ToString(i.StateReason.Code) == "Server.SpotInstanceTermination" {
		return fmt.Errorf("%w: %s; it was a spot instance: the next try takes one on demand unless spot is only", errInterrupted, why)
	}
	return fmt.Errorf("it is %s: %s", i.State.Name, why)
}

// errInterrupted is EC2 taking a spot instance back.
var errInterrupted = errors.New("EC2 has taken the instance back")

var ended = []types.InstanceStateName{
	types.InstanceStateNameShuttingDown, types.InstanceStateNameTerminated, types.InstanceStateNameStopping, types.InstanceStateNameStopped,
}

// watch returns a context that ends when the instance does, with the reason as its cause.
// stop must be called.
func (in *instance) watch(ctx context.Context) (_ context.Context, stop func()) {
	watched, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, err := in.region.instances.Wait(watched, in.id, func(i types.Instance, found bool) (bool, error) {
			if found && slices.Contains(ended, i.State.Name) {
				return false, endedError(i)
			}
			return !found, nil
		})
		if err != nil && watched.Err() == nil {
			cancel(fmt.Errorf("instance %s: %w", in.id, err))
		}
	}()
	return watched, func() { cancel(nil); <-done }
}

// explain tells why a call on an instance failed that has ended meanwhile.
func (in *instance) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	found, lookErr := in.region.describeInstances(ctx, []string{in.id})
	if lookErr != nil {
		return err // what went wrong first is what matters
	}
	i, ok := found[in.id]
	if !ok || !slices.Contains(ended, i.State.Name) {
		return err
	}
	return fmt.Errorf("instance %s: %w (%w)", in.id, endedError(i), err)
}

// undoWithin is how long removing an instance and what belongs to it may take.
const undoWithin = 10 * time.Minute

// end terminates the instance and removes what was made for it, the latest first, also when
// ctx has ended. What can't be removed keeps its claim.
func (in *instance) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoWithin)
	defer cancel()
	var errs []error
	if in.conn != nil {
		// What it would tidy up on the machine goes away with that.
		in.conn.Close()
		in.conn = nil
	}
	for _, m := range slices.Backward(in.made) {
		err := m.remove(ctx)
		if err == nil {
			err = m.claim.Settle(ctx)
		}
		errs = append(errs, err)
	}
	in.made = nil
	return errors.Join(errs...)
}

// terminate ends the instances of a claim and waits until they are gone.
func (r *region) terminate(ctx context.Context, token string) error {
	var ids []string
	err := r.lookFor(ctx, func() (bool, error) {
		found, err := r.findInstances(ctx, filter("tag:"+tagToken, token))
		for _, i := range found {
			if i.State.Name != types.InstanceStateNameTerminated {
				ids = append(ids, aws.ToString(i.InstanceId))
			}
		}
		return len(found) > 0, err
	})
	if err != nil {
		return fmt.Errorf("look for the instance of claim %s in %s: %w", token, r.Name, err)
	}
	return r.terminateAll(ctx, ids)
}

func (r *region) terminateAll(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	what := strings.Join(ids, ", ")
	_, err := client.Call(ctx, r.EC2.TerminateInstances, &ec2.TerminateInstancesInput{InstanceIds: ids})
	if client.HasCode(err, "InvalidInstanceID.NotFound") && len(ids) == 1 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("terminate %s in %s: %w", what, r.Name, err)
	}
	for _, id := range ids {
		_, err := r.instances.Wait(ctx, id, func(i types.Instance, found bool) (bool, error) {
			return !found || i.State.Name == types.InstanceStateNameTerminated, nil
		})
		if err != nil {
			return fmt.Errorf("wait for %s in %s to be terminated: %w", id, r.Name, err)
		}
	}
	return nil
}

// minLooks is how often something is looked for at least, however long the calls take.
const minLooks = 4

// lookFor looks for something that may have been made although no answer came, until it is
// found or has had time to show up.
func (r *region) lookFor(ctx context.Context, look func() (found bool, err error)) error {
	t := r.builder.config.Timing
	_, err := r.lookWithin(ctx, t.Looks, minLooks, look)
	return err
}

// lookAgain looks for something that is known to be there, and may not show for a while.
func (r *region) lookAgain(ctx context.Context, look func() (found bool, err error)) (found bool, err error) {
	return r.lookWithin(ctx, r.builder.config.Timing.Settling, minLooks, look)
}

func (r *region) lookWithin(ctx context.Context, within time.Duration, looks int, look func() (found bool, err error)) (bool, error) {
	deadline := time.Now().Add(within)
	for n := 1; ; n++ {
		found, err := look()
		if found || err != nil || n >= looks && !time.Now().Before(deadline) {
			return found, err
		}
		t := time.NewTimer(r.builder.config.Timing.Looks / (minLooks - 1))
		select {
		case <-ctx.Done():
			t.Stop()
			return false, context.Cause(ctx)
		case <-t.C:
		}
	}
}
