package sandbox_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"

	"github.com/gildhq/gild/engine/sandbox"
)

func TestJudge(t *testing.T) {
	t.Parallel()
	allow := func(rest string) string {
		return `{"Version": "2012-10-17", "Statement": {"Effect": "Allow", ` + rest + `}}`
	}
	deny := strings.Replace(allow(`"Action": "ec2:Terminate*", "Resource": "*"`), "Allow", "Deny", 1)
	tagged := allow(`"Action": "ec2:CreateTags", "Resource": "arn:aws:ec2:*:*:instance/*", "Condition": {"StringEquals": {"ec2:CreateAction": ["RunInstances", "CreateImage"]}, "StringLike": {"aws:RequestTag/gild:run": "r-*"}}`)
	mine := map[string][]string{"ec2:Owner": {"1"}, "aws:PrincipalAccount": {"1"}}
	for _, test := range []struct {
		name, action, resource string
		keys                   map[string][]string
		docs                   []string
		want                   string
	}{
		{"nothing", "ec2:RunInstances", "*", nil, nil, "implicit deny"},
		{"all", "ec2:RunInstances", "*", nil, []string{allow(`"Action": "*", "Resource": "*"`)}, "allowed"},
		{"no case", "ec2:RunInstances", "*", nil, []string{allow(`"Action": ["EC2:run*"], "Resource": "*"`)}, "allowed"},
		{"another action", "ec2:StopInstances", "*", nil, []string{allow(`"Action": "ec2:RunInstances", "Resource": "*"`)}, "implicit deny"},
		{"deny wins", "ec2:TerminateInstances", "*", nil, []string{deny, allow(`"Action": "*", "Resource": "*"`)}, "explicit deny"},
		{"not action", "ec2:StopInstances", "*", nil, []string{allow(`"NotAction": "iam:*", "Resource": "*"`)}, "allowed"},
		{"not action, excepted", "iam:PassRole", "*", nil, []string{allow(`"NotAction": "iam:*", "Resource": "*"`)}, "implicit deny"},
		{"resource", "ec2:RunInstances", "arn:aws:ec2:us-east-1::image/ami-1", nil, []string{allow(`"Action": "ec2:RunInstances", "Resource": "arn:aws:ec2:*::image/*"`)}, "allowed"},
		{"other resource", "ec2:RunInstances", "arn:aws:ec2:us-east-1:1:subnet/s", nil, []string{allow(`"Action": "ec2:RunInstances", "Resource": "arn:aws:ec2:*::image/*"`)}, "implicit deny"},
		{"not resource", "ec2:RunInstances", "arn:aws:ec2:us-east-1:1:subnet/s", nil, []string{allow(`"Action": "*", "NotResource": "arn:aws:ec2:*::image/*"`)}, "allowed"},
		{"conditions hold", "ec2:CreateTags", "arn:aws:ec2:us-east-1:1:instance/*", map[string][]string{"ec2:CreateAction": {"RunInstances"}, "aws:RequestTag/gild:run": {"r-1"}}, []string{tagged}, "allowed"},
		{"one doesn't", "ec2:CreateTags", "arn:aws:ec2:us-east-1:1:instance/*", map[string][]string{"ec2:CreateAction": {"RunInstances"}, "aws:RequestTag/gild:run": {"x"}}, []string{tagged}, "implicit deny"},
		{"key absent", "ec2:CreateTags", "arn:aws:ec2:us-east-1:1:instance/*", nil, []string{tagged}, "implicit deny"},
		{"if exists", "ec2:X", "*", nil, []string{allow(`"Action": "*", "Resource": "*", "Condition": {"StringEqualsIfExists": {"a": "b"}}`)}, "allowed"},
		{"all values", "ec2:X", "*", map[string][]string{"aws:TagKeys": {"a", "b"}}, []string{allow(`"Action": "*", "Resource": "*", "Condition": {"ForAllValues:StringEquals": {"aws:TagKeys": ["a", "b", "c"]}}`)}, "allowed"},
		{"not all values", "ec2:X", "*", map[string][]string{"aws:TagKeys": {"a", "z"}}, []string{allow(`"Action": "*", "Resource": "*", "Condition": {"ForAllValues:StringEquals": {"aws:TagKeys": ["a", "b", "c"]}}`)}, "implicit deny"},
		{"null", "ec2:X", "*", nil, []string{allow(`"Action": "*", "Resource": "*", "Condition": {"Null": {"aws:TagKeys": true}}`)}, "allowed"},
		{"not that address", "ec2:X", "*", map[string][]string{"a": {"10.1.0.1"}}, []string{allow(`"Action": "*", "Resource": "*", "Condition": {"NotIpAddress": {"a": "10.0.0.0/16"}}`)}, "allowed"},
		{"at least", "ec2:X", "*", map[string][]string{"a": {"8"}}, []string{allow(`"Action": "*", "Resource": "*", "Condition": {"NumericGreaterThanEquals": {"a": 8}}`)}, "allowed"},
		{"not equals", "ec2:X", "*", map[string][]string{"a": {"b"}}, []string{allow(`"Action": "*", "Resource": "*", "Condition": {"StringNotEquals": {"a": "b"}}`)}, "implicit deny"},
		{"variable", "ec2:X", "*", mine, []string{allow(`"Action": "*", "Resource": "*", "Condition": {"StringEquals": {"ec2:Owner": "${aws:PrincipalAccount}"}}`)}, "allowed"},
		{"variable in a resource", "s3:X", "arn:aws:s3:::b-1", mine, []string{allow(`"Action": "*", "Resource": "arn:aws:s3:::b-${aws:PrincipalAccount}"`)}, "allowed"},
		{"another value", "s3:X", "arn:aws:s3:::b-2", mine, []string{allow(`"Action": "*", "Resource": "arn:aws:s3:::b-${aws:PrincipalAccount}"`)}, "implicit deny"},
		{"variable that isn't there", "s3:X", "arn:aws:s3:::b-1", nil, []string{allow(`"Action": "*", "Resource": "arn:aws:s3:::b-${aws:PrincipalAccount}"`)}, "implicit deny"},
		{"variable with another text", "s3:X", "arn:aws:s3:::b-0", nil, []string{allow(`"Action": "*", "Resource": "arn:aws:s3:::b-${aws:PrincipalAccount, '0'}"`)}, "allowed"},
		{"a value is no pattern", "s3:X", "b", map[string][]string{"aws:username": {"*"}}, []string{allow(`"Action": "*", "Resource": "${aws:username}"`)}, "implicit deny"},
		{"a star itself", "s3:X", "a*", nil, []string{allow(`"Action": "*", "Resource": "a${*}"`)}, "allowed"},
		{"not any text", "s3:X", "ab", nil, []string{allow(`"Action": "*", "Resource": "a${*}"`)}, "implicit deny"},
		{"no variables in the older version", "s3:X", "b-1", mine, []string{strings.Replace(allow(`"Action": "*", "Resource": "b-${aws:PrincipalAccount}"`), "2012-10-17", "2008-10-17", 1)}, "implicit deny"},
		{"a backslash is one", "s3:X", `a\b`, nil, []string{allow(`"Action": "*", "Resource": "a\\*"`)}, "allowed"},
	} {
		got, err := sandbox.Judged(test.action, test.resource, test.keys, test.docs...)
		if got != test.want || err != nil {
			t.Errorf("%s: %s, %v; want %s", test.name, got, err, test.want)
		}
	}
	for _, bad := range []string{``, `{"Statement": [{"Effect": "Maybe", "Action": "*", "Resource": "*"}]}`, `{"Statement": {"Effect": "Allow"}}`,
		allow(`"Action": "*", "Resource": "*", "Condition": {"Vibes": {"a": "b"}}`), allow(`"Action": "*", "Resource": "*", "Condition": {"NotNull": {"a": "true"}}`), `{"Statment": []}`, allow(`"Action": "*", "Resource": "*"`) + "x"} {
		if got, err := sandbox.Judged("ec2:X", "*", nil, bad); err == nil {
			t.Errorf("the document %s was taken, and gave %s", bad, got)
		}
	}
}

