package access

import (
	"maps"
	"slices"
	"strings"

	"github.com/gildhq/gild/engine/builder/aws/publisher"
	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/spec"
)

// set is a set of strings.
type set map[string]bool

func (s set) add(values ...string) {
	for _, v := range values {
		s[v] = true
	}
}

func (s set) sorted() []string { return slices.Sorted(maps.Keys(s)) }

// want is all that decides over a policy, of one or more pipelines.
type want struct {
	known Known
	names set
	// home are the regions that are built in, copy those that are copied to.
	home, copy, partitions set
	types                  set
	// anyOwner: some base doesn't say who owns it.
	owners, amis, parameters set
	anyOwner                 bool
	// onOurs: some base is the image of another pipeline.
	onOurs                bool
	subnets, vpcs, groups set
	anySubnet, anyVPC     bool
	madeGroup             bool
	by                    set
	// users of Instance Connect; anyUser when some pipeline doesn't name one.
	users                                                       set
	anyUser                                                     bool
	profiles                                                    set
	madeProfile                                                 bool
	spot, register, imdsv2, enabled, deprecate, keyPair, portIn bool
	keys                                                        []keyRef
}

// keyRef is a KMS key that a pipeline names.
type keyRef struct {
	// ref is an id, an ARN or an alias; region is where it is used.
	ref, region string
	pos         diag.Pos
}

// alias returns the key's alias as "alias/…", or empty when it is named otherwise.
func (k keyRef) alias() string {
	if strings.HasPrefix(k.ref, "alias/") {
		return k.ref
	}
	if _, name, ok := strings.Cut(k.ref, ":alias/"); ok {
		return "alias/" + name
	}
	return ""
}

// keysOf lists the keys of a pipeline in the order of the file.
func keysOf(p *spec.Pipeline) []keyRef {
	var keys []keyRef
	for _, v := range append([]spec.AWSVolume{p.AWS.Volume}, p.AWS.Volumes...) {
		if v.KMSKey != "" {
			keys = append(keys, keyRef{v.KMSKey, p.AWS.Region, or(v.Pos, p.AWS.Pos)})
		}
	}
	if p.Copy != nil && p.Copy.KMSKey != "" {
		for _, region := range p.Copy.Regions {
			keys = append(keys, keyRef{p.Copy.KMSKey, region, or(p.Copy.EncryptPos, p.Copy.Pos)})
		}
	}
	return keys
}

// gather collects what the pipelines want. Those without builders.aws want nothing.
func gather(known Known, pipelines []*spec.Pipeline) *want {
	w := &want{
		known: known, names: set{}, home: set{}, copy: set{}, partitions: set{}, types: set{}, owners: set{}, amis: set{}, parameters: set{},
		subnets: set{}, vpcs: set{}, groups: set{}, by: set{}, users: set{}, profiles: set{},
	}
	for _, p := range pipelines {
		if p.AWS == nil {
			continue
		}
		w.names.add(p.Name)
		w.home.add(p.AWS.Region)
		w.partitions.add(publisher.Partition(p.AWS.Region))
		if p.Copy != nil {
			w.copy.add(p.Copy.Regions...)
		}
		w.imdsv2 = w.imdsv2 || p.AWS.Image.IMDSv2
		w.enabled = w.enabled || p.AWS.Image.ENA
		w.register = w.register || p.AWS.Image.TPM != "" || p.AWS.Image.BootMode != ""
		w.deprecate = w.deprecate || p.Publish != nil && p.Publish.DeprecateAfter > 0
		w.keys = append(w.keys, keysOf(p)...)
		w.base(p)
		w.instance(p.AWS.Instance)
		w.connect(p.AWS)
	}
	return w
}

func (w *want) base(p *spec.Pipeline) {
	switch b := p.Base; {
	case b.Image != nil:
		w.onOurs = true
	case b.AMI != nil && b.AMI.ID != "":
		w.amis.add(b.AMI.ID)
	case b.AMI != nil:
		w.owners.add(ownerValues(b.AMI.Owner)...)
	case b.SSM != "":
		w.parameters.add(b.SSM)
		w.anyOwner = true
	case b.Known != nil:
		pub, err := publisher.Find(*b.Known, p.AWS.Region, p.Arch)
		if err != nil {
			return // the builder can't resolve the base either, and says why
		}
		w.owners.add(ownerValues(pub.Owner)...)
		if pub.Parameter != "" {
			w.parameters.add(pub.Parameter)
		}
	}
}

