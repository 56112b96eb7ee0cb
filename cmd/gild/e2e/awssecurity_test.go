package e2e_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"github.com/gildhq/gild/engine/sandbox"
)

// TestAWSNothingIsOpenOrShown builds with a secret that a step prints, and looks at all that
// is left of the build on both sides: no secret, nobody let in, and no IMDSv1.
func TestAWSNothingIsOpenOrShown(t *testing.T) {
	t.Parallel()
	const canary = "c4n4ry-Zx81-9b/7+x"
	forms := []string{canary, base64.StdEncoding.EncodeToString([]byte(canary)), hex.EncodeToString([]byte(canary))}
	cloud := t.TempDir()
	s := newAWSSite(t, sandbox.Config{Dir: filepath.Join(cloud, "state")})
	s.env = append(s.env, "GILD_TEST_CANARY="+canary)
	out := s.ok("build", "secret.yaml", "--builder", "aws", "--events", "events.jsonl")
	contains(t, "the log", out.stderr, "the token is ***", "without a token: HTTP/1.0 401 Unauthorized")
	events, err := os.ReadFile(filepath.Join(s.project, "events.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	contains(t, "the events", string(events), "the token is ***")
	// The state folder, the events, and all that the sandbox has: calls, tags, commands with
	// their output, and the disks of images.
	args := []string{"-rlaF"}
	for _, form := range forms {
		if strings.Contains(out.stdout+out.stderr, form) {
			t.Errorf("%q was printed", form)
		}
		args = append(args, "-e", form)
	}
	found, err := exec.Command("grep", append(args, "--", s.state, s.project, cloud)...).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 { // when it finds nothing
		t.Errorf("the secret was found, %v, in:\n%s", err, found)
	}
	s.checkCalls(forms)
	s.checkCommands(forms)
	for _, region := range awsRegions {
		c, _, _ := s.clients(region)
		images, err := c.DescribeImages(t.Context(), &ec2.DescribeImagesInput{Owners: []string{"self"}})
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range images.Images {
			if tagOf(i.Tags, "gild:kind") == "published" && i.ImdsSupport != types.ImdsSupportValuesV20 || i.Public != nil && *i.Public {
				t.Errorf("the image in %s has IMDS support %q, public %v", region, i.ImdsSupport, *i.Public)
			}
		}
	}
}

// checkCalls looks at every call of a build over SSM.
func (s *awsSite) checkCalls(forms []string) {
	s.t.Helper()
	launched := 0
	for _, c := range s.cloud.Server.Calls() {
		text, err := json.Marshal(c.Params)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, form := range append([]string{"0.0.0.0/0", "::/0"}, forms...) {
			if strings.Contains(string(text), form) {
				s.t.Errorf("%s has %q among its parameters: %s", c.Action, form, text)
			}
		}
		switch c.Action {
		case "AuthorizeSecurityGroupIngress":
			s.t.Errorf("somebody was let in: %s", text)
		case "RunInstances":
			launched++
			options, _ := c.Params["MetadataOptions"].(map[string]any)
			if options["HttpTokens"] != "required" {
				s.t.Errorf("launched with the metadata options %v", options)
			}
			if c.Params["UserData"] != nil {
				s.t.Errorf("launched with user data: %v", c.Params["UserData"])
			}
		}
	}
	if launched != 2 {
		s.t.Errorf("%d instances were launched, want the bench and one to test", launched)
	}
}

// checkCommands reads the command history as those see it who may list commands.
func (s *awsSite) checkCommands(forms []string) {
	s.t.Helper()
	_, _, c := s.clients(awsRegions[0])
	looked := 0
	for _, call := range s.cloud.Server.Calls() {
		if call.Action != "GetCommandInvocation" {
			continue
		}
		id, instance := call.Params["CommandId"].(string), call.Params["InstanceId"].(string)
		in, err := c.GetCommandInvocation(s.t.Context(), &ssm.GetCommandInvocationInput{CommandId: &id, InstanceId: &instance})
		if err != nil {
			s.t.Fatal(err)
		}
		looked++
		for _, form := range append([]string{"the token is"}, forms...) {
			if strings.Contains(*in.StandardOutputContent+*in.StandardErrorContent, form) {
				s.t.Errorf("the command history has %q: %s", form, *in.StandardOutputContent)
			}
		}
	}
	if looked < 10 {
		s.t.Errorf("there were only %d commands", looked)
	}
}

// TestAWSHostileImage adds newer images with the names of Debian's to another account, before
// the base is first resolved.
func TestAWSHostileImage(t *testing.T) {
	t.Parallel()
	s := newAWSSite(t, sandbox.Config{})
	if err := os.Remove(filepath.Join(s.project, "gild.lock")); err != nil {
		t.Fatal(err)
	}
	hostile := map[any]bool{}
	for _, name := range []string{"debian-12-amd64-20251006-2257", "debian-12-amd64-20991231-2359"} {
		hostile[s.cloud.Add(t, sandbox.SeedImage{
			Account: "999988887777", Name: name, Description: "Debian 12", BootMode: "uefi-preferred", SizeGiB: 1, Created: time.Now().Add(time.Hour),
		})] = true
	}
	s.ok("build", "small.yaml", "--builder", "aws", "--until", "one")
	launched := 0
	for _, c := range s.cloud.Server.Calls() {
		if c.Action == "RunInstances" {
			launched++
			if c.Params["ImageId"] != s.cloud.Image || hostile[c.Params["ImageId"]] {
				t.Errorf("launched %v, not Debian's %s", c.Params["ImageId"], s.cloud.Image)
			}
		}
	}
	locked, err := os.ReadFile(filepath.Join(s.project, "gild.lock"))
	if err != nil {
		t.Fatal(err)
	}
	contains(t, "gild.lock", string(locked), s.cloud.Image)
	if launched != 1 {
		t.Errorf("%d instances were launched, not one", launched)
	}
}
