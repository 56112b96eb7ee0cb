package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func init() {
	Register("test-shell", func(ctx context.Context, root string, raw json.RawMessage, out io.Writer) error {
		var script string
		if err := json.Unmarshal(raw, &script); err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, "sh", "-c", script)
		cmd.Dir = root
		cmd.Stdout, cmd.Stderr = out, os.Stderr
		return cmd.Run()
	})
}

func TestRunJob(t *testing.T) {
	t.Parallel()
	c := machineConfig(t)
	dir := tempDir(t)
	file := filepath.Join(dir, "result")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	job := JobConfig{Lower: c.Lower, Upper: c.Upper, Work: c.Work, IDs: c.IDs, Writable: []string{dir}}
	var log strings.Builder
	out, err := RunJob(t.Context(), job, "test-shell", fmt.Sprintf("echo log >&2; pwd; id; cat /proc/self/uid_map; ls -ln; ls -ld %s; echo x >%s; touch /etc/x /usr/x", dir, file), &log)
	t.Logf("%s\n%s\n%v", out, log.String(), err)
	data, err := os.ReadFile(file)
	t.Log(string(data), err)
	_ = errors.Is(err, fs.ErrExist)
}
