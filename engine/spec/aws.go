package spec

import (
	"time"

	"github.com/gildhq/gild/engine/diag"
)

// AWSBuilder is builders.aws with defaults filled in.
type AWSBuilder struct {
	// Region such as "eu-west-1".
	Region   string
	Instance AWSInstance
	// Volume is the root volume; Volumes are further ones.
	Volume  AWSVolume
	Volumes []AWSVolume
	Connect AWSConnect
	Image   AWSImage
	// Tags of everything that is made while building.
	Tags map[string]string
	// Within is the longest wait for any one thing; never 0.
	Within      time.Duration
	Checkpoints AWSCheckpoints
	Pos         diag.Pos
}

// AWSInstance says which instances build and test.
type AWSInstance struct {
	// Types to try, best first; never empty. TypesPos is their place, zero for the default.
	Types    []string
	TypesPos diag.Pos
	// Spot is "prefer", "only" or "never".
	Spot string
	// Zones to try, best first; empty means all of the region.
	Zones []string
	// VPC, Subnet and SecurityGroups are ids; empty means the default VPC, one of its
	// subnets, and a group that is made for the build.
	VPC, Subnet    string
	SecurityGroups []string
	// Profile is the name of an instance profile, or empty for one that is made if needed.
	Profile string
	// UserData is the text given to the instance that builds.
	UserData string
	Pos      diag.Pos
}

// AWSVolume is an EBS volume.
type AWSVolume struct {
	// Device is the name of a further volume's device.
	Device string
	// Size in bytes, a multiple of 1 GiB; 0 means the base's.
	Size int64
	// Type is EC2's word, such as "gp3".
	Type string
	// IOPS per second and Throughput in MiB per second; 0 means EC2's default.
	IOPS, Throughput int
	// Encrypted is nil for the account's default.
	Encrypted *bool
	// KMSKey is an id, ARN or alias; empty means the account's default key.
	KMSKey string
	Pos    diag.Pos
}

// AWSConnect says how steps reach an instance.
type AWSConnect struct {
	// By is "ssm", "ssh" or "instance-connect".
	By string
	// User logs in over SSH; empty means the one of the base's publisher.
	User string
	// Port of the SSH server.
	Port int
	// Private uses the private address of the instance instead of the public one.
	Private bool
	// From is this machine's address as the instance sees it, or empty when that has to be
	// found out.
	From string
	Pos  diag.Pos
}

// AWSImage holds properties of the AMI.
type AWSImage struct {
	// BootMode is "legacy-bios", "uefi", "uefi-preferred", or empty for the base's.
	BootMode string
	// IMDSv2 says that instances of the AMI need tokens for the metadata service.
	IMDSv2 bool
	// TPM is "v2.0" or empty.
	TPM string
	ENA bool
}

// AWSCheckpoints says which states of the machine are kept.
type AWSCheckpoints struct {
	// After is how long steps may take before a checkpoint is made by itself; 0 means never.
	After time.Duration
	// Keep is how many of the newest stay for each pipeline, MaxAge how old they get.
	Keep   int
	MaxAge time.Duration
}

// Default instance types: small machines that every region has some of.
var (
	typesAMD64 = []string{"c7i.large", "c6i.large", "m6i.large", "t3.large"}
	typesARM64 = []string{"c7g.large", "c6g.large", "m6g.large", "t4g.large"}
)

const (
	defaultWithin          = 45 * time.Minute
	defaultCheckpointAfter = 10 * time.Minute
	defaultCheckpointAge   = 14 * 24 * time.Hour
	defaultCheckpoints     = 3
)

