package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
)

// Error is a call that failed. It wraps the SDK's error.
type Error struct {
	// Service and Operation are the SDK's names: "EC2", "RunInstances".
	Service, Operation, Region string
	// Code and Message are AWS's, empty when AWS didn't answer.
	Code, Message string
	// RequestID is what AWS's support asks for; empty when AWS didn't answer.
	RequestID string
	// Hint says what to do; may be empty.
	Hint string
	// Tried is how long the call was tried again, 0 when trying again was no use.
	Tried time.Duration
	Err   error
}

// Error names the call, the region, what AWS said and what to do.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s in %s: ", e.Service, e.Operation, e.Region)
	if e.Code == "" {
		b.WriteString(e.Err.Error())
	} else {
		fmt.Fprintf(&b, "%s: %s", e.Code, strings.TrimRight(e.Message, ". \n"))
	}
	if e.RequestID != "" {
		fmt.Fprintf(&b, " (request %s)", e.RequestID)
	}
	if e.Tried > 0 {
		fmt.Fprintf(&b, ", tried for %s", e.Tried.Round(time.Second))
	}
	if e.Hint != "" {
		fmt.Fprintf(&b, "; %s", e.Hint)
	}
	return b.String()
}

// Unwrap returns the SDK's error.
func (e *Error) Unwrap() error { return e.Err }

// Trim takes the SDK's wrapping from an error of a call, leaving the *[Error].
func Trim(err error) error {
	var op *smithy.OperationError
	var e *Error
	if errors.As(err, &op) && errors.As(op.Err, &e) {
		return e
	}
	return err
}

// HasCode reports whether AWS refused with one of these codes.
func HasCode(err error, codes ...string) bool {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return false
	}
	for _, c := range codes {
		if api.ErrorCode() == c {
			return true
		}
	}
	return false
}

func (c *Clients) explain(ctx context.Context, meta middleware.Metadata, err error) error {
	if err == nil || ctx.Value(rawKey{}) != nil {
		return err
	}
	if ctx.Err() != nil {
		err = errors.Join(context.Cause(ctx), hideCancel{err})
	}
	e := &Error{
		Service: awsmiddleware.GetServiceID(ctx), Operation: awsmiddleware.GetOperationName(ctx), Region: awsmiddleware.GetRegion(ctx), Err: err,
	}
	e.RequestID, _ = awsmiddleware.GetRequestIDMetadata(meta)
	var api smithy.APIError
	if errors.As(err, &api) {
		e.Code, e.Message = api.ErrorCode(), api.ErrorMessage()
	}
	var gone *gaveUp
	if errors.As(err, &gone) {
		e.Tried = gone.after
	}
	e.Hint = c.hint(ctx, e)
	return e
}

// hideCancel shortens what the SDK says about a call that was cancelled.
type hideCancel struct{ error }

func (h hideCancel) Error() string { return "the call was cut off" }
func (h hideCancel) Unwrap() error { return h.error }

func (c *Clients) hint(ctx context.Context, e *Error) string {
	switch e.Code {
	case "":
		return c.silent(e)
	case "UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "Client.UnauthorizedOperation":
		return c.denied(ctx, e)
	case "ExpiredToken", "ExpiredTokenException", "RequestExpired":
		return "the credentials have expired: sign in again, then run gild resume"
	case "InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch", "InvalidAccessKeyId":
		return "AWS doesn't know these credentials: check AWS_PROFILE, or AWS_ACCESS_KEY_ID and its secret"
	case "AuthFailure":
		if strings.Contains(e.Message, "credentials") {
			return fmt.Sprintf("check the credentials, and that the region %s is enabled for the account", e.Region)
		}
	case "OptInRequired":
		return fmt.Sprintf("enable the region %s for the account, or choose another", e.Region)
	case "PendingVerification":
		return "AWS is still verifying the account for this region; it writes an e-mail when it is done"
	}
	if isQuota(e.Code) {
		return "ask for a higher quota in the console's Service Quotas, or remove what isn't needed; gild gc removes what builds left"
	}
	return ""
}

func isQuota(code string) bool {
	return strings.HasSuffix(code, "LimitExceeded") && code != "RequestLimitExceeded" && code != "BandwidthLimitExceeded" ||
		strings.HasSuffix(code, "QuotaExceeded") || code == "MaxSpotInstanceCountExceeded" || code == "LimitExceededException"
}

// silent is the hint for a call that AWS didn't answer.
func (c *Clients) silent(e *Error) string {
	var noCreds *credentialsError
	if errors.As(e.Err, &noCreds) {
		return "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
	}
	var dns *net.DNSError
	if errors.As(e.Err, &dns) && dns.IsNotFound && c.config.Endpoint == "" {
		return fmt.Sprintf("check that %q is a region, and the network", e.Region)
	}
	var op *net.OpError
	if errors.As(e.Err, &op) && op.Op == "dial" && c.config.Endpoint != "" {
		return fmt.Sprintf("check that something answers at %s", c.config.Endpoint)
	}
	return ""
}

const encodedMark = "Encoded authorization failure message: "

// denied names the IAM action that is missing, decoding what EC2 says when that is allowed.
func (c *Clients) denied(ctx context.Context, e *Error) string {
	action := strings.ToLower(strings.ReplaceAll(e.Service, " ", "-")) + ":" + e.Operation
	before, encoded, ok := strings.Cut(e.Message, encodedMark)
	if !ok {
		return fmt.Sprintf("allow %s to these credentials; gild schema iam prints the least policy", action)
	}
	e.Message = strings.TrimSpace(before)
	d, err := c.decode(ctx, e.Region, strings.TrimSpace(encoded))
	if err != nil {
		return fmt.Sprintf("allow %s to these credentials; gild schema iam prints the least policy (why it was denied can't be decoded: that takes sts:DecodeAuthorizationMessage)", action)
	}
	if d.ExplicitDeny {
		return fmt.Sprintf("a policy denies %s on %s to %s", d.Context.Action, d.Context.Resource, d.Context.Principal.ARN)
	}
	return fmt.Sprintf("allow %s on %s to %s; gild schema iam prints the least policy", d.Context.Action, d.Context.Resource, d.Context.Principal.ARN)
}

// decision is the part of a decoded authorization message that helps.
type decision struct {
	ExplicitDeny bool `json:"explicitDeny"`
	Context      struct {
		Principal struct {
			ARN string `json:"arn"`
		} `json:"principal"`
		Action   string `json:"action"`
		Resource string `json:"resource"`
	} `json:"context"`
}

func (c *Clients) decode(ctx context.Context, region, encoded string) (decision, error) {
	var d decision
	r, err := c.Region(ctx, region)
	if err != nil {
		return d, err
	}
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, rawKey{}, true), c.config.Timing.Attempt)
	defer cancel()
	out, err := r.STS.DecodeAuthorizationMessage(ctx, &sts.DecodeAuthorizationMessageInput{EncodedMessage: &encoded})
	if err != nil {
		return d, err
	}
	if err := json.Unmarshal([]byte(aws.ToString(out.DecodedMessage)), &d); err != nil {
		return d, err
	}
	if d.Context.Action == "" {
		return d, errors.New("the decoded message names no action")
	}
	return d, nil
}
