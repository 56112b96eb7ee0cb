package aws

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"golang.org/x/crypto/ssh"

	"github.com/gildhq/gild/engine/builder/aws/client"
	"github.com/gildhq/gild/engine/builder/aws/connect"
	"github.com/gildhq/gild/engine/builder/aws/publisher"
	"github.com/gildhq/gild/engine/step"
)

// connection is a way to work on an instance: a [connect.Machine].
type connection interface {
	step.MachineHandle
	Dial(ctx context.Context, port int) (net.Conn, error)
	Reboot(ctx context.Context, reboot func(context.Context) error) error
	Close() error
}

// connector connects to a running instance.
type connector func(ctx context.Context, in *instance, i types.Instance) (connection, error)

// open connects to the instance, and waits until it may be worked on, but not for one that
// has ended.
func (in *instance) open(ctx context.Context) error {
	say(in.log, "connecting to %s with %s", in.id, in.p.AWS.Connect.By)
	watched, stop := in.watch(ctx)
	defer stop()
	conn, err := in.builder.connect(watched, in, in.last)
	if err != nil {
		if cause := context.Cause(watched); cause != nil && ctx.Err() == nil {
			err = errors.Join(cause, err)
		}
		return fmt.Errorf("connect to %s: %w%s", in.id, err, in.connectHint(ctx))
	}
	in.conn = conn
	return in.settle(watched)
}

// cloudInit waits for cloud-init, where there is one. Its mistakes are its own matter.
const cloudInit = "command -v cloud-init >/dev/null || exit 0; cloud-init status --wait >/dev/null 2>&1 || :"

// settle waits until cloud-init is done with the machine. At the first start of an instance
// it sets keys, names and package sources, in the way of steps, and would write what sealing
// has removed.
func (in *instance) settle(ctx context.Context) error {
	within := in.p.AWS.Within
	ctx, stop := context.WithTimeoutCause(ctx, within, fmt.Errorf("it wasn't done within %s; see /var/log/cloud-init.log there", within))
	defer stop()
	if err := in.conn.Exec(ctx, step.Cmd{Argv: []string{"/bin/sh", "-c", cloudInit}}); err != nil {
		return fmt.Errorf("wait for cloud-init on %s: %w", in.id, err)
	}
	return nil
}

// connectHint says what mostly is the reason.
func (in *instance) connectHint(ctx context.Context) string {
	if ctx.Err() != nil {
		return ""
	}
	if in.p.AWS.Connect.By == "ssm" {
		return "; SSM needs an image with the agent (Debian's has none), a way out to the internet or VPC endpoints, and a profile that allows it; or set builders.aws.connect to ssh"
	}
	return "; SSH needs a way to the address, the right user, and, when its address was found wrong, builders.aws.connect.from"
}

// reach connects as the pipeline asks for.
func (b *Builder) reach(ctx context.Context, in *instance, i types.Instance) (connection, error) {
	c := in.p.AWS.Connect
	target := connect.Instance{
		ID: in.id, Region: in.region.Name, Zone: aws.ToString(i.Placement.AvailabilityZone), Private: aws.ToString(i.PrivateIpAddress),
		Arch: in.p.Arch, User: in.user(),
	}
	o := connect.Options{Within: in.p.AWS.Within, Guess: b.config.Timing.Command}
	if c.By == "ssm" {
		return opened(connect.SSM(ctx, in.region.SSM, target, o))
	}
	address := aws.ToString(i.PublicIpAddress)
	if c.Private {
		address = aws.ToString(i.PrivateIpAddress)
	}
	if address == "" {
		return nil, fmt.Errorf("%s has no public address; choose a subnet that gives one, or set builders.aws.connect.address to private", in.id)
	}
	target.Address = address
	if c.Port != 22 {
		target.Address = net.JoinHostPort(address, strconv.Itoa(c.Port))
	}
	if o.HostKeys = in.hostKeys(ctx); o.HostKeys == nil {
		say(in.log, "the console of %s doesn't show its SSH host keys; the first one seen is trusted", in.id)
	}
	if c.By == "instance-connect" {
		return opened(connect.InstanceConnect(ctx, in.region.Connect, target, o))
	}
	return opened(connect.SSH(ctx, target, in.key, o))
}

// opened keeps a nil machine from becoming an interface that isn't nil.
func opened(m *connect.Machine, err error) (connection, error) {
	if err != nil {
		return nil, err
	}
	return m, nil
}

// user is who logs in over SSH; empty lets connect try those of well-known images.
func (in *instance) user() string {
	if u := in.p.AWS.Connect.User; u != "" {
		return u
	}
	if u := tagValue(in.image.Tags, tagUser); u != "" {
		return u
	}
	return publisher.User(aws.ToString(in.image.OwnerId))
}

// keyLooks is how often the console is asked for host keys: a system mostly prints them a
// few seconds after it lets people in.
const keyLooks = 4

// hostKeys learns the host keys from the serial console, which only the instance can write
// and only the account can read; nil when it doesn't show them in time.
func (in *instance) hostKeys(ctx context.Context) []ssh.PublicKey {
	for n := range keyLooks {
		text, err := in.region.console(ctx, in.id)
		if err != nil {
			return nil // knowing no key is allowed, and said
		}
		if keys, err := connect.ParseHostKeys(text); err == nil && len(keys) > 0 {
			return keys
		}
		if n == keyLooks-1 {
			break
		}
		t := time.NewTimer(in.builder.config.Timing.Poll)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
	}
	return nil
}

// console returns what the serial console has said, control characters and all.
func (r *region) console(ctx context.Context, id string) (string, error) {
	out, err := client.Call(ctx, r.EC2.GetConsoleOutput, &ec2.GetConsoleOutputInput{InstanceId: aws.String(id), Latest: aws.Bool(true)})
	if client.HasCode(err, "UnsupportedOperation", "InvalidParameterCombination") {
		// Types that aren't of the Nitro kind only have what was kept after the boot.
		out, err = client.Call(ctx, r.EC2.GetConsoleOutput, &ec2.GetConsoleOutputInput{InstanceId: aws.String(id)})
	}
	if err != nil {
		return "", err
	}
	text, err := base64.StdEncoding.DecodeString(strings.TrimSpace(aws.ToString(out.Output)))
	return string(text), err
}
