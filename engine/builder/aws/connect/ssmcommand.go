package connect

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"github.com/aws/smithy-go"
)

const (
	document = "AWS-RunShellScript"
	// callTimeout bounds one call of the API, with the SDK's retries.
	callTimeout = 2 * time.Minute
	// deliverWithin is how long a command may wait for the agent. AWS allows no less than 30 s.
	deliverWithin = 60 * time.Second
	// appearWithin is how long a command that was sent may be unknown to other calls.
	appearWithin = time.Minute
	// commandTimeout is how long one command may run on the machine, far more than any takes.
	commandTimeout = 5 * time.Minute
	// shortestGuess bounds how soon a command is looked at.
	shortestGuess = 10 * time.Millisecond
	// slowestPoll is the longest time between two looks at a command.
	slowestPoll = 5 * time.Second
)

var (
	// errNotDelivered: the command wasn't run, and never will be.
	errNotDelivered = errors.New("the machine's SSM agent didn't take the command")
	// errUnknownFate: the command may have been run, and its answer is lost.
	errUnknownFate = errors.New("SSM doesn't tell how the command went")
)

// result is how a command ended on the machine.
type result struct {
	status         int
	stdout, stderr string
}

// command sends shell text to the machine and waits for its end. It is sent again when it
// can't have been run.
func (t *runCommand) command(ctx context.Context, lines ...string) (result, error) {
	for again := 0; ; again++ {
		id, err := t.send(ctx, lines)
		if err != nil {
			return result{}, err
		}
		r, err := t.await(ctx, id)
		if !errors.Is(err, errNotDelivered) || again == 2 {
			return r, err
		}
	}
}

