package access_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/builder/aws/access"
	"github.com/gildhq/gild/engine/diag"
)

func TestDiagnostics(t *testing.T) {
	t.Parallel()
	at := diag.Pos{File: "web.yaml", Line: 3, Column: 5}
	got := access.Diagnostics([]access.Finding{
		{Finding: builder.Finding{Name: "credentials", OK: true}, Code: "aws-credentials", Pos: at},
		{Finding: builder.Finding{Name: "region x", Detail: "there is no such region", Fix: "choose one"}, Code: "aws-region", Pos: at},
		{Finding: builder.Finding{Name: "types", Detail: "one is left", Optional: true}, Code: "aws-instance-type", Pos: at},
		{Finding: builder.Finding{Name: "key", Detail: "it can't be looked up"}, Unknown: true, Code: "aws-key", Pos: at},
	})
	want := diag.List{
		{Pos: at, Code: "aws-region", Message: "region x: there is no such region", Hint: "choose one"},
		{Pos: at, Severity: diag.Warning, Code: "aws-instance-type", Message: "types: one is left"},
		{Pos: at, Severity: diag.Warning, Code: "aws-key", Message: "key: it can't be looked up"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("diagnostics (-want +got):\n%s", d)
	}
}

func TestNoBuilder(t *testing.T) {
	t.Parallel()
	p := parse(t, "x.yaml", "gild: 1\nname: web\nrelease: 1.0.0\nbase: debian/12\n")[0]
	findings := access.Check(t.Context(), access.Cloud{}, p)
	diags := access.Diagnostics(findings)
	if len(findings) != 1 || len(diags) != 1 || diags[0].Code != "aws-builder" {
		t.Errorf("findings %+v, diagnostics %+v", findings, diags)
	}
}

// refusing is a region that isn't enabled: it refuses all credentials.
type refusing struct{ access.EC2 }

var errRefused = &smithy.GenericAPIError{Code: "AuthFailure", Message: "AWS was not able to validate the provided access credentials"}

func (refusing) DescribeRegions(context.Context, *ec2.DescribeRegionsInput, ...func(*ec2.Options)) (*ec2.DescribeRegionsOutput, error) {
	return nil, errRefused
}

func (refusing) GetCallerIdentity(context.Context, *sts.GetCallerIdentityInput, ...func(*sts.Options)) (*sts.GetCallerIdentityOutput, error) {
	return nil, errRefused
}

// regions lists some.
type regions struct{ access.EC2 }

func (regions) DescribeRegions(context.Context, *ec2.DescribeRegionsInput, ...func(*ec2.Options)) (*ec2.DescribeRegionsOutput, error) {
	return &ec2.DescribeRegionsOutput{Regions: []types.Region{
		{RegionName: aws.String("us-east-1"), OptInStatus: aws.String("opt-in-not-required")},
		{RegionName: aws.String("me-south-1"), OptInStatus: aws.String("not-opted-in")},
	}}, nil
}

func TestRegionNotEnabled(t *testing.T) {
	t.Parallel()
	p := parse(t, "web.yaml", strings.Replace(overSSH, "eu-west-1", "me-south-1", 1))[0]
	cloud := access.Cloud{Region: func(_ context.Context, name string) (access.Clients, error) {
		switch name {
		case "me-south-1":
			return access.Clients{EC2: refusing{}, STS: refusing{}}, nil
		case "us-east-1":
			return access.Clients{EC2: regions{}, STS: caller{}}, nil
		}
		return access.Clients{}, errors.New("no such region was to be asked: " + name)
	}}
	want := "ok 6:3 aws-credentials credentials: " + user + " in account " + account + "\n" +
		"bad 6:3 aws-region region me-south-1: it isn't enabled for account " + account + "\n" +
		"    aws account enable-region --region-name me-south-1\n"
	if d := cmp.Diff(want, found(access.Check(t.Context(), cloud, p))); d != "" {
		t.Errorf("findings (-want +got):\n%s", d)
	}
}

func TestWrongCredentials(t *testing.T) {
	t.Parallel()
	cloud := access.Cloud{Region: func(context.Context, string) (access.Clients, error) {
		return access.Clients{EC2: refusing{}, STS: refusing{}}, nil
	}}
	want := "bad 6:3 aws-credentials credentials: AuthFailure: AWS was not able to validate the provided access credentials\n"
	if d := cmp.Diff(want, found(access.Check(t.Context(), cloud, parse(t, "web.yaml", overSSH)[0]))); d != "" {
		t.Errorf("findings (-want +got):\n%s", d)
	}
}
