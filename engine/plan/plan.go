// Package plan turns resolved pipelines into a graph of nodes with keys.
//
// In go pipelines (engine/spec) and an [Env] that answers questions about the world:
// how a base resolves, what is stored under a key. Out comes a [Plan]: every node with
// its key, the parts the key was made of, and whether it is cached or will run and why.
// The package runs nothing and changes nothing; the same answers give the same bytes.
package plan

import (
	"context"
	"sync"
	"time"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/spec"
	"github.com/gildhq/gild/engine/step"
	"golang.org/x/sync/errgroup"
)

// Kind is what a node does.
type Kind string

// The kinds of nodes.
const (
	KindBase    Kind = "base"
	KindStep    Kind = "step"
	KindSeal    Kind = "seal"
	KindDisk    Kind = "disk"
	KindFiles   Kind = "files"
	KindTest    Kind = "test"
	KindPublish Kind = "publish"
	KindDeliver Kind = "deliver"
	KindCopy    Kind = "copy"
	KindRetain  Kind = "retain"
)

// Action is what will happen to a node.
type Action string

const (
	// Run means the node will be executed.
	Run Action = "run"
	// Cached means its result is stored and will be used.
	Cached Action = "cached"
	// Skip means a condition or a selection leaves it out.
	Skip Action = "skip"
	// Unneeded means its result is gone, but nothing that will run asks for it.
	Unneeded Action = "unneeded"
)

// Node is one piece of work.
type Node struct {
	// ID is unique in the plan: "web/packages", "web[arch=arm64]/disk".
	ID    string
	Kind  Kind
	Title string
	// Needs are ids of nodes that come first, sorted in the order of the graph.
	Needs []string
	// Key names the result; see [Key].
	Key string
	// Parts are what the key was made of, by name.
	Parts map[string]string
	// Layers are the keys of the machine states the node works on, bottom first.
	Layers []string
	Pos    diag.Pos
	Action Action
	// Forced says that the node runs even if its result is stored.
	Forced bool
	// Why says why the node runs (what changed) or is left out. Empty for cached nodes.
	Why []string

	Image *Image
	// Step is the step of the pipeline, or one the engine made (seal, publish, copy, retain).
	Step *spec.Step
	// Def is what the step uses.
	Def step.Step
	// Inputs are the project's files the step reads, by the text that names them.
	Inputs map[string]*Input
	// Checkpoint says that the node's state must be one that can be started from again.
	Checkpoint bool
	// Region of a copy node.
	Region string
	// Firmware that a test node's guest boots with.
	Firmware string
}

// Image is one image of the plan: a pipeline with its base resolved.
type Image struct {
	Pipeline *spec.Pipeline
	// Name is the pipeline's name with its matrix cell: "web[arch=arm64]".
	Name  string
	Base  builder.Base
	Clock time.Time
	// Whole says that a stored machine state holds all that is below it.
	Whole bool
	// Stack are the keys of all machine states of the image, bottom first, seal last.
	Stack []string
	// DiskKey is the key of the disk node, PublishKey that of the publish node or empty.
	DiskKey, PublishKey string
	// Parent is the image of this plan that the base names, or nil.
	Parent *Image
	// Retire is what retention would remove now, with the reasons.
	Retire []step.Retired
}

// Plan is the graph of everything asked for, in an order in which needs come first.
type Plan struct {
	Nodes  []*Node
	Images []*Image

	byID map[string]*Node
}

// Env is what planning asks of the world.
type Env interface {
	// ResolveBase resolves a distribution base as gild.lock and the builder have it.
	ResolveBase(ctx context.Context, p *spec.Pipeline) (builder.Base, error)
	// ResolveImage resolves a base that is an image of the catalog.
	ResolveImage(ctx context.Context, p *spec.Pipeline) (builder.Base, error)
	// Stacks reports whether the pipeline's builder keeps machine states as layers; see
	// [builder.Builder].
	Stacks(p *spec.Pipeline) bool
	// ImageVersion identifies what makes the image's disk, beside its layers and layout.
	ImageVersion(p *spec.Pipeline) (string, error)
	// Stored reports whether the node's result is stored.
	Stored(ctx context.Context, n *Node) (bool, error)
	// Previous returns the key and parts the node had the last time it was planned for a build.
	Previous(ctx context.Context, n *Node) (key string, parts map[string]string, ok bool, err error)
	// SecretDigest returns a keyed hash of a secret's value.
	SecretDigest(ctx context.Context, p *spec.Pipeline, name string) (string, error)
	// Retirable tells what the retention rule would remove if the image were published now.
	Retirable(ctx context.Context, img *Image) ([]step.Retired, error)
	// Project opens the project a pipeline file belongs to.
	Project(file string) (*Project, error)
}

