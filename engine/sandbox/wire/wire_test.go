package wire

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/go-cmp/cmp"
)

// fakeService answers every request with the same values and keeps what it was asked.
type fakeService struct {
	mu     sync.Mutex
	asked  []*Request
	answer map[string]any
	err    error
	queued map[string][]map[string]any // answers of the next calls, by action; they come first
}

func (f *fakeService) Handle(_ context.Context, r *Request) (map[string]any, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Body != nil {
		data, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		r.Params["(body)"] = data
	}
	f.asked = append(f.asked, r)
	if next := f.queued[r.Action]; len(next) > 0 {
		f.queued[r.Action] = next[1:]
		return next[0], nil
	}
	return f.answer, f.err
}

// expect sets the next answer, and forgets what was asked.
func (f *fakeService) expect(answer map[string]any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer, f.asked = answer, nil
}

// queue sets the answers of calls.
func (f *fakeService) queue(calls []botoCall) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queued = map[string][]map[string]any{}
	for _, c := range calls {
		f.queued[c.Action] = append(f.queued[c.Action], c.answer)
	}
}

func (f *fakeService) last(t *testing.T) *Request {
	t.Helper()
	return f.at(t, -1)
}

// at returns the request of a number, from 0; a negative one counts from the end.
func (f *fakeService) at(t *testing.T, i int) *Request {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if i < 0 {
		i += len(f.asked)
	}
	if i < 0 || i >= len(f.asked) {
		t.Fatalf("request %d didn't come; %d did", i, len(f.asked))
	}
	return f.asked[i]
}

// fakeKeys knows one lasting key and one that ends.
type fakeKeys struct{ expires time.Time }

func (fakeKeys) Lookup(key string) (string, string, bool) {
	return "sandbox", "111122223333", key == "sandbox" || key == "ASIATEMPORARY"
}

func (k fakeKeys) Session(key string) (string, time.Time, bool) {
	return "the-token", k.expires, key == "ASIATEMPORARY"
}

func serve(t *testing.T, f *fakeService) (url string, client *http.Client) {
	t.Helper()
	keys := fakeKeys{expires: time.Now().Add(time.Hour)}
	s := httptest.NewServer(NewHandler(f, keys, slog.New(slog.DiscardHandler)))
	t.Cleanup(s.Close)
	client = s.Client()
	client.Transport = holdBody{client.Transport}
	return s.URL, client
}

// holdBody keeps the SDK from closing a body that Go's client still looks at: see settle.
type holdBody struct{ next http.RoundTripper }

func (h holdBody) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		return h.next.RoundTrip(r)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(body))
	return h.next.RoundTrip(r)
}

func config(url string, client *http.Client) aws.Config {
	return aws.Config{
		Region: "eu-west-1", BaseEndpoint: &url, HTTPClient: client, RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider("sandbox", "sandbox", ""),
	}
}

func TestEC2(t *testing.T) {
	t.Parallel()
	f := &fakeService{answer: map[string]any{
		"ReservationId": "r-1", "OwnerId": "111122223333",
		"Instances": []any{map[string]any{
			"InstanceId": "i-1", "EnaSupport": true, "LaunchTime": time.Date(2026, 11, 23, 1, 2, 3, 4e6, time.UTC),
			"State": map[string]any{"Code": 0, "Name": "pending"}, "Tags": []map[string]string{{"Key": "a", "Value": "<&>"}},
		}},
	}}
	client := ec2.NewFromConfig(config(serve(t, f)))
	out, err := client.RunInstances(t.Context(), &ec2.RunInstancesInput{
		ImageId: aws.String("ami-1"), MinCount: aws.Int32(1), MaxCount: aws.Int32(2), ClientToken: aws.String("t"),
		InstanceType:     ec2types.InstanceTypeT3Micro,
		SecurityGroupIds: []string{"sg-1", "sg-2"},
		BlockDeviceMappings: []ec2types.BlockDeviceMapping{{
			DeviceName: aws.String("/dev/xvda"), Ebs: &ec2types.EbsBlockDevice{VolumeSize: aws.Int32(8), Encrypted: aws.Bool(true)},
		}},
		TagSpecifications: []ec2types.TagSpecification{{ResourceType: "instance", Tags: []ec2types.Tag{{Key: aws.String("k"), Value: aws.String("a b&c")}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"ImageId": "ami-1", "MinCount": int64(1), "MaxCount": int64(2), "ClientToken": "t", "InstanceType": "t3.micro",
		"SecurityGroupIds": []any{"sg-1", "sg-2"},
		"BlockDeviceMappings": []any{map[string]any{
			"DeviceName": "/dev/xvda", "Ebs": map[string]any{"VolumeSize": int64(8), "Encrypted": true},
		}},
		"TagSpecifications": []any{map[string]any{"ResourceType": "instance", "Tags": []any{map[string]any{"Key": "k", "Value": "a b&c"}}}},
	}
	if diff := cmp.Diff(want, f.last(t).Params); diff != "" {
		t.Errorf("params (-want +got):\n%s", diff)
	}
	got := out.Instances[0]
	if *got.InstanceId != "i-1" || got.State.Name != "pending" || *got.Tags[0].Value != "<&>" || got.LaunchTime.Nanosecond() != 4e6 {
		t.Errorf("answer: %+v", got)
	}
}
