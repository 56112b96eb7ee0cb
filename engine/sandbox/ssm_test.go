package sandbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/sandbox"
	"github.com/gildhq/gild/engine/sandbox/sandboxtest"
)

// quickInstance launches an instance on a machine that runs commands, and waits for its agent.
func quickInstance(t testing.TB) (*sandboxtest.Site, cloud, *string) {
	t.Helper()
	s := sandboxtest.Start(t, sandboxtest.Options{})
	c := clouds(t, s.URL, sandboxtest.Region, sandbox.DefaultKey, "sandbox", "")
	makeProfile(t, c, "agent", agentPolicy)
	i := run(t, c.ec2, s.Image, withProfile("agent"))
	waitPing(t, c, i.InstanceId, ssmtypes.PingStatusOnline)
	return s, c, i.InstanceId
}

func withProfile(name string) func(*ec2.RunInstancesInput) {
	return func(in *ec2.RunInstancesInput) {
		in.IamInstanceProfile = &types.IamInstanceProfileSpecification{Name: &name}
	}
}

func waitPing(t testing.TB, c cloud, id *string, want ssmtypes.PingStatus) (info ssmtypes.InstanceInformation) {
	t.Helper()
	eventually(t, "the agent of "+*id+" is "+string(want), func() bool {
		out, err := c.ssm.DescribeInstanceInformation(t.Context(), &ssm.DescribeInstanceInformationInput{
			Filters: []ssmtypes.InstanceInformationStringFilter{{Key: aws.String("InstanceIds"), Values: []string{*id}}}})
		must(t, err)
		if len(out.InstanceInformationList) == 1 {
			info = out.InstanceInformationList[0]
		}
		return info.PingStatus == want
	})
	return info
}

func send(ctx context.Context, c cloud, id *string, parameters map[string][]string, change ...func(*ssm.SendCommandInput)) (*string, error) {
	in := &ssm.SendCommandInput{DocumentName: aws.String("AWS-RunShellScript"), InstanceIds: []string{*id}, Parameters: parameters}
	for _, f := range change {
		f(in)
	}
	out, err := c.ssm.SendCommand(ctx, in)
	if err != nil {
		return nil, err
	}
	return out.Command.CommandId, nil
}

func commands(lines ...string) map[string][]string { return map[string][]string{"commands": lines} }

func invocation(t testing.TB, c cloud, command, id *string) *ssm.GetCommandInvocationOutput {
	t.Helper()
	out, err := c.ssm.GetCommandInvocation(t.Context(), &ssm.GetCommandInvocationInput{CommandId: command, InstanceId: id})
	must(t, err)
	return out
}

// waitStatus waits until an invocation has a status, given in its detailed form.
func waitStatus(t testing.TB, c cloud, command, id *string, details string) (out *ssm.GetCommandInvocationOutput) {
	t.Helper()
	eventually(t, "the command is "+details, func() bool {
		out = invocation(t, c, command, id)
		return *out.StatusDetails == details
	})
	return out
}

// shell runs lines that must succeed.
func shell(t testing.TB, c cloud, id *string, lines ...string) *ssm.GetCommandInvocationOutput {
	t.Helper()
	command, err := send(t.Context(), c, id, commands(lines...))
	must(t, err)
	var out *ssm.GetCommandInvocationOutput
	eventually(t, "the command has ended", func() bool {
		out = invocation(t, c, command, id)
		return *out.ExecutionEndDateTime != ""
	})
	if out.Status != ssmtypes.CommandInvocationStatusSuccess {
		t.Fatalf("%q ended as %s with %d: %s", lines, out.Status, out.ResponseCode, *out.StandardErrorContent)
	}
	return out
}

