package catalog_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/gildhq/gild/engine/catalog"
)

// childVar names the role that this test binary plays when a test starts it again.
const childVar = "GILD_TEST_CHILD"

func TestMain(m *testing.M) {
	dir := os.Getenv(childVar)
	if dir == "" {
		os.Exit(m.Run())
	}
	if err := publishMany(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

const publishedPerChild = 20

// publishMany publishes images of the same release as other processes do at the same time: some of
// its own, one that all of them have.
func publishMany(dir string) error {
	ctx := context.Background()
	c, err := catalog.Open(ctx, filepath.Join(dir, "gild.db"))
	if err != nil {
		return err
	}
	for i := range publishedPerChild {
		img := catalog.Image{Name: "web", Pipeline: "web", Release: "1.0.0", PublishKey: fmt.Sprint(os.Getpid(), "/", i), Created: noon}
		if i == 0 {
			img.PublishKey = "common"
		}
		if _, err := c.Publish(ctx, img, "stable"); err != nil {
			return err
		}
	}
	return c.Close()
}

func child(dir string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childVar+"="+dir)
	return cmd
}
