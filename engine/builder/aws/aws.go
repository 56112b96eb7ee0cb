// Package aws builds Amazon machine images on EC2 instances.
//
// A base is resolved to an AMI id. The steps of an image run one after another on one
// instance, the bench; its state is kept as a checkpoint AMI where that was asked for or has
// become dear. From the sealed bench comes a candidate AMI, which is booted on a fresh
// instance, tested, and then published: its tags change, its bytes don't.
//
// Whatever is made is claimed in the ledger before, carries the tags of its run, node and
// claim from its creation on, and is found again by them alone. Idempotency tokens are made
// of run and node. Nothing is looked up by name alone: owners are always asked for, and
// checked again in the answers.
//
// Instances need IMDSv2. Over SSM they have no inbound rule at all; over SSH one for the
// caller's own address. No secret is ever part of user data or a tag.
package aws

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/builder/aws/client"
	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/spec"
)

// Kind is the builder's name in the language.
const Kind = "aws"

// Config says where AWS is and how to wait for it. The zero value is ready to use.
type Config struct {
	// Endpoint is the address of all services; empty leaves it to the SDK, which has AWS_ENDPOINT_URL.
	Endpoint string
	// Credentials give the key that calls are signed with; nil leaves that to the SDK's chain.
	Credentials sdk.CredentialsProvider
	// Log is told about throttles and about what can only be told there; nil discards it.
	Log *slog.Logger
	// Now is the clock of expiry dates; nil is time.Now.
	Now func() time.Time
	// Transport carries the requests; nil is the SDK's own.
	Transport http.RoundTripper
	Timing    Timing
}

// Timing bounds calls and waiting. A zero field means its default.
type Timing struct {
	client.Timing
	// Poll is the pause before the first look at what is awaited, PollMost what the pause
	// grows to; default 2s and 15s.
	Poll, PollMost time.Duration
	// Looks is for how long something that may have been made, and whose answer was lost, is
	// looked for before it counts as never made; default 6s.
	Looks time.Duration
	// Command is how long a command over SSM is thought to take before one was seen; default
	// 500ms.
	Command time.Duration
	// Lease is how long what an unfinished run made is left alone by other machines; default 24h.
	Lease time.Duration
}

func (t Timing) withDefaults() Timing {
	t.Poll = cmp.Or(t.Poll, 2*time.Second)
	t.PollMost = cmp.Or(t.PollMost, 15*time.Second)
	t.Looks = cmp.Or(t.Looks, 6*time.Second)
	t.Lease = cmp.Or(t.Lease, 24*time.Hour)
	return t
}

// Builder is the builder of AMIs. Safe for concurrent use.
type Builder struct {
	clients *client.Clients
	config  Config
	// connect reaches an instance. Tests without machines replace it.
	connect connector

	mu      sync.Mutex
	regions map[string]*region
	benches map[string]*bench
	boots   int // counts test instances, since each needs a token of its own
}

var _ builder.Builder = (*Builder)(nil)

// New returns a builder. It makes no call and looks at no credentials.
func New(c Config) (*Builder, error) {
	clients, err := client.New(client.Config{Endpoint: c.Endpoint, Credentials: c.Credentials, Transport: c.Transport, Log: c.Log, Timing: c.Timing.Timing})
	if err != nil {
		return nil, err
	}
	c.Timing = c.Timing.withDefaults()
	c.Timing.Timing = clients.Timing()
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	b := &Builder{clients: clients, config: c, regions: map[string]*region{}, benches: map[string]*bench{}}
	b.connect = b.reach
	return b, nil
}

// Kind returns "aws".
func (b *Builder) Kind() string { return Kind }

// Stacks returns false: steps change one instance.
func (b *Builder) Stacks() bool { return false }

// Unsupported reports what a pipeline asks for that AMIs can't be made with.
func (b *Builder) Unsupported(p *spec.Pipeline) diag.List {
	var l diag.List
	const code = "unsupported"
	if p.AWS == nil {
		l.Addf(diag.Pos{File: p.File}, code, "add builders.aws with a region", "the pipeline doesn't say how to build on AWS")
		return l
	}
	if p.Base.Other != "" {
		l.Addf(p.Base.Pos, code, "use ami, ssm, a publisher such as debian, or image", "the aws builder can't start from a base of kind %q yet", p.Base.Other)
	}
	if d := p.Base.Distro; d != nil && (p.Base.Known == nil || d.Snapshot != "" || d.Mirror != "" || len(d.Packages) > 0 || !d.Bootable) {
		l.Addf(p.Base.Pos, code, "give the version alone, and install packages in a step",
			"the aws builder starts from the publisher's own image of %s, which has no snapshot, mirror, packages or variants", d.Distro)
	}
	if h := p.Harden; h != nil {
		l.Addf(h.Pos, code, "remove the section, or harden with steps of customize", "the aws builder can't harden yet")
	}
	if p.Publish != nil && p.Publish.Share != nil {
		l.Addf(p.Publish.Share.Pos, code, "remove share", "the aws builder can't share images yet")
	}
	for _, v := range p.AWS.Volumes {
		if v.Encrypted != nil && !*v.Encrypted && v.KMSKey != "" {
			l.Addf(v.Pos, code, "remove one of the two", "a volume with a key is encrypted")
		}
	}
	for _, name := range sortedKeys(p.Secrets) {
		if s := p.Secrets[name]; !slices.Contains([]string{"env", "file", "exec"}, s.Source) {
			l.Addf(s.Pos, code, "use env, file or exec", "secrets from %s can't be read yet", s.Source)
		}
	}
	return l
}

func (b *Builder) region(ctx context.Context, name string) (*region, error) {
	clients, err := b.clients.Region(ctx, name)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.regions[clients.Name]
	if r == nil {
		r = b.newRegion(clients)
		b.regions[clients.Name] = r
	}
	return r, nil
}

// home is the region that a pipeline builds in.
func (b *Builder) home(ctx context.Context, p *spec.Pipeline) (*region, error) {
	if p.AWS == nil {
		return nil, fmt.Errorf("%s has no builders.aws", p.File)
	}
	return b.region(ctx, p.AWS.Region)
}

// say tells people what is being done.
func say(w io.Writer, format string, args ...any) {
	if w != nil {
		// What is only told may be lost.
		_, _ = fmt.Fprintf(w, format+"\n", args...)
	}
}
