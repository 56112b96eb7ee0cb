package aws

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"regexp"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/plain"
	"github.com/gildhq/gild/engine/step"
)

// Boot launches a fresh instance of an image. EC2 chooses the firmware by the image's boot
// mode, and the pipeline's instance types the memory. Its disk ends with it.
func (b *Builder) Boot(ctx context.Context, l builder.Ledger, req builder.BootRequest) (builder.Guest, error) {
	r, err := b.home(ctx, req.Pipeline)
	if err != nil {
		return nil, err
	}
	image, err := r.imageOf(ctx, req.Pipeline, req.Image.Key)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	b.boots++
	n := b.boots
	b.mu.Unlock()
	in := &instance{order: b.newOrder(r, req.Pipeline, l, kindTest, "test "+req.Image.Key+" "+req.Firmware, n), builder: b, image: image, log: req.Log}
	err = in.start(ctx, false)
	if errors.Is(err, errInterrupted) && ctx.Err() == nil {
		in.made, in.token = nil, digest(in.token, "on demand")
		err = in.start(ctx, true)
	}
	if err != nil {
		return nil, err
	}
	return &guest{in: in, log: req.Log}, nil
}

// guest is an instance of an image under test.
type guest struct {
	in  *instance
	log io.Writer

	mu     sync.Mutex
	closed bool
}

// Exec runs a command on the instance.
func (g *guest) Exec(ctx context.Context, cmd step.Cmd) error {
	return g.in.do(ctx, nil, func(ctx context.Context) error { return g.in.conn.Exec(ctx, cmd) })
}

// Put writes a file on the instance.
func (g *guest) Put(ctx context.Context, file step.PutFile, content io.Reader) error {
	return g.in.do(ctx, nil, func(ctx context.Context) error { return g.in.conn.Put(ctx, file, content) })
}

// Get reads a file of the instance.
func (g *guest) Get(ctx context.Context, path string, w io.Writer) error {
	return g.in.do(ctx, nil, func(ctx context.Context) error { return g.in.conn.Get(ctx, path, w) })
}

// Facts tells what the instance is.
func (g *guest) Facts(ctx context.Context) (f step.Facts, err error) {
	err = g.in.do(ctx, nil, func(ctx context.Context) (err error) { f, err = g.in.conn.Facts(ctx); return err })
	return f, err
}

// Reboot restarts the instance and returns when commands run on it again.
func (g *guest) Reboot(ctx context.Context) error { return g.in.do(ctx, nil, g.in.reboot) }

// PoweredOn is when EC2 launched the instance.
func (g *guest) PoweredOn() time.Time { return aws.ToTime(g.in.last.LaunchTime) }

// Dial connects to a TCP port of the instance.
func (g *guest) Dial(ctx context.Context, port int) (net.Conn, error) {
	return g.in.conn.Dial(ctx, port)
}

// consoleWithin bounds the question for the console.
const consoleWithin = 20 * time.Second

// consoleShown is the most that is shown of a console, in bytes.
const consoleShown = 16 << 10

// Console returns the end of what EC2 has of the serial console, which it keeps up to date
// for types of the Nitro kind only. What can't be read is empty.
func (g *guest) Console() string {
	ctx, cancel := context.WithTimeout(context.Background(), consoleWithin)
	defer cancel()
	text, err := g.in.region.console(ctx, g.in.id)
	if err != nil {
		return ""
	}
	return printable(text[max(0, len(text)-consoleShown):])
}

// escapes are the sequences that act on a terminal.
var escapes = regexp.MustCompile("\x1b(\\[[0-?]*[ -/]*[@-~]|\\][^\x07\x1b]*(\x07|\x1b\\\\)|.)")

// printable takes out of a guest's text, which isn't trusted, what acts on a terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && plain.Acts(r) || r == utf8.RuneError {
			return -1
		}
		return r
	}, escapes.ReplaceAllString(text, ""))
}

// Close writes the console to the log, terminates the instance and removes what was made
// for it.
func (g *guest) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil
	}
	g.closed = true
	say(g.log, "%s", g.Console())
	if err := g.in.end(context.Background()); err != nil {
		return fmt.Errorf("end the test instance %s: %w", g.in.id, err)
	}
	return nil
}

// isFileError tells an answer about a file from a connection that failed.
func isFileError(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrInvalid)
}
