package access_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2instanceconnect"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/builder/aws/access"
	"github.com/gildhq/gild/engine/spec"
	"github.com/gildhq/gild/engine/step"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// pipelines reads the cells of a file of testdata.
func pipelines(t *testing.T, name string) []*spec.Pipeline {
	t.Helper()
	path := filepath.Join("testdata", name+".yaml")
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, path, string(src))
}

func parse(t *testing.T, path, src string) []*spec.Pipeline {
	t.Helper()
	boot := step.Step{Name: "boot", Sections: []step.Section{step.Tests}, Effect: step.Image, Schema: []byte(`{"type": "object"}`)}
	catalog, err := spec.NewCatalog([]step.Step{boot})
	if err != nil {
		t.Fatal(err)
	}
	file, diags := spec.Parse(path, []byte(src), catalog)
	if err := diags.Err(); err != nil {
		t.Fatalf("%v: %v", err, diags)
	}
	all, diags := file.Resolve(spec.Inputs{})
	if err := diags.Err(); err != nil {
		t.Fatalf("%v: %v", err, diags)
	}
	return all
}

// golden are the files of testdata with a policy beside them.
var golden = []string{"ssm", "ssh", "given", "everything"}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestGolden(t *testing.T) {
	t.Parallel()
	for _, name := range golden {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := encode(t, access.Policy(pipelines(t, name)...))
			compare(t, filepath.Join("testdata", name+".policy.json"), string(got))
		})
	}
}

// compare holds got against a file, or rewrites the file under -update.
func compare(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", path, d)
	}
}

// TestCommon holds the policies of pipelines that connect in one way against the size that
// one managed policy may have.
func TestCommon(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"ssm", "ssh", "given"} {
		d := access.Policy(pipelines(t, name)...)
		if n := d.Size(); n > access.MaxManaged {
			t.Errorf("%s: %d characters, and %d are allowed", name, n, access.MaxManaged)
		}
	}
}

// TestAttachable holds every policy against what IAM takes of managed policies.
func TestAttachable(t *testing.T) {
	t.Parallel()
	sid := regexp.MustCompile(`^[A-Za-z0-9]+$`)
	for _, name := range golden {
		d := access.Policy(pipelines(t, name)...)
		var whole []access.Statement
		parts, err := d.Split(access.MaxManaged)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range parts {
			if n := part.Size(); n > access.MaxManaged {
				t.Errorf("%s: %d characters, and %d are allowed", name, n, access.MaxManaged)
			}
			whole = append(whole, part.Statement...)
		}
		if d := cmp.Diff(d.Statement, whole); d != "" {
			t.Errorf("%s: the parts (-whole +parts):\n%s", name, d)
		}
		var sids []string
		for _, s := range d.Statement {
			sids = append(sids, s.Sid)
			if !sid.MatchString(s.Sid) || len(s.Action) == 0 || len(s.Resource) == 0 || s.Effect != "Allow" {
				t.Errorf("%s: IAM refuses the statement %+v", name, s)
			}
			for operator, keys := range s.Condition {
				for key, values := range keys {
					if len(values) == 0 {
						t.Errorf("%s, %s: %s %s has no values", name, s.Sid, operator, key)
					}
				}
			}
		}
		slices.Sort(sids)
		if len(slices.Compact(slices.Clone(sids))) != len(sids) {
			t.Errorf("%s: Sids repeat: %q", name, sids)
		}
	}
}

// TestSplit deals out a statement that no document can hold.
func TestSplit(t *testing.T) {
	t.Parallel()
	long := access.Statement{Sid: "LaunchFromAMI", Effect: "Allow", Action: []string{"ec2:RunInstances"}}
	for n := range 300 {
		long.Resource = append(long.Resource, fmt.Sprintf("arn:aws:ec2:eu-west-1::image/ami-%017x", n))
	}
	short := access.Statement{Sid: "Look", Effect: "Allow", Action: []string{"ec2:DescribeImages"}, Resource: []string{"*"}}
	parts, err := access.Document{Version: "2012-10-17", Statement: []access.Statement{short, long, short}}.Split(access.MaxManaged)
	if err != nil {
		t.Fatal(err)
	}
	var sids [][]string
	var resources []string
	for _, d := range parts {
		if n := d.Size(); n > access.MaxManaged {
			t.Errorf("%d characters, and %d are allowed", n, access.MaxManaged)
		}
		var of []string
		for _, s := range d.Statement {
			of, resources = append(of, s.Sid), append(resources, s.Resource...)
		}
		sids = append(sids, of)
	}
	if d := cmp.Diff([][]string{{"Look"}, {"LaunchFromAMI"}, {"LaunchFromAMI2"}, {"LaunchFromAMI3", "Look"}}, sids); d != "" {
		t.Errorf("Sids (-want +got):\n%s", d)
	}
	if d := cmp.Diff(slices.Concat([]string{"*"}, long.Resource, []string{"*"}), resources); d != "" {
		t.Errorf("resources (-want +got):\n%s", d)
	}
	short.Condition = access.Condition{"StringEquals": {"aws:ResourceTag/gild:pipeline": {strings.Repeat("x", access.MaxManaged)}}}
	_, err = access.Document{Version: "2012-10-17", Statement: []access.Statement{short}}.Split(access.MaxManaged)
	if err == nil || !strings.Contains(err.Error(), `the statement Look for "*" alone has more than the 6144 characters`) {
		t.Errorf("error %v", err)
	}
}

