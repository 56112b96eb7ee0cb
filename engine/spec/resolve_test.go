package spec_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/spec"
	"github.com/gildhq/gild/engine/step"
)

// noPos leaves places out of comparisons; the golden files hold those.
var noPos = cmpopts.IgnoreTypes(diag.Pos{}, []diag.Pos{})

func TestDefaults(t *testing.T) {
	t.Parallel()
	p := resolve(t, header, spec.Inputs{})
	want := []*spec.Pipeline{{
		File: "x.yaml", Name: "web", Release: "1.2.3", Matrix: map[string]any{}, Arch: "amd64",
		Params: map[string]any{}, Secrets: map[string]spec.Secret{}, Builder: "local",
		Local: spec.LocalBuilder{DiskSize: 2 << 30, Formats: []string{"raw", "qcow2"}, Firmware: []string{"bios", "uefi"}},
		Base: spec.Base{
			Distro: &spec.DistroBase{Distro: "debian", Suite: "bookworm", Variant: "minbase", Bootable: true},
			Known:  &spec.KnownBase{Name: "debian", Version: "12"},
		},
	}}
	if d := cmp.Diff(want, p, noPos); d != "" {
		t.Errorf("pipelines (-want +got):\n%s", d)
	}
}

func TestEverySection(t *testing.T) {
	t.Parallel()
	p := resolve(t, header+`
description: ${{ params.team }}'s image
params: {team: {type: string, default: ops}}
secrets:
  a: {env: A}
  b: {exec: [pass, show, b]}
builders:
  local: {disk: {size: 512MiB}, formats: [qcow2], firmware: [uefi]}
  aws: {region: eu-west-1, instance: {types: [c7i.large], spot: prefer}}
harden:
  profile: cis-l1-server
  except: [{control: ssh-max-auth-tries, reason: policy, until: 2027-06-30}]
tests: [{uses: boot}]
publish:
  channel: stable
  tags: {team: "${{ params.team }}", port: "80"}
  share: {accounts: ["111122223333"], organizations: ["arn:x"], public: true}
  deprecate-after: 90d
copy: {regions: [us-east-1], encrypt: {kms-key: alias/images}}
retain: {keep: 5, max-age: 180d, min-age: 7d}
`, spec.Inputs{Builder: "aws"})[0]
	want := &spec.Pipeline{
		File: "x.yaml", Name: "web", Release: "1.2.3", Description: "ops's image", Matrix: map[string]any{}, Arch: "amd64",
		Params: map[string]any{"team": "ops"}, Builder: "aws",
		Secrets: map[string]spec.Secret{"a": {Source: "env", Ref: "A"}, "b": {Source: "exec", Argv: []string{"pass", "show", "b"}}},
		Local:   spec.LocalBuilder{DiskSize: 512 << 20, Formats: []string{"qcow2"}, Firmware: []string{"uefi"}},
		AWS: &spec.AWSBuilder{
			Region: "eu-west-1", Instance: spec.AWSInstance{Types: []string{"c7i.large"}, Spot: "prefer"},
			Volume: spec.AWSVolume{Type: "gp3"}, Connect: spec.AWSConnect{By: "ssm", Port: 22}, Tags: map[string]string{},
			Image: spec.AWSImage{IMDSv2: true, ENA: true}, Within: 45 * time.Minute,
			Checkpoints: spec.AWSCheckpoints{After: 10 * time.Minute, Keep: 3, MaxAge: 14 * 24 * time.Hour},
		},
		Base: spec.Base{
			Distro: &spec.DistroBase{Distro: "debian", Suite: "bookworm", Variant: "minbase", Bootable: true},
			Known:  &spec.KnownBase{Name: "debian", Version: "12"},
		},
		Harden: &spec.Harden{Profile: "cis-l1-server", Except: []spec.Exception{
			{Control: "ssh-max-auth-tries", Reason: "policy", Until: time.Date(2027, 6, 30, 0, 0, 0, 0, time.UTC)},
		}},
		Publish: &spec.Publish{
			Name: "web-1.2.3", Channel: "stable", Tags: map[string]string{"team": "ops", "port": "80"},
			Share:          &spec.Share{Accounts: []string{"111122223333"}, Organizations: []string{"arn:x"}, Public: true},
			DeprecateAfter: 90 * 24 * time.Hour,
		},
		Copy:   &spec.Copy{Regions: []string{"us-east-1"}, KMSKey: "alias/images"},
		Retain: &spec.Retain{Keep: 5, MaxAge: 180 * 24 * time.Hour, MinAge: 7 * 24 * time.Hour},
	}
	p.Steps = nil // TestSteps compares them
	if d := cmp.Diff(want, p, noPos); d != "" {
		t.Errorf("pipeline (-want +got):\n%s", d)
	}
}

