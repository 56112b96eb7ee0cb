package sandbox

import (
	"slices"
	"strings"
	"time"
)

// copyImage copies an image, and the bytes of its snapshots, from this or another region.
// As on AWS the name may be in use.
func copyImage(c *call) (answer, error) {
	name, err := c.checkImageName(false)
	if err != nil {
		return nil, err
	}
	specs, err := c.tagsAtCreation(kindImage.typ, kindSnapshot.typ)
	if err != nil {
		return nil, err
	}
	if seen, err := c.replay(c.p.str("ClientToken")); err != nil || seen != nil {
		if seen != nil {
			return answer{"ImageId": seen.IDs[0]}, nil
		}
		return nil, err
	}
	if err := validRegion(c.p.str("SourceRegion")); err != nil {
		return nil, invalidValue("Value (%s) for parameter sourceRegion is invalid.", c.p.str("SourceRegion"))
	}
	there := c.elsewhere(c.p.str("SourceRegion"))
	source, err := there.launchable(c.p.str("SourceImageId"))
	if err != nil {
		return nil, err
	}
	if len(specs) > 0 && c.p.yes("CopyImageTags") && specs[kindImage.typ] != nil {
		for key := range c.tagsOf(source.ID) {
			if _, twice := specs[kindImage.typ][key]; twice {
				return nil, invalidCombination("The tag key '%s' is in TagSpecifications and among the tags to copy.", key)
			}
		}
	}
	if err := there.mayCopy(source); err != nil {
		return nil, err
	}
	if err := c.snapshotQuota(nil); err != nil {
		return nil, err
	}
	img := *source
	img.ID, img.Name, img.Description = newID(kindImage.prefix), name, c.p.str("Description")
	img.SourceImage, img.SourceRegion, img.SourceInstance = source.ID, source.Region, ""
	img.Public, img.Users, img.Orgs, img.Units, img.Alias = false, nil, nil, nil, ""
	img.Deprecated, img.LastLaunched, img.ToldLaunch, img.ProtectedUntil = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	img.Protected, img.Cooldown, img.Open = false, false, false
	img.Mappings = slices.Clone(source.Mappings)
	if err := c.copyMappings(&img, source.ID, specs[kindSnapshot.typ]); err != nil {
		return nil, err
	}
	tags := specs[kindImage.typ]
	if c.p.yes("CopyImageTags") {
		tags = merged(c.tagsOf(source.ID), tags)
	}
	c.keepImage(&img, tags, imageCopying)
	c.keepToken(c.p.str("ClientToken"), img.ID)
	return answer{"ImageId": img.ID}, nil
}

// copyMappings starts the copies of an image's snapshots.
func (c *call) copyMappings(img *image, source string, tags map[string]string) error {
	for i := range img.Mappings {
		m := &img.Mappings[i]
		from := c.s.snapshots.get(m.SnapshotID)
		if from == nil {
			continue
		}
		sn := snapshot{SizeGiB: from.SizeGiB, Description: "Copied for DestinationAmi " + img.ID + " from SourceAmi " + source +
			" for SourceSnapshot " + from.ID + ". Task created on " + number(c.now.UnixMilli()) + "."}
		if err := c.encryptCopy(&sn, from.Encrypted); err != nil {
			return err
		}
		to := c.newSnapshot(sn, tags)
		to.Due = c.s.due(c.now, imageCopying)
		m.SnapshotID, m.Encrypted, m.KMSKey = to.ID, to.Encrypted, to.KMSKey
		c.s.copyBytes(from.ID, to.ID)
	}
	return nil
}

// mayCopy checks that the caller may read the bytes of an image, which is more than to launch it.
func (c *call) mayCopy(i *image) error {
	for _, m := range i.Mappings {
		sn := c.s.snapshots.get(m.SnapshotID)
		if sn != nil && !i.Open && !c.mayRestore(sn) {
			return fail("InvalidRequest", "You do not have permission to access the storage of this ami")
		}
	}
	return nil
}

func deregisterImage(c *call) (answer, error) {
	i, err := c.ownImage(c.p.str("ImageId"))
	if err != nil {
		return nil, err
	}
	if i.protection(c.now) != "disabled" {
		return nil, fail("OperationNotPermitted", "The AMI '%s' is protected from deregistration. Disable its deregistration protection and try again.", i.ID)
	}
	c.s.images.remove(i.ID)
	c.setTags(i.ID, kindImage.typ, nil)
	results := []any{}
	for _, m := range i.Mappings {
		sn := c.s.snapshots.get(m.SnapshotID)
		if !c.p.yes("DeleteAssociatedSnapshots") || sn == nil {
			continue
		}
		code := "success"
		switch {
		case sn.Account != c.account:
			code = "missing-permissions"
		case c.s.imageWith(sn.ID) != "":
			code = "skipped"
		default:
			c.s.dropSnapshot(sn)
		}
		results = append(results, answer{"SnapshotId": m.SnapshotID, "ReturnCode": code})
	}
	return answer{"Return": true, "DeleteSnapshotResults": results}, nil
}

