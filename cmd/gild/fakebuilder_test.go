package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/builder/aws"
	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/spec"
	"github.com/gildhq/gild/engine/step"
)

// fakeBuilder stands in for machines and disks, so that the tests of the command line see
// every way in which a build can end, in milliseconds and on any host. It stores empty
// states under the state folder, and runs nothing: of a script, the lines that
// [fakeMachine.Exec] knows are acted out.
type fakeBuilder struct{ dir string }

var _ builder.Builder = (*fakeBuilder)(nil)

// newFakeBuilder stands in for makeBuilders.
func newFakeBuilder(state string, _ aws.Config) ([]builder.Builder, error) {
	return []builder.Builder{&fakeBuilder{dir: state}}, nil
}

func (b *fakeBuilder) Kind() string                           { return "local" }
func (b *fakeBuilder) Unsupported(p *spec.Pipeline) diag.List { return nil }

func (b *fakeBuilder) Stacks() bool { return true }

func (b *fakeBuilder) Release(context.Context, string) error { return nil }

func (b *fakeBuilder) Resolve(_ context.Context, p *spec.Pipeline, locked map[string]string) (builder.Base, error) {
	base := p.Base.Distro
	return builder.Base{
		ID: base.Suite, Clock: time.Unix(1700000000, 0), Summary: base.Distro + " " + base.Suite,
		Lock: map[string]string{"index": "sha256:00"},
	}, nil
}

func (b *fakeBuilder) HasState(_ context.Context, _ *spec.Pipeline, key string) (bool, error) {
	return exists(b.path("layers", key))
}

func (b *fakeBuilder) MakeBase(_ context.Context, _ builder.Ledger, req builder.BaseRequest) error {
	fmt.Fprintln(req.Log, "making the base")
	return b.store("layers", req.Key, nil)
}

func (b *fakeBuilder) Open(_ context.Context, l builder.Ledger, req builder.OpenRequest) (builder.Machine, error) {
	return &fakeMachine{builder: b, ledger: l, key: req.Key, files: map[string]string{}}, nil
}

func (b *fakeBuilder) FindImage(_ context.Context, _ *spec.Pipeline, key string) (info step.ImageInfo, ok bool, err error) {
	text, err := os.ReadFile(b.path("images", key))
	if errors.Is(err, fs.ErrNotExist) {
		return info, false, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &info)
	}
	return info, err == nil, err
}

func (b *fakeBuilder) ImageBase(ctx context.Context, p *spec.Pipeline, key string) (builder.Base, bool, error) {
	_, ok, err := b.FindImage(ctx, p, key)
	return builder.Base{ID: key, Clock: time.Unix(1700000000, 0), Summary: "image " + key}, ok, err
}

func (b *fakeBuilder) MakeImage(_ context.Context, _ builder.Ledger, req builder.ImageRequest) (step.ImageInfo, error) {
	info := step.ImageInfo{Key: req.Key, Size: req.Pipeline.Local.DiskSize}
	return info, b.storeImage(info)
}

func (b *fakeBuilder) Finish(ctx context.Context, _ builder.Ledger, req builder.FinishRequest) (step.ImageInfo, error) {
	info, _, err := b.FindImage(ctx, req.Pipeline, req.Key)
	if err != nil {
		return info, err
	}
	info.Files = nil
	for _, format := range req.Pipeline.Local.Formats {
		sum := sha256.Sum256([]byte(format))
		info.Files = append(info.Files, step.ImageFile{
			Format: format, Path: b.path("images", "disk."+format), Size: info.Size, Allocated: 5 << 20, SHA256: hex.EncodeToString(sum[:]),
		})
	}
	return info, b.storeImage(info)
}

func (b *fakeBuilder) Boot(_ context.Context, l builder.Ledger, _ builder.BootRequest) (builder.Guest, error) {
	return &fakeGuest{&fakeMachine{builder: b, ledger: l, files: map[string]string{}}}, nil
}

// CopyImage fails for a region whose name begins with "broken".
func (b *fakeBuilder) CopyImage(_ context.Context, _ builder.Ledger, req builder.CopyRequest) (string, error) {
	key, region := req.Key, req.Region
	if strings.HasPrefix(region, "broken") {
		return "", &step.Permanent{Err: fmt.Errorf("region %s: no space left", region)}
	}
	return b.path("regions", region+"-"+key), b.store("regions", region+"-"+key, nil)
}

func (b *fakeBuilder) HasCopy(_ context.Context, _ *spec.Pipeline, key, region string) (string, bool, error) {
	path := b.path("regions", region+"-"+key)
	ok, err := exists(path)
	return path, ok, err
}

func (b *fakeBuilder) PublishImage(context.Context, builder.Ledger, builder.PublishRequest) error {
	return nil
}