func TestSteps(t *testing.T) {
	t.Parallel()
	p := resolve(t, header+`
matrix: {arch: [amd64]}
customize:
  - uses: sleep
    timeout: 5m
    retry: {attempts: 3, backoff: 2s}
    continue-on-error: true
  - {uses: sleep, needs: []}
  - {id: sleep-3, uses: sleep, needs: [sleep], when: matrix.arch == "amd64"}
  - {uses: sleep, when: '${{ matrix.arch == "arm64" }}'}
  - {uses: shell, with: {run: x}, when: false}
  - {uses: sleep, when: steps.shell.outputs.exit-status == 0}
tests:
  - {uses: boot}
`, spec.Inputs{})[0]
	want := []spec.Step{
		{ID: "sleep", Section: step.Customize, Uses: "sleep", Timeout: 5 * time.Minute, Retry: spec.Retry{Attempts: 3, Backoff: 2 * time.Second}, ContinueOnError: true},
		{ID: "sleep-2", Section: step.Customize, Uses: "sleep", NeedsSet: true},
		{ID: "sleep-3", Section: step.Customize, Uses: "sleep", Needs: []string{"sleep"}, NeedsSet: true},
		{ID: "sleep-4", Section: step.Customize, Uses: "sleep", Skip: `when is matrix.arch == "arm64", which is false`},
		{ID: "shell", Section: step.Customize, Uses: "shell", Skip: "when is false"},
		{ID: "sleep-5", Section: step.Customize, Uses: "sleep"},
		{ID: "boot", Section: step.Tests, Uses: "boot"},
	}
	if d := cmp.Diff(want, p.Steps, noPos, cmpopts.IgnoreFields(spec.Step{}, "With", "Env", "When")); d != "" {
		t.Errorf("steps (-want +got):\n%s", d)
	}
	for i, s := range p.Steps {
		if (s.When != nil) != (i == 5) {
			t.Errorf("step %s: When is %v", s.ID, s.When)
		}
		if s.Pos.Line == 0 || len(s.NeedsPos) != len(s.Needs) {
			t.Errorf("step %s is at %v, its needs at %v", s.ID, s.Pos, s.NeedsPos)
		}
	}
	got, err := p.Steps[5].When.Eval(map[string]map[string]any{"shell": {"exit-status": 0}}, nil)
	if err != nil || got != true {
		t.Errorf("the condition that waits gives %v, %v", got, err)
	}
}

