package connect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// mostParameters is how many characters of base64 go into one command. AWS takes
	// documents of 64 KiB, parameters included.
	mostParameters = 60_000
	// firstWait is how long a command may take to be over with its first call, and
	// longestWait what a call may wait for output, in tenths of a second.
	firstWait, longestWait = 20, 400
	// Output that isn't prompt is collected so long, as above. Most commands that write
	// anything end soon after, and then one call is enough.
	shortestLinger, longestLinger = 3, 50
	// feeds and fetches are how many commands of a job are under way at once for its input,
	// and for output that has piled up. The SSM agent runs five at a time.
	feeds, fetches = 3, 4
	// inputWindow is how many pieces of input may lie on the machine.
	inputWindow = 8
	// newWithin is how long a job may take to start on the machine.
	newWithin = time.Minute
)

// runJob is one job over Run Command.
type runJob struct {
	job
	t       *runCommand
	s       *session
	begin   time.Time
	streams [2]stream // stdout and stderr
	most    int       // how many files may fit in an answer
	turn    int       // which stream goes first
	state   string
}

// stream is what has come of one output.
type stream struct {
	w    io.Writer
	next int            // the first file that wasn't passed on
	have int            // the machine has those before
	held map[int]answer // came before others that belong in front of them
}

// answer is a run of files of one output.
type answer struct {
	to   int
	data []byte
}

func (t *runCommand) run(ctx context.Context, j job) (int, error) {
	for first := true; ; first = false {
		s, err := t.current(ctx)
		if err != nil {
			return 0, err
		}
		x := &runJob{job: j, t: t, s: s, begin: time.Now(), most: 16}
		x.streams = [2]stream{{w: j.stdout, held: map[int]answer{}}, {w: j.stderr, held: map[int]answer{}}}
		status, started, err := x.run(ctx)
		switch {
		case err != nil && ctx.Err() != nil:
			return 0, errors.Join(context.Cause(ctx), x.kill(ctx))
		case errors.Is(err, errNoSession) && !started && first:
			continue // the machine has restarted since the last job
		case errors.Is(err, errNoSession):
			return 0, errRestarted
		case err != nil:
			return 0, errors.Join(err, x.kill(ctx))
		}
		t.forget(x.id)
		return status, nil
	}
}

