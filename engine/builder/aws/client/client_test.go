package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"go.uber.org/goleak"

	"github.com/gildhq/gild/engine/builder/aws/client"
)

func TestMain(m *testing.M) {
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "AKIDTEST", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
	} {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m)
}

const (
	good = `<DescribeRegionsResponse><requestId>ok</requestId><regionInfo/></DescribeRegionsResponse>`
	bad  = `<Response><Errors><Error><Code>%s</Code><Message>%s</Message></Error></Errors><RequestID>req-7</RequestID></Response>`
)

// quick makes waiting short.
var quick = client.Timing{
	Attempt: 2 * time.Second, Patience: 3 * time.Second, Unreachable: 300 * time.Millisecond, Settling: 300 * time.Millisecond, Backoff: 5 * time.Millisecond,
}

// serve answers the nth call, from 1, as it is told.
func serve(t *testing.T, timing client.Timing, answer func(n int64, w http.ResponseWriter, r *http.Request)) (*client.Region, *atomic.Int64) {
	t.Helper()
	var calls atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(calls.Add(1), w, r) }))
	t.Cleanup(srv.Close)
	c, err := client.New(client.Config{Endpoint: srv.URL, Timing: timing, Transport: srv.Client().Transport})
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Region(t.Context(), "eu-west-1")
	if err != nil {
		t.Fatal(err)
	}
	return r, &calls
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.WriteHeader(status)
	fmt.Fprintf(w, bad, code, message)
}

// hang waits until the caller has gone. The server only sees that once the body is read.
func hang(t *testing.T, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		t.Error(err)
	}
	<-r.Context().Done()
}

func describe(ctx context.Context, r *client.Region) error {
	_, err := client.Call(ctx, r.EC2.DescribeRegions, &ec2.DescribeRegionsInput{})
	return err
}

func TestPassingFailuresAreTriedAgain(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		answer func(w http.ResponseWriter)
	}{
		{"throttle", func(w http.ResponseWriter) { refuse(w, 503, "RequestLimitExceeded", "Request limit exceeded.") }},
		{"fault of AWS", func(w http.ResponseWriter) { refuse(w, 500, "InternalError", "An internal error has occurred") }},
		{"lost answer", func(http.ResponseWriter) { panic(http.ErrAbortHandler) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, calls := serve(t, quick, func(n int64, w http.ResponseWriter, _ *http.Request) {
				if n <= 5 {
					tt.answer(w)
					return
				}
				fmt.Fprint(w, good)
			})
			if err := describe(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			if n := calls.Load(); n != 6 {
				t.Errorf("%d calls", n)
			}
		})
	}
}

