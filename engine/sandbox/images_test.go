package sandbox_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/sandbox"
)

// snapshotOf makes a completed snapshot of one GiB.
func snapshotOf(t testing.TB, c *ec2.Client) string {
	t.Helper()
	v, err := c.CreateVolume(t.Context(), &ec2.CreateVolumeInput{AvailabilityZone: aws.String("us-east-1a"), Size: aws.Int32(1)})
	must(t, err)
	eventually(t, "the volume is available", func() bool {
		out, err := c.DescribeVolumes(t.Context(), &ec2.DescribeVolumesInput{VolumeIds: []string{*v.VolumeId}})
		must(t, err)
		return out.Volumes[0].State == "available"
	})
	sn, err := c.CreateSnapshot(t.Context(), &ec2.CreateSnapshotInput{VolumeId: v.VolumeId})
	must(t, err)
	waitSnapshot(t, c, sn.SnapshotId)
	return *sn.SnapshotId
}

func waitSnapshot(t testing.TB, c *ec2.Client, id *string) {
	t.Helper()
	eventually(t, "the snapshot is completed", func() bool {
		out, err := c.DescribeSnapshots(t.Context(), &ec2.DescribeSnapshotsInput{SnapshotIds: []string{*id}})
		must(t, err)
		return out.Snapshots[0].State == "completed"
	})
}

func registerInput(name, snapshot string) *ec2.RegisterImageInput {
	return &ec2.RegisterImageInput{Name: &name, Architecture: types.ArchitectureValuesX8664, VirtualizationType: aws.String("hvm"),
		EnaSupport: aws.Bool(true), RootDeviceName: aws.String("/dev/xvda"),
		BlockDeviceMappings: []types.BlockDeviceMapping{{DeviceName: aws.String("/dev/xvda"), Ebs: &types.EbsBlockDevice{SnapshotId: &snapshot}}}}
}

func register(t testing.TB, c *ec2.Client, name string) string {
	t.Helper()
	out, err := c.RegisterImage(t.Context(), registerInput(name, snapshotOf(t, c)))
	must(t, err)
	waitImage(t, c, out.ImageId, "available")
	return *out.ImageId
}

func TestRegisterImageKeepsWhatItIsTold(t *testing.T) {
	t.Parallel()
	c := open(t, sandbox.Config{}).mine(t)
	in := registerInput("web-1", snapshotOf(t, c))
	in.Description, in.BootMode, in.TpmSupport, in.ImdsSupport = aws.String("about"), "uefi-preferred", "v2.0", "v2.0"
	in.BlockDeviceMappings[0].Ebs.VolumeSize, in.BlockDeviceMappings[0].Ebs.VolumeType = aws.Int32(3), "gp3"
	in.BlockDeviceMappings[0].Ebs.DeleteOnTermination = aws.Bool(false)
	in.TagSpecifications = []types.TagSpecification{tags("image", "k", "v")}
	made, err := c.RegisterImage(t.Context(), in)
	must(t, err)
	got := waitImage(t, c, made.ImageId, "available")
	type facts struct {
		Name, About, Boot, TPM, IMDS, Arch, Root, Tag string
		ENA                                           bool
		Size                                          int32
		Delete                                        bool
		Type                                          types.VolumeType
	}
	ebs := got.BlockDeviceMappings[0].Ebs
	diff := cmp.Diff(facts{"web-1", "about", "uefi-preferred", "v2.0", "v2.0", "x86_64", "/dev/xvda", "v", true, 3, false, "gp3"},
		facts{*got.Name, *got.Description, string(got.BootMode), string(got.TpmSupport), string(got.ImdsSupport), string(got.Architecture),
			*got.RootDeviceName, *got.Tags[0].Value, *got.EnaSupport, *ebs.VolumeSize, *ebs.DeleteOnTermination, ebs.VolumeType})
	if diff != "" {
		t.Errorf("the image (-want +got):\n%s", diff)
	}
}

