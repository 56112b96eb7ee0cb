package wire

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// botoCall is one call that the script makes, and what it says of it.
type botoCall struct {
	Service string `json:"service"`
	Action  string `json:"action"`
	Params  any    `json:"params"`
	Answer  any    `json:"answer"`

	answer map[string]any
}

// TestBotocore is TestSDK with botocore, which boto3 and the AWS CLI stand on, as the client.
func TestBotocore(t *testing.T) {
	t.Parallel()
	if err := exec.Command("python3", "-c", "import botocore").Run(); err != nil {
		t.Fatalf("this test needs python3 with botocore, of the packages python3-botocore or awscli: %v", err)
	}
	services, err := load()
	if err != nil {
		t.Fatal(err)
	}
	var calls []botoCall
	for _, name := range slices.Sorted(maps.Keys(services)) {
		for _, op := range slices.Sorted(maps.Keys(services[name].operations)) {
			for seed := range uint64(2) {
				in, out := example(services[name], services[name].operations[op], 100+seed)
				// botocore encodes this one itself.
				delete(in, "UserData")
				if body, ok := in["(body)"]; ok {
					in["BlockData"] = body
					delete(in, "(body)")
				}
				calls = append(calls, botoCall{name, op, tagged(in), tagged(out), out})
			}
		}
	}
	f := &fakeService{}
	url, _ := serve(t, f)
	answered := runBoto(t, f, url, calls)
	if known := len(calls) * 9 / 10; answered < known {
		t.Errorf("botocore knew %d of %d calls; its models are older than this test can use", answered, len(calls))
	}
}

// runBoto lets the script make the calls one by one, and returns how many it knew.
func runBoto(t *testing.T, f *fakeService, url string, calls []botoCall) (answered int) {
	t.Helper()
	work, err := json.Marshal(map[string]any{"url": url, "calls": calls})
	if err != nil {
		t.Fatal(err)
	}
	f.queue(calls)
	cmd := exec.CommandContext(t.Context(), "python3", "testdata/botocore_calls.py")
	cmd.Stdin = bytes.NewReader(work)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.Output()
	if err != nil {
		t.Errorf("the script failed: %v\n%s", err, stderr.Bytes())
	}
	lines := bufio.NewReader(bytes.NewReader(stdout))
	for _, call := range calls {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			t.Errorf("no result of %s %s", call.Service, call.Action)
			return answered
		}
		var said struct {
			Missing         bool
			Sent, Got, Want any
		}
		if err := json.Unmarshal(line, &said); err != nil {
			t.Fatal(err)
		}
		if said.Missing {
			continue
		}
		asked := f.at(t, answered).Params
		answered++
		if diff := cmp.Diff(said.Want, said.Got); diff != "" {
			t.Errorf("%s %s: answer (-sent +got):\n%s", call.Service, call.Action, diff)
		}
		sent := said.Sent.(map[string]any)
		dropTokens(&shape{}, sent, asked)
		if body, ok := asked["(body)"]; ok {
			asked["BlockData"] = body
			delete(asked, "(body)")
		}
		if diff := cmp.Diff(said.Sent, reread(t, tagged(asked))); diff != "" {
			t.Errorf("%s %s: params (-sent +got):\n%s", call.Service, call.Action, diff)
		}
	}
	return answered
}

// tagged writes blobs and times as the script does.
func tagged(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, item := range v {
			out[k] = tagged(item)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = tagged(item)
		}
		return out
	case []byte:
		return map[string]any{"$blob": base64.StdEncoding.EncodeToString(v)}
	case time.Time:
		return map[string]any{"$time": v.UnixMilli()}
	}
	return v
}

// reread gives a value the types that JSON has.
func reread(t *testing.T, v any) any {
	t.Helper()
	var out any
	if err := json.Unmarshal([]byte(flat(v)), &out); err != nil {
		t.Fatal(err)
	}
	return out
}