// TestJustified holds the actions of the policies against the table: none without a
// feature, and none of a feature missing.
func TestJustified(t *testing.T) {
	t.Parallel()
	for _, name := range golden {
		all := pipelines(t, name)
		var justified []string
		for _, n := range access.Needs(all...) {
			justified = append(justified, n.Action)
		}
		if d := cmp.Diff(slices.Compact(justified), access.Policy(all...).Actions()); d != "" {
			t.Errorf("%s: actions of table and policy (-table +policy):\n%s", name, d)
		}
	}
}

// TestNames holds the actions that gild calls against the operations of the SDK.
func TestNames(t *testing.T) {
	t.Parallel()
	clients := map[string]reflect.Type{
		"ec2": reflect.TypeFor[*ec2.Client](), "iam": reflect.TypeFor[*iam.Client](), "kms": reflect.TypeFor[*kms.Client](),
		"ssm": reflect.TypeFor[*ssm.Client](), "ec2-instance-connect": reflect.TypeFor[*ec2instanceconnect.Client](),
	}
	// Permissions that aren't operations.
	only := []string{"iam:PassRole", "kms:ReEncryptFrom", "kms:ReEncryptTo"}
	for _, name := range golden {
		for _, n := range access.Needs(pipelines(t, name)...) {
			service, operation, _ := strings.Cut(n.Action, ":")
			client, ok := clients[service]
			if !ok {
				t.Errorf("%s is of no service that gild knows", n.Action)
				continue
			}
			if _, ok = client.MethodByName(operation); !ok && !slices.Contains(only, n.Action) {
				t.Errorf("the SDK has no operation for %s", n.Action)
			}
		}
	}
}

func TestMoreKnownIsNarrower(t *testing.T) {
	t.Parallel()
	known := access.Known{Account: "111122223333", Roles: map[string]string{"builder": "arn:aws-us-gov:iam::111122223333:role/ci/image-builder"}}
	var pass []string
	for _, s := range known.Policy(pipelines(t, "given")...).Statement {
		for _, r := range s.Resource {
			if strings.Contains(r, ":*:") {
				t.Errorf("%s is for every account: %s", s.Sid, r)
			}
		}
		if s.Sid == "PassRole" {
			pass = s.Resource
		}
	}
	if d := cmp.Diff([]string{"arn:aws-us-gov:iam::111122223333:role/ci/image-builder"}, pass); d != "" {
		t.Errorf("role to pass (-want +got):\n%s", d)
	}
}

func TestNothingForLocal(t *testing.T) {
	t.Parallel()
	all := parse(t, "x.yaml", "gild: 1\nname: web\nrelease: 1.0.0\nbase: debian/12\n")
	if d := cmp.Diff(`{"Version":"2012-10-17","Statement":[]}`, strings.Join(strings.Fields(string(encode(t, access.Policy(all...)))), "")); d != "" {
		t.Errorf("policy (-want +got):\n%s", d)
	}
	if n := access.Needs(all...); n != nil {
		t.Errorf("needs: %+v", n)
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	all := pipelines(t, "ssh")
	calls := []string{"sts:GetCallerIdentity", "ec2:RunInstances", "ssm:SendCommand", "ec2:RunInstances"}
	uncovered, unused := access.Compare(calls, all...)
	if d := cmp.Diff([]string{"ssm:SendCommand"}, uncovered); d != "" {
		t.Errorf("uncovered (-want +got):\n%s", d)
	}
	for _, n := range unused {
		if n.Implied || n.Action == "ec2:RunInstances" {
			t.Errorf("%+v is called unused", n)
		}
	}
	for _, want := range []string{"ec2:ImportKeyPair", "ec2:DescribeRegions"} {
		if !slices.ContainsFunc(unused, func(n access.Need) bool { return n.Action == want }) {
			t.Errorf("%s isn't called unused", want)
		}
	}
}
