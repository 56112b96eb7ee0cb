package connect

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
)

// fakeSSM is a fake of Systems Manager: the five calls, AWS's limits, and real shells on a
// machine. It is told how badly to behave before it is used.
type fakeSSM struct {
	h *host

	hidden      int           // how many times a new command is unknown to GetCommandInvocation
	delivery    time.Duration // how long a command takes to reach the machine
	throttle    int           // every n-th call is throttled; 0 is none
	offline     int           // how many times the agent isn't online yet
	twice       int           // every n-th command is delivered twice, as after an answer that was lost
	undelivered int           // how many commands time out before they are delivered

	workers chan struct{} // the agent runs five commands at a time

	mu       sync.Mutex
	calls    map[string]int
	total    int
	bodies   bytes.Buffer // of requests
	commands map[string]*invocation
	running  sync.WaitGroup
}

type invocation struct {
	id, script      string
	looks           int
	status, details string
	code            int
	stdout, stderr  string
	canceled        bool
}

func newFakeSSM(h *host) *fakeSSM {
	return &fakeSSM{h: h, workers: make(chan struct{}, 5), calls: map[string]int{}, commands: map[string]*invocation{}}
}

// client starts the server and returns the SDK's client of it.
func (f *fakeSSM) client(tb testing.TB) *ssm.Client {
	tb.Helper()
	server := httptest.NewServer(f)
	httpClient := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	tb.Cleanup(func() {
		httpClient.CloseIdleConnections()
		server.Close()
		f.running.Wait()
	})
	return ssm.New(ssm.Options{
		Region: "eu-west-1", BaseEndpoint: aws.String(server.URL), HTTPClient: httpClient,
		Credentials: credentials.NewStaticCredentialsProvider("AKIAEXAMPLE", "secret", ""),
		// A throttled call is made again after up to 20 s by default.
		Retryer: retry.NewStandard(func(o *retry.StandardOptions) { o.MaxBackoff = 50 * time.Millisecond }),
	})
}

func (f *fakeSSM) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	action := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "AmazonSSM.")
	f.mu.Lock()
	f.calls[action]++
	f.total++
	f.bodies.Write(body)
	throttled := f.throttle > 0 && f.total%f.throttle == 0
	f.mu.Unlock()
	var in struct {
		DocumentName   string
		InstanceIds    []string
		InstanceId     string
		CommandId      string
		TimeoutSeconds int
		Parameters     map[string][]string
	}
	answer, code := any(nil), ""
	switch err := json.Unmarshal(body, &in); {
	case err != nil:
		code = "SerializationException"
	case throttled:
		code = "ThrottlingException"
	case action == "SendCommand":
		answer, code = f.send(in.DocumentName, in.InstanceIds, in.TimeoutSeconds, in.Parameters)
	case action == "GetCommandInvocation":
		answer, code = f.get(in.CommandId, in.InstanceId)
	case action == "CancelCommand":
		answer, code = f.cancel(in.CommandId)
	case action == "DescribeInstanceInformation":
		answer = f.describe()
	default:
		code = "UnknownOperationException"
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if code != "" {
		w.WriteHeader(http.StatusBadRequest)
		answer = map[string]string{"__type": code, "message": code}
	}
	// The client may have gone.
	_ = json.NewEncoder(w).Encode(answer)
}