func (w *want) instance(i spec.AWSInstance) {
	w.types.add(i.Types...)
	w.spot = w.spot || i.Spot != "never"
	switch {
	case i.Subnet != "":
		w.subnets.add(i.Subnet)
	case i.VPC != "":
		w.vpcs.add(i.VPC)
		w.anySubnet = true
	default:
		w.anySubnet, w.anyVPC = true, true
	}
	w.groups.add(i.SecurityGroups...)
	w.madeGroup = w.madeGroup || len(i.SecurityGroups) == 0
	if i.Profile != "" {
		w.profiles.add(i.Profile)
	}
}

func (w *want) connect(a *spec.AWSBuilder) {
	w.by.add(a.Connect.By)
	switch a.Connect.By {
	case "ssm":
		w.madeProfile = w.madeProfile || a.Instance.Profile == ""
	case "instance-connect":
		if a.Connect.User != "" {
			w.users.add(a.Connect.User)
		}
		w.anyUser = w.anyUser || a.Connect.User == ""
	}
	w.keyPair = w.keyPair || a.Connect.By == "ssh"
	w.portIn = w.portIn || a.Connect.By != "ssm" && len(a.Instance.SecurityGroups) == 0
}

func (w *want) spots() bool          { return w.spot }
func (w *want) fromOwner() bool      { return w.anyOwner || len(w.owners) > 0 }
func (w *want) fromAMI() bool        { return len(w.amis) > 0 }
func (w *want) makesGroup() bool     { return w.madeGroup }
func (w *want) opensPort() bool      { return w.portIn }
func (w *want) launchesWith() bool   { return w.madeGroup || w.keyPair }
func (w *want) overSSH() bool        { return w.keyPair }
func (w *want) overSSM() bool        { return w.by["ssm"] }
func (w *want) overEIC() bool        { return w.by["instance-connect"] }
func (w *want) readsParameter() bool { return len(w.parameters) > 0 }
func (w *want) makesProfile() bool   { return w.madeProfile }
func (w *want) givenProfile() bool   { return len(w.profiles) > 0 }
func (w *want) passesRole() bool     { return w.madeProfile || len(w.profiles) > 0 }
func (w *want) registers() bool      { return w.register }
func (w *want) ena() bool            { return w.enabled }
func (w *want) imds() bool           { return w.imdsv2 }
func (w *want) deprecates() bool     { return w.deprecate }
func (w *want) copied() bool         { return len(w.copy) > 0 }
func (w *want) keysByID() bool       { return len(w.keyARNs(false)) > 0 }
func (w *want) keysByAlias() bool    { return len(w.aliases()) > 0 }

// aliases of the keys that are named by one.
func (w *want) aliases() []string {
	names := set{}
	for _, k := range w.keys {
		if a := k.alias(); a != "" {
			names.add(a)
		}
	}
	return names.sorted()
}

// keyRegions are the regions in which EC2 may use the keys. What a copy is made of is read
// with the source's key, and which of the two regions' EC2 asks for it isn't documented.
func (w *want) keyRegions() []string {
	regions := set{}
	regions.add(w.everywhere()...)
	for _, k := range w.keys {
		regions.add(k.region)
	}
	return regions.sorted()
}

// ownerValues are what ec2:Owner may be for an owner of the language. Publishers that AWS
// has verified appear under the alias "amazon" too.
func ownerValues(owner string) []string {
	switch owner {
	case "":
		return nil
	case "self":
		return []string{"${aws:PrincipalAccount}"}
	case "amazon", "aws-marketplace":
		return []string{owner}
	}
	return []string{owner, "amazon"}
}

// sorted returns the values in order, each once.
func sorted(values []string) []string {
	values = slices.Clone(values)
	slices.Sort(values)
	return slices.Compact(values)
}

// keys of a map, in order.
func keys[M ~map[string]V, V any](m M) []string { return slices.Sorted(maps.Keys(m)) }
