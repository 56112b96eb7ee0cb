package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	goplugin "github.com/hashicorp/go-plugin"

	"github.com/gildhq/gild/plugins/internal/procs"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
	"github.com/gildhq/gild/plugins/store"
)

// A plugin that can't be started says why, and nothing is left of it.
func TestStartFails(t *testing.T) {
	t.Parallel()
	hung := func(cfg *Config) { cfg.StartTimeout = 2 * time.Second }
	cases := []struct {
		name   string
		plugin plugin
		config func(*Config)
		want   []string
	}{
		{"crash", plugin{args: []string{"crash"}}, nil, []string{"its process exited with status 3 before the handshake; last lines of its output:\n  no such device"}},
		{"crash with a name", plugin{args: []string{"crash"}, manifest: "name: acme/test\nversion: 1.2.3"}, nil, []string{"plugin acme/test 1.2.3: describe: its process exited with status 3"}},
		{"hang", plugin{args: []string{"hang"}}, hung, []string{"it sent no handshake within 2s; it wrote nothing"}},
		{"garbage", plugin{args: []string{"garbage"}}, nil, []string{"it wrote more than 64 KiB to its standard output and no handshake", "garbage"}},
		{"endless line", plugin{args: []string{"endless"}}, nil, []string{"it wrote more than 64 KiB to its standard output and no handshake"}},
		{"closes its output", plugin{args: []string{"silent"}}, nil, []string{"it closed its standard output before the handshake"}},
		{"plain text", plugin{args: []string{"plaintext"}}, nil, []string{"speaks plain text", "put `tls: none` into its plugin.yaml"}},
		{"crash after the handshake", plugin{args: []string{"crash-plain"}, manifest: "tls: none"}, nil, []string{"its process exited with status 4"}},
		{"bad certificate", plugin{args: []string{"bad-certificate"}}, nil, []string{"error parsing server cert"}},
		{"too old", plugin{args: []string{"old"}}, nil, []string{"it speaks version 0 of the plugin protocol, and this gild version 1: install a newer version of the plugin"}},
		{"too new", plugin{args: []string{"new"}}, nil, []string{"it speaks version 7 of the plugin protocol, and this gild version 1: update gild, or install an older version of the plugin"}},
		{"tcp", plugin{args: []string{"tcp"}}, nil, []string{"it listens on tcp, not on a unix socket"}},
		{"socket elsewhere", plugin{args: []string{"elsewhere"}}, nil, []string{`its socket "/tmp/elsewhere" is not in the folder`}},
		{"no program", plugin{script: "\x7fELF nonsense"}, nil, []string{"its program is not one for linux/" + runtime.GOARCH}},
		{"no interpreter", plugin{script: "#!/no/such/interpreter\n"}, nil, []string{"or the interpreter that its first line names, is not there"}},
		{"bad description", plugin{args: []string{"bad-description"}}, nil, []string{`"Acme" is no name of a plugin`, `"new" is no semantic version`, `step "x": its name is neither`}},
		{"hang in describe", plugin{args: []string{"hang-describe"}}, func(cfg *Config) { cfg.CallTimeout = time.Second }, []string{"describe: it gave no answer within 1s"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, c.config)
			content := c.plugin.install(t, h.cfg.Store)
			_, err := h.Steps(context.Background(), content)
			wantError(t, err, append(c.want, "describe: ")...)
			if c.plugin.manifest == "" || c.plugin.manifest == "tls: none" {
				wantError(t, err, content.Digest)
			}
			if files, err := os.ReadDir(filepath.Join(h.cfg.Dir, describedDir)); err == nil && len(files) > 0 {
				t.Errorf("a description was kept: %v", files)
			}
		})
	}
}

// go-plugin's SecureConfig can be used for one start only. The host has none: a process that
// died is started again, and what is started is hashed again.
func TestStartedAgain(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	s, c := started(t, h, plugin{})
	for i := range 3 {
		target, _ := newTarget()
		_, err := s.Run(context.Background(), target, do("crash", 3))
		wantError(t, err, "its process exited with status 3")
		target, _ = newTarget()
		if _, err := s.Run(context.Background(), target, do("echo")); err != nil {
			t.Fatalf("start %d: %v", i+2, err)
		}
	}
	if h.started != 4 {
		t.Errorf("%d processes were started, want 4", h.started)
	}
	target, _ := newTarget()
	_, err := s.Run(context.Background(), target, do("crash", 3))
	wantError(t, err, "exited with status 3")
	tamper(t, filepath.Join(c.Dir, "run"), "#!/bin/sh\necho changed >&2\nexit 1\n")
	_, err = s.Run(context.Background(), target, do("echo"))
	var changed *store.DigestError
	if wantError(t, err, "plugin acme/test 1.2.3: run acme/test: ", c.Digest); !errors.As(err, &changed) {
		t.Errorf("%v is no *store.DigestError", err)
	}
}

