package sandbox

import (
	"context"
	"slices"
	"strings"
	"time"
)

// attached are the volumes of an instance, the root volume first.
func (s *Server) attached(i *instance) []*volume {
	var out []*volume
	for _, v := range s.volumes.all {
		if v.Instance == i.ID {
			out = append(out, v)
		}
	}
	slices.SortFunc(out, func(a, b *volume) int {
		if (a.Device == i.RootDevice) != (b.Device == i.RootDevice) {
			if a.Device == i.RootDevice {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Device, b.Device)
	})
	return out
}

// keepVolume adds a volume that is to be made of a mapping.
func (c *call) keepVolume(m mapping, zone string, tags map[string]string) *volume {
	v := &volume{ID: newID(kindVolume.prefix), Account: c.account, Region: c.region, Zone: zone, SizeGiB: m.SizeGiB, Type: m.Type,
		IOPS: m.IOPS, Throughput: m.Throughput, Encrypted: m.Encrypted, KMSKey: m.KMSKey, SnapshotID: m.SnapshotID,
		State: "creating", Created: c.now, Due: c.s.due(c.now, volumeCreating)}
	c.s.volumes.put(v.ID, v)
	c.setTags(v.ID, kindVolume.typ, tags)
	c.born(v.ID)
	return v
}

func createVolume(c *call) (answer, error) {
	specs, err := c.tagsAtCreation(kindVolume.typ)
	if err != nil {
		return nil, err
	}
	seen, err := c.replay(c.p.str("ClientToken"))
	if err != nil {
		return nil, err
	}
	if seen != nil {
		v, err := c.volume(seen.IDs[0])
		if err != nil {
			return nil, err
		}
		return c.volumeAnswer(v), nil
	}
	z, ok := zoneOf(c.region, c.p.or("AvailabilityZone", c.p.str("AvailabilityZoneId")))
	if !ok {
		return nil, fail("InvalidZone.NotFound", "The zone '%s' does not exist.", c.p.or("AvailabilityZone", c.p.str("AvailabilityZoneId")))
	}
	p := params{}
	for from, to := range map[string]string{"Size": "VolumeSize", "SnapshotId": "SnapshotId", "VolumeType": "VolumeType",
		"Iops": "Iops", "Throughput": "Throughput", "Encrypted": "Encrypted", "KmsKeyId": "KmsKeyId"} {
		if c.p.has(from) {
			p[to] = c.p[from]
		}
	}
	var m mapping
	if err := (diskChange{p: p}).apply(c, &m); err != nil {
		return nil, err
	}
	v := c.keepVolume(m, z.name, specs[kindVolume.typ])
	_, v.Stuck = c.has(Stuck)
	c.s.moving[v.ID] = true
	c.s.fillVolume(v)
	c.keepToken(c.p.str("ClientToken"), v.ID)
	return c.volumeAnswer(v), nil
}

// fillVolume makes the file of a volume in the background.
func (s *Server) fillVolume(v *volume) {
	id, from, size := v.ID, v.SnapshotID, v.SizeGiB
	ids := []string{id}
	if from != "" {
		ids = append(ids, from)
	}
	s.enqueue(func(ctx context.Context) {
		if _, err := s.volumeFile(ctx, id, from, size); err != nil {
			s.workFailed("make a volume", id, err)
			s.record(func() {
				if v := s.volumes.get(id); v != nil {
					v.State = "error"
					s.volumes.put(id, v)
				}
			})
		}
	}, ids...)
}

func (s *Server) moveVolume(v *volume, now time.Time) bool {
	if v == nil || v.State != "creating" {
		return true
	}
	if v.Stuck || now.Before(v.Due) {
		return false
	}
	v.State = "available"
	s.volumes.put(v.ID, v)
	return true
}

func (c *call) volumeAnswer(v *volume) answer {
	a := answer{"VolumeId": v.ID, "Size": v.SizeGiB, "AvailabilityZone": v.Zone, "State": v.State, "CreateTime": v.Created,
		"VolumeType": v.Type, "Encrypted": v.Encrypted, "MultiAttachEnabled": false, "Attachments": []any{}}
	a["SnapshotId"] = v.SnapshotID
	set(a, "KmsKeyId", v.KMSKey)
	if v.IOPS > 0 {
		a["Iops"] = v.IOPS
	}
	if v.Throughput > 0 {
		a["Throughput"] = v.Throughput
	}
	if v.Instance != "" {
		a["Attachments"] = []any{c.attachmentAnswer(v, "attached")}
	}
	if tags := c.tagsOf(v.ID); len(tags) > 0 {
		a["Tags"] = tagList(tags)
	}
	return a
}

func (c *call) attachmentAnswer(v *volume, state string) answer {
	return answer{"VolumeId": v.ID, "InstanceId": v.Instance, "Device": v.Device, "State": state,
		"AttachTime": v.Attached, "DeleteOnTermination": v.Delete}
}

func describeVolumes(c *call) (answer, error) {
	at, err := c.page(5, 1000, "VolumeIds")
	if err != nil {
		return nil, err
	}
	match, err := matcher(c, getters[volume]{
		"volume-id":                        one(func(v *volume) string { return v.ID }),
		"volume-type":                      one(func(v *volume) string { return v.Type }),
		"size":                             one(func(v *volume) string { return number(v.SizeGiB) }),
		"status":                           one(func(v *volume) string { return v.State }),
		"snapshot-id":                      one(func(v *volume) string { return v.SnapshotID }),
		"availability-zone":                one(func(v *volume) string { return v.Zone }),
		"create-time":                      when(func(v *volume) time.Time { return v.Created }),
		"encrypted":                        flag(func(v *volume) bool { return v.Encrypted }),
		"attachment.instance-id":           one(func(v *volume) string { return v.Instance }),
		"attachment.device":                one(func(v *volume) string { return v.Device }),
		"attachment.status":                one((*volume).attachment),
		"attachment.delete-on-termination": flag(func(v *volume) bool { return v.Delete }),
	}, func(v *volume) string { return v.ID })
	if err != nil {
		return nil, err
	}
	see := func(v *volume) bool { return c.mine(v.Account, v.Region) }
	found, err := pickAll(c, kindVolume, c.s.volumes, c.p.texts("VolumeIds"), see, match)
	if err != nil {
		return nil, err
	}
	found, token := cut(c, at, found, func(v *volume) string { return v.ID })
	out := answer{"Volumes": list(found, func(v *volume) any { return c.volumeAnswer(v) })}
	set(out, "NextToken", token)
	return out, nil
}

func (v *volume) attachment() string {
	if v.Instance != "" {
		return "attached"
	}
	return ""
}

// attachVolume attaches to a stopped instance. A running one gets the disk at its next
// start only: see LIMITS.md.
func attachVolume(c *call) (answer, error) {
	v, err := c.volume(c.p.str("VolumeId"))
	if err != nil {
		return nil, err
	}
	inst, err := c.instance(c.p.str("InstanceId"))
	if err != nil {
		return nil, err
	}
	device := c.p.str("Device")
	taken := slices.ContainsFunc(c.s.attached(inst), func(v *volume) bool { return v.Device == device })
	switch {
	case v.State == "in-use":
		return nil, fail("VolumeInUse", "%s is already attached to an instance", v.ID)
	case v.State != "available":
		return nil, wrongState("Volume %s is in the state %s; it must be available.", v.ID, v.State)
	case inst.State != "running" && inst.State != "stopped":
		return nil, wrongState("Instance '%s' is not 'running' or 'stopped'.", inst.ID)
	case v.Zone != inst.Zone:
		return nil, fail("InvalidVolume.ZoneMismatch", "The volume '%s' is not in the same availability zone as instance '%s'", v.ID, inst.ID)
	case !deviceName.MatchString(device):
		return nil, invalidValue("Value (%s) for parameter device is invalid. %s is not a valid EBS device name.", device, device)
	case taken:
		return nil, invalidValue("Invalid value '%s' for unixDevice. Attachment point %s is already in use", device, device)
	case inst.State == "running" && c.s.machines[inst.ID] != nil:
		return nil, fail("UnsupportedOperation", "The sandbox attaches volumes to stopped instances only: stop %s first.", inst.ID)
	}
	v.Instance, v.Device, v.Attached, v.Delete, v.State = inst.ID, device, c.now, false, "in-use"
	c.s.volumes.put(v.ID, v)
	return c.attachmentAnswer(v, "attaching"), nil
}

func detachVolume(c *call) (answer, error) {
	v, err := c.volume(c.p.str("VolumeId"))
	if err != nil {
		return nil, err
	}
	inst := c.s.instances.get(v.Instance)
	wrong := c.p.has("InstanceId") && c.p.str("InstanceId") != v.Instance || c.p.has("Device") && c.p.str("Device") != v.Device
	switch {
	case inst == nil:
		return nil, wrongState("Volume '%s' is in the 'available' state.", v.ID)
	case wrong:
		return nil, fail("InvalidAttachment.NotFound", "The volume '%s' is not attached to instance '%s' as device '%s'.", v.ID, c.p.str("InstanceId"), c.p.str("Device"))
	case v.Device == inst.RootDevice && inst.State != "stopped":
		return nil, fail("OperationNotPermitted", "Unable to detach root volume '%s' from instance '%s'", v.ID, inst.ID)
	case inst.State != "stopped" && c.s.machines[inst.ID] != nil:
		return nil, fail("UnsupportedOperation", "The sandbox detaches volumes from stopped instances only: stop %s first.", inst.ID)
	}
	out := c.attachmentAnswer(v, "detaching")
	v.Instance, v.Device, v.Attached, v.Delete, v.State = "", "", time.Time{}, false, "available"
	c.s.volumes.put(v.ID, v)
	return out, nil
}

func deleteVolume(c *call) (answer, error) {
	v, err := c.volume(c.p.str("VolumeId"))
	if err != nil {
		return nil, err
	}
	if v.Instance != "" {
		return nil, fail("VolumeInUse", "Volume %s is currently attached to %s", v.ID, v.Instance)
	}
	c.s.dropVolume(v)
	return answer{}, nil
}

func (s *Server) dropVolume(v *volume) {
	s.volumes.remove(v.ID)
	s.setTags(v.Account, v.Region, v.ID, kindVolume.typ, nil)
	path := s.volumePath(v.ID)
	// Behind the work on it: a snapshot of it may still be copied.
	s.enqueue(func(context.Context) { s.removeFile(path) }, v.ID)
}
