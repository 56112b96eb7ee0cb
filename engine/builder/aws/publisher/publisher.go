// Package publisher tells who publishes the images that pipelines name by system and version
// alone, such as "debian: 12". In goes that name, and where and for what machine the image is
// wanted; out come the account that owns it, and how it is found. The package asks nobody.
package publisher

import (
	"fmt"
	"strings"

	"github.com/gildhq/gild/engine/spec"
)

// Publisher is somebody whose images can be named by system and version alone.
type Publisher struct {
	// Owner is the account that publishes, twelve digits.
	Owner string
	// Pattern is the name of the images, where "*" stands for any text.
	Pattern string
	// Parameter is the publisher's own SSM parameter with the newest image, or empty.
	Parameter string
	// User logs in over SSH.
	User string
}

// publishers are those of the short forms of `base`, by name or by name and version. The
// owners are the ones that the publishers document, in the partition "aws". In patterns and
// parameters {version}, {amd} (amd64, arm64), {x86} (x86_64, arm64) and {aarch} (x86_64,
// aarch64) are filled in. A parameter is only used below /aws/service, which nobody but AWS
// and the publishers it lets in can write.
var publishers = map[string]Publisher{
	"debian": {Owner: "136693071363", Pattern: "debian-{version}-{amd}-*", User: "admin"},
	"ubuntu": {
		Owner: "099720109477", Pattern: "ubuntu/images/hvm-ssd*/ubuntu-*-{version}-{amd}-server-*", User: "ubuntu",
	},
	"amazon-linux": {
		Owner: "137112412989", Pattern: "al{version}-ami-{version}.*-kernel-*-{x86}", User: "ec2-user",
		Parameter: "/aws/service/ami-amazon-linux-latest/al{version}-ami-kernel-default-{x86}",
	},
	"amazon-linux/2": {
		Owner: "137112412989", Pattern: "amzn2-ami-*hvm-2.*-{x86}-gp2", User: "ec2-user",
		Parameter: "/aws/service/ami-amazon-linux-latest/amzn2-ami-kernel-5.10-hvm-{x86}-gp2",
	},
	"rhel":  {Owner: "309956199498", Pattern: "RHEL-{version}*_HVM-*-{x86}-*-Hourly2-*", User: "ec2-user"},
	"rocky": {Owner: "792107900819", Pattern: "Rocky-{version}-EC2-Base-{version}*.{aarch}", User: "rocky"},
	"alma":  {Owner: "764336703387", Pattern: "AlmaLinux OS {version}* {aarch}", User: "ec2-user"},
}

// Find tells whose images a short form means, for a region and an architecture ("amd64",
// "arm64"). The error says that nobody is known, and what to write then.
func Find(base spec.KnownBase, region, arch string) (Publisher, error) {
	p, ok := publishers[base.Name+"/"+base.Version]
	if !ok {
		p, ok = publishers[base.Name]
	}
	if !ok {
		return p, fmt.Errorf("who publishes %q is not known here; name the owner and the image with base.ami", base.Name)
	}
	if Partition(region) != "aws" {
		return Publisher{}, fmt.Errorf("the account that publishes %s in %s is not known here; name the owner and the image with base.ami", base.Name, region)
	}
	p.Pattern, p.Parameter = fill(p.Pattern, base.Version, arch), fill(p.Parameter, base.Version, arch)
	return p, nil
}

// fill makes a pattern or a parameter's name.
func fill(text, version, arch string) string {
	x86, aarch := "x86_64", "x86_64"
	if arch == "arm64" {
		x86, aarch = "arm64", "aarch64"
	}
	return strings.NewReplacer("{version}", version, "{amd}", arch, "{x86}", x86, "{aarch}", aarch).Replace(text)
}

// User tells who logs in to an image over SSH, by its owner; empty when that isn't known.
func User(owner string) string {
	for _, p := range publishers {
		if p.Owner == owner {
			return p.User
		}
	}
	return ""
}

// Partition of a region: "aws", or another of the clouds of AWS. Each has accounts of its own.
func Partition(region string) string {
	for _, p := range []struct{ prefix, name string }{
		{"cn-", "aws-cn"}, {"us-gov-", "aws-us-gov"}, {"us-isob-", "aws-iso-b"}, {"us-isof-", "aws-iso-f"},
		{"us-iso-", "aws-iso"}, {"eu-isoe-", "aws-iso-e"}, {"eusc-", "aws-eusc"},
	} {
		if strings.HasPrefix(region, p.prefix) {
			return p.name
		}
	}
	return "aws"
}
