package sandbox

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// mayRestore reports whether the caller may see a snapshot and make volumes of it.
func (c *call) mayRestore(sn *snapshot) bool {
	return sn.Account == c.account || sn.Public || slices.Contains(sn.Users, c.account)
}

// newSnapshot adds a pending snapshot of the caller. Whoever writes its bytes calls
// snapshotWritten at the end.
func (c *call) newSnapshot(sn snapshot, tags map[string]string) *snapshot {
	sn.ID = newID(kindSnapshot.prefix)
	sn.Account, sn.Region, sn.State, sn.Started = c.account, c.region, "pending", c.now
	sn.Due = c.s.due(c.now, snapshotPending)
	_, sn.Stuck = c.has(Stuck)
	c.s.snapshots.put(sn.ID, &sn)
	c.setTags(sn.ID, kindSnapshot.typ, tags)
	c.born(sn.ID)
	if sn.Direct {
		c.s.enqueueEmpty(sn.ID, sn.SizeGiB)
	} else {
		c.s.moving[sn.ID] = true
	}
	return &sn
}

// enqueueEmpty makes the file that EBS direct writes into.
func (s *Server) enqueueEmpty(id string, sizeGiB int64) {
	if err := s.place(s.snapshotPath(id), sizeGiB*gib, empty); err != nil {
		s.snapshots.get(id).Fail = "Internal error"
		s.workFailed("make a snapshot's file", id, err)
	}
}

// snapshotWritten ends the writing of a snapshot's bytes: it completes when its time has
// come, or fails then. It needs the lock.
func (s *Server) snapshotWritten(id string, err error) {
	sn := s.snapshots.get(id)
	if sn == nil {
		return
	}
	if err != nil {
		s.workFailed("write a snapshot", id, err)
		sn.Fail = "Internal error"
	}
	sn.Direct = false
	sn.Bytes = dataBytes(s.snapshotPath(id))
	s.snapshots.put(id, sn)
	s.moving[id] = true
}

func (s *Server) moveSnapshot(sn *snapshot, now time.Time) bool {
	if sn == nil || sn.State != "pending" {
		return true
	}
	if sn.Direct && !now.Before(sn.Expires) {
		sn.Direct, sn.Fail = false, "The snapshot was not completed before its timeout"
		s.forgetUpload(sn.ID)
	}
	if sn.Stuck || sn.Direct || now.Before(sn.Due) {
		return false
	}
	sn.State, sn.Completed = "completed", now
	if sn.Fail != "" {
		sn.State, sn.StateMessage, sn.Completed = "error", sn.Fail, time.Time{}
	}
	s.snapshots.put(sn.ID, sn)
	return true
}

// progress of a pending snapshot is that of its time; 100% is only said of a complete one.
func (sn *snapshot) progress(now time.Time) string {
	if sn.State == "completed" {
		return "100%"
	}
	total := sn.Due.Sub(sn.Started)
	if sn.Stuck || sn.Direct || total <= 0 {
		return "0%"
	}
	return fmt.Sprintf("%d%%", min(99, max(0, now.Sub(sn.Started)*100/total)))
}

func (c *call) snapshotAnswer(sn *snapshot) answer {
	a := answer{"SnapshotId": sn.ID, "OwnerId": sn.Account, "State": sn.State, "StartTime": sn.Started,
		"Progress": sn.progress(c.now), "VolumeSize": sn.SizeGiB, "Encrypted": sn.Encrypted,
		"Description": sn.Description, "StorageTier": "standard", "VolumeId": sn.VolumeID}
	if sn.VolumeID == "" {
		a["VolumeId"] = "vol-ffffffff" // EC2's own for one that was made of no volume
	}
	set(a, "KmsKeyId", sn.KMSKey)
	set(a, "OwnerAlias", sn.Alias)
	set(a, "StateMessage", sn.StateMessage)
	setTime(a, "CompletionTime", sn.Completed)
	if sn.State == "completed" {
		a["FullSnapshotSizeInBytes"] = sn.Bytes
	}
	if tags := c.tagsOf(sn.ID); len(tags) > 0 {
		a["Tags"] = tagList(tags)
	}
	return a
}

