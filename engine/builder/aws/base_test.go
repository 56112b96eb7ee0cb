package aws

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/sandbox"
	"github.com/gildhq/gild/engine/spec"
)

// newer is a date after that of the image that every world has.
var newer = time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)

// account is a client of another account.
func (w *world) account(account string) *ec2.Client {
	return ec2.New(ec2.Options{
		Region: home, BaseEndpoint: aws.String(w.srv.URL), HTTPClient: w.srv.Client(),
		Credentials: credentials.NewStaticCredentialsProvider("AKIA"+account, sandbox.DefaultKey, ""),
	})
}

func TestResolve(t *testing.T) {
	t.Parallel()
	const genuine = "debian-12-amd64-20261101-2000"
	for _, tt := range []struct {
		name string
		// also is done to the world first; what it returns is an id for base.
		also func(*world) string
		base func(id string) spec.Base
		lock func(id string) map[string]string
		want string // the name of the image
		err  string
	}{
		{name: "publisher", want: genuine},
		{name: "publisher, newest by date, not by name", also: func(w *world) string {
			return w.seed(debian, "debian-12-amd64-20260101-1", newer)
		}, want: "debian-12-amd64-20260101-1"},
		{name: "an image of the same kind of name, newer, of somebody else", also: func(w *world) string {
			return w.seed(hostile, "debian-12-amd64-20261122-9999", newer)
		}, want: genuine},
		{name: "the hostile one is in the lock", also: func(w *world) string {
			return w.seed(hostile, "debian-12-amd64-20261122-9999", newer)
		}, lock: func(id string) map[string]string {
			return map[string]string{lockImage: id, lockRegion: home, lockName: "x"}
		}, err: "the locked base"},
		{name: "locked", also: func(w *world) string {
			id := w.seed(debian, "debian-12-amd64-20260505-1", time.Date(2026, 5, 5, 0, 0, 0, 0, time.UTC))
			return id
		}, lock: func(id string) map[string]string {
			return map[string]string{lockImage: id, lockRegion: home, lockName: "x"}
		}, want: "debian-12-amd64-20260505-1"},
		{name: "locked in another region", lock: func(string) map[string]string {
			return map[string]string{lockImage: "ami-0123456789abcdef0", lockRegion: "us-west-2", lockName: "x"}
		}, want: genuine},
		{name: "by id", also: func(w *world) string { return w.seed(hostile, "theirs", newer) }, base: func(id string) spec.Base {
			return spec.Base{AMI: &spec.AMIBase{ID: id}}
		}, want: "theirs"},
		{name: "by id of another owner than said", also: func(w *world) string { return w.seed(hostile, "theirs", newer) }, base: func(id string) spec.Base {
			return spec.Base{AMI: &spec.AMIBase{ID: id, Owner: debian}}
		}, err: "is no image of " + debian},
		{name: "no such id", base: func(string) spec.Base {
			return spec.Base{AMI: &spec.AMIBase{ID: "ami-0123456789abcdef0"}}
		}, err: "InvalidAMIID.NotFound"},
		{name: "by owner and name", base: func(string) spec.Base {
			return spec.Base{AMI: &spec.AMIBase{Owner: debian, Name: "debian-1?-amd64-*"}}
		}, want: genuine},
		{name: "by name alone", base: func(string) spec.Base {
			return spec.Base{AMI: &spec.AMIBase{Name: "debian-*"}}
		}, err: "anybody can give an image any name"},
		{name: "nothing of that name", base: func(string) spec.Base {
			return spec.Base{AMI: &spec.AMIBase{Owner: debian, Name: "nixos-*"}}
		}, err: "there is no such image for amd64"},
		{name: "deprecated", also: func(w *world) string { return w.outdated("old") }, base: func(string) spec.Base {
			return spec.Base{AMI: &spec.AMIBase{Owner: hostile, Name: "old"}}
		}, err: "it has been deprecated since 2026-01-01; set deprecated: true"},
		{name: "deprecated and allowed", also: func(w *world) string { return w.outdated("old") }, base: func(string) spec.Base {
			return spec.Base{AMI: &spec.AMIBase{Owner: hostile, Name: "old", Deprecated: true}}
		}, want: "old"},
		{name: "deprecated since it was locked", also: func(w *world) string { return w.outdated("old") }, base: func(string) spec.Base {
			return spec.Base{AMI: &spec.AMIBase{Owner: hostile, Name: "old"}}
		}, lock: func(id string) map[string]string {
			return map[string]string{lockImage: id, lockRegion: home, lockName: "old"}
		}, want: "old"},
		{name: "ours", also: func(w *world) string { return w.own("mine") }, base: func(string) spec.Base {
			return spec.Base{AMI: &spec.AMIBase{Owner: "self", Name: "mine"}}
		}, want: "mine"},
		{name: "ours, disabled", also: func(w *world) string {
			id := w.own("mine")
			if _, err := w.account(sandbox.DefaultAccount).DisableImage(w.t.Context(), &ec2.DisableImageInput{ImageId: aws.String(id)}); err != nil {
				w.t.Fatal(err)
			}
			return id
		}, base: func(string) spec.Base {
			return spec.Base{AMI: &spec.AMIBase{Owner: "self", Name: "mine"}}
		}, err: "its owner has disabled it"},
		{name: "of Amazon by its word", also: func(w *world) string { return w.amazon() }, base: func(string) spec.Base {
			return spec.Base{AMI: &spec.AMIBase{Owner: "amazon", Name: "al2023-*"}}
		}, want: "al2023-ami-2023.6.20261101.0-kernel-6.1-x86_64"},
		{name: "publisher with a parameter", also: func(w *world) string { return w.amazon() }, base: func(string) spec.Base {
			return spec.Base{Known: &spec.KnownBase{Name: "amazon-linux", Version: "2023"}}
		}, want: "al2023-ami-2023.6.20261101.0-kernel-6.1-x86_64"},
		{name: "parameter", also: func(w *world) string { return w.amazon() }, base: func(string) spec.Base {
			return spec.Base{SSM: "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"}
		}, want: "al2023-ami-2023.6.20261101.0-kernel-6.1-x86_64"},
		{name: "no such parameter", base: func(string) spec.Base { return spec.Base{SSM: "/no/such"} }, err: "ParameterNotFound"},
		{name: "another architecture", base: func(string) spec.Base {
			return spec.Base{AMI: &spec.AMIBase{Owner: debian, Name: "debian-12-arm64-*"}}
		}, err: "there is no such image for amd64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			var id string
			if tt.also != nil {
				id = tt.also(w)
			}
			p := testPipeline()
			if tt.base != nil {
				p.Base = tt.base(id)
			}
			var lock map[string]string
			if tt.lock != nil {
				lock = tt.lock(id)
			}
			base, err := w.builder().Resolve(t.Context(), p, lock)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q in it", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, base.Lock[lockName]); diff != "" {
				t.Errorf("resolved to (-want +got):\n%s", diff)
			}
			if base.ID != base.Lock[lockImage] || base.Lock[lockRegion] != home || base.Clock.IsZero() {
				t.Errorf("base %+v", base)
			}
			// A search that names no owner could be answered by anybody.
			for _, c := range w.Calls() {
				if c.Action == "DescribeImages" && c.Params["Owners"] == nil && c.Params["ImageIds"] == nil {
					t.Errorf("a search without an owner: %v", c.Params)
				}
			}
		})
	}
}