// run starts the job and stays with it. started tells whether it may have begun.
func (x *runJob) run(ctx context.Context) (status int, started bool, err error) {
	pieces := newPieces(x.stdin)
	defer pieces.stop()
	started, err = x.start(ctx, pieces)
	if err != nil {
		return 0, started, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	feeding := make(chan struct{})
	go func() {
		defer close(feeding)
		if err := x.feed(ctx, pieces); err != nil {
			cancel(err)
		}
	}()
	status, err = x.follow(ctx)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	cancel(nil)
	<-feeding
	return status, true, err
}

// start starts the job, with its input when that is short and there.
func (x *runJob) start(ctx context.Context, pieces *pieces) (started bool, err error) {
	sealed, staged, err := x.stage(ctx)
	if err != nil {
		return false, err
	}
	input, first := "none", ""
	if x.stdin != nil {
		input = "some"
		p, err := pieces.first(x.s, mostParameters-len(sealed))
		if err != nil {
			return false, err
		}
		if p != "" {
			input, first = "all", p
		}
	}
	merge := "0"
	if x.stderr == nil {
		merge = "1"
	}
	words := fmt.Sprintf("%sstart %s %s %s %d %s", x.t.forgotten(), x.id, merge, input, staged, x.fetchWords(0, 0, firstWait))
	said, err := x.t.ask(ctx, x.s, words, sealed, first)
	if err != nil {
		// An agent that wasn't there can't have started anything.
		return !errors.Is(err, errNoSession), err
	}
	if err := x.take(said); err != nil {
		return true, err
	}
	return true, x.pass()
}

// stage encrypts the request, and sends all of it but the end in pieces when it is long.
func (x *runJob) stage(ctx context.Context) (last string, staged int, err error) {
	left := []byte(x.request)
	for guess := mostInput; ; {
		n, sealed, next, err := x.s.sealSome(left, mostParameters/2, guess)
		if err != nil {
			return "", 0, err
		}
		left, guess = left[n:], next
		if len(left) == 0 {
			return sealed, staged, nil
		}
		if _, err := x.t.ask(ctx, x.s, fmt.Sprintf("stage %s %d", x.id, staged), sealed); err != nil {
			return "", 0, err
		}
		staged++
	}
}

// fetchWords asks for what follows the given files. wait is in tenths of a second.
func (x *runJob) fetchWords(o, e, wait int) string {
	linger := 0
	if !x.prompt {
		linger = min(shortestLinger+int(time.Since(x.begin).Seconds()), longestLinger)
	}
	first := "o"
	if x.turn++; x.turn%2 == 0 {
		first = "e"
	}
	return fmt.Sprintf("%d %d %d %d %d %s %d %d", x.streams[0].next, x.streams[1].next, o, e, x.most, first, wait, linger)
}

// follow fetches output until the job has ended and all of it has come.
func (x *runJob) follow(ctx context.Context) (int, error) {
	for wait := 2 * firstWait; ; {
		if status, over, err := x.over(); over || err != nil {
			return status, err
		}
		before := x.streams[0].next + x.streams[1].next
		if err := x.fetch(ctx, wait); err != nil {
			return 0, err
		}
		if err := x.pass(); err != nil {
			return 0, err
		}
		if x.streams[0].next+x.streams[1].next > before {
			wait = 2 * firstWait
		} else {
			wait = min(2*wait, longestWait)
		}
	}
}

// fetch asks for what comes next; when the machine has much more of a stream, for what
// comes after that as well.
func (x *runJob) fetch(ctx context.Context, wait int) error {
	o, e := &x.streams[0], &x.streams[1]
	asks := []string{x.fetchWords(o.next, e.next, wait)}
	for i := range x.streams {
		far := &x.streams[i]
		if far.have-far.next <= x.most || len(asks) > 1 {
			continue
		}
		asks[0] = x.fetchWords(o.next, e.next, 0)
		for at := far.next + x.most; at < far.have && len(asks) < fetches; at += x.most {
			from := [2]int{o.have, e.have}
			from[i] = at
			asks = append(asks, x.fetchWords(from[0], from[1], 0))
		}
	}
	said := make([]string, len(asks))
	group, ctx := errgroup.WithContext(ctx)
	for i, words := range asks {
		group.Go(func() (err error) {
			said[i], err = x.t.ask(ctx, x.s, "fetch "+x.id+" "+words)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, answer := range said {
		if err := x.take(answer); err != nil {
			return err
		}
	}
	return nil
}

// take reads an answer of the machine:
//
//	state running | new | dead | ended STATUS | failed WHY
//	have O E
//	o FROM TO BYTES, and the bytes; the same for e
func (x *runJob) take(said string) error {
	data, err := x.s.open(said)
	if err != nil {
		return fmt.Errorf("read the agent's answer: %w", err)
	}
	taken := 0
	for len(data) > 0 {
		line, rest, _ := bytes.Cut(data, []byte("\n"))
		data = rest
		word, value, _ := strings.Cut(string(line), " ")
		switch word {
		case "state":
			if !strings.HasPrefix(x.state, "ended") {
				x.state = value
			}
		case "have":
			var have [2]int
			if _, err := fmt.Sscan(value, &have[0], &have[1]); err != nil {
				return fmt.Errorf("read the agent's answer: %q: %w", line, err)
			}
			for i := range have {
				x.streams[i].have = max(x.streams[i].have, have[i])
			}
		case "o", "e":
			var from, to, size int
			if _, err := fmt.Sscan(value, &from, &to, &size); err != nil || size < 0 || size > len(data) || to <= from {
				return fmt.Errorf("read the agent's answer: %q: %w", line, err)
			}
			s := &x.streams[strings.Index("oe", word)]
			s.held[from] = answer{to, data[:size]}
			data = data[size:]
			taken += to - from
		default:
			return fmt.Errorf("read the agent's answer: unexpected %.100q", line)
		}
	}
	x.learn(taken)
	return nil
}

// learn sets how much to ask for from how much came: whatever was cut off has to be packed
// again by the machine.
func (x *runJob) learn(taken int) {
	switch {
	case taken >= x.most:
		x.most = min(2*x.most, 128)
	case taken > 0 && x.behind():
		x.most = taken
	}
}

// behind tells whether the machine has output that wasn't asked for.
func (x *runJob) behind() bool {
	for _, s := range x.streams {
		if s.have > s.next+x.most {
			return true
		}
	}
	return false
}

// pass writes what has come without a gap.
func (x *runJob) pass() error {
	for i := range x.streams {
		s := &x.streams[i]
		for a, ok := s.held[s.next]; ok; a, ok = s.held[s.next] {
			delete(s.held, s.next)
			s.next = a.to
			if s.w == nil {
				continue
			}
			if _, err := s.w.Write(a.data); err != nil {
				return err
			}
		}
		for from := range s.held {
			if from < s.next {
				delete(s.held, from)
			}
		}
	}
	return nil
}

// over tells whether the job has ended and its output is complete.
func (x *runJob) over() (status int, over bool, err error) {
	for _, s := range x.streams {
		if s.next < s.have {
			return 0, false, nil
		}
	}
	word, rest, _ := strings.Cut(x.state, " ")
	switch word {
	case "ended":
		status, err := strconv.Atoi(rest)
		return status, true, err
	case "failed":
		return 0, false, fmt.Errorf("gild's agent on the machine: %q", rest)
	case "dead":
		return 0, false, errors.New("it was killed together with gild's agent on the machine")
	case "new":
		if time.Since(x.begin) > newWithin {
			return 0, false, fmt.Errorf("it wasn't started within %s", newWithin)
		}
	}
	return 0, false, nil
}

// kill ends the job on the machine, whether it has begun or not.
func (x *runJob) kill(ctx context.Context) error {
	ctx, stop := context.WithTimeoutCause(context.WithoutCancel(ctx), killGrace, fmt.Errorf("no answer within %s", killGrace))
	defer stop()
	_, err := x.t.ask(ctx, x.s, "kill "+x.id)
	if err == nil {
		x.t.forget(x.id)
	}
	if err == nil || errors.Is(err, errNoSession) || errors.Is(err, errRestarted) {
		return nil
	}
	return fmt.Errorf("end it on the machine: %w", err)
}

// forget leaves a job to the next one to be removed.
func (t *runCommand) forget(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.done = append(t.done, id)
}

// forgotten returns the words that remove jobs that are over.
func (t *runCommand) forgotten() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	words := ""
	for _, id := range t.done {
		words += "forget " + id + " "
	}
	t.done = nil
	return words
}
