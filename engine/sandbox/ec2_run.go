package sandbox

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
)

// launch is what RunInstances was asked for, checked.
type launch struct {
	image    *image
	typ      instanceType
	bootMode string
	mappings []mapping
	groups   []string
	subnet   *subnet
	public   bool
	key      *keyPair
	profile  profile
	userData []byte
	spot     bool
	metadata metadataOptions
	tags     map[string]map[string]string
	count    int64
}

func runInstances(c *call) (answer, error) {
	seen, err := c.replay(c.p.str("ClientToken"))
	if err != nil {
		return nil, err
	}
	if seen != nil {
		return c.runAgain(seen)
	}
	l, err := c.readLaunch()
	if err != nil {
		return nil, err
	}
	if f, ok := c.has(Capacity); ok {
		return nil, noCapacity(l.typ.name, l.subnet.Zone, f)
	}
	if err := c.cpuQuota(l.typ, l.count, l.spot); err != nil {
		return nil, err
	}
	reservation := newID("r")
	var ids []string
	out := []any{}
	for i := range l.count {
		inst := c.launchOne(l, reservation, i)
		ids = append(ids, inst.ID)
		out = append(out, c.instanceAnswer(inst))
	}
	l.image.launched(c.now)
	c.s.images.put(l.image.ID, l.image)
	c.keepToken(c.p.str("ClientToken"), ids...)
	return answer{"ReservationId": reservation, "OwnerId": c.account, "Groups": []any{}, "Instances": out}, nil
}

// runAgain answers a repeated RunInstances.
func (c *call) runAgain(seen *token) (answer, error) {
	out := []any{}
	var reservation string
	for _, id := range seen.IDs {
		inst := c.s.instances.get(id)
		if inst == nil || !inst.alive() {
			return nil, fail("IdempotentInstanceTerminated", "The client token is associated with the instance %s, which is terminated.", id)
		}
		reservation = inst.Reservation
		out = append(out, c.instanceAnswer(inst))
	}
	return answer{"ReservationId": reservation, "OwnerId": c.account, "Groups": []any{}, "Instances": out}, nil
}

func noCapacity(typ, zone string, _ Fault) error {
	e := fail("InsufficientInstanceCapacity", "We currently do not have sufficient %s capacity in the Availability Zone you requested (%s). Our system will be working on provisioning additional capacity.", typ, zone)
	e.Status = 500
	return e
}

// readLaunch checks everything; nothing is made before it has passed.
func (c *call) readLaunch() (l launch, err error) {
	for _, step := range []func(*launch) error{c.launchImage, c.launchType, c.launchPlace, c.launchDisks, c.launchAccess, c.launchOptions} {
		if err := step(&l); err != nil {
			return l, err
		}
	}
	return l, nil
}

func (c *call) launchImage(l *launch) (err error) {
	if c.p.has("LaunchTemplate") {
		return fail("InvalidLaunchTemplateId.NotFound", "The specified launch template does not exist.")
	}
	low, high := c.p.num("MinCount"), c.p.num("MaxCount")
	if low < 1 || high < low {
		return invalidValue("Value (%d) for parameter minCount is invalid. It must be at least 1, and not more than maxCount (%d).", low, high)
	}
	l.count = high
	if c.p.str("ImageId") == "" {
		return missing("ImageId")
	}
	if l.image, err = c.launchable(c.p.str("ImageId")); err != nil {
		return err
	}
	l.tags, err = c.tagsAtCreation(kindInstance.typ, kindVolume.typ, kindInterface.typ, kindSpot.typ)
	return err
}