func describeSnapshots(c *call) (answer, error) {
	at, err := c.page(5, 1000, "SnapshotIds")
	if err != nil {
		return nil, err
	}
	match, err := matcher(c, getters[snapshot]{
		"snapshot-id":  one(func(sn *snapshot) string { return sn.ID }),
		"volume-id":    one(func(sn *snapshot) string { return sn.VolumeID }),
		"volume-size":  one(func(sn *snapshot) string { return number(sn.SizeGiB) }),
		"status":       one(func(sn *snapshot) string { return sn.State }),
		"start-time":   when(func(sn *snapshot) time.Time { return sn.Started }),
		"progress":     one(func(sn *snapshot) string { return sn.progress(c.now) }),
		"owner-id":     one(func(sn *snapshot) string { return sn.Account }),
		"owner-alias":  one(func(sn *snapshot) string { return sn.Alias }),
		"description":  one(func(sn *snapshot) string { return sn.Description }),
		"encrypted":    flag(func(sn *snapshot) bool { return sn.Encrypted }),
		"storage-tier": one(func(*snapshot) string { return "standard" }),
	}, func(sn *snapshot) string { return sn.ID })
	if err != nil {
		return nil, err
	}
	owned, err := c.ownerTest()
	if err != nil {
		return nil, err
	}
	see := func(sn *snapshot) bool { return sn.Region == c.region && c.mayRestore(sn) }
	found, err := pickAll(c, kindSnapshot, c.s.snapshots, c.p.texts("SnapshotIds"), see, func(sn *snapshot) bool {
		return owned(sn.Account, sn.Alias) && c.restorable(sn) && match(sn)
	})
	if err != nil {
		return nil, err
	}
	found, token := cut(c, at, found, func(sn *snapshot) string { return sn.ID })
	out := answer{"Snapshots": list(found, func(sn *snapshot) any { return c.snapshotAnswer(sn) })}
	set(out, "NextToken", token)
	return out, nil
}

// restorable is the test of RestorableByUserIds.
func (c *call) restorable(sn *snapshot) bool {
	users := c.p.texts("RestorableByUserIds")
	for _, user := range users {
		if user == "self" {
			user = c.account
		}
		if user == "all" && sn.Public || user == sn.Account || slices.Contains(sn.Users, user) {
			return true
		}
	}
	return len(users) == 0
}

// snapshotQuota checks that more snapshots of some volumes may be started.
func (c *call) snapshotQuota(volumes []*volume) error {
	have, pending := 0, map[string]int{}
	for _, sn := range c.s.snapshots.all {
		if c.mine(sn.Account, sn.Region) {
			have++
			if sn.State == "pending" {
				pending[sn.VolumeID]++
			}
		}
	}
	if have+len(volumes) > c.s.cfg.Quotas.Snapshots {
		return fail("SnapshotLimitExceeded", "Maximum allowed number of snapshots exceeded: %d", c.s.cfg.Quotas.Snapshots)
	}
	for _, v := range volumes {
		if pending[v.ID] >= c.s.cfg.Quotas.PendingSnapshots {
			return fail("ConcurrentSnapshotLimitExceeded", "Maximum allowed in-progress snapshots for a single volume exceeded.")
		}
	}
	return nil
}

func createSnapshot(c *call) (answer, error) {
	specs, err := c.tagsAtCreation(kindSnapshot.typ)
	if err != nil {
		return nil, err
	}
	v, err := c.volume(c.p.str("VolumeId"))
	if err != nil {
		return nil, err
	}
	if v.State != "available" && v.State != "in-use" {
		return nil, wrongState("Volume %s is in the state %s, so no snapshot can be made of it.", v.ID, v.State)
	}
	if err := checkText("Description", c.p.str("Description")); err != nil {
		return nil, err
	}
	if err := c.snapshotQuota([]*volume{v}); err != nil {
		return nil, err
	}
	sn := c.newSnapshot(snapshot{VolumeID: v.ID, SizeGiB: v.SizeGiB, Encrypted: v.Encrypted, KMSKey: v.KMSKey,
		Description: c.p.str("Description")}, specs[kindSnapshot.typ])
	c.s.capture(c.s.instances.get(v.Instance), false, []string{v.ID, sn.ID})
	return c.snapshotAnswer(sn), nil
}

