package access_test

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/builder/aws/access"
)

const account = "111122223333"

// fakeIAM answers simulations by a document, read again from its JSON.
type fakeIAM struct {
	allowed []access.Statement
	denied  []string // actions
	sources []string
	fail    error
}

func newFakeIAM(t *testing.T, d access.Document) *fakeIAM {
	t.Helper()
	var read access.Document
	if err := json.Unmarshal(encode(t, d), &read); err != nil {
		t.Fatal(err)
	}
	return &fakeIAM{allowed: read.Statement}
}

func (f *fakeIAM) GetInstanceProfile(_ context.Context, in *iam.GetInstanceProfileInput, _ ...func(*iam.Options)) (*iam.GetInstanceProfileOutput, error) {
	role := iamtypes.Role{Arn: aws.String("arn:aws-us-gov:iam::" + account + ":role/ci/image-builder")}
	return &iam.GetInstanceProfileOutput{InstanceProfile: &iamtypes.InstanceProfile{Roles: []iamtypes.Role{role}}}, nil
}

func (f *fakeIAM) GetRole(_ context.Context, in *iam.GetRoleInput, _ ...func(*iam.Options)) (*iam.GetRoleOutput, error) {
	return &iam.GetRoleOutput{Role: &iamtypes.Role{Arn: aws.String("arn:aws:iam::" + account + ":role/path/" + *in.RoleName)}}, nil
}

func (f *fakeIAM) SimulatePrincipalPolicy(_ context.Context, in *iam.SimulatePrincipalPolicyInput, _ ...func(*iam.Options)) (*iam.SimulatePrincipalPolicyOutput, error) {
	f.sources = append(f.sources, *in.PolicySourceArn)
	if f.fail != nil {
		return nil, f.fail
	}
	out := &iam.SimulatePrincipalPolicyOutput{}
	for _, action := range in.ActionNames {
		r := iamtypes.EvaluationResult{EvalActionName: aws.String(action)}
		for _, resource := range in.ResourceArns {
			r.ResourceSpecificResults = append(r.ResourceSpecificResults, iamtypes.ResourceSpecificResult{
				EvalResourceName: aws.String(resource), EvalResourceDecision: f.decide(action, resource, in.ContextEntries),
			})
		}
		out.EvaluationResults = append(out.EvaluationResults, r)
	}
	return out, nil
}

func (f *fakeIAM) decide(action, resource string, facts []iamtypes.ContextEntry) iamtypes.PolicyEvaluationDecisionType {
	if slices.Contains(f.denied, action) {
		return iamtypes.PolicyEvaluationDecisionTypeExplicitDeny
	}
	for _, s := range f.allowed {
		on := slices.ContainsFunc(s.Resource, func(p string) bool { return like(p, resource) })
		if on && slices.Contains(s.Action, action) && holds(s.Condition, facts) {
			return iamtypes.PolicyEvaluationDecisionTypeAllowed
		}
	}
	return iamtypes.PolicyEvaluationDecisionTypeImplicitDeny
}

// like matches * and ? as IAM does, which lets them stand for slashes too.
func like(pattern, text string) bool {
	flat := strings.NewReplacer("/", "\x00", "[", "\x01")
	ok, err := path.Match(flat.Replace(pattern), flat.Replace(text))
	return ok && err == nil
}

func holds(c access.Condition, facts []iamtypes.ContextEntry) bool {
	for operator, byKey := range c {
		for key, values := range byKey {
			i := slices.IndexFunc(facts, func(e iamtypes.ContextEntry) bool { return *e.ContextKeyName == key })
			if i < 0 {
				if strings.HasSuffix(operator, "IfExists") {
					continue
				}
				return false
			}
			if !slices.ContainsFunc(values, func(v string) bool {
				return like(strings.ReplaceAll(v, "${aws:PrincipalAccount}", account), facts[i].ContextKeyValues[0])
			}) {
				return false
			}
		}
	}
	return true
}

func TestSimulation(t *testing.T) {
	t.Parallel()
	for _, name := range golden {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, p := range pipelines(t, name) {
				doc := access.Policy(p)
				if name == "given" {
					// The profile's role has another name than the profile: only asking tells.
					doc = access.Known{Roles: map[string]string{"builder": "arn:aws-us-gov:iam::" + account + ":role/ci/image-builder"}}.Policy(p)
				}
				for _, f := range access.Permissions(t.Context(), newFakeIAM(t, doc), user, p) {
					if !f.OK {
						t.Errorf("the policy itself isn't enough: %s: %s", f.Name, f.Detail)
					}
				}
				for i, s := range doc.Statement {
					if s.Sid == "LaunchFromOurs" && name == "everything" {
						continue // there LaunchFromBase allows every image
					}
					less := access.Document{Version: doc.Version, Statement: slices.Delete(slices.Clone(doc.Statement), i, i+1)}
					var lacking []string
					for _, f := range access.Permissions(t.Context(), newFakeIAM(t, less), user, p) {
						if f.OK || len(f.Statements) != 1 || f.Pos.Line == 0 {
							t.Fatalf("without %s: %+v", s.Sid, f)
						}
						lacking = append(lacking, f.Statements[0].Sid)
						if d := cmp.Diff(s.Action, f.Statements[0].Action); d != "" {
							t.Errorf("without %s the statement to add (-want +got):\n%s", s.Sid, d)
						}
					}
					if d := cmp.Diff([]string{s.Sid}, lacking); d != "" {
						t.Errorf("without %s (-want +got):\n%s", s.Sid, d)
					}
				}
			}
		})
	}
}

const user = "arn:aws:iam::" + account + ":user/ci"

func TestSimulationTellsDenials(t *testing.T) {
	t.Parallel()
	p := pipelines(t, "ssh")[0]
	api := newFakeIAM(t, access.Policy(p))
	api.denied = []string{"ec2:ImportKeyPair"}
	findings := access.Permissions(t.Context(), api, "arn:aws:sts::"+account+":assumed-role/ci/session", p)
	if len(findings) != 1 {
		t.Fatalf("findings: %+v", findings)
	}
	f := findings[0]
	if f.OK || !strings.Contains(f.Detail, "a policy, boundary or organization denies ec2:ImportKeyPair") || f.Pos.String() != "testdata/ssh.yaml:10:14" {
		t.Errorf("finding at %s: %+v", f.Pos, f)
	}
	if want := "arn:aws:iam::" + account + ":role/path/ci"; api.sources[0] != want {
		t.Errorf("simulated %s, want %s", api.sources[0], want)
	}
}

func TestRootHasAll(t *testing.T) {
	t.Parallel()
	findings := access.Permissions(t.Context(), &fakeIAM{fail: fmt.Errorf("must not be called")}, "arn:aws:iam::"+account+":root", pipelines(t, "ssm")[0])
	if len(findings) != 1 || !findings[0].OK {
		t.Errorf("findings: %+v", findings)
	}
}
