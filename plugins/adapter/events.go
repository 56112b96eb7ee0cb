package adapter

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/gildhq/gild/engine/spec"
	"github.com/gildhq/gild/engine/step"
)

const (
	// maxLine bounds a line of standard output in bytes.
	maxLine = 1 << 20
	// maxTotal bounds what outputs, key parts and diagnostics each come to in bytes.
	maxTotal = 64 << 10
)

// event is one line of standard output. Exactly one field is set.
type event struct {
	Log        *string                    `json:"log"`
	Progress   *progress                  `json:"progress"`
	Output     map[string]json.RawMessage `json:"output"`
	Diagnostic *diagnostic                `json:"diagnostic"`
	Key        map[string]string          `json:"key"`
	Result     *result                    `json:"result"`
}

type progress struct {
	Done  int64  `json:"done"`
	Total int64  `json:"total"`
	Unit  string `json:"unit"`
}

type diagnostic struct {
	Severity string `json:"severity"`
	Message  string `json:"message"`
	Hint     string `json:"hint"`
	Pointer  string `json:"pointer"`
}

type result struct {
	Outcome string   `json:"outcome"`
	Message string   `json:"message"`
	Checks  []string `json:"checks"`
}

// err is what the result says of the call.
func (r *result) err() error {
	switch r.Outcome {
	case "failed":
		return errors.New(r.Message)
	case "permanent":
		return &step.Permanent{Err: errors.New(r.Message)}
	case "skipped":
		return &step.Skipped{Reason: r.Message}
	case "test-failed":
		if len(r.Checks) == 0 {
			return &step.TestFailed{Checks: []string{r.Message}}
		}
		return &step.TestFailed{Checks: r.Checks}
	default:
		return nil
	}
}

// events takes the events of one call and keeps what they say.
type events struct {
	verb     string
	log      *log
	progress func(done, total int64, unit string)
	declared map[string]string

	outputs  step.Outputs
	problems []step.Problem
	key      map[string]string
	result   *result
	total    int
}

// read takes events until the end of r, or the first line that is none.
func (e *events) read(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4<<10), maxLine)
	n := 0
	for lines.Scan() {
		n++
		if err := e.take(lines.Bytes()); err != nil {
			if unwritten := e.log.failed(); unwritten != nil {
				return unwritten
			}
			return fmt.Errorf("line %d of its standard output: %w", n, err)
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("line %d of its standard output is longer than %d bytes", n+1, maxLine)
	}
	return lines.Err()
}

func (e *events) take(line []byte) error {
	ev, name, err := e.parse(line)
	switch {
	case err != nil:
		return err
	case e.result != nil:
		return fmt.Errorf("an event %q comes after the result", name)
	case name != "log" && name != "result" && !slices.Contains(allowed[e.verb], name):
		return fmt.Errorf("the event %q can't be an answer to %s", name, e.verb)
	}
	switch name {
	case "log":
		return e.log.line(*ev.Log)
	case "progress":
		return e.takeProgress(*ev.Progress)
	case "output":
		return e.takeOutputs(ev.Output, len(line))
	case "diagnostic":
		return e.takeDiagnostic(*ev.Diagnostic, len(line))
	case "key":
		return e.takeKey(ev.Key, len(line))
	default:
		return e.takeResult(ev.Result)
	}
}

// allowed are the events of each verb, besides log and result.
var allowed = map[string][]string{"run": {"progress", "output"}, "validate": {"diagnostic"}, "key": {"key"}}

// parse reads one line and names the event.
func (e *events) parse(line []byte) (ev event, name string, err error) {
	if !utf8.Valid(line) {
		return event{}, "", fmt.Errorf("%s is not valid UTF-8", e.quote(line))
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&ev); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("it ends too early")
		}
		return event{}, "", fmt.Errorf("%s is no event: %s; text for people belongs on standard error", e.quote(line), strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return event{}, "", fmt.Errorf("%s has more than one JSON value", e.quote(line))
	}
	names := ev.names()
	if len(names) != 1 {
		return event{}, "", fmt.Errorf("%s is no event: it has %d of the keys log, progress, output, diagnostic, key and result, not one", e.quote(line), len(names))
	}
	return ev, names[0], nil
}

