package disk

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// writerVersion is raised when this package would make other bytes of the same tree and layout.
const writerVersion = 1

// Fingerprint identifies what of the host, besides tree and layout, decides over the
// bytes of a disk: GRUB's files for the layout's firmware, and this package. It
// belongs into the key of a disk.
func Fingerprint(l Layout) (string, error) {
	sum := sha256.New()
	fmt.Fprintf(sum, "gild disk writer %d\n", writerVersion)
	mkimage, err := exec.LookPath("grub-mkimage")
	if err != nil {
		return "", fmt.Errorf("find the boot loader's tool: %w: install grub-common", err)
	}
	files := []string{mkimage}
	for _, firmware := range l.Firmware {
		p, err := platform(l.Arch, firmware)
		if err != nil {
			return "", err
		}
		modules, err := p.folder()
		if err != nil {
			return "", err
		}
		// Glob sorts.
		found, err := filepath.Glob(filepath.Join(modules, "*"))
		if err != nil {
			return "", err
		}
		files = append(files, found...)
	}
	for _, path := range files {
		if err := hashFile(sum, path); err != nil {
			return "", fmt.Errorf("hash the boot loader: %w", err)
		}
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

func hashFile(sum hash.Hash, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return err
	}
	fmt.Fprintf(sum, "%s %d\n", filepath.Base(path), info.Size())
	_, err = io.Copy(sum, f)
	return err
}
