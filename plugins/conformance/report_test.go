package conformance

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func report() Report {
	return Report{Path: "./p", Plugin: "acme/agent", Version: "1.0.0", Checks: []Result{
		{"starts", "it starts", OK, "in 5ms"},
		{"docs", "it has help", Failed, "step \"a\": none\x1b[31m\nstep \"b\": none"},
		{"secrets", "none show", Warning, "one does"},
		{"configs", "all are good", Skipped, "there are none"},
		{"runs", "all end well", Skipped, "there are none"},
	}}
}

func TestText(t *testing.T) {
	t.Parallel()
	want := `acme/agent 1.0.0
  ok       starts   it starts (in 5ms)
  failed   docs     it has help
                    step "a": none\x1b[31m
                    step "b": none
  warning  secrets  none show
                    one does
  skipped  configs  all are good
                    there are none
  skipped  runs     all end well
5 checks: 1 ok, 1 warning, 1 failed, 2 skipped
`
	if d := cmp.Diff(want, report().Text()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if report().OK() {
		t.Error("a report with a failed check is ok")
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	r := report()
	r.Checks = r.Checks[:1]
	got, err := json.Marshal(r)
	want := `{"path":"./p","plugin":"acme/agent","version":"1.0.0","real_runs":0,"checks":[{"name":"starts","means":"it starts","status":"ok","detail":"in 5ms"}]}`
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
}
