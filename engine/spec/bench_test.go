package spec_test

import (
	"bytes"
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gildhq/gild/engine/spec"
)

// longPipeline is a pipeline of about 200 lines, different for each n.
func longPipeline(n int) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `gild: 1
name: web-%d
release: 1.%d.0
description: pipeline number %d
params:
  port: {type: integer, default: %d, minimum: 1, maximum: 65535}
  team: {type: string, default: team-%d}
secrets:
  licence: {env: LICENCE_%d}
matrix:
  arch: [amd64, arm64]
builders:
  local:
    disk: {size: 2GiB}
    formats: [raw, qcow2]
base: debian/12

customize:
`, n, n, n, 1+n%60000, n, n)
	for i := range 15 {
		fmt.Fprintf(&b, `  # step %d
  - id: packages-of-%d
    uses: packages
    with:
      install:
        - nginx-light
        - openssh-server-%d

  - uses: file
    with: {to: /etc/motd-%d, content: "hello from ${{ pipeline.name }} %d\n", mode: "0644"}

`, i, i, n, i, i)
	}
	fmt.Fprintf(&b, `  - id: tune
    uses: shell
    env:
      PORT: ${{ params.port }}
      LICENCE: ${{ secrets.licence }}
    with:
      run: |
        set -eu
        echo "$PORT" > /etc/port-%d
    timeout: 5m
    retry: {attempts: 3, backoff: 2s}
    when: ${{ matrix.arch == "amd64" }}

tests:
  - uses: boot
    with: {within: 120s}
  - uses: shell
    with: {run: "true", args: ["${{ steps.packages-of-3.outputs.count }}"]}

publish:
  name: "${{ pipeline.name }}-${{ pipeline.release }}-${{ matrix.arch }}"
  channel: stable
  tags: {team: "${{ params.team }}"}
  share: {accounts: ["111122223333"], public: false}
  deprecate-after: 90d
copy:
  regions: [us-east-1, ap-south-1]
retain: {keep: 5, max-age: 180d, min-age: 7d}
`, n)
	return b.Bytes()
}

// BenchmarkValidate1000 parses and resolves 1,000 different pipelines of about 200 lines
// on all the cores there are. ms/1000 is the time of one round of 1,000, cpu-ms/1000 what
// it took of all cores together, which says more on a busy machine.
func BenchmarkValidate1000(b *testing.B) {
	const count = 1000
	c := catalog(b)
	sources := make([][]byte, count)
	for i := range sources {
		sources[i] = longPipeline(i)
	}
	b.Logf("%d lines each, %d cores", bytes.Count(sources[0], []byte("\n")), runtime.GOMAXPROCS(0))
	var peak uint64
	b.ReportAllocs()
	b.ResetTimer()
	before := cpuTime(b)
	for b.Loop() {
		var wg sync.WaitGroup
		next := make(chan int)
		for range runtime.GOMAXPROCS(0) {
			wg.Go(func() {
				for i := range next {
					pipelines, diags := validate("web.yaml", sources[i], c, spec.Inputs{})
					if len(pipelines) != 2 || len(diags) > 0 {
						b.Errorf("pipeline %d gave %d images and %v", i, len(pipelines), diags)
					}
				}
			})
		}
		for i := range sources {
			next <- i
		}
		close(next)
		wg.Wait()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		peak = max(peak, m.HeapInuse)
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/1000")
	b.ReportMetric(float64((cpuTime(b)-before).Milliseconds())/float64(b.N), "cpu-ms/1000")
	b.ReportMetric(float64(peak)/(1<<20), "heap-MiB")
}

// cpuTime is what this process has used of all cores so far.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
