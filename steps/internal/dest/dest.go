// Package dest holds the part of a step's config that says where on the machine a file
// is written and with which permissions. It does no I/O.
package dest

import (
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/gildhq/gild/engine/step"
)

// File is a file to be written. It is embedded in the configs of steps that write one.
type File struct {
	// To is the absolute path on the machine.
	To string `json:"to"`
	// Mode holds the permission bits in octal, such as "0644"; empty leaves the choice to the step.
	Mode string `json:"mode"`
	// Owner and Group are names or numbers on the machine; empty means root.
	Owner string `json:"owner"`
	Group string `json:"group"`
	// Parents makes missing parent folders.
	Parents bool `json:"parents"`
}

// volatile are folders that are mounted over when the image runs or is built: what a step
// writes there never reaches the image.
var volatile = []string{"/dev", "/proc", "/run", "/sys", "/tmp"}

// Check tells what is wrong with the file's path or mode.
func (f File) Check() error {
	if _, err := f.Perm(0); err != nil {
		return err
	}
	return CheckPath(f.To)
}

// CheckPath tells what is wrong with a path that shall be part of the image.
func CheckPath(p string) error {
	if !path.IsAbs(p) || path.Clean(p) != p || strings.ContainsRune(p, 0) {
		return fmt.Errorf("%q is not a plain absolute path", p)
	}
	for _, dir := range volatile {
		if p == dir || strings.HasPrefix(p, dir+"/") {
			return fmt.Errorf("%q is not part of the image: %s is empty when it boots", p, dir)
		}
	}
	return nil
}

// Perm returns the permission bits, or missing when the config names none.
func (f File) Perm(missing fs.FileMode) (fs.FileMode, error) {
	if f.Mode == "" {
		return missing, nil
	}
	bits, err := strconv.ParseUint(f.Mode, 8, 32)
	if err != nil || bits > 0o777 {
		return 0, fmt.Errorf("mode %q is not an octal number up to \"0777\"", f.Mode)
	}
	return fs.FileMode(bits), nil
}

// Put says how to write the file; missing is the mode when the config names none.
func (f File) Put(missing fs.FileMode, now time.Time) (step.PutFile, error) {
	mode, err := f.Perm(missing)
	if err != nil {
		return step.PutFile{}, err
	}
	return step.PutFile{
		Path: f.To, Mode: mode, Owner: f.Owner, Group: f.Group, ModTime: now, Parents: f.Parents,
	}, nil
}