func TestImageRefusals(t *testing.T) {
	t.Parallel()
	w := open(t, sandbox.Config{})
	c := w.mine(t)
	sn := snapshotOf(t, c)
	taken := register(t, c, "taken")
	for name, test := range map[string]struct {
		change func(*ec2.RegisterImageInput)
		want   string
	}{
		"name in use": {func(in *ec2.RegisterImageInput) { in.Name = aws.String("taken") }, "InvalidAMIName.Duplicate"},
		"bad name":    {func(in *ec2.RegisterImageInput) { in.Name = aws.String("no*star") }, "InvalidAMIName.Malformed"},
		"unknown snapshot": {func(in *ec2.RegisterImageInput) {
			in.BlockDeviceMappings[0].Ebs.SnapshotId = aws.String("snap-0123456789abcdef0")
		}, "InvalidSnapshot.NotFound"},
		"no root":          {func(in *ec2.RegisterImageInput) { in.RootDeviceName = aws.String("/dev/sda1") }, "InvalidBlockDeviceMapping"},
		"too small":        {func(in *ec2.RegisterImageInput) { in.BlockDeviceMappings[0].Ebs.VolumeSize = aws.Int32(0) }, "InvalidBlockDeviceMapping"},
		"tpm without uefi": {func(in *ec2.RegisterImageInput) { in.TpmSupport = "v2.0" }, "InvalidParameterCombination"},
		"arm with bios":    {func(in *ec2.RegisterImageInput) { in.Architecture, in.BootMode = "arm64", "legacy-bios" }, "InvalidParameterCombination"},
		"tags of another kind": {func(in *ec2.RegisterImageInput) {
			in.TagSpecifications = []types.TagSpecification{tags("instance", "a", "b")}
		}, "InvalidParameterValue"},
		"reserved tag": {func(in *ec2.RegisterImageInput) {
			in.TagSpecifications = []types.TagSpecification{tags("image", "aws:a", "b")}
		}, "InvalidParameterValue"},
		"dry run": {func(in *ec2.RegisterImageInput) { in.DryRun = aws.Bool(true) }, "DryRunOperation"},
	} {
		t.Run(name, func(t *testing.T) {
			in := registerInput("free", sn)
			test.change(in)
			_, err := c.RegisterImage(t.Context(), in)
			wantCode(t, test.want, err)
		})
	}
	for id, want := range map[string]string{"ami-0123456789abcdef0": "InvalidAMIID.NotFound", "ami-xyz": "InvalidAMIID.Malformed", taken: ""} {
		_, err := c.DescribeImages(t.Context(), &ec2.DescribeImagesInput{ImageIds: []string{id}})
		wantCode(t, want, err)
	}
	_, err := c.DescribeImages(t.Context(), &ec2.DescribeImagesInput{Filters: []types.Filter{filter("colour", "red")}})
	wantCode(t, "InvalidParameterValue", err)
	_, err = w.other(t).DeregisterImage(t.Context(), &ec2.DeregisterImageInput{ImageId: &taken})
	wantCode(t, "InvalidAMIID.NotFound", err)
}