func (c *call) launchType(l *launch) error {
	name := c.p.or("InstanceType", "m1.small")
	typ, ok := findType(name)
	if !ok {
		return invalidValue("Invalid value '%s' for InstanceType.", name)
	}
	l.typ = typ
	img := l.image
	if !slices.Contains(typ.arches(), img.Arch) {
		return invalidValue("The architecture '%s' of the specified instance type does not match the architecture '%s' of the specified AMI. Specify an instance type and an AMI that have matching architectures, and try again.", strings.Join(typ.arches(), ","), img.Arch)
	}
	if img.Virtualization != "hvm" {
		return invalidCombination("Non-Windows instances with a virtualization type of '%s' are currently not supported for instance type %s.", img.Virtualization, name)
	}
	if !img.ENA && !typ.xen {
		return invalidCombination("Enhanced networking with the Elastic Network Adapter (ENA) is required for the '%s' instance type. Ensure that you are using an AMI that is enabled for ENA.", name)
	}
	switch mode := img.BootMode; {
	case mode == "" && typ.arch == "arm64":
		l.bootMode = "uefi"
	case mode == "":
		l.bootMode = "legacy-bios"
	case mode == "uefi-preferred" && slices.Contains(typ.bootModes(), "uefi"):
		l.bootMode = "uefi"
	case mode == "uefi-preferred":
		l.bootMode = "legacy-bios"
	case !slices.Contains(typ.bootModes(), mode):
		return invalidCombination("The instance type '%s' does not support the boot mode '%s' of the AMI.", name, mode)
	default:
		l.bootMode = mode
	}
	return nil
}

// launchPlace reads subnet, zone, groups and public address, in the request or in its only
// network interface.
func (c *call) launchPlace(l *launch) error {
	p, n := c.p, c.network()
	subnetID, groups := p.str("SubnetId"), p.texts("SecurityGroupIds")
	l.public = true
	if cards := p.subs("NetworkInterfaces"); len(cards) > 0 {
		if len(cards) > 1 || cards[0].str("NetworkInterfaceId") != "" {
			return fail("UnsupportedOperation", "The sandbox gives an instance one network interface of its own: name at most one, without an id.")
		}
		if subnetID != "" || len(groups) > 0 || len(p.texts("SecurityGroups")) > 0 {
			return invalidCombination("Network interfaces and an instance-level subnet ID or security groups may not be specified on the same request")
		}
		subnetID, groups = cards[0].str("SubnetId"), cards[0].texts("Groups")
		if cards[0].has("AssociatePublicIpAddress") {
			l.public = cards[0].yes("AssociatePublicIpAddress")
		}
	}
	for _, name := range p.texts("SecurityGroups") {
		g, err := c.groupByName(name)
		if err != nil {
			return err
		}
		groups = append(groups, g.ID)
	}
	for _, id := range groups {
		if _, err := c.group(id); err != nil {
			return err
		}
	}
	if len(groups) == 0 {
		groups = []string{n.Group}
	}
	l.groups = slices.Compact(slices.Sorted(slices.Values(groups)))
	return c.launchZone(l, n, subnetID)
}

func (c *call) launchZone(l *launch, n *network, subnetID string) error {
	place := c.p.sub("Placement")
	wanted := place.or("AvailabilityZone", place.str("AvailabilityZoneId"))
	if wanted != "" {
		z, ok := zoneOf(c.region, wanted)
		if !ok {
			return invalidValue("Invalid availability zone: [%s]", wanted)
		}
		wanted = z.name
	}
	if subnetID != "" {
		if err := kindSubnet.check(subnetID); err != nil {
			return err
		}
		if l.subnet = n.subnet(subnetID); l.subnet == nil {
			return kindSubnet.notFound(subnetID)
		}
		if wanted != "" && wanted != l.subnet.Zone {
			return invalidValue("The subnet '%s' is not in the availability zone %s", subnetID, wanted)
		}
	}
	for i := range n.Subnets {
		s := &n.Subnets[i]
		if l.subnet == nil && (wanted == s.Zone || wanted == "" && l.typ.offered(zone{s.Zone, s.ZoneID})) {
			l.subnet = s
		}
	}
	if !l.typ.offered(zone{l.subnet.Zone, l.subnet.ZoneID}) {
		return fail("Unsupported", "Your requested instance type (%s) is not supported in your requested Availability Zone (%s). Please retry your request by not specifying an Availability Zone or choosing another.", l.typ.name, l.subnet.Zone)
	}
	return nil
}

