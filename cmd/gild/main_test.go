package main

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/gildhq/gild/engine/builder/local/sandbox"
)

var update = flag.Bool("update", false, "rewrite the expectations in the scripts")

// TestMain also is the commands that the scripts run: gild as it is, and fakegild, whose
// builder acts builds out.
func TestMain(m *testing.M) {
	sandbox.Init()
	testscript.Main(m, map[string]func(){
		"gild": main,
		"fakegild": func() {
			a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv, makeBuilders: newFakeBuilder}
			os.Exit(a.run(context.Background(), os.Args[1:]))
		},
	})
}

func TestScript(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits":     exits,
			"interrupt": interrupt,
		},
		Setup: func(env *testscript.Env) error {
			env.Setenv("GILD_STATE", filepath.Join(env.WorkDir, "state"))
			env.Setenv("LC_ALL", "C.UTF-8")
			env.Setenv("TZ", "UTC")
			return nil
		},
	})
}

// exits runs a command and checks its exit status:
//
//	exits 2 gild validate bad.yaml
//
// Its output is kept in the files out and err, what differs between runs replaced.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits status command...")
	}
	cmd, out, err := command(ts, args[1:])
	check(ts, args[0], cmd.Run(), err)
	save(ts, out.String(), err.String())
}

// interrupt runs a command, sends it a signal when its standard error shows a text, and
// another when it shows a further one:
//
//	interrupt 130 'line 3' fakegild build slow.yaml
//	interrupt 130 'line 3' stopping -- fakegild build slow.yaml
func interrupt(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: interrupt status text [text --] command...")
	}
	texts, rest := args[1:2], args[2:]
	if len(args) > 4 && args[3] == "--" {
		texts, rest = args[1:3], args[4:]
	}
	cmd, out, errs := command(ts, rest)
	ts.Check(cmd.Start())
	for _, text := range texts {
		for deadline := time.Now().Add(20 * time.Second); !strings.Contains(errs.String(), text); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				ts.Check(cmd.Process.Kill())
				ts.Fatalf("no %q on standard error:\n%s", text, errs.String())
			}
		}
		ts.Check(cmd.Process.Signal(syscall.SIGINT))
	}
	check(ts, args[0], cmd.Wait(), errs)
	save(ts, out.String(), errs.String())
}

func command(ts *testscript.TestScript, args []string) (_ *exec.Cmd, out, err *buffer) {
	path := ""
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if path == "" && isFile(filepath.Join(dir, args[0])) {
			path = filepath.Join(dir, args[0])
		}
	}
	if path == "" {
		ts.Fatalf("%s isn't in PATH", args[0])
	}
	cmd := exec.Command(path, args[1:]...)
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "GILD_STATE", "LC_ALL", "TZ", "NO_COLOR", "TERM", "WORK"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	out, err = &buffer{}, &buffer{}
	cmd.Stdout, cmd.Stderr = out, err
	return cmd, out, err
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func check(ts *testscript.TestScript, want string, err error, stderr *buffer) {
	status, convErr := strconv.Atoi(want)
	ts.Check(convErr)
	got := 0
	if exit, ok := err.(*exec.ExitError); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != status {
		ts.Fatalf("exit status: got %d, want %d; standard error:\n%s", got, status, stderr)
	}
}

// varying is what differs between two runs of the same command.
var varying = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`\b\d{8}-\d{6}-[0-9a-z]+\b`), "RUN"},
	{regexp.MustCompile(`\b\d\d\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "TIME"},
	{regexp.MustCompile(`\b\d\d\d\d-\d\d-\d\d \d\d:\d\d:\d\d\b`), "TIME"},
	{regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d `), "TIME "},
	{regexp.MustCompile(`(after|in) \d+(\.\d)?m?s\b`), "$1 DUR"},
	{regexp.MustCompile(` {2,}\d+(\.\d)?s  `), "  DUR  "},
	{regexp.MustCompile(`  \d+(\.\d+)?m?s  `), "  DUR  "},
	{regexp.MustCompile(`"elapsed_ms": \d+`), `"elapsed_ms": 0`},
	{regexp.MustCompile(`\b[0-9a-f]{64}\b`), "DIGEST"},
	{regexp.MustCompile(`sealed and verified: .*`), "sealed and verified: LIST"},
	{regexp.MustCompile(`\bimg-[0-9a-f]{12}\b`), "IMG"},
}

// save keeps output in the files out and err.
func save(ts *testscript.TestScript, out, err string) {
	for name, text := range map[string]string{"out": out, "err": err} {
		text = strings.ReplaceAll(text, ts.Getenv("WORK"), "$WORK")
		for _, v := range varying {
			text = v.pattern.ReplaceAllString(text, v.with)
		}
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o644))
	}
}

// buffer is a writer whose content may be looked at while it is written to.
type buffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
