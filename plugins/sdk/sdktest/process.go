package sdktest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/gildhq/gild/plugins/host"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
	"github.com/gildhq/gild/plugins/sdk"
	"github.com/gildhq/gild/plugins/store"
	"github.com/gildhq/gild/steps/steptest"
)

// Main runs a package's tests. Started by [Self] it is the plugin instead.
func Main(m *testing.M, p sdk.Plugin) {
	if os.Getenv(pluginv1.CookieKey) == pluginv1.CookieValue {
		sdk.Serve(p)
		os.Exit(0)
	}
	steptest.Main(m)
}

// Self returns the steps of the plugin that was given to [Main], by name, as gild sees them:
// each call goes through gRPC to a process of the plugin, which is the test's program
// started once more. The process ends with the test.
func Self(tb testing.TB) map[string]sdk.Step {
	tb.Helper()
	program, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	return Installed(tb, program)
}

// Installed is [Self] for the plugin at path, a program or a folder.
func Installed(tb testing.TB, path string) map[string]sdk.Step {
	tb.Helper()
	dir := tb.TempDir()
	contents, err := store.Open(filepath.Join(dir, "store"))
	if err != nil {
		tb.Fatal(err)
	}
	content, err := contents.Add(tb.Context(), path)
	if err != nil {
		tb.Fatalf("read plugin %s: %v", path, err)
	}
	h, err := host.New(host.Config{Dir: dir, Store: contents, Log: tb.Output()})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := h.Close(); err != nil {
			tb.Error(err)
		}
	})
	list, err := h.Steps(tb.Context(), content)
	if err != nil {
		tb.Fatal(err)
	}
	steps := map[string]sdk.Step{}
	for _, s := range list {
		steps[s.Name] = s
	}
	return steps
}
