package sandbox_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"github.com/gildhq/gild/engine/sandbox"
	"github.com/gildhq/gild/engine/sandbox/sandboxtest"
)

// commandLine is the AWS command line, talking to a sandbox.
type commandLine struct {
	t   *testing.T
	url string
	env []string
}

// run makes a call and returns what a query picks from the answer, as text.
func (c commandLine) run(query string, args ...string) string {
	c.t.Helper()
	out, err := c.try(query, args...)
	if err != nil {
		c.t.Fatalf("aws %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out)
}

func (c commandLine) try(query string, args ...string) (string, error) {
	// Debian 12's doesn't know AWS_ENDPOINT_URL yet.
	args = append([]string{"--endpoint-url", c.url, "--query", query, "--output", "text"}, args...)
	cmd := exec.CommandContext(c.t.Context(), "aws", args...)
	cmd.Env = append(append(os.Environ(), "AWS_PAGER=", "AWS_MAX_ATTEMPTS=1"), c.env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return stderr.String(), err
	}
	return string(out), nil
}

// TestCommandLine makes an image as somebody with the AWS command line would.
func TestCommandLine(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("aws"); err != nil {
		t.Fatal("this test needs the AWS command line, of the package awscli")
	}
	s := sandboxtest.Start(t, sandboxtest.Options{})
	aws := commandLine{t, s.URL, append(s.Env(), "AWS_DEFAULT_REGION="+sandboxtest.Region)}

	if got := aws.run("Account", "sts", "get-caller-identity"); got != "111122223333" {
		t.Errorf("the account is %s", got)
	}
	base := aws.run("Parameter.Value", "ssm", "get-parameter", "--name", sandboxtest.DebianParameter)
	if base != s.Image {
		t.Errorf("the base is %s, want %s", base, s.Image)
	}
	aws.run("Role.Arn", "iam", "create-role", "--role-name", "agent", "--assume-role-policy-document", trustEC2)
	aws.run("@", "iam", "attach-role-policy", "--role-name", "agent", "--policy-arn", agentPolicy)
	aws.run("@", "iam", "create-instance-profile", "--instance-profile-name", "agent")
	aws.run("@", "iam", "add-role-to-instance-profile", "--instance-profile-name", "agent", "--role-name", "agent")
	if out, err := aws.try("@", "iam", "delete-role", "--role-name", "agent"); err == nil || !strings.Contains(out, "(DeleteConflict)") {
		t.Errorf("deleting a role in use gave %v: %s", err, out)
	}
	id := aws.run("Instances[0].InstanceId", "ec2", "run-instances", "--image-id", base, "--instance-type", "t3.micro",
		"--iam-instance-profile", "Name=agent", "--metadata-options", "HttpTokens=required",
		"--tag-specifications", "ResourceType=instance,Tags=[{Key=Name,Value=it}]")
	c := clouds(t, s.URL, sandboxtest.Region, sandbox.DefaultKey, sandbox.DefaultKey, "")
	waitPing(t, c, &id, ssmtypes.PingStatusOnline)
	if got := aws.run("InstanceInformationList[0].PingStatus", "ssm", "describe-instance-information"); got != "Online" {
		t.Errorf("the agent is %s", got)
	}
	parameters, err := json.Marshal(commands("echo \"it's\" done > /srv/made", "cat /srv/made"))
	must(t, err)
	command := aws.run("Command.CommandId", "ssm", "send-command", "--document-name", "AWS-RunShellScript", "--instance-ids", id, "--parameters", string(parameters))
	waitStatus(t, c, &command, &id, "Success")
	if got := aws.run("StandardOutputContent", "ssm", "get-command-invocation", "--command-id", command, "--instance-id", id); got != "it's done" {
		t.Errorf("the command said %q", got)
	}
	image := aws.run("ImageId", "ec2", "create-image", "--instance-id", id, "--name", "made", "--tag-specifications", "ResourceType=image,Tags=[{Key=a,Value=b}]")
	waitImage(t, c.ec2, &image, "available")
	aws.run("Version", "ssm", "put-parameter", "--name", "/images/made", "--type", "String", "--data-type", "aws:ec2:image", "--value", image)
	snapshot := aws.run("Images[0].BlockDeviceMappings[0].Ebs.SnapshotId", "ec2", "describe-images", "--owners", "self")
	if got := aws.run("Blocks[0].BlockIndex", "ebs", "list-snapshot-blocks", "--snapshot-id", snapshot); got != "0" {
		t.Errorf("the first block is %q", got)
	}
	aws.run("@", "ec2", "terminate-instances", "--instance-ids", id)
}
