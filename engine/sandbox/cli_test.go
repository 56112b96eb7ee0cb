package sandbox_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gildhq/gild/engine/sandbox"
)

// awsCLI runs the AWS CLI against a sandbox.
type awsCLI struct {
	t    *testing.T
	path string
	url  string
	home string
}

func newCLI(t *testing.T, w *world) awsCLI {
	t.Helper()
	path, err := exec.LookPath("aws")
	if err != nil {
		t.Fatalf("the AWS CLI is needed (\"aws\", Debian's package awscli): %v", err)
	}
	return awsCLI{t, path, w.URL, t.TempDir()}
}

// run returns what a command says, as JSON, and its error text.
func (a awsCLI) run(args ...string) (map[string]any, string) {
	a.t.Helper()
	cmd := exec.CommandContext(a.t.Context(), a.path, append([]string{"--endpoint-url", a.url, "--output", "json", "--region", "us-east-1"}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + a.home, "AWS_ACCESS_KEY_ID=sandbox", "AWS_SECRET_ACCESS_KEY=sandbox",
		"AWS_MAX_ATTEMPTS=1", "AWS_EC2_METADATA_DISABLED=true", "AWS_PAGER=", "LANG=C.UTF-8"}
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return nil, complaint.String()
	}
	var v map[string]any
	if out.Len() > 0 {
		if err := json.Unmarshal(out.Bytes(), &v); err != nil {
			a.t.Fatalf("aws %s says %q: %v", strings.Join(args, " "), out.String(), err)
		}
	}
	return v, ""
}

func (a awsCLI) must(args ...string) map[string]any {
	a.t.Helper()
	v, complaint := a.run(args...)
	if complaint != "" {
		a.t.Fatalf("aws %s: %s", strings.Join(args, " "), complaint)
	}
	return v
}

// dig goes into nested objects and, by number, lists.
func dig(v any, path ...any) any {
	for _, p := range path {
		switch at := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[at]
		case int:
			l, _ := v.([]any)
			if at >= len(l) {
				return nil
			}
			v = l[at]
		}
	}
	return v
}

// The AWS CLI works on the sandbox unchanged, from a base to an image that is copied, with
// its own waiters.
func TestAWSCLI(t *testing.T) {
	t.Parallel()
	w := open(t, sandbox.Config{})
	a, c := newCLI(t, w), w.mine(t)
	base := w.seed(t, "debian-12-amd64-20261101")
	found := a.must("ec2", "describe-images", "--owners", publisher, "--filters", "Name=name,Values=debian-12-*", "Name=state,Values=available")
	if got := dig(found, "Images", 0, "ImageId"); got != base {
		t.Fatalf("the base is %v, want %s", got, base)
	}
	group := dig(a.must("ec2", "create-security-group", "--group-name", "g", "--description", "d"), "GroupId").(string)
	a.must("ec2", "authorize-security-group-ingress", "--group-id", group, "--protocol", "tcp", "--port", "22", "--cidr", "192.0.2.1/32")
	key := filepath.Join(t.TempDir(), "key.pub")
	if err := os.WriteFile(key, importedKey(t), 0o600); err != nil {
		t.Fatal(err)
	}
	a.must("ec2", "import-key-pair", "--key-name", "k", "--public-key-material", "fileb://"+key)
	ran := a.must("ec2", "run-instances", "--image-id", base, "--instance-type", "t3.micro", "--key-name", "k", "--security-group-ids", group,
		"--metadata-options", "HttpTokens=required", "--user-data", "#cloud-config", "--client-token", "t",
		"--block-device-mappings", `[{"DeviceName":"/dev/xvda","Ebs":{"VolumeSize":2,"VolumeType":"gp3"}}]`,
		"--tag-specifications", "ResourceType=instance,Tags=[{Key=gild:run,Value=r}]", "ResourceType=volume,Tags=[{Key=gild:run,Value=r}]")
	id := dig(ran, "Instances", 0, "InstanceId").(string)
	// A waiter that finds what it waits for not yet there looks again after 15 seconds.
	waitInstance(t, c, &id, "running")
	a.must("ec2", "wait", "instance-status-ok", "--instance-ids", id)
	told := a.must("ec2", "describe-instances", "--filters", "Name=tag:gild:run,Values=r", "Name=instance-state-name,Values=running")
	if got := dig(told, "Reservations", 0, "Instances", 0, "MetadataOptions", "HttpTokens"); got != "required" {
		t.Errorf("the instance's metadata tokens are %v", got)
	}
	image := dig(a.must("ec2", "create-image", "--instance-id", id, "--name", "mine", "--tag-specifications",
		"ResourceType=image,Tags=[{Key=a,Value=b}]", "ResourceType=snapshot,Tags=[{Key=a,Value=b}]"), "ImageId").(string)
	waitImage(t, c, &image, "available")
	a.must("ec2", "wait", "image-available", "--image-ids", image)
	a.must("ec2", "modify-image-attribute", "--image-id", image, "--launch-permission", "Add=[{UserId="+otherAccount+"}]")
	if got := dig(a.must("ec2", "describe-image-attribute", "--image-id", image, "--attribute", "launchPermission"), "LaunchPermissions", 0, "UserId"); got != otherAccount {
		t.Errorf("the launch permission is for %v", got)
	}
	a.must("ec2", "enable-image-deprecation", "--image-id", image, "--deprecate-at", "2030-01-01T00:00:00Z")
	copied := dig(a.must("ec2", "copy-image", "--name", "copy", "--source-image-id", image, "--source-region", "us-east-1"), "ImageId").(string)
	waitImage(t, c, &copied, "available")
	a.must("ec2", "wait", "image-available", "--image-ids", copied)
	for want, args := range map[string][]string{
		"(DryRunOperation)":          {"ec2", "terminate-instances", "--instance-ids", id, "--dry-run"},
		"(InvalidAMIName.Duplicate)": {"ec2", "create-image", "--instance-id", id, "--name", "mine"},
		"(InvalidAMIID.NotFound)":    {"ec2", "describe-images", "--image-ids", "ami-0123456789abcdef0"},
		"(DependencyViolation)":      {"ec2", "delete-security-group", "--group-id", group},
	} {
		if _, complaint := a.run(args...); !strings.Contains(complaint, want) {
			t.Errorf("aws %s says %q, want %s", strings.Join(args, " "), complaint, want)
		}
	}
	a.must("ec2", "terminate-instances", "--instance-ids", id)
	waitInstance(t, c, &id, "terminated")
	a.must("ec2", "wait", "instance-terminated", "--instance-ids", id)
	a.must("ec2", "delete-security-group", "--group-id", group)
	a.must("ec2", "delete-key-pair", "--key-name", "k")
}
