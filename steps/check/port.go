package check

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/gildhq/gild/engine/step"
)

const (
	// bannerTimeout is how long a service may take to say what it is.
	bannerTimeout = 10 * time.Second
	// maxBanner is how many bytes of it count.
	maxBanner = 4 << 10
)

func (l look) port(ctx context.Context, name string, want Port) ([]string, error) {
	protocol, text, _ := strings.Cut(name, ":")
	port, err := strconv.Atoi(text)
	if err != nil || port > 65535 {
		return nil, &step.Permanent{Err: fmt.Errorf("%q is no port", name)}
	}
	if want.Banner != "" && protocol != "tcp" {
		return nil, &step.Permanent{Err: errors.New("a banner can be read from tcp only")}
	}
	listening, err := l.listening(ctx, protocol, port)
	if err != nil {
		return nil, err
	}
	failed, done := existence(listening, want.Listening, "something listens", "nothing listens")
	if done || want.Banner == "" {
		return failed, nil
	}
	line, err := l.banner(ctx, port, want.Banner)
	if line != "" {
		failed = append(failed, line)
	}
	return failed, err
}

// listening tells whether a socket of the guest is bound to the port, on any address.
func (l look) listening(ctx context.Context, protocol string, port int) (bool, error) {
	// There is no file for IPv6 where the kernel has none.
	const read = `cat "/proc/net/$1"; cat "/proc/net/${1}6" 2>/dev/null || true`
	out, status, err := l.ask(ctx, "/bin/sh", "-eu", "-c", read, "sockets", protocol)
	if err != nil {
		return false, err
	}
	if status != 0 {
		return false, fmt.Errorf("read the guest's sockets: %s", strings.TrimSpace(out.StderrText()))
	}
	return hasSocket(out.StdoutText(), protocol, port), nil
}

// hasSocket looks for a socket that waits for peers in the kernel's table: one in the
// state LISTEN for tcp, an unconnected one for udp.
func hasSocket(table, protocol string, port int) bool {
	state := map[string]string{"tcp": "0A", "udp": "07"}[protocol]
	local := fmt.Sprintf(":%04X", port)
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) > 3 && strings.HasSuffix(fields[1], local) && fields[3] == state {
			return true
		}
	}
	return false
}

// banner connects from outside and returns a line unless what the service says matches.
func (l look) banner(ctx context.Context, port int, pattern string) (string, error) {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return "", &step.Permanent{Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, bannerTimeout)
	defer cancel()
	conn, err := l.guest.Dial(ctx, port)
	if err != nil {
		return fmt.Sprintf("can't be reached from outside: %v", err), nil
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetReadDeadline(deadline); err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	said := make([]byte, 0, maxBanner)
	for !re.Match(said) {
		n, err := conn.Read(said[len(said):cap(said)])
		said = said[:len(said)+n]
		if re.Match(said) {
			break
		}
		if err != nil || len(said) == cap(said) {
			return fmt.Sprintf("it says %q%s, which doesn't match %q", said, ending(err), pattern), nil
		}
	}
	return "", nil
}

// ending words why no more could be read.
func ending(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Sprintf(" and no more in %s", bannerTimeout)
	case errors.Is(err, io.EOF):
		return " and hangs up"
	default:
		return fmt.Sprintf(" and then: %v", err)
	}
}
