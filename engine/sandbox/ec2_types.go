package sandbox

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// instanceType is a machine size.
type instanceType struct {
	name      string
	cpus      int64
	memoryMiB int64
	family
}

// family is what the sizes of one family have in common.
type family struct {
	name      string
	arch      string // "x86_64" or "arm64"
	xen       bool   // before Nitro: no UEFI, and images without ENA run
	burst     bool
	perCPUGiB int64
	// cents is the on-demand price of a vCPU hour, roughly, in hundredths of a cent.
	price int64
}

var families = []family{
	{"t2", "x86_64", true, true, 4, 120}, {"t3", "x86_64", false, true, 4, 110}, {"t3a", "x86_64", false, true, 4, 100},
	{"t4g", "arm64", false, true, 4, 90},
	{"m5", "x86_64", false, false, 4, 480}, {"m6i", "x86_64", false, false, 4, 480}, {"m6a", "x86_64", false, false, 4, 430},
	{"m7i", "x86_64", false, false, 4, 500}, {"m6g", "arm64", false, false, 4, 390}, {"m7g", "arm64", false, false, 4, 410},
	{"c5", "x86_64", false, false, 2, 430}, {"c6i", "x86_64", false, false, 2, 430}, {"c6a", "x86_64", false, false, 2, 380},
	{"c7i", "x86_64", false, false, 2, 450}, {"c6g", "arm64", false, false, 2, 340}, {"c7g", "arm64", false, false, 2, 360},
	{"r5", "x86_64", false, false, 8, 630}, {"r6i", "x86_64", false, false, 8, 630}, {"r6g", "arm64", false, false, 8, 500},
}

// allTypes lists the types the sandbox knows, sorted by name.
func allTypes() []instanceType {
	var out []instanceType
	for _, f := range families {
		if f.burst {
			for _, s := range []struct {
				size string
				cpus int64
				mib  int64
			}{{"nano", 2, 512}, {"micro", 2, 1024}, {"small", 2, 2048}, {"medium", 2, 4096}, {"large", 2, 8192}, {"xlarge", 4, 16384}, {"2xlarge", 8, 32768}} {
				if f.xen && s.mib <= 2048 {
					s.cpus = 1
				}
				out = append(out, instanceType{f.name + "." + s.size, s.cpus, s.mib, f})
			}
			continue
		}
		sizes := []struct {
			size string
			cpus int64
		}{{"large", 2}, {"xlarge", 4}, {"2xlarge", 8}, {"4xlarge", 16}}
		if f.arch == "arm64" {
			sizes = append(sizes, struct {
				size string
				cpus int64
			}{"medium", 1})
		}
		for _, s := range sizes {
			out = append(out, instanceType{f.name + "." + s.size, s.cpus, s.cpus * f.perCPUGiB * 1024, f})
		}
	}
	slices.SortFunc(out, func(a, b instanceType) int { return cmp.Compare(a.name, b.name) })
	return out
}

func findType(name string) (instanceType, bool) {
	for _, t := range allTypes() {
		if t.name == name {
			return t, true
		}
	}
	return instanceType{}, false
}

func (t instanceType) bootModes() []string {
	switch {
	case t.arch == "arm64":
		return []string{"uefi"}
	case t.xen:
		return []string{"legacy-bios"}
	}
	return []string{"legacy-bios", "uefi"}
}

func (t instanceType) hypervisor() string {
	if t.xen {
		return "xen"
	}
	return "nitro"
}

func (t instanceType) arches() []string {
	if t.xen {
		return []string{"i386", "x86_64"}
	}
	return []string{t.arch}
}

// offered tells in which zones a type is: of each family but t3 and t4g one zone of a region
// has none, as on AWS, so that who doesn't try another zone finds out.
func (t instanceType) offered(z zone) bool {
	if t.family.name == "t3" || t.family.name == "t4g" {
		return true
	}
	return !strings.HasSuffix(z.name, string(rune('a'+len(t.family.name)%2+1)))
}

// spotPrice and price are dollars for an hour.
func (t instanceType) spotPrice() string { return fmt.Sprintf("%.6f", t.hourly()*0.35) }

func (t instanceType) hourly() float64 {
	return float64(t.price) / 10_000 * float64(t.cpus)
}

func typeGetters() getters[instanceType] {
	return getters[instanceType]{
		"instance-type":                         one(func(t *instanceType) string { return t.name }),
		"hypervisor":                            one(func(t *instanceType) string { return t.hypervisor() }),
		"current-generation":                    flag(func(t *instanceType) bool { return !t.xen }),
		"bare-metal":                            flag(func(*instanceType) bool { return false }),
		"burstable-performance-supported":       flag(func(t *instanceType) bool { return t.burst }),
		"vcpu-info.default-vcpus":               one(func(t *instanceType) string { return number(t.cpus) }),
		"memory-info.size-in-mib":               one(func(t *instanceType) string { return number(t.memoryMiB) }),
		"supported-boot-mode":                   func(_ *call, t *instanceType) []string { return t.bootModes() },
		"supported-usage-class":                 func(*call, *instanceType) []string { return []string{"on-demand", "spot"} },
		"supported-virtualization-type":         func(*call, *instanceType) []string { return []string{"hvm"} },
		"supported-root-device-type":            func(*call, *instanceType) []string { return []string{"ebs"} },
		"processor-info.supported-architecture": func(_ *call, t *instanceType) []string { return t.arches() },
		"network-info.ena-support":              one(func(t *instanceType) string { return t.enaSupport() }),
	}
}

