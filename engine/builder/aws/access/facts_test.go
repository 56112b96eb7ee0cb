package access

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/gildhq/gild/engine/spec"
)

// everything is a pipeline that has all features together; some of them can't be had in one file.
func everything() []*spec.Pipeline {
	yes := true
	one := func(by, profile string) *spec.Pipeline {
		return &spec.Pipeline{
			Name: "web", Arch: "amd64", Base: spec.Base{Image: &spec.ImageBase{Name: "base"}},
			AWS: &spec.AWSBuilder{
				Region: "eu-west-1", Connect: spec.AWSConnect{By: by, User: "admin"}, Image: spec.AWSImage{TPM: "v2.0", IMDSv2: true, ENA: true},
				Instance: spec.AWSInstance{Types: []string{"c7i.large"}, Spot: "prefer", VPC: "vpc-1", Profile: profile},
				Volume:   spec.AWSVolume{Encrypted: &yes, KMSKey: "alias/build"},
				Volumes:  []spec.AWSVolume{{Device: "/dev/sdf", KMSKey: "1234abcd-12ab-34cd-56ef-1234567890ab"}},
			},
			Publish: &spec.Publish{DeprecateAfter: 1}, Copy: &spec.Copy{Regions: []string{"us-east-1"}, KMSKey: "alias/images"},
		}
	}
	all := []*spec.Pipeline{one("ssm", ""), one("ssh", "builder"), one("instance-connect", "")}
	all[0].Base = spec.Base{AMI: &spec.AMIBase{Owner: "136693071363", Name: "debian-*"}}
	all[1].Base = spec.Base{AMI: &spec.AMIBase{Owner: "self", ID: "ami-1"}}
	all[1].AWS.Instance.SecurityGroups = []string{"sg-1"}
	all[2].AWS.Instance.VPC, all[2].AWS.Instance.Subnet = "", "subnet-1"
	return append(all, func() *spec.Pipeline { p := one("ssm", ""); p.Base = spec.Base{SSM: "/base"}; return p }())
}

// ofRequest are the condition keys that every request has.
var ofRequest = []string{"aws:RequestedRegion"}

// TestFacts holds every statement against what AWS authorizes: each action on a type of the
// statement's resources, each type for one of its actions, and each condition key known to
// all that it is to hold for. A key that AWS doesn't set would never match, and deny.
func TestFacts(t *testing.T) {
	t.Parallel()
	seen := set{}
	for _, s := range Policy(everything()...).Statement {
		seen.add(s.Sid)
		types := set{}
		for _, r := range s.Resource {
			if r != "*" {
				types.add(typeOf(r))
			}
		}
		used := set{}
		for _, action := range s.Action {
			known, ok := resourceTypes()[action]
			if !ok {
				t.Errorf("%s: the facts don't know %s", s.Sid, action)
				continue
			}
			on := 0
			for kind, keys := range known {
				if !types[kind] {
					continue
				}
				on++
				used.add(kind)
				checkKeys(t, s, action, kind, keys)
			}
			if on == 0 && (len(known) > 0 || len(types) > 0) {
				t.Errorf("%s: AWS authorizes %s on %q, and the statement has %q", s.Sid, action, keys(known), types.sorted())
			}
		}
		for kind := range types {
			if !used[kind] {
				t.Errorf("%s: no action of %q is authorized on %s", s.Sid, s.Action, kind)
			}
		}
	}
	for _, r := range table() {
		if !seen[r.sid] {
			t.Errorf("the statement %s of the table isn't in a policy with everything", r.sid)
		}
	}
}

func checkKeys(t *testing.T, s Statement, action, kind string, known []string) {
	t.Helper()
	for _, byKey := range s.Condition {
		for key := range byKey {
			if slices.Contains(ofRequest, key) || slices.Contains(known, key) {
				continue
			}
			// Operators with IfExists hold without the key.
			if _, ok := s.Condition["BoolIfExists"][key]; ok {
				continue
			}
			// What makes a thing has no tag of it yet, and is meant to be allowed elsewhere.
			if strings.HasPrefix(key, "ec2:ResourceTag/") && slices.Contains(resourceTypes()[action][kind], "aws:RequestTag/"+RunTag) {
				continue
			}
			t.Errorf("%s: AWS doesn't set %s when it authorizes %s on %s: the statement never holds", s.Sid, key, action, kind)
		}
	}
}

// TestUsed keeps facts that nothing uses away.
func TestUsed(t *testing.T) {
	t.Parallel()
	var used []string
	for _, r := range table() {
		used = append(used, r.actions...)
	}
	for action := range resourceTypes() {
		if !slices.Contains(used, action) {
			t.Errorf("nothing needs %s", action)
		}
	}
}

