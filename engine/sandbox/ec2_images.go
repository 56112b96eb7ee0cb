package sandbox

import (
	"fmt"
	"slices"
	"time"
)

// maySee reports whether the caller may see and launch an image. A disabled one is its
// owner's alone.
func (c *call) maySee(i *image) bool {
	if i.Account == c.account {
		return true
	}
	return i.State == "available" && (i.Public || slices.Contains(i.Users, c.account))
}

// launchable returns an image that the caller can make instances of.
func (c *call) launchable(id string) (*image, error) {
	i, err := c.image(id)
	if err != nil {
		return nil, err
	}
	if i.State != "available" {
		return nil, fail("InvalidAMIID.Unavailable", "The image ID '%s' is not available (its state is %s)", id, i.State)
	}
	return i, nil
}

func imageGetters() getters[image] {
	mapped := func(get func(mapping) string) func(*call, *image) []string {
		return func(_ *call, i *image) (out []string) {
			for _, m := range i.shownMappings() {
				out = append(out, get(m))
			}
			return out
		}
	}
	return getters[image]{
		"architecture":                     one(func(i *image) string { return i.Arch }),
		"boot-mode":                        one(func(i *image) string { return i.BootMode }),
		"creation-date":                    when(func(i *image) time.Time { return i.Created }),
		"description":                      one(func(i *image) string { return i.Description }),
		"ena-support":                      flag(func(i *image) bool { return i.ENA }),
		"hypervisor":                       one(func(*image) string { return "xen" }),
		"image-allowed":                    one(func(*image) string { return "true" }),
		"image-id":                         one(func(i *image) string { return i.ID }),
		"image-type":                       one(func(*image) string { return "machine" }),
		"imds-support":                     one(func(i *image) string { return i.IMDS }),
		"is-public":                        flag(func(i *image) bool { return i.Public }),
		"manifest-location":                one((*image).location),
		"name":                             one(func(i *image) string { return i.Name }),
		"owner-alias":                      one(func(i *image) string { return i.Alias }),
		"owner-id":                         one(func(i *image) string { return i.Account }),
		"platform":                         func(*call, *image) []string { return nil },
		"platform-details":                 one(func(*image) string { return platformDetails }),
		"product-code":                     func(*call, *image) []string { return nil },
		"root-device-name":                 one(func(i *image) string { return i.RootDevice }),
		"root-device-type":                 one(func(*image) string { return "ebs" }),
		"source-image-id":                  one(func(i *image) string { return i.SourceImage }),
		"source-image-region":              one(func(i *image) string { return i.SourceRegion }),
		"source-instance-id":               one(func(i *image) string { return i.SourceInstance }),
		"sriov-net-support":                one(func(i *image) string { return i.SRIOV }),
		"state":                            one(func(i *image) string { return i.State }),
		"tpm-support":                      one(func(i *image) string { return i.TPM }),
		"usage-operation":                  one(func(*image) string { return "RunInstances" }),
		"virtualization-type":              one(func(i *image) string { return i.Virtualization }),
		"block-device-mapping.device-name": mapped(func(m mapping) string { return m.Device }),
		"block-device-mapping.snapshot-id": mapped(func(m mapping) string { return m.SnapshotID }),
		"block-device-mapping.volume-type": mapped(func(m mapping) string { return m.Type }),
		"block-device-mapping.volume-size": mapped(func(m mapping) string { return number(m.SizeGiB) }),
		"block-device-mapping.encrypted":   mapped(func(m mapping) string { return fmt.Sprint(m.Encrypted) }),
		"block-device-mapping.delete-on-termination": mapped(func(m mapping) string { return fmt.Sprint(m.Delete) }),
	}
}

const platformDetails = "Linux/UNIX"

func (i *image) location() string { return i.Account + "/" + i.Name }

// shownMappings is what a caller sees: EC2 fills in the snapshots of a new image only once
// they exist, and who reads them while it is pending gets none.
func (i *image) shownMappings() []mapping {
	if i.State == "pending" {
		return nil
	}
	return i.Mappings
}

func describeImages(c *call) (answer, error) {
	at, err := c.page(1, 1000, "ImageIds")
	if err != nil {
		return nil, err
	}
	match, err := matcher(c, imageGetters(), func(i *image) string { return i.ID })
	if err != nil {
		return nil, err
	}
	owned, err := c.ownerTest()
	if err != nil {
		return nil, err
	}
	ids := c.p.texts("ImageIds")
	shown := func(i *image) bool {
		if i.State == "disabled" && !c.p.yes("IncludeDisabled") {
			return false
		}
		hidden := i.deprecated(c.now) && i.Account != c.account && len(ids) == 0
		return (!hidden || c.p.yes("IncludeDeprecated")) && owned(i.Account, i.Alias) && c.executable(i) && match(i)
	}
	see := func(i *image) bool { return i.Region == c.region && c.maySee(i) }
	found, err := pickAll(c, kindImage, c.s.images, ids, see, shown)
	if err != nil {
		return nil, err
	}
	found, token := cut(c, at, found, func(i *image) string { return i.ID })
	out := answer{"Images": list(found, func(i *image) any { return c.imageAnswer(i) })}
	set(out, "NextToken", token)
	return out, nil
}

