package sandbox_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"

	"github.com/gildhq/gild/engine/sandbox"
)

// world is a sandbox behind HTTP.
type world struct {
	*sandbox.Server
	URL string
}

// open opens a sandbox for a test. What a test doesn't set has its zero value, but for the folder.
func open(t testing.TB, c sandbox.Config) *world {
	t.Helper()
	if c.Dir == "" {
		c.Dir = t.TempDir()
	}
	if c.Log == nil {
		c.Log = slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	s, err := sandbox.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s.Handler())
	t.Cleanup(func() {
		srv.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &world{s, srv.URL}
}

type testLog struct{ t testing.TB }

func (l testLog) Write(b []byte) (int, error) { l.t.Logf("%s", b); return len(b), nil }

// client returns an EC2 client of an account in a region, which tries once only.
func (w *world) client(t testing.TB, key, region string) *ec2.Client {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return ec2.New(ec2.Options{
		Region:           region,
		BaseEndpoint:     aws.String(w.URL),
		Credentials:      credentials.NewStaticCredentialsProvider(key, "sandbox", ""),
		HTTPClient:       &http.Client{Transport: plainBody{transport}, Timeout: time.Minute},
		RetryMaxAttempts: 1,
	})
}

// plainBody sends requests whose body has no WriteTo. The SDK closes the body when the answer
// has come, and WriteTo of its closed body fails; net/http then closes the connection while
// the answer is being read, which a server as near as this one makes happen.
type plainBody struct{ next http.RoundTripper }

func (p plainBody) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil && r.Body != http.NoBody {
		r = r.Clone(r.Context())
		r.Body = struct{ io.ReadCloser }{r.Body}
	}
	return p.next.RoundTrip(r)
}

// mine is a client of the default account in the default region.
func (w *world) mine(t testing.TB) *ec2.Client {
	return w.client(t, sandbox.DefaultKey, sandbox.DefaultRegion)
}

// other is a client of another account in the same region.
func (w *world) other(t testing.TB) *ec2.Client {
	return w.client(t, otherKey, sandbox.DefaultRegion)
}

const (
	otherAccount = "444455556666"
	otherKey     = "AKIA" + otherAccount
	publisher    = "136693071363"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// code is the error code of a call, or "".
func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	if err != nil {
		return "not an API error: " + err.Error()
	}
	return ""
}

// wantCode fails unless a call failed with a code; "" means that it succeeds.
func wantCode(t testing.TB, want string, err error) {
	t.Helper()
	if got := code(err); got != want {
		t.Errorf("the call gave the error code %q (%v), want %q", got, err, want)
	}
}

// seed adds a public image with an empty disk, and returns its id.
func (w *world) seed(t testing.TB, name string) string {
	t.Helper()
	id, err := w.AddImage(t.Context(), sandbox.SeedImage{Account: publisher, Name: name, SizeGiB: 1})
	must(t, err)
	return id
}

// run launches one instance.
func run(t testing.TB, c *ec2.Client, image string, change ...func(*ec2.RunInstancesInput)) types.Instance {
	t.Helper()
	out, err := c.RunInstances(t.Context(), runInput(image, change...))
	must(t, err)
	return out.Instances[0]
}

func runInput(image string, change ...func(*ec2.RunInstancesInput)) *ec2.RunInstancesInput {
	in := &ec2.RunInstancesInput{ImageId: &image, InstanceType: types.InstanceTypeT3Micro, MinCount: aws.Int32(1), MaxCount: aws.Int32(1)}
	for _, f := range change {
		f(in)
	}
	return in
}

// eventually asks until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for !holds() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain until %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// instance describes one instance.
func instance(t testing.TB, c *ec2.Client, id *string) types.Instance {
	t.Helper()
	out, err := c.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{InstanceIds: []string{*id}})
	must(t, err)
	return out.Reservations[0].Instances[0]
}

func waitInstance(t testing.TB, c *ec2.Client, id *string, state types.InstanceStateName) types.Instance {
	t.Helper()
	var i types.Instance
	eventually(t, "instance "+*id+" is "+string(state), func() bool {
		i = instance(t, c, id)
		return i.State.Name == state
	})
	return i
}

func waitImage(t testing.TB, c *ec2.Client, id *string, state types.ImageState) types.Image {
	t.Helper()
	var i types.Image
	eventually(t, "image "+*id+" is "+string(state), func() bool {
		out, err := c.DescribeImages(t.Context(), &ec2.DescribeImagesInput{ImageIds: []string{*id}})
		must(t, err)
		i = out.Images[0]
		return i.State == state
	})
	return i
}

func filter(name string, values ...string) types.Filter {
	return types.Filter{Name: &name, Values: values}
}

func tags(typ types.ResourceType, pairs ...string) types.TagSpecification {
	spec := types.TagSpecification{ResourceType: typ}
	for i := 0; i < len(pairs); i += 2 {
		spec.Tags = append(spec.Tags, types.Tag{Key: &pairs[i], Value: &pairs[i+1]})
	}
	return spec
}
