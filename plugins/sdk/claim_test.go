package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

// A plugin that can't clean up can't claim, and doesn't say that it can.
func TestClaimNeedsCleanup(t *testing.T) {
	t.Parallel()
	st := Step{
		Name: "acme/motd", Summary: "set the message", Schema: []byte(`{"type":"object"}`), Sections: []Section{Customize}, Effect: "machine",
		Run: func(context.Context, *Target, json.RawMessage) (Outputs, error) { return nil, nil },
	}
	other := st
	other.Name = "acme/motd/other"
	other.Cleanup = func(context.Context, Resource) error { return nil }
	serve := func(steps ...Step) *server {
		s, err := NewServer(Plugin{Name: "acme/motd", Version: "1.0.0", Steps: steps}, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		return s.(*server)
	}
	_, err := serve(st).claim(nil)(t.Context(), Resource{Kind: "lease", ID: "1"})
	var permanent *Permanent
	if !errors.As(err, &permanent) || err.Error() != `claim lease "1": no step of plugin acme/motd has a Cleanup, so nothing would remove it` {
		t.Errorf("a claim without a Cleanup: %v", err)
	}
	d, err := serve(st, other).Describe(t.Context(), &pluginv1.DescribeRequest{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, s := range d.GetSteps() {
		got[s.GetName()] = s.GetCleans()
	}
	if diff := cmp.Diff(map[string]bool{"acme/motd": false, "acme/motd/other": true}, got); diff != "" {
		t.Errorf("the steps that clean up (-want +got):\n%s", diff)
	}
}
