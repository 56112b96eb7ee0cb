package engine

import (
	"context"
	"slices"
	"strings"

	"github.com/gildhq/gild/engine/builder"
)

// Doctor is what a look at the host found.
type Doctor struct {
	Findings []builder.Finding
	// Install is the one command that installs all packages that are missing, or empty.
	Install string
}

// OK reports whether everything that isn't optional is there.
func (d Doctor) OK() bool {
	return !slices.ContainsFunc(d.Findings, func(f builder.Finding) bool { return !f.OK && !f.Optional })
}

// Examine looks at the host for every builder that can.
func Examine(ctx context.Context, builders []builder.Builder) Doctor {
	var d Doctor
	var packages []string
	for _, b := range builders {
		e, ok := b.(builder.Examiner)
		if !ok {
			continue
		}
		for _, f := range e.Examine(ctx) {
			d.Findings = append(d.Findings, f)
			if !f.Optional {
				packages = append(packages, f.Packages...)
			}
		}
	}
	if len(packages) > 0 {
		slices.Sort(packages)
		d.Install = "sudo apt-get install --no-install-recommends " + strings.Join(slices.Compact(packages), " ")
	}
	return d
}