func TestCommand(t *testing.T) {
	t.Parallel()
	s, c, id := quickInstance(t)
	ctx := t.Context()

	out := shell(t, c, id, "a='one  two'", `echo "$a"; pwd; id -u; echo home=$HOME region=$AWS_SSM_REGION_NAME; cat`, "echo oops >&2")
	want := "one  two\n/usr/bin\n0\nhome= region=" + sandboxtest.Region + "\n"
	if *out.StandardOutputContent != want || *out.StandardErrorContent != "oops\n" || out.ResponseCode != 0 {
		t.Errorf("the command said %q and %q, want %q", *out.StandardOutputContent, *out.StandardErrorContent, want)
	}
	if out := shell(t, c, id, "#!/bin/cat", "as it is"); *out.StandardOutputContent != "#!/bin/cat\nas it is\n" {
		t.Errorf("a script with an interpreter of its own said %q", *out.StandardOutputContent)
	}
	shell(t, c, id, "echo kept > /srv/file")
	if got := *shell(t, c, id, "cat /srv/file").StandardOutputContent; got != "kept\n" {
		t.Errorf("the machine forgot what a command wrote: %q", got)
	}

	command, err := send(ctx, c, id, map[string][]string{"commands": {"pwd", "exit 7"}, "workingDirectory": {"/srv"}})
	must(t, err)
	failed := waitStatus(t, c, command, id, "Failed")
	if failed.ResponseCode != 7 || *failed.StandardOutputContent != "/srv\n" || *failed.StandardErrorContent != "failed to run commands: exit status 7" {
		t.Errorf("a failing command gave %d, %q, %q", failed.ResponseCode, *failed.StandardOutputContent, *failed.StandardErrorContent)
	}

	long := shell(t, c, id, "head -c 30000 /dev/zero | tr '\\0' x; head -c 9000 /dev/zero | tr '\\0' y >&2; head -c 24000 /dev/zero >/dev/null")
	if n := len(*long.StandardOutputContent); n != 24000 || !strings.HasSuffix(*long.StandardOutputContent, "x\n---Output truncated---") {
		t.Errorf("30000 characters were cut to %d", n)
	}
	if n := len(*long.StandardErrorContent); n != 8000 {
		t.Errorf("9000 characters of errors were cut to %d", n)
	}
	if out := shell(t, c, id, "head -c 24000 /dev/zero | tr '\\0' x"); len(*out.StandardOutputContent) != 24000 || strings.Contains(*out.StandardOutputContent, "-") {
		t.Error("24000 characters weren't kept whole")
	}

	listed, err := c.ssm.ListCommandInvocations(ctx, &ssm.ListCommandInvocationsInput{CommandId: command, Details: true})
	must(t, err)
	if len(listed.CommandInvocations) != 1 || listed.CommandInvocations[0].CommandPlugins[0].ResponseCode != 7 ||
		!strings.Contains(*listed.CommandInvocations[0].CommandPlugins[0].Output, "/srv\n") {
		t.Errorf("listed: %+v", listed.CommandInvocations)
	}
	for _, call := range s.Server.Calls() {
		if call.Error != "" {
			t.Errorf("%s failed: %s", call.Action, call.Error)
		}
	}
}

