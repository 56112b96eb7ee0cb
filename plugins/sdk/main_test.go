package sdk_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/gildhq/gild/engine/builder/local/sandbox"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
	"github.com/gildhq/gild/plugins/sdk"
)

// badEnv makes the tests' program one that serves a plugin with mistakes in it.
const badEnv = "GILD_SDK_TEST_BAD"

func TestMain(m *testing.M) {
	sandbox.Init()
	switch {
	case os.Getenv(badEnv) != "":
		sdk.Serve(sdk.Plugin{Name: "gild/test", Version: "one"})
	case os.Getenv(pluginv1.CookieKey) != "" || os.Getenv(pluginv1.ParentEnv) != "":
		sdk.Serve(testPlugin())
	default:
		os.Exit(runTests(m))
	}
}

func runTests(m *testing.M) int {
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}