func createSnapshots(c *call) (answer, error) {
	specs, err := c.tagsAtCreation(kindSnapshot.typ)
	if err != nil {
		return nil, err
	}
	which := c.p.sub("InstanceSpecification")
	inst, err := c.instance(which.str("InstanceId"))
	if err != nil {
		return nil, err
	}
	var volumes []*volume
	for _, v := range c.s.attached(inst) {
		if which.yes("ExcludeBootVolume") && v.Device == inst.RootDevice || slices.Contains(which.texts("ExcludeDataVolumeIds"), v.ID) {
			continue
		}
		volumes = append(volumes, v)
	}
	if len(volumes) == 0 {
		return nil, invalidValue("No volumes of instance %s are left to make snapshots of.", inst.ID)
	}
	if err := c.snapshotQuota(volumes); err != nil {
		return nil, err
	}
	var pairs []string
	out := []any{}
	for _, v := range volumes {
		tags := specs[kindSnapshot.typ]
		if c.p.str("CopyTagsFromSource") == "volume" {
			tags = merged(c.tagsOf(v.ID), tags)
		}
		sn := c.newSnapshot(snapshot{VolumeID: v.ID, SizeGiB: v.SizeGiB, Encrypted: v.Encrypted, KMSKey: v.KMSKey,
			Description: c.p.str("Description")}, tags)
		pairs = append(pairs, v.ID, sn.ID)
		a := answer{"SnapshotId": sn.ID, "VolumeId": v.ID, "State": sn.State, "StartTime": sn.Started, "Progress": "", "OwnerId": sn.Account,
			"VolumeSize": sn.SizeGiB, "Encrypted": sn.Encrypted, "Description": sn.Description, "Tags": tagList(tags)}
		out = append(out, a)
	}
	c.s.capture(inst, false, pairs)
	return answer{"Snapshots": out}, nil
}

// copySnapshot copies one of this or another region into this one.
func copySnapshot(c *call) (answer, error) {
	specs, err := c.tagsAtCreation(kindSnapshot.typ)
	if err != nil {
		return nil, err
	}
	source, err := c.elsewhere(c.p.str("SourceRegion")).snapshot(c.p.str("SourceSnapshotId"))
	if err != nil {
		return nil, err
	}
	if source.State != "completed" {
		return nil, wrongState("The snapshot %s is in the state %s; it must be completed.", source.ID, source.State)
	}
	if err := c.snapshotQuota(nil); err != nil {
		return nil, err
	}
	sn := snapshot{SizeGiB: source.SizeGiB, Description: c.p.or("Description", fmt.Sprintf("[Copied %s from %s]", source.ID, source.Region))}
	if err := c.encryptCopy(&sn, source.Encrypted); err != nil {
		return nil, err
	}
	made := c.newSnapshot(sn, specs[kindSnapshot.typ])
	c.s.copyBytes(source.ID, made.ID)
	return answer{"SnapshotId": made.ID, "Tags": tagList(specs[kindSnapshot.typ])}, nil
}

// encryptCopy reads Encrypted and KmsKeyId of a copy: encrypted when asked for, or when the
// source is.
func (c *call) encryptCopy(sn *snapshot, source bool) error {
	key := c.p.str("KmsKeyId")
	if key != "" && !c.p.yes("Encrypted") && !source {
		return invalidCombination("The parameter KmsKeyId requires the parameter Encrypted to be set.")
	}
	if sn.Encrypted = source || c.p.yes("Encrypted"); !sn.Encrypted {
		return nil
	}
	arn, err := c.kmsKey(key)
	if err != nil {
		// EC2 takes the call, and the copy fails later.
		sn.KMSKey, sn.Fail = key, "Given key ID is not accessible"
		return nil
	}
	sn.KMSKey = arn
	return nil
}

