// Package seed is where the sandbox's first images come from.
//
// It holds a pipeline for gild's local builder ([WriteProject]) that makes a Debian 12 as
// Debian publishes it on AWS, and turns the disk that comes out into images for
// [sandbox.Server.AddImage] ([Images]). It builds nothing and reads no disk: who has an
// engine and its steps runs the pipeline.
//
// The image is a stand-in: real Debian packages, cloud-init with the EC2 data source, an
// SSH server that takes EC2 Instance Connect's keys, and the agent of package guest as a
// service in the place of amazon-ssm-agent.
package seed

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gildhq/gild/engine/builder/local/guest"
	"github.com/gildhq/gild/engine/sandbox"
)

//go:embed debian-12
var project embed.FS

const (
	root = "debian-12"
	// agentName is the file of the project that this package doesn't hold.
	agentName = "files/agent.sh"
)

// Pipeline is the pipeline file of the project.
const Pipeline = "debian-12.yaml"

// WriteProject writes the pipeline and its files into a folder, which it makes. A lock
// that is there stays, so that the same disk comes out again; files that differ are replaced.
func WriteProject(dir string) error {
	err := fs.WalkDir(project, root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := project.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		return write(filepath.Join(dir, rel), data)
	})
	if err = errors.Join(err, write(filepath.Join(dir, agentName), guest.AgentScript())); err != nil {
		return fmt.Errorf("write the pipeline of the first image: %w", err)
	}
	return nil
}

func write(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}

// Accounts of the images.
const (
	// Debian is the account that Debian publishes from on AWS.
	Debian = "136693071363"
	// Lookalike is an account that has an image with the name of Debian's newest, but for
	// a later date: what a search without an owner would find.
	Lookalike = "444455556666"
)

// older is how much older Debian's second image is.
const older = 14 * 24 * time.Hour

// Images are the sandbox's first images, all with the bytes of one disk: Debian's newest
// as of the time it was made, the one before, and the look-alike of another account.
func Images(made time.Time, disk func(context.Context) (path string, err error)) []sandbox.SeedImage {
	newest := image(made, disk)
	newest.SSMParameters = []string{"/aws/service/debian/release/12/latest/amd64"}
	before := image(made.Add(-older), disk)
	lookalike := image(made.Add(24*time.Hour), disk)
	lookalike.Account, lookalike.Created = Lookalike, made
	lookalike.Description = "not Debian's: the same name, of another account"
	return []sandbox.SeedImage{newest, before, lookalike}
}

func image(made time.Time, disk func(context.Context) (string, error)) sandbox.SeedImage {
	return sandbox.SeedImage{
		Account: Debian, Name: name(made), Description: "Debian 12, a stand-in made by gild for its sandbox",
		Arch: "amd64", BootMode: "uefi-preferred", RootDevice: "/dev/xvda", SizeGiB: 8,
		Created: made, Bytes: disk,
	}
}

// firstSerial is the day from which Debian counts: the number in its names is the day's.
var firstSerial = time.Date(2019, 8, 2, 0, 0, 0, 0, time.UTC)

// name is what Debian calls the image of a day.
func name(made time.Time) string {
	made = made.UTC()
	return fmt.Sprintf("debian-12-amd64-%s-%d", made.Format("20060102"), int(made.Sub(firstSerial).Hours()/24))
}
