package sandbox_test

import (
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/sandbox/sandboxtest"
)

// TestBotocoreLife lets botocore, which boto3 and the AWS CLI stand on, make every call that
// gild makes: they work unchanged on the sandbox, and its answers pass botocore's own models.
func TestBotocoreLife(t *testing.T) {
	t.Parallel()
	if err := exec.Command("python3", "-c", "import botocore").Run(); err != nil {
		t.Fatalf("this test needs python3 with botocore, of the packages python3-botocore or awscli: %v", err)
	}
	s := sandboxtest.Start(t, sandboxtest.Options{})
	cmd := exec.CommandContext(t.Context(), "python3", "testdata/botocore_life.py", s.URL, s.Image)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "LANG=C.UTF-8"}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	made := map[string]bool{}
	for _, call := range s.Server.Calls() {
		made[call.Service+":"+call.Action] = true
	}
	var never []string
	for _, call := range gildsCalls(t) {
		if !made[call] {
			never = append(never, call)
		}
	}
	if diff := cmp.Diff([]string(nil), never); diff != "" {
		t.Errorf("gild makes calls that testdata/botocore_life.py doesn't (-want +got):\n%s", diff)
	}
}

// gildsCalls are the operations whose inputs the builder's source has, and the one that the
// SDK makes for whoever has a role.
func gildsCalls(t *testing.T) []string {
	t.Helper()
	input := regexp.MustCompile(`\b(ec2|iam|ssm|sts|kms|ebs|ec2instanceconnect)\.([A-Z]\w+)Input\{`)
	calls := map[string]bool{"sts:AssumeRole": true}
	must(t, filepath.WalkDir("../builder/aws", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range input.FindAllStringSubmatch(string(text), -1) {
			calls[strings.Replace(m[1], "ec2instanceconnect", "ec2-instance-connect", 1)+":"+m[2]] = true
		}
		return err
	}))
	if len(calls) < 40 {
		t.Fatalf("only %d calls were found in the builder's source: %q", len(calls), slices.Sorted(maps.Keys(calls)))
	}
	return slices.Sorted(maps.Keys(calls))
}
