package sandbox

import (
	"regexp"
)

// diskChange is an entry of a request's block device mappings: what it says about a device.
type diskChange struct {
	device, virtual string
	none            bool
	p               params // of Ebs
}

type diskChanges []diskChange

func (c diskChanges) of(device string) (diskChange, bool) {
	for _, one := range c {
		if one.device == device {
			return one, true
		}
	}
	return diskChange{}, false
}

var deviceName = regexp.MustCompile(`^(/dev/)?(sd[a-z][1-9]?[0-9]?|xvd[a-z]{1,2}|xvd[a-d][a-z]|hd[a-z]|nvme\d+n1)$`)

// readMappings reads BlockDeviceMappings.
func readMappings(list []params) (diskChanges, error) {
	var out diskChanges
	for _, p := range list {
		one := diskChange{device: p.str("DeviceName"), virtual: p.str("VirtualName"), none: p.has("NoDevice"), p: p.sub("Ebs")}
		if one.device == "" {
			return nil, missing("deviceName")
		}
		if !deviceName.MatchString(one.device) {
			return nil, invalidValue("Value (%s) for parameter deviceName is invalid. %s is not a valid EBS device name.", one.device, one.device)
		}
		if _, twice := out.of(one.device); twice {
			return nil, fail("InvalidBlockDeviceMapping", "The device '%s' is used in more than one block-device mapping", one.device)
		}
		if one.virtual == "" && !one.none && one.p == nil {
			return nil, fail("InvalidBlockDeviceMapping", "The mapping of %s must have one of ebs, virtualName and noDevice.", one.device)
		}
		out = append(out, one)
	}
	return out, nil
}

// apply changes a mapping as the request says, and checks what comes out.
func (one diskChange) apply(c *call, m *mapping) error {
	p := one.p
	if id := p.str("SnapshotId"); id != "" {
		sn, err := c.snapshot(id)
		if err != nil {
			return err
		}
		if sn.State != "completed" {
			return wrongState("The snapshot %s is in the state %s; it must be completed.", id, sn.State)
		}
		if c.r.Action == "RegisterImage" && sn.Account != c.account {
			return fail("InvalidParameterValue", "Snapshot '%s' belongs to another account, so no image can be registered from it.", id)
		}
		m.SnapshotID, m.Encrypted, m.KMSKey = id, sn.Encrypted, sn.KMSKey
		if !p.has("VolumeSize") && m.SizeGiB < sn.SizeGiB {
			m.SizeGiB = sn.SizeGiB
		}
	}
	if p.has("DeleteOnTermination") {
		m.Delete = p.yes("DeleteOnTermination")
	}
	if p.has("VolumeSize") {
		m.SizeGiB = p.num("VolumeSize")
	}
	if err := encryptMapping(c, m, p); err != nil {
		return err
	}
	if typ := p.str("VolumeType"); typ != "" && typ != m.Type {
		m.Type, m.IOPS, m.Throughput = typ, 0, 0
	}
	if m.Type == "" {
		m.Type = "gp2"
	}
	if p.has("Iops") {
		m.IOPS = p.num("Iops")
	}
	if p.has("Throughput") {
		m.Throughput = p.num("Throughput")
	}
	return c.checkVolume(m)
}

func encryptMapping(c *call, m *mapping, p params) error {
	key := p.str("KmsKeyId")
	if p.has("Encrypted") {
		if !p.yes("Encrypted") && m.Encrypted {
			return invalidCombination("The encrypted flag cannot be false: the snapshot %s is encrypted.", m.SnapshotID)
		}
		if c.r.Action == "RegisterImage" && m.SnapshotID != "" && p.yes("Encrypted") != m.Encrypted {
			return invalidCombination("The parameter encrypted cannot be given together with a snapshot.")
		}
		m.Encrypted = p.yes("Encrypted")
	}
	if key != "" && !m.Encrypted {
		return invalidCombination("The parameter KmsKeyId requires the parameter Encrypted to be set.")
	}
	if m.Encrypted && (key != "" || m.KMSKey == "") {
		arn, err := c.kmsKey(key)
		if err != nil {
			return err
		}
		m.KMSKey = arn
	}
	return nil
}

// limits of the volume types: sizes in GiB, IOPS, and throughput in MiB/s.
var volumeTypes = map[string]struct {
	minSize, maxSize, minIOPS, maxIOPS, perGiB int64
	needsIOPS                                  bool
}{
	"standard": {1, 1024, 0, 0, 0, false},
	"gp2":      {1, 16384, 0, 0, 0, false},
	"gp3":      {1, 65536, 3000, 80000, 500, false},
	"io1":      {4, 16384, 100, 64000, 50, true},
	"io2":      {4, 65536, 100, 256000, 1000, true},
	"st1":      {125, 16384, 0, 0, 0, false},
	"sc1":      {125, 16384, 0, 0, 0, false},
}

// checkVolume checks size and speed, and fills in what the type gives by itself.
func (c *call) checkVolume(m *mapping) error {
	limits, ok := volumeTypes[m.Type]
	if !ok {
		return fail("UnknownVolumeType", "Unknown volume type '%s'", m.Type)
	}
	if sn := c.s.snapshots.get(m.SnapshotID); sn != nil && m.SizeGiB < sn.SizeGiB {
		return fail("InvalidBlockDeviceMapping", "Volume of size %dGB is smaller than snapshot '%s', expect size>= %dGB", m.SizeGiB, sn.ID, sn.SizeGiB)
	}
	if m.SizeGiB == 0 {
		return fail("MissingParameter", "The request must contain the parameter size or snapshotId")
	}
	if m.SizeGiB < limits.minSize || m.SizeGiB > limits.maxSize {
		return invalidValue("Volume of %dGiB is invalid for volumes of type %s; it must be from %d to %d.", m.SizeGiB, m.Type, limits.minSize, limits.maxSize)
	}
	switch {
	case limits.needsIOPS && m.IOPS == 0:
		return fail("MissingParameter", "The parameter iops must be specified for %s volumes.", m.Type)
	case limits.maxIOPS == 0 && m.IOPS > 0 && m.Type != "gp2":
		return invalidCombination("The parameter iops is not supported for %s volumes.", m.Type)
	case limits.maxIOPS > 0 && m.IOPS > 0 && (m.IOPS < limits.minIOPS || m.IOPS > limits.maxIOPS):
		return invalidValue("Volume iops of %d is invalid for %s volumes; it must be from %d to %d.", m.IOPS, m.Type, limits.minIOPS, limits.maxIOPS)
	case limits.perGiB > 0 && m.IOPS > limits.minIOPS && m.IOPS > m.SizeGiB*limits.perGiB:
		return invalidValue("Iops to volume size ratio of %d is too high; maximum is %d", m.IOPS/m.SizeGiB, limits.perGiB)
	case m.Throughput > 0 && m.Type != "gp3":
		return invalidCombination("The parameter throughput is not supported for %s volumes.", m.Type)
	case m.Throughput > 0 && (m.Throughput < 125 || m.Throughput > 2000):
		return invalidValue("Throughput of %d is invalid; it must be from 125 to 2000.", m.Throughput)
	}
	m.fillSpeed()
	return nil
}

func (m *mapping) fillSpeed() {
	switch {
	case m.Type == "gp3":
		if m.IOPS == 0 {
			m.IOPS = 3000
		}
		if m.Throughput == 0 {
			m.Throughput = 125
		}
	case m.Type == "gp2":
		m.IOPS = min(max(m.SizeGiB*3, 100), 16000)
	}
}
