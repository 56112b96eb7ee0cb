package client_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gildhq/gild/engine/builder/aws/client"
)

// TestNoCredentialsAnywhere asks a metadata service that has none to give. What looks for
// credentials must not take the retries, and the errors, of the call that needs them.
func TestNoCredentialsAnywhere(t *testing.T) {
	metadata := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(metadata.Close)
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "false",
		"AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.URL,
	} {
		t.Setenv(name, value)
	}
	var log bytes.Buffer
	c, err := client.New(client.Config{
		Endpoint: "http://127.0.0.1:1", Timing: quick,
		Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Region(t.Context(), "eu-west-1")
	if err != nil {
		t.Fatal(err)
	}
	err = describe(t.Context(), r)
	if err == nil || !strings.Contains(err.Error(), "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") {
		t.Errorf("error %v", err)
	}
	if err != nil && strings.Count(err.Error(), "DescribeRegions") != 1 {
		t.Errorf("the error names the call more than once: %v", err)
	}
	// Without a logger of ours the SDK would print this.
	if want := "falling back to IMDSv1"; !strings.Contains(log.String(), "level=DEBUG") || !strings.Contains(log.String(), want) {
		t.Errorf("the log has no %q:\n%s", want, log.String())
	}
}
