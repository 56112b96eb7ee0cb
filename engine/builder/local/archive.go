package local

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
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/builder/local/disk"
	"github.com/gildhq/gild/engine/builder/local/sandbox"
	"github.com/gildhq/gild/engine/spec"
)

// snapshotMark is replaced in a mirror's address by the snapshot's time stamp.
const snapshotMark = "{snapshot}"

func hasSnapshotMark(mirror string) bool { return strings.Contains(mirror, snapshotMark) }

// sources returns the apt sources of a base: from its mirror, else from the host's apt
// when that knows the suite, else none, which leaves the choice to mmdebstrap.
func sources(ctx context.Context, d spec.DistroBase) ([]string, error) {
	if d.Mirror != "" {
		return mirrorSources(d), nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return nil, nil
	}
	cmd := exec.CommandContext(ctx, "apt-get", "indextargets",
		"--format", "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)|$(TRUSTED)", "Identifier: Packages")
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("ask the host's apt for its sources: %w", err)
	}
	return hostSources(out, d), nil
}

func mirrorSources(d spec.DistroBase) []string {
	m := strings.TrimSuffix(strings.ReplaceAll(d.Mirror, snapshotMark, d.Snapshot), "/")
	lines := []string{
		fmt.Sprintf("deb %s %s %s", m, d.Suite, components(d)),
		fmt.Sprintf("deb %s %s-updates %s", m, d.Suite, components(d)),
	}
	security := m
	if d.Distro == "debian" {
		// Debian serves security updates from a folder beside the main one.
		if !strings.HasSuffix(m, "/debian") {
			return lines
		}
		security = m + "-security"
	}
	return append(lines, fmt.Sprintf("deb %s %s-security %s", security, d.Suite, components(d)))
}

func components(d spec.DistroBase) string {
	if d.Distro == "ubuntu" {
		return "main universe"
	}
	return "main"
}

// hostSources picks the lines of `apt-get indextargets` that serve the base. They must
// hold the suite itself; updates and security come along.
func hostSources(targets []byte, d spec.DistroBase) []string {
	wanted := []string{d.Suite, d.Suite + "-updates", d.Suite + "-security"}
	var lines []string
	whole := false
	for line := range strings.Lines(string(targets)) {
		f := strings.Split(strings.TrimSpace(line), "|")
		if len(f) != 5 || !strings.EqualFold(f[3], d.Distro) || f[4] != "yes" || !slices.Contains(wanted, f[1]) {
			continue
		}
		if !slices.Contains(strings.Fields(components(d)), f[2]) {
			continue
		}
		source := fmt.Sprintf("deb %s %s %s", f[0], f[1], f[2])
		if !slices.Contains(lines, source) {
			lines = append(lines, source)
		}
		whole = whole || f[1] == d.Suite
	}
	if !whole {
		return nil
	}
	return lines
}

// proxy returns the environment that leads apt to the proxy that the host's apt, or the
// caller's environment, uses.
func proxy(ctx context.Context) map[string]string {
	env := map[string]string{}
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy"} {
		if v := os.Getenv(name); v != "" {
			env[name] = v
		}
	}
	if env["http_proxy"] != "" {
		return env
	}
	// A host without apt-config has no apt proxy either.
	out, err := exec.CommandContext(ctx, "apt-config", "shell", "P", "Acquire::http::Proxy").Output()
	if err != nil {
		return env
	}
	if v := strings.Trim(strings.TrimPrefix(strings.TrimSpace(string(out)), "P="), "'"); v != "" {
		env["http_proxy"] = v
	}
	return env
}

// bootstrapJob are the arguments of the job that runs mmdebstrap on a tree. Packages'
// scripts run in it, so it is given the tree and nothing else of the state folder.
type bootstrapJob struct {
	// IndexOnly fetches the package lists; otherwise those in the tree are used as they are.
	IndexOnly bool
	Suite     string
	Variant   string
	Arch      string
	Sources   []string
	Env       map[string]string
	Clock     int64
}

const (
	bootstrapName = "local.bootstrap"
	listsName     = "local.lists"
)

func init() {
	sandbox.Register(bootstrapName, runBootstrap)
	sandbox.Register(listsName, copyLists)
}

