package sandbox_test

import (
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/sandbox"
)

// withDisk adds a seed image that has a text at its beginning.
func (w *world) withDisk(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.raw")
	must(t, os.WriteFile(path, []byte(text), 0o600))
	must(t, os.Truncate(path, 1<<20))
	id, err := w.AddImage(t.Context(), sandbox.SeedImage{Account: publisher, Name: name, SizeGiB: 1, DiskPath: path})
	must(t, err)
	return id
}

func (w *world) exported(t *testing.T, id string, n int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "export.raw")
	must(t, w.Export(t.Context(), sandbox.DefaultRegion, id, path))
	text, err := read(path, 0, n)
	must(t, err)
	return text
}

func TestBytesTravel(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	fakes := &fakeMachines{}
	w := open(t, sandbox.Config{Machines: fakes})
	c := w.mine(t)
	i := run(t, c, w.withDisk(t, "base", "original"), func(in *ec2.RunInstancesInput) {
		in.BlockDeviceMappings = []types.BlockDeviceMapping{{DeviceName: aws.String("/dev/sdf"), Ebs: &types.EbsBlockDevice{VolumeSize: aws.Int32(2)}}}
	})
	waitInstance(t, c, i.InstanceId, "running")
	m := fakes.of(i.InstanceId)[0]
	root := m.spec.Disks[0]
	if got, err := read(root.Path, 0, 8); got != "original" || err != nil {
		t.Errorf("the root disk has %q, %v", got, err)
	}
	for at, want := range []int64{1 << 30, 2 << 30} {
		info, err := os.Stat(m.spec.Disks[at].Path)
		must(t, err)
		if info.Size() != want {
			t.Errorf("disk %d has %d bytes, want %d", at, info.Size(), want)
		}
	}
	must(t, m.write(0, 0, "changed!"))
	must(t, m.write(1, 0, "data"))

	img, err := c.CreateImage(ctx, &ec2.CreateImageInput{InstanceId: i.InstanceId, Name: aws.String("made")})
	must(t, err)
	made := waitImage(t, c, img.ImageId, "available")
	if got := w.exported(t, *img.ImageId, 8); got != "changed!" {
		t.Errorf("the image has %q", got)
	}
	if got := w.exported(t, *made.BlockDeviceMappings[1].Ebs.SnapshotId, 4); got != "data" {
		t.Errorf("the second snapshot has %q", got)
	}
	eventually(t, "the instance runs again", func() bool { return len(fakes.of(i.InstanceId)) == 2 })
	if diff := cmp.Diff([]string{"stop"}, m.seen()); diff != "" {
		t.Errorf("the first machine (-want +got):\n%s", diff)
	}
	if got := instance(t, c, i.InstanceId); got.State.Name != "running" {
		t.Errorf("after CreateImage the instance is %s", got.State.Name)
	}

	// What is made of the image starts with its bytes, and can't change them.
	second := run(t, c, *img.ImageId)
	waitInstance(t, c, second.InstanceId, "running")
	must(t, fakes.of(second.InstanceId)[0].write(0, 0, "scribble"))
	if got := w.exported(t, *img.ImageId, 8); got != "changed!" {
		t.Errorf("an instance changed its image to %q", got)
	}
}

func TestSnapshotOfRunningInstance(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	fakes := &fakeMachines{}
	w := open(t, sandbox.Config{Machines: fakes})
	c := w.mine(t)
	i := run(t, c, w.seed(t, "base"))
	volume := waitInstance(t, c, i.InstanceId, "running").BlockDeviceMappings[0].Ebs.VolumeId
	m := fakes.of(i.InstanceId)[0]
	must(t, m.write(0, 0, "one"))
	sn, err := c.CreateSnapshot(ctx, &ec2.CreateSnapshotInput{VolumeId: volume, TagSpecifications: []types.TagSpecification{tags("snapshot", "k", "v")}})
	must(t, err)
	if sn.State != "pending" || len(sn.Tags) != 1 {
		t.Errorf("a new snapshot is %s with tags %v", sn.State, sn.Tags)
	}
	img, err := c.CreateImage(ctx, &ec2.CreateImageInput{InstanceId: i.InstanceId, Name: aws.String("live"), NoReboot: aws.Bool(true)})
	must(t, err)
	waitImage(t, c, img.ImageId, "available")
	if diff := cmp.Diff([]string{"pause", "resume", "pause", "resume"}, m.seen()); diff != "" {
		t.Errorf("the machine (-want +got):\n%s", diff)
	}
	if got := w.exported(t, *sn.SnapshotId, 3); got != "one" {
		t.Errorf("the snapshot has %q", got)
	}
}

