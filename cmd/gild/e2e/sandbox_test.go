package e2e_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2instanceconnect"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"golang.org/x/crypto/ssh"

	"github.com/gildhq/gild/engine/builder/local/guest"
	"github.com/gildhq/gild/engine/sandbox/seed"
	"github.com/gildhq/gild/engine/step"
)

// cloud is a running gild sandbox, and its clients.
type cloud struct {
	t        *testing.T
	cmd      *exec.Cmd
	endpoint string
	dir      string
	ec2      *ec2.Client
	ssm      *ssm.Client
	iam      *iam.Client
	connect  *ec2instanceconnect.Client
}

var endpointRE = regexp.MustCompile(`AWS_ENDPOINT_URL=(http://\S+)`)

// startCloud runs gild sandbox until the test ends.
func startCloud(t *testing.T) *cloud {
	t.Helper()
	c := &cloud{t: t, dir: t.TempDir()}
	c.cmd = exec.Command(gild, "sandbox", "--dir", filepath.Join(c.dir, "sandbox"), "--listen", "127.0.0.1:0")
	var stderr bytes.Buffer
	c.cmd.Stderr = &stderr
	stdout, err := c.cmd.StdoutPipe()
	if err := errors.Join(err, c.cmd.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if c.cmd.ProcessState == nil {
			if err := errors.Join(c.cmd.Process.Signal(syscall.SIGINT), c.cmd.Wait()); err != nil {
				t.Errorf("gild sandbox: %v", err)
			}
		}
		if t.Failed() {
			t.Logf("gild sandbox said:\n%s", lastLines(stderr.Bytes(), 40))
		}
		// Layers hold files of other owners.
		if out, err := exec.Command("rm", "-rf", c.dir).CombinedOutput(); err != nil {
			t.Errorf("remove the sandbox: %v\n%s", err, out)
		}
	})
	for lines := bufio.NewScanner(stdout); c.endpoint == "" && lines.Scan(); {
		if m := endpointRE.FindStringSubmatch(lines.Text()); m != nil {
			c.endpoint = m[1]
		}
	}
	if c.endpoint == "" {
		t.Fatal("gild sandbox didn't start")
	}
	config := aws.Config{
		Region: "us-east-1", BaseEndpoint: aws.String(c.endpoint),
		Credentials: credentials.NewStaticCredentialsProvider("sandbox", "sandbox", ""),
	}
	c.ec2, c.ssm = ec2.NewFromConfig(config), ssm.NewFromConfig(config)
	c.iam, c.connect = iam.NewFromConfig(config), ec2instanceconnect.NewFromConfig(config)
	return c
}

// call fails the test when an API call has failed.
func call[T any](t *testing.T) func(*T, error) *T {
	return func(out *T, err error) *T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
}

const profile = "e2e"

// makeProfile makes the instance profile by which an agent may talk to SSM.
func (c *cloud) makeProfile() {
	c.t.Helper()
	const trust = `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]}`
	name := aws.String(profile)
	call[iam.CreateRoleOutput](c.t)(c.iam.CreateRole(c.t.Context(), &iam.CreateRoleInput{RoleName: name, AssumeRolePolicyDocument: aws.String(trust)}))
	call[iam.AttachRolePolicyOutput](c.t)(c.iam.AttachRolePolicy(c.t.Context(), &iam.AttachRolePolicyInput{
		RoleName: name, PolicyArn: aws.String("arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"),
	}))
	call[iam.CreateInstanceProfileOutput](c.t)(c.iam.CreateInstanceProfile(c.t.Context(), &iam.CreateInstanceProfileInput{InstanceProfileName: name}))
	call[iam.AddRoleToInstanceProfileOutput](c.t)(c.iam.AddRoleToInstanceProfile(c.t.Context(), &iam.AddRoleToInstanceProfileInput{InstanceProfileName: name, RoleName: name}))
}

// newest returns the newest of the images that a search finds.
func (c *cloud) newest(owners ...string) types.Image {
	c.t.Helper()
	out := call[ec2.DescribeImagesOutput](c.t)(c.ec2.DescribeImages(c.t.Context(), &ec2.DescribeImagesInput{
		Owners: owners, Filters: []types.Filter{{Name: aws.String("name"), Values: []string{"debian-12-amd64-*"}}},
	}))
	if len(out.Images) == 0 {
		c.t.Fatalf("no image of %v", owners)
	}
	return slices.MaxFunc(out.Images, func(a, b types.Image) int { return cmp.Compare(*a.Name, *b.Name) })
}