func (f *fakeSSM) send(document string, instances []string, timeout int, parameters map[string][]string) (any, string) {
	encoded, err := json.Marshal(parameters)
	switch {
	case err != nil || document != "AWS-RunShellScript" || timeout < 30 || timeout > 2592000:
		return nil, "InvalidParameters"
	case len(encoded) > 64<<10:
		return nil, "MaxDocumentSizeExceeded"
	case strings.Contains(string(encoded), "{{"):
		return nil, "InvalidParameters" // it would be looked up in the parameter store
	case len(instances) != 1 || instances[0] != "i-0123456789abcdef0":
		return nil, "InvalidInstanceId"
	}
	for name := range parameters {
		if name != "commands" && name != "executionTimeout" && name != "workingDirectory" {
			return nil, "InvalidParameters"
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	id := fmt.Sprintf("00000000-0000-0000-0000-%012d", len(f.commands))
	inv := &invocation{id: id, script: strings.Join(parameters["commands"], "\n"), status: "Pending", details: "Pending", code: -1}
	f.commands[id] = inv
	if f.undelivered > 0 {
		f.undelivered--
		inv.status, inv.details = "TimedOut", "DeliveryTimedOut"
	} else {
		f.running.Go(func() { f.deliver(inv) })
	}
	if f.twice > 0 && len(f.commands)%f.twice == 0 {
		f.running.Go(func() { f.deliver(&invocation{id: id + "-again", script: inv.script}) })
	}
	return map[string]any{"Command": map[string]any{"CommandId": id, "Status": "Pending"}}, ""
}

// deliver runs a command as the agent does: from a file, in the agent's folder.
func (f *fakeSSM) deliver(inv *invocation) {
	time.Sleep(f.delivery)
	f.workers <- struct{}{}
	defer func() { <-f.workers }()
	file := inv.id + ".sh"
	if err := os.WriteFile(filepath.Join(f.h.dir, "ssm", file), []byte(inv.script), 0o700); err != nil {
		f.h.tb.Error(err)
		return
	}
	f.mu.Lock()
	if inv.canceled {
		inv.status, inv.details = "Cancelled", "Cancelled"
		f.mu.Unlock()
		return
	}
	inv.status, inv.details = "InProgress", "InProgress"
	f.mu.Unlock()
	var stdout, stderr bytes.Buffer
	cmd := f.h.enter("/bin/sh", "/var/lib/amazon/ssm/"+file)
	for cmd == nil {
		time.Sleep(10 * time.Millisecond) // it is off; the command waits for it
		cmd = f.h.enter("/bin/sh", "/var/lib/amazon/ssm/"+file)
	}
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	f.mu.Lock()
	defer f.mu.Unlock()
	inv.stdout, inv.stderr = limited(stdout.Bytes(), 24_000), limited(stderr.Bytes(), 8_000)
	inv.code = cmd.ProcessState.ExitCode()
	inv.status, inv.details = "Success", "Success"
	if err != nil {
		inv.status, inv.details = "Failed", "Failed"
	}
	if inv.code == 137 || inv.code < 0 {
		inv.code = -1 // the machine has gone under it
	}
}

// limited does to output what SSM does: text, and not more than so many characters of it.
func limited(b []byte, most int) string {
	s := strings.ToValidUTF8(string(b), "\uFFFD")
	if utf8.RuneCountInString(s) > most {
		return string([]rune(s)[:most]) + "\n---Output truncated---"
	}
	return s
}

func (f *fakeSSM) get(id, instance string) (any, string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	inv, ok := f.commands[id]
	if !ok || instance != "i-0123456789abcdef0" {
		return nil, "InvocationDoesNotExist"
	}
	if inv.looks++; inv.looks <= f.hidden {
		return nil, "InvocationDoesNotExist"
	}
	out := map[string]any{
		"CommandId": id, "InstanceId": instance, "Status": inv.status, "StatusDetails": inv.details,
		"ResponseCode": inv.code, "StandardOutputContent": "", "StandardErrorContent": "",
	}
	if inv.status == "Success" || inv.status == "Failed" {
		out["StandardOutputContent"], out["StandardErrorContent"] = inv.stdout, inv.stderr
	}
	return out, ""
}

func (f *fakeSSM) cancel(id string) (any, string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	inv, ok := f.commands[id]
	if !ok {
		return nil, "InvalidCommandId"
	}
	inv.canceled = true
	return map[string]any{}, ""
}

func (f *fakeSSM) describe() any {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.offline > 0 {
		f.offline--
		return map[string]any{"InstanceInformationList": []any{}}
	}
	return map[string]any{"InstanceInformationList": []any{map[string]any{"InstanceId": "i-0123456789abcdef0", "PingStatus": "Online"}}}
}

// count returns how many calls there were.
func (f *fakeSSM) count() (sends, gets, all int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls["SendCommand"], f.calls["GetCommandInvocation"], f.total
}

func openSSM(tb testing.TB, f *fakeSSM, o Options) *Machine {
	tb.Helper()
	m, err := SSM(context.WithoutCancel(tb.Context()), f.client(tb), f.h.instance(""), o)
	must(tb, err)
	tb.Cleanup(func() { must(tb, m.Close()) })
	return m
}