// runBootstrap runs inside the user namespace, where the tree's owners are its own.
func runBootstrap(ctx context.Context, root string, raw json.RawMessage, _ io.Writer) error {
	var j bootstrapJob
	if err := json.Unmarshal(raw, &j); err != nil {
		return err
	}
	skip, variant := "check/empty,chroot/mount/sys,update,cleanup/apt/lists", j.Variant
	if j.IndexOnly {
		skip, variant = "check/empty,chroot/mount/sys,cleanup", "custom"
	}
	args := []string{
		"--mode=root", "--variant=" + variant, "--skip=" + skip, "--format=directory",
		"--architectures=" + j.Arch, j.Suite, root,
	}
	env := []string{fmt.Sprintf("SOURCE_DATE_EPOCH=%d", j.Clock)}
	for _, name := range sortedKeys(j.Env) {
		env = append(env, name+"="+j.Env[name])
	}
	return command(ctx, env, "mmdebstrap", append(args, j.Sources...)...)
}

// listsJob are the arguments of the job that copies package lists into a tree.
type listsJob struct{ From, To string }

func copyLists(ctx context.Context, _ string, raw json.RawMessage, _ io.Writer) error {
	var j listsJob
	if err := json.Unmarshal(raw, &j); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(j.To), 0o755); err != nil {
		return err
	}
	return command(ctx, nil, "cp", "-a", "--reflink=auto", j.From, j.To)
}

func command(ctx context.Context, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append([]string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp", "LANG=C.UTF-8",
	}, env...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// Resolve finds out what a distribution's archive holds now, or, when the package lists
// that locked names are stored, what it held then.
func (b *Builder) Resolve(ctx context.Context, p *spec.Pipeline, locked map[string]string) (builder.Base, error) {
	d, arch := *p.Base.Distro, p.Arch
	if base, ok, err := b.fromLock(d, arch, locked); ok || err != nil {
		return base, err
	}
	ids, err := b.findIDs()
	if err != nil {
		return builder.Base{}, err
	}
	from, err := sources(ctx, d)
	if err != nil {
		return builder.Base{}, err
	}
	tmp, err := b.store.temp(ctx, unclaimed{}, "index", "package lists")
	if err != nil {
		return builder.Base{}, err
	}
	lock, err := fetchIndex(ctx, ids, tmp, bootstrapJob{
		IndexOnly: true, Suite: d.Suite, Arch: arch, Sources: from, Env: proxy(ctx),
	})
	if err != nil {
		return builder.Base{}, errors.Join(fmt.Errorf("ask the archive of %s %s what it has: %w", d.Distro, d.Suite, err),
			tmp.remove(context.WithoutCancel(ctx), ids))
	}
	if locked["index"] == lock["index"] {
		lock["clock"] = locked["clock"] // a re-signed index with the same content is the same base
	}
	lock["sources"] = strings.Join(from, sourceMark)
	if err := b.store.commit(ctx, ids, tmp, b.store.index(lock["index"])); err != nil {
		return builder.Base{}, err
	}
	return describe(d, arch, lock)
}

// sourceMark stands between the sources in gild.lock. They are locked because the image
// keeps them, and because the lists' names hold their addresses.
const sourceMark = "; "

func splitSources(lock map[string]string) []string {
	if lock["sources"] == "" {
		return nil // mmdebstrap's own
	}
	return strings.Split(lock["sources"], sourceMark)
}

func (s store) index(digest string) string {
	return filepath.Join(s.indexes(), strings.TrimPrefix(digest, "sha256:"))
}

func (b *Builder) fromLock(d spec.DistroBase, arch string, locked map[string]string) (builder.Base, bool, error) {
	sum, err := hex.DecodeString(strings.TrimPrefix(locked["index"], "sha256:"))
	if err != nil || len(sum) != sha256.Size {
		return builder.Base{}, false, nil // nothing usable is locked: ask the archive
	}
	if ok, err := exists(b.store.index(locked["index"])); err != nil || !ok {
		return builder.Base{}, false, err
	}
	base, err := describe(d, arch, locked)
	return base, err == nil, err
}

// describe makes a base out of what is locked.
func describe(d spec.DistroBase, arch string, lock map[string]string) (builder.Base, error) {
	clock, err := time.Parse(time.RFC3339, lock["clock"])
	if err != nil {
		return builder.Base{}, fmt.Errorf("gild.lock: clock of %s %s: %w", d.Distro, d.Suite, err)
	}
	base := builder.Base{
		ID: strings.Join([]string{
			d.Distro, d.Suite, d.Variant, arch, lock["index"], fmt.Sprint(d.Bootable), strings.Join(d.Packages, ","), lock["sources"],
		}, " "),
		Clock:   clock,
		Summary: fmt.Sprintf("%s %s of %s", d.Distro, d.Suite, clock.Format("2006-01-02 15:04")),
		Lock:    map[string]string{"index": lock["index"], "clock": lock["clock"], "sources": lock["sources"]},
		Layers:  []string{bootstrapKey(d, arch, lock)},
	}
	return base, nil
}

// bootstrapKey names the layer of the bare system, which bases with other packages share.
func bootstrapKey(d spec.DistroBase, arch string, lock map[string]string) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{"bootstrap 1", d.Distro, d.Suite, d.Variant, arch, lock["index"], lock["sources"]}, "\x00")))
	return hex.EncodeToString(sum[:])
}