// TestCommandEnds shows the ways in which a command ends early.
func TestCommandEnds(t *testing.T) {
	t.Parallel()
	s, c, id := quickInstance(t)
	ctx := t.Context()

	// A marker in the machine tells that the command and its child have ended.
	const sleep = "(trap '' HUP; while :; do touch /srv/beat; sleep 0.02; done) & wait"
	begun, err := send(ctx, c, id, commands(sleep))
	must(t, err)
	running := waitStatus(t, c, begun, id, "InProgress")
	if running.ResponseCode != -1 || *running.StandardOutputContent != "" || *running.ExecutionStartDateTime == "" || *running.ExecutionEndDateTime != "" {
		t.Errorf("a running command is shown as %+v", running)
	}
	eventually(t, "the command runs", func() bool { return *shell(t, c, id, "ls /srv").StandardOutputContent != "" })
	_, err = c.ssm.CancelCommand(ctx, &ssm.CancelCommandInput{CommandId: begun})
	must(t, err)
	if out := waitStatus(t, c, begun, id, "Cancelled"); out.Status != ssmtypes.CommandInvocationStatusCancelled || out.ResponseCode != -1 {
		t.Errorf("a cancelled command is shown as %+v", out)
	}
	eventually(t, "nothing beats", func() bool {
		return *shell(t, c, id, "rm -f /srv/beat; sleep 0.2; ls /srv").StandardOutputContent == ""
	})

	late, err := send(ctx, c, id, map[string][]string{"commands": {"sleep 600"}, "executionTimeout": {"1"}})
	must(t, err)
	if out := waitStatus(t, c, late, id, "ExecutionTimedOut"); out.Status != ssmtypes.CommandInvocationStatusTimedOut {
		t.Errorf("a command that took too long is shown as %+v", out)
	}

	cut, err := send(ctx, c, id, commands("sleep 600"))
	must(t, err)
	waitStatus(t, c, cut, id, "InProgress")
	_, err = c.ec2.StopInstances(ctx, &ec2.StopInstancesInput{InstanceIds: []string{*id}})
	must(t, err)
	if out := waitStatus(t, c, cut, id, "Failed"); out.ResponseCode == 0 {
		t.Errorf("a command whose machine went is shown as %+v", out)
	}
	waitPing(t, c, id, ssmtypes.PingStatusConnectionLost)
	_, err = send(ctx, c, id, commands("true"))
	wantCode(t, "InvalidInstanceId", err)

	waitInstance(t, c.ec2, id, types.InstanceStateNameStopped)
	_, err = c.ec2.StartInstances(ctx, &ec2.StartInstancesInput{InstanceIds: []string{*id}})
	must(t, err)
	waitPing(t, c, id, ssmtypes.PingStatusOnline)
	shell(t, c, id, "true")

	// Without its role the agent can't be reached, though the instance runs.
	_, err = c.iam.DetachRolePolicy(ctx, &iam.DetachRolePolicyInput{RoleName: aws.String("agent"), PolicyArn: aws.String(agentPolicy)})
	must(t, err)
	waitPing(t, c, id, ssmtypes.PingStatusConnectionLost)
	pending := func() *string {
		command, err := send(ctx, c, id, commands("true"), func(in *ssm.SendCommandInput) { in.TimeoutSeconds = aws.Int32(30) })
		must(t, err)
		return command
	}
	undelivered, cancelled := pending(), pending()
	_, err = c.ssm.CancelCommand(ctx, &ssm.CancelCommandInput{CommandId: cancelled})
	must(t, err)
	waitStatus(t, c, cancelled, id, "Cancelled")
	if out := invocation(t, c, undelivered, id); out.Status != ssmtypes.CommandInvocationStatusPending {
		t.Errorf("a command that can't be delivered is %s", out.Status)
	}
	must(t, s.Server.Advance(31*time.Second))
	waitStatus(t, c, undelivered, id, "DeliveryTimedOut")
	_, err = c.ec2.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{*id}})
	must(t, err)
	out, err := c.ssm.DescribeInstanceInformation(ctx, &ssm.DescribeInstanceInformationInput{})
	must(t, err)
	if len(out.InstanceInformationList) != 0 {
		t.Errorf("a terminated instance is still known: %+v", out.InstanceInformationList)
	}
}

func TestCommandRefused(t *testing.T) {
	t.Parallel()
	s, c, id := quickInstance(t)
	ctx := t.Context()
	tests := []struct {
		name       string
		parameters map[string][]string
		change     func(*ssm.SendCommandInput)
		want       string
	}{
		{"other document", commands("true"), func(in *ssm.SendCommandInput) { in.DocumentName = aws.String("AWS-RunPatchBaseline") }, "InvalidDocument"},
		{"no commands", map[string][]string{}, nil, "InvalidParameters"},
		{"other parameter", map[string][]string{"commands": {"true"}, "shell": {"bash"}}, nil, "InvalidParameters"},
		{"no number", map[string][]string{"commands": {"true"}, "executionTimeout": {"soon"}}, nil, "InvalidParameters"},
		{"too long", commands(strings.Repeat("x", 65537)), nil, "MaxDocumentSizeExceeded"},
		{"other instance", commands("true"), func(in *ssm.SendCommandInput) { in.InstanceIds = []string{"i-00000000000000000"} }, "InvalidInstanceId"},
		{"twice", commands("true"), func(in *ssm.SendCommandInput) { in.InstanceIds = []string{*id, *id} }, "DuplicateInstanceId"},
		{"short timeout", commands("true"), func(in *ssm.SendCommandInput) { in.TimeoutSeconds = aws.Int32(5) }, "ValidationException"},
		{"S3", commands("true"), func(in *ssm.SendCommandInput) { in.OutputS3BucketName = aws.String("bucket") }, "InvalidOutputFolder"},
	}
	for _, test := range tests {
		var changes []func(*ssm.SendCommandInput)
		if test.change != nil {
			changes = append(changes, test.change)
		}
		if _, err := send(ctx, c, id, test.parameters, changes...); code(err) != test.want {
			t.Errorf("%s: got %v, want %s", test.name, err, test.want)
		}
	}
	_, err := c.ssm.GetCommandInvocation(ctx, &ssm.GetCommandInvocationInput{CommandId: aws.String("00000000-0000-4000-8000-000000000000"), InstanceId: id})
	wantCode(t, "InvocationDoesNotExist", err)
	_, err = c.ssm.CancelCommand(ctx, &ssm.CancelCommandInput{CommandId: aws.String("00000000-0000-4000-8000-000000000000")})
	wantCode(t, "InvalidCommandId", err)

	// An instance that has no role never becomes known.
	bare := run(t, c.ec2, s.Image)
	waitInstance(t, c.ec2, bare.InstanceId, types.InstanceStateNameRunning)
	_, err = send(ctx, c, bare.InstanceId, commands("true"))
	wantCode(t, "InvalidInstanceId", err)

	// Other accounts see neither the instance nor the command.
	command, err := send(ctx, c, id, commands("true"))
	must(t, err)
	waitStatus(t, c, command, id, "Success")
	other := clouds(t, s.URL, sandboxtest.Region, otherKey, "sandbox", "")
	_, err = send(ctx, other, id, commands("true"))
	wantCode(t, "InvalidInstanceId", err)
	_, err = other.ssm.GetCommandInvocation(ctx, &ssm.GetCommandInvocationInput{CommandId: command, InstanceId: id})
	wantCode(t, "InvocationDoesNotExist", err)
}

