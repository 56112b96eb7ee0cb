package aws

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"strings"
	"time"
	"unicode"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/spec"
)

// Tags that everything carries from its creation on.
const (
	tagRun      = "gild:run"
	tagNode     = "gild:node"
	tagKind     = "gild:kind"
	tagToken    = "gild:token"
	tagExpires  = "gild:expires"
	tagPipeline = "gild:pipeline"
	tagName     = "Name"
	// Images also have these.
	tagKey   = "gild:key"
	tagBase  = "gild:base"
	tagUser  = "gild:user"
	tagClock = "gild:clock"
	// Published images also have these.
	tagID        = "gild:id"
	tagBuild     = "gild:build"
	tagChannel   = "gild:channel"
	tagPublished = "gild:published"
)

// Values of the tag gild:kind.
const (
	kindBench      = "bench"
	kindTest       = "test"
	kindCheckpoint = "checkpoint"
	kindCandidate  = "candidate"
	kindPublished  = "published"
)

// Kinds of claims. Their ids are "region/token".
const (
	claimInstance = "aws-instance"
	claimImage    = "aws-image"
	claimSnapshot = "aws-snapshot"
	claimVolume   = "aws-volume"
	claimKeyPair  = "aws-key-pair"
	claimGroup    = "aws-security-group"
	claimProfile  = "aws-profile"
	claimSpot     = "aws-spot-request"
)

// token is constant over all attempts at one piece of work, in every process.
func token(w builder.Work, what string, n int) string {
	return digest(w.Run, w.Node, what, fmt.Sprint(n))
}

func digest(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:16])
}

// order is one piece of work that makes something in a region.
type order struct {
	p      *spec.Pipeline
	ledger builder.Ledger
	region *region
	// kind is the value of gild:kind, token that of gild:token.
	kind, token string
	// name is for people.
	name    string
	expires time.Time
	more    map[string]string
	// adopted is set when another run turned out to be making the image.
	adopted bool
}

// newOrder begins a piece of work, the nth of its sort in this process.
func (b *Builder) newOrder(r *region, p *spec.Pipeline, l builder.Ledger, kind, what string, n int) order {
	w := l.Work()
	return order{
		p: p, ledger: l, region: r, kind: kind, token: token(w, what, n), name: "gild " + kind + " " + p.Name,
		// Made once, since a call that is repeated must ask for the same.
		expires: b.config.Now().Add(b.config.Timing.Lease), more: map[string]string{},
	}
}

// claim records what is about to be made.
func (o *order) claim(ctx context.Context, kind, note string) (builder.Claim, error) {
	return o.ledger.Intent(ctx, builder.Resource{Kind: kind, ID: o.region.Name + "/" + o.token, Note: note + " of " + o.p.Name})
}

// tags are the tags of everything that the order makes.
func (o *order) tags() []types.Tag {
	w := o.ledger.Work()
	all := maps.Clone(o.p.AWS.Tags)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, map[string]string{
		tagRun: w.Run, tagNode: w.Node, tagKind: o.kind, tagToken: o.token, tagPipeline: pipelineName(o.p), tagName: o.name,
		tagExpires: stamp(o.expires),
	})
	maps.Copy(all, o.more)
	return makeTags(all)
}

// pipelineName tells the images of one matrix apart.
func pipelineName(p *spec.Pipeline) string {
	if p.Cell == "" {
		return p.Name
	}
	return p.Name + " " + p.Cell
}

func (o *order) tagged(kinds ...types.ResourceType) []types.TagSpecification {
	var specs []types.TagSpecification
	for _, k := range kinds {
		specs = append(specs, types.TagSpecification{ResourceType: k, Tags: o.tags()})
	}
	return specs
}

func makeTags(m map[string]string) []types.Tag {
	var tags []types.Tag
	for _, k := range sortedKeys(m) {
		tags = append(tags, types.Tag{Key: aws.String(k), Value: aws.String(tagText(m[k]))})
	}
	return tags
}

// maxTag is the most characters that the value of a tag may have.
const maxTag = 256

// tagText leaves what all services allow in a tag.
func tagText(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune(" +-=._:/@", r) {
			return r
		}
		return '_'
	}, s)
	if r := []rune(s); len(r) > maxTag {
		s = string(r[:maxTag])
	}
	return s
}

func tagValue(tags []types.Tag, key string) string {
	for _, t := range tags {
		if aws.ToString(t.Key) == key {
			return aws.ToString(t.Value)
		}
	}
	return ""
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// imageName makes the name of an AMI out of a text and what makes it unique. EC2 allows 3 to
// 128 characters of few kinds.
func imageName(text, unique string) string {
	text = strings.Map(func(r rune) rune {
		if r < 128 && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("()[] ./-'@_", r)) {
			return r
		}
		return '-'
	}, text)
	const most = 128
	return text[:min(len(text), most-1-len(unique))] + "-" + unique
}

// shortKey is how a key is shown.
func shortKey(key string) string { return key[:min(12, len(key))] }