// Who may see an image, launch it, and change it.
func TestImagePermissions(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	w := open(t, sandbox.Config{})
	mine, other := w.mine(t), w.other(t)
	id := register(t, mine, "shared")
	launch := func(c *ec2.Client) string {
		_, err := c.RunInstances(ctx, runInput(id))
		return code(err)
	}
	owners := func(c *ec2.Client, in *ec2.DescribeImagesInput) int {
		out, err := c.DescribeImages(ctx, in)
		must(t, err)
		return len(out.Images)
	}
	if got := launch(other); got != "InvalidAMIID.NotFound" {
		t.Errorf("a private image of another account: %s", got)
	}
	_, err := mine.ModifyImageAttribute(ctx, &ec2.ModifyImageAttributeInput{ImageId: &id,
		LaunchPermission: &types.LaunchPermissionModifications{Add: []types.LaunchPermission{{UserId: aws.String(otherAccount)}}}})
	must(t, err)
	if got := launch(other); got != "" {
		t.Errorf("a shared image: %s", got)
	}
	for want, in := range map[int]*ec2.DescribeImagesInput{
		0: {Owners: []string{"self"}},
		1: {ExecutableUsers: []string{"self"}},
	} {
		if got := owners(other, in); got != want {
			t.Errorf("DescribeImages gives %d images, want %d", got, want)
		}
	}
	_, err = other.CopyImage(ctx, &ec2.CopyImageInput{Name: aws.String("copy"), SourceImageId: &id, SourceRegion: aws.String("us-east-1")})
	wantCode(t, "InvalidRequest", err)
	_, err = other.ModifyImageAttribute(ctx, &ec2.ModifyImageAttributeInput{ImageId: &id, Description: &types.AttributeValue{Value: aws.String("x")}})
	wantCode(t, "AuthFailure", err)
	perms, err := mine.DescribeImageAttribute(ctx, &ec2.DescribeImageAttributeInput{ImageId: &id, Attribute: "launchPermission"})
	must(t, err)
	if len(perms.LaunchPermissions) != 1 || *perms.LaunchPermissions[0].UserId != otherAccount {
		t.Errorf("launch permissions %v", perms.LaunchPermissions)
	}

	// Disabled, it is gone for others, and not launchable for its owner.
	_, err = mine.DisableImage(ctx, &ec2.DisableImageInput{ImageId: &id})
	must(t, err)
	if got := launch(other); got != "InvalidAMIID.NotFound" {
		t.Errorf("a disabled image of another account: %s", got)
	}
	if got := launch(mine); got != "InvalidAMIID.Unavailable" {
		t.Errorf("a disabled image: %s", got)
	}
	if got := owners(mine, &ec2.DescribeImagesInput{Owners: []string{"self"}}); got != 0 {
		t.Errorf("a disabled image is listed")
	}
	if got := owners(mine, &ec2.DescribeImagesInput{Owners: []string{"self"}, IncludeDisabled: aws.Bool(true)}); got != 1 {
		t.Errorf("a disabled image isn't listed with IncludeDisabled")
	}
	_, err = mine.EnableImage(ctx, &ec2.EnableImageInput{ImageId: &id})
	must(t, err)
	if got := launch(other); got != "InvalidAMIID.NotFound" {
		t.Errorf("enabled again, the image is shared again: %s", got)
	}
}

// The hostile case: another account publishes an image of the same name, newer.
func TestOwnersTellImagesApart(t *testing.T) {
	t.Parallel()
	w := open(t, sandbox.Config{})
	good := w.seed(t, "debian-12-amd64-20261101")
	bad, err := w.AddImage(t.Context(), sandbox.SeedImage{Account: otherAccount, Name: "debian-12-amd64-20261101"})
	must(t, err)
	for owners, want := range map[string][]string{"": {good, bad}, publisher: {good}, otherAccount: {bad}} {
		in := &ec2.DescribeImagesInput{Filters: []types.Filter{filter("name", "debian-12-*")}}
		if owners != "" {
			in.Owners = []string{owners}
		}
		out, err := w.mine(t).DescribeImages(t.Context(), in)
		must(t, err)
		var got []string
		for _, i := range out.Images {
			got = append(got, *i.ImageId)
		}
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("owners %q (-want +got):\n%s", owners, diff)
		}
	}
}

func TestDeprecation(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	w := open(t, sandbox.Config{})
	mine, other := w.mine(t), w.other(t)
	id := register(t, mine, "old")
	_, err := mine.ModifyImageAttribute(ctx, &ec2.ModifyImageAttributeInput{ImageId: &id,
		LaunchPermission: &types.LaunchPermissionModifications{Add: []types.LaunchPermission{{Group: "all"}}}})
	must(t, err)
	_, err = mine.EnableImageDeprecation(ctx, &ec2.EnableImageDeprecationInput{ImageId: &id, DeprecateAt: aws.Time(w.Now().Add(-time.Hour))})
	wantCode(t, "InvalidParameterValue", err)
	_, err = mine.EnableImageDeprecation(ctx, &ec2.EnableImageDeprecationInput{ImageId: &id, DeprecateAt: aws.Time(w.Now().Add(48 * time.Hour))})
	must(t, err)
	count := func(c *ec2.Client, deprecated bool) int {
		out, err := c.DescribeImages(ctx, &ec2.DescribeImagesInput{Owners: []string{sandbox.DefaultAccount}, IncludeDeprecated: &deprecated})
		must(t, err)
		return len(out.Images)
	}
	if count(other, false) != 1 {
		t.Error("the image is hidden before it is deprecated")
	}
	must(t, w.Advance(49*time.Hour))
	for _, test := range []struct {
		who        *ec2.Client
		deprecated bool
		want       int
	}{{mine, false, 1}, {other, false, 0}, {other, true, 1}} {
		if got := count(test.who, test.deprecated); got != test.want {
			t.Errorf("include deprecated %v: %d images, want %d", test.deprecated, got, test.want)
		}
	}
	if _, err := other.RunInstances(ctx, runInput(id)); err != nil {
		t.Errorf("a deprecated image can't be launched: %v", err)
	}
}

