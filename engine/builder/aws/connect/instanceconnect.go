package connect

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2instanceconnect"
	"github.com/aws/smithy-go"
	"golang.org/x/crypto/ssh"
)

// ConnectClient is what is used of the SDK's [ec2instanceconnect.Client].
type ConnectClient interface {
	SendSSHPublicKey(context.Context, *ec2instanceconnect.SendSSHPublicKeyInput, ...func(*ec2instanceconnect.Options)) (*ec2instanceconnect.SendSSHPublicKeyOutput, error)
}

var _ ConnectClient = (*ec2instanceconnect.Client)(nil)

// InstanceConnect connects over SSH with a key that is made here, never leaves memory, and
// is given to the instance through EC2 Instance Connect before every attempt to connect: it
// is good for 60 seconds. The instance needs the package ec2-instance-connect.
func InstanceConnect(ctx context.Context, c ConnectClient, in Instance, o Options) (*Machine, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("connect to %s with EC2 Instance Connect: %w", in.ID, err)
	}
	signer, err := ssh.NewSignerFromSigner(key)
	if err != nil {
		return nil, fmt.Errorf("connect to %s with EC2 Instance Connect: %w", in.ID, err)
	}
	public := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
	push := func(ctx context.Context, user string) error {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		req := &ec2instanceconnect.SendSSHPublicKeyInput{
			InstanceId: aws.String(in.ID), InstanceOSUser: aws.String(user), SSHPublicKey: aws.String(public),
		}
		if in.Zone != "" {
			req.AvailabilityZone = aws.String(in.Zone)
		}
		out, err := c.SendSSHPublicKey(ctx, req)
		if err != nil && comesLate(err) {
			return fmt.Errorf("give the instance a key: %w", err)
		}
		if err != nil {
			return permanent{fmt.Errorf("give the instance a key: %w", err)}
		}
		if !out.Success {
			return fmt.Errorf("give the instance a key: EC2 Instance Connect refused it, request %s", aws.ToString(out.RequestId))
		}
		return nil
	}
	return openShell(ctx, in, signer, push, o)
}

// comesLate tells whether an error may be over when the instance runs, or the service is
// less busy.
func comesLate(err error) bool {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return true // it didn't reach the service
	}
	switch api.ErrorCode() {
	case "EC2InstanceNotFoundException", "EC2InstanceStateInvalidException", "EC2InstanceUnavailableException",
		"ServiceException", "ThrottlingException":
		return true
	}
	return false
}
