package sandbox_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/sandbox"
	"github.com/gildhq/gild/engine/sandbox/wire"
)

// limits are the lists of a section of LIMITS.md: "- name: one, two".
func limits(t *testing.T, section string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("LIMITS.md")
	must(t, err)
	_, rest, found := strings.Cut(string(text), "\n## "+section+"\n")
	if !found {
		t.Fatalf("LIMITS.md has no section %q", section)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	lists := map[string][]string{}
	for _, m := range regexp.MustCompile(`(?m)^- ([\w -]+): ((?:.+\n?(?:  .+\n?)*))`).FindAllStringSubmatch(rest, -1) {
		for _, item := range strings.Split(m[2], ",") {
			lists[m[1]] = append(lists[m[1]], strings.TrimSpace(item))
		}
	}
	return lists
}

// LIMITS.md lists the operations that there are, and no others.
func TestLimitsListOperations(t *testing.T) {
	t.Parallel()
	want, err := wire.Operations()
	must(t, err)
	if diff := cmp.Diff(want, limits(t, "Operations")); diff != "" {
		t.Errorf("LIMITS.md (-code +LIMITS.md):\n%s", diff)
	}
}

// The filters that LIMITS.md lists are known, and one that it doesn't isn't.
func TestLimitsListFilters(t *testing.T) {
	t.Parallel()
	w := open(t, sandbox.Config{})
	h := w.Handler()
	ask := func(action, filter string) (int, string) {
		form := url.Values{"Action": {action}, "Version": {"2016-11-15"}, "Filter.1.Name": {filter}, "Filter.1.Value.1": {"1"}}
		if action == "DescribeInstanceTypeOfferings" {
			form.Set("LocationType", "region")
		}
		r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1/", strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		rec := checkAnswer(t, h, r, "ec2")
		return rec.Code, rec.Body.String()
	}
	filters := limits(t, "EC2: filters")
	if len(filters) < 20 {
		t.Errorf("LIMITS.md has filters of %d operations", len(filters))
	}
	for action, names := range filters {
		for _, name := range names {
			if status, body := ask(action, name); status != http.StatusOK {
				t.Errorf("%s with the filter %s: %d %s", action, name, status, body)
			}
		}
		if status, body := ask(action, "no-such-filter"); status != http.StatusBadRequest {
			t.Errorf("%s with an unknown filter: %d %s", action, status, body)
		}
	}
}

// A parameter whose name no code has is without effect, and LIMITS.md says so. What it says
// is of the models, so a list of what was mended gets shorter too.
func TestLimitsListParameters(t *testing.T) {
	t.Parallel()
	listed := limits(t, "Parameters without effect")
	read := literals(t)
	for at, names := range parameters(t) {
		for _, name := range names {
			if !read[name] && !slices.Contains(listed[at], name) {
				t.Errorf("nothing reads %s of %s: list it in LIMITS.md", name, at)
			}
		}
	}
	known := parameters(t)
	for at, names := range listed {
		for _, name := range names {
			if !slices.Contains(known[at], name) {
				t.Errorf("LIMITS.md lists %s of %s, which the model doesn't have", name, at)
			}
		}
	}
}

// literals are the names between quotes in the source.
func literals(t *testing.T) map[string]bool {
	t.Helper()
	paths, err := filepath.Glob("*.go")
	must(t, err)
	out := map[string]bool{}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		text, err := os.ReadFile(path)
		must(t, err)
		for _, m := range regexp.MustCompile(`"([A-Za-z0-9]+)"`).FindAllStringSubmatch(string(text), -1) {
			out[m[1]] = true
		}
	}
	return out
}

// parameters are those of every operation, by service and operation.
func parameters(t *testing.T) map[string][]string {
	t.Helper()
	services, err := wire.Operations()
	must(t, err)
	out := map[string][]string{}
	for _, service := range slices.Sorted(maps.Keys(services)) {
		text, err := os.ReadFile(filepath.Join("wire", "models", service+".json"))
		must(t, err)
		var model struct {
			Operations map[string]struct{ Input string }
			Shapes     map[string]struct {
				Members []struct{ Name string }
			}
		}
		must(t, json.Unmarshal(text, &model))
		for name, op := range model.Operations {
			for _, m := range model.Shapes[op.Input].Members {
				at := fmt.Sprintf("%s %s", service, name)
				out[at] = append(out[at], m.Name)
			}
		}
	}
	return out
}