// tamper changes a file of the store, as a user could who owns it.
func tamper(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.Chmod(filepath.Dir(path), 0o700), os.Remove(path)); err != nil {
		t.Fatal(err)
	}
	write(t, path, 0o755, text)
}

// What was hashed is what runs, whatever happens to the file in the store after that.
func TestSwappedAfterTheHash(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	c := plugin{}.install(t, h.cfg.Store)
	folder, err := h.place()
	if err != nil {
		t.Fatal(err)
	}
	place, err := folder.seat()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.cfg.Store.CopyTo(context.Background(), c, place.content); err != nil {
		t.Fatal(err)
	}
	tamper(t, filepath.Join(c.Dir, "run"), "#!/bin/sh\necho changed >&2\nexit 1\n")
	p, err := h.startIn(context.Background(), c, place)
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop(errClosed)
	if _, err := p.rpc.Describe(context.Background(), &pluginv1.DescribeRequest{}); err != nil {
		t.Error(err)
	}
	// The copy lies where nobody else can write to.
	for dir := place.content; dir != h.cfg.Dir; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s has the mode %v, %v; want 0700", dir, info.Mode(), err)
		}
	}
}

// A start that fails before there is a process ends too.
func TestNoFolderForSockets(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	c := plugin{}.install(t, h.cfg.Store)
	folder, err := h.place()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(folder.sockets); err != nil {
		t.Fatal(err)
	}
	_, err = h.Describe(context.Background(), c)
	wantError(t, err, folder.sockets+"/1: no such file or directory")
	place := seat{content: t.TempDir(), sockets: filepath.Join(folder.sockets, "2")}
	_, err = h.startIn(context.Background(), c, place)
	wantError(t, err, folder.sockets+"/2: no such file or directory")
}

// go-plugin's own start is the check and the start of one name, one after the other; and it
// passes on its standard input. Should that change, program could go.
func TestGoPluginStillNeedsARunner(t *testing.T) {
	t.Parallel()
	sum := goplugin.SecureConfig{Checksum: []byte("x"), Hash: nil}
	client := goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig: goplugin.HandshakeConfig{MagicCookieKey: "a", MagicCookieValue: "b"},
		RunnerFunc:      (&process{prog: &program{}}).runner,
		SecureConfig:    &sum,
	})
	if _, err := client.Start(); err == nil || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("go-plugin takes a SecureConfig beside a runner: %v", err)
	}
}

// go-plugin drops its connection when the plugin dies before go-plugin's first call got
// through; goleak sees the connection unless the host closes it.
func TestDiesWhileConnecting(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "gild-test-") // a short path
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		// Nobody answers.
		if conn, err := listener.Accept(); err == nil {
			io.Copy(io.Discard, conn)
			conn.Close()
		}
	}()
	h := newHost(t, nil)
	script := "#!/bin/sh\nln -s " + socket + ` "$PLUGIN_UNIX_SOCKET_DIR/s"
echo "1|1|unix|$PLUGIN_UNIX_SOCKET_DIR/s|grpc|"
sleep 0.5
echo nobody answers >&2
exit 4
`
	_, err = h.Describe(context.Background(), plugin{script: script, manifest: "tls: none"}.install(t, h.cfg.Store))
	wantError(t, err, "its process exited with status 4 before its first call; last lines of its output:\n  nobody answers")
}

// A greeting on standard output is part of the log, not the end of the start.
func TestGreeting(t *testing.T) {
	t.Parallel()
	shown := &buffer{}
	h := newHost(t, func(cfg *Config) { cfg.Log = shown })
	started(t, h, plugin{args: []string{"greeting"}, manifest: "name: acme/test"})
	want := "acme/test: Welcome!\nacme/test: This is|not the|hand|shake|\n"
	if !strings.Contains(shown.String(), want) {
		t.Errorf("the log is\n%s\nand lacks\n%s", shown, want)
	}
}