func (t instanceType) enaSupport() string {
	if t.xen {
		return "unsupported"
	}
	return "required"
}

func describeInstanceTypes(c *call) (answer, error) {
	at, err := c.page(5, 100, "InstanceTypes")
	if err != nil {
		return nil, err
	}
	match, err := matcher(c, typeGetters(), nil)
	if err != nil {
		return nil, err
	}
	asked := c.p.texts("InstanceTypes")
	for _, name := range asked {
		if _, ok := findType(name); !ok {
			return nil, fail("InvalidInstanceType", "The following supplied instance types do not exist: [%s]", name)
		}
	}
	var found []instanceType
	for _, t := range allTypes() {
		if (len(asked) == 0 || slices.Contains(asked, t.name)) && match(&t) {
			found = append(found, t)
		}
	}
	found, token := cut(c, at, found, func(t instanceType) string { return t.name })
	out := answer{"InstanceTypes": list(found, instanceType.answer)}
	set(out, "NextToken", token)
	return out, nil
}

func (t instanceType) answer() any {
	tpm := "supported"
	if t.xen || t.arch == "arm64" {
		tpm = "unsupported"
	}
	a := answer{"InstanceType": t.name, "CurrentGeneration": !t.xen, "FreeTierEligible": t.name == "t2.micro" || t.name == "t3.micro",
		"SupportedUsageClasses": []string{"on-demand", "spot"}, "SupportedRootDeviceTypes": []string{"ebs"},
		"SupportedVirtualizationTypes": []string{"hvm"}, "BareMetal": false, "Hypervisor": t.hypervisor(),
		"ProcessorInfo":            answer{"SupportedArchitectures": t.arches(), "SustainedClockSpeedInGhz": 2.5},
		"VCpuInfo":                 answer{"DefaultVCpus": t.cpus, "DefaultCores": max(1, t.cpus/2), "DefaultThreadsPerCore": min(2, t.cpus)},
		"MemoryInfo":               answer{"SizeInMiB": t.memoryMiB},
		"InstanceStorageSupported": false,
		"EbsInfo":                  answer{"EbsOptimizedSupport": "default", "EncryptionSupport": "supported", "NvmeSupport": map[bool]string{true: "unsupported", false: "required"}[t.xen]},
		"NetworkInfo": answer{"NetworkPerformance": "Up to 5 Gigabit", "MaximumNetworkInterfaces": 3, "MaximumNetworkCards": 1,
			"DefaultNetworkCardIndex": 0, "Ipv4AddressesPerInterface": 4, "Ipv6AddressesPerInterface": 4, "Ipv6Supported": true,
			"EnaSupport": t.enaSupport(), "EfaSupported": false, "EncryptionInTransitSupported": !t.xen},
		"HibernationSupported": false, "BurstablePerformanceSupported": t.burst, "DedicatedHostsSupported": false,
		"AutoRecoverySupported": true, "SupportedBootModes": t.bootModes(), "NitroTpmSupport": tpm}
	if tpm == "supported" {
		a["NitroTpmInfo"] = answer{"SupportedVersions": []string{"2.0"}}
	}
	return a
}

// offering is one type in one place.
type offering struct{ typ, place, kind string }

func describeInstanceTypeOfferings(c *call) (answer, error) {
	at, err := c.page(5, 1000, "")
	if err != nil {
		return nil, err
	}
	match, err := matcher(c, getters[offering]{
		"instance-type": one(func(o *offering) string { return o.typ }),
		"location":      one(func(o *offering) string { return o.place }),
	}, nil)
	if err != nil {
		return nil, err
	}
	r, _ := findRegion(c.region)
	kind := c.p.or("LocationType", "region")
	var found []offering
	for _, t := range allTypes() {
		places := []string{c.region}
		if kind != "region" {
			places = nil
			for _, z := range r.allZones() {
				if t.offered(z) {
					places = append(places, map[string]string{"availability-zone": z.name, "availability-zone-id": z.id}[kind])
				}
			}
		}
		for _, place := range places {
			o := offering{t.name, place, kind}
			if match(&o) {
				found = append(found, o)
			}
		}
	}
	id := func(o offering) string { return o.typ + " " + o.place }
	slices.SortFunc(found, func(a, b offering) int { return cmp.Compare(id(a), id(b)) })
	found, token := cut(c, at, found, id)
	out := answer{"InstanceTypeOfferings": list(found, func(o offering) any {
		return answer{"InstanceType": o.typ, "Location": o.place, "LocationType": o.kind}
	})}
	set(out, "NextToken", token)
	return out, nil
}
