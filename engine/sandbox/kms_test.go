package sandbox_test

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/gildhq/gild/engine/sandbox"
)

func TestKMS(t *testing.T) {
	t.Parallel()
	w := open(t, sandbox.Config{})
	c := w.cloud(t)
	ctx := t.Context()
	key, err := c.kms.CreateKey(ctx, &kms.CreateKeyInput{Description: aws.String("images")})
	must(t, err)
	alias := aws.String("alias/images")
	_, err = c.kms.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: alias, TargetKeyId: key.KeyMetadata.KeyId})
	must(t, err)
	_, err = c.kms.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: alias, TargetKeyId: key.KeyMetadata.KeyId})
	wantCode(t, "AlreadyExistsException", err)
	_, err = c.kms.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: aws.String("alias/aws/x"), TargetKeyId: key.KeyMetadata.KeyId})
	wantCode(t, "NotAuthorizedException", err)
	_, err = c.kms.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: aws.String("images"), TargetKeyId: key.KeyMetadata.KeyId})
	wantCode(t, "ValidationException", err)

	aliasARN := "arn:aws:kms:us-east-1:111122223333:alias/images"
	for _, name := range []string{*key.KeyMetadata.KeyId, *key.KeyMetadata.Arn, *alias, aliasARN} {
		got, err := c.kms.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: &name})
		must(t, err)
		if *got.KeyMetadata.Arn != *key.KeyMetadata.Arn || !got.KeyMetadata.Enabled {
			t.Errorf("%s is %+v", name, got.KeyMetadata)
		}
		v, err := c.ec2.CreateVolume(ctx, &ec2.CreateVolumeInput{AvailabilityZone: aws.String("us-east-1a"), Size: aws.Int32(1), Encrypted: aws.Bool(true), KmsKeyId: &name})
		must(t, err)
		if *v.KmsKeyId != *key.KeyMetadata.Arn {
			t.Errorf("a volume made with %s has the key %s", name, *v.KmsKeyId)
		}
	}
	for _, name := range []string{"alias/none", "00000000-0000-4000-8000-000000000000", "arn:aws:kms:eu-west-1:111122223333:alias/images"} {
		_, err := c.kms.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: &name})
		wantCode(t, "NotFoundException", err)
	}
	other := clouds(t, w.URL, sandbox.DefaultRegion, otherKey, "sandbox", "")
	_, err = other.kms.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: key.KeyMetadata.Arn})
	wantCode(t, "NotFoundException", err)

	var names []string
	for pages := kms.NewListAliasesPaginator(c.kms, &kms.ListAliasesInput{Limit: aws.Int32(1)}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		must(t, err)
		for _, a := range page.Aliases {
			names = append(names, *a.AliasName)
		}
	}
	if len(names) != 2 || names[0] != "alias/aws/ebs" || names[1] != *alias {
		t.Errorf("the aliases are %v", names)
	}
	grant := &kms.CreateGrantInput{KeyId: key.KeyMetadata.KeyId, GranteePrincipal: aws.String("arn:aws:iam::444455556666:root"), Operations: nil, Name: aws.String("g")}
	grant.Operations = append(grant.Operations, "CreateGrant", "Decrypt")
	one, err := c.kms.CreateGrant(ctx, grant)
	must(t, err)
	again, err := c.kms.CreateGrant(ctx, grant)
	must(t, err)
	if *one.GrantId != *again.GrantId {
		t.Error("a grant of the same name is another one")
	}
}