func TestBase(t *testing.T) {
	t.Parallel()
	distro := func(name, suite string) spec.Base {
		return spec.Base{Distro: &spec.DistroBase{Distro: name, Suite: suite, Variant: "minbase", Bootable: true}}
	}
	short := func(name, version, suite string) spec.Base {
		b := distro(name, suite)
		b.Known = &spec.KnownBase{Name: name, Version: version}
		return b
	}
	const sum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	cases := []struct {
		base string
		want spec.Base
	}{
		{"debian/11", short("debian", "11", "bullseye")},
		{"debian/12", short("debian", "12", "bookworm")},
		{"debian/trixie", short("debian", "13", "trixie")},
		{"ubuntu/22.04", short("ubuntu", "22.04", "jammy")},
		{"ubuntu/24.04", short("ubuntu", "24.04", "noble")},
		{"rocky/9", spec.Base{Known: &spec.KnownBase{Name: "rocky", Version: "9"}}},
		{`{debian: {suite: "12"}}`, distro("debian", "bookworm")},
		{`{ubuntu: {suite: plucky, variant: standard, mirror: "http://mirror/u", packages: [vim], bootable: false}}`, spec.Base{Distro: &spec.DistroBase{
			Distro: "ubuntu", Suite: "plucky", Variant: "standard", Mirror: "http://mirror/u", Packages: []string{"vim"},
		}}},
		{"{debian: {suite: sid, snapshot: 20261101T000000Z}}", spec.Base{Distro: &spec.DistroBase{
			Distro: "debian", Suite: "sid", Variant: "minbase", Snapshot: "20261101T000000Z", Bootable: true,
		}}},
		{"{image: company-base@stable}", spec.Base{Image: &spec.ImageBase{Name: "company-base", Channel: "stable"}}},
		{"{disk: {url: x, sha256: " + sum + "}}", spec.Base{Other: "disk"}},
		{"{rootfs: {path: x, sha256: " + sum + "}}", spec.Base{Other: "rootfs"}},
		{"{oci: reg/x@sha256:" + sum + "}", spec.Base{Other: "oci"}},
		{`{ami: {owner: "136693071363", name: "debian-12-amd64-*"}}`, spec.Base{AMI: &spec.AMIBase{Owner: "136693071363", Name: "debian-12-amd64-*"}}},
		{"{ami: {owner: self, id: ami-0123456789abcdef0, deprecated: true}}", spec.Base{AMI: &spec.AMIBase{Owner: "self", ID: "ami-0123456789abcdef0", Deprecated: true}}},
		{"{ssm: /aws/service/x}", spec.Base{SSM: "/aws/service/x"}},
	}
	for _, c := range cases {
		t.Run(c.base, func(t *testing.T) {
			t.Parallel()
			p := resolve(t, strings.Replace(header, "debian/12", c.base, 1), spec.Inputs{})
			if d := cmp.Diff(c.want, p[0].Base, noPos); d != "" {
				t.Errorf("base (-want +got):\n%s", d)
			}
		})
	}
}

func TestMatrix(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, matrix string
		want         []string
	}{
		{"one key", "{arch: [amd64, arm64]}", []string{"arch=amd64", "arch=arm64"}},
		{"two keys, in the order of the file", "{flavour: [slim, fat], arch: [amd64, arm64]}",
			[]string{"arch=amd64,flavour=slim", "arch=arm64,flavour=slim", "arch=amd64,flavour=fat", "arch=arm64,flavour=fat"}},
		{"exclude by some of the values", "{a: [1, 2], b: [x, z], exclude: [{a: 1}]}", []string{"a=2,b=x", "a=2,b=z"}},
		{"exclude by all of the values", "{a: [1, 2], b: [x, z], exclude: [{a: 1, b: z}]}", []string{"a=1,b=x", "a=2,b=x", "a=2,b=z"}},
		{"include adds a value to those that match", "{a: [1, 2], include: [{a: 2, extra: e}]}", []string{"a=1", "a=2,extra=e"}},
		{"include without a key adds to all", "{a: [1, 2], include: [{extra: e}]}", []string{"a=1,extra=e", "a=2,extra=e"}},
		{"include that fits nothing is one more", "{a: [1], include: [{a: 3}, {a: 4, extra: e}]}", []string{"a=1", "a=3", "a=4,extra=e"}},
		{"a later include changes what an earlier one added", "{a: [1, 2], include: [{x: old}, {a: 2, x: new}]}", []string{"a=1,x=old", "a=2,x=new"}},
		{"include comes after exclude", "{a: [1, 2], exclude: [{a: 1}], include: [{a: 1}]}", []string{"a=2", "a=1"}},
		{"only include", "{include: [{arch: arm64}, {arch: amd64}]}", []string{"arch=arm64", "arch=amd64"}},
		{"values of all types", "{v: [1, 1.5, true, x]}", []string{"v=1", "v=1.5", "v=true", "v=x"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, p := range resolve(t, header+"matrix: "+c.matrix+"\n", spec.Inputs{}) {
				got = append(got, p.Cell)
				if a, ok := p.Matrix["arch"]; ok && a != p.Arch {
					t.Errorf("cell %s is for %s", p.Cell, p.Arch)
				}
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("cells (-want +got):\n%s", d)
			}
		})
	}
}

