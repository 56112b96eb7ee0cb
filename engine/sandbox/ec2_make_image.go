package sandbox

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

var imageName = regexp.MustCompile(`^[A-Za-z0-9()\[\] ./\-'@_]{3,128}$`)

// checkImageName checks a new image's name; CopyImage takes one that is in use.
func (c *call) checkImageName(unique bool) (string, error) {
	name := c.p.str("Name")
	if !imageName.MatchString(name) {
		return "", fail("InvalidAMIName.Malformed", "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, '(', ')', '.', '-', '/' and '_'")
	}
	n := 0
	for _, i := range c.s.images.all {
		if !c.mine(i.Account, i.Region) {
			continue
		}
		if n++; unique && i.Name == name {
			return "", fail("InvalidAMIName.Duplicate", "AMI name %s is already in use by AMI %s", name, i.ID)
		}
	}
	if n >= c.s.cfg.Quotas.Images {
		return "", fail("AMIQuotaExceeded", "You have reached the quota of %d AMIs in this Region.", c.s.cfg.Quotas.Images)
	}
	return name, checkText("Description", c.p.str("Description"))
}

func checkText(name, text string) error {
	if len(text) > 255 || strings.ContainsFunc(text, func(r rune) bool { return r > 0x7e || r < 0x20 }) {
		return invalidValue("Value (%s) for parameter %s is invalid. It may have at most 255 ASCII characters.", text, name)
	}
	return nil
}

// keepImage adds a pending image.
func (c *call) keepImage(i *image, tags map[string]string, after time.Duration) {
	i.Account, i.Region, i.State, i.Created, i.Due = c.account, c.region, "pending", c.now, c.s.due(c.now, after)
	_, i.Stuck = c.has(Stuck)
	c.s.images.put(i.ID, i)
	c.setTags(i.ID, kindImage.typ, tags)
	c.s.moving[i.ID] = true
	c.born(i.ID)
}

// createImage makes an image of an instance's volumes: it is shut down, its volumes are
// copied, and it is started again; with NoReboot it isn't shut down.
func createImage(c *call) (answer, error) {
	name, err := c.checkImageName(true)
	if err != nil {
		return nil, err
	}
	specs, err := c.tagsAtCreation(kindImage.typ, kindSnapshot.typ)
	if err != nil {
		return nil, err
	}
	inst, err := c.instance(c.p.str("InstanceId"))
	if err != nil {
		return nil, err
	}
	if !slices.Contains([]string{"running", "stopping", "stopped"}, inst.State) {
		return nil, fail("IncorrectInstanceState", "The instance '%s' is not in a state from which an image can be created (%s).", inst.ID, inst.State)
	}
	img := &image{ID: newID(kindImage.prefix), Name: name, Description: c.p.str("Description"), Arch: inst.Arch,
		BootMode: inst.ImageBootMode, TPM: inst.TPM, ENA: inst.ENA, IMDS: inst.ImageIMDS, RootDevice: inst.RootDevice,
		Virtualization: "hvm", SRIOV: "simple", SourceInstance: inst.ID}
	if base := c.s.images.get(inst.ImageID); base != nil {
		img.SourceImage, img.SourceRegion = base.ID, base.Region
	}
	volumes, err := c.mappingsOfInstance(inst, img)
	if err != nil {
		return nil, err
	}
	if err := c.snapshotQuota(volumes); err != nil {
		return nil, err
	}
	var made []string
	for i, v := range volumes {
		at := slices.IndexFunc(img.Mappings, func(m mapping) bool { return m.Device == v.Device })
		sn := c.newSnapshot(snapshot{VolumeID: v.ID, SizeGiB: v.SizeGiB, Encrypted: v.Encrypted, KMSKey: v.KMSKey,
			Description: fmt.Sprintf("Created by CreateImage(%s) for %s", inst.ID, img.ID)}, specs[kindSnapshot.typ])
		img.Mappings[at].SnapshotID = sn.ID
		made = append(made, volumes[i].ID, sn.ID)
	}
	c.keepImage(img, specs[kindImage.typ], imagePending)
	c.s.capture(inst, !c.p.yes("NoReboot"), made)
	return answer{"ImageId": img.ID}, nil
}

