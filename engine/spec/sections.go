package spec

import (
	"slices"
	"strings"
	"time"

	"github.com/gildhq/gild/engine/diag"

	"github.com/gildhq/gild/engine/step"
)

const defaultDiskSize = 2 << 30

func (r *resolver) resolveSecrets() {
	r.secrets = map[string]Secret{}
	declared := r.root.get("secrets")
	if declared == nil {
		return
	}
	for _, name := range declared.names {
		n := declared.fields[name]
		for _, from := range n.names {
			r.secrets[name] = Secret{Source: from, Ref: n.fields[from].text(), Argv: n.fields[from].texts(), Pos: r.source.name(n)}
		}
	}
}

func (r *resolver) builder(root *node) string {
	switch {
	case r.in.Builder != "" && r.in.Builder != "local" && r.in.Builder != "aws":
		r.diags.Addf(r.source.name(root.get("builder")), "bad-value", didYouMean(r.in.Builder, []string{"local", "aws"}, ""),
			"--builder %s: builders are local and aws", r.in.Builder)
	case r.in.Builder != "":
		return r.in.Builder
	case root.get("builder").text() != "":
		return root.get("builder").text()
	}
	return "local"
}

func (r *resolver) local(root *node) LocalBuilder {
	n := root.get("builders", "local")
	b := LocalBuilder{
		DiskSize: defaultDiskSize,
		Formats:  orDefault(n.get("formats").texts(), "raw", "qcow2"),
		Firmware: orDefault(n.get("firmware").texts(), "bios", "uefi"),
	}
	if n != nil {
		b.Pos = r.source.name(n)
	}
	size := n.get("disk", "size")
	if bytes, err := ParseSize(size.text()); err == nil {
		b.DiskSize = bytes
		if bytes%(1<<20) != 0 || bytes == 0 {
			r.diags.Addf(r.source.value(size), "bad-size", "write it in MiB or GiB", "the disk size %q is not a whole number of MiB", size.text())
		}
	}
	return b
}