// ownerTest reads Owners, or OwnerIds of snapshots: account ids, "self" and aliases.
func (c *call) ownerTest() (func(account, alias string) bool, error) {
	owners := append(c.p.texts("Owners"), c.p.texts("OwnerIds")...)
	for i, owner := range owners {
		switch {
		case owner == "self":
			owners[i] = c.account
		case slices.Contains([]string{"amazon", "aws-marketplace", "aws-backup-vault"}, owner), isAccount(owner):
		default:
			return nil, fail("InvalidUserID.Malformed", "Invalid user id: \"%s\"", owner)
		}
	}
	return func(account, alias string) bool {
		return len(owners) == 0 || slices.Contains(owners, account) || alias != "" && slices.Contains(owners, alias)
	}, nil
}

func isAccount(text string) bool {
	if len(text) != 12 {
		return false
	}
	for _, r := range text {
		if r < '0' || r > '9' {
			return false
		}
	}
	return true
}

// executable is the test of ExecutableUsers: who was given launch permission by name, or everybody.
func (c *call) executable(i *image) bool {
	users := c.p.texts("ExecutableUsers")
	if len(users) == 0 {
		return true
	}
	for _, user := range users {
		if user == "self" {
			user = c.account
		}
		if user == "all" && i.Public || slices.Contains(i.Users, user) {
			return true
		}
	}
	return false
}

func (i *image) deprecated(now time.Time) bool {
	return !i.Deprecated.IsZero() && !now.Before(i.Deprecated)
}

func (c *call) imageAnswer(i *image) answer {
	a := answer{"ImageId": i.ID, "ImageLocation": i.location(), "State": i.State, "OwnerId": i.Account,
		"CreationDate": stamp(i.Created), "Public": i.Public, "Architecture": i.Arch, "ImageType": "machine",
		"PlatformDetails": platformDetails, "UsageOperation": "RunInstances", "Hypervisor": "xen", "Name": i.Name,
		"RootDeviceType": "ebs", "VirtualizationType": i.Virtualization, "EnaSupport": i.ENA,
		"DeregistrationProtection": i.protection(c.now), "ImageAllowed": true,
		"BlockDeviceMappings": list(i.shownMappings(), mapping.answer)}
	set(a, "RootDeviceName", i.RootDevice)
	set(a, "Description", i.Description)
	set(a, "ImageOwnerAlias", i.Alias)
	set(a, "BootMode", i.BootMode)
	set(a, "TpmSupport", i.TPM)
	set(a, "ImdsSupport", i.IMDS)
	set(a, "SriovNetSupport", i.SRIOV)
	set(a, "SourceInstanceId", i.SourceInstance)
	set(a, "SourceImageId", i.SourceImage)
	set(a, "SourceImageRegion", i.SourceRegion)
	if !i.Deprecated.IsZero() {
		a["DeprecationTime"] = stamp(i.Deprecated)
	}
	if i.ReasonCode != "" {
		a["StateReason"] = answer{"Code": i.ReasonCode, "Message": i.ReasonMessage}
	}
	if t := i.lastLaunched(c.now); !t.IsZero() && i.Account == c.account {
		a["LastLaunchedTime"] = stamp(t)
	}
	if tags := c.tagsOf(i.ID); len(tags) > 0 {
		a["Tags"] = tagList(tags)
	}
	return a
}

// launched notes a launch; EC2 tells of it a day later.
func (i *image) launched(now time.Time) {
	if now.Sub(i.LastLaunched) >= 24*time.Hour {
		i.ToldLaunch = i.LastLaunched
	}
	i.LastLaunched = now
}

func (i *image) lastLaunched(now time.Time) time.Time {
	if now.Sub(i.LastLaunched) >= 24*time.Hour {
		return i.LastLaunched
	}
	return i.ToldLaunch
}

func (i *image) protection(now time.Time) string {
	switch {
	case i.Protected && i.Cooldown, now.Before(i.ProtectedUntil):
		return "enabled-with-cooldown"
	case i.Protected:
		return "enabled-without-cooldown"
	}
	return "disabled"
}

func (m mapping) answer() any {
	a := answer{"DeviceName": m.Device}
	if m.Virtual != "" {
		a["VirtualName"] = m.Virtual
		return a
	}
	ebs := answer{"DeleteOnTermination": m.Delete, "VolumeSize": m.SizeGiB, "VolumeType": m.Type, "Encrypted": m.Encrypted}
	set(ebs, "SnapshotId", m.SnapshotID)
	set(ebs, "KmsKeyId", m.KMSKey)
	if m.IOPS > 0 && m.Type != "gp2" {
		ebs["Iops"] = m.IOPS
	}
	if m.Throughput > 0 {
		ebs["Throughput"] = m.Throughput
	}
	a["Ebs"] = ebs
	return a
}

// moveImage makes a pending image available when its snapshots are complete.
func (s *Server) moveImage(i *image, now time.Time) bool {
	if i == nil || i.State != "pending" {
		return true
	}
	waiting := i.Stuck || now.Before(i.Due)
	for _, m := range i.Mappings {
		sn := s.snapshots.get(m.SnapshotID)
		if m.SnapshotID == "" || sn != nil && sn.State == "completed" {
			continue
		}
		if sn == nil || sn.State == "error" {
			i.State, i.ReasonCode, i.ReasonMessage = "failed", "Client.InternalError", "Client.InternalError: Client error on launch"
			if sn != nil && sn.StateMessage != "" {
				i.ReasonMessage = "Snapshot " + sn.ID + ": " + sn.StateMessage
			}
			s.images.put(i.ID, i)
			return true
		}
		waiting = true
	}
	if waiting {
		return false
	}
	i.State = "available"
	s.images.put(i.ID, i)
	return true
}