// TestCommandTargets sends a command to whoever has a tag.
func TestCommandTargets(t *testing.T) {
	t.Parallel()
	s, c, id := quickInstance(t)
	second := run(t, c.ec2, s.Image, withProfile("agent"), func(in *ec2.RunInstancesInput) {
		in.TagSpecifications = []types.TagSpecification{tags(types.ResourceTypeInstance, "role", "web")}
	})
	waitPing(t, c, second.InstanceId, ssmtypes.PingStatusOnline)
	command, err := send(t.Context(), c, id, commands("echo $AWS_SSM_INSTANCE_ID"), func(in *ssm.SendCommandInput) {
		in.InstanceIds, in.Targets = nil, []ssmtypes.Target{{Key: aws.String("tag:role"), Values: []string{"web"}}}
	})
	must(t, err)
	if out := waitStatus(t, c, command, second.InstanceId, "Success"); *out.StandardOutputContent != *second.InstanceId+"\n" {
		t.Errorf("the command said %q", *out.StandardOutputContent)
	}
	_, err = c.ssm.GetCommandInvocation(t.Context(), &ssm.GetCommandInvocationInput{CommandId: command, InstanceId: id})
	wantCode(t, "InvocationDoesNotExist", err)
	info := waitPing(t, c, id, ssmtypes.PingStatusOnline)
	if *info.PlatformName != "Debian GNU/Linux" || *info.PlatformVersion != "12" {
		t.Errorf("the agent reports %s %s", *info.PlatformName, *info.PlatformVersion)
	}
}

func put(ctx context.Context, c cloud, name, value string, change ...func(*ssm.PutParameterInput)) (int64, error) {
	in := &ssm.PutParameterInput{Name: &name, Value: &value, Type: ssmtypes.ParameterTypeString}
	for _, f := range change {
		f(in)
	}
	out, err := c.ssm.PutParameter(ctx, in)
	if err != nil {
		return 0, err
	}
	return out.Version, nil
}

func overwrite(in *ssm.PutParameterInput) { in.Overwrite = aws.Bool(true) }

func get(t testing.TB, c cloud, name string) (value string, err error) {
	t.Helper()
	out, err := c.ssm.GetParameter(t.Context(), &ssm.GetParameterInput{Name: &name})
	if err != nil {
		return "", err
	}
	return *out.Parameter.Value, nil
}