func (b *fakeBuilder) RemoveImage(_ context.Context, key string, _ []builder.Place) error {
	if err := os.Remove(b.path("images", key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Cleanup can't remove what is named "stuck-...", as long as the state folder holds a file "stuck".
func (b *fakeBuilder) Cleanup(_ context.Context, r builder.Resource) (mine bool, err error) {
	stuck, err := exists(filepath.Join(b.dir, "stuck"))
	if err == nil && stuck && strings.HasPrefix(r.ID, "stuck-") {
		err = errors.New("device or resource busy")
	}
	return true, err
}

func (b *fakeBuilder) ImageVersion(*spec.Pipeline) (string, error) { return "1", nil }

func (b *fakeBuilder) Sweep(context.Context, builder.SweepRequest) (builder.Swept, error) {
	return builder.Swept{}, nil
}

func (b *fakeBuilder) path(kind, name string) string { return filepath.Join(b.dir, kind, name) }

func (b *fakeBuilder) storeImage(info step.ImageInfo) error {
	text, err := json.Marshal(info)
	if err != nil {
		return err
	}
	return b.store("images", info.Key, text)
}

func (b *fakeBuilder) store(kind, name string, text []byte) error {
	if err := os.MkdirAll(filepath.Join(b.dir, kind), 0o755); err != nil {
		return err
	}
	return os.WriteFile(b.path(kind, name), text, 0o644)
}

func exists(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// fakeMachine remembers the files put on it.
type fakeMachine struct {
	builder *fakeBuilder
	ledger  builder.Ledger
	key     string

	mu    sync.Mutex
	files map[string]string
}

// Exec acts out a script that was put on the machine and begins with the line "# act".
// Everything else succeeds and does nothing.
func (m *fakeMachine) Exec(ctx context.Context, cmd step.Cmd) error {
	m.mu.Lock()
	text := m.files[cmd.Argv[len(cmd.Argv)-1]]
	m.mu.Unlock()
	if !strings.HasPrefix(text, "# act\n") {
		return nil
	}
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		if err := m.act(ctx, cmd, lines.Text()); err != nil {
			return err
		}
	}
	return nil
}

// act does what one line of a script says.
func (m *fakeMachine) act(ctx context.Context, cmd step.Cmd, line string) error {
	verb, rest, _ := strings.Cut(line, " ")
	switch verb {
	case "say":
		_, err := fmt.Fprintln(cmd.Stdout, rest)
		return err
	case "exit": // with a status
		status, err := strconv.Atoi(rest)
		if err != nil || status == 0 {
			return err
		}
		return &step.ExitError{Argv: cmd.Argv, Status: status}
	case "claim": // a resource that nobody removes
		_, err := m.ledger.Intent(ctx, builder.Resource{Kind: "thing", ID: rest, Note: "made by a test"})
		return err
	case "hang": // until cancelled
		<-ctx.Done()
		return context.Cause(ctx)
	case "hang-on": // even when cancelled
		time.Sleep(time.Minute)
	case "exit-unless": // a file of the state folder is there
		ok, err := exists(filepath.Join(m.builder.dir, rest))
		if err == nil && !ok {
			err = &step.ExitError{Argv: cmd.Argv, Status: 1}
		}
		return err
	}
	return nil
}

func (m *fakeMachine) Put(_ context.Context, file step.PutFile, content io.Reader) error {
	var text bytes.Buffer
	if _, err := io.Copy(&text, content); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[file.Path] = text.String()
	return nil
}

func (m *fakeMachine) Get(_ context.Context, path string, _ io.Writer) error {
	return &fs.PathError{Op: "get", Path: path, Err: fs.ErrNotExist}
}

func (m *fakeMachine) Facts(context.Context) (step.Facts, error) {
	return step.Facts{OS: "debian", Version: "12", Arch: "amd64", PackageManager: "apt"}, nil
}

func (m *fakeMachine) Commit(context.Context) error { return m.builder.store("layers", m.key, nil) }
func (m *fakeMachine) Close() error                 { return nil }

// fakeGuest is a fakeMachine that was booted.
type fakeGuest struct{ *fakeMachine }

// Exec answers what the boot test asks, as a system does that started well.
func (g *fakeGuest) Exec(ctx context.Context, cmd step.Cmd) error {
	for question, answer := range map[string]string{
		"is-system-running": "running", "is-active": "active", "/proc/uptime": "5.00 9.00",
		"--property=FinishTimestampMonotonic": "4000000",
	} {
		if slices.Contains(cmd.Argv, question) {
			_, err := fmt.Fprintln(cmd.Stdout, answer)
			return err
		}
	}
	return g.fakeMachine.Exec(ctx, cmd)
}

func (g *fakeGuest) PoweredOn() time.Time { return time.Now() }
func (g *fakeGuest) Console() string      { return "" }

func (g *fakeGuest) Dial(context.Context, int) (net.Conn, error) {
	return nil, errors.New("connection refused")
}
