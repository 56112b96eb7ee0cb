package broker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

// kinds names what code branches on in an error.
func kinds(err error) (found []string) {
	var (
		skipped   *step.Skipped
		failed    *step.TestFailed
		permanent *step.Permanent
		exit      *step.ExitError
	)
	if errors.As(err, &skipped) {
		found = append(found, "skipped: "+skipped.Reason)
	}
	if errors.As(err, &failed) {
		found = append(found, "failed: "+strings.Join(failed.Checks, ","))
	}
	if errors.As(err, &permanent) {
		found = append(found, "permanent")
	}
	if errors.As(err, &exit) {
		found = append(found, fmt.Sprintf("exit: %q %d", exit.Argv, exit.Status))
	}
	if errors.Is(err, context.Canceled) {
		found = append(found, "cancelled")
	}
	if errors.Is(err, fs.ErrNotExist) {
		found = append(found, "not there")
	}
	return found
}

func TestErrorsSurvive(t *testing.T) {
	t.Parallel()
	exit := &step.ExitError{Argv: []string{"apt-get", "install"}, Status: 100}
	for name, err := range map[string]error{
		"plain":              errors.New("it didn't work"),
		"wrapped":            fmt.Errorf("one: %w", errors.New("two")),
		"lines":              errors.Join(errors.New("one"), errors.New("two")),
		"exit":               exit,
		"exit wrapped":       fmt.Errorf("install: %w", exit),
		"permanent":          &step.Permanent{Err: errors.New("never")},
		"permanent inside":   fmt.Errorf("here: %w", &step.Permanent{Err: errors.New("never")}),
		"permanent exit":     &step.Permanent{Err: exit},
		"permanent exit too": fmt.Errorf("here: %w", &step.Permanent{Err: fmt.Errorf("there: %w", exit)}),
		"skipped":            &step.Skipped{Reason: "nothing to do"},
		"one check":          &step.TestFailed{Checks: []string{"port 80 is closed"}},
		"checks":             &step.TestFailed{Checks: []string{"one", "two"}},
		"checks wrapped":     fmt.Errorf("goss: %w", &step.TestFailed{Checks: []string{"one", "two"}}),
		"cancelled":          context.Canceled,
		"cancelled wrapped":  fmt.Errorf("wait: %w", context.Canceled),
		"deadline":           context.DeadlineExceeded,
		"not there":          &fs.PathError{Op: "open", Path: "/x", Err: fs.ErrNotExist},
		"not there at all":   fs.ErrNotExist,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for way, got := range map[string]error{
				"failure": FromFailure(ToFailure(err)),
				"status":  FromStatus(ToStatus(err)),
				"twice":   FromStatus(ToStatus(FromFailure(ToFailure(err)))),
			} {
				if d := cmp.Diff(err.Error(), got.Error()); d != "" {
					t.Errorf("%s: text (-want +got)\n%s", way, d)
				}
				if d := cmp.Diff(kinds(err), kinds(got)); d != "" {
					t.Errorf("%s: kinds (-want +got)\n%s", way, d)
				}
			}
		})
	}
	if ToFailure(nil) != nil || FromFailure(nil) != nil || ToStatus(nil) != nil || FromStatus(nil) != nil {
		t.Error("no error became one")
	}
}

// TestHostileFailures takes what no honest plugin sends.
func TestHostileFailures(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		f    *pluginv1.Failure
		want string
		is   []string
	}{
		"nothing":         {&pluginv1.Failure{}, "failed without saying why", nil},
		"unknown kind":    {&pluginv1.Failure{Kind: 99, Message: "x"}, "x", nil},
		"no command":      {&pluginv1.Failure{Message: "x", Exit: &pluginv1.ExitStatus{Status: 3}}, "x", []string{`exit: ["a command"] 3`}},
		"no checks":       {&pluginv1.Failure{Kind: pluginv1.Failure_TEST_FAILED, Message: "x"}, "x", []string{"failed: x"}},
		"nothing at all":  {&pluginv1.Failure{Kind: pluginv1.Failure_TEST_FAILED}, "", []string{"failed: "}},
		"permanent empty": {&pluginv1.Failure{Kind: pluginv1.Failure_PERMANENT}, "failed without saying why", []string{"permanent"}},
		"cancelled empty": {&pluginv1.Failure{Kind: pluginv1.Failure_CANCELLED}, "context canceled", []string{"cancelled"}},
	} {
		got := FromFailure(tc.f)
		if got.Error() != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
		if d := cmp.Diff(tc.is, kinds(got)); d != "" {
			t.Errorf("%s: kinds (-want +got)\n%s", name, d)
		}
	}
}

