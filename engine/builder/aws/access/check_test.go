package access_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/builder/aws/access"
	"github.com/gildhq/gild/engine/sandbox"
	"github.com/gildhq/gild/engine/spec"
)

// overSSM has all that the sandbox knows of: keys by id and alias, a profile, spot, copies.
const overSSM = `gild: 1
name: web
release: 1.0.0
base: {ami: {owner: "136693071363", name: "debian-12-*"}}
builders:
  aws:
    region: eu-west-1
    instance: {types: [t3.large], spot: prefer, profile: builder}
    volume: {kms-key: alias/build}
    volumes: [{device: /dev/sdf, size: 1GiB, kms-key: KEY}]
    image: {boot-mode: uefi}
publish: {name: web, deprecate-after: 90d}
copy: {regions: [us-east-1]}
tests: [{uses: boot}]
`

const trust = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}`

// allow gives the key of the tests a document and what simulating takes.
func (w *world) allow(t *testing.T, d access.Document) {
	t.Helper()
	d.Statement = append(slices.Clone(d.Statement), access.Statement{
		Sid: "Simulate", Effect: "Allow", Action: []string{"iam:SimulatePrincipalPolicy"}, Resource: []string{"*"},
	})
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.SetPolicy(ciKey, string(text)); err != nil {
		t.Fatal(err)
	}
}

// furnish makes the key, its alias and the profile that overSSM names, and returns the
// pipeline with that profile and with one that is made.
func (w *world) furnish(t *testing.T) []*spec.Pipeline {
	t.Helper()
	ctx := t.Context()
	c, err := clients(w.address, sandbox.DefaultKey, sandbox.DefaultKey)(ctx, "eu-west-1")
	if err != nil {
		t.Fatal(err)
	}
	keys, roles := c.KMS.(*kms.Client), c.IAM.(*iam.Client)
	key, err := keys.CreateKey(ctx, &kms.CreateKeyInput{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keys.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: aws.String("alias/build"), TargetKeyId: key.KeyMetadata.KeyId}); err != nil {
		t.Fatal(err)
	}
	// The role has another name than its profile, so only asking tells which may be passed.
	name, role := aws.String("builder"), aws.String("image-builder")
	if _, err := roles.CreateRole(ctx, &iam.CreateRoleInput{RoleName: role, Path: aws.String("/ci/"), AssumeRolePolicyDocument: aws.String(trust)}); err != nil {
		t.Fatal(err)
	}
	if _, err := roles.CreateInstanceProfile(ctx, &iam.CreateInstanceProfileInput{InstanceProfileName: name}); err != nil {
		t.Fatal(err)
	}
	if _, err := roles.AddRoleToInstanceProfile(ctx, &iam.AddRoleToInstanceProfileInput{InstanceProfileName: name, RoleName: role}); err != nil {
		t.Fatal(err)
	}
	given := strings.Replace(overSSM, "KEY", *key.KeyMetadata.KeyId, 1)
	made := strings.Replace(given, ", profile: builder", "", 1)
	return append(parse(t, "given.yaml", given), parse(t, "made.yaml", made)...)
}

// TestCheckOnSandbox looks with the policy alone, and then without each of its statements:
// the look itself works with it, and finds what is missing.
func TestCheckOnSandbox(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pipelines := w.furnish(t)
	cloud := access.Cloud{Region: clients(w.address, ciKey, sandbox.DefaultKey), Base: base(w.base)}
	known := access.Known{Account: account, Roles: map[string]string{"builder": "arn:aws:iam::" + account + ":role/ci/image-builder"}}
	for _, p := range pipelines {
		doc := known.Policy(p)
		w.allow(t, doc)
		for _, f := range access.Check(t.Context(), cloud, p) {
			if !f.OK {
				t.Errorf("%s: with the policy: %s: %s", p.File, f.Name, f.Detail)
			}
		}
		for i, s := range doc.Statement {
			w.allow(t, access.Document{Version: doc.Version, Statement: slices.Delete(slices.Clone(doc.Statement), i, i+1)})
			var lacking []string
			for _, f := range access.Check(t.Context(), cloud, p) {
				for _, m := range f.Statements {
					lacking = append(lacking, m.Sid)
				}
			}
			if want := []string{s.Sid}; s.Sid == "GivenProfile" {
				// Without it the role isn't known, and the one that is guessed can't be passed.
				if d := cmp.Diff([]string{s.Sid, "PassRole"}, lacking); d != "" {
					t.Errorf("%s: without %s (-want +got):\n%s", p.File, s.Sid, d)
				}
			} else if d := cmp.Diff(want, lacking); d != "" {
				t.Errorf("%s: without %s (-want +got):\n%s", p.File, s.Sid, d)
			}
		}
	}
}

// TestNothingIsMade holds a look against the calls that it makes.
func TestNothingIsMade(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pipelines := w.furnish(t)
	before := len(w.Calls())
	cloud := access.Cloud{Region: clients(w.address, ciKey, sandbox.DefaultKey), Base: base(w.base)}
	for _, p := range pipelines {
		access.Check(t.Context(), cloud, p)
	}
	for _, c := range w.Calls()[before:] {
		looks := slices.ContainsFunc([]string{"Describe", "Get", "Simulate"}, func(verb string) bool { return strings.HasPrefix(c.Action, verb) })
		if !looks && c.Params["DryRun"] != true {
			t.Errorf("looking called %s:%s", c.Service, c.Action)
		}
	}
}