// TestMatrixAgainstProduct compares the expansion with a plain count.
func TestMatrixAgainstProduct(t *testing.T) {
	t.Parallel()
	p := resolve(t, header+"matrix: {a: [1, 2, 3, 4], b: [1, 2, 3, 4, 5, 6, 7, 8], c: [1, 2, 3, 4, 5, 6, 7, 8]}\npublish: {}\ntests: [{uses: boot}]\n", spec.Inputs{})
	cells, names := map[string]bool{}, map[string]bool{}
	for _, one := range p {
		cells[one.Cell], names[one.Publish.Name] = true, true
	}
	if len(p) != 256 || len(cells) != 256 || len(names) != 256 {
		t.Errorf("%d images, %d cells, %d names; want 256 of each", len(p), len(cells), len(names))
	}
}

func TestPublishName(t *testing.T) {
	t.Parallel()
	p := resolve(t, header+"matrix: {arch: [amd64, arm64], flavour: [a b/c]}\npublish: {}\ntests: [{uses: boot}]\n", spec.Inputs{})
	var got []string
	for _, one := range p {
		got = append(got, one.Publish.Name)
	}
	if d := cmp.Diff([]string{"web-1.2.3-amd64-a-b-c", "web-1.2.3-arm64-a-b-c"}, got); d != "" {
		t.Errorf("names (-want +got):\n%s", d)
	}
}

