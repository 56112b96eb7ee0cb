package access

import (
	"strings"

	"github.com/gildhq/gild/engine/builder/aws/publisher"
)

// only limits a statement to regions where its resources don't: see [want.arns].
func (w *want) only(regions []string, c Condition) Condition {
	if len(regions) < 2 {
		return c
	}
	return c.and("StringEquals", "aws:RequestedRegion", regions...)
}

// everywhere are all regions.
func (w *want) everywhere() []string {
	all := set{}
	all.add(w.home.sorted()...)
	all.add(w.copy.sorted()...)
	return all.sorted()
}

// account of the resources. A policy of an account gives nothing in others by itself, so *
// is no wider where it isn't known.
func (w *want) account() string {
	if w.known.Account == "" {
		return "*"
	}
	return w.known.Account
}

// ec2 are the ARNs of all resources of some types.
func (w *want) ec2(regions []string, types ...string) []string {
	var all []string
	for _, t := range types {
		account := "*"
		if t == "image" || t == "snapshot" {
			account = "" // they have none in their ARN
		}
		all = append(all, w.arns("ec2", regions, account, t+"/*")...)
	}
	return sorted(all)
}

func (w *want) named(regions []string, account, prefix string, names []string) []string {
	return w.arnsOf("ec2", regions, account, prefix, names)
}

func (w *want) arnsOf(service string, regions []string, account, prefix string, names []string) []string {
	var all []string
	for _, name := range names {
		all = append(all, w.arns(service, regions, account, prefix+name)...)
	}
	return sorted(all)
}

// arns of a resource in regions. More than one region are * here, because quotas count
// characters, and are told apart by a condition: see [want.only].
func (w *want) arns(service string, regions []string, account, resource string) []string {
	region := "*"
	if len(regions) == 1 {
		region = regions[0]
	}
	if account == "*" {
		account = w.account()
	}
	var all []string
	for _, p := range w.partitions.sorted() {
		all = append(all, "arn:"+p+":"+service+":"+region+":"+account+":"+resource)
	}
	return all
}

// madeIAM are the roles or profiles that gild makes.
func (w *want) madeIAM(kind string) []string { return w.iam(kind + MadePath + MadePrefix + "*") }

func (w *want) iam(resource string) []string {
	return w.arns("iam", []string{""}, "*", resource)
}

// services are the names under which a service acts in the partitions.
func (w *want) services(name string) []string {
	names := []string{name + ".amazonaws.com"}
	if w.partitions["aws-cn"] {
		names = append(names, name+".amazonaws.com.cn")
	}
	return names
}

// keyARNs are the keys named by id or ARN, or, by alias, all keys where an alias is used:
// a policy can name a key by its alias only in a condition.
func (w *want) keyARNs(byAlias bool) []string {
	found := set{}
	for _, k := range w.keys {
		owner := "arn:" + publisher.Partition(k.region) + ":kms:" + k.region + ":" + w.account()
		if arn, _, ok := strings.Cut(k.ref, ":alias/"); ok {
			owner = arn
		}
		switch {
		case (k.alias() != "") != byAlias:
		case byAlias:
			found.add(owner + ":key/*")
		case strings.HasPrefix(k.ref, "arn:"):
			found.add(k.ref)
		default:
			found.add(owner + ":key/" + k.ref)
		}
	}
	return found.sorted()
}
