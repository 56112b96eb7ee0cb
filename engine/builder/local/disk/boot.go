package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/google/uuid"
)

// boot is how a tree boots.
type boot struct {
	// root is the UUID of the root file system.
	root uuid.UUID
	// kernel and initrd are the newest pair in the tree when the disk was made,
	// absolute within the tree.
	kernel, initrd string
	// args is the kernel command line, one argument per entry.
	args []string
}

// findBoot reads from a tree what the boot loader needs to know. Nothing outside the
// tree is read, whatever its symbolic links say.
func findBoot(root string, id uuid.UUID) (boot, error) {
	tree, err := os.OpenRoot(root)
	if err != nil {
		return boot{}, err
	}
	defer tree.Close()
	b := boot{root: id}
	if b.kernel, b.initrd, err = findKernel(tree); err != nil {
		return boot{}, err
	}
	if b.args, err = kernelArgs(tree, id); err != nil {
		return boot{}, err
	}
	return b, nil
}

// kernelName is a file name that needs no quoting anywhere.
var kernelName = regexp.MustCompile(`^vmlinuz-([A-Za-z0-9][A-Za-z0-9.+_~-]*)$`)

// findKernel finds the newest kernel in /boot that has an initramfs: root=UUID=
// doesn't work without one.
func findKernel(tree *os.Root) (kernel, initrd string, err error) {
	entries, err := fs.ReadDir(tree.FS(), "boot")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", "", err
	}
	var versions []string
	for _, e := range entries {
		if m := kernelName.FindStringSubmatch(e.Name()); m != nil && e.Type().IsRegular() {
			versions = append(versions, m[1])
		}
	}
	if len(versions) == 0 {
		return "", "", errors.New("the tree has no kernel: there is no /boot/vmlinuz-<version>; install one, such as linux-image-cloud-amd64")
	}
	slices.SortFunc(versions, compareVersions)
	newest := versions[len(versions)-1]
	initrd = "/boot/initrd.img-" + newest
	info, err := tree.Lstat(initrd[1:])
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return "", "", fmt.Errorf("the tree's kernel %s has no initramfs %s, which finding the root file system needs; run update-initramfs -c -k %s in it", newest, initrd, newest)
	}
	return "/boot/vmlinuz-" + newest, initrd, err
}

// compareVersions orders versions so that a run of digits counts as a number and "~"
// comes before everything, as Debian does.
func compareVersions(a, b string) int {
	for a != "" || b != "" {
		var wordA, wordB, numA, numB string
		wordA, a = cut(a, unicode.IsDigit)
		wordB, b = cut(b, unicode.IsDigit)
		if c := compareWords(wordA, wordB); c != 0 {
			return c
		}
		notDigit := func(r rune) bool { return !unicode.IsDigit(r) }
		numA, a = cut(a, notDigit)
		numB, b = cut(b, notDigit)
		numA, numB = strings.TrimLeft(numA, "0"), strings.TrimLeft(numB, "0")
		if len(numA) != len(numB) {
			return len(numA) - len(numB)
		}
		if c := strings.Compare(numA, numB); c != 0 {
			return c
		}
	}
	return 0
}

// cut splits s before the first rune that f holds for.
func cut(s string, f func(rune) bool) (before, after string) {
	if i := strings.IndexFunc(s, f); i >= 0 {
		return s[:i], s[i:]
	}
	return s, ""
}

func compareWords(a, b string) int {
	weight := func(s string, i int) int {
		switch {
		case i >= len(s):
			return 0
		case s[i] == '~':
			return -1
		case unicode.IsLetter(rune(s[i])):
			return int(s[i])
		default:
			return int(s[i]) + 256
		}
	}
	for i := range max(len(a), len(b)) {
		if d := weight(a, i) - weight(b, i); d != 0 {
			return d
		}
	}
	return 0
}

// kernelArgs makes the command line: the root, the tree's own arguments, and
// consoles where the tree names none.
func kernelArgs(tree *os.Root, id uuid.UUID) ([]string, error) {
	own, err := readArgs(tree)
	if err != nil {
		return nil, fmt.Errorf("/etc/kernel/cmdline: %w", err)
	}
	listed, err := fstabHasRoot(tree)
	if err != nil {
		return nil, err
	}
	args := []string{"root=UUID=" + id.String()}
	if !slices.Contains(own, "ro") && !slices.Contains(own, "rw") {
		// Without a line in fstab nothing remounts the root for writing.
		mode := "rw"
		if listed {
			mode = "ro"
		}
		args = append(args, mode)
	}
	named := func(arg string) bool { return strings.HasPrefix(arg, "console=") }
	if !slices.ContainsFunc(own, named) {
		args = append(args, "console=tty0", "console=ttyS0,115200")
	}
	return append(args, own...), nil
}

func readArgs(tree *os.Root) ([]string, error) {
	data, err := tree.ReadFile("etc/kernel/cmdline")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	args, err := splitArgs(strings.TrimSpace(string(data)))
	if err != nil {
		return nil, err
	}
	for _, a := range args {
		if strings.HasPrefix(a, "root=") {
			return nil, fmt.Errorf("sets %q, but the disk's own root is added to the command line: remove it", a)
		}
	}
	return args, nil
}

// splitArgs splits a kernel command line at spaces outside of double quotes, as the
// kernel does, and drops the quotes. What can't go through GRUB unchanged is refused.
func splitArgs(line string) ([]string, error) {
	var args []string
	var arg strings.Builder
	next := func() {
		if arg.Len() > 0 {
			args = append(args, arg.String())
		}
		arg.Reset()
	}
	quoted := false
	for i, r := range line {
		switch {
		case r == '\n' || r == '\r':
			return nil, errors.New("has more than one line: the kernel takes a single one")
		case r == '\\' || r == '\'' || r == unicode.ReplacementChar || r != '\t' && !unicode.IsPrint(r):
			return nil, fmt.Errorf("has %s at byte %d, which a kernel argument can't have here", strconv.QuoteRune(r), i+1)
		case r == '"':
			quoted = !quoted
		case (r == ' ' || r == '\t') && !quoted:
			next()
		default:
			arg.WriteRune(r)
		}
	}
	if quoted {
		return nil, errors.New("has a double quote that isn't closed")
	}
	next()
	return args, nil
}

// fstabHasRoot reports whether the tree's fstab has a line for the root.
func fstabHasRoot(tree *os.Root) (bool, error) {
	data, err := tree.ReadFile("etc/fstab")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) >= 2 && !strings.HasPrefix(fields[0], "#") && path.Clean(fields[1]) == "/" {
			return true, nil
		}
	}
	return false, nil
}