func orDefault(list []string, otherwise ...string) []string {
	if len(list) == 0 {
		return otherwise
	}
	return list
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// suites are the code names of the distributions' releases, by number.
var suites = map[string]map[string]string{
	"debian": {"11": "bullseye", "12": "bookworm", "13": "trixie"},
	"ubuntu": {"22.04": "jammy", "24.04": "noble"},
}

func (r *resolver) base(root *node) Base {
	n := root.get("base")
	if n == nil {
		return Base{}
	}
	b := Base{Pos: r.source.value(n)}
	if n.fields == nil {
		b.Known, b.Distro = r.shortBase(n)
		return b
	}
	for _, form := range n.names {
		v := n.fields[form]
		switch form {
		case "debian", "ubuntu":
			b.Distro = r.distro(form, v)
		case "image":
			name, channel, _ := strings.Cut(v.text(), "@")
			b.Image = &ImageBase{Name: name, Channel: channel}
		case "ami":
			b.AMI = r.ami(v)
		case "ssm":
			b.SSM = v.text()
		default:
			b.Other = form
			r.checkWhere(form, v)
		}
	}
	return b
}

// checkWhere checks that a disk or rootfs base says where it is, once.
func (r *resolver) checkWhere(form string, n *node) {
	if form != "disk" && form != "rootfs" {
		return
	}
	address, path := n.get("url"), n.get("path")
	switch {
	case n.fields == nil:
	case address == nil && path == nil:
		r.diags.Addf(r.source.name(n), "missing-key", "", "one of %q or %q is needed", "url", "path")
	case address != nil && path != nil:
		r.diags.Addf(r.source.name(path), "conflicting-keys", "remove one of the two", "only one of %q and %q can be given", "url", "path")
	}
}

// ami reads a base that is an AMI: the one with an id, or the newest with a name.
func (r *resolver) ami(n *node) *AMIBase {
	id, name := n.get("id"), n.get("name")
	switch {
	case n.fields == nil:
	case id == nil && name == nil:
		r.diags.Addf(r.source.name(n), "missing-key", "", "one of %q or %q is needed", "id", "name")
	case id != nil && name != nil:
		r.diags.Addf(r.source.name(name), "conflicting-keys", "remove one of the two", "only one of %q and %q can be given", "id", "name")
	}
	return &AMIBase{ID: id.text(), Owner: n.get("owner").text(), Name: name.text(), Deprecated: n.get("deprecated").truth(false)}
}

// published are the systems without an archive that gild could use, by publisher.
var published = map[string][]string{
	"amazon-linux": {"2", "2023"},
	"rhel":         {"8", "9", "10"},
	"rocky":        {"8", "9", "10"},
	"alma":         {"8", "9", "10"},
}

// shortBase reads a base such as debian/12, ubuntu/noble or rocky/9.
func (r *resolver) shortBase(n *node) (*KnownBase, *DistroBase) {
	text := n.text()
	name, release, _ := strings.Cut(text, "/")
	var known []string
	for _, d := range []string{"debian", "ubuntu"} {
		for _, number := range sortedKeys(suites[d]) {
			known = append(known, d+"/"+number)
		}
	}
	for _, publisher := range sortedKeys(published) {
		for _, version := range published[publisher] {
			if name == publisher && release == version {
				return &KnownBase{Name: name, Version: version}, nil
			}
			known = append(known, publisher+"/"+version)
		}
	}
	for number, suite := range suites[name] {
		if release == number || release == suite {
			return &KnownBase{Name: name, Version: number}, &DistroBase{Distro: name, Suite: suite, Variant: "minbase", Bootable: true}
		}
	}
	if text != "" {
		hint := didYouMean(text, known, "for another release write {debian: {suite: …}}")
		if same := slices.DeleteFunc(slices.Clone(known), func(k string) bool { return !strings.HasPrefix(k, name+"/") }); len(same) > 0 {
			known = same
		}
		r.diags.Addf(r.source.value(n), "unknown-base", hint, "%q is not one of %s", text, strings.Join(known, ", "))
	}
	return nil, nil
}

func (r *resolver) distro(distro string, n *node) *DistroBase {
	suite := n.get("suite").text()
	if name, ok := suites[distro][suite]; ok {
		suite = name
	}
	return &DistroBase{
		Distro: distro, Suite: suite,
		Variant:  orDefault(nonEmpty(n.get("variant").text()), "minbase")[0],
		Snapshot: n.get("snapshot").text(),
		Mirror:   n.get("mirror").text(),
		Packages: n.get("packages").texts(),
		Bootable: n.get("bootable").truth(true),
	}
}

func (r *resolver) harden(root *node) *Harden {
	n := root.get("harden")
	if n == nil {
		return nil
	}
	h := &Harden{Profile: n.get("profile").text(), Pos: r.source.name(n)}
	if except := n.get("except"); except != nil {
		for _, item := range except.items {
			until, err := parseDate(item.get("until").text())
			if err != nil {
				// The schema's format has reported it.
				until = time.Time{}
			}
			h.Except = append(h.Except, Exception{
				Control: item.get("control").text(), Reason: item.get("reason").text(), Until: until, Pos: r.source.value(item),
			})
		}
	}
	return h
}

func (r *resolver) publish(root *node, c cell) *Publish {
	n := root.get("publish")
	if n == nil {
		return nil
	}
	p := &Publish{
		Name:           n.get("name").text(),
		Channel:        n.get("channel").text(),
		Tags:           map[string]string{},
		DeprecateAfter: duration(n.get("deprecate-after")),
		Pos:            r.source.name(n),
	}
	if n.get("name") == nil {
		p.Name = root.get("name").text() + "-" + root.get("release").text() + c.suffix()
	}
	if tags := n.get("tags"); tags != nil {
		for _, name := range tags.names {
			p.Tags[name] = tags.fields[name].text()
		}
	}
	if share := n.get("share"); share != nil {
		p.Share = &Share{
			Accounts: share.get("accounts").texts(), Organizations: share.get("organizations").texts(),
			Public: share.get("public").truth(false), Pos: r.source.name(share),
		}
	}
	return p
}

func (r *resolver) copySection(root *node) *Copy {
	n := root.get("copy")
	if n == nil {
		return nil
	}
	c := &Copy{Regions: n.get("regions").texts(), KMSKey: n.get("encrypt", "kms-key").text(), Pos: r.source.name(n)}
	if encrypt := n.get("encrypt"); encrypt != nil {
		c.EncryptPos = r.source.name(encrypt)
	}
	return c
}

func (r *resolver) retain(root *node) *Retain {
	n := root.get("retain")
	if n == nil {
		return nil
	}
	rule := &Retain{
		Keep: n.get("keep").integer(0), MaxAge: duration(n.get("max-age")), MinAge: duration(n.get("min-age")), Pos: r.source.name(n),
	}
	if rule.MaxAge != 0 && rule.MinAge > rule.MaxAge {
		r.diags.Addf(r.source.value(n.get("min-age")), "out-of-range", "", "min-age %s is longer than max-age %s",
			n.get("min-age").text(), n.get("max-age").text())
	}
	return rule
}

// duration reads a duration that the schema's format has checked; 0 for none.
func duration(n *node) time.Duration {
	d, err := step.ParseDuration(n.text())
	if err != nil {
		return 0
	}
	return d
}

// posOf is the place of each item of a list.
func (r *resolver) posOf(n *node) []diag.Pos {
	if n == nil {
		return nil
	}
	var all []diag.Pos
	for _, item := range n.items {
		all = append(all, r.source.value(item))
	}
	return all
}