// copyBytes gives a new snapshot the bytes of an old one, in the background.
func (s *Server) copyBytes(from, to string) {
	s.enqueue(func(context.Context) {
		err := s.shareBytes(from, to)
		s.record(func() { s.snapshotWritten(to, err) })
	}, to, from)
}

// elsewhere is the caller in another region.
func (c *call) elsewhere(region string) *call {
	other := *c
	other.region = region
	c.s.seedRegion(region)
	return &other
}

func deleteSnapshot(c *call) (answer, error) {
	sn, err := c.ownSnapshot(c.p.str("SnapshotId"))
	if err != nil {
		return nil, err
	}
	if user := c.s.imageWith(sn.ID); user != "" {
		return nil, fail("InvalidSnapshot.InUse", "The snapshot %s is currently in use by %s", sn.ID, user)
	}
	c.s.dropSnapshot(sn)
	return answer{}, nil
}

// imageWith returns an image that a snapshot belongs to, or "".
func (s *Server) imageWith(snapshotID string) string {
	for _, i := range s.images.all {
		if slices.ContainsFunc(i.Mappings, func(m mapping) bool { return m.SnapshotID == snapshotID }) {
			return i.ID
		}
	}
	return ""
}

func (s *Server) dropSnapshot(sn *snapshot) {
	s.snapshots.remove(sn.ID)
	s.forgetUpload(sn.ID)
	s.setTags(sn.Account, sn.Region, sn.ID, kindSnapshot.typ, nil)
	path := s.snapshotPath(sn.ID)
	// Behind the work on it: a volume may be copied from it just now.
	s.enqueue(func(context.Context) { s.removeFile(path) }, sn.ID)
}

func describeSnapshotAttribute(c *call) (answer, error) {
	sn, err := c.ownSnapshot(c.p.str("SnapshotId"))
	if err != nil {
		return nil, err
	}
	out := answer{"SnapshotId": sn.ID}
	if c.p.str("Attribute") == "productCodes" {
		out["ProductCodes"] = []any{}
		return out, nil
	}
	perms := []any{}
	if sn.Public {
		perms = append(perms, answer{"Group": "all"})
	}
	for _, user := range sn.Users {
		perms = append(perms, answer{"UserId": user})
	}
	out["CreateVolumePermissions"] = perms
	return out, nil
}

func modifySnapshotAttribute(c *call) (answer, error) {
	sn, err := c.ownSnapshot(c.p.str("SnapshotId"))
	if err != nil {
		return nil, err
	}
	p := c.p.sub("CreateVolumePermission")
	add, remove := p.subs("Add"), p.subs("Remove")
	var flat []params
	for _, user := range c.p.texts("UserIds") {
		flat = append(flat, params{"UserId": user})
	}
	for _, group := range c.p.texts("GroupNames") {
		flat = append(flat, params{"Group": group})
	}
	if c.p.str("OperationType") == "remove" {
		remove = append(remove, flat...)
	} else {
		add = append(add, flat...)
	}
	public, users := sn.Public, slices.Clone(sn.Users)
	if err := changePermissions(&public, &users, add, remove); err != nil {
		return nil, err
	}
	if sn.Encrypted && public {
		return nil, fail("OperationNotPermitted", "Encrypted snapshots can't be shared publicly.")
	}
	sn.Public, sn.Users = public, users
	c.s.snapshots.put(sn.ID, sn)
	return answer{}, nil
}

// changePermissions adds and removes users and the group "all".
func changePermissions(public *bool, users *[]string, add, remove []params) error {
	for i, p := range append(slices.Clone(add), remove...) {
		group, user := p.str("Group"), p.str("UserId")
		adding := i < len(add)
		switch {
		case group == "all":
			*public = adding
		case group != "":
			return fail("InvalidAMIAttributeItemValue", "Invalid attribute item value \"%s\" for group item type.", group)
		case user == "":
		case !isAccount(user):
			return fail("InvalidAMIAttributeItemValue", "Invalid attribute item value \"%s\" for userId item type.", user)
		case adding && !slices.Contains(*users, user):
			*users = append(*users, user)
		case !adding:
			*users = slices.DeleteFunc(*users, func(u string) bool { return u == user })
		}
	}
	return nil
}
