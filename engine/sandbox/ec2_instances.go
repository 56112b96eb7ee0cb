package sandbox

import (
	"encoding/base64"
	"slices"
	"strings"
	"time"
)

var stateCodes = map[string]int64{"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}

func stateAnswer(name string) answer { return answer{"Name": name, "Code": stateCodes[name]} }

// publicAddress is empty while the instance has none.
func (i *instance) publicAddress() string {
	if i.PublicIP && (i.State == "pending" || i.State == "running") {
		return i.Address
	}
	return ""
}

func (c *call) instanceAnswer(i *instance) answer {
	gone := i.State == "terminated"
	a := answer{"InstanceId": i.ID, "ImageId": i.ImageID, "State": stateAnswer(i.State), "InstanceType": i.Type, "Architecture": i.Arch,
		"LaunchTime": i.Started, "AmiLaunchIndex": i.Index, "Placement": answer{"AvailabilityZone": i.Zone, "GroupName": "", "Tenancy": i.Tenancy},
		"Monitoring": answer{"State": i.Monitoring}, "PrivateDnsName": "", "PublicDnsName": "", "Hypervisor": "xen", "VirtualizationType": "hvm",
		"RootDeviceType": "ebs", "RootDeviceName": i.RootDevice, "EbsOptimized": i.EBSOptimized, "EnaSupport": i.ENA,
		"ClientToken": i.ClientToken, "StateTransitionReason": i.Transition, "PlatformDetails": platformDetails, "UsageOperation": "RunInstances",
		"UsageOperationUpdateTime": i.Launched, "CurrentInstanceBootMode": i.BootMode, "ProductCodes": []any{},
		"HibernationOptions": answer{"Configured": false}, "EnclaveOptions": answer{"Enabled": false},
		"MaintenanceOptions": answer{"AutoRecovery": "default"}, "MetadataOptions": i.metadataAnswer(),
		"CapacityReservationSpecification": answer{"CapacityReservationPreference": "open"},
		"SecurityGroups":                   []any{}, "NetworkInterfaces": []any{}, "BlockDeviceMappings": []any{}}
	if t, ok := findType(i.Type); ok {
		a["CpuOptions"] = answer{"CoreCount": max(1, t.cpus/2), "ThreadsPerCore": min(2, t.cpus)}
	}
	set(a, "BootMode", i.ImageBootMode)
	set(a, "TpmSupport", i.TPM)
	set(a, "KeyName", i.KeyName)
	set(a, "SpotInstanceRequestId", i.SpotRequest)
	if i.SpotRequest != "" {
		a["InstanceLifecycle"] = "spot"
	}
	if i.ReasonCode != "" {
		a["StateReason"] = answer{"Code": i.ReasonCode, "Message": i.ReasonMessage}
	}
	if tags := c.tagsOf(i.ID); len(tags) > 0 {
		a["Tags"] = tagList(tags)
	}
	if i.Profile != "" && !gone {
		a["IamInstanceProfile"] = answer{"Arn": i.Profile, "Id": i.ProfileID}
	}
	if !gone {
		c.networkOf(i, a)
	}
	return a
}

// networkOf adds what an instance has until it is terminated.
func (c *call) networkOf(i *instance, a answer) {
	a["SubnetId"], a["VpcId"], a["PrivateIpAddress"], a["SourceDestCheck"] = i.Subnet, i.VPC, i.Private, true
	a["PrivateDnsName"] = i.privateName()
	set(a, "PublicIpAddress", i.publicAddress())
	a["SecurityGroups"] = c.groupList(i.Groups)
	a["NetworkInterfaces"] = []any{c.interfaceAnswer(i)}
	disks := []any{}
	// EC2 tells of the disks once the instance has them.
	if i.State != "pending" {
		for _, v := range c.s.attached(i) {
			disks = append(disks, answer{"DeviceName": v.Device, "Ebs": answer{"VolumeId": v.ID, "Status": "attached",
				"AttachTime": v.Attached, "DeleteOnTermination": v.Delete}})
		}
	}
	a["BlockDeviceMappings"] = disks
}

func (i *instance) metadataAnswer() answer {
	state := "applied"
	if i.State == "pending" {
		state = "pending"
	}
	return answer{"State": state, "HttpTokens": i.Metadata.Tokens, "HttpEndpoint": i.Metadata.Endpoint,
		"HttpPutResponseHopLimit": i.Metadata.Hops, "HttpProtocolIpv6": i.Metadata.IPv6, "InstanceMetadataTags": i.Metadata.Tags}
}

func instanceGetters() getters[instance] {
	return getters[instance]{
		"instance-id":                            one(func(i *instance) string { return i.ID }),
		"instance-state-name":                    one(func(i *instance) string { return i.State }),
		"instance-state-code":                    one(func(i *instance) string { return number(stateCodes[i.State]) }),
		"instance-type":                          one(func(i *instance) string { return i.Type }),
		"instance-lifecycle":                     func(_ *call, i *instance) []string { return lifecycle(i) },
		"spot-instance-request-id":               one(func(i *instance) string { return i.SpotRequest }),
		"image-id":                               one(func(i *instance) string { return i.ImageID }),
		"availability-zone":                      one(func(i *instance) string { return i.Zone }),
		"architecture":                           one(func(i *instance) string { return i.Arch }),
		"client-token":                           one(func(i *instance) string { return i.ClientToken }),
		"key-name":                               one(func(i *instance) string { return i.KeyName }),
		"launch-time":                            when(func(i *instance) time.Time { return i.Started }),
		"owner-id":                               one(func(i *instance) string { return i.Account }),
		"reservation-id":                         one(func(i *instance) string { return i.Reservation }),
		"vpc-id":                                 one(func(i *instance) string { return i.VPC }),
		"subnet-id":                              one(func(i *instance) string { return i.Subnet }),
		"private-ip-address":                     one(func(i *instance) string { return i.Private }),
		"ip-address":                             one((*instance).publicAddress),
		"root-device-name":                       one(func(i *instance) string { return i.RootDevice }),
		"root-device-type":                       one(func(*instance) string { return "ebs" }),
		"iam-instance-profile.arn":               one(func(i *instance) string { return i.Profile }),
		"iam-instance-profile.id":                one(func(i *instance) string { return i.ProfileID }),
		"instance.group-id":                      func(_ *call, i *instance) []string { return i.Groups },
		"network-interface.group-id":             func(_ *call, i *instance) []string { return i.Groups },
		"network-interface.network-interface-id": one(func(i *instance) string { return i.Interface }),
		"metadata-options.http-tokens":           one(func(i *instance) string { return i.Metadata.Tokens }),
		"block-device-mapping.volume-id": func(c *call, i *instance) (ids []string) {
			for _, v := range c.s.attached(i) {
				ids = append(ids, v.ID)
			}
			return ids
		},
	}
}

func lifecycle(i *instance) []string {
	if i.SpotRequest != "" {
		return []string{"spot"}
	}
	return nil
}

func describeInstances(c *call) (answer, error) {
	at, err := c.page(5, 1000, "InstanceIds")
	if err != nil {
		return nil, err
	}
	found, err := c.instances(func(*instance) bool { return true })
	if err != nil {
		return nil, err
	}
	found, token := cut(c, at, found, func(i *instance) string { return i.ID })
	reservations := []any{}
	byID := map[string]answer{}
	for _, i := range found {
		r := byID[i.Reservation]
		if r == nil {
			r = answer{"ReservationId": i.Reservation, "OwnerId": i.Account, "Groups": []any{}, "Instances": []any{}}
			byID[i.Reservation] = r
			reservations = append(reservations, r)
		}
		r["Instances"] = append(r["Instances"].([]any), c.instanceAnswer(i))
	}
	out := answer{"Reservations": reservations}
	set(out, "NextToken", token)
	return out, nil
}

// instances are those that InstanceIds and Filters select.
func (c *call) instances(and func(*instance) bool) ([]*instance, error) {
	match, err := matcher(c, instanceGetters(), func(i *instance) string { return i.ID })
	if err != nil {
		return nil, err
	}
	see := func(i *instance) bool { return c.mine(i.Account, i.Region) }
	return pickAll(c, kindInstance, c.s.instances, c.p.texts("InstanceIds"), see, func(i *instance) bool { return and(i) && match(i) })
}

func describeInstanceStatus(c *call) (answer, error) {
	at, err := c.page(5, 1000, "InstanceIds")
	if err != nil {
		return nil, err
	}
	match, err := matcher(c, statusGetters(), nil)
	if err != nil {
		return nil, err
	}
	all := c.p.yes("IncludeAllInstances")
	see := func(i *instance) bool { return c.mine(i.Account, i.Region) }
	found, err := pickAll(c, kindInstance, c.s.instances, c.p.texts("InstanceIds"), see, func(i *instance) bool {
		return (all || i.State == "running") && match(i)
	})
	if err != nil {
		return nil, err
	}
	found, token := cut(c, at, found, func(i *instance) string { return i.ID })
	out := answer{"InstanceStatuses": list(found, func(i *instance) any { return c.statusAnswer(i) })}
	set(out, "NextToken", token)
	return out, nil
}

func statusGetters() getters[instance] {
	g := instanceGetters()
	status := func(c *call, i *instance) []string { return []string{c.s.status(i, c.now)} }
	return getters[instance]{"instance-state-name": g["instance-state-name"], "instance-state-code": g["instance-state-code"],
		"availability-zone": g["availability-zone"], "instance-status.status": status, "system-status.status": status}
}

// status of the checks: EC2 needs a minute or two after the start, and here also a machine
// that answers.
func (s *Server) status(i *instance, now time.Time) string {
	if i.State != "running" {
		return "not-applicable"
	}
	if m := s.machines[i.ID]; m != nil {
		select {
		case <-m.machine.Ready():
		default:
			return "initializing"
		}
	}
	if now.Before(s.due(i.Started, statusChecks)) || i.Stuck {
		return "initializing"
	}
	return "ok"
}

func (c *call) statusAnswer(i *instance) answer {
	status := c.s.status(i, c.now)
	reachability := map[string]string{"ok": "passed", "initializing": "initializing"}[status]
	check := answer{"Status": status}
	if reachability != "" {
		check["Details"] = []any{answer{"Name": "reachability", "Status": reachability}}
	}
	return answer{"InstanceId": i.ID, "AvailabilityZone": i.Zone, "InstanceState": stateAnswer(i.State),
		"InstanceStatus": check, "SystemStatus": check}
}

func describeInstanceAttribute(c *call) (answer, error) {
	i, err := c.instance(c.p.str("InstanceId"))
	if err != nil {
		return nil, err
	}
	out := answer{"InstanceId": i.ID}
	switch c.p.str("Attribute") {
	case "instanceType":
		out["InstanceType"] = value(i.Type)
	case "userData":
		out["UserData"] = answer{}
		if len(i.UserData) > 0 {
			out["UserData"] = value(base64.StdEncoding.EncodeToString(i.UserData))
		}
	case "disableApiTermination":
		out["DisableApiTermination"] = value(i.NoTermination)
	case "disableApiStop":
		out["DisableApiStop"] = value(i.NoStop)
	case "instanceInitiatedShutdownBehavior":
		out["InstanceInitiatedShutdownBehavior"] = value(i.Shutdown)
	case "rootDeviceName":
		out["RootDeviceName"] = value(i.RootDevice)
	case "blockDeviceMapping":
		a := answer{}
		c.networkOf(i, a)
		out["BlockDeviceMappings"] = a["BlockDeviceMappings"]
	case "groupSet":
		out["Groups"] = c.groupList(i.Groups)
	case "ebsOptimized":
		out["EbsOptimized"] = value(i.EBSOptimized)
	case "enaSupport":
		out["EnaSupport"] = value(i.ENA)
	case "sourceDestCheck":
		out["SourceDestCheck"] = value(true)
	case "productCodes":
		out["ProductCodes"] = []any{}
	case "enclaveOptions":
		out["EnclaveOptions"] = answer{"Enabled": false}
	case "kernel", "ramdisk", "sriovNetSupport":
	default:
		return nil, invalidValue("Value (%s) for parameter attribute is invalid. Unknown attribute.", c.p.str("Attribute"))
	}
	return out, nil
}

func getConsoleOutput(c *call) (answer, error) {
	i, err := c.instance(c.p.str("InstanceId"))
	if err != nil {
		return nil, err
	}
	out := answer{"InstanceId": i.ID, "Timestamp": c.now, "Output": ""}
	if m := c.s.machines[i.ID]; m != nil {
		text := m.machine.Console()
		out["Output"] = base64.StdEncoding.EncodeToString([]byte(text[max(0, len(text)-64<<10):]))
	}
	return out, nil
}

func modifyInstanceMetadataOptions(c *call) (answer, error) {
	i, err := c.instance(c.p.str("InstanceId"))
	if err != nil {
		return nil, err
	}
	if !i.alive() {
		return nil, fail("IncorrectInstanceState", "The instance '%s' is not in a valid state (%s).", i.ID, i.State)
	}
	for name, field := range map[string]*string{"HttpTokens": &i.Metadata.Tokens, "HttpEndpoint": &i.Metadata.Endpoint,
		"InstanceMetadataTags": &i.Metadata.Tags, "HttpProtocolIpv6": &i.Metadata.IPv6} {
		*field = c.p.or(name, *field)
	}
	if c.p.has("HttpPutResponseHopLimit") {
		i.Metadata.Hops = c.p.num("HttpPutResponseHopLimit")
	}
	c.s.instances.put(i.ID, i)
	return answer{"InstanceId": i.ID, "InstanceMetadataOptions": i.metadataAnswer()}, nil
}

// modifyInstanceAttribute changes one attribute; those that need it want a stopped instance.
func modifyInstanceAttribute(c *call) (answer, error) {
	i, err := c.instance(c.p.str("InstanceId"))
	if err != nil {
		return nil, err
	}
	p := c.p
	if name := p.str("Attribute"); name != "" {
		if p, err = flatAttribute(name, p); err != nil {
			return nil, err
		}
	}
	if asked := slices.DeleteFunc(instanceAttributes(), func(name string) bool { return !p.has(name) }); len(asked) > 1 {
		return nil, invalidCombination("Fields for multiple attribute types specified: %s", strings.Join(asked, ", "))
	}
	if (p.has("InstanceType") || p.has("UserData") || p.has("EbsOptimized") || p.has("EnaSupport")) && i.State != "stopped" {
		return nil, fail("IncorrectInstanceState", "The instance '%s' is not in the 'stopped' state.", i.ID)
	}
	if err := c.changeInstance(i, p); err != nil {
		return nil, err
	}
	c.s.instances.put(i.ID, i)
	return answer{}, nil
}

// instanceAttributes are what ModifyInstanceAttribute changes, one at a time.
func instanceAttributes() []string {
	return []string{"InstanceType", "UserData", "EbsOptimized", "EnaSupport", "DisableApiTermination", "DisableApiStop",
		"InstanceInitiatedShutdownBehavior", "Groups", "BlockDeviceMappings"}
}

// flatAttribute turns the older form, Attribute and Value, into the newer one.
func flatAttribute(name string, p params) (params, error) {
	text := p.str("Value")
	yes := text == "true"
	switch name {
	case "instanceType":
		return params{"InstanceType": answer{"Value": text}}, nil
	case "userData":
		data, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, fail("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data")
		}
		return params{"UserData": answer{"Value": data}}, nil
	case "disableApiTermination":
		return params{"DisableApiTermination": answer{"Value": yes}}, nil
	case "disableApiStop":
		return params{"DisableApiStop": answer{"Value": yes}}, nil
	case "ebsOptimized":
		return params{"EbsOptimized": answer{"Value": yes}}, nil
	case "enaSupport":
		return params{"EnaSupport": answer{"Value": yes}}, nil
	case "instanceInitiatedShutdownBehavior":
		return params{"InstanceInitiatedShutdownBehavior": answer{"Value": text}}, nil
	case "blockDeviceMapping":
		return params{"BlockDeviceMappings": p["BlockDeviceMappings"]}, nil
	}
	return nil, invalidValue("Value (%s) for parameter attribute is invalid. The sandbox can't change it.", name)
}

