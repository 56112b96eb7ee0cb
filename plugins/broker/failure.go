package broker

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/internal/hide"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

// What is kept of a failure. The texts of a status are metadata, of which clients in other
// languages take no more than 8 KiB.
const (
	maxText       = 64 << 10
	maxChecks     = 1000
	maxStatusText = 1 << 10
)

// ToFailure puts an error into the form that crosses the wire; nil for nil. What is more
// than the text is kept of *step.Skipped, *step.TestFailed, *step.Permanent,
// *step.ExitError, fs.ErrNotExist and context.Canceled, also when wrapped.
func ToFailure(err error) *pluginv1.Failure { return ToFailureOf(err, nil) }

// ToFailureOf is [ToFailure] of a step with this environment, whose values are hidden where
// a text is cut: who masks secrets later finds no piece of one.
func ToFailureOf(err error, env map[string]string) *pluginv1.Failure {
	return cutter{hide.Of(env)}.failure(err)
}

func (c cutter) failure(err error) *pluginv1.Failure {
	if err == nil {
		return nil
	}
	f := &pluginv1.Failure{Message: c.clip(err.Error(), maxText)}
	var (
		skipped   *step.Skipped
		failed    *step.TestFailed
		permanent *step.Permanent
		exit      *step.ExitError
	)
	if errors.As(err, &exit) {
		f.Exit = &pluginv1.ExitStatus{Argv: c.clipAll(exit.Argv), Status: int32(exit.Status)}
	}
	switch {
	case errors.As(err, &skipped):
		f.Kind, f.Message = pluginv1.Failure_SKIPPED, c.clip(skipped.Reason, maxText)
	case errors.As(err, &failed):
		f.Kind, f.Checks = pluginv1.Failure_TEST_FAILED, c.clipAll(failed.Checks)
	case errors.As(err, &permanent):
		f.Kind = pluginv1.Failure_PERMANENT
	case errors.Is(err, context.Canceled) || errors.Is(err, errEnded):
		f.Kind = pluginv1.Failure_CANCELLED
	case errors.Is(err, fs.ErrNotExist):
		f.Kind = pluginv1.Failure_NOT_FOUND
	}
	return f
}

// FromFailure is the reverse of [ToFailure]: an error with the same text and of the same
// types. It takes what any plugin may have sent; nil for nil.
func FromFailure(f *pluginv1.Failure) error { return FromFailureOf(f, nil) }

// FromFailureOf is [FromFailure] for a step with this environment, whose values are hidden
// where a text is cut.
func FromFailureOf(f *pluginv1.Failure, env map[string]string) error {
	if f == nil {
		return nil
	}
	c := cutter{hide.Of(env)}
	err := &failure{text: c.clip(f.GetMessage(), maxText)}
	if f.GetExit() != nil {
		err.add(c.exitError(f.GetExit()))
	}
	switch f.GetKind() {
	case pluginv1.Failure_SKIPPED:
		return &step.Skipped{Reason: err.text}
	case pluginv1.Failure_TEST_FAILED:
		err.add(&step.TestFailed{Checks: c.checks(f)})
	case pluginv1.Failure_PERMANENT:
		return &step.Permanent{Err: err.simplest()}
	case pluginv1.Failure_CANCELLED:
		err.add(context.Canceled)
	case pluginv1.Failure_NOT_FOUND:
		err.add(fs.ErrNotExist)
	}
	return err.simplest()
}

// checks returns at least one check: a failed test without any wouldn't say what failed.
func (c cutter) checks(f *pluginv1.Failure) []string {
	if list := c.clipAll(f.GetChecks()); len(list) > 0 {
		return list
	}
	return []string{c.clip(f.GetMessage(), maxText)}
}

func (c cutter) exitError(e *pluginv1.ExitStatus) *step.ExitError {
	argv := c.clipAll(e.GetArgv())
	if len(argv) == 0 {
		argv = []string{"a command"}
	}
	return &step.ExitError{Argv: argv, Status: int(e.GetStatus())}
}

// failure is an error that came over the wire.
type failure struct {
	text   string
	causes []error
}

// Error returns the text that the error had on the other side.
func (f *failure) Error() string { return f.text }

// Unwrap returns what the error was on the other side.
func (f *failure) Unwrap() []error { return f.causes }

func (f *failure) add(err error) { f.causes = append(f.causes, err) }

// simplest returns the only cause itself when it says the same.
func (f *failure) simplest() error {
	if len(f.causes) == 1 && (f.text == "" || f.causes[0].Error() == f.text) {
		return f.causes[0]
	}
	if f.text == "" {
		f.text = "failed without saying why"
	}
	return f
}

// ToStatus gives a failed call the status that tells the other side what err is. What
// already is a status stays what it is; nil for nil.
func ToStatus(err error) error { return toStatusOf(err, nil) }

// toStatusOf is [ToStatus] for a step with this environment, whose values are hidden where
// a text is cut.
func toStatusOf(err error, env map[string]string) error {
	if err == nil {
		return nil
	}
	if _, ok := err.(interface{ GRPCStatus() *status.Status }); ok {
		return err
	}
	c := cutter{hide.Of(env)}
	f := c.failure(err)
	f.Message = c.clip(f.Message, maxStatusText)
	c.shorten(f)
	st := status.New(code(f.GetKind()), f.GetMessage())
	detailed, detailErr := st.WithDetails(f)
	if detailErr != nil {
		return st.Err()
	}
	return detailed.Err()
}

// shorten keeps lists of a failure within what fits into a status.
func (c cutter) shorten(f *pluginv1.Failure) {
	room := maxStatusText
	fit := func(list []string) []string {
		for i, s := range list {
			list[i] = c.clip(s, room)
			if room -= len(list[i]); room <= 0 {
				return list[:i+1]
			}
		}
		return list
	}
	f.Checks = fit(f.GetChecks())
	if f.GetExit() != nil {
		f.Exit.Argv = fit(f.Exit.GetArgv())
	}
}

func code(k pluginv1.Failure_Kind) codes.Code {
	switch k {
	case pluginv1.Failure_NOT_FOUND:
		return codes.NotFound
	case pluginv1.Failure_CANCELLED:
		return codes.Canceled
	case pluginv1.Failure_PERMANENT:
		return codes.FailedPrecondition
	default:
		return codes.Unknown
	}
}

// FromStatus is the reverse of [ToStatus]: the error of a call as the other side meant it.
// An error without a [pluginv1.Failure] among its details stays what it is.
func FromStatus(err error) error {
	st, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	for _, detail := range st.Details() {
		if f, ok := detail.(*pluginv1.Failure); ok {
			return FromFailure(f)
		}
	}
	return err
}

// cutter cuts texts, and hides what mustn't be cut.
type cutter struct{ secrets *hide.Values }

// clip is the function clip for a text with secrets in it. What isn't cut stays as it is.
func (c cutter) clip(text string, n int) string {
	if len(text) > n {
		text = c.secrets.Text(text)
	}
	return clip(text, n)
}

// clip makes text valid UTF-8, which the wire demands, of at most n bytes.
func clip(text string, n int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= n {
		return text
	}
	const more = "…"
	n = max(n-len(more), 0)
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n] + more
}

// clipAll clips a list and its texts, together to about maxText.
func (c cutter) clipAll(list []string) []string {
	var out []string
	room := maxText
	for _, text := range list[:min(len(list), maxChecks)] {
		text = c.clip(text, room)
		out = append(out, text)
		if room -= len(text); room <= 0 {
			break
		}
	}
	return out
}