// launchDisks lays the request's mappings over the image's.
func (c *call) launchDisks(l *launch) error {
	changes, err := readMappings(c.p.subs("BlockDeviceMappings"))
	if err != nil {
		return err
	}
	for _, m := range l.image.Mappings {
		if one, ok := changes.of(m.Device); ok {
			if one.none || one.virtual != "" {
				continue
			}
			if id := one.p.str("SnapshotId"); id != "" && m.Device == l.image.RootDevice && id != m.SnapshotID {
				return fail("InvalidBlockDeviceMapping", "snapshotId cannot be modified on root device")
			}
			if err := one.apply(c, &m); err != nil {
				return err
			}
		}
		if m.Virtual == "" {
			m.fillSpeed()
			l.mappings = append(l.mappings, m)
		}
	}
	for _, one := range changes {
		known := slices.ContainsFunc(l.image.Mappings, func(m mapping) bool { return m.Device == one.device })
		if known || one.none || one.virtual != "" {
			continue
		}
		m := mapping{Device: one.device, Delete: true}
		if err := one.apply(c, &m); err != nil {
			return err
		}
		l.mappings = append(l.mappings, m)
	}
	if !slices.ContainsFunc(l.mappings, func(m mapping) bool { return m.Device == l.image.RootDevice }) {
		return fail("InvalidBlockDeviceMapping", "The root device %s can't be left out.", l.image.RootDevice)
	}
	return nil
}

// launchAccess reads key pair, instance profile and user data.
func (c *call) launchAccess(l *launch) error {
	if name := c.p.str("KeyName"); name != "" {
		if l.key = c.key(name); l.key == nil || !c.sees("key:"+name) {
			return fail(kindKey.missing, "The key pair '%s' does not exist", name)
		}
	}
	if c.p.has("IamInstanceProfile") {
		found, err := c.profile(c.p.sub("IamInstanceProfile"))
		if err != nil {
			return err
		}
		l.profile = found
	}
	text := c.p.str("UserData")
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return fail("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data")
	}
	if len(data) > 16<<10 {
		return invalidValue("User data is limited to 16384 bytes")
	}
	l.userData = data
	return nil
}

// profile finds an instance profile that a request names.
func (c *call) profile(p params) (profile, error) {
	arn, name := p.str("Arn"), p.str("Name")
	if arn != "" && name != "" {
		return profile{}, invalidCombination("The parameter 'iamInstanceProfile.name' may not be used in combination with 'iamInstanceProfile.arn'")
	}
	what, which := "name", name
	if arn != "" {
		what, which = "arn", arn
	}
	found, ok := c.s.findProfile(c.account, which)
	if !ok {
		return found, invalidValue("Value (%s) for parameter iamInstanceProfile.%s is invalid. Invalid IAM Instance Profile %s", which, what, map[string]string{"name": "name", "arn": "ARN"}[what])
	}
	return found, nil
}

func (c *call) launchOptions(l *launch) error {
	market := c.p.sub("InstanceMarketOptions")
	l.spot = market.str("MarketType") == "spot"
	if spot := market.sub("SpotOptions"); spot.str("InstanceInterruptionBehavior") == "stop" || spot.str("InstanceInterruptionBehavior") == "hibernate" {
		if spot.or("SpotInstanceType", "one-time") == "one-time" {
			return invalidCombination("A one-time spot request can only be interrupted by termination.")
		}
		return fail("UnsupportedOperation", "The sandbox ends interrupted spot instances: leave InstanceInterruptionBehavior out.")
	}
	if l.spot {
		if price := market.sub("SpotOptions").str("MaxPrice"); price != "" && toFloat(price) < toFloat(l.typ.spotPrice()) {
			return fail("SpotMaxPriceTooLow", "Your Spot request price of %s is lower than the minimum required Spot request fulfillment price of %s.", price, l.typ.spotPrice())
		}
	}
	m := c.p.sub("MetadataOptions")
	tokens := "optional"
	if l.image.IMDS == "v2.0" {
		tokens = "required"
	}
	hops := int64(1)
	if l.image.IMDS == "v2.0" {
		hops = 2
	}
	if m.has("HttpPutResponseHopLimit") {
		hops = m.num("HttpPutResponseHopLimit")
	}
	l.metadata = metadataOptions{Tokens: m.or("HttpTokens", tokens), Endpoint: m.or("HttpEndpoint", "enabled"),
		Tags: m.or("InstanceMetadataTags", "disabled"), IPv6: m.or("HttpProtocolIpv6", "disabled"), Hops: hops}
	if behavior := c.p.str("InstanceInitiatedShutdownBehavior"); l.spot && behavior == "stop" {
		return invalidCombination("A one-time spot instance can't be stopped.")
	}
	return nil
}

