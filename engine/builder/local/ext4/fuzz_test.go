package ext4

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzWrite makes a tree of what it is given and lets e2fsck find fault with it.
func FuzzWrite(f *testing.F) {
	f.Add(uint16(8), []byte{0, 1, 2, 3, 4, 5, 6, 7})
	f.Add(uint16(131), bytes.Repeat([]byte{4, 250, 9}, 100))
	f.Add(uint16(33), bytes.Repeat([]byte{6, 77, 0, 31, 5, 200}, 60))
	f.Fuzz(func(t *testing.T, mib uint16, program []byte) {
		root := t.TempDir()
		dir := root
		for i := 0; i+1 < len(program) && i < 400; i += 2 {
			path := filepath.Join(dir, fmt.Sprintf("%d-%s", i, bytes.Repeat([]byte{'n'}, int(program[i+1])%240)))
			must(t, makeOne(path, program[i]%8, int64(program[i+1])))
			if program[i]%8 == 7 {
				dir = root
			} else if program[i]%8 == 6 && len(path) < 3000 {
				dir = path
			}
		}
		image, err := tryWrite(t, root, options(int64(8+mib%512)<<20))
		if full := (*NoSpaceError)(nil); errors.As(err, &full) {
			image, err = tryWrite(t, root, options(full.Need))
		}
		must(t, err)
		tool(t, "e2fsck", "-fn", image)
	})
}

func makeOne(path string, kind byte, v int64) error {
	switch kind {
	case 0, 1:
		return os.WriteFile(path, bytes.Repeat([]byte{byte(kind)}, int(v*v*16)), os.FileMode(v))
	case 2:
		return os.WriteFile(path, bytes.Repeat([]byte{1}, int(v)), 0o644)
	case 3:
		return os.Symlink(string(bytes.Repeat([]byte{'t'}, int(v)+1)), path)
	case 4:
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			return err
		}
		return errors.Join(os.Truncate(path, v<<20), unix.Setxattr(path, "user.v", bytes.Repeat([]byte{'v'}, int(v)), 0))
	case 5:
		return mknod(path, unix.S_IFBLK|0o600, uint32(v), uint32(v*v))
	case 6:
		return os.Mkdir(path, 0o755)
	default:
		return errors.Join(os.WriteFile(path, []byte("l"), 0o644), os.Link(path, path+"-link"))
	}
}
