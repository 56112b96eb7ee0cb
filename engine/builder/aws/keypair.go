package aws

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"golang.org/x/crypto/ssh"

	"github.com/gildhq/gild/engine/builder/aws/client"
)

// makeKeyPair makes a key that lives as long as the instance. Only its public half leaves
// this process.
func (o *order) makeKeyPair(ctx context.Context) (name string, key ed25519.PrivateKey, err error) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", nil, err
	}
	line, err := ssh.NewPublicKey(public)
	if err != nil {
		return "", nil, err
	}
	name = "gild-" + o.token
	in := &ec2.ImportKeyPairInput{
		KeyName: aws.String(name), PublicKeyMaterial: ssh.MarshalAuthorizedKey(line), TagSpecifications: o.tagged(types.ResourceTypeKeyPair),
	}
	_, err = client.Call(ctx, o.region.EC2.ImportKeyPair, in)
	if client.HasCode(err, "InvalidKeyPair.Duplicate") {
		// An answer was lost, or an attempt that died left its own: the name is made of our
		// token, and whose key it holds can't be told.
		if err = o.region.removeKeyPair(ctx, &ec2.DeleteKeyPairInput{KeyName: aws.String(name)}); err == nil {
			_, err = client.Call(ctx, o.region.EC2.ImportKeyPair, in)
		}
	}
	if err != nil {
		return "", nil, fmt.Errorf("give EC2 the public key %s: %w", name, err)
	}
	return name, key, nil
}

// removeKeyPairs removes the keys of a claim.
func (r *region) removeKeyPairs(ctx context.Context, token string) error {
	out, err := client.Call(ctx, r.EC2.DescribeKeyPairs, &ec2.DescribeKeyPairsInput{Filters: []types.Filter{filter("tag:"+tagToken, token)}})
	if err != nil {
		return err
	}
	for _, k := range out.KeyPairs {
		err = errors.Join(err, r.removeKeyPair(ctx, &ec2.DeleteKeyPairInput{KeyPairId: k.KeyPairId}))
	}
	return err
}

func (r *region) removeKeyPair(ctx context.Context, in *ec2.DeleteKeyPairInput) error {
	_, err := client.Call(ctx, r.EC2.DeleteKeyPair, in)
	if client.HasCode(err, "InvalidKeyPair.NotFound") {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove the key pair %s%s: %w", aws.ToString(in.KeyPairId), aws.ToString(in.KeyName), err)
	}
	return nil
}
