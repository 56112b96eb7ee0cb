package connect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
)

// SSMClient is what is used of the SDK's [ssm.Client].
type SSMClient interface {
	SendCommand(context.Context, *ssm.SendCommandInput, ...func(*ssm.Options)) (*ssm.SendCommandOutput, error)
	GetCommandInvocation(context.Context, *ssm.GetCommandInvocationInput, ...func(*ssm.Options)) (*ssm.GetCommandInvocationOutput, error)
	CancelCommand(context.Context, *ssm.CancelCommandInput, ...func(*ssm.Options)) (*ssm.CancelCommandOutput, error)
	DescribeInstanceInformation(context.Context, *ssm.DescribeInstanceInformationInput, ...func(*ssm.Options)) (*ssm.DescribeInstanceInformationOutput, error)
}

var _ SSMClient = (*ssm.Client)(nil)

// SSM connects over Run Command. It waits until the instance's agent is online, and then
// until commands work. The instance needs the agent, a profile with the actions of the
// managed policy AmazonSSMManagedInstanceCore, and a way to the service.
func SSM(ctx context.Context, c SSMClient, in Instance, o Options) (*Machine, error) {
	t := &runCommand{client: c, id: in.ID, within: o.within(), guess: o.guess(), firstGuess: o.guess()}
	m := &Machine{t: t, in: in, env: o.Env, within: o.within()}
	ctx, cancel := context.WithTimeoutCause(ctx, o.within(), fmt.Errorf("not within %s", o.within()))
	defer cancel()
	err := t.online(ctx)
	if err == nil {
		_, err = t.current(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to %s over SSM: %w", in.ID, err)
	}
	return m, nil
}

// online waits for the instance's agent.
func (t *runCommand) online(ctx context.Context) error {
	in := &ssm.DescribeInstanceInformationInput{Filters: []types.InstanceInformationStringFilter{
		{Key: aws.String("InstanceIds"), Values: []string{t.id}},
	}}
	for delay := 2 * t.firstGuess; ; delay = min(delay*3/2, 10*time.Second) {
		var out *ssm.DescribeInstanceInformationOutput
		err := t.call(ctx, func(ctx context.Context) (err error) {
			out, err = t.client.DescribeInstanceInformation(ctx, in)
			return err
		})
		if err != nil {
			return fmt.Errorf("wait for its SSM agent: %w", err)
		}
		for _, i := range out.InstanceInformationList {
			if aws.ToString(i.InstanceId) == t.id && i.PingStatus == types.PingStatusOnline {
				return nil
			}
		}
		if err := pause(ctx, delay); err != nil {
			return fmt.Errorf("wait for its SSM agent, which needs an instance profile that allows it and a way to the service: %w", err)
		}
	}
}

// runCommand is a connection over Run Command.
type runCommand struct {
	client SSMClient
	id     string
	within time.Duration
	// firstGuess is how long a command is thought to take before any was seen.
	firstGuess time.Duration

	mu    sync.Mutex
	guess time.Duration // how long a command takes
	done  []string      // jobs that are over and not forgotten

	installing sync.Mutex
	installed  *session
}

// session is an agent that was put on the machine. It ends when the machine restarts.
type session struct {
	sealer
	work string // its folder
}

const (
	// noAgent is what a command answers when its session is over.
	noAgent = "gild-none"
	// heredoc ends what a command gives the agent as input. It is in no base64.
	heredoc = "_GILD_"
	// cleanEnv starts the agent without what the SSM agent's environment has.
	cleanEnv = "env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "
)

// installScript is given the folder's name, the agent and gild's public key, and prints the
// machine's. It may run twice.
const installScript = cleanEnv + `/bin/sh -s <<'` + heredoc + `END'
set -u
umask 077
work=%[1]s
command -v openssl >/dev/null && command -v gzip >/dev/null && command -v setsid >/dev/null || {
	echo "openssl, gzip and setsid (util-linux) must be installed" >&2
	exit 1
}
if mkdir "$work"; then
	cat >"$work/agent" <<'` + heredoc + `'
%[2]s` + heredoc + `
	cat >"$work/peer" <<'` + heredoc + `'
%[3]s` + heredoc + `
	openssl ecparam -name prime256v1 -genkey -noout -out "$work/private" &&
		openssl pkeyutl -derive -inkey "$work/private" -peerkey "$work/peer" -out "$work/secret" &&
		sha256sum <"$work/secret" | cut -c 1-64 >"$work/key" &&
		openssl pkey -in "$work/private" -pubout -out "$work/public.new" &&
		mv "$work/public.new" "$work/public"
	rm -f "$work/private" "$work/secret" "$work/peer"
	[ -e "$work/public" ] || : >"$work/public"
fi
tries=0
until [ -e "$work/public" ] || [ "$tries" -ge 300 ]; do
	tries=$((tries + 1))
	sleep 0.1
done
cat "$work/public"
` + heredoc + `END`

// current returns the session, and puts the agent on the machine when there is none.
func (t *runCommand) current(ctx context.Context) (*session, error) {
	t.installing.Lock()
	defer t.installing.Unlock()
	if t.installed != nil {
		return t.installed, nil
	}
	mine, public, err := newKeys()
	if err != nil {
		return nil, err
	}
	s := &session{work: "/run/gild-" + newID()}
	r, err := t.command(ctx, fmt.Sprintf(installScript, s.work, agentText, public))
	if err == nil {
		if s.sealer, err = agree(mine, r.stdout); err != nil {
			err = fmt.Errorf("%w: status %d, %q", err, r.status, strings.TrimSpace(r.stderr))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("put gild's agent on it: %w", err)
	}
	t.mu.Lock()
	t.done = nil
	t.mu.Unlock()
	t.installed = s
	return s, nil
}

// ended notes that a session is over.
func (t *runCommand) ended(s *session) {
	t.installing.Lock()
	defer t.installing.Unlock()
	if t.installed == s {
		t.installed = nil
	}
}

// lost has nothing to do: an agent that isn't there any more says so.
func (t *runCommand) lost() {}

// errNoSession is the error of a call of an agent that isn't there any more.
var errNoSession = errors.New("the machine has lost gild's agent")

// ask calls the agent with words, which are gild's own and need no quotes, and with lines
// of base64 as its input. It returns what follows "gild ". The agent takes every call
// twice without harm, so one whose fate isn't known is made again.
func (t *runCommand) ask(ctx context.Context, s *session, words string, input ...string) (string, error) {
	lines := []string{
		"[ -s " + s.work + "/key ] || { echo " + noAgent + "; exit 0; }",
		"exec " + cleanEnv + "/bin/sh " + s.work + "/agent " + s.work + " " + words + " <<'" + heredoc + "'",
	}
	lines = append(append(lines, input...), heredoc)
	r, err := t.command(ctx, lines...)
	again := errors.Is(err, errUnknownFate)
	if again {
		r, err = t.command(ctx, lines...)
	}
	if err != nil {
		return "", err
	}
	said := strings.TrimSpace(r.stdout)
	answer, ok := strings.CutPrefix(said, "gild ")
	switch {
	case said == noAgent && again:
		t.ended(s)
		return "", errRestarted
	case said == noAgent:
		t.ended(s)
		return "", errNoSession
	case !ok || r.status != 0:
		return "", fmt.Errorf("gild's agent on the machine: status %d, %q", r.status, strings.TrimSpace(r.stderr))
	}
	return answer, nil
}

func (t *runCommand) dial(context.Context, string) (net.Conn, error) {
	return nil, errNoForward
}

func (t *runCommand) close(ctx context.Context) error {
	t.installing.Lock()
	s := t.installed
	t.installing.Unlock()
	if s == nil {
		return nil
	}
	// There is nothing to mend when the machine is gone, and its folder with it.
	_, _ = t.ask(ctx, s, "close")
	t.ended(s)
	return nil
}