func TestPlainTextByManifest(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	s, _ := started(t, h, plugin{manifest: "tls: none"})
	target, _ := newTarget()
	if _, err := s.Run(context.Background(), target, do("echo")); err != nil {
		t.Error(err)
	}
}

func TestNegotiation(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name   string
		host   []int
		plugin string
		want   string
	}{
		{"a newer host", []int{1, 2}, "serve", "1"},
		{"a newer plugin", []int{1}, "both", "1"},
		{"both new", []int{1, 2}, "both", "2"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, nil)
			h.versions = map[int]goplugin.PluginSet{}
			for _, v := range c.host {
				h.versions[v] = goplugin.PluginSet{pluginv1.PluginName: service{}}
			}
			s, _ := started(t, h, plugin{args: []string{c.plugin}})
			target, _ := newTarget()
			out, err := s.Run(context.Background(), target, do("version"))
			if err != nil || out["text"] != c.want {
				t.Errorf("they speak version %v, %v; want %s", out["text"], err, c.want)
			}
		})
	}
	h := newHost(t, nil)
	h.versions = map[int]goplugin.PluginSet{2: {pluginv1.PluginName: service{}}, 3: {pluginv1.PluginName: service{}}}
	_, err := h.Describe(context.Background(), plugin{}.install(t, h.cfg.Store))
	wantError(t, err, "it speaks version 1 of the plugin protocol, and this gild version 2, 3: install a newer")
}

// The plugin sees its own variables and those of gild that its manifest names; here the test
// binary is the plugin's program itself, as a shell adds variables.
func TestEnvironment(t *testing.T) {
	t.Setenv("GILD_TEST_TOKEN", "secret")
	t.Setenv("GILD_TEST_PROXY", "proxy")
	h := newHost(t, nil)
	c := plugin{binary: true, manifest: "environment: [GILD_TEST_PROXY, GILD_TEST_ABSENT]"}.install(t, h.cfg.Store)
	env := environmentIn(t, h, c)
	want := []string{
		"GILD_PARENT", "GILD_PLUGIN", "GILD_PLUGIN_RUN", "GILD_TEST_PROXY", "PLUGIN_CLIENT_CERT",
		"PLUGIN_MAX_PORT", "PLUGIN_MIN_PORT", "PLUGIN_PROTOCOL_VERSIONS", "PLUGIN_UNIX_SOCKET_DIR", "TMPDIR",
	}
	if got := names(env); !slices.Equal(got, want) {
		t.Errorf("the plugin sees %v, want %v", got, want)
	}
	if env["GILD_TEST_PROXY"] != "proxy" {
		t.Errorf("GILD_TEST_PROXY is %q", env["GILD_TEST_PROXY"])
	}
}

