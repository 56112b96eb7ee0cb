package seal

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/schemas"
	"github.com/gildhq/gild/steps/internal/capture"
	"github.com/gildhq/gild/steps/internal/help"
	"github.com/gildhq/gild/steps/internal/sshkeys"
)

//go:embed doc.go
var doc string

// Step is the step's declaration.
var Step = step.Define(step.Step{
	Name:      "seal",
	Version:   "1",
	Summary:   "remove what belongs to one machine only, and look for secrets",
	Doc:       help.Text(doc),
	Schema:    schemas.Step("seal"),
	Internal:  true,
	Sections:  []step.Section{step.Seal},
	Effect:    step.Machine,
	Cacheable: true,
}, run)

// Config is the step's `with`.
type Config struct {
	Skip  []Skip  `json:"skip"`
	Allow []Allow `json:"allow"`
}

// Skip leaves an item alone.
type Skip struct {
	// Item is one of the names in the help.
	Item string `json:"item"`
	// Reason is logged with every build.
	Reason string `json:"reason"`
}

// Allow lets the search for secrets find a file.
type Allow struct {
	// Path is absolute.
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

// item is something to seal: a function of seal.sh that removes it, unless it is only
// looked for, and one of verify.sh that finds what is left.
type item struct {
	name       string
	verifyOnly bool
}

var items = []item{
	{name: "machine-id"},
	{name: "ssh-host-keys"},
	{name: "user-keys"},
	{name: "cloud-init"},
	{name: "histories"},
	{name: "hostname"},
	{name: "resolv-conf"},
	{name: "network-state"},
	{name: "entropy"},
	{name: "package-state"},
	{name: "backups"},
	{name: "temporary-files"},
	{name: "caches"},
	{name: "logs"},
	{name: "passwords", verifyOnly: true},
	{name: "secrets", verifyOnly: true},
}

// The scripts are fixed texts; what they need to know reaches them as arguments and
// environment.
var (
	//go:embed homes.sh
	homes string
	//go:embed seal.sh
	sealScript string
	//go:embed verify.sh
	verifyScript string
)

func run(ctx context.Context, t *step.Target, c Config) (struct{}, error) {
	toRemove, toVerify := choose(t, c.Skip)
	found, err := seal(ctx, t, toRemove, toVerify)
	if err != nil {
		return struct{}{}, fmt.Errorf("remove what belongs to one machine, and verify it: %w", err)
	}
	left := judge(t, found, c.Allow)
	if len(left) > 0 {
		return struct{}{}, &step.Permanent{Err: fmt.Errorf("the machine can't become an image:\n  %s", strings.Join(left, "\n  "))}
	}
	fmt.Fprintf(t.Log, "sealed and verified: %s\n", strings.Join(toVerify, ", "))
	return struct{}{}, nil
}

// choose returns the items to remove and to verify, and logs those that are skipped.
func choose(t *step.Target, skip []Skip) (toRemove, toVerify []string) {
	for _, s := range skip {
		fmt.Fprintf(t.Log, "skipped %s: %s\n", s.Item, s.Reason)
	}
	for _, it := range items {
		if slices.ContainsFunc(skip, func(s Skip) bool { return s.Item == it.name }) {
			continue
		}
		toVerify = append(toVerify, it.name)
		if !it.verifyOnly {
			toRemove = append(toRemove, it.name)
		}
	}
	return toRemove, toVerify
}

// both runs one script after the other, each with its items. They are one command because
// the first takes away what the next could be run with: the login's keys and its sudo.
const both = `/bin/sh -eu -c "$SEAL" seal $TO_REMOVE >&2
exec /bin/sh -eu -c "$VERIFY" seal $TO_VERIFY`

// seal runs the scripts on the machine and returns the lines of verify.sh.
func seal(ctx context.Context, t *step.Target, toRemove, toVerify []string) (string, error) {
	builder, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("ask for the builder's name: %w", err)
	}
	var found bytes.Buffer
	out := capture.New(t.Log, 4<<10)
	err = t.Machine.Exec(ctx, step.Cmd{
		Argv: []string{"/bin/sh", "-eu", "-c", both},
		Env: map[string]string{
			"LC_ALL":        "C",
			"BUILDER_NAMES": builder + " gild",
			"KEYS_MARK":     sshkeys.Mark,
			"SEAL":          homes + sealScript,
			"VERIFY":        homes + verifyScript,
			"TO_REMOVE":     strings.Join(toRemove, " "),
			"TO_VERIFY":     strings.Join(toVerify, " "),
		},
		Stdout: &found,
		Stderr: out.Stderr(),
	})
	return found.String(), err
}

// judge turns the lines of verify.sh into messages, without the secrets that are allowed.
func judge(t *step.Target, found string, allow []Allow) []string {
	var left []string
	for line := range strings.Lines(found) {
		name, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		path, problem, _ := strings.Cut(rest, "\t")
		allowed := slices.IndexFunc(allow, func(a Allow) bool { return name == "secrets" && a.Path == path })
		if allowed >= 0 {
			fmt.Fprintf(t.Log, "allowed: %s %s: %s\n", path, problem, allow[allowed].Reason)
			continue
		}
		left = append(left, fmt.Sprintf("%s: %s %s", name, path, problem))
	}
	return left
}