func (ev event) names() []string {
	var names []string
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"log", ev.Log != nil}, {"progress", ev.Progress != nil}, {"output", ev.Output != nil},
		{"diagnostic", ev.Diagnostic != nil}, {"key", ev.Key != nil}, {"result", ev.Result != nil},
	} {
		if f.set {
			names = append(names, f.name)
		}
	}
	return names
}

// quote shows the beginning of a line.
func (e *events) quote(line []byte) string {
	const most = 80
	if len(line) > most {
		return fmt.Sprintf("%q…", e.log.secrets.Slice(string(line), 0, most))
	}
	return fmt.Sprintf("%q", line)
}

func (e *events) takeProgress(p progress) error {
	if p.Done < 0 || p.Total < 0 {
		return fmt.Errorf("a progress of %d of %d can't be", p.Done, p.Total)
	}
	e.progress(p.Done, p.Total, p.Unit)
	return nil
}

// grow counts what is kept until the end of the call.
func (e *events) grow(what string, n int) error {
	if e.total += n; e.total > maxTotal {
		return fmt.Errorf("its %s come to more than %d bytes", what, maxTotal)
	}
	return nil
}

func (e *events) takeOutputs(outputs map[string]json.RawMessage, size int) error {
	if err := e.grow("outputs", size); err != nil {
		return err
	}
	if e.outputs == nil {
		e.outputs = step.Outputs{}
	}
	for name, text := range outputs {
		if _, ok := e.declared[name]; !ok {
			return undeclared(name, e.declared)
		}
		var value any
		if err := json.Unmarshal(text, &value); err != nil {
			return fmt.Errorf("output %s: %w", name, err)
		}
		e.outputs[name] = value
	}
	return nil
}

func undeclared(name string, declared map[string]string) error {
	var known []string
	for k := range declared {
		known = append(known, k)
	}
	slices.Sort(known)
	if near := spec.Suggest(name, known); near != "" {
		return fmt.Errorf("the manifest declares no output %q; did you mean %q?", name, near)
	}
	return fmt.Errorf("the manifest declares no output %q", name)
}

func (e *events) takeDiagnostic(d diagnostic, size int) error {
	if err := e.grow("diagnostics", size); err != nil {
		return err
	}
	switch {
	case d.Message == "":
		return errors.New("the diagnostic has no message")
	case d.Pointer != "" && !strings.HasPrefix(d.Pointer, "/"):
		return fmt.Errorf("%q is no JSON Pointer such as /text", d.Pointer)
	case d.Severity != "" && d.Severity != "error" && d.Severity != "warning":
		return fmt.Errorf("the severity %q is neither error nor warning", d.Severity)
	}
	e.problems = append(e.problems, step.Problem{Pointer: d.Pointer, Message: d.Message, Hint: d.Hint, Warning: d.Severity == "warning"})
	return nil
}

func (e *events) takeKey(parts map[string]string, size int) error {
	if err := e.grow("key parts", size); err != nil {
		return err
	}
	if e.key == nil {
		e.key = map[string]string{}
	}
	for name, text := range parts {
		e.key[name] = text
	}
	return nil
}

func (e *events) takeResult(r *result) error {
	switch r.Outcome {
	case "ok":
	case "failed", "permanent":
		if r.Message == "" {
			return fmt.Errorf("the result %q has no message", r.Outcome)
		}
	case "skipped", "test-failed":
		if e.verb != "run" {
			return fmt.Errorf("the outcome %q can't be an answer to %s", r.Outcome, e.verb)
		}
		if r.Message == "" && (r.Outcome == "skipped" || len(r.Checks) == 0) {
			return fmt.Errorf("the result %q has no message", r.Outcome)
		}
	default:
		return fmt.Errorf("the outcome %q is none of ok, failed, permanent, test-failed and skipped", r.Outcome)
	}
	if len(r.Checks) > 0 && r.Outcome != "test-failed" {
		return fmt.Errorf("the result %q can't have checks", r.Outcome)
	}
	e.result = r
	return nil
}
