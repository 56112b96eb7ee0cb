package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/builder/local/sandbox"
	"github.com/gildhq/gild/engine/spec"
	"github.com/gildhq/gild/engine/step"
)

// MakeBase makes the layers of a base: of a distribution the bare system, which bases
// with other packages share, and on it what makes it boot; on an image its package lists.
func (b *Builder) MakeBase(ctx context.Context, l builder.Ledger, req builder.BaseRequest) error {
	d, arch := req.Pipeline.Base.Distro, req.Pipeline.Arch
	if d != nil {
		if err := b.bootstrap(ctx, l, *d, arch, req.Base, req.Log); err != nil {
			return fmt.Errorf("make the bare system of %s %s: %w", d.Distro, d.Suite, err)
		}
	}
	m, err := b.Open(ctx, l, builder.OpenRequest{Layers: req.Base.Layers, Key: req.Key, Clock: req.Base.Clock})
	if err != nil {
		return err
	}
	if d != nil {
		err = b.complete(ctx, m, *d, arch, req.Log)
	} else {
		err = b.restoreLists(ctx, m, req.Base.Lock)
	}
	if err == nil {
		err = m.Commit(ctx)
	}
	return errors.Join(err, m.Close())
}

// bootstrap makes the layer of the bare system unless it is stored.
func (b *Builder) bootstrap(ctx context.Context, l builder.Ledger, d spec.DistroBase, arch string, resolved builder.Base, log io.Writer) error {
	// Bases with other packages have other keys and this layer in common.
	return b.store.alone(ctx, resolved.Layers[0], func() error {
		if ok, err := exists(b.store.layer(resolved.Layers[0])); ok || err != nil {
			return err
		}
		return b.makeBare(ctx, l, d, arch, resolved, log)
	})
}

func (b *Builder) makeBare(ctx context.Context, l builder.Ledger, d spec.DistroBase, arch string, resolved builder.Base, log io.Writer) error {
	ids, err := b.findIDs()
	if err != nil {
		return err
	}
	tmp, err := b.store.temp(ctx, l, "base", "the bare system of "+d.Suite)
	if err != nil {
		return err
	}
	job := bootstrapJob{Suite: d.Suite, Variant: d.Variant, Arch: arch, Sources: splitSources(resolved.Lock), Env: proxy(ctx), Clock: resolved.Clock.Unix()}
	if err := b.fill(ctx, ids, tmp, resolved, job, log); err != nil {
		return errors.Join(err, tmp.remove(context.WithoutCancel(ctx), ids))
	}
	return b.store.commit(ctx, ids, tmp, b.store.layer(resolved.Layers[0]))
}

// fill makes the bare system in a temporary folder, out of the locked package lists.
func (b *Builder) fill(ctx context.Context, ids sandbox.IDs, tmp *tempDir, resolved builder.Base, job bootstrapJob, log io.Writer) error {
	if err := sandbox.MakeDirs(ctx, ids, tmp.path, "fs"); err != nil {
		return err
	}
	lists := listsJob{
		From: filepath.Join(b.store.index(resolved.Lock["index"]), "fs", listsDir),
		To:   filepath.Join(tmp.path, "fs", listsDir),
	}
	if _, err := sandbox.RunJob(ctx, sandbox.JobConfig{IDs: ids, Writable: []string{tmp.path, b.store.indexes()}}, listsName, lists, log); err != nil {
		return err
	}
	if err := runBootstrapJob(ctx, ids, tmp, job, log); err != nil {
		return fmt.Errorf("%w; if the archive has moved on since gild.lock was made, run gild lock", err)
	}
	return nil
}

const listsDir = "/var/lib/apt/lists"

// restoreLists puts the package lists that the image's distribution was locked to back,
// which sealing removed: what steps install is then decided by the lock, not by the day.
func (b *Builder) restoreLists(ctx context.Context, m step.MachineHandle, lock map[string]string) error {
	if lock["index"] == "" {
		return nil
	}
	dir := filepath.Join(b.store.index(lock["index"]), "fs", listsDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("put the image's package lists back: %w; build the image's pipeline again", err)
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || e.Name() == "lock" {
			continue
		}
		if err := putFile(ctx, m, filepath.Join(dir, e.Name()), listsDir+"/"+e.Name()); err != nil {
			return fmt.Errorf("put the image's package lists back: %w", err)
		}
	}
	return nil
}

