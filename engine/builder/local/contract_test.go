package local_test

import (
	"os/exec"
	"runtime"
	"testing"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/builder/buildertest"
	"github.com/gildhq/gild/engine/builder/local"
	"github.com/gildhq/gild/engine/spec"
)

// TestContract makes and boots real images of a small Debian.
func TestContract(t *testing.T) {
	t.Parallel()
	// Not t.TempDir: what steps left belongs to other users.
	state := stateFolder(t)
	buildertest.Run(t, buildertest.Fixture{
		New: func(t *testing.T) builder.Builder {
			b, err := local.New(state)
			if err != nil {
				t.Fatal(err)
			}
			return b
		},
		Pipeline: &spec.Pipeline{
			Name: "suite", Release: "1.0.0", Builder: local.Kind, Arch: runtime.GOARCH,
			Base:  spec.Base{Distro: &spec.DistroBase{Distro: "debian", Suite: "bookworm", Variant: "minbase", Bootable: true}},
			Local: spec.LocalBuilder{DiskSize: 1 << 30, Formats: []string{"raw", "qcow2"}, Firmware: []string{"bios"}},
		},
		Region: "east",
	})
}

func stateFolder(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("mktemp", "-d").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := string(out[:len(out)-1])
	t.Cleanup(func() {
		if out, err := exec.Command("rm", "-rf", dir).CombinedOutput(); err != nil {
			t.Errorf("remove the state folder: %v\n%s", err, out)
		}
	})
	return dir
}
