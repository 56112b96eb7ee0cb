package plugins

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/gildhq/gild/engine/lock"
	"github.com/gildhq/gild/plugins/manifest"
	"github.com/gildhq/gild/plugins/store"
)

// platformOf tells what a plugin runs on by the compiled programs and libraries in it:
// none, or several kinds of which its own script chooses, run anywhere.
func platformOf(c store.Content) (string, error) {
	found := map[string]bool{}
	root := os.DirFS(c.Dir)
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		platform, err := compiledFor(root, name)
		if platform != "" {
			found[platform] = true
		}
		return err
	})
	if len(found) == 1 {
		for platform := range found {
			return platform, err
		}
	}
	return lock.AnyPlatform, err
}

// arches are Go's names of machines in the header of ELF files.
var arches = map[elf.Machine]string{
	elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64", elf.EM_RISCV: "riscv64", elf.EM_386: "386", elf.EM_ARM: "arm",
	elf.EM_LOONGARCH: "loong64", elf.EM_S390: "s390x",
}

// compiledFor reads the platform of an ELF file, and is empty for others.
func compiledFor(root fs.FS, name string) (_ string, err error) {
	f, err := root.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	head := make([]byte, 20)
	if _, err := io.ReadFull(f, head); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	if string(head[:4]) != elf.ELFMAG {
		return "", nil
	}
	var order binary.ByteOrder = binary.LittleEndian
	if elf.Data(head[elf.EI_DATA]) == elf.ELFDATA2MSB {
		order = binary.BigEndian
	}
	machine := elf.Machine(order.Uint16(head[18:]))
	if arch, ok := arches[machine]; ok {
		return "linux/" + arch, nil
	}
	return "linux/" + strings.ToLower(strings.TrimPrefix(machine.String(), "EM_")), nil
}

// programIn is the program that was built in the folder of a plugin's sources: the only
// gild-plugin-NAME of a folder without plugin.yaml. Any other path stays what it is.
func programIn(path string) (string, error) {
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		return path, err
	}
	if _, err := os.Lstat(filepath.Join(path, manifest.Name)); !errors.Is(err, fs.ErrNotExist) {
		return path, err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return "", err
	}
	var found []string
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && info.Mode()&0o100 != 0 && strings.HasPrefix(e.Name(), "gild-plugin-") {
			found = append(found, filepath.Join(path, e.Name()))
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	return path, nil
}