func names(env map[string]string) []string {
	var all []string
	for name := range env {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// environmentIn reads the environment that the process of a plugin was started with.
func environmentIn(t *testing.T, h *Host, c store.Content) map[string]string {
	t.Helper()
	p, err := h.acquire(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer h.release(p)
	text, err := os.ReadFile(filepath.Join("/proc", p.prog.ID(), "environ"))
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{}
	for entry := range strings.SplitSeq(strings.TrimRight(string(text), "\x00"), "\x00") {
		name, value, _ := strings.Cut(entry, "=")
		env[name] = value
	}
	return env
}

func TestLimits(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	_, c := started(t, h, plugin{manifest: "limits: {files: 100}"})
	p, err := h.acquire(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer h.release(p)
	text, err := os.ReadFile(filepath.Join("/proc", p.prog.ID(), "limits"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Max core file size 0 0 bytes", "Max open files 100 100 files"} {
		if !strings.Contains(strings.Join(strings.Fields(string(text)), " "), want) {
			t.Errorf("the limits lack %q:\n%s", want, text)
		}
	}
}

// Starts leave no socket, file or process behind, and open no files for good.
func TestManyStarts(t *testing.T) {
	h := newHost(t, nil)
	s, _ := started(t, h, plugin{})
	open := func() int {
		files, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	before := open()
	for range 20 {
		target, _ := newTarget()
		_, err := s.Run(context.Background(), target, do("crash", 3))
		wantError(t, err, "exited with status 3")
	}
	if h.started != 20 {
		t.Errorf("%d processes were started, want 20", h.started)
	}
	eventually(t, "files are closed", func() bool { return open() <= before+3 }) // the broker's
	for _, dir := range []string{h.folder.dir, h.folder.sockets} {
		eventually(t, dir+" is empty but for what the host needs", func() bool {
			files, err := os.ReadDir(dir)
			return err == nil && len(files) == 1
		})
	}
}

// Calls that need a process that isn't there yet start one, not one each.
func TestOneProcess(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	const plugins, steps = 8, 50
	var contents []store.Content
	for i := range plugins {
		contents = append(contents, plugin{salt: string(rune('a' + i))}.install(t, h.cfg.Store))
	}
	pids := make([]any, steps)
	var running sync.WaitGroup
	for i := range steps {
		running.Go(func() {
			all, err := h.Steps(context.Background(), contents[i%plugins])
			if err != nil {
				t.Error(err)
				return
			}
			target, _ := newTarget()
			out, err := all[0].Run(context.Background(), target, do("pid"))
			if err != nil {
				t.Error(err)
			}
			pids[i] = out["text"]
		})
	}
	running.Wait()
	distinct := map[any]bool{}
	for _, pid := range pids {
		distinct[pid] = true
	}
	if len(distinct) != plugins || h.started != plugins {
		t.Errorf("%d steps of %d plugins ran in %d processes; %d were started", steps, plugins, len(distinct), h.started)
	}
}

// Plugins start side by side: each of these waits for the other.
func TestStartsAreParallel(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t, nil)
	dir := t.TempDir()
	var starting sync.WaitGroup
	for _, names := range [][2]string{{"a", "b"}, {"b", "a"}} {
		script := fmt.Sprintf("#!/bin/sh\n: >%[1]s/%[2]s\nwhile [ ! -e %[1]s/%[3]s ]; do sleep 0.02; done\nexec %[4]s\n", dir, names[0], names[1], self)
		c := plugin{script: script}.install(t, h.cfg.Store)
		starting.Go(func() {
			if _, err := h.Describe(context.Background(), c); err != nil {
				t.Error(err)
			}
		})
	}
	starting.Wait()
}

// The end of one caller's context doesn't take the process away from the others.
func TestStartOutlivesACaller(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	c := plugin{}.install(t, h.cfg.Store)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := h.Describe(ctx, c); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want it cancelled", err)
	}
	if _, err := h.Describe(context.Background(), c); err != nil || h.started != 1 {
		t.Errorf("%v, with %d processes started; want 1", err, h.started)
	}
}

// A host that is closed while a plugin starts waits for the end of both.
func TestCloseWhileStarting(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	c := plugin{args: []string{"hang"}}.install(t, h.cfg.Store)
	failed := make(chan error, 1)
	go func() {
		_, err := h.Describe(context.Background(), c)
		failed <- err
	}()
	eventually(t, "the plugin is there", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.folder == nil {
			return false
		}
		pids, err := procs.Find(seat{token: h.folder.id + ".1"}.holds)
		return err == nil && len(pids) > 0
	})
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	wantError(t, <-failed, "gild is ending")
}

// A plugin of kind exec is served by gild's own adapter, for which the test binary stands in.
func TestExecPlugin(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const steps = `name: acme/test
version: 1.2.3
kind: exec
steps:
  - {name: acme/test, summary: x, sections: [customize], schema: {type: object}}`
	h := newHost(t, func(cfg *Config) { cfg.Self = []string{self, "serve"} })
	s, c := started(t, h, plugin{manifest: steps})
	target, _ := newTarget()
	if _, err := s.Run(context.Background(), target, do("echo")); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile(filepath.Join("/proc", current(h, c).prog.ID(), "cmdline"))
	want := []string{self, "serve", current(h, c).prog.seat.content, ""}
	if got := strings.Split(string(text), "\x00"); err != nil || !slices.Equal(got, want) {
		t.Errorf("the process is %q, %v; want %q", got, err, want)
	}

	without := newHost(t, nil)
	_, err = without.Describe(context.Background(), plugin{manifest: steps}.install(t, without.cfg.Store))
	wantError(t, err, "plugin acme/test 1.2.3: describe: this gild can't run plugins of kind exec")
}
