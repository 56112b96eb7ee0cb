package connect

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// mostInput is how much input one piece holds before it is compressed.
	mostInput = 1 << 20
	// inputBlock is how much is read at once.
	inputBlock = 64 << 10
	// wholeWithin is how long to wait for input that may be short enough to go with the
	// command, moreWithin for more of it that may go with the piece.
	wholeWithin = 50 * time.Millisecond
	moreWithin  = 5 * time.Millisecond
)

// pieces cuts the input of a job. It reads ahead by one block, in a goroutine that ends
// with the read that is under way when it is stopped.
type pieces struct {
	blocks  chan []byte // closed at the end
	quit    chan struct{}
	err     error // why reading ended, when it wasn't the end; set before blocks is closed
	pending []byte
	guess   int // how much is likely to fit into a piece
	over    bool
}

func newPieces(r io.Reader) *pieces {
	p := &pieces{blocks: make(chan []byte), quit: make(chan struct{}), guess: mostInput, over: r == nil}
	if r != nil {
		go p.read(r)
	}
	return p
}

func (p *pieces) stop() { close(p.quit) }

func (p *pieces) read(r io.Reader) {
	defer close(p.blocks)
	for {
		block := make([]byte, inputBlock)
		n, err := r.Read(block)
		if n > 0 {
			select {
			case p.blocks <- block[:n]:
			case <-p.quit:
				return
			}
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			p.err = err
			return
		}
	}
}

// gather adds what comes within the time to what is pending.
func (p *pieces) gather(within time.Duration) {
	timer := time.NewTimer(within)
	defer timer.Stop()
	for !p.over && len(p.pending) < mostInput {
		select {
		case block, ok := <-p.blocks:
			p.over = !ok
			p.pending = append(p.pending, block...)
		case <-timer.C:
			return
		}
	}
}

// first returns all of the input, encrypted, when it has come and fits; otherwise nothing.
func (p *pieces) first(s *session, room int) (string, error) {
	p.gather(wholeWithin)
	if !p.over || p.err != nil {
		return "", nil
	}
	n, sealed, _, err := s.sealSome(p.pending, room, mostInput)
	if err != nil || n < len(p.pending) {
		return "", err
	}
	p.pending = nil
	return sealed, nil
}

// next returns a piece, encrypted. It is the last when there is nothing after it.
func (p *pieces) next(ctx context.Context, s *session) (sealed string, last bool, err error) {
	if len(p.pending) == 0 && !p.over {
		select {
		case block, ok := <-p.blocks:
			p.over = !ok
			p.pending = block
		case <-ctx.Done():
			return "", false, context.Cause(ctx)
		}
	}
	p.gather(moreWithin)
	if p.over && p.err != nil {
		return "", false, p.err
	}
	n, sealed, guess, err := s.sealSome(p.pending, mostParameters, p.guess)
	if err != nil {
		return "", false, err
	}
	p.guess = guess
	p.pending = p.pending[n:]
	return sealed, p.over && len(p.pending) == 0, nil
}

// sealSome encrypts as much of data as makes no more than room characters. guess is how
// much that may be; the guess for what follows is returned.
func (s *session) sealSome(data []byte, room, guess int) (n int, sealed string, next int, err error) {
	for {
		n = min(len(data), guess)
		sealed, err = s.seal(data[:n])
		if err != nil {
			return 0, "", 0, err
		}
		if len(sealed) <= room {
			return n, sealed, min(max(guess, fits(n, len(sealed), room)), mostInput), nil
		}
		if n <= 1 {
			return 0, "", 0, fmt.Errorf("%d characters are too few for a message", room)
		}
		guess = max(1, fits(n, len(sealed), room))
	}
}

// fits is how much data is likely to fit into room characters when n bytes made sealed.
func fits(n, sealed, room int) int {
	return int(0.98 * float64(n) * float64(room) / float64(sealed))
}

// feed sends the input until it or the job ends.
func (x *runJob) feed(ctx context.Context, p *pieces) error {
	if p.over && len(p.pending) == 0 && p.err == nil {
		return nil // there was none, or it went with the command
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(feeds)
	ended := make(chan struct{}, 1)
	for n, last := 0, false; !last; n++ {
		var sealed string
		var err error
		if sealed, last, err = p.next(ctx, x.s); err != nil {
			group.Go(func() error { return err })
			break
		}
		total := "more"
		if last {
			total = strconv.Itoa(n + 1)
		}
		group.Go(func() error {
			over, err := x.send(ctx, n, total, sealed)
			if over {
				select {
				case ended <- struct{}{}:
				default:
				}
			}
			return err
		})
		select {
		case <-ended:
			return group.Wait()
		default:
		}
	}
	return group.Wait()
}

// send sends one piece and waits until the machine has room for more. over tells that the
// command takes no more.
func (x *runJob) send(ctx context.Context, n int, total, sealed string) (over bool, err error) {
	said, err := x.t.ask(ctx, x.s, fmt.Sprintf("feed %s %d %s", x.id, n, total), sealed)
	for err == nil && said != "ended" {
		poured, numberErr := strconv.Atoi(said)
		if numberErr != nil {
			return false, fmt.Errorf("gild's agent on the machine: %q: %w", said, numberErr)
		}
		if n-poured < inputWindow {
			return false, nil
		}
		said, err = x.t.ask(ctx, x.s, fmt.Sprintf("room %s %d", x.id, n))
	}
	return err == nil, err
}