func TestProtection(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	w := open(t, sandbox.Config{})
	c := w.mine(t)
	id := register(t, c, "kept")
	deregister := func() string {
		_, err := c.DeregisterImage(ctx, &ec2.DeregisterImageInput{ImageId: &id})
		return code(err)
	}
	_, err := c.EnableImageDeregistrationProtection(ctx, &ec2.EnableImageDeregistrationProtectionInput{ImageId: &id, WithCooldown: aws.Bool(true)})
	must(t, err)
	if got := deregister(); got != "OperationNotPermitted" {
		t.Errorf("protected: %q", got)
	}
	_, err = c.DisableImageDeregistrationProtection(ctx, &ec2.DisableImageDeregistrationProtectionInput{ImageId: &id})
	must(t, err)
	if got := deregister(); got != "OperationNotPermitted" {
		t.Errorf("in its cooldown: %q", got)
	}
	must(t, w.Advance(25*time.Hour))
	if got := deregister(); got != "" {
		t.Errorf("not protected any more: %q", got)
	}
	if got := deregister(); got != "InvalidAMIID.NotFound" {
		t.Errorf("deregistered twice: %q", got)
	}
}

func TestCopyImage(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	w := open(t, sandbox.Config{})
	here, there := w.mine(t), w.client(t, sandbox.DefaultKey, "eu-central-1")
	source := register(t, here, "web")
	_, err := here.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{source}, Tags: []types.Tag{{Key: aws.String("own"), Value: aws.String("1")}}})
	must(t, err)
	in := &ec2.CopyImageInput{Name: aws.String("web"), SourceImageId: &source, SourceRegion: aws.String("us-east-1"), ClientToken: aws.String("token"),
		Encrypted: aws.Bool(true), CopyImageTags: aws.Bool(true), TagSpecifications: []types.TagSpecification{tags("image", "new", "2"), tags("snapshot", "s", "3")}}
	made, err := there.CopyImage(ctx, in)
	must(t, err)
	again, err := there.CopyImage(ctx, in)
	must(t, err)
	if *again.ImageId != *made.ImageId {
		t.Errorf("the same token made %s and %s", *made.ImageId, *again.ImageId)
	}
	in.Name = aws.String("web-2")
	_, err = there.CopyImage(ctx, in)
	wantCode(t, "IdempotentParameterMismatch", err)
	got := waitImage(t, there, made.ImageId, "available")
	if len(got.Tags) != 2 || *got.SourceImageId != source || *got.SourceImageRegion != "us-east-1" || !*got.BlockDeviceMappings[0].Ebs.Encrypted {
		t.Errorf("the copy is %+v", got)
	}
	// Names aren't unique when images are copied.
	in.Name, in.ClientToken = aws.String("web"), nil
	_, err = there.CopyImage(ctx, in)
	must(t, err)
	// The bytes are a copy's own: the source may go.
	out, err := here.DeregisterImage(ctx, &ec2.DeregisterImageInput{ImageId: &source, DeleteAssociatedSnapshots: aws.Bool(true)})
	must(t, err)
	if len(out.DeleteSnapshotResults) != 1 || out.DeleteSnapshotResults[0].ReturnCode != "success" {
		t.Errorf("deleted snapshots: %v", out.DeleteSnapshotResults)
	}
	if _, err := w.SnapshotFile(*got.BlockDeviceMappings[0].Ebs.SnapshotId); err != nil {
		t.Error(err)
	}
	in.KmsKeyId, in.SourceImageId = aws.String("alias/none"), made.ImageId
	in.SourceRegion, in.CopyImageTags, in.ClientToken = aws.String("eu-central-1"), nil, nil
	bad, err := there.CopyImage(ctx, in)
	must(t, err)
	if failed := waitImage(t, there, bad.ImageId, "failed"); !strings.Contains(*failed.StateReason.Message, "key ID") {
		t.Errorf("a copy with a key that isn't there: %v", *failed.StateReason.Message)
	}
}

