package publisher_test

import (
	"path"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/builder/aws/publisher"
	"github.com/gildhq/gild/engine/spec"
)

const home = "eu-west-1"

// TestFind holds the patterns against names of real images.
func TestFind(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ system, version, arch, name string }{
		{"debian", "12", "amd64", "debian-12-amd64-20250316-2053"},
		{"debian", "13", "arm64", "debian-13-arm64-20250814-2204"},
		{"ubuntu", "24.04", "amd64", "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20250516"},
		{"ubuntu", "22.04", "arm64", "ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-arm64-server-20250516"},
		{"amazon-linux", "2023", "amd64", "al2023-ami-2023.7.20250512.0-kernel-6.1-x86_64"},
		{"amazon-linux", "2", "arm64", "amzn2-ami-kernel-5.10-hvm-2.0.20250512.0-arm64-gp2"},
		{"rhel", "9", "amd64", "RHEL-9.4.0_HVM-20240605-x86_64-82-Hourly2-GP3"},
		{"rocky", "9", "arm64", "Rocky-9-EC2-Base-9.5-20241118.0.aarch64"},
		{"alma", "9", "amd64", "AlmaLinux OS 9.5.20241119 x86_64"},
	} {
		pub, err := publisher.Find(spec.KnownBase{Name: tt.system, Version: tt.version}, home, tt.arch)
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := path.Match(pub.Pattern, tt.name); !ok || err != nil {
			t.Errorf("%q doesn't match %q: %v", pub.Pattern, tt.name, err)
		}
		if len(pub.Owner) != 12 || publisher.User(pub.Owner) != pub.User || pub.User == "" {
			t.Errorf("publisher of %s: %+v", tt.system, pub)
		}
	}
}

func TestParameter(t *testing.T) {
	t.Parallel()
	pub, err := publisher.Find(spec.KnownBase{Name: "amazon-linux", Version: "2023"}, home, "arm64")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-arm64", pub.Parameter); diff != "" {
		t.Errorf("parameter (-want +got):\n%s", diff)
	}
}

func TestUnknown(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ system, region, want string }{
		{"gentoo", home, `who publishes "gentoo" is not known here; name the owner and the image with base.ami`},
		{"debian", "us-gov-west-1", "the account that publishes debian in us-gov-west-1 is not known here; name the owner and the image with base.ami"},
		{"debian", "cn-north-1", "the account that publishes debian in cn-north-1 is not known here; name the owner and the image with base.ami"},
	} {
		_, err := publisher.Find(spec.KnownBase{Name: tt.system, Version: "12"}, tt.region, "amd64")
		if err == nil || err.Error() != tt.want {
			t.Errorf("error %v, want %q", err, tt.want)
		}
	}
	if u := publisher.User("111122223333"); u != "" {
		t.Errorf("%q logs in to anybody's image", u)
	}
}

func TestPartition(t *testing.T) {
	t.Parallel()
	for region, want := range map[string]string{
		"eu-west-1": "aws", "us-east-1": "aws", "us-gov-west-1": "aws-us-gov", "cn-north-1": "aws-cn", "us-iso-east-1": "aws-iso",
		"us-isob-east-1": "aws-iso-b", "us-isof-south-1": "aws-iso-f", "eu-isoe-west-1": "aws-iso-e", "eusc-de-east-1": "aws-eusc", "ap-south-1": "aws",
	} {
		if got := publisher.Partition(region); got != want {
			t.Errorf("%s is in %s, want %s", region, got, want)
		}
	}
}
