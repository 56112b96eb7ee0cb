package aws

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"golang.org/x/crypto/ssh"

	"github.com/gildhq/gild/engine/builder/aws/client"
)

func keyName(token string) string { return "gild-" + token }

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
	name = keyName(o.token)
	in := &ec2.ImportKeyPairInput{
		KeyName: aws.String(name), PublicKeyMaterial: ssh.MarshalAuthorizedKey(line), TagSpecifications: o.tagged(types.ResourceTypeKeyPair),
	}
	_, err = client.Call(ctx, o.region.EC2.ImportKeyPair, in)
	if client.HasCode(err, "InvalidKeyPair.Duplicate") {
		// An answer was lost, or an attempt that died left its own: the name is made of our
		// token, and whose key it holds can't be told.
		if err = o.region.removeKeyPair(ctx, name); err == nil {
			_, err = client.Call(ctx, o.region.EC2.ImportKeyPair, in)
		}
	}
	if err != nil {
		return "", nil, fmt.Errorf("give EC2 the public key %s: %w", name, err)
	}
	return name, key, nil
}

// removeKeyPair removes a key pair. One that isn't there is no error.
func (r *region) removeKeyPair(ctx context.Context, name string) error {
	_, err := client.Call(ctx, r.EC2.DeleteKeyPair, &ec2.DeleteKeyPairInput{KeyName: aws.String(name)})
	if err != nil && !client.HasCode(err, "InvalidKeyPair.NotFound") {
		return fmt.Errorf("remove the key pair %s in %s: %w", name, r.Name, err)
	}
	return nil
}