// mappingsOfInstance fills in the mappings of a new image: those of the volumes attached,
// as the request's own mappings change them. It returns the volumes to copy.
func (c *call) mappingsOfInstance(inst *instance, img *image) ([]*volume, error) {
	changes, err := readMappings(c.p.subs("BlockDeviceMappings"))
	if err != nil {
		return nil, err
	}
	var out []*volume
	for _, v := range c.s.attached(inst) {
		m := mapping{Device: v.Device, SizeGiB: v.SizeGiB, Type: v.Type, IOPS: v.IOPS, Throughput: v.Throughput,
			Encrypted: v.Encrypted, KMSKey: v.KMSKey, Delete: v.Delete}
		if change, ok := changes.of(v.Device); ok {
			if change.none {
				continue
			}
			if change.p.str("SnapshotId") != "" || change.p.has("Encrypted") {
				return nil, invalidValue("You cannot specify a snapshot or the encryption for device %s, which is attached.", v.Device)
			}
			if err := change.apply(c, &m); err != nil {
				return nil, err
			}
		}
		img.Mappings = append(img.Mappings, m)
		out = append(out, v)
	}
	for _, change := range changes {
		known := slices.ContainsFunc(img.Mappings, func(m mapping) bool { return m.Device == change.device })
		if known || change.none {
			continue
		}
		m := mapping{Device: change.device, Virtual: change.virtual}
		if change.virtual == "" {
			if err := change.apply(c, &m); err != nil {
				return nil, err
			}
		}
		img.Mappings = append(img.Mappings, m)
	}
	if len(out) == 0 || out[0].Device != inst.RootDevice {
		return nil, wrongState("The root volume of instance %s isn't attached, so it can't be made an image of.", inst.ID)
	}
	return out, nil
}

// registerImage makes an image of snapshots. What it isn't told it takes for what EC2 does:
// an i386 paravirtual image without ENA, which no current instance type runs.
func registerImage(c *call) (answer, error) {
	name, err := c.checkImageName(true)
	if err != nil {
		return nil, err
	}
	specs, err := c.tagsAtCreation(kindImage.typ, kindSnapshot.typ)
	if err != nil {
		return nil, err
	}
	img := &image{ID: newID(kindImage.prefix), Name: name, Description: c.p.str("Description"),
		Arch: c.p.or("Architecture", "i386"), Virtualization: c.p.or("VirtualizationType", "paravirtual"),
		BootMode: c.p.str("BootMode"), TPM: c.p.str("TpmSupport"), IMDS: c.p.str("ImdsSupport"), UEFIData: c.p.str("UefiData"),
		SRIOV: c.p.str("SriovNetSupport"), ENA: c.p.yes("EnaSupport"), RootDevice: c.p.str("RootDeviceName")}
	if err := checkRegistered(c, img); err != nil {
		return nil, err
	}
	changes, err := readMappings(c.p.subs("BlockDeviceMappings"))
	if err != nil {
		return nil, err
	}
	for _, change := range changes {
		m := mapping{Device: change.device, Virtual: change.virtual, Delete: true}
		if change.virtual == "" {
			if err := change.apply(c, &m); err != nil {
				return nil, err
			}
		}
		img.Mappings = append(img.Mappings, m)
	}
	root := slices.IndexFunc(img.Mappings, func(m mapping) bool { return m.Device == img.RootDevice })
	if root < 0 || img.Mappings[root].SnapshotID == "" {
		return nil, fail("InvalidBlockDeviceMapping", "The root device '%s' needs an entry with a snapshot in the block device mapping.", img.RootDevice)
	}
	c.keepImage(img, specs[kindImage.typ], 5*time.Second)
	return answer{"ImageId": img.ID}, nil
}

func checkRegistered(c *call, img *image) error {
	switch {
	case c.p.has("ImageLocation"):
		return fail("UnsupportedOperation", "The sandbox makes EBS-backed images only: leave ImageLocation out.")
	case img.RootDevice == "":
		return missing("rootDeviceName")
	case img.TPM != "" && img.BootMode != "uefi" && img.BootMode != "uefi-preferred":
		return invalidCombination("TpmSupport needs the boot mode uefi or uefi-preferred.")
	case img.Arch == "arm64" && img.BootMode == "legacy-bios":
		return invalidCombination("The architecture arm64 can't have the boot mode legacy-bios.")
	case img.Arch == "arm64" && img.Virtualization != "hvm":
		return invalidCombination("The architecture arm64 needs the virtualization type hvm.")
	case img.SRIOV != "" && img.SRIOV != "simple":
		return invalidValue("Value (%s) for parameter sriovNetSupport is invalid.", img.SRIOV)
	case img.UEFIData != "" && img.BootMode != "uefi" && img.BootMode != "uefi-preferred":
		return invalidCombination("UefiData needs the boot mode uefi or uefi-preferred.")
	}
	return nil
}