func TestParameter(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := open(t, sandbox.Config{Dir: dir})
	c := w.cloud(t)
	ctx := t.Context()
	for v := int64(1); v <= 3; v++ {
		got, err := put(ctx, c, "/gild/web", fmt.Sprint("v", v), func(in *ssm.PutParameterInput) { in.Overwrite = aws.Bool(v > 1) })
		must(t, err)
		if got != v {
			t.Errorf("version %d is numbered %d", v, got)
		}
	}
	_, err := put(ctx, c, "/gild/web", "x")
	wantCode(t, "ParameterAlreadyExists", err)
	label := func(version int64, labels ...string) []string {
		out, err := c.ssm.LabelParameterVersion(ctx, &ssm.LabelParameterVersionInput{Name: aws.String("/gild/web"), ParameterVersion: &version, Labels: labels})
		must(t, err)
		return out.InvalidLabels
	}
	if bad := label(1, "stable", "1st", "aws-x"); !slices.Equal(bad, []string{"1st", "aws-x"}) {
		t.Errorf("invalid labels are %v", bad)
	}
	label(2, "stable", "beta")
	for name, want := range map[string]string{
		"/gild/web": "v3", "/gild/web:1": "v1", "/gild/web:stable": "v2", "/gild/web:beta": "v2",
		"arn:aws:ssm:us-east-1:111122223333:parameter/gild/web": "v3",
	} {
		if got, err := get(t, c, name); err != nil || got != want {
			t.Errorf("%s is %q (%v), want %q", name, got, err, want)
		}
	}
	_, err = get(t, c, "/gild/web:9")
	wantCode(t, "ParameterVersionNotFound", err)
	_, err = get(t, c, "/gild/none")
	wantCode(t, "ParameterNotFound", err)
	history, err := c.ssm.GetParameterHistory(ctx, &ssm.GetParameterHistoryInput{Name: aws.String("/gild/web")})
	must(t, err)
	var said []string
	for _, h := range history.Parameters {
		said = append(said, fmt.Sprint(h.Version, *h.Value, h.Labels))
	}
	if diff := cmp.Diff([]string{"1v1[]", "2v2[stable beta]", "3v3[]"}, said); diff != "" {
		t.Errorf("history (-want +got):\n%s", diff)
	}
	_, err = c.ssm.AddTagsToResource(ctx, &ssm.AddTagsToResourceInput{ResourceType: "Parameter", ResourceId: aws.String("/gild/web"), Tags: []ssmtypes.Tag{{Key: aws.String("k"), Value: aws.String("v")}}})
	must(t, err)
	_, err = c.ssm.AddTagsToResource(ctx, &ssm.AddTagsToResourceInput{ResourceType: "Parameter", ResourceId: aws.String("/no"), Tags: []ssmtypes.Tag{{Key: aws.String("k"), Value: aws.String("v")}}})
	wantCode(t, "InvalidResourceId", err)

	both, err := c.ssm.GetParameters(ctx, &ssm.GetParametersInput{Names: []string{"/gild/web:stable", "/gild/none"}})
	must(t, err)
	if len(both.Parameters) != 1 || *both.Parameters[0].Selector != ":stable" || !slices.Equal(both.InvalidParameters, []string{"/gild/none"}) {
		t.Errorf("both are %+v", both)
	}
	other := clouds(t, w.URL, "eu-west-1", sandbox.DefaultKey, "sandbox", "")
	_, err = get(t, other, "/gild/web")
	wantCode(t, "ParameterNotFound", err)
	_, err = c.ssm.DeleteParameter(ctx, &ssm.DeleteParameterInput{Name: aws.String("/gild/web")})
	must(t, err)
	_, err = c.ssm.DeleteParameter(ctx, &ssm.DeleteParameterInput{Name: aws.String("/gild/web")})
	wantCode(t, "ParameterNotFound", err)
}

