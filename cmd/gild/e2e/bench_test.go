package e2e_test

import (
	"fmt"
	"testing"
)

// BenchmarkNothingChanged is a whole `gild build` that finds everything built.
func BenchmarkNothingChanged(b *testing.B) {
	s := newSite(b)
	for b.Loop() {
		s.ok("build", "small.yaml")
	}
}

// BenchmarkLastStepChanged is a whole `gild build` up to the disk, with another last
// step each time.
func BenchmarkLastStepChanged(b *testing.B) {
	s := newSite(b)
	n := 0
	for b.Loop() {
		s.write("run.sh", fmt.Sprintf("#!/bin/sh\necho %d > /opt/built\n", n))
		s.write("bench.yaml", `gild: 1
name: bench
release: 1.0.0
base: debian/12
builders: {local: {disk: {size: 2GiB}, formats: [raw]}}
customize:
  - {id: last, uses: shell, with: {run: ./run.sh}}
`)
		s.ok("build", "bench.yaml", "--until", "disk")
		n++
	}
}

// BenchmarkValidate is a whole `gild validate` of one file.
func BenchmarkValidate(b *testing.B) {
	s := emptySite(b)
	for b.Loop() {
		s.ok("validate", "small.yaml")
	}
}