// Selection narrows a plan.
type Selection struct {
	// Only keeps these nodes and what they need; Until drops everything that comes after
	// them; From runs them and what comes after them even when cached. Entries are node ids,
	// or ids without the pipeline's name when that is unambiguous.
	Only, Until, From []string
}

// Options are what planning takes besides the pipelines.
type Options struct {
	// Steps finds what a pipeline may use, and what the engine places itself.
	Steps func(p *spec.Pipeline, name string) (step.Step, bool)
	// Run names the run that is planned: part of the key of what isn't cacheable, so that
	// nothing but the run itself finds it.
	Run string
	// Epoch is SOURCE_DATE_EPOCH, or zero to use the base's clock.
	Epoch     time.Time
	Selection Selection
}

// Build makes the plan. The diagnostics hold every mistake found; with errors among
// them the plan is nil.
func Build(ctx context.Context, pipelines []*spec.Pipeline, env Env, o Options) (*Plan, diag.List, error) {
	b := &build{ctx: ctx, env: env, opts: o, byID: map[string]*Node{}, images: map[*spec.Pipeline]*Image{}}
	b.own = b.askForParts(pipelines)
	ordered := b.order(pipelines)
	if b.diags.HasErrors() {
		b.diags.Sort()
		return nil, b.diags, nil
	}
	for _, p := range ordered {
		if err := b.image(p); err != nil {
			return nil, b.diags, err
		}
	}
	b.diags.Sort()
	if b.diags.HasErrors() {
		return nil, b.diags, nil
	}
	pl := &Plan{Nodes: b.nodes, Images: b.list, byID: b.byID}
	if err := pl.decide(ctx, env, o.Selection); err != nil {
		return nil, b.diags, err
	}
	return pl, b.diags, nil
}

// Node returns the node with an id, or nil.
func (p *Plan) Node(id string) *Node { return p.byID[id] }

// build is the state of one Build.
type build struct {
	ctx    context.Context
	env    Env
	opts   Options
	diags  diag.List
	nodes  []*Node
	byID   map[string]*Node
	images map[*spec.Pipeline]*Image
	list   []*Image
	own    map[*spec.Step]ownParts
}

// ownParts is what a step answered when it was asked for parts of its key.
type ownParts struct {
	parts map[string]string
	err   error
}

// askForParts asks all steps that add to their keys, side by side: each may be a process
// that has to start. A config that waits for outputs can't be asked about.
func (b *build) askForParts(pipelines []*spec.Pipeline) map[*spec.Step]ownParts {
	var mu sync.Mutex
	var asking errgroup.Group
	asking.SetLimit(maxAsking)
	own := map[*spec.Step]ownParts{}
	for _, p := range pipelines {
		for i := range p.Steps {
			s := &p.Steps[i]
			def, _ := b.opts.Steps(p, s.Uses)
			if def.KeyParts == nil || s.Skip != "" || s.Waits() {
				continue
			}
			asking.Go(func() error {
				parts, err := def.KeyParts(b.ctx, s.With.Canonical())
				mu.Lock()
				own[s] = ownParts{parts, err}
				mu.Unlock()
				return nil
			})
		}
	}
	_ = asking.Wait() // each answer holds its own error
	return own
}

// maxAsking bounds how many steps are asked at once.
const maxAsking = 16

func (b *build) add(n *Node) *Node {
	b.nodes = append(b.nodes, n)
	b.byID[n.ID] = n
	n.Key = Key(n.Parts)
	return n
}