// fetchIndex fetches the package lists into tmp and describes them.
func fetchIndex(ctx context.Context, ids sandbox.IDs, tmp *tempDir, j bootstrapJob) (map[string]string, error) {
	if err := sandbox.MakeDirs(ctx, ids, tmp.path, "fs"); err != nil {
		return nil, err
	}
	var said tail
	if err := runBootstrapJob(ctx, ids, tmp, j, &said); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, said.String())
	}
	return readIndex(ctx, filepath.Join(tmp.path, "fs", listsDir))
}

// runBootstrapJob runs mmdebstrap on the tree fs of a temporary folder.
func runBootstrapJob(ctx context.Context, ids sandbox.IDs, tmp *tempDir, j bootstrapJob, log io.Writer) error {
	_, err := sandbox.RunJob(ctx, sandbox.JobConfig{Upper: filepath.Join(tmp.path, "fs"), IDs: ids}, bootstrapName, j, log)
	return err
}

// readIndex digests package lists. File names begin with the archive's address, which
// is left out: two mirrors of the same state are the same base.
func readIndex(ctx context.Context, dir string) (map[string]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var sums []string
	var clock time.Time
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch _, rest, _ := strings.Cut(e.Name(), "_dists_"); {
		case strings.HasSuffix(rest, "_Packages"):
			sum, _, err := disk.Digest(ctx, path, nil)
			if err != nil {
				return nil, err
			}
			sums = append(sums, rest+" "+sum)
		case strings.HasSuffix(rest, "_InRelease"), strings.HasSuffix(rest, "_Release"):
			at, err := releaseDate(path)
			if err != nil {
				return nil, err
			}
			if at.After(clock) {
				clock = at
			}
		}
	}
	if len(sums) == 0 || clock.IsZero() {
		return nil, errors.New("the archive gave no package lists")
	}
	slices.Sort(sums)
	sum := sha256.Sum256([]byte(strings.Join(sums, "\n")))
	return map[string]string{"index": "sha256:" + hex.EncodeToString(sum[:]), "clock": clock.UTC().Format(time.RFC3339)}, nil
}

// releaseDate reads the Date field of a Release file.
func releaseDate(path string) (time.Time, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return time.Time{}, err
	}
	sc := bufio.NewScanner(bytes.NewReader(data))
	for sc.Scan() {
		if v, ok := strings.CutPrefix(sc.Text(), "Date: "); ok {
			return time.Parse(time.RFC1123, v)
		}
	}
	return time.Time{}, fmt.Errorf("%s has no Date", filepath.Base(path))
}

// tail keeps the last lines of what a tool said.
type tail struct{ buf bytes.Buffer }

const tailSize = 4096

func (t *tail) Write(p []byte) (int, error) {
	t.buf.Write(p)
	if n := t.buf.Len() - tailSize; n > 0 {
		t.buf.Next(n)
	}
	return len(p), nil
}

func (t *tail) String() string { return strings.TrimSpace(t.buf.String()) }
