package sandbox_test

import (
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2instanceconnect"
	"golang.org/x/crypto/ssh"
)

// connectKey makes a key whose secret nobody has.
func connectKey(t testing.TB) string {
	t.Helper()
	public, _, err := ed25519.GenerateKey(nil)
	must(t, err)
	key, err := ssh.NewPublicKey(public)
	must(t, err)
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

func TestInstanceConnect(t *testing.T) {
	t.Parallel()
	s, c, id := quickInstance(t)
	ctx := t.Context()
	send := func(change func(*ec2instanceconnect.SendSSHPublicKeyInput)) error {
		in := &ec2instanceconnect.SendSSHPublicKeyInput{InstanceId: id, InstanceOSUser: aws.String("admin"), SSHPublicKey: aws.String(connectKey(t))}
		change(in)
		_, err := c.connect.SendSSHPublicKey(ctx, in)
		return err
	}
	first, second := connectKey(t)+" someone@somewhere", connectKey(t)
	must(t, send(func(in *ec2instanceconnect.SendSSHPublicKeyInput) { in.SSHPublicKey = &first }))
	must(t, s.Server.Advance(30*time.Second))
	must(t, send(func(in *ec2instanceconnect.SendSSHPublicKeyInput) { in.SSHPublicKey = &second }))

	keys := func() string {
		return *shell(t, c, id, `t=$(curl -s -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token) &&
			curl -s -H "X-aws-ec2-metadata-token: $t" http://169.254.169.254/latest/meta-data/managed-ssh-keys/active-keys/admin`).StandardOutputContent
	}
	plain := strings.Join(strings.Fields(first)[:2], " ")
	if got := keys(); !strings.Contains(got, plain) || !strings.Contains(got, second) {
		t.Errorf("the instance sees the keys %q, want both", got)
	}
	must(t, s.Server.Advance(31*time.Second))
	if got := keys(); strings.Contains(got, plain) || !strings.Contains(got, second) {
		t.Errorf("after a minute the instance sees the keys %q, want the second one", got)
	}

	wantCode(t, "EC2InstanceNotFoundException", send(func(in *ec2instanceconnect.SendSSHPublicKeyInput) { in.InstanceId = aws.String("i-00000000000000000") }))
	wantCode(t, "EC2InstanceNotFoundException", send(func(in *ec2instanceconnect.SendSSHPublicKeyInput) { in.AvailabilityZone = aws.String("eu-west-1a") }))
	wantCode(t, "InvalidArgsException", send(func(in *ec2instanceconnect.SendSSHPublicKeyInput) {
		in.SSHPublicKey = aws.String("ecdsa-sha2-nistp256 " + strings.Repeat("A", 300))
	}))
	_, err := c.ec2.StopInstances(ctx, &ec2.StopInstancesInput{InstanceIds: []string{*id}})
	must(t, err)
	wantCode(t, "EC2InstanceStateInvalidException", send(func(*ec2instanceconnect.SendSSHPublicKeyInput) {}))
}
