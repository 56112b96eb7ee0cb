package broker

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/gildhq/gild/engine/builder/local/sandbox"
)

func TestMain(m *testing.M) {
	sandbox.Init()
	runBenchPlugin()
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			code = 1
		}
	}
	os.Exit(code)
}