func TestATryThatHangsIsGivenUp(t *testing.T) {
	t.Parallel()
	timing := quick
	timing.Attempt = 100 * time.Millisecond
	r, calls := serve(t, timing, func(n int64, w http.ResponseWriter, r *http.Request) {
		if n == 1 {
			hang(t, r)
			return
		}
		fmt.Fprint(w, good)
	})
	if err := describe(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if n := calls.Load(); n != 2 {
		t.Errorf("%d calls", n)
	}
}

func TestPatienceEnds(t *testing.T) {
	t.Parallel()
	timing := quick
	timing.Patience = 200 * time.Millisecond
	r, calls := serve(t, timing, func(_ int64, w http.ResponseWriter, _ *http.Request) {
		refuse(w, 503, "Unavailable", "The service is unavailable.")
	})
	err := describe(t.Context(), r)
	var e *client.Error
	if !errors.As(err, &e) || e.Code != "Unavailable" || e.Tried < timing.Patience || !strings.Contains(err.Error(), "tried for") {
		t.Fatalf("error %v", err)
	}
	if n := calls.Load(); n < 3 {
		t.Errorf("gave up after %d calls", n)
	}
}

func TestFinalFailuresAreNot(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		status     int
		code, text string
		want       string
	}{
		{500, "InsufficientInstanceCapacity", "no capacity", "EC2 DescribeRegions in eu-west-1: InsufficientInstanceCapacity: no capacity (request req-7)"},
		{400, "InvalidAMIID.NotFound", "The image id '[ami-1]' does not exist", "does not exist (request req-7)"},
		{400, "VcpuLimitExceeded", "You have requested more vCPU capacity", "Service Quotas"},
		{400, "RequestExpired", "Request has expired.", "sign in again"},
		{403, "OptInRequired", "You are not subscribed to this service.", "enable the region eu-west-1"},
		{403, "UnauthorizedOperation", "You are not authorized to perform this operation.", "allow ec2:DescribeRegions"},
		{401, "AuthFailure", "AWS was not able to validate the provided access credentials", "check the credentials"},
	} {
		t.Run(tt.code, func(t *testing.T) {
			t.Parallel()
			r, calls := serve(t, quick, func(_ int64, w http.ResponseWriter, _ *http.Request) { refuse(w, tt.status, tt.code, tt.text) })
			err := describe(t.Context(), r)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !client.HasCode(err, tt.code) {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
			if n := calls.Load(); n != 1 {
				t.Errorf("%d calls", n)
			}
		})
	}
}

func TestADeniedMessageIsDecoded(t *testing.T) {
	t.Parallel()
	const decoded = `{"allowed":false,"explicitDeny":%v,"context":{"principal":{"arn":"arn:aws:iam::111122223333:user/ci"},"action":"ec2:RunInstances","resource":"arn:aws:ec2:eu-west-1::image/ami-1"}}`
	for _, tt := range []struct {
		name, decoded, want string
	}{
		{"missing", fmt.Sprintf(decoded, false), "allow ec2:RunInstances on arn:aws:ec2:eu-west-1::image/ami-1 to arn:aws:iam::111122223333:user/ci"},
		{"denied", fmt.Sprintf(decoded, true), "a policy denies ec2:RunInstances on"},
		{"not allowed to decode", "", "that takes sts:DecodeAuthorizationMessage"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, _ := serve(t, quick, func(_ int64, w http.ResponseWriter, r *http.Request) {
				if err := r.ParseForm(); err != nil {
					t.Error(err)
				}
				switch {
				case r.Form.Get("Action") == "DescribeRegions":
					refuse(w, 403, "UnauthorizedOperation", "You are not authorized. Encoded authorization failure message: abcDEF")
				case r.Form.Get("EncodedMessage") != "abcDEF":
					t.Errorf("decode %q", r.Form)
				case tt.decoded == "":
					w.WriteHeader(403)
					fmt.Fprint(w, `<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>`)
				default:
					fmt.Fprintf(w, `<DecodeAuthorizationMessageResponse><DecodeAuthorizationMessageResult><DecodedMessage>%s</DecodedMessage></DecodeAuthorizationMessageResult></DecodeAuthorizationMessageResponse>`, tt.decoded)
				}
			})
			err := describe(t.Context(), r)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "abcDEF") {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
		})
	}
}

func TestToleratedAnswersPass(t *testing.T) {
	t.Parallel()
	answer := func(upTo int64) func(int64, http.ResponseWriter, *http.Request) {
		return func(n int64, w http.ResponseWriter, _ *http.Request) {
			if n <= upTo {
				refuse(w, 400, "InvalidGroup.NotFound", "The security group 'sg-1' does not exist")
				return
			}
			fmt.Fprint(w, good)
		}
	}
	r, _ := serve(t, quick, answer(3))
	ctx := client.Tolerate(t.Context(), client.Passing{Code: "InvalidGroup.NotFound", Text: "sg-1"})
	if err := describe(ctx, r); err != nil {
		t.Error(err)
	}
	never, _ := serve(t, quick, answer(1<<30))
	if err := describe(ctx, never); !client.HasCode(err, "InvalidGroup.NotFound") {
		t.Errorf("error %v", err)
	}
	other := client.Tolerate(t.Context(), client.Passing{Code: "InvalidGroup.NotFound", Text: "sg-2"})
	strict, calls := serve(t, quick, answer(3))
	if err := describe(other, strict); err == nil || calls.Load() != 1 {
		t.Errorf("error %v after %d calls", err, calls.Load())
	}
}

func TestNobodyAnswers(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.NotFoundHandler())
	srv.Close()
	c, err := client.New(client.Config{Endpoint: srv.URL, Timing: quick})
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Region(t.Context(), "eu-west-1")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	err = describe(t.Context(), r)
	if err == nil || !strings.Contains(err.Error(), "check that something answers at "+srv.URL) {
		t.Errorf("error %v", err)
	}
	if took := time.Since(began); took > quick.Patience {
		t.Errorf("tried for %s", took)
	}
}

func TestCancelling(t *testing.T) {
	t.Parallel()
	r, _ := serve(t, quick, func(_ int64, _ http.ResponseWriter, r *http.Request) { hang(t, r) })
	cause := errors.New("the run was stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(cause) })
	if err := describe(ctx, r); !errors.Is(err, cause) || !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestBadEndpoints(t *testing.T) {
	t.Parallel()
	for _, endpoint := range []string{"127.0.0.1:4566", "ftp://x", "http://", "://"} {
		if _, err := client.New(client.Config{Endpoint: endpoint}); err == nil {
			t.Errorf("endpoint %q was taken", endpoint)
		}
	}
}