// launch starts an instance with a key, and returns it when its agent is online.
func (c *cloud) launch(image, key string) types.Instance {
	c.t.Helper()
	out := call[ec2.RunInstancesOutput](c.t)(c.ec2.RunInstances(c.t.Context(), &ec2.RunInstancesInput{
		ImageId: &image, InstanceType: types.InstanceTypeT3Small, MinCount: aws.Int32(1), MaxCount: aws.Int32(1), KeyName: &key,
		IamInstanceProfile: &types.IamInstanceProfileSpecification{Name: aws.String(profile)},
		MetadataOptions:    &types.InstanceMetadataOptionsRequest{HttpTokens: types.HttpTokensStateRequired},
	}))
	id := *out.Instances[0].InstanceId
	started := time.Now()
	c.eventually("the agent of "+id+" is online", func() bool {
		info := call[ssm.DescribeInstanceInformationOutput](c.t)(c.ssm.DescribeInstanceInformation(c.t.Context(), &ssm.DescribeInstanceInformationInput{
			Filters: []ssmtypes.InstanceInformationStringFilter{{Key: aws.String("InstanceIds"), Values: []string{id}}},
		}))
		return len(info.InstanceInformationList) == 1 && info.InstanceInformationList[0].PingStatus == ssmtypes.PingStatusOnline
	})
	c.t.Logf("%s of %s: online after %s", id, image, time.Since(started).Round(time.Second))
	found := call[ec2.DescribeInstancesOutput](c.t)(c.ec2.DescribeInstances(c.t.Context(), &ec2.DescribeInstancesInput{InstanceIds: []string{id}}))
	return found.Reservations[0].Instances[0]
}

// eventually polls for what an emulated processor may take long for.
func (c *cloud) eventually(what string, ok func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(8 * time.Minute); !ok(); time.Sleep(500 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("it never came true that %s", what)
		}
	}
}

// run runs a shell script in an instance through SSM and returns what it printed.
func (c *cloud) run(id, script string) string {
	c.t.Helper()
	sent := call[ssm.SendCommandOutput](c.t)(c.ssm.SendCommand(c.t.Context(), &ssm.SendCommandInput{
		DocumentName: aws.String("AWS-RunShellScript"), InstanceIds: []string{id}, Parameters: map[string][]string{"commands": {script}},
	}))
	var got *ssm.GetCommandInvocationOutput
	c.eventually("the command ends", func() bool {
		var err error
		got, err = c.ssm.GetCommandInvocation(c.t.Context(), &ssm.GetCommandInvocationInput{CommandId: sent.Command.CommandId, InstanceId: &id})
		var early *ssmtypes.InvocationDoesNotExist
		if err != nil && !errors.As(err, &early) {
			c.t.Fatal(err)
		}
		return err == nil && !slices.Contains([]ssmtypes.CommandInvocationStatus{"Pending", "InProgress", "Delayed"}, got.Status)
	})
	if got.Status != ssmtypes.CommandInvocationStatusSuccess {
		c.t.Fatalf("%s: %s: %s", script, got.Status, aws.ToString(got.StandardErrorContent))
	}
	return strings.TrimSpace(aws.ToString(got.StandardOutputContent))
}

// terminate ends an instance and waits until it is gone.
func (c *cloud) terminate(id string) {
	c.t.Helper()
	call[ec2.TerminateInstancesOutput](c.t)(c.ec2.TerminateInstances(c.t.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{id}}))
	waiter := ec2.NewInstanceTerminatedWaiter(c.ec2, func(o *ec2.InstanceTerminatedWaiterOptions) { o.MinDelay = time.Second })
	if err := waiter.Wait(c.t.Context(), &ec2.DescribeInstancesInput{InstanceIds: []string{id}}, 3*time.Minute); err != nil {
		c.t.Fatal(err)
	}
}

