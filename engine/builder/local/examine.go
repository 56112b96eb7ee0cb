package local

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/builder/local/disk"
	"github.com/gildhq/gild/engine/builder/local/guest"
	"github.com/gildhq/gild/engine/builder/local/sandbox"
)

var _ builder.Examiner = (*Builder)(nil)

// tool is something of the host: a command's name, or the path of a file, or several
// of either with " or " between them.
type tool struct{ name, pkg, why string }

// tools lists what this package and those under it run.
func tools() []tool {
	list := []tool{
		{"mmdebstrap", "mmdebstrap", "makes the bare system of a base"},
		{"gpgv", "gpgv", "checks the archive's signature"},
	}
	if os.Geteuid() != 0 {
		list = append(list, tool{"newuidmap", "uidmap", "lets steps run without root"})
	}
	for _, t := range disk.Tools() {
		list = append(list, tool{t.Name, t.Package, t.Why})
	}
	for _, t := range guest.Tools() {
		list = append(list, tool{t.Name, t.Package, t.Why})
	}
	return list
}

// Examine looks for the tools, the namespaces and a working KVM.
func (b *Builder) Examine(ctx context.Context) []builder.Finding {
	var out []builder.Finding
	for _, t := range tools() {
		f := builder.Finding{Name: filepath.Base(t.name), Detail: t.why, OK: t.found()}
		if !f.OK {
			f.Packages = []string{t.pkg}
		}
		out = append(out, f)
	}
	ns := builder.Finding{Name: "namespaces", Detail: "steps run in their own namespaces", OK: true}
	if err := sandbox.Check(ctx); err != nil {
		ns.OK, ns.Detail, ns.Fix = false, err.Error(), "see the message"
	}
	kvm := builder.Finding{Name: "kvm", Detail: "tests boot at full speed", OK: guest.WorkingKVM(ctx, b.store.dir), Optional: true}
	if !kvm.OK {
		kvm.Detail = "KVM doesn't work here: tests boot under emulation, which takes some ten times as long"
	}
	return append(out, ns, kvm, keyring("debian"), keyring("ubuntu"))
}

func (t tool) found() bool {
	for name := range strings.SplitSeq(t.name, " or ") {
		_, err := exec.LookPath(name)
		if filepath.IsAbs(name) {
			_, err = os.Stat(name)
		}
		if err == nil {
			return true
		}
	}
	return false
}

// keyring looks for the keys that a distribution signs its archive with.
func keyring(distro string) builder.Finding {
	pkg := map[string]string{"debian": "debian-archive-keyring", "ubuntu": "ubuntu-keyring"}[distro]
	f := builder.Finding{Name: pkg, Detail: fmt.Sprintf("the keys of %s's archive, for bases of it", distro), Optional: true}
	found, err := filepath.Glob("/usr/share/keyrings/" + distro + "-archive-keyring.*")
	f.OK = err == nil && len(found) > 0
	if !f.OK {
		f.Packages = []string{pkg}
	}
	return f
}
