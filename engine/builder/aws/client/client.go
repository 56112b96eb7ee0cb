// Package client makes the AWS clients of one account: EC2, SSM, IAM and the others, one
// set per region.
//
// What goes in is where AWS is and how long to be patient; the SDK's own chain (environment,
// shared files, roles) gives the credentials unless they are given, and nothing is looked at
// before the first call. Every call of every client passes one [pacer] (per region and kind of
// call), is tried again by one retryer while time is left, has a time limit per try, and fails
// with an [Error] that says what to do. The package makes no resource, and never logs a
// parameter.
package client

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2instanceconnect"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/logging"
)

// Config says where AWS is.
type Config struct {
	// Endpoint is the address of all services, such as "http://127.0.0.1:4566"; empty leaves
	// it to the SDK, which has AWS_ENDPOINT_URL.
	Endpoint string
	// Credentials give the key that calls are signed with; nil leaves that to the SDK's chain.
	Credentials aws.CredentialsProvider
	// Transport carries the requests; nil is the SDK's own. Tests count and break calls here.
	Transport http.RoundTripper
	// Log is told about throttles and long retries; nil discards it.
	Log    *slog.Logger
	Timing Timing
}

// Timing bounds calls. A zero field means its default.
type Timing struct {
	// Attempt is how long one try of a call may take; default 30s.
	Attempt time.Duration
	// Patience is how long a call that is throttled or meets a fault of AWS is tried again; default 5m.
	Patience time.Duration
	// Unreachable is how long a call is tried again while nobody answers at the address; default 30s.
	Unreachable time.Duration
	// Settling is how long what was just made may still be unknown to other calls; default 2m.
	Settling time.Duration
	// Backoff is the first pause between tries; it doubles up to 20 times the Backoff. Default 500ms.
	Backoff time.Duration
}

func (t Timing) withDefaults() Timing {
	t.Attempt = cmp.Or(t.Attempt, 30*time.Second)
	t.Patience = cmp.Or(t.Patience, 5*time.Minute)
	t.Unreachable = cmp.Or(t.Unreachable, 30*time.Second)
	t.Settling = cmp.Or(t.Settling, 2*time.Minute)
	t.Backoff = cmp.Or(t.Backoff, 500*time.Millisecond)
	return t
}

// Clients are the clients of one account. Safe for concurrent use.
type Clients struct {
	config  Config
	pacer   *pacer
	retryer *retryer

	mu      sync.Mutex
	loaded  *aws.Config
	regions map[string]*Region
	caller  *Caller
}

// Region holds the clients of one region.
type Region struct {
	// Name is the region's, such as "eu-west-1".
	Name    string
	EC2     EC2
	SSM     *ssm.Client
	Connect *ec2instanceconnect.Client
	IAM     IAM
	KMS     *kms.Client
	STS     *sts.Client
}

// Caller is whose credentials are used.
type Caller struct {
	// Account has 12 digits.
	Account string
	// ARN of the user or the assumed role.
	ARN string
}

// New returns the clients. It makes no call, and looks at no credentials.
func New(c Config) (*Clients, error) {
	if c.Endpoint != "" {
		u, err := url.Parse(c.Endpoint)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, fmt.Errorf("endpoint %q is no address; write it like http://127.0.0.1:4566", c.Endpoint)
		}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Timing = c.Timing.withDefaults()
	p := newPacer(isLocal(c.Endpoint), c.Log)
	return &Clients{config: c, pacer: p, retryer: newRetryer(p, c.Timing, c.Log), regions: map[string]*Region{}}, nil
}

// Timing returns the bounds in use, defaults filled in.
func (c *Clients) Timing() Timing { return c.config.Timing }

// Region returns the clients of a region; an empty name is the region that the SDK finds in
// the environment or the shared files. The first call reads those files.
func (c *Clients) Region(ctx context.Context, name string) (*Region, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.load(ctx); err != nil {
		return nil, err
	}
	name = cmp.Or(name, c.loaded.Region)
	if name == "" {
		return nil, fmt.Errorf("no region is known; set builders.aws.region, or AWS_REGION")
	}
	if r := c.regions[name]; r != nil {
		return r, nil
	}
	cfg := c.loaded.Copy()
	cfg.Region = name
	r := &Region{
		Name: name, EC2: newEC2(ec2.NewFromConfig(cfg)), SSM: ssm.NewFromConfig(cfg), Connect: ec2instanceconnect.NewFromConfig(cfg),
		IAM: newIAM(iam.NewFromConfig(cfg)), KMS: kms.NewFromConfig(cfg), STS: sts.NewFromConfig(cfg),
	}
	c.regions[name] = r
	return r, nil
}

// load reads the SDK's configuration once. The caller holds the lock.
func (c *Clients) load(ctx context.Context) error {
	if c.loaded != nil {
		return nil
	}
	options := []func(*config.LoadOptions) error{config.WithLogger(logging.LoggerFunc(c.note))}
	if c.config.Endpoint != "" {
		options = append(options, config.WithBaseEndpoint(c.config.Endpoint))
	}
	if c.config.Credentials != nil {
		options = append(options, config.WithCredentialsProvider(c.config.Credentials))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return fmt.Errorf("read the AWS configuration: %w", err)
	}
	// The endpoint may have come from the environment or the shared files.
	if isLocal(aws.ToString(cfg.BaseEndpoint)) {
		c.pacer.hurry()
	}
	if c.config.Transport != nil {
		// Only now: while loading, the SDK wants to add AWS_CA_BUNDLE to its own client.
		cfg.HTTPClient = &http.Client{Transport: c.config.Transport, CheckRedirect: noRedirect}
	}
	cfg.HTTPClient = ownBody{cfg.HTTPClient}
	// Only now too: what looks for credentials has short patience of its own, made for a
	// metadata service that isn't there.
	cfg.Retryer = func() aws.Retryer { return c.retryer }
	cfg.APIOptions = append(cfg.APIOptions, middlewares(c)...)
	cfg.Credentials = credentials{cfg.Credentials}
	c.loaded = &cfg
	return nil
}

// note takes what the SDK would print itself. Its warnings are for the debug log only: what
// matters of them, such as that credentials are nowhere to be found, is in the error of the
// call. The parts that look for credentials keep the logger that they are made with.
func (c *Clients) note(kind logging.Classification, format string, args ...any) {
	c.config.Log.Debug("the AWS SDK says", "kind", string(kind), "text", fmt.Sprintf(format, args...))
}

// noRedirect keeps a signed request from going to another host.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Caller asks once whose credentials are used.
func (c *Clients) Caller(ctx context.Context, region string) (Caller, error) {
	c.mu.Lock()
	known := c.caller
	c.mu.Unlock()
	if known != nil {
		return *known, nil
	}
	r, err := c.Region(ctx, region)
	if err != nil {
		return Caller{}, err
	}
	out, err := Call(ctx, r.STS.GetCallerIdentity, &sts.GetCallerIdentityInput{})
	if err != nil {
		return Caller{}, fmt.Errorf("ask whose credentials are used: %w", err)
	}
	found := Caller{Account: aws.ToString(out.Account), ARN: aws.ToString(out.Arn)}
	c.mu.Lock()
	c.caller = &found
	c.mu.Unlock()
	return found, nil
}

// Call makes a call of a client; its error is an *[Error] without the SDK's own wrapping.
func Call[I, O, P any](ctx context.Context, f func(context.Context, *I, ...func(*P)) (*O, error), in *I) (*O, error) {
	out, err := f(ctx, in)
	return out, Trim(err)
}