func (t *runCommand) send(ctx context.Context, lines []string) (string, error) {
	in := &ssm.SendCommandInput{
		DocumentName: aws.String(document),
		InstanceIds:  []string{t.id},
		Parameters: map[string][]string{
			"commands":         lines,
			"executionTimeout": {fmt.Sprint(int(commandTimeout.Seconds()))},
		},
		TimeoutSeconds: aws.Int32(int32(deliverWithin.Seconds())),
		Comment:        aws.String("gild"),
	}
	var out *ssm.SendCommandOutput
	err := t.call(ctx, func(ctx context.Context) (err error) {
		out, err = t.client.SendCommand(ctx, in)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("send a command over SSM: %w", err)
	}
	return aws.ToString(out.Command.CommandId), nil
}

// await polls a command: first after the time such a command usually takes, then ever more
// slowly, so that the number of calls grows with the logarithm of the time.
func (t *runCommand) await(ctx context.Context, id string) (result, error) {
	begin := time.Now()
	in := &ssm.GetCommandInvocationInput{CommandId: aws.String(id), InstanceId: aws.String(t.id)}
	unfinished := time.Duration(0) // when it was last seen so
	for delay := t.usually(); ; delay = min(max(time.Since(begin)/3, 10*time.Millisecond), slowestPoll) {
		if err := pause(ctx, delay); err != nil {
			t.cancel(ctx, id)
			return result{}, err
		}
		var out *ssm.GetCommandInvocationOutput
		err := t.call(ctx, func(ctx context.Context) (err error) {
			out, err = t.client.GetCommandInvocation(ctx, in)
			return err
		})
		var unknown *types.InvocationDoesNotExist
		switch {
		case errors.As(err, &unknown) && time.Since(begin) < appearWithin:
			continue
		case errors.As(err, &unknown):
			return result{}, fmt.Errorf("SSM command %s: %w: unknown after %s", id, errUnknownFate, appearWithin)
		case err != nil:
			t.cancel(ctx, id)
			return result{}, fmt.Errorf("ask SSM for the command %s: %w", id, err)
		}
		r, done, err := outcome(out, time.Since(begin))
		if err != nil {
			return r, fmt.Errorf("SSM command %s: %w", id, err)
		}
		if done {
			t.took(unfinished, time.Since(begin))
			return r, nil
		}
		unfinished = time.Since(begin)
	}
}

// outcome reads a command's state.
func outcome(out *ssm.GetCommandInvocationOutput, waited time.Duration) (r result, done bool, err error) {
	r = result{int(out.ResponseCode), aws.ToString(out.StandardOutputContent), aws.ToString(out.StandardErrorContent)}
	details := aws.ToString(out.StatusDetails)
	switch out.Status {
	case types.CommandInvocationStatusSuccess:
		return r, true, nil
	case types.CommandInvocationStatusPending, types.CommandInvocationStatusInProgress,
		types.CommandInvocationStatusDelayed, types.CommandInvocationStatusCancelling:
		if limit := deliverWithin + commandTimeout + time.Minute; waited > limit {
			return r, false, fmt.Errorf("%w: still %s after %s", errUnknownFate, details, limit)
		}
		return r, false, nil
	case types.CommandInvocationStatusFailed, types.CommandInvocationStatusTimedOut, types.CommandInvocationStatusCancelled:
		// AWS words them as "Delivery Timed Out" in prose and without spaces in answers.
		switch strings.ReplaceAll(details, " ", "") {
		case "DeliveryTimedOut", "Undeliverable", "Terminated":
			return r, false, fmt.Errorf("%w: %s", errNotDelivered, details)
		}
		if r.status < 0 || out.Status != types.CommandInvocationStatusFailed {
			return r, false, fmt.Errorf("%w: it ended as %q", errUnknownFate, details)
		}
		return r, true, nil
	default:
		return r, false, fmt.Errorf("it has the status %q, which is new", out.Status)
	}
}

// cancel takes a command back that may not have been delivered. Whether that helps isn't
// known, so whoever needs to be sure tells the machine as well.
func (t *runCommand) cancel(ctx context.Context, id string) {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer stop()
	_, _ = t.client.CancelCommand(ctx, &ssm.CancelCommandInput{CommandId: aws.String(id), InstanceIds: []string{t.id}})
}

// call calls the API, and goes on doing so while it is asked to slow down or doesn't know
// the instance, as after a restart.
func (t *runCommand) call(ctx context.Context, do func(context.Context) error) error {
	begin := time.Now()
	for delay := 200 * time.Millisecond; ; delay = min(2*delay, 15*time.Second) {
		attempt, stop := context.WithTimeout(ctx, callTimeout)
		err := do(attempt)
		stop()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case time.Since(begin) > min(patience(err), t.within):
			return err
		}
		if err := pause(ctx, delay); err != nil {
			return err
		}
	}
}

// unknownFor is how long an instance may be unknown to SSM while it restarts.
const unknownFor = 3 * time.Minute

// patience is how long to repeat a call that failed without effect; 0 is not at all.
func patience(err error) time.Duration {
	var unknown *types.InvalidInstanceId
	if errors.As(err, &unknown) {
		return unknownFor
	}
	var api smithy.APIError
	if !errors.As(err, &api) {
		return 0
	}
	switch api.ErrorCode() {
	case "ThrottlingException", "Throttling", "RequestLimitExceeded", "TooManyRequestsException", "TooManyUpdates":
		return time.Hour
	}
	return 0
}

// usually is how long a command took of late.
func (t *runCommand) usually() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.guess
}

// took notes how long a command took: longer than it was seen unfinished, 0 for never, and
// not longer than it was seen to be over. What wasn't seen unfinished may have taken any
// time, so the next is looked at sooner; what took far longer than usual waited for
// something on the machine, and says nothing.
func (t *runCommand) took(unfinished, over time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case unfinished == 0:
		t.guess = max(t.guess*4/5, shortestGuess)
	case unfinished < max(4*t.guess, t.firstGuess):
		t.guess += (unfinished + (over-unfinished)/4 - t.guess) / 2
	}
}

// pause waits unless ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