func TestParameterRefused(t *testing.T) {
	t.Parallel()
	w := open(t, sandbox.Config{})
	c := w.cloud(t)
	image := w.seed(t, "base")
	ofType := func(typ ssmtypes.ParameterType) func(*ssm.PutParameterInput) {
		return func(in *ssm.PutParameterInput) { in.Type = typ }
	}
	data := func(kind string) func(*ssm.PutParameterInput) {
		return func(in *ssm.PutParameterInput) { in.DataType = &kind }
	}
	pattern := func(in *ssm.PutParameterInput) { in.AllowedPattern = aws.String("^[a-z]+$") }
	tests := []struct {
		name, value string
		change      func(*ssm.PutParameterInput)
		want        string
	}{
		{"/ok", "v", nil, ""},
		{"plain", "v", nil, ""},
		{"a b", "v", nil, "ValidationException"},
		{"a/b", "v", nil, "ValidationException"},
		{"/a//b", "v", nil, "ValidationException"},
		{"aws-thing", "v", nil, "ValidationException"},
		{"/aws/service/x", "v", nil, "AccessDeniedException"},
		{"/a" + strings.Repeat("/a", 15), "v", nil, "HierarchyLevelLimitExceededException"},
		{"/empty", "", nil, "ValidationException"},
		{"/nested", "{{x}}", nil, "ValidationException"},
		{"/long", strings.Repeat("x", 4097), nil, "ValidationException"},
		{"/advanced", strings.Repeat("x", 4097), func(in *ssm.PutParameterInput) { in.Tier = ssmtypes.ParameterTierIntelligentTiering }, ""},
		{"/no-type", "v", ofType(""), "ValidationException"},
		{"/pattern", "v", pattern, ""},
		{"/pattern2", "V", pattern, "ParameterPatternMismatchException"},
		{"/kind", "v", data("aws:ec2:volume"), "ValidationException"},
		{"/image-list", image, func(in *ssm.PutParameterInput) { in.Type = ssmtypes.ParameterTypeStringList; data("aws:ec2:image")(in) }, "ValidationException"},
		{"/image", image, data("aws:ec2:image"), ""},
		{"/no-image", "ami-00000000000000000", data("aws:ec2:image"), ""},
	}
	for _, test := range tests {
		var changes []func(*ssm.PutParameterInput)
		if test.change != nil {
			changes = append(changes, test.change)
		}
		if _, err := put(t.Context(), c, test.name, test.value, changes...); code(err) != test.want {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
	}
	if got, err := get(t, c, "/image"); err != nil || got != image {
		t.Errorf("the image parameter is %q (%v)", got, err)
	}
	// As on AWS, nobody is told that the image isn't there; the parameter isn't either.
	_, err := get(t, c, "/no-image")
	wantCode(t, "ParameterNotFound", err)
	if _, err := put(t.Context(), c, "/image", "ami-00000000000000000", overwrite, data("aws:ec2:image")); err != nil {
		t.Error(err)
	}
	if got, err := get(t, c, "/image"); err != nil || got != image {
		t.Errorf("after a wrong image the parameter is %q (%v)", got, err)
	}
}

func TestSecureParameter(t *testing.T) {
	t.Parallel()
	w := open(t, sandbox.Config{})
	c := w.cloud(t)
	_, err := put(t.Context(), c, "/secret", "hunter2", func(in *ssm.PutParameterInput) { in.Type = ssmtypes.ParameterTypeSecureString })
	must(t, err)
	if got, err := get(t, c, "/secret"); err != nil || strings.Contains(got, "hunter2") {
		t.Errorf("without decryption the value is %q (%v)", got, err)
	}
	out, err := c.ssm.GetParameter(t.Context(), &ssm.GetParameterInput{Name: aws.String("/secret"), WithDecryption: aws.Bool(true)})
	must(t, err)
	if *out.Parameter.Value != "hunter2" {
		t.Errorf("with decryption the value is %q", *out.Parameter.Value)
	}
}

func TestParameterPath(t *testing.T) {
	t.Parallel()
	w := open(t, sandbox.Config{})
	c := w.cloud(t)
	for _, name := range []string{"/p/a", "/p/b", "/p/c/d", "/q/a"} {
		_, err := put(t.Context(), c, name, "v")
		must(t, err)
	}
	id, err := w.AddImage(t.Context(), sandbox.SeedImage{Account: publisher, Name: "debian", SizeGiB: 1, SSMParameters: []string{sandboxtest.DebianParameter}})
	must(t, err)
	below := func(path string, recursive bool) (names []string) {
		in := &ssm.GetParametersByPathInput{Path: &path, Recursive: &recursive, MaxResults: aws.Int32(1)}
		for pages := ssm.NewGetParametersByPathPaginator(c.ssm, in); pages.HasMorePages(); {
			page, err := pages.NextPage(t.Context())
			must(t, err)
			for _, p := range page.Parameters {
				names = append(names, *p.Name)
			}
		}
		return names
	}
	for _, test := range []struct {
		path      string
		recursive bool
		want      []string
	}{
		{"/p", false, []string{"/p/a", "/p/b"}},
		{"/p/", true, []string{"/p/a", "/p/b", "/p/c/d"}},
		{"/aws/service/debian", true, []string{sandboxtest.DebianParameter}},
		{"/none", true, nil},
	} {
		if diff := cmp.Diff(test.want, below(test.path, test.recursive)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.path, diff)
		}
	}
	if got, err := get(t, c, sandboxtest.DebianParameter); err != nil || got != id {
		t.Errorf("the public parameter is %q (%v), want %q", got, err, id)
	}
}