func describeImageAttribute(c *call) (answer, error) {
	i, err := c.ownImage(c.p.str("ImageId"))
	if err != nil {
		return nil, err
	}
	out := answer{"ImageId": i.ID}
	text := func(name, v string) {
		out[name] = answer{}
		if v != "" {
			out[name] = value(v)
		}
	}
	switch name := c.p.str("Attribute"); name {
	case "description":
		text("Description", i.Description)
	case "launchPermission":
		out["LaunchPermissions"] = i.permissions()
	case "blockDeviceMapping":
		out["BlockDeviceMappings"] = list(i.shownMappings(), mapping.answer)
	case "bootMode":
		text("BootMode", i.BootMode)
	case "tpmSupport":
		text("TpmSupport", i.TPM)
	case "imdsSupport":
		text("ImdsSupport", i.IMDS)
	case "uefiData":
		text("UefiData", i.UEFIData)
	case "sriovNetSupport":
		text("SriovNetSupport", i.SRIOV)
	case "deregistrationProtection":
		text("DeregistrationProtection", i.protection(c.now))
	case "lastLaunchedTime":
		out["LastLaunchedTime"] = answer{}
		if t := i.lastLaunched(c.now); !t.IsZero() {
			out["LastLaunchedTime"] = value(stamp(t))
		}
	case "productCodes":
		out["ProductCodes"] = []any{}
	case "kernel":
		text("KernelId", "")
	case "ramdisk":
		text("RamdiskId", "")
	}
	return out, nil
}

func (i *image) permissions() []any {
	out := []any{}
	if i.Public {
		out = append(out, answer{"Group": "all"})
	}
	for _, entry := range []struct {
		name string
		list []string
	}{{"UserId", i.Users}, {"OrganizationArn", i.Orgs}, {"OrganizationalUnitArn", i.Units}} {
		for _, v := range entry.list {
			out = append(out, answer{entry.name: v})
		}
	}
	return out
}

func modifyImageAttribute(c *call) (answer, error) {
	i, err := c.ownImage(c.p.str("ImageId"))
	if err != nil {
		return nil, err
	}
	next := *i
	switch name := c.p.str("Attribute"); {
	case c.p.has("Description"), name == "description":
		next.Description = c.p.sub("Description").or("Value", c.p.str("Value"))
		err = checkText("Description", next.Description)
	case c.p.has("ImdsSupport"), name == "imdsSupport":
		if next.IMDS = c.p.sub("ImdsSupport").or("Value", c.p.str("Value")); next.IMDS != "v2.0" {
			err = invalidValue("Value (%s) for parameter imdsSupport is invalid. Only v2.0 can be set.", next.IMDS)
		}
	case c.p.has("LaunchPermission"), name == "launchPermission", c.p.has("OperationType"):
		err = c.changeLaunch(&next)
	case name != "":
		err = invalidValue("Value (%s) for parameter attribute is invalid. Unknown attribute.", name)
	default:
		err = fail("InvalidParameterCombination", "No attributes specified.")
	}
	if err != nil {
		return nil, err
	}
	*i = next
	c.s.images.put(i.ID, i)
	return answer{}, nil
}

// changeLaunch adds and removes launch permissions.
func (c *call) changeLaunch(i *image) error {
	if i.State == "disabled" {
		return fail("InvalidAMIID.Unavailable", "The image '%s' is disabled, so it can't be shared.", i.ID)
	}
	p := c.p.sub("LaunchPermission")
	add, remove := p.subs("Add"), p.subs("Remove")
	var flat []params
	for from, to := range map[string]string{"UserIds": "UserId", "UserGroups": "Group", "OrganizationArns": "OrganizationArn",
		"OrganizationalUnitArns": "OrganizationalUnitArn"} {
		for _, text := range c.p.texts(from) {
			flat = append(flat, params{to: text})
		}
	}
	if c.p.str("OperationType") == "remove" {
		remove = append(remove, flat...)
	} else {
		add = append(add, flat...)
	}
	if len(add)+len(remove) == 0 {
		return fail("InvalidParameterCombination", "No launch permissions specified.")
	}
	public := i.Public
	i.Users, i.Orgs, i.Units = slices.Clone(i.Users), slices.Clone(i.Orgs), slices.Clone(i.Units)
	if err := changePermissions(&i.Public, &i.Users, add, remove); err != nil {
		return err
	}
	if err := changeARNs(&i.Orgs, "OrganizationArn", ":organization/", add, remove); err != nil {
		return err
	}
	if err := changeARNs(&i.Units, "OrganizationalUnitArn", ":ou/", add, remove); err != nil {
		return err
	}
	if i.Public && !public {
		return c.mayPublish(i)
	}
	return nil
}