func TestParams(t *testing.T) {
	t.Parallel()
	const declared = header + `
params:
  port: {type: integer, default: 80, minimum: 1, maximum: 65535}
  name: {type: string, default: web, pattern: "^[a-z]+$"}
  ratio: {type: number, default: 1}
  flag: {type: boolean, default: false}
  names: {type: list, default: [a]}
  size: {type: string, default: s, enum: [s, m]}
`
	cases := []struct {
		name   string
		params map[string]string
		file   string
		want   map[string]any
		err    string
	}{
		{name: "defaults", want: map[string]any{}},
		{name: "integer", params: map[string]string{"port": "8080"}, want: map[string]any{"port": int64(8080)}},
		{name: "not an integer", params: map[string]string{"port": "80a"}, err: `--param port=80a: "80a" is not an integer`},
		{name: "below the minimum", params: map[string]string{"port": "0"}, err: "--param port=0: 0 is less than the minimum 1"},
		{name: "above the maximum", params: map[string]string{"port": "70000"}, err: "70000 is more than the maximum 65535"},
		{name: "number", params: map[string]string{"ratio": "0.25"}, want: map[string]any{"ratio": 0.25}},
		{name: "not finite", params: map[string]string{"ratio": "inf"}, err: "--param ratio=inf: +Inf is not a finite number"},
		{name: "boolean", params: map[string]string{"flag": "true"}, want: map[string]any{"flag": true}},
		{name: "not a boolean", params: map[string]string{"flag": "yes"}, err: `"yes" is not true or false`},
		{name: "string as it is", params: map[string]string{"name": "true"}, want: map[string]any{"name": "true"}},
		{name: "string against its pattern", params: map[string]string{"name": "Web"}, err: `"Web" does not match the pattern ^[a-z]+$`},
		{name: "list by commas", params: map[string]string{"names": "a, b,c"}, want: map[string]any{"names": []any{"a", "b", "c"}}},
		{name: "list in brackets", params: map[string]string{"names": `["a,b", 2]`}, want: map[string]any{"names": []any{"a,b", int64(2)}}},
		{name: "empty list", params: map[string]string{"names": ""}, want: map[string]any{"names": []any{}}},
		{name: "not a list", params: map[string]string{"names": "[a"}, err: `"[a" is not a list`},
		{name: "enum", params: map[string]string{"size": "m"}, want: map[string]any{"size": "m"}},
		{name: "not in the enum", params: map[string]string{"size": "l"}, err: `"l" is not one of "s", "m"`},
		{name: "unknown", params: map[string]string{"prot": "1"}, err: `there is no param "prot"`},
		{name: "from a file", file: "port: 81\nflag: true\nnames: [x]\n", want: map[string]any{"port": int64(81), "flag": true, "names": []any{"x"}}},
		{name: "from a JSON file", file: `{"port": 82, "ratio": 2}`, want: map[string]any{"port": int64(82), "ratio": int64(2)}},
		{name: "the command line wins", params: map[string]string{"port": "83"}, file: "port: 84", want: map[string]any{"port": int64(83)}},
		{name: "wrong type in a file", file: `port: "80"`, err: `the params file gives port: "80" is not an integer`},
		{name: "unknown in a file", file: `prot: 80`, err: `there is no param "prot"`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			in := spec.Inputs{Params: c.params}
			if c.file != "" {
				values, diags := spec.ParseParams("params.yaml", []byte(c.file))
				if diags.HasErrors() {
					t.Fatal(diags)
				}
				in.ParamValues = values
			}
			pipelines, diags := validate("x.yaml", []byte(declared), catalog(t), in)
			if c.err != "" {
				checkOnly(t, diags, c.err)
				return
			}
			if diags.HasErrors() {
				t.Fatal(diags)
			}
			want := map[string]any{"port": int64(80), "name": "web", "ratio": int64(1), "flag": false, "names": []any{"a"}, "size": "s"}
			maps.Copy(want, c.want)
			if d := cmp.Diff(want, pipelines[0].Params); d != "" {
				t.Errorf("params (-want +got):\n%s", d)
			}
		})
	}
}

// checkOnly checks that there is one diagnostic, with a text in it.
func checkOnly(t *testing.T, diags diag.List, want string) {
	t.Helper()
	if len(diags) != 1 || !strings.Contains(diags[0].Message, want) {
		t.Errorf("got %v, want one with %q", diags, want)
	}
}

func TestUnknownParamSuggests(t *testing.T) {
	t.Parallel()
	_, diags := validate("x.yaml", []byte(header+"params: {port: {type: integer, default: 1}}\n"), catalog(t), spec.Inputs{Params: map[string]string{"prot": "1"}})
	if len(diags) != 1 || diags[0].Hint != `did you mean "port"?` {
		t.Errorf("got %v", diags)
	}
}

func TestParseParamsRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ src, want string }{
		"a list":            {"- a\n", "a params file is a mapping"},
		"nothing":           {"", "the file is empty"},
		"a repeated name":   {"a: 1\na: 2\n", "already on line 1"},
		"what isn't finite": {"a: .inf\n", "is no number"},
		"two documents":     {"a: 1\n---\nb: 1\n", "second YAML document"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			values, diags := spec.ParseParams("p.yaml", []byte(c.src))
			if values != nil {
				t.Errorf("values are %v", values)
			}
			checkOnly(t, diags, c.want)
		})
	}
}

func TestBuilder(t *testing.T) {
	t.Parallel()
	const aws = "builders: {aws: {region: eu-west-1}}\n"
	cases := []struct{ name, src, builder, want, err string }{
		{"local is the default", header, "", "local", ""},
		{"the file says", header + aws + "builder: aws\n", "", "aws", ""},
		{"the command line wins", header + aws + "builder: aws\n", "local", "local", ""},
		{"aws needs its settings", header, "aws", "", "the builder aws needs its settings in builders.aws"},
		{"unknown", header, "azure", "", "--builder azure: builders are local and aws"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pipelines, diags := validate("x.yaml", []byte(c.src), catalog(t), spec.Inputs{Builder: c.builder})
			if c.err != "" {
				checkOnly(t, diags, c.err)
				return
			}
			if diags.HasErrors() || pipelines[0].Builder != c.want {
				t.Errorf("got %v, %v", pipelines, diags)
			}
		})
	}
}