func toFloat(text string) float64 {
	var f float64
	if _, err := fmt.Sscanf(text, "%g", &f); err != nil {
		return 0
	}
	return f
}

// cpuQuota checks that count more instances of a type may run.
func (c *call) cpuQuota(t instanceType, count int64, spot bool) error {
	used := count * t.cpus
	for _, i := range c.s.instances.all {
		if !c.mine(i.Account, i.Region) || (i.State != "pending" && i.State != "running") || (i.SpotRequest != "") != spot {
			continue
		}
		if typ, ok := findType(i.Type); ok {
			used += typ.cpus
		}
	}
	switch {
	case spot && used > int64(c.s.cfg.Quotas.SpotVCPUs):
		return fail("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded")
	case !spot && used > int64(c.s.cfg.Quotas.VCPUs):
		return fail("VcpuLimitExceeded", "You have requested more vCPU capacity than your current vCPU limit of %d allows for the instance bucket that the specified instance type belongs to. Please visit http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit.", c.s.cfg.Quotas.VCPUs)
	}
	return nil
}

// launchOne makes one instance with its volumes, and starts its machine in the background.
func (c *call) launchOne(l launch, reservation string, index int64) *instance {
	n := c.network()
	inst := &instance{ID: newID(kindInstance.prefix), Account: c.account, Region: c.region, Zone: l.subnet.Zone,
		Reservation: reservation, Index: index, ImageID: l.image.ID, Type: l.typ.name, Arch: l.image.Arch, State: "pending",
		Launched: c.now, Started: c.now, Due: c.s.due(c.now, instancePending), Machine: c.s.cfg.Machines != nil,
		BootMode: l.bootMode, ImageBootMode: l.image.BootMode, ImageIMDS: l.image.IMDS, TPM: l.image.TPM, ENA: l.image.ENA,
		RootDevice: l.image.RootDevice, VPC: n.VPC, Subnet: l.subnet.ID, Private: n.host(l.subnet), Address: c.s.newAddress(),
		PublicIP: l.public, MAC: newMAC(), Interface: newID(kindInterface.prefix), Groups: l.groups,
		Profile: l.profile.ARN, ProfileID: l.profile.ID, UserData: l.userData, ClientToken: c.p.str("ClientToken"),
		Shutdown: c.p.or("InstanceInitiatedShutdownBehavior", "stop"), NoTermination: c.p.yes("DisableApiTermination"),
		NoStop: c.p.yes("DisableApiStop"), EBSOptimized: c.p.yes("EbsOptimized"), Monitoring: "disabled",
		Tenancy: c.p.sub("Placement").or("Tenancy", "default"), Metadata: l.metadata}
	_, inst.Stuck = c.has(Stuck)
	if c.p.sub("Monitoring").yes("Enabled") {
		inst.Monitoring = "enabled"
	}
	if l.key != nil {
		inst.KeyName, inst.PublicKey = l.key.Name, l.key.Public
	}
	if l.profile.ARN != "" {
		inst.Association = newID("iip-assoc")
	}
	if l.spot {
		inst.SpotRequest = c.keepSpot(l, inst)
		inst.Shutdown = "terminate"
		if f, ok := c.has(SpotInterruption); ok {
			inst.Interrupt = c.now.Add(f.For + interruptNotice)
		}
	}
	c.s.networks.put(scoped(c.account, c.region, ""), n)
	c.s.instances.put(inst.ID, inst)
	c.setTags(inst.ID, kindInstance.typ, l.tags[kindInstance.typ])
	c.setTags(inst.Interface, kindInterface.typ, l.tags[kindInterface.typ])
	for _, m := range l.mappings {
		v := c.keepVolume(m, inst.Zone, l.tags[kindVolume.typ])
		v.State, v.Instance, v.Device, v.Delete, v.Attached = "in-use", inst.ID, m.Device, m.Delete, c.now
	}
	c.born(inst.ID)
	c.s.moving[inst.ID] = true
	c.s.startMachine(inst)
	return inst
}