func TestStopAndStart(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	fakes := &fakeMachines{}
	w := open(t, sandbox.Config{Machines: fakes})
	c := w.mine(t)
	i := run(t, c, w.seed(t, "base"))
	waitInstance(t, c, i.InstanceId, "running")
	must(t, fakes.of(i.InstanceId)[0].write(0, 0, "kept"))
	_, err := c.StopInstances(ctx, &ec2.StopInstancesInput{InstanceIds: []string{*i.InstanceId}})
	must(t, err)
	stopped := waitInstance(t, c, i.InstanceId, "stopped")
	if stopped.PublicIpAddress != nil || *stopped.StateReason.Code != "Client.UserInitiatedShutdown" {
		t.Errorf("the stopped instance has the address %v and the reason %v", stopped.PublicIpAddress, stopped.StateReason)
	}
	_, err = c.StartInstances(ctx, &ec2.StartInstancesInput{InstanceIds: []string{*i.InstanceId}})
	must(t, err)
	waitInstance(t, c, i.InstanceId, "running")
	again := fakes.of(i.InstanceId)[1]
	if got, err := read(again.spec.Disks[0].Path, 0, 4); got != "kept" || err != nil {
		t.Errorf("after stop and start the disk has %q, %v", got, err)
	}
	_, err = c.RebootInstances(ctx, &ec2.RebootInstancesInput{InstanceIds: []string{*i.InstanceId}})
	must(t, err)
	eventually(t, "the machine was asked to reboot", func() bool { return len(again.seen()) == 1 })

	// Shut down from inside: stopped, because that is what the instance was launched with.
	again.powerOff()
	stopped = waitInstance(t, c, i.InstanceId, "stopped")
	if *stopped.StateReason.Code != "Client.InstanceInitiatedShutdown" {
		t.Errorf("the reason is %v", *stopped.StateReason.Code)
	}
	disk := again.spec.Disks[0].Path
	_, err = c.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{*i.InstanceId}})
	must(t, err)
	waitInstance(t, c, i.InstanceId, "terminated")
	eventually(t, "the disk is gone", func() bool { _, err := os.Stat(disk); return errors.Is(err, os.ErrNotExist) })
	if _, err := os.Stat(again.spec.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the machine's folder is left: %v", err)
	}
}

func TestShutdownBehaviorTerminate(t *testing.T) {
	t.Parallel()
	fakes := &fakeMachines{}
	w := open(t, sandbox.Config{Machines: fakes})
	c := w.mine(t)
	i := run(t, c, w.seed(t, "base"), func(in *ec2.RunInstancesInput) {
		in.InstanceInitiatedShutdownBehavior = types.ShutdownBehaviorTerminate
	})
	waitInstance(t, c, i.InstanceId, "running")
	fakes.of(i.InstanceId)[0].powerOff()
	waitInstance(t, c, i.InstanceId, "terminated")
}

func TestMachineThatCannotStart(t *testing.T) {
	t.Parallel()
	fakes := &fakeMachines{fail: errors.New("no room")}
	w := open(t, sandbox.Config{Machines: fakes})
	c := w.mine(t)
	i := run(t, c, w.seed(t, "base"))
	gone := waitInstance(t, c, i.InstanceId, "terminated")
	if *gone.StateReason.Code != "Server.InternalError" {
		t.Errorf("the reason is %v", *gone.StateReason.Code)
	}
}

// Terminating while the instance is still being made must leave nothing running.
func TestTerminateAtOnce(t *testing.T) {
	t.Parallel()
	fakes := &fakeMachines{}
	w := open(t, sandbox.Config{Machines: fakes})
	c := w.mine(t)
	base := w.seed(t, "base")
	for range 20 {
		i := run(t, c, base)
		_, err := c.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{*i.InstanceId}})
		must(t, err)
		waitInstance(t, c, i.InstanceId, "terminated")
		for _, m := range fakes.of(i.InstanceId) {
			eventually(t, "the machine has ended", func() bool { return len(m.seen()) > 0 })
		}
	}
}