func putFile(ctx context.Context, m step.MachineHandle, from, to string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	return errors.Join(m.Put(ctx, step.PutFile{Path: to, Parents: true}, f), f.Close())
}

// boots are the packages that make a bare system boot, by distribution.
var boots = map[string][]string{
	"debian": {"systemd-sysv", "udev", "dbus", "iproute2", "e2fsprogs", "zstd"},
	"ubuntu": {"linux-image-virtual", "systemd-sysv", "udev", "dbus", "iproute2", "e2fsprogs", "zstd", "initramfs-tools"},
}

// withoutResolved are suites in which systemd itself holds the resolver.
var withoutResolved = []string{"bullseye", "focal", "jammy"}

func bootPackages(d spec.DistroBase, arch string) []string {
	if !d.Bootable {
		return nil
	}
	list := slices.Clone(boots[d.Distro])
	if d.Distro == "debian" {
		list = append(list, "linux-image-cloud-"+arch)
	}
	if !slices.Contains(withoutResolved, d.Suite) {
		list = append(list, "systemd-resolved")
	}
	return list
}

// networkUnit makes every Ethernet card ask for an address, as images in clouds and
// hypervisors need.
const networkUnit = "[Match]\nType=ether\n\n[Network]\nDHCP=yes\n"

// noInitramfs stands in for update-initramfs while packages are installed: kernel and
// triggers would each make the same image, and it is made once at the end.
const noInitramfs = "#!/bin/sh\nexit 0\n"

// complete installs what the base asks for and sets it up.
func (b *Builder) complete(ctx context.Context, m step.MachineHandle, d spec.DistroBase, arch string, log io.Writer) error {
	for _, f := range []struct{ path, content string }{
		{"/etc/hostname", "localhost\n"},
		{"/etc/resolv.conf", ""},
		{"/etc/fstab", "# The root file system is named on the kernel's command line.\n"},
	} {
		if err := m.Put(ctx, step.PutFile{Path: f.path}, strings.NewReader(f.content)); err != nil {
			return err
		}
	}
	packages := slices.Concat(bootPackages(d, arch), d.Packages)
	if len(packages) > 0 {
		if err := install(ctx, m, packages, log); err != nil {
			return err
		}
	}
	if !d.Bootable {
		return nil
	}
	if err := m.Put(ctx, step.PutFile{Path: "/etc/systemd/network/80-dhcp.network"}, strings.NewReader(networkUnit)); err != nil {
		return err
	}
	return m.Exec(ctx, step.Cmd{Argv: []string{"systemctl", "enable", "systemd-networkd.service"}, Stdout: log, Stderr: log})
}

// install fetches packages with the network, then installs them without.
func install(ctx context.Context, m step.MachineHandle, packages []string, log io.Writer) error {
	apt := []string{
		"apt-get", "--yes", "--no-install-recommends", "-o", "Acquire::Languages=none", "-o", "Acquire::Retries=3",
		"-o", "Dpkg::Options::=--force-unsafe-io", "-o", "Dpkg::Options::=--force-confold",
		"-o", "DPkg::Path=/run/gild:/usr/sbin:/usr/bin:/sbin:/bin", "-o", "Dpkg::Use-Pty=0",
	}
	fetch := slices.Concat(apt, []string{"--download-only", "install", "--"}, packages)
	if err := m.Exec(ctx, step.Cmd{Argv: fetch, Network: true, Stdout: log, Stderr: log}); err != nil {
		return fmt.Errorf("fetch packages: %w; if the archive has moved on since gild.lock was made, run gild lock", err)
	}
	for _, f := range []struct{ path, content string }{
		{"/run/gild/update-initramfs", noInitramfs},
		{"/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n"},
	} {
		if err := m.Put(ctx, step.PutFile{Path: f.path, Mode: 0o755, Parents: true}, strings.NewReader(f.content)); err != nil {
			return err
		}
	}
	if err := m.Exec(ctx, step.Cmd{Argv: slices.Concat(apt, []string{"install", "--"}, packages), Stdout: log, Stderr: log}); err != nil {
		return fmt.Errorf("install packages: %w", err)
	}
	const finish = `rm -f /usr/sbin/policy-rc.d
apt-get clean
if command -v update-initramfs >/dev/null; then update-initramfs -c -k all; fi`
	return m.Exec(ctx, step.Cmd{Argv: []string{"/bin/sh", "-eu", "-c", finish}, Stdout: log, Stderr: log})
}
