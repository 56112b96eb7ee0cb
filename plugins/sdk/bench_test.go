package sdk_test

import (
	"fmt"
	"testing"

	"github.com/gildhq/gild/plugins/sdk/sdktest"
)

// BenchmarkLog writes lines of a step's log, one call to Write for each, through a process
// of the plugin. "lines/s" must be 100,000 or more.
func BenchmarkLog(b *testing.B) {
	const lines = 100_000
	step := sdktest.Self(b)["gild/test/customize"]
	config := fmt.Sprintf("{do: log, n: %d}", lines)
	for b.Loop() {
		if got := (sdktest.Target{}).Run(b, step, config); got.Err != nil {
			b.Fatal(got.Err)
		}
	}
	b.ReportMetric(float64(b.N)*lines/b.Elapsed().Seconds(), "lines/s")
}