func TestPagesHoldEverythingOnce(t *testing.T) {
	t.Parallel()
	w := open(t, sandbox.Config{})
	c := w.mine(t)
	for n := range 23 {
		w.seed(t, fmt.Sprintf("image-%02d", n))
	}
	for _, size := range []int32{1, 7, 22, 23, 24} {
		seen := map[string]int{}
		p := ec2.NewDescribeImagesPaginator(c, &ec2.DescribeImagesInput{MaxResults: &size})
		pages := 0
		for p.HasMorePages() {
			out, err := p.NextPage(t.Context())
			must(t, err)
			pages++
			for _, i := range out.Images {
				seen[*i.ImageId]++
			}
		}
		if len(seen) != 23 || pages != int((23+size-1)/size) {
			t.Errorf("pages of %d: %d images on %d pages", size, len(seen), pages)
		}
	}
	_, err := c.DescribeImages(t.Context(), &ec2.DescribeImagesInput{NextToken: aws.String("made up")})
	wantCode(t, "InvalidNextToken", err)
	_, err = c.DescribeImages(t.Context(), &ec2.DescribeImagesInput{MaxResults: aws.Int32(0)})
	wantCode(t, "InvalidParameterValue", err)
}

func TestSeedImages(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	w := open(t, sandbox.Config{})
	seed := sandbox.SeedImage{Account: publisher, Name: "debian-12", Arch: "arm64", BootMode: "uefi", SSMParameters: []string{"/aws/service/debian/12"},
		Tags: map[string]string{"a": "b"}}
	id, err := w.AddImage(ctx, seed)
	must(t, err)
	again, err := w.AddImage(ctx, seed)
	must(t, err)
	if id != again {
		t.Errorf("added twice: %s and %s", id, again)
	}
	if got, ok := w.PublicParameter("us-east-1", "/aws/service/debian/12"); got != id || !ok {
		t.Errorf("the parameter is %q", got)
	}
	there, ok := w.PublicParameter("eu-west-1", "/aws/service/debian/12")
	if there == id || !ok {
		t.Errorf("in another region the image has the id %q", there)
	}
	out, err := w.client(t, sandbox.DefaultKey, "eu-west-1").DescribeImages(ctx, &ec2.DescribeImagesInput{ImageIds: []string{there}})
	must(t, err)
	if i := out.Images[0]; !*i.Public || *i.OwnerId != publisher || i.Architecture != "arm64" || len(i.Tags) != 0 {
		t.Errorf("the image is %+v", i)
	}
	for name, bad := range map[string]sandbox.SeedImage{
		"account":   {Account: "me", Name: "debian"},
		"name":      {Account: publisher, Name: "?"},
		"arch":      {Account: publisher, Name: "debian", Arch: "mips"},
		"region":    {Account: publisher, Name: "debian", Region: "mars-1"},
		"boot mode": {Account: publisher, Name: "debian", BootMode: "floppy"},
	} {
		if _, err := w.AddImage(ctx, bad); err == nil {
			t.Errorf("a seed image with a bad %s was taken", name)
		}
	}
}

func TestBytesAreMadeAtFirstUse(t *testing.T) {
	t.Parallel()
	w := open(t, sandbox.Config{})
	made := make(chan string, 10)
	id, err := w.AddImage(t.Context(), sandbox.SeedImage{Account: publisher, Name: "lazy", SizeGiB: 1, Bytes: func(context.Context) (string, error) {
		path := filepath.Join(t.TempDir(), "made.raw")
		made <- path
		return path, os.WriteFile(path, []byte("made"), 0o600)
	}})
	must(t, err)
	if out, err := w.mine(t).DescribeImages(t.Context(), &ec2.DescribeImagesInput{ImageIds: []string{id}}); err != nil || len(made) > 0 {
		t.Errorf("describing %d images made the bytes %d times, %v", len(out.Images), len(made), err)
	}
	for range 2 {
		if got := w.exported(t, id, 4); got != "made" {
			t.Errorf("the bytes are %q", got)
		}
	}
	there, ok := w.PublicParameter("eu-west-1", "none")
	if there != "" || ok {
		t.Errorf("a parameter nobody made is %q", there)
	}
	if len(made) != 1 {
		t.Errorf("the bytes were made %d times", len(made))
	}
}