func (r *resolver) aws(root *node, arch string) *AWSBuilder {
	n := root.get("builders", "aws")
	if n == nil {
		return nil
	}
	a := &AWSBuilder{
		Region: n.get("region").text(), Instance: r.awsInstance(n.get("instance"), arch), Volume: r.awsVolume(n.get("volume")),
		Connect: r.awsConnect(n.get("connect")), Image: r.awsImage(n.get("image")), Tags: map[string]string{},
		Within: orElse(duration(n.get("within")), defaultWithin), Pos: r.source.name(n),
	}
	if v := n.get("volume", "device"); v != nil {
		r.diags.Addf(r.source.name(v), "unknown-key", "remove it", "the root volume has the base's device name")
	}
	if volumes := n.get("volumes"); volumes != nil {
		for _, item := range volumes.items {
			v := r.awsVolume(item)
			if v.Device == "" || v.Size == 0 {
				r.diags.Addf(v.Pos, "missing-key", "", "a further volume needs %q and %q", "device", "size")
			}
			a.Volumes = append(a.Volumes, v)
		}
	}
	if tags := n.get("tags"); tags != nil {
		for _, name := range tags.names {
			a.Tags[name] = tags.fields[name].text()
		}
	}
	c := n.get("checkpoints")
	a.Checkpoints = AWSCheckpoints{
		After: orElse(duration(c.get("after")), defaultCheckpointAfter), Keep: c.get("keep").integer(defaultCheckpoints),
		MaxAge: orElse(duration(c.get("max-age")), defaultCheckpointAge),
	}
	if !c.get("automatic").truth(true) {
		a.Checkpoints.After = 0
	}
	return a
}

func (r *resolver) awsInstance(n *node, arch string) AWSInstance {
	types := typesAMD64
	if arch == "arm64" {
		types = typesARM64
	}
	i := AWSInstance{
		Types: orDefault(n.get("types").texts(), types...), Spot: orDefault(nonEmpty(n.get("spot").text()), "never")[0],
		Zones: n.get("zones").texts(), VPC: n.get("vpc").text(), Subnet: n.get("subnet").text(),
		SecurityGroups: n.get("security-groups").texts(), Profile: n.get("profile").text(), UserData: n.get("user-data").text(),
	}
	if n != nil {
		i.Pos = r.source.name(n)
	}
	if t := n.get("types"); t != nil {
		i.TypesPos = r.source.value(t)
	}
	return i
}

func (r *resolver) awsVolume(n *node) AWSVolume {
	v := AWSVolume{
		Device: n.get("device").text(), Type: orDefault(nonEmpty(n.get("type").text()), "gp3")[0],
		IOPS: n.get("iops").integer(0), Throughput: n.get("throughput").integer(0), KMSKey: n.get("kms-key").text(),
	}
	if n == nil {
		return v
	}
	v.Pos = r.source.value(n)
	if e := n.get("encrypted"); e != nil || v.KMSKey != "" {
		yes := e.truth(true)
		v.Encrypted = &yes
	}
	size := n.get("size")
	if bytes, err := ParseSize(size.text()); err == nil {
		v.Size = bytes
		if bytes%(1<<30) != 0 || bytes == 0 {
			r.diags.Addf(r.source.value(size), "bad-size", "write it in GiB", "the volume size %q is not a whole number of GiB", size.text())
		}
	}
	if v.Throughput > 0 && v.Type != "gp3" {
		r.diags.Addf(r.source.value(n.get("throughput")), "conflicting-keys", "remove it, or use gp3", "volumes of type %s have no throughput to set", v.Type)
	}
	return v
}

func (r *resolver) awsConnect(n *node) AWSConnect {
	c := AWSConnect{By: orDefault(nonEmpty(n.text()), "ssm")[0], Port: 22}
	if n == nil || n.fields == nil {
		if n != nil {
			c.Pos = r.source.value(n)
		}
		return c
	}
	return AWSConnect{
		By: n.get("by").text(), User: n.get("user").text(), Port: n.get("port").integer(22),
		Private: n.get("address").text() == "private", From: n.get("from").text(), Pos: r.source.value(n),
	}
}

func (r *resolver) awsImage(n *node) AWSImage {
	i := AWSImage{
		BootMode: n.get("boot-mode").text(), IMDSv2: n.get("imds").text() != "optional", TPM: n.get("tpm").text(), ENA: n.get("ena").truth(true),
	}
	if i.TPM != "" && i.BootMode != "uefi" {
		r.diags.Addf(r.source.value(n.get("tpm")), "conflicting-keys", "add boot-mode: uefi", "a TPM needs the boot mode uefi")
	}
	return i
}

func orElse(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}
