package engine

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/catalog"
	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/event"
	"github.com/gildhq/gild/engine/lock"
	"github.com/gildhq/gild/engine/plan"
	"github.com/gildhq/gild/engine/spec"
	"github.com/gildhq/gild/engine/step"
)

// prepared is a plan with all that executing it needs. It answers plan's questions.
type prepared struct {
	*Engine
	src      sources
	sink     event.Sink
	run      string
	plan     *plan.Plan
	secrets  *secrets
	projects map[string]*plan.Project
	abs      map[string]string // absolute path of each pipeline file
	lockMap  map[string]*lock.File
	hashKey  []byte
}

var _ plan.Env = (*prepared)(nil)

// prepare resolves and plans. It returns nil, without an error, when the diagnostics
// have errors.
func (e *Engine) prepare(ctx context.Context, run string, src sources, sink event.Sink) (*prepared, diag.List, error) {
	pipelines, steps, diags, err := e.language.resolve(ctx, &src)
	if err != nil {
		return nil, diags, err
	}
	if diags.HasErrors() || ctx.Err() != nil {
		return nil, diags, ctx.Err()
	}
	b := &prepared{
		Engine: e, run: run, src: src, sink: sink, secrets: newSecrets(),
		projects: map[string]*plan.Project{}, abs: map[string]string{}, lockMap: map[string]*lock.File{},
	}
	for _, f := range src.Files {
		b.abs[f.Path] = f.Abs
	}
	options := plan.Options{Run: run, Steps: steps.step, Selection: src.Request.Selection}
	if src.Epoch != "" {
		seconds, err := strconv.ParseInt(src.Epoch, 10, 64)
		if err != nil {
			return nil, diags, fmt.Errorf("SOURCE_DATE_EPOCH is %q, not a number of seconds", src.Epoch)
		}
		options.Epoch = time.Unix(seconds, 0)
	}
	if b.hashKey, err = e.secretKey(); err != nil {
		return nil, diags, err
	}
	var more diag.List
	b.plan, more, err = plan.Build(ctx, pipelines, b, options)
	for _, f := range src.Files {
		fillFrom(more, f)
	}
	diags = append(diags, more...)
	diags.Sort()
	if b.plan == nil || err != nil {
		return nil, diags, errors.Join(err, b.close())
	}
	return b, diags, nil
}

// fillFrom adds source lines to the diagnostics that are about one file.
func fillFrom(l diag.List, f sourceFile) {
	for i := range l {
		if l[i].Pos.File == f.Path {
			l[i : i+1].FillSource(f.Text)
		}
	}
}

