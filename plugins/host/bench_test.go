package host

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"

	"github.com/gildhq/gild/plugins/proto/pluginv1"
	"github.com/gildhq/gild/plugins/store"
)

// bare starts the same program as go-plugin alone does, with the same security.
func bare(b *testing.B, c store.Content) (*goplugin.Client, pluginv1.StepPluginClient) {
	b.Helper()
	sum, err := hex.DecodeString(strings.TrimPrefix(c.Digest, "sha256:"))
	if err != nil {
		b.Fatal(err)
	}
	client := goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig:  goplugin.HandshakeConfig{MagicCookieKey: pluginv1.CookieKey, MagicCookieValue: pluginv1.CookieValue},
		VersionedPlugins: map[int]goplugin.PluginSet{1: {pluginv1.PluginName: service{}}},
		Cmd:              exec.Command(filepath.Join(c.Dir, store.Program)),
		SecureConfig:     &goplugin.SecureConfig{Checksum: sum, Hash: sha256.New()},
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		AutoMTLS:         true,
		SkipHostEnv:      true,
		Logger:           hclog.NewNullLogger(),
	})
	proto, err := client.Client()
	if err != nil {
		b.Fatal(err)
	}
	rpc, err := proto.Dispense(pluginv1.PluginName)
	if err != nil {
		b.Fatal(err)
	}
	return client, rpc.(pluginv1.StepPluginClient)
}

// installSelf adds the test binary itself, as a plugin that is a single program.
func installSelf(b *testing.B, s *store.Store) store.Content {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	c, err := s.Add(context.Background(), self)
	if err != nil {
		b.Fatal(err)
	}
	return c
}

// BenchmarkStart measures from nothing to the first answer, as a ratio to go-plugin alone
// with AutoMTLS and SecureConfig: at most 1.5.
func BenchmarkStart(b *testing.B) {
	h := newHost(b, nil)
	c := installSelf(b, h.cfg.Store)
	ctx := context.Background()
	var ours, theirs []time.Duration
	for b.Loop() {
		began := time.Now()
		p, err := h.start(ctx, c)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := p.rpc.Describe(ctx, &pluginv1.DescribeRequest{}); err != nil {
			b.Fatal(err)
		}
		ours = append(ours, time.Since(began))
		p.stop(errClosed)

		began = time.Now()
		client, rpc := bare(b, c)
		if _, err := rpc.Describe(ctx, &pluginv1.DescribeRequest{}); err != nil {
			b.Fatal(err)
		}
		theirs = append(theirs, time.Since(began))
		client.Kill()
	}
	report(b, ours, theirs)
}

// BenchmarkCall measures a call with one answer, as a ratio to one of go-plugin alone: at
// most 1.5.
func BenchmarkCall(b *testing.B) {
	h := newHost(b, nil)
	c := installSelf(b, h.cfg.Store)
	ctx := context.Background()
	steps, err := h.Steps(ctx, c)
	if err != nil {
		b.Fatal(err)
	}
	client, rpc := bare(b, c)
	defer client.Kill()
	config := do("")
	var ours, theirs []time.Duration
	for b.Loop() {
		began := time.Now()
		if _, err := steps[0].Validate(ctx, config); err != nil {
			b.Fatal(err)
		}
		ours = append(ours, time.Since(began))
		began = time.Now()
		if _, err := rpc.Validate(ctx, &pluginv1.ValidateRequest{Step: "acme/test", Config: config}); err != nil {
			b.Fatal(err)
		}
		theirs = append(theirs, time.Since(began))
	}
	report(b, ours, theirs)
}

// report gives the median times and their ratio. Both were taken by turns, so that what else
// the machine does weighs on both.
func report(b *testing.B, ours, theirs []time.Duration) {
	b.Helper()
	slices.Sort(ours)
	slices.Sort(theirs)
	host, alone := ours[len(ours)/2], theirs[len(theirs)/2]
	b.ReportMetric(float64(host.Nanoseconds())/1e3, "host-µs")
	b.ReportMetric(float64(alone.Nanoseconds())/1e3, "go-plugin-µs")
	b.ReportMetric(float64(host)/float64(alone), "ratio")
}

// BenchmarkLog measures how fast lines of 100 bytes come from a step to its log: at least
// 100,000 a second.
func BenchmarkLog(b *testing.B) {
	h := newHost(b, nil)
	s, _ := started(b, h, plugin{})
	target, _ := newTarget()
	lines := &counter{}
	target.Log = lines
	const each = 100_000
	for b.Loop() {
		if _, err := s.Run(context.Background(), target, do("flood", each*100)); err != nil {
			b.Fatal(err)
		}
	}
	if lines.n != int64(b.N)*each {
		b.Errorf("%d lines came, of %d", lines.n, int64(b.N)*each)
	}
	b.ReportMetric(float64(lines.n)/b.Elapsed().Seconds(), "lines/s")
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(bytes.Count(p, []byte("\n")))
	return len(p), nil
}