// TestSameMeaning checks that what doesn't matter to a reader doesn't matter to a key.
func TestSameMeaning(t *testing.T) {
	t.Parallel()
	const one = header + `
customize:
  - uses: file
    with: {to: /etc/motd, content: "hello ${{ pipeline.name }}", mode: "0644"}
    env: {A: x}
`
	const other = `
# a comment
base: "debian/12"
release: '1.2.3'
customize:

  - env:
      A: 'x'
    with:
      mode: '0644'   # octal
      content: >-
        hello
        ${{pipeline.name}}
      to: /etc/motd
    uses: file
name: web
gild: 1
`
	a, b := resolve(t, one, spec.Inputs{}), resolve(t, other, spec.Inputs{})
	if d := cmp.Diff(string(a[0].Steps[0].With.Canonical()), string(b[0].Steps[0].With.Canonical())); d != "" {
		t.Errorf("with (-one +other):\n%s", d)
	}
	ignore := cmp.Options{noPos, cmp.Comparer(func(a, b spec.Value) bool { return string(a.Canonical()) == string(b.Canonical()) })}
	if d := cmp.Diff(a, b, ignore); d != "" {
		t.Errorf("pipelines (-one +other):\n%s", d)
	}
}

// TestConcurrentUse shares a catalog and a file between goroutines; -race judges it.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	c := catalog(t)
	src := longPipeline(1)
	f, diags := spec.Parse("x.yaml", src, c)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if _, diags := spec.Parse("x.yaml", longPipeline(i), c); diags.HasErrors() {
				t.Error(diags)
			}
			pipelines, diags := f.Resolve(spec.Inputs{Params: map[string]string{"port": fmt.Sprint(1000 + i)}})
			if diags.HasErrors() || pipelines[0].Params["port"] != int64(1000+i) {
				t.Errorf("params %v, %v", pipelines, diags)
			}
		})
	}
	wg.Wait()
}

func TestNewCatalogRefuses(t *testing.T) {
	t.Parallel()
	with := func(name, schema string) step.Step {
		return step.Step{Name: name, Schema: []byte(schema), Sections: []step.Section{step.Customize}}
	}
	cases := []struct {
		name  string
		steps []step.Step
		want  string
	}{
		{"one name twice", []step.Step{with("a", `{"type": "object"}`), with("a", `{"type": "object"}`)}, `two steps have the name "a"`},
		{"no JSON", []step.Step{with("a", `{`)}, `schema of step "a"`},
		{"no schema", []step.Step{with("a", `{"type": "objekt"}`)}, `schema of step "a"`},
		{"a reference to the network", []step.Step{with("a", `{"$ref": "http://elsewhere/x.json"}`)}, "is outside of the schema"},
		{"a reference to a file", []step.Step{with("a", `{"$ref": "file:///etc/passwd"}`)}, "is outside of the schema"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := spec.NewCatalog(c.steps)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

// TestGood checks that there is nothing to say of the files in testdata/good.
func TestGood(t *testing.T) {
	t.Parallel()
	for _, path := range files(t, "testdata/good/*.yaml") {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			pipelines, diags := validate(path, readFile(t, path), catalog(t), spec.Inputs{})
			if len(pipelines) == 0 || len(diags) != 0 {
				t.Errorf("%d pipelines, %v", len(pipelines), diags)
			}
			if !slices.IsSortedFunc(pipelines, func(a, b *spec.Pipeline) int { return strings.Compare(a.Cell, b.Cell) }) {
				t.Error("the cells are not in the order of the file")
			}
		})
	}
}
