package access

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"golang.org/x/crypto/ssh"

	"github.com/gildhq/gild/engine/builder/aws/client"
)

// tryDry asks EC2, for the calls that make things out of nothing, whether it would do them.
// Calls on things of ours can't be tried before there are any.
func (c *check) tryDry(ctx context.Context, because error) {
	all := c.known.Policy(c.p).Actions()
	// What was looked at before is known: had it been refused, that was recorded then.
	left := slices.DeleteFunc(slices.Clone(all), func(action string) bool {
		return strings.HasPrefix(action, "ec2:Describe") || c.denied[action]
	})
	for _, action := range c.denied.sorted() {
		c.missing(action, "")
	}
	for _, try := range []struct {
		action string
		on     bool
		call   func(context.Context) error
	}{
		{"ec2:RunInstances", c.base != "" && c.subnet != "" && len(c.types) > 0 && !c.broken, c.dryRun},
		{"ec2:CreateSecurityGroup", c.want.madeGroup && c.vpc != "", c.dryGroup},
		{"ec2:ImportKeyPair", c.want.keyPair, c.dryKey},
	} {
		if try.on && c.dry(ctx, try.action, try.call) {
			left = slices.DeleteFunc(left, func(a string) bool { return a == try.action })
		}
	}
	why := "the policies can't be simulated"
	if isDenied(because) {
		why += " without the permission iam:SimulatePrincipalPolicy"
	}
	c.unknown("aws-permission", "permissions", fmt.Sprintf("%s, and EC2 tells few by a dry run: not looked at are %d of %d", why, len(left), len(all)),
		"allow iam:SimulatePrincipalPolicy to "+c.principal+", or compare its policies with gild schema iam", c.p.AWS.Pos)
}

// dry makes one call with DryRun, and reports whether it told something of the permission.
func (c *check) dry(ctx context.Context, action string, call func(context.Context) error) bool {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := call(ctx)
	pos := c.p.AWS.Pos
	switch {
	case client.HasCode(err, "DryRunOperation"):
		c.ok("aws-permission", "permission "+action, "tried with DryRun", pos)
	case isDenied(err):
		action, resource := refused(err, action)
		if c.want.madeGroup && typeOf(resource) == "security-group" && action == "ec2:RunInstances" {
			// The group is one that the build would make; the default group, which stands in for
			// it here, need not be allowed.
			return false
		}
		c.missing(action, resource)
	case err == nil:
		c.unknown("aws-permission", "permission "+action, "the dry run wasn't one: the endpoint doesn't know DryRun", "", pos)
		return false
	default:
		c.bad("aws-dry-run", "dry run of "+strings.TrimPrefix(action, "ec2:"), tell(err), "", pos)
		return false
	}
	return true
}

func (c *check) dryRun(ctx context.Context) error {
	i := c.p.AWS.Instance
	in := &ec2.RunInstancesInput{
		DryRun: aws.Bool(true), ImageId: &c.base, InstanceType: ec2types.InstanceType(c.types[0]), MinCount: aws.Int32(1), MaxCount: aws.Int32(1),
		SubnetId: &c.subnet, SecurityGroupIds: i.SecurityGroups,
		MetadataOptions:   &ec2types.InstanceMetadataOptionsRequest{HttpTokens: ec2types.HttpTokensStateRequired},
		TagSpecifications: c.tagged(ec2types.ResourceTypeInstance, ec2types.ResourceTypeVolume, ec2types.ResourceTypeNetworkInterface),
	}
	if i.Profile != "" {
		in.IamInstanceProfile = &ec2types.IamInstanceProfileSpecification{Name: &i.Profile}
	}
	if i.Spot == "only" {
		in.InstanceMarketOptions = &ec2types.InstanceMarketOptionsRequest{MarketType: ec2types.MarketTypeSpot}
	}
	_, err := c.home.EC2.RunInstances(ctx, in)
	return err
}

func (c *check) dryGroup(ctx context.Context) error {
	_, err := c.home.EC2.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{
		DryRun: aws.Bool(true), GroupName: aws.String(MadePrefix + "doctor"), Description: aws.String("gild doctor"), VpcId: &c.vpc,
		TagSpecifications: c.tagged(ec2types.ResourceTypeSecurityGroup),
	})
	return err
}

func (c *check) dryKey(ctx context.Context) error {
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return fmt.Errorf("encode a key: %w", err)
	}
	_, err = c.home.EC2.ImportKeyPair(ctx, &ec2.ImportKeyPairInput{
		DryRun: aws.Bool(true), KeyName: aws.String(MadePrefix + "doctor"), PublicKeyMaterial: ssh.MarshalAuthorizedKey(key),
		TagSpecifications: c.tagged(ec2types.ResourceTypeKeyPair),
	})
	return err
}

// tagged are the tags that the policy asks for.
func (c *check) tagged(types ...ec2types.ResourceType) []ec2types.TagSpecification {
	var specs []ec2types.TagSpecification
	for _, t := range types {
		specs = append(specs, ec2types.TagSpecification{
			ResourceType: t, Tags: []ec2types.Tag{
				{Key: aws.String(RunTag), Value: aws.String("doctor")}, {Key: aws.String(PipelineTag), Value: &c.p.Name},
			},
		})
	}
	return specs
}
