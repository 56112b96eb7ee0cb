package aws

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/builder/aws/client"
	"github.com/gildhq/gild/engine/spec"
	"github.com/gildhq/gild/engine/step"
)

// bench is the instance that the steps of one image change one after another.
type bench struct {
	// free holds a token while no machine is open on it.
	free chan struct{}

	in *instance // nil: there is none
	// state is the key that the instance is in. clean tells that nothing changed it since.
	state string
	clean bool
	// launches counts, since each needs a token of its own.
	launches int
	// onDemand is set when EC2 has taken a spot instance back.
	onDemand bool
	// saved is when the state was last one that can be started from again.
	saved       time.Time
	checkpoints []*checkpoint
}

func (b *Builder) bench(name string) *bench {
	b.mu.Lock()
	defer b.mu.Unlock()
	bn := b.benches[name]
	if bn == nil {
		bn = &bench{free: make(chan struct{}, 1)}
		bn.free <- struct{}{}
		b.benches[name] = bn
	}
	return bn
}

func (bn *bench) lock(ctx context.Context) error {
	select {
	case <-bn.free:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (bn *bench) unlock() { bn.free <- struct{}{} }

// HasState reports whether there is a checkpoint of a state, or one is being made.
func (b *Builder) HasState(ctx context.Context, p *spec.Pipeline, key string) (bool, error) {
	r, err := b.home(ctx, p)
	if err != nil {
		return false, err
	}
	_, ok, err := r.stored(ctx, key, kindCheckpoint)
	return ok, err
}

// MakeBase makes sure that the base is there: an AMI is a state already.
func (b *Builder) MakeBase(ctx context.Context, _ builder.Ledger, req builder.BaseRequest) error {
	r, err := b.home(ctx, req.Pipeline)
	if err != nil {
		return err
	}
	image, err := r.baseImage(ctx, req.Pipeline, req.Base)
	if err != nil {
		return err
	}
	say(req.Log, "starting from %s %q", aws.ToString(image.ImageId), aws.ToString(image.Name))
	return nil
}

// Open opens the bench in the last state of req.Layers. The machine it returns can also
// restart the instance: Reboot(context.Context) error.
func (b *Builder) Open(ctx context.Context, l builder.Ledger, req builder.OpenRequest) (builder.Machine, error) {
	r, err := b.home(ctx, req.Pipeline)
	if err != nil {
		return nil, err
	}
	bn := b.bench(req.Bench)
	if err := bn.lock(ctx); err != nil {
		return nil, err
	}
	if err := b.ready(ctx, r, l, bn, req); err != nil {
		bn.unlock()
		return nil, err
	}
	bn.clean = false
	return &machine{builder: b, bench: bn, in: bn.in, ledger: l, req: req}, nil
}

// ready brings the bench into the state that is to be worked on. The bench is locked.
func (b *Builder) ready(ctx context.Context, r *region, l builder.Ledger, bn *bench, req builder.OpenRequest) error {
	if bn.in != nil && bn.clean && bn.state == last(req.Layers) {
		return nil
	}
	image, first, err := r.startFrom(ctx, req.Pipeline, req.Base, req.Layers)
	if err != nil {
		return err
	}
	if bn.in != nil {
		say(req.Log, "ending %s: it isn't in the state to go on from", bn.in.id)
		if err := bn.end(ctx); err != nil {
			return err
		}
	}
	in := &instance{
		order: b.newOrder(r, req.Pipeline, l, kindBench, "bench "+req.Bench, bn.launches), builder: b, image: image, first: first, log: req.Log,
	}
	bn.launches++
	if err := in.start(ctx, bn.onDemand); err != nil {
		bn.noteInterruption(err)
		return err
	}
	bn.in, bn.state, bn.clean, bn.saved = in, last(req.Layers), true, b.config.Now()
	return nil
}

func last(layers []string) string {
	if len(layers) == 0 {
		return ""
	}
	return layers[len(layers)-1]
}

func (bn *bench) noteInterruption(err error) {
	if errors.Is(err, errInterrupted) {
		bn.onDemand = true
	}
}

// end ends the instance.
func (bn *bench) end(ctx context.Context) error {
	if bn.in == nil {
		return nil
	}
	in := bn.in
	bn.in, bn.state, bn.clean = nil, "", false
	return in.end(ctx)
}

// startFrom finds the image that a machine in the last state of layers starts from. first
// tells that it is the base.
func (r *region) startFrom(ctx context.Context, p *spec.Pipeline, base builder.Base, layers []string) (_ types.Image, first bool, err error) {
	if len(layers) > 1 {
		image, ok, err := r.stored(ctx, last(layers), kindCheckpoint)
		if err != nil {
			return image, false, err
		}
		if !ok {
			return image, false, fmt.Errorf("the machine is not in the state %s to go on from, and no checkpoint has that state; build again, or set checkpoint: true on the step that makes it",
				shortKey(last(layers)))
		}
		image, err = r.available(ctx, image, p.AWS.Within, nil)
		return image, false, err
	}
	image, err := r.baseImage(ctx, p, base)
	return image, true, err
}

// baseImage finds the AMI of a base.
func (r *region) baseImage(ctx context.Context, p *spec.Pipeline, base builder.Base) (types.Image, error) {
	if base.Image != "" {
		image, ok, err := r.stored(ctx, base.Image, kindPublished, kindCandidate)
		if err == nil && !ok {
			err = fmt.Errorf("the base, the image of key %s, is not in %s any more; build its pipeline again", shortKey(base.Image), r.Name)
		}
		if err != nil {
			return image, err
		}
		return r.available(ctx, image, p.AWS.Within, nil)
	}
	r.mu.Lock()
	known, ok := r.bases[base.ID]
	r.mu.Unlock()
	if ok {
		return known, nil
	}
	image, err := r.imageByID(ctx, base.ID, want{arch: p.Arch, locked: true})
	if err != nil {
		return image, fmt.Errorf("the base %s in %s: %w", base.ID, r.Name, err)
	}
	r.remember(image)
	return image, nil
}

// remember keeps an image that a base was resolved to: AMIs don't change.
func (r *region) remember(i types.Image) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bases[aws.ToString(i.ImageId)] = i
}

// Release terminates the bench, and waits until its instance and what belongs to it are
// gone and its checkpoints are complete.
func (b *Builder) Release(ctx context.Context, name string) error {
	b.mu.Lock()
	bn := b.benches[name]
	delete(b.benches, name)
	b.mu.Unlock()
	if bn == nil {
		return nil
	}
	if err := bn.lock(ctx); err != nil {
		return err
	}
	defer bn.unlock()
	return errors.Join(b.settleCheckpoints(ctx, bn), bn.end(ctx))
}

// machine is the bench while a step works on it.
type machine struct {
	builder *Builder
	bench   *bench
	in      *instance
	ledger  builder.Ledger
	req     builder.OpenRequest
	ended   bool
}

// Exec runs a command on the instance. One whose spot instance is taken back fails at once.
func (m *machine) Exec(ctx context.Context, cmd step.Cmd) error {
	return m.in.do(ctx, m.bench, func(ctx context.Context) error { return m.in.conn.Exec(ctx, cmd) })
}

// Put writes a file on the instance.
func (m *machine) Put(ctx context.Context, file step.PutFile, content io.Reader) error {
	return m.in.do(ctx, m.bench, func(ctx context.Context) error { return m.in.conn.Put(ctx, file, content) })
}

// Get reads a file of the instance.
func (m *machine) Get(ctx context.Context, path string, w io.Writer) error {
	return m.in.do(ctx, m.bench, func(ctx context.Context) error { return m.in.conn.Get(ctx, path, w) })
}

// Facts tells what the instance is.
func (m *machine) Facts(ctx context.Context) (f step.Facts, err error) {
	err = m.in.do(ctx, m.bench, func(ctx context.Context) (err error) { f, err = m.in.conn.Facts(ctx); return err })
	return f, err
}

// Reboot restarts the instance and returns when commands run on it again. What was being
// run fails.
func (m *machine) Reboot(ctx context.Context) error {
	return m.in.do(ctx, m.bench, m.in.reboot)
}

func (in *instance) reboot(ctx context.Context) error {
	return in.conn.Reboot(ctx, func(ctx context.Context) error {
		_, err := client.Call(ctx, in.region.EC2.RebootInstances, &ec2.RebootInstancesInput{InstanceIds: []string{in.id}})
		return err
	})
}

// do makes a call on the instance, and looks at the instance when the call fails for
// another reason than the command's own.
func (in *instance) do(ctx context.Context, bn *bench, call func(context.Context) error) error {
	watched, stop := ctx, func() {}
	if in.spot {
		watched, stop = in.watch(ctx)
	}
	defer stop()
	err := call(watched)
	var exit *step.ExitError
	if err == nil || errors.As(err, &exit) || isFileError(err) {
		return err
	}
	if cause := context.Cause(watched); cause != nil && ctx.Err() == nil {
		err = cause
	} else {
		err = in.explain(ctx, err)
	}
	if bn != nil {
		bn.noteInterruption(err)
	}
	return err
}

// Commit leaves the bench in the state of the step, and makes a checkpoint of it when that
// was asked for or the last one is long ago.
func (m *machine) Commit(ctx context.Context) error {
	if m.ended {
		return errors.New("the machine is closed")
	}
	after := m.req.Pipeline.AWS.Checkpoints.After
	due := after > 0 && m.builder.config.Now().Sub(m.bench.saved) > after
	if m.req.Checkpoint || due {
		if err := m.builder.checkpoint(ctx, m); err != nil {
			return fmt.Errorf("make a checkpoint of %s: %w", m.in.id, err)
		}
		m.bench.saved = m.builder.config.Now()
	}
	m.bench.state, m.bench.clean = m.req.Key, true
	m.end()
	return nil
}

// Close ends the step's use of the bench. Without a commit nothing goes on from it.
func (m *machine) Close() error {
	m.end()
	return nil
}

func (m *machine) end() {
	if !m.ended {
		m.ended = true
		m.bench.unlock()
	}
}