// TestCommandLag shows that a new command isn't known at once when the world lags.
func TestCommandLag(t *testing.T) {
	t.Parallel()
	s, c, id := quickInstance(t)
	must(t, s.Server.SetFaults(sandbox.Faults{Lag: 2}))
	command, err := send(t.Context(), c, id, commands("true"))
	must(t, err)
	for _, want := range []string{"InvocationDoesNotExist", "InvocationDoesNotExist", ""} {
		_, err := c.ssm.GetCommandInvocation(t.Context(), &ssm.GetCommandInvocationInput{CommandId: command, InstanceId: id})
		wantCode(t, want, err)
	}
}

// TestCommandWorkers shows that an agent runs five commands at a time.
func TestCommandWorkers(t *testing.T) {
	t.Parallel()
	_, c, id := quickInstance(t)
	var all []*string
	for range 6 {
		command, err := send(t.Context(), c, id, commands("while [ ! -e /srv/go ]; do sleep 0.05; done"))
		must(t, err)
		all = append(all, command)
	}
	states := func() (out []ssmtypes.CommandInvocationStatus) {
		for _, command := range all {
			out = append(out, invocation(t, c, command, id).Status)
		}
		return out
	}
	count := func(status ssmtypes.CommandInvocationStatus) (n int) {
		for _, s := range states() {
			if s == status {
				n++
			}
		}
		return n
	}
	eventually(t, "five commands run", func() bool { return count(ssmtypes.CommandInvocationStatusInProgress) == 5 })
	if n := count(ssmtypes.CommandInvocationStatusPending); n != 1 {
		t.Errorf("%d commands wait", n)
	}
	for i, s := range states() {
		if s == ssmtypes.CommandInvocationStatusInProgress {
			_, err := c.ssm.CancelCommand(t.Context(), &ssm.CancelCommandInput{CommandId: all[i]})
			must(t, err)
			break
		}
	}
	eventually(t, "the sixth runs instead", func() bool { return count(ssmtypes.CommandInvocationStatusInProgress) == 5 })
	cancelAll(t, c, all)
}

func cancelAll(t testing.TB, c cloud, all []*string) {
	t.Helper()
	for _, command := range all {
		_, err := c.ssm.CancelCommand(t.Context(), &ssm.CancelCommandInput{CommandId: command})
		must(t, err)
	}
}

// TestCommandLost opens a sandbox whose process died under a command.
func TestCommandLost(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var command, id *string
	t.Run("before", func(t *testing.T) {
		s := sandboxtest.Start(t, sandboxtest.Options{Config: sandbox.Config{Dir: dir}})
		c := clouds(t, s.URL, sandboxtest.Region, sandbox.DefaultKey, "sandbox", "")
		makeProfile(t, c, "agent", agentPolicy)
		id = run(t, c.ec2, s.Image, withProfile("agent")).InstanceId
		waitPing(t, c, id, ssmtypes.PingStatusOnline)
		var err error
		command, err = send(t.Context(), c, id, commands("true"))
		must(t, err)
		waitStatus(t, c, command, id, "Success")
	})
	// What the state of a sandbox looks like that was killed at that moment.
	db, err := sql.Open("sqlite", filepath.Join(dir, "state.db"))
	must(t, err)
	_, err = db.ExecContext(t.Context(), `UPDATE objects SET body = json_set(body, '$.Status', 'InProgress', '$.Details', 'InProgress') WHERE kind = 'ssm-invocation'`)
	must(t, err)
	must(t, db.Close())
	s := sandboxtest.Start(t, sandboxtest.Options{Config: sandbox.Config{Dir: dir}})
	c := clouds(t, s.URL, sandboxtest.Region, sandbox.DefaultKey, "sandbox", "")
	if out := invocation(t, c, command, id); out.Status != ssmtypes.CommandInvocationStatusFailed {
		t.Errorf("the command is %s", out.Status)
	}
}