// image makes an image of an instance and waits until it is available.
func (c *cloud) image(id, name string) string {
	c.t.Helper()
	made := call[ec2.CreateImageOutput](c.t)(c.ec2.CreateImage(c.t.Context(), &ec2.CreateImageInput{InstanceId: &id, Name: &name}))
	waiter := ec2.NewImageAvailableWaiter(c.ec2, func(o *ec2.ImageAvailableWaiterOptions) { o.MinDelay = time.Second })
	if err := waiter.Wait(c.t.Context(), &ec2.DescribeImagesInput{ImageIds: []string{*made.ImageId}}, 5*time.Minute); err != nil {
		c.t.Fatal(err)
	}
	return *made.ImageId
}

// newKey makes an SSH key and returns it with the text that authorizes it.
func newKey(t *testing.T) (ssh.Signer, string) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer, string(ssh.MarshalAuthorizedKey(signer.PublicKey()))
}

// overSSH runs a command as admin, when that can log in by the key.
func overSSH(ctx context.Context, address string, key ssh.Signer, command string) (string, error) {
	client, err := ssh.Dial("tcp", address+":22", &ssh.ClientConfig{
		User: "admin", Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, Timeout: 30 * time.Second,
		// Which machine it is doesn't matter here: its answer tells.
		HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		return "", err
	}
	defer context.AfterFunc(ctx, func() { client.Close() })()
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		return "", err
	}
	out, err := session.Output(command)
	return strings.TrimSpace(string(out)), err
}

// TestSandbox launches an instance, changes it, makes an image of it, launches that; has
// gild build another, and boots its bytes elsewhere.
func TestSandbox(t *testing.T) {
	c := startCloud(t)
	base := c.newest(seed.Debian)
	if anyone := c.newest(); *anyone.ImageId == *base.ImageId || *anyone.OwnerId != seed.Lookalike {
		t.Errorf("the newest image of any owner is %s of %s, want the look-alike", *anyone.Name, *anyone.OwnerId)
	}
	parameter := call[ssm.GetParameterOutput](t)(c.ssm.GetParameter(t.Context(), &ssm.GetParameterInput{
		Name: aws.String("/aws/service/debian/release/12/latest/amd64"),
	}))
	if got := *parameter.Parameter.Value; got != *base.ImageId {
		t.Errorf("the public parameter names %s, want %s", got, *base.ImageId)
	}
	key, authorized := newKey(t)
	call[ec2.ImportKeyPairOutput](t)(c.ec2.ImportKeyPair(t.Context(), &ec2.ImportKeyPairInput{KeyName: aws.String("e2e"), PublicKeyMaterial: []byte(authorized)}))
	c.makeProfile()
	instance := c.launch(*base.ImageId, "e2e")
	c.run(*instance.InstanceId, "cloud-init status --wait >/dev/null; echo 'changed by SSM' >/etc/gild-e2e")
	c.logIn(instance, key)
	hostKey := c.run(*instance.InstanceId, "cat /etc/ssh/ssh_host_ed25519_key.pub")
	image := c.image(*instance.InstanceId, "e2e-changed")
	c.terminate(*instance.InstanceId)

	second := c.launch(image, "e2e")
	if got := c.run(*second.InstanceId, "cat /etc/gild-e2e; hostname"); got != "changed by SSM\n"+strings.Split(*second.PrivateDnsName, ".")[0] {
		t.Errorf("an instance of the new image says %q; its private name is %s", got, *second.PrivateDnsName)
	}
	if got := c.run(*second.InstanceId, "cat /etc/ssh/ssh_host_ed25519_key.pub"); got == hostKey {
		t.Errorf("two instances have the host key %s", got)
	}
	c.terminate(*second.InstanceId)

	image = c.build()
	disk := filepath.Join(t.TempDir(), "disk.raw")
	export := exec.Command(gild, "--endpoint", c.endpoint, "sandbox", "export", image, disk)
	if out, err := export.CombinedOutput(); err != nil {
		t.Fatalf("gild sandbox export: %v\n%s", err, out)
	}
	if err := errors.Join(c.cmd.Process.Signal(syscall.SIGINT), c.cmd.Wait()); err != nil {
		t.Errorf("gild sandbox ended with %v after Ctrl-C", err)
	}
	// The sandbox of a command of its own holds the same.
	gc := exec.Command(gild, "--state", c.dir, "gc", "--sandbox", "--region", "us-east-1")
	if out, err := gc.CombinedOutput(); err != nil || string(out) != "nothing to remove\n" {
		t.Errorf("gild gc --sandbox: %v\n%s", err, out)
	}
	bootExported(t, disk)
}

