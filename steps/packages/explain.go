package packages

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/gildhq/gild/engine/step"
)

var (
	unknownName = regexp.MustCompile(`(?m)^E: Unable to locate package (\S+)`)
	gone        = regexp.MustCompile(`(?m)^(?:Err|E): ?.*\.deb\s+404\b`)
	aptError    = regexp.MustCompile(`(?m)^(?:E|dpkg): (.*)$`)
)

// explain adds to a failed command's error what its output says about the reason.
func (a *apt) explain(ctx context.Context, err error, output string) error {
	if m := unknownName.FindStringSubmatch(output); m != nil {
		return a.noSuchPackage(ctx, m[1])
	}
	reasons := aptError.FindAllStringSubmatch(output, 4)
	if len(reasons) > 0 {
		lines := make([]string, len(reasons))
		for i, r := range reasons {
			lines[i] = r[1]
		}
		err = fmt.Errorf("%w: %s", err, strings.Join(lines, "; "))
	}
	if gone.MatchString(output) {
		return &step.Permanent{Err: fmt.Errorf("the archive no longer has a package that the base's lists name, it has moved past the locked state; run gild lock: %w", err)}
	}
	return err
}

// noSuchPackage names the package, and the one that was perhaps meant.
func (a *apt) noSuchPackage(ctx context.Context, name string) error {
	var names bytes.Buffer
	err := a.target.Machine.Exec(ctx, step.Cmd{Argv: []string{"apt-cache", "pkgnames"}, Env: a.environment(), Stdout: &names})
	if err != nil {
		return fmt.Errorf("no package is called %q, nor could names like it be looked up: %w", name, err)
	}
	found := nearest(name, strings.Fields(names.String()))
	if found == "" {
		return &step.Permanent{Err: fmt.Errorf("no package is called %q", name)}
	}
	return &step.Permanent{Err: fmt.Errorf("no package is called %q; did you mean %q", name, found)}
}

// nearest returns the candidate that differs the least from name, or "" when all differ too
// much to have been meant. Of equally near ones it is the first in the alphabet.
func nearest(name string, candidates []string) string {
	found, least := "", len(name)/3+1
	for _, c := range candidates {
		if d := len(c) - len(name); d > least || -d > least {
			continue
		}
		if d := distance(name, c); d < least || d == least && (found == "" || c < found) {
			found, least = c, d
		}
	}
	return found
}

// distance counts the letters to change, add or drop to turn a into b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
