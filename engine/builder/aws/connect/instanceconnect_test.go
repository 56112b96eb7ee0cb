package connect

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2instanceconnect"
)

// fakeConnect is a fake of EC2 Instance Connect. A key it is given is good for one second
// rather than sixty, which every connection still has to get along with.
type fakeConnect struct {
	h      *host
	pushed atomic.Int32
	refuse atomic.Pointer[string] // an error code
}

func (f *fakeConnect) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var in struct{ InstanceId, InstanceOSUser, SSHPublicKey, AvailabilityZone string }
	code := "InvalidArgsException"
	if err := json.NewDecoder(r.Body).Decode(&in); err == nil && in.InstanceId == "i-0123456789abcdef0" && in.AvailabilityZone == "eu-west-1a" &&
		r.Header.Get("X-Amz-Target") == "AWSEC2InstanceConnectService.SendSSHPublicKey" {
		code = ""
	}
	if refused := f.refuse.Load(); refused != nil {
		code = *refused
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if code != "" {
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"__type": code, "message": "no"})
		return
	}
	f.pushed.Add(1)
	file := filepath.Join(f.h.dir, "pushed", in.InstanceOSUser)
	if err := os.WriteFile(file, []byte(in.SSHPublicKey+"\n"), 0o644); err != nil {
		f.h.tb.Error(err)
	}
	time.AfterFunc(time.Second, func() {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			f.h.tb.Error(err)
		}
	})
	_ = json.NewEncoder(w).Encode(map[string]any{"RequestId": "r", "Success": true})
}

func (f *fakeConnect) client(tb testing.TB) *ec2instanceconnect.Client {
	tb.Helper()
	server := httptest.NewServer(f)
	httpClient := &http.Client{Transport: &http.Transport{}}
	tb.Cleanup(func() {
		httpClient.CloseIdleConnections()
		server.Close()
	})
	return ec2instanceconnect.New(ec2instanceconnect.Options{
		Region: "eu-west-1", BaseEndpoint: aws.String(server.URL), HTTPClient: httpClient,
		Credentials: credentials.NewStaticCredentialsProvider("AKIAEXAMPLE", "secret", ""),
	})
}

func TestInstanceConnect(t *testing.T) {
	t.Parallel()
	h := startHost(t, hostOptions{})
	f := &fakeConnect{h: h}
	m, err := InstanceConnect(t.Context(), f.client(t), h.instance("admin"), Options{Env: testEnv})
	must(t, err)
	t.Cleanup(func() { must(t, m.Close()) })
	first := f.pushed.Load()
	conform(t, m, h.restart)
	if n := f.pushed.Load(); n < first+2 {
		t.Errorf("%d keys were pushed for the first connection and %d in all: want one for each, and there were two restarts", first, n)
	}
	denied := "AuthException"
	f.refuse.Store(&denied)
	_, err = InstanceConnect(context.WithoutCancel(t.Context()), f.client(t), h.instance("admin"), Options{})
	if err == nil || !strings.Contains(err.Error(), "AuthException") {
		t.Errorf("InstanceConnect: %v, want that it isn't allowed", err)
	}
}