// mayPublish checks what EC2 checks before an image becomes public.
func (c *call) mayPublish(i *image) error {
	for _, m := range i.Mappings {
		if m.Encrypted {
			return fail("OperationNotPermitted", "You cannot make the image %s public: its snapshot %s is encrypted.", i.ID, m.SnapshotID)
		}
	}
	n := 1
	for _, other := range c.s.images.all {
		if other.ID != i.ID && other.Public && c.mine(other.Account, other.Region) {
			n++
		}
	}
	if n > c.s.cfg.Quotas.PublicImages {
		return fail("ResourceLimitExceeded", "You have reached your quota of %d public AMIs in this Region.", c.s.cfg.Quotas.PublicImages)
	}
	return nil
}

func changeARNs(have *[]string, name, part string, add, remove []params) error {
	for i, p := range append(slices.Clone(add), remove...) {
		arn := p.str(name)
		switch {
		case arn == "":
		case !strings.HasPrefix(arn, "arn:") || !strings.Contains(arn, ":organizations::") || !strings.Contains(arn, part):
			return fail("InvalidAMIAttributeItemValue", "Invalid attribute item value \"%s\" for %s item type.", arn, name)
		case i >= len(add):
			*have = slices.DeleteFunc(*have, func(a string) bool { return a == arn })
		case !slices.Contains(*have, arn):
			*have = append(*have, arn)
		}
	}
	return nil
}

func resetImageAttribute(c *call) (answer, error) {
	i, err := c.ownImage(c.p.str("ImageId"))
	if err != nil {
		return nil, err
	}
	i.Public, i.Users, i.Orgs, i.Units = false, nil, nil, nil
	c.s.images.put(i.ID, i)
	return answer{}, nil
}

// enableImageDeprecation sets when an image becomes deprecated, to the minute.
func enableImageDeprecation(c *call) (answer, error) {
	i, err := c.ownImage(c.p.str("ImageId"))
	if err != nil {
		return nil, err
	}
	at := c.p.time("DeprecateAt").UTC().Round(time.Minute)
	years := 10
	if i.Public {
		years = 2
	}
	if at.Before(c.now.Truncate(time.Minute)) {
		return nil, invalidValue("Value (%s) for parameter DeprecateAt is invalid. The deprecation date must be in the future.", stamp(at))
	}
	if at.After(c.now.AddDate(years, 0, 0)) {
		return nil, invalidValue("Value (%s) for parameter DeprecateAt is invalid. It can be at most %d years from now.", stamp(at), years)
	}
	i.Deprecated = at
	c.s.images.put(i.ID, i)
	return answer{"Return": true}, nil
}

func disableImageDeprecation(c *call) (answer, error) {
	i, err := c.ownImage(c.p.str("ImageId"))
	if err != nil {
		return nil, err
	}
	i.Deprecated = time.Time{}
	c.s.images.put(i.ID, i)
	return answer{"Return": true}, nil
}

// disableImage takes an image out of use; it loses its launch permissions for good.
func disableImage(c *call) (answer, error) {
	i, err := c.ownImage(c.p.str("ImageId"))
	if err != nil {
		return nil, err
	}
	if i.State != "available" && i.State != "disabled" {
		return nil, fail("InvalidAMIID.Unavailable", "The image ID '%s' is not available (its state is %s)", i.ID, i.State)
	}
	i.State, i.Public, i.Users, i.Orgs, i.Units = "disabled", false, nil, nil, nil
	c.s.images.put(i.ID, i)
	return answer{"Return": true}, nil
}

func enableImage(c *call) (answer, error) {
	i, err := c.ownImage(c.p.str("ImageId"))
	if err != nil {
		return nil, err
	}
	if i.State != "available" && i.State != "disabled" {
		return nil, fail("InvalidAMIID.Unavailable", "The image ID '%s' is not disabled (its state is %s)", i.ID, i.State)
	}
	i.State = "available"
	c.s.images.put(i.ID, i)
	return answer{"Return": true}, nil
}

func enableImageProtection(c *call) (answer, error) {
	i, err := c.ownImage(c.p.str("ImageId"))
	if err != nil {
		return nil, err
	}
	i.Protected, i.Cooldown, i.ProtectedUntil = true, c.p.yes("WithCooldown"), time.Time{}
	c.s.images.put(i.ID, i)
	return answer{"Return": "true"}, nil
}

// disableImageProtection ends the protection, after 24 hours when it has a cooldown.
func disableImageProtection(c *call) (answer, error) {
	i, err := c.ownImage(c.p.str("ImageId"))
	if err != nil {
		return nil, err
	}
	if i.Protected && i.Cooldown {
		i.ProtectedUntil = c.now.Add(24 * time.Hour)
	}
	i.Protected, i.Cooldown = false, false
	c.s.images.put(i.ID, i)
	return answer{"Return": "true"}, nil
}
