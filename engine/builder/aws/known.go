package aws

import (
	"fmt"
	"strings"

	"github.com/gildhq/gild/engine/spec"
)

// publisher is somebody whose images can be named by system and version alone.
type publisher struct {
	// owner is the account that publishes, in the partition "aws".
	owner string
	// pattern is the name of the images: {version}, {amd} (amd64, arm64) and {x86} (x86_64,
	// arm64, or aarch64 as {aarch}) are filled in.
	pattern string
	// parameter is the publisher's own SSM parameter with the newest image, or empty.
	parameter string
	// user logs in over SSH.
	user string
}

// publishers are those of the short forms of `base`, by name or by name and version. The owners are the ones that the
// publishers document. A parameter is only used below /aws/service, which nobody but AWS and
// the publishers it lets in can write.
var publishers = map[string]publisher{
	"debian": {owner: "136693071363", pattern: "debian-{version}-{amd}-*", user: "admin"},
	"ubuntu": {
		owner: "099720109477", pattern: "ubuntu/images/hvm-ssd*/ubuntu-*-{version}-{amd}-server-*", user: "ubuntu",
	},
	"amazon-linux": {
		owner: "137112412989", pattern: "al{version}-ami-{version}.*-kernel-*-{x86}", user: "ec2-user",
		parameter: "/aws/service/ami-amazon-linux-latest/al{version}-ami-kernel-default-{x86}",
	},
	"amazon-linux/2": {
		owner: "137112412989", pattern: "amzn2-ami-*hvm-2.*-{x86}-gp2", user: "ec2-user",
		parameter: "/aws/service/ami-amazon-linux-latest/amzn2-ami-kernel-5.10-hvm-{x86}-gp2",
	},
	"rhel":  {owner: "309956199498", pattern: "RHEL-{version}*_HVM-*-{x86}-*-Hourly2-*", user: "ec2-user"},
	"rocky": {owner: "792107900819", pattern: "Rocky-{version}-EC2-Base-{version}*.{aarch}", user: "rocky"},
	"alma":  {owner: "764336703387", pattern: "AlmaLinux OS {version}* {aarch}", user: "ec2-user"},
}

// aliases are the words that EC2 takes for owners, and shows in the answer.
var aliases = map[string]bool{"amazon": true, "aws-marketplace": true}

// partitionMarks tell regions of other partitions, where publishers have other accounts.
var partitionMarks = []string{"us-gov-", "cn-", "us-iso", "eu-isoe-", "eusc-"}

// fill makes a pattern or a parameter's name.
func fill(text, version, arch string) string {
	x86, aarch := "x86_64", "x86_64"
	if arch == "arm64" {
		x86, aarch = "arm64", "aarch64"
	}
	return strings.NewReplacer("{version}", version, "{amd}", arch, "{x86}", x86, "{aarch}", aarch).Replace(text)
}

// findPublisher tells whose images a short form means.
func findPublisher(k spec.KnownBase, region string) (publisher, error) {
	p, ok := publishers[k.Name+"/"+k.Version]
	if !ok {
		p, ok = publishers[k.Name]
	}
	if !ok {
		return p, fmt.Errorf("who publishes %q is not known here; name the owner and the image with base.ami", k.Name)
	}
	for _, mark := range partitionMarks {
		if strings.HasPrefix(region, mark) {
			return p, fmt.Errorf("the account that publishes %s in %s is not known here; name the owner and the image with base.ami", k.Name, region)
		}
	}
	return p, nil
}

// userOf tells who logs in to an image over SSH, by its owner; empty when that isn't known.
func userOf(owner string) string {
	for _, p := range publishers {
		if p.owner == owner {
			return p.user
		}
	}
	return ""
}