func TestPortsFollowGroups(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	fakes := &fakeMachines{}
	w := open(t, sandbox.Config{Machines: fakes})
	c := w.mine(t)
	group, err := c.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: aws.String("g"), Description: aws.String("d")})
	must(t, err)
	i := run(t, c, w.seed(t, "base"), func(in *ec2.RunInstancesInput) { in.SecurityGroupIds = []string{*group.GroupId} })
	waitInstance(t, c, i.InstanceId, "running")
	m := fakes.of(i.InstanceId)[0]
	ports := func() []int {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.ports
	}
	if len(ports()) != 0 {
		t.Errorf("a new group lets %v in", ports())
	}
	rule := []types.IpPermission{{IpProtocol: aws.String("tcp"), FromPort: aws.Int32(22), ToPort: aws.Int32(22), IpRanges: []types.IpRange{{CidrIp: aws.String("192.0.2.1/32")}}}}
	_, err = c.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: group.GroupId, IpPermissions: rule})
	must(t, err)
	if diff := cmp.Diff([]int{22}, ports()); diff != "" {
		t.Errorf("with a rule (-want +got):\n%s", diff)
	}
	_, err = c.RevokeSecurityGroupIngress(ctx, &ec2.RevokeSecurityGroupIngressInput{GroupId: group.GroupId, IpPermissions: rule})
	must(t, err)
	if len(ports()) != 0 {
		t.Errorf("after the rule is gone %v are let in", ports())
	}
	if address := *instance(t, c, i.InstanceId).PublicIpAddress; address != m.spec.Address {
		t.Errorf("the public address %s isn't the machine's %s", address, m.spec.Address)
	}
	private := run(t, c, w.seed(t, "base"), func(in *ec2.RunInstancesInput) {
		in.NetworkInterfaces = []types.InstanceNetworkInterfaceSpecification{{DeviceIndex: aws.Int32(0), AssociatePublicIpAddress: aws.Bool(false), Groups: []string{*group.GroupId}}}
	})
	if got := waitInstance(t, c, private.InstanceId, "running"); got.PublicIpAddress != nil {
		t.Errorf("an instance without public address has %s", *got.PublicIpAddress)
	}
}

// Closing a sandbox shuts its machines down, and its instances are stopped when it is opened
// again; their disks are as they were left.
func TestOpenAgain(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	dir := t.TempDir()
	fakes := &fakeMachines{}
	s, err := sandbox.Open(ctx, sandbox.Config{Dir: dir, Machines: fakes})
	must(t, err)
	id, err := s.AddImage(ctx, sandbox.SeedImage{Account: publisher, Name: "base", SizeGiB: 1})
	must(t, err)
	srv := httptest.NewServer(s.Handler())
	first := &world{s, srv.URL}
	i := run(t, first.mine(t), id)
	waitInstance(t, first.mine(t), i.InstanceId, "running")
	must(t, fakes.of(i.InstanceId)[0].write(0, 0, "kept"))
	must(t, s.Advance(time.Hour))
	before := s.Now()
	srv.Close()
	must(t, s.Close())
	must(t, s.Close())
	if diff := cmp.Diff([]string{"stop"}, fakes.of(i.InstanceId)[0].seen()); diff != "" {
		t.Errorf("the machine (-want +got):\n%s", diff)
	}

	w := open(t, sandbox.Config{Dir: dir, Machines: fakes})
	if w.Now().Before(before) {
		t.Errorf("the clock went back from %v to %v", before, w.Now())
	}
	if diff := cmp.Diff([]string{*i.InstanceId}, fakes.reaped); diff != "" {
		t.Errorf("reaped (-want +got):\n%s", diff)
	}
	c := w.mine(t)
	if got := instance(t, c, i.InstanceId); got.State.Name != "stopped" {
		t.Fatalf("the instance is %s", got.State.Name)
	}
	_, err = c.StartInstances(ctx, &ec2.StartInstancesInput{InstanceIds: []string{*i.InstanceId}})
	must(t, err)
	waitInstance(t, c, i.InstanceId, "running")
	if got, err := read(fakes.of(i.InstanceId)[1].spec.Disks[0].Path, 0, 4); got != "kept" || err != nil {
		t.Errorf("the disk has %q, %v", got, err)
	}
	if _, err := sandbox.Open(ctx, sandbox.Config{Dir: dir}); err == nil {
		t.Error("two sandboxes have the same folder")
	}
}
