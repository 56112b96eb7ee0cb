package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/gildhq/gild/plugins/sdk"
)

const (
	// maxReport bounds what goss may print, in bytes.
	maxReport = 16 << 20
	// maxLine bounds one line made of it, in bytes.
	maxLine = 2000
)

// outcome is what became of an assertion.
type outcome string

const (
	held    outcome = "ok"
	missed  outcome = "FAILED"
	skipped outcome = "skipped"
)

// report is what `goss validate --format json` prints.
type report struct {
	Results []result `json:"results"`
	Summary struct {
		Line string `json:"summary-line"`
	} `json:"summary"`
}

// result is that of one assertion.
type result struct {
	Successful bool   `json:"successful"`
	Skipped    bool   `json:"skipped"`
	Title      string `json:"title"`
	Line       string `json:"summary-line-compact"`
}

func (r result) outcome() outcome {
	switch {
	case r.Skipped:
		return skipped
	case r.Successful:
		return held
	}
	return missed
}

// text is the assertion in one line.
func (r result) text() string {
	text := strings.Join(strings.Fields(r.Line), " ")
	if r.Title != "" {
		text = strings.Join(strings.Fields(r.Title), " ") + ": " + text
	}
	if len(text) > maxLine {
		text = strings.ToValidUTF8(text[:maxLine], "") + " …"
	}
	return text
}

func (r report) failed() (lines []string) {
	for _, res := range r.Results {
		if res.outcome() == missed {
			lines = append(lines, res.text())
		}
	}
	return lines
}

func (r report) count(o outcome) (n int) {
	for _, res := range r.Results {
		if res.outcome() == o {
			n++
		}
	}
	return n
}

// log writes all assertions and the summary.
func (r report) log(w io.Writer) {
	for _, res := range r.Results {
		fmt.Fprintf(w, "%-7s %s\n", res.outcome(), res.text())
	}
	fmt.Fprintln(w, r.Summary.Line)
}

// validate runs goss once. It ends with 0 or 1 after a report, and with another status when
// the goss file can't be used.
func validate(ctx context.Context, t *sdk.Target, cmd sdk.Cmd) (report, error) {
	stdout, stderr := limited{max: maxReport}, limited{max: maxLine}
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := t.Machine.Exec(ctx, cmd)
	var exit *sdk.ExitError
	switch {
	case err != nil && !errors.As(err, &exit):
		return report{}, fmt.Errorf("run goss in the guest: %w", err)
	case exit != nil && exit.Status != 1:
		return report{}, &sdk.Permanent{Err: fmt.Errorf("goss ended with status %d: %s", exit.Status, said(stdout.Bytes(), stderr.Bytes()))}
	case stdout.full:
		return report{}, fmt.Errorf("goss printed more than %d bytes", maxReport)
	}
	r, parsed := parseReport(stdout.Bytes())
	if parsed != nil {
		return report{}, fmt.Errorf("%w; it also said: %s", parsed, said(stderr.Bytes()))
	}
	return r, nil
}

// parseReport reads what goss printed.
func parseReport(text []byte) (report, error) {
	var r report
	if err := json.Unmarshal(text, &r); err != nil {
		return report{}, fmt.Errorf("read goss's report: %w", err)
	}
	if len(r.Results) == 0 {
		return report{}, errors.New("goss's report has no results")
	}
	return r, nil
}

// said is what goss printed in one line. It tells mistakes of the goss file on standard output.
func said(texts ...[]byte) string {
	line := strings.TrimPrefix(strings.Join(strings.Fields(string(bytes.Join(texts, []byte(" ")))), " "), "Error: ")
	if line == "" {
		return "nothing"
	}
	return strings.ToValidUTF8(line[:min(len(line), maxLine)], "�")
}

// limited is a buffer that drops what is too much for it.
type limited struct {
	bytes.Buffer
	max  int
	full bool
}

// Write implements io.Writer.
func (l *limited) Write(p []byte) (int, error) {
	room := l.max - l.Len()
	if len(p) > room {
		l.full = true
		l.Buffer.Write(p[:room])
		return len(p), nil
	}
	return l.Buffer.Write(p)
}