// TestStatusIsSmall keeps failures within the metadata that other languages take.
func TestStatusIsSmall(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ü\xff", 1<<20)
	for name, err := range map[string]error{
		"text":   errors.New(long),
		"checks": &step.TestFailed{Checks: []string{long, long, long}},
		"argv":   &step.ExitError{Argv: strings.Split(strings.Repeat(long[:100]+" ", 1000), " "), Status: 1},
	} {
		st, _ := status.FromError(ToStatus(err))
		data, marshalErr := proto.Marshal(st.Proto())
		if marshalErr != nil || len(data) > 5<<10 {
			t.Errorf("%s: the status has %d bytes, %v", name, len(data), marshalErr)
		}
		if FromStatus(st.Err()) == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// FuzzFailure takes any message as a plugin may send it.
func FuzzFailure(f *testing.F) {
	for _, err := range []error{errors.New("x"), &step.Permanent{Err: &step.ExitError{Argv: []string{"a"}, Status: 1}}, &step.TestFailed{Checks: []string{"a", "b"}}, &step.Skipped{}} {
		data, marshalErr := proto.Marshal(ToFailure(err))
		if marshalErr != nil {
			f.Fatal(marshalErr)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		sent := &pluginv1.Failure{}
		if proto.Unmarshal(data, sent) != nil {
			return
		}
		err := FromFailure(sent)
		if err == nil {
			t.Fatal("a failure became no error")
		}
		again := FromFailure(ToFailure(err))
		if d := cmp.Diff(kinds(err), kinds(again)); d != "" {
			t.Errorf("kinds change on the way (-want +got)\n%s", d)
		}
		if len(err.Error()) > 2*maxText {
			t.Errorf("the text has %d bytes", len(err.Error()))
		}
	})
}

// FuzzToFailure puts any text on the wire.
func FuzzToFailure(f *testing.F) {
	f.Add("text", "arg", 10)
	f.Add("\xff\x00", "ü", 1)
	f.Fuzz(func(t *testing.T, text, arg string, n int) {
		if s := clip(text, max(n, 3)); len(s) > max(n, 3) || !utf8.ValidString(s) {
			t.Errorf("%d bytes of %q became %q", n, text, s)
		}
		err := &step.Permanent{Err: fmt.Errorf("%s: %w", text, &step.ExitError{Argv: []string{arg}, Status: n})}
		if _, marshalErr := proto.Marshal(ToFailure(err)); marshalErr != nil {
			t.Error(marshalErr)
		}
		if _, ok := status.FromError(ToStatus(err)); !ok {
			t.Error("no status")
		}
	})
}

// A secret at the place where a text is cut leaves no piece of itself.
func TestSecretsAreNotCut(t *testing.T) {
	t.Parallel()
	const secret = "SECRETVALUE"
	env := map[string]string{"TOKEN": secret}
	for cut, limit := range map[string]int{"status": maxStatusText, "failure": maxText} {
		for before := limit - len(secret) - 4; before <= limit; before += 5 {
			text := strings.Repeat("x", before) + secret + strings.Repeat("y", limit)
			exit := &step.ExitError{Argv: []string{text}, Status: 1}
			for _, err := range []error{errors.New(text), &step.TestFailed{Checks: []string{text}}, &step.Skipped{Reason: text}, exit} {
				got := FromStatus(toStatusOf(err, env))
				if cut == "failure" {
					got = errors.Join(FromFailure(ToFailureOf(err, env)), FromFailureOf(rawFailure(err), env))
				}
				if said := fmt.Sprintf("%v %v", got, kinds(got)); strings.ContainsAny(said, "SECRTVALU") {
					t.Fatalf("%s, %T after %d bytes: a piece of the secret is left at the end: %q", cut, err, before, said[max(0, len(said)-60):])
				}
			}
		}
	}
	if got := FromFailureOf(&pluginv1.Failure{Message: secret}, env).Error(); got != secret {
		t.Errorf("what isn't cut is %q, want %q: the engine masks it", got, secret)
	}
}

// rawFailure is what a plugin may send that doesn't cut texts.
func rawFailure(err error) *pluginv1.Failure {
	return &pluginv1.Failure{
		Message: err.Error(), Kind: pluginv1.Failure_TEST_FAILED, Checks: []string{err.Error()},
		Exit: &pluginv1.ExitStatus{Argv: []string{err.Error()}},
	}
}