// TestNoEscape holds the policy against ways to get more than it gives.
func TestNoEscape(t *testing.T) {
	t.Parallel()
	reads := func(action string) bool {
		_, name, _ := strings.Cut(action, ":")
		for _, prefix := range []string{"Describe", "List", "Get"} {
			if strings.HasPrefix(name, prefix) {
				return true
			}
		}
		return action == "ssm:CancelCommand"
	}
	for _, s := range Policy(everything()...).Statement {
		conditions := set{}
		for _, byKey := range s.Condition {
			conditions.add(keys(byKey)...)
		}
		for _, action := range s.Action {
			if strings.Contains(action, "*") {
				t.Errorf("%s: %s is more than one action", s.Sid, action)
			}
			if slices.Contains(s.Resource, "*") && !reads(action) {
				t.Errorf("%s: %s on everything", s.Sid, action)
			}
			switch action {
			case "iam:PassRole":
				if !conditions["iam:PassedToService"] {
					t.Errorf("%s: roles can be passed to any service", s.Sid)
				}
			case "iam:AttachRolePolicy":
				if !conditions["iam:PolicyARN"] {
					t.Errorf("%s: a role can be given any policy", s.Sid)
				}
			case "ec2:TerminateInstances", "ec2:DeregisterImage", "ec2:DeleteSnapshot", "ec2:DeleteVolume", "ec2:DeleteSecurityGroup",
				"ec2:DeleteKeyPair", "ec2:AuthorizeSecurityGroupIngress", "ec2:StopInstances":
				if !conditions["ec2:ResourceTag/"+PipelineTag] {
					t.Errorf("%s: %s on what isn't ours", s.Sid, action)
				}
			case "ec2:CreateTags":
				if !conditions["ec2:CreateAction"] && !conditions["ec2:ResourceTag/"+PipelineTag] {
					t.Errorf("%s: anything can be tagged as ours", s.Sid)
				}
			case "kms:Decrypt", "kms:CreateGrant":
				if !conditions["kms:ViaService"] {
					t.Errorf("%s: %s outside EC2", s.Sid, action)
				}
			}
		}
	}
}

func TestMatches(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"*", "", true},
		{"*", "arn:x", true},
		{"arn:a", "arn:a", true},
		{"arn:a", "arn:ab", false},
		{"arn:aws:ec2:*:*:instance/*", "arn:aws:ec2:eu-west-1:1:instance/i-1", true},
		{"arn:aws:ec2:*:*:instance/*", "arn:aws:ec2:eu-west-1:1:image/i-1", false},
		{"ab*ba", "aba", false},
		{"a*b*c", "abc", true},
		{"a*b*c", "acb", false},
		{"a*bc*bc", "a-bc", false},
		{"gild-??", "gild-ab", true},
		{"gild-??", "gild-abc", false},
		{"gild-??", "gild-a", false},
		{"a**", "a", true},
		{"", "", true},
		{"", "a", false},
	} {
		if got := matches(c.pattern, c.text); got != c.want {
			t.Errorf("matches(%q, %q) = %v", c.pattern, c.text, got)
		}
	}
}

// TestRefused reads what AWS says of a refusal, plain, decoded by our client, or not at all.
func TestRefused(t *testing.T) {
	t.Parallel()
	const image = "arn:aws:ec2:eu-west-1::image/ami-0a1b2c3d4e5f60718"
	for _, c := range []struct{ text, action, resource string }{
		{"You are not authorized to perform this operation. User: arn:aws:iam::111122223333:user/ci is not authorized to perform: ec2:RunInstances on resource: " + image +
			" because no identity-based policy allows the ec2:RunInstances action.", "ec2:RunInstances", image},
		{"You are not authorized to perform this operation. User: u is not authorized to perform: ec2:CreateTags on resource: " + image + ". Encoded authorization failure message: x", "ec2:CreateTags", image},
		{"EC2 RunInstances in eu-west-1: UnauthorizedOperation: no; allow iam:PassRole on arn:aws:iam::111122223333:role/x to u; gild schema iam prints the least policy",
			"iam:PassRole", "arn:aws:iam::111122223333:role/x"},
		{"EC2 RunInstances in eu-west-1: UnauthorizedOperation: no; allow ec2:RunInstances to these credentials", "ec2:RunInstances", ""},
		{"UnauthorizedOperation: You are not authorized to perform this operation.", "ec2:ImportKeyPair", ""},
	} {
		action, resource := refused(errors.New(c.text), "ec2:ImportKeyPair")
		if action != c.action || resource != c.resource {
			t.Errorf("%q: %s on %s, want %s on %s", c.text, action, resource, c.action, c.resource)
		}
	}
}
