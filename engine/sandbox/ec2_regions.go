package sandbox

import (
	"fmt"
	"slices"
	"strings"
)

// region of AWS; zones is how many availability zones it has.
type region struct {
	name  string
	zones int
	optIn bool
}

var allRegions = []region{
	{"us-east-1", 6, false}, {"us-east-2", 3, false}, {"us-west-1", 2, false}, {"us-west-2", 4, false},
	{"ca-central-1", 3, false}, {"ca-west-1", 3, true}, {"mx-central-1", 3, true}, {"sa-east-1", 3, false},
	{"eu-central-1", 3, false}, {"eu-central-2", 3, true}, {"eu-west-1", 3, false}, {"eu-west-2", 3, false},
	{"eu-west-3", 3, false}, {"eu-north-1", 3, false}, {"eu-south-1", 3, true}, {"eu-south-2", 3, true},
	{"ap-south-1", 3, false}, {"ap-south-2", 3, true}, {"ap-southeast-1", 3, false}, {"ap-southeast-2", 3, false},
	{"ap-southeast-3", 3, true}, {"ap-southeast-4", 3, true}, {"ap-southeast-5", 3, true}, {"ap-southeast-7", 3, true},
	{"ap-northeast-1", 3, false}, {"ap-northeast-2", 4, false}, {"ap-northeast-3", 3, false}, {"ap-east-1", 3, true},
	{"ap-east-2", 3, true}, {"me-central-1", 3, true}, {"me-south-1", 3, true}, {"af-south-1", 3, true},
	{"il-central-1", 3, true},
	{"us-gov-east-1", 3, false}, {"us-gov-west-1", 3, false}, {"cn-north-1", 3, false}, {"cn-northwest-1", 3, false},
}

func findRegion(name string) (region, bool) {
	for _, r := range allRegions {
		if r.name == name {
			return r, true
		}
	}
	return region{}, false
}

func validRegion(name string) error {
	if _, ok := findRegion(name); !ok {
		return fail("AuthFailure", "There is no region %q; the sandbox knows those that DescribeRegions lists.", name)
	}
	return nil
}

// partition of a region: "aws", "aws-cn" or "aws-us-gov".
func partition(region string) string {
	switch {
	case strings.HasPrefix(region, "cn-"):
		return "aws-cn"
	case strings.HasPrefix(region, "us-gov-"):
		return "aws-us-gov"
	}
	return "aws"
}

// zone is an availability zone.
type zone struct{ name, id string }

func (r region) allZones() []zone {
	// "ap-southeast-2" gives "apse2".
	parts := strings.Split(r.name, "-")
	short := ""
	for _, p := range parts[:len(parts)-1] {
		switch p {
		case "northeast", "northwest", "southeast", "southwest":
			short += p[:1] + p[5:6]
		case "gov":
			short += "g"
		default:
			short += p[:min(len(p), map[bool]int{true: 2, false: 1}[len(short) == 0])]
		}
	}
	short += parts[len(parts)-1]
	var out []zone
	for i := range r.zones {
		out = append(out, zone{name: r.name + string(rune('a'+i)), id: fmt.Sprintf("%s-az%d", short, i+1)})
	}
	return out
}

func zoneOf(regionName, name string) (zone, bool) {
	r, _ := findRegion(regionName)
	for _, z := range r.allZones() {
		if z.name == name || z.id == name {
			return z, true
		}
	}
	return zone{}, false
}

func describeRegions(c *call) (answer, error) {
	match, err := matcher(c, getters[region]{
		"region-name":   one(func(r *region) string { return r.name }),
		"endpoint":      one(func(r *region) string { return r.endpoint() }),
		"opt-in-status": one(func(r *region) string { return r.optInStatus() }),
	}, nil)
	if err != nil {
		return nil, err
	}
	wanted := c.p.texts("RegionNames")
	for _, name := range wanted {
		if r, ok := findRegion(name); !ok || partition(r.name) != partition(c.region) {
			return nil, fail("InvalidParameterValue", "Invalid region names provided: %s", name)
		}
	}
	var out []any
	for _, r := range allRegions {
		if partition(r.name) != partition(c.region) || !match(&r) || len(wanted) > 0 && !slices.Contains(wanted, r.name) {
			continue
		}
		out = append(out, answer{"RegionName": r.name, "Endpoint": r.endpoint(), "OptInStatus": r.optInStatus()})
	}
	return answer{"Regions": out}, nil
}

func (r *region) endpoint() string {
	suffix := "amazonaws.com"
	if partition(r.name) == "aws-cn" {
		suffix += ".cn"
	}
	return "ec2." + r.name + "." + suffix
}

func (r *region) optInStatus() string {
	if r.optIn {
		return "opted-in"
	}
	return "opt-in-not-required"
}

func describeAvailabilityZones(c *call) (answer, error) {
	match, err := matcher(c, getters[zone]{
		"zone-name":     one(func(z *zone) string { return z.name }),
		"zone-id":       one(func(z *zone) string { return z.id }),
		"region-name":   one(func(*zone) string { return c.region }),
		"state":         one(func(*zone) string { return "available" }),
		"zone-type":     one(func(*zone) string { return "availability-zone" }),
		"opt-in-status": one(func(*zone) string { return "opt-in-not-required" }),
		"group-name":    one(func(*zone) string { return c.region }),
	}, nil)
	if err != nil {
		return nil, err
	}
	names, ids := c.p.texts("ZoneNames"), c.p.texts("ZoneIds")
	for _, name := range append(append([]string{}, names...), ids...) {
		if _, ok := zoneOf(c.region, name); !ok {
			return nil, invalidValue("Invalid availability zone: [%s]", name)
		}
	}
	r, _ := findRegion(c.region)
	var out []any
	for _, z := range r.allZones() {
		if !match(&z) || len(names) > 0 && !slices.Contains(names, z.name) || len(ids) > 0 && !slices.Contains(ids, z.id) {
			continue
		}
		out = append(out, answer{"ZoneName": z.name, "ZoneId": z.id, "RegionName": c.region, "State": "available",
			"ZoneType": "availability-zone", "OptInStatus": "opt-in-not-required", "GroupName": c.region,
			"NetworkBorderGroup": c.region, "Messages": []any{}})
	}
	return answer{"AvailabilityZones": out}, nil
}