func TestPolicyOfTheCaller(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	w := open(t, sandbox.Config{})
	c := w.mine(t)
	base := w.seed(t, "base")
	statement := func(actions string) string {
		return fmt.Sprintf(`{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": [%s], "Resource": "*"}]}`, actions)
	}
	must(t, w.SetPolicy(sandbox.DefaultKey, statement(`"ec2:RunInstances", "ec2:Describe*"`)))
	run(t, c, base)
	tagged := func(in *ec2.RunInstancesInput) {
		in.TagSpecifications = []types.TagSpecification{tags("instance", "a", "b")}
	}
	_, err := c.RunInstances(ctx, runInput(base, tagged))
	wantCode(t, "UnauthorizedOperation", err)
	var api smithy.APIError
	if errors.As(err, &api); api != nil {
		before, encoded, _ := strings.Cut(api.ErrorMessage(), "Encoded authorization failure message: ")
		decoded, ok := sandbox.DecodeDenial(encoded)
		if !ok || !strings.Contains(decoded, "ec2:CreateTags") || !strings.Contains(before, "is not authorized to perform: ec2:CreateTags on resource: arn:") {
			t.Errorf("the message is %q, decoded %q", before, decoded)
		}
	}
	// A dry run tells the two apart and does nothing.
	dry := func(in *ec2.RunInstancesInput) { in.DryRun = aws.Bool(true) }
	_, err = c.RunInstances(ctx, runInput(base, dry))
	wantCode(t, "DryRunOperation", err)
	_, err = c.RunInstances(ctx, runInput(base, tagged, dry))
	wantCode(t, "UnauthorizedOperation", err)

	// A role is passed only by who may.
	role := "arn:aws:iam::" + sandbox.DefaultAccount + ":role/builder"
	w.SetProfile("builder", "arn:aws:iam::"+sandbox.DefaultAccount+":instance-profile/builder", role)
	profiled := func(in *ec2.RunInstancesInput) {
		in.IamInstanceProfile = &types.IamInstanceProfileSpecification{Name: aws.String("builder")}
	}
	_, err = c.RunInstances(ctx, runInput(base, profiled))
	wantCode(t, "UnauthorizedOperation", err)
	must(t, w.SetPolicy(sandbox.DefaultKey, statement(`"ec2:*", "iam:PassRole"`)))
	run(t, c, base, profiled, tagged)
	if _, err := w.other(t).DescribeImages(ctx, &ec2.DescribeImagesInput{}); err != nil {
		t.Errorf("a key without policy is bounded: %v", err)
	}
	must(t, w.SetPolicy(sandbox.DefaultKey, ""))
	if w.SetPolicy(sandbox.DefaultKey, "{") == nil || w.SetPolicy("", "") == nil {
		t.Error("a policy that is none was taken")
	}
}

// Only what is tagged may be ended: the condition that a least policy is built on.
func TestResourceTagCondition(t *testing.T) {
	t.Parallel()
	w := open(t, sandbox.Config{})
	c := w.mine(t)
	base := w.seed(t, "base")
	plain := run(t, c, base)
	ours := run(t, c, base, func(in *ec2.RunInstancesInput) {
		in.TagSpecifications = []types.TagSpecification{tags("instance", "gild", "1")}
	})
	must(t, w.SetPolicy(sandbox.DefaultKey, `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ec2:TerminateInstances",
		"Resource": "arn:aws:ec2:*:*:instance/*", "Condition": {"StringEquals": {"aws:ResourceTag/gild": "1"}}}]}`))
	end := func(ids ...string) error {
		_, err := c.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: ids})
		return err
	}
	wantCode(t, "UnauthorizedOperation", end(*plain.InstanceId))
	wantCode(t, "UnauthorizedOperation", end(*ours.InstanceId, *plain.InstanceId))
	wantCode(t, "", end(*ours.InstanceId))
}