// built is a pipeline whose image says "made by gild".
const built = `gild: 1
name: built
release: 1.0.0
base: debian/12
builders: {aws: {region: us-east-1, connect: ssh}}
customize:
  - uses: file
    with: {to: /etc/gild-e2e, content: "made by gild\n"}
tests:
  - uses: boot
  - uses: command
    with: {run: grep -qx "made by gild" /etc/gild-e2e}
publish: {name: built, channel: stable}
`

// build has gild make an image, and checks that only that is left.
func (c *cloud) build() (image string) {
	c.t.Helper()
	file := filepath.Join(c.t.TempDir(), "built.yaml")
	if err := os.WriteFile(file, []byte(built), 0o600); err != nil {
		c.t.Fatal(err)
	}
	cmd := exec.Command(gild, "--state", c.dir, "--endpoint", c.endpoint, "build", file, "--builder", "aws", "--progress", "plain")
	cmd.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID=sandbox", "AWS_SECRET_ACCESS_KEY=sandbox")
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Fatalf("gild build: %v\n%s", err, out)
	}
	for _, i := range call[ec2.DescribeInstancesOutput](c.t)(c.ec2.DescribeInstances(c.t.Context(), nil)).Reservations {
		if i.Instances[0].State.Name != types.InstanceStateNameTerminated {
			c.t.Errorf("gild build left the instance %s %s", *i.Instances[0].InstanceId, i.Instances[0].State.Name)
		}
	}
	out := call[ec2.DescribeImagesOutput](c.t)(c.ec2.DescribeImages(c.t.Context(), &ec2.DescribeImagesInput{
		Owners: []string{"self"}, Filters: []types.Filter{{Name: aws.String("tag:gild:kind"), Values: []string{"published"}}},
	}))
	if len(out.Images) != 1 {
		c.t.Fatalf("gild build has published %d images, want 1", len(out.Images))
	}
	return *out.Images[0].ImageId
}

// logIn logs in with the key of the launch, and with one pushed by EC2 Instance Connect.
func (c *cloud) logIn(instance types.Instance, key ssh.Signer) {
	c.t.Helper()
	call[ec2.AuthorizeSecurityGroupIngressOutput](c.t)(c.ec2.AuthorizeSecurityGroupIngress(c.t.Context(), &ec2.AuthorizeSecurityGroupIngressInput{
		GroupId: instance.SecurityGroups[0].GroupId, IpProtocol: aws.String("tcp"), CidrIp: aws.String("127.0.0.1/32"),
		FromPort: aws.Int32(22), ToPort: aws.Int32(22),
	}))
	const command = "sudo cat /etc/gild-e2e"
	c.eventually("SSH takes the key of the launch", func() bool {
		got, err := overSSH(c.t.Context(), *instance.PublicIpAddress, key, command)
		return err == nil && got == "changed by SSM"
	})
	pushed, authorized := newKey(c.t)
	if got, err := overSSH(c.t.Context(), *instance.PublicIpAddress, pushed, command); err == nil {
		c.t.Errorf("a key that nobody has pushed logs in: %q", got)
	}
	call[ec2instanceconnect.SendSSHPublicKeyOutput](c.t)(c.connect.SendSSHPublicKey(c.t.Context(), &ec2instanceconnect.SendSSHPublicKeyInput{
		InstanceId: instance.InstanceId, InstanceOSUser: aws.String("admin"), SSHPublicKey: &authorized,
	}))
	if got, err := overSSH(c.t.Context(), *instance.PublicIpAddress, pushed, command); err != nil || got != "changed by SSM" {
		c.t.Errorf("with a pushed key: %q, %v", got, err)
	}
}

// bootExported boots a disk as any QEMU would, and looks for the change.
func bootExported(t *testing.T, disk string) {
	t.Helper()
	g, err := guest.Start(t.Context(), guest.Config{
		Disk: disk, Arch: "amd64", Firmware: "uefi", Dir: t.TempDir(), Token: fmt.Sprintf("e2e-sandbox-%d", os.Getpid()),
	})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err = g.Exec(t.Context(), step.Cmd{Argv: []string{"cat", "/etc/gild-e2e"}, Stdout: &out})
	if err := errors.Join(err, g.Close()); err != nil {
		t.Fatal(err)
	}
	if out.String() != "made by gild\n" {
		t.Errorf("/etc/gild-e2e of the exported disk holds %q", out.String())
	}
}