func (c *call) changeInstance(i *instance, p params) error {
	switch {
	case p.has("InstanceType"):
		t, ok := findType(p.sub("InstanceType").str("Value"))
		if !ok || !slices.Contains(t.arches(), i.Arch) {
			return invalidValue("Invalid value '%s' for InstanceType.", p.sub("InstanceType").str("Value"))
		}
		i.Type = t.name
	case p.has("UserData"):
		i.UserData = p.sub("UserData").bytes("Value")
	case p.has("EbsOptimized"):
		i.EBSOptimized = p.sub("EbsOptimized").yes("Value")
	case p.has("EnaSupport"):
		i.ENA = p.sub("EnaSupport").yes("Value")
	case p.has("DisableApiTermination"):
		i.NoTermination = p.sub("DisableApiTermination").yes("Value")
	case p.has("DisableApiStop"):
		i.NoStop = p.sub("DisableApiStop").yes("Value")
	case p.has("InstanceInitiatedShutdownBehavior"):
		i.Shutdown = p.sub("InstanceInitiatedShutdownBehavior").str("Value")
	case p.has("Groups"):
		for _, id := range p.texts("Groups") {
			if _, err := c.group(id); err != nil {
				return err
			}
		}
		i.Groups = p.texts("Groups")
		c.s.setPorts(i)
	case p.has("BlockDeviceMappings"):
		return c.changeDisks(i, p.subs("BlockDeviceMappings"))
	default:
		return invalidValue("The sandbox can't change what was asked for: type, userData, ebsOptimized, enaSupport, groups, disableApiTermination, disableApiStop, instanceInitiatedShutdownBehavior and blockDeviceMapping can be.")
	}
	return nil
}

// changeDisks changes which volumes go when the instance does.
func (c *call) changeDisks(i *instance, list []params) error {
	have := map[string]*volume{}
	for _, v := range c.s.attached(i) {
		have[v.Device] = v
	}
	for _, p := range list {
		if have[p.str("DeviceName")] == nil {
			return fail("InvalidInstanceAttributeValue", "No device is currently mapped at %s", p.str("DeviceName"))
		}
	}
	for _, p := range list {
		v := have[p.str("DeviceName")]
		v.Delete = p.sub("Ebs").yes("DeleteOnTermination")
		c.s.volumes.put(v.ID, v)
	}
	return nil
}
