package sandbox

import (
	"log/slog"
	"net/netip"
	"time"
)

// The account and key that need no setting up.
const (
	// DefaultAccount is the account of the access key [DefaultKey].
	DefaultAccount = "111122223333"
	// DefaultKey is an access key, and the secret of every access key that the sandbox
	// knows by itself: this one, and "AKIA" followed by twelve digits and anything, which
	// acts in the account of these digits.
	DefaultKey = "sandbox"
	// DefaultRegion is where [Server.AddImage] reads the id of an image that is in all regions.
	DefaultRegion = "us-east-1"
)

// Config says how a sandbox behaves. Only Dir is required.
type Config struct {
	// Dir is the state folder; it is made when there is none, and nothing outside it is
	// written. One sandbox at a time can have it.
	Dir string
	// Machines makes what is behind instances. Nil: instances never answer, and have
	// bytes only where snapshots have.
	Machines Machines
	// Now is the clock; nil means time.Now. [Server.Advance] turns what the sandbox
	// makes of it.
	Now func() time.Time
	// Pace is how long pending states last, as a part of what they last on AWS: 1 as
	// there, 0.01 a hundredth. 0 ends them as soon as the work behind them is done.
	Pace float64
	// Log takes what the sandbox can't tell a caller; nil discards it.
	Log *slog.Logger
	// Loopback is where instances get their public addresses from; the zero value means
	// 127.8.0.0/16.
	Loopback netip.Prefix
	// Quotas of every account and region. A zero field means AWS's default for a new account.
	Quotas Quotas
}

// Quotas bound what an account may have in a region. A zero field means AWS's default.
type Quotas struct {
	// VCPUs of running on-demand instances, and SpotVCPUs of spot instances: 64 each.
	VCPUs, SpotVCPUs int
	// Images, deregistered ones not counted: 50,000.
	Images int
	// PublicImages: 5.
	PublicImages int
	// Snapshots: 100,000.
	Snapshots int
	// PendingSnapshots is how many snapshots of one volume may be pending: 5.
	PendingSnapshots int
	// Groups is how many security groups a VPC may have: 500.
	Groups int
	// Rules is how many rules in one direction a security group may have: 60.
	Rules int
	// KeyPairs: 5,000.
	KeyPairs int
}

func (q Quotas) withDefaults() Quotas {
	for _, d := range []struct {
		field *int
		value int
	}{
		{&q.VCPUs, 64}, {&q.SpotVCPUs, 64}, {&q.Images, 50_000}, {&q.PublicImages, 5},
		{&q.Snapshots, 100_000}, {&q.PendingSnapshots, 5}, {&q.Groups, 500}, {&q.Rules, 60}, {&q.KeyPairs, 5_000},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	return q
}

func (c Config) withDefaults() Config {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if !c.Loopback.IsValid() {
		c.Loopback = netip.MustParsePrefix("127.8.0.0/16")
	}
	c.Quotas = c.Quotas.withDefaults()
	return c
}