// outdated adds a deprecated image of another account.
func (w *world) outdated(name string) string {
	w.t.Helper()
	id, err := w.AddImage(w.t.Context(), sandbox.SeedImage{
		Account: hostile, Name: name, SizeGiB: 1, Region: home, Created: newer, Deprecated: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// own adds an image of the caller's account.
func (w *world) own(name string) string { return w.seed(sandbox.DefaultAccount, name, newer) }

// amazon adds an image of Amazon, in its SSM parameter.
func (w *world) amazon() string {
	w.t.Helper()
	id, err := w.AddImage(w.t.Context(), sandbox.SeedImage{
		Account: "137112412989", OwnerAlias: "amazon", Name: "al2023-ami-2023.6.20261101.0-kernel-6.1-x86_64", SizeGiB: 1, Region: home, Created: newer,
		SSMParameters: []string{"/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

func TestMatches(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		pattern, name string
		want          bool
	}{
		{"debian-12-amd64-*", "debian-12-amd64-20261101-2000", true},
		{"debian-12-amd64-*", "not-debian-12-amd64-20261101", false},
		{"ubuntu/images/hvm-ssd*/ubuntu-*-24.04-amd64-server-*", "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20261101", true},
		{"ubuntu/images/*", "ubuntu-minimal/images/x", false},
		{"a?c", "abc", true}, {"a?c", "ac", false}, {"a[b]c", "abc", false}, {"a[b]c", "a[b]c", true}, {"", "", true}, {"*", "", true}, {"**x", "yx", true},
	} {
		if got := matches(tt.pattern, tt.name); got != tt.want {
			t.Errorf("%q matches %q: %v", tt.pattern, tt.name, got)
		}
	}
}

func TestCallerRange(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, from, endpoint, want string
		private                    bool
		subnet                     types.Subnet
	}{
		{name: "given", from: "203.0.113.7", want: "203.0.113.7/32"},
		{name: "given as a range", from: "203.0.113.7/32", want: "203.0.113.7/32"},
		{name: "given IPv6", from: "2001:db8::1", want: "2001:db8::1/128"},
		{name: "the world", from: "0.0.0.0/0"},
		{name: "a network", from: "10.0.0.0/8"},
		{name: "no address", from: "example"},
		{name: "unspecified", from: "0.0.0.0"},
		{name: "an endpoint on this machine", endpoint: "http://127.0.0.1:4566", want: "127.0.0.1/32"},
		{name: "a private network on this machine", private: true, subnet: types.Subnet{CidrBlock: aws.String("127.8.0.0/24")}, want: "127.0.0.1/32"},
		{name: "a private network without IPv4", private: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b, err := New(Config{Endpoint: tt.endpoint})
			if err != nil {
				t.Fatal(err)
			}
			p := testPipeline()
			p.AWS.Connect.From, p.AWS.Connect.Private = tt.from, tt.private
			got, err := b.callerRange(t.Context(), p, tt.subnet)
			if (err == nil) != (tt.want != "") || err == nil && got != netip.MustParsePrefix(tt.want) {
				t.Errorf("got %v, %v, want %q", got, err, tt.want)
			}
			if err == nil && !got.IsSingleIP() {
				t.Errorf("%s lets in more than one address", got)
			}
		})
	}
}

// TestLazy makes a builder where nothing answers and there are no credentials.
func TestLazy(t *testing.T) {
	t.Parallel()
	b, err := New(Config{Endpoint: "http://192.0.2.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	if l := b.Unsupported(testPipeline()); len(l) > 0 {
		t.Errorf("unsupported: %v", l)
	}
	if v, err := b.ImageVersion(testPipeline()); v == "" || err != nil {
		t.Errorf("image version %q, %v", v, err)
	}
	if err := b.Release(t.Context(), "never opened"); err != nil {
		t.Error(err)
	}
}

// TestNoCredentials says what to set.
func TestNoCredentials(t *testing.T) {
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} {
		t.Setenv(name, "")
	}
	w := newWorld(t)
	_, err := w.builder().Resolve(t.Context(), testPipeline(), nil)
	if err == nil || !strings.Contains(err.Error(), "set AWS_PROFILE, or AWS_ACCESS_KEY_ID") {
		t.Errorf("error %v", err)
	}
}