func (b *prepared) close() error {
	var errs []error
	for _, p := range b.projects {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}

// secretKey is the key that secrets are hashed with before they become part of a
// node's key: a key in the journal tells nothing about a secret.
func (e *Engine) secretKey() ([]byte, error) {
	path := filepath.Join(e.config.State, "secret.key")
	key, err := os.ReadFile(path)
	if err == nil && len(key) != sha256.Size {
		return nil, fmt.Errorf("%s is damaged: it has %d bytes, not %d; remove it, and steps with secrets are built again", path, len(key), sha256.Size)
	}
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	key = make([]byte, sha256.Size)
	rand.Read(key)
	tmp := path + "." + rand.Text()[:8]
	if err := os.WriteFile(tmp, key, 0o600); err != nil {
		return nil, err
	}
	// Link fails when another process was first, whose key then counts.
	if err := os.Link(tmp, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, errors.Join(err, os.Remove(tmp))
	}
	if err := os.Remove(tmp); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

// Project opens, once, the project of a pipeline file.
func (b *prepared) Project(file string) (*plan.Project, error) {
	if p, ok := b.projects[file]; ok {
		return p, nil
	}
	p, err := plan.OpenProject(b.abs[file])
	if err == nil {
		b.projects[file] = p
	}
	return p, err
}

func (b *prepared) builderOf(p *spec.Pipeline) builder.Builder { return b.builders[p.Builder] }

// ResolveBase resolves a distribution base as gild.lock has it.
func (b *prepared) ResolveBase(ctx context.Context, p *spec.Pipeline) (builder.Base, error) {
	file, err := b.lockFor(p)
	if err != nil {
		return builder.Base{}, err
	}
	name := lockName(p)
	locked := file.Bases[name]
	if locked == nil && b.src.Request.Locked {
		return builder.Base{}, fmt.Errorf("%s has no entry %q; run gild lock", file.Path(), name)
	}
	base, err := b.builderOf(p).Resolve(ctx, p, locked)
	if err != nil {
		return base, err
	}
	if locked != nil && moved(locked, base.Lock) && b.src.Request.Locked {
		return base, fmt.Errorf("what %s names (of %s) isn't stored here, and the source has moved on since; run gild lock",
			file.Path(), locked["clock"])
	}
	file.Bases[name] = base.Lock
	return base, nil
}

// moved reports whether a base is another than the one that was locked: another state of
// the archive, or another AMI.
func moved(locked, now map[string]string) bool {
	return locked["index"] != now["index"] || locked["image"] != now["image"]
}

// ResolveImage resolves a base that is an image of the catalog.
func (b *prepared) ResolveImage(ctx context.Context, p *spec.Pipeline) (builder.Base, error) {
	ref := p.Base.Image.Name
	if p.Base.Image.Channel != "latest" {
		ref += "@" + p.Base.Image.Channel
	}
	img, err := b.catalog.Get(ctx, ref)
	if err != nil {
		return builder.Base{}, fmt.Errorf("%w; build its pipeline first, or name it on the same command line", err)
	}
	base, ok, err := b.builderOf(p).ImageBase(ctx, p, img.Key)
	if err != nil {
		return base, err
	}
	if !ok {
		return base, fmt.Errorf("image %s is in the catalog, but what it was made from isn't stored any more; build its pipeline again", ref)
	}
	base.Parent = img.ID
	base.Summary = fmt.Sprintf("image %s %s build %d", img.Pipeline, img.Release, img.Build)
	return base, nil
}

// Stacks asks the builder how it keeps machine states.
func (b *prepared) Stacks(p *spec.Pipeline) bool { return b.builderOf(p).Stacks() }

// ImageVersion asks the builder what it writes disks with.
func (b *prepared) ImageVersion(p *spec.Pipeline) (string, error) {
	return b.builderOf(p).ImageVersion(p)
}

// Stored reports whether a node's result is there.
func (b *prepared) Stored(ctx context.Context, n *plan.Node) (bool, error) {
	_, ok, err := b.find(ctx, n)
	return ok, err
}

// find returns the outputs of a node whose result is stored.
func (b *prepared) find(ctx context.Context, n *plan.Node) (step.Outputs, bool, error) {
	maker := b.builderOf(n.Image.Pipeline)
	switch n.Kind {
	case plan.KindBase:
		ok, err := allStored(ctx, maker, n.Image.Pipeline, append(n.Layers, n.Key))
		return nil, ok, err
	case plan.KindStep, plan.KindSeal:
		return b.findStep(ctx, maker, n)
	case plan.KindDisk:
		_, ok, err := maker.FindImage(ctx, n.Image.Pipeline, n.Key)
		return nil, ok, err
	case plan.KindFiles:
		info, ok, err := maker.FindImage(ctx, n.Image.Pipeline, n.Image.DiskKey)
		return nil, ok && hasFormats(info, n.Image.Pipeline.Formats()), err
	case plan.KindTest, plan.KindDeliver:
		return b.journal.Result(ctx, n.Key)
	case plan.KindPublish:
		return b.findPublished(ctx, n)
	case plan.KindCopy:
		return b.findCopy(ctx, maker, n)
	case plan.KindRetain:
		gone, err := b.Retirable(ctx, n.Image)
		return step.Outputs{"retired": []any{}}, len(gone) == 0, err
	}
	return nil, false, fmt.Errorf("node %s has the unknown kind %q", n.ID, n.Kind)
}

func allStored(ctx context.Context, maker builder.Builder, p *spec.Pipeline, keys []string) (bool, error) {
	for _, key := range keys {
		if ok, err := maker.HasState(ctx, p, key); err != nil || !ok {
			return false, err
		}
	}
	return true, nil
}

func (b *prepared) findStep(ctx context.Context, maker builder.Builder, n *plan.Node) (step.Outputs, bool, error) {
	if ok, err := maker.HasState(ctx, n.Image.Pipeline, n.Key); err != nil || !ok {
		return nil, false, err
	}
	if len(n.Def.Outputs) == 0 {
		return nil, true, nil
	}
	return b.journal.Result(ctx, n.Key)
}

func hasFormats(info step.ImageInfo, formats []string) bool {
	have := map[string]bool{}
	for _, f := range info.Files {
		have[f.Format] = true
	}
	for _, f := range formats {
		if !have[f] {
			return false
		}
	}
	return true
}

func (b *prepared) findPublished(ctx context.Context, n *plan.Node) (step.Outputs, bool, error) {
	img, ok, err := b.catalog.ByPublishKey(ctx, n.Key)
	if err != nil || !ok || !img.Live() {
		return nil, false, err
	}
	if ok, err := b.channelStands(ctx, n.Image.Pipeline, img.ID); err != nil || !ok {
		return nil, false, err
	}
	if ok, err := b.publishedAtHome(ctx, n.Image, img); err != nil || !ok {
		return nil, false, err
	}
	return step.Outputs{"id": img.ID, "build": img.Build}, true, nil
}

// publishedAtHome reports whether the builder has published its image too: a run may have
// died between the catalog and the builder, or the image was lost and made again.
func (b *prepared) publishedAtHome(ctx context.Context, i *plan.Image, img catalog.Image) (bool, error) {
	info, ok, err := b.builderOf(i.Pipeline).FindImage(ctx, i.Pipeline, i.DiskKey)
	if err != nil || !ok || info.ID == "" {
		return err == nil, err
	}
	return slices.ContainsFunc(img.Copies, func(c catalog.Copy) bool { return c.Region == info.Region && c.Location == info.ID }), nil
}

// channelStands reports whether the pipeline's channel needn't move to the image: it is
// there, or a person has put it elsewhere since. It must move when another build had it
// last, as after a revert.
func (b *prepared) channelStands(ctx context.Context, p *spec.Pipeline, id string) (bool, error) {
	if p.Publish.Channel == "" {
		return true, nil
	}
	history, err := b.catalog.History(ctx, p.Name, p.Cell, p.Publish.Channel)
	if err != nil || len(history) == 0 {
		return false, err
	}
	return history[0].To == id || history[0].By == "user", nil
}

// formatsOf leaves only the files of an image that the pipeline asks for: the store may
// have more, made for another.
func formatsOf(info step.ImageInfo, formats []string) step.ImageInfo {
	info.Files = slices.DeleteFunc(slices.Clone(info.Files), func(f step.ImageFile) bool { return !slices.Contains(formats, f.Format) })
	return info
}

func (b *prepared) findCopy(ctx context.Context, maker builder.Builder, n *plan.Node) (step.Outputs, bool, error) {
	location, ok, err := maker.HasCopy(ctx, n.Image.Pipeline, n.Image.DiskKey, n.Region)
	if err != nil || !ok {
		return nil, false, err
	}
	img, ok, err := b.catalog.ByPublishKey(ctx, n.Image.PublishKey)
	if err != nil || !ok {
		return nil, false, err
	}
	for _, c := range img.Copies {
		if c.Region == n.Region {
			return step.Outputs{"location": location}, true, nil
		}
	}
	return nil, false, nil
}

// Previous returns what a node's key was made of at the last build. The journal keeps
// it per pipeline file, so that two projects with a pipeline of one name don't mix.
func (b *prepared) Previous(ctx context.Context, n *plan.Node) (string, map[string]string, bool, error) {
	return b.journal.KeyParts(ctx, b.abs[n.Image.Pipeline.File], n.ID)
}

// SecretDigest hashes a secret with the state folder's own key.
func (b *prepared) SecretDigest(ctx context.Context, p *spec.Pipeline, name string) (string, error) {
	value, err := b.secrets.value(ctx, p, name, filepath.Dir(b.abs[p.File]))
	if err != nil {
		return "", err
	}
	h := hmac.New(sha256.New, b.hashKey)
	h.Write([]byte(value))
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Retirable tells what retention would remove once the image is published.
func (b *prepared) Retirable(ctx context.Context, img *plan.Image) ([]step.Retired, error) {
	p := img.Pipeline
	if p.Retain == nil || p.Publish == nil {
		return nil, nil
	}
	rule := step.RetainRule{Keep: p.Retain.Keep, MaxAge: p.Retain.MaxAge, MinAge: p.Retain.MinAge}
	current, published, err := b.catalog.ByPublishKey(ctx, img.PublishKey)
	if err != nil {
		return nil, err
	}
	gone, err := b.retirable(ctx, p, rule, !published || !current.Live())
	if err != nil {
		return nil, err
	}
	var out []step.Retired
	for _, d := range gone {
		out = append(out, step.Retired{ID: d.Image.ID, Name: d.Image.Name, Build: d.Image.Build, Reason: d.Reason})
	}
	return out, nil
}

// retirable asks the catalog; coming adds the image that is about to be published.
func (b *prepared) retirable(ctx context.Context, p *spec.Pipeline, rule step.RetainRule, coming bool) ([]catalog.Decision, error) {
	now := b.config.Now()
	if !coming {
		gone, _, err := b.catalog.Retention(ctx, p.Name, p.Cell, rule, now)
		return gone, err
	}
	images, err := b.catalog.Images(ctx, catalog.Filter{})
	if err != nil {
		return nil, err
	}
	channels, err := b.catalog.Channels(ctx, "")
	if err != nil {
		return nil, err
	}
	next := catalog.Image{ID: "(this build)", Pipeline: p.Name, Cell: p.Cell, Release: p.Release, Created: now}
	for i, c := range channels {
		if c.Pipeline == p.Name && c.Cell == p.Cell && c.Name == p.Publish.Channel {
			channels[i].Image = next.ID
		}
	}
	var mine []catalog.Decision
	gone, _ := catalog.Retainable(append(images, next), channels, rule, now)
	for _, d := range gone {
		if d.Image.Pipeline == p.Name && d.Image.Cell == p.Cell {
			mine = append(mine, d)
		}
	}
	return mine, nil
}
