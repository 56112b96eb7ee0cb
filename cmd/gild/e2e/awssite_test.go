package e2e_test

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"github.com/gildhq/gild/engine/sandbox"
	"github.com/gildhq/gild/engine/sandbox/sandboxtest"
)

// The regions of testdata/aws.
var awsRegions = []string{sandboxtest.Region, "eu-west-1"}

// publishingImage is an image that is published but for its last tag.
const publishingImage = "published image that expires"

// awsSite is a site that builds on a sandbox with quick machines.
type awsSite struct {
	*site
	cloud *sandboxtest.Site
	gate  *gate
	look  *httptest.Server // the sandbox without the gate
}

// newAWSSite has the project of testdata/aws and an empty state folder.
func newAWSSite(t testing.TB, config sandbox.Config) *awsSite {
	t.Helper()
	dir, err := os.MkdirTemp("", "gild-aws-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	s := &awsSite{gate: &gate{}}
	s.site = &site{t: t, state: filepath.Join(dir, "state"), project: filepath.Join(dir, "project"), program: crashGild}
	if err := os.CopyFS(s.project, os.DirFS("testdata/aws")); err != nil {
		t.Fatal(err)
	}
	s.cloud = sandboxtest.Start(t, sandboxtest.Options{Config: config, Wrap: s.gate.wrap})
	s.look = httptest.NewServer(s.cloud.Server.Handler())
	t.Cleanup(s.look.Close)
	s.env = s.cloud.Env()
	return s
}

// elsewhere is the site as another machine has it: the same project and AWS account.
func (s *awsSite) elsewhere() *awsSite {
	other, own := *s, *s.site
	own.state += "-elsewhere"
	other.site = &own
	return &other
}

func (s *awsSite) clients(region string) (*ec2.Client, *iam.Client, *ssm.Client) {
	c := aws.Config{
		Region: region, BaseEndpoint: aws.String(s.look.URL),
		Credentials: credentials.NewStaticCredentialsProvider(sandbox.DefaultKey, sandbox.DefaultKey, ""),
	}
	return ec2.NewFromConfig(c), iam.NewFromConfig(c), ssm.NewFromConfig(c)
}

// holds lists what there is in the account, sorted: "eu-west-1 image published available".
// Snapshots of images that are there count as part of these.
func (s *awsSite) holds() []string {
	s.t.Helper()
	var all []string
	for _, region := range awsRegions {
		all = append(all, s.holdsIn(region)...)
	}
	_, c, _ := s.clients(awsRegions[0])
	roles, err := c.ListRoles(s.t.Context(), nil)
	profiles, err2 := c.ListInstanceProfiles(s.t.Context(), nil)
	if err := errors.Join(err, err2); err != nil {
		s.t.Fatal(err)
	}
	for _, r := range roles.Roles {
		all = append(all, "role "+*r.RoleName)
	}
	for _, p := range profiles.InstanceProfiles {
		all = append(all, "instance profile "+*p.InstanceProfileName)
	}
	slices.Sort(all)
	return all
}

func (s *awsSite) holdsIn(region string) (all []string) {
	s.t.Helper()
	ctx, self := s.t.Context(), []string{"self"}
	c, _, _ := s.clients(region)
	images, err1 := c.DescribeImages(ctx, &ec2.DescribeImagesInput{Owners: self, IncludeDeprecated: aws.Bool(true), IncludeDisabled: aws.Bool(true)})
	snapshots, err2 := c.DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{OwnerIds: self})
	instances, err3 := c.DescribeInstances(ctx, nil)
	volumes, err4 := c.DescribeVolumes(ctx, nil)
	groups, err5 := c.DescribeSecurityGroups(ctx, nil)
	keys, err6 := c.DescribeKeyPairs(ctx, nil)
	cards, err7 := c.DescribeNetworkInterfaces(ctx, nil)
	spot, err8 := c.DescribeSpotInstanceRequests(ctx, nil)
	if err := errors.Join(err1, err2, err3, err4, err5, err6, err7, err8); err != nil {
		s.t.Fatal(err)
	}
	add := func(format string, args ...any) { all = append(all, region+" "+fmt.Sprintf(format, args...)) }
	held := map[string]bool{}
	for _, i := range images.Images {
		kind := tagOf(i.Tags, "gild:kind")
		add("image %s %s", kind, i.State)
		if kind == "published" && hasTag(i.Tags, "gild:expires") {
			add(publishingImage)
		}
		for _, m := range i.BlockDeviceMappings {
			held[aws.ToString(m.Ebs.SnapshotId)] = true
		}
	}
	for _, i := range snapshots.Snapshots {
		if !held[*i.SnapshotId] {
			add("snapshot %s %s", *i.SnapshotId, tagOf(i.Tags, "gild:kind"))
		}
	}
	for _, r := range instances.Reservations {
		for _, i := range r.Instances {
			if i.State.Name != types.InstanceStateNameTerminated {
				add("instance %s %s", tagOf(i.Tags, "gild:kind"), i.State.Name)
			}
		}
	}
	for _, v := range volumes.Volumes {
		add("volume %s", v.State)
	}
	for _, g := range groups.SecurityGroups {
		if *g.GroupName != "default" {
			add("group %s", *g.GroupName)
		}
	}
	for _, k := range keys.KeyPairs {
		add("key pair %s", *k.KeyName)
	}
	for _, n := range cards.NetworkInterfaces {
		add("network interface %s", n.Status)
	}
	for _, r := range spot.SpotInstanceRequests {
		if r.State != types.SpotInstanceStateClosed && r.State != types.SpotInstanceStateCancelled {
			add("spot request %s", r.State)
		}
	}
	return all
}

func tagOf(tags []types.Tag, key string) string {
	for _, t := range tags {
		if aws.ToString(t.Key) == key {
			return aws.ToString(t.Value)
		}
	}
	return ""
}

func hasTag(tags []types.Tag, key string) bool {
	return slices.ContainsFunc(tags, func(t types.Tag) bool { return aws.ToString(t.Key) == key })
}

// runOf finds the id of the run in what a build has said; "" when it was killed before it
// began one.
func runOf(out outcome) string {
	for line := range strings.Lines(out.stderr) {
		fields := strings.Fields(line)
		if len(fields) > 2 && fields[1] == "run" {
			return strings.TrimSuffix(fields[2], ":")
		}
	}
	return ""
}
