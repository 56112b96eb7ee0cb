package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
)

// idCount is how many ids a machine needs: every id a distribution hands out by default.
const idCount = 65536

// firstRootID is the lowest range root picks for itself, above what useradd and
// container engines hand out first.
const firstRootID = 524288

// IDs is a range of ids of the host: id 0 inside a machine is UIDStart outside, and
// so on for Size ids. It never holds the caller's own id or the host's root.
//
// Layers keep the owners of the range they were made with, so whoever stores layers
// stores their IDs with them.
type IDs struct {
	UIDStart, GIDStart, Size int
}

func (i IDs) check() error {
	if i.UIDStart <= 0 || i.GIDStart <= 0 || i.Size < idCount {
		return fmt.Errorf("id range %d/%d of %d ids: it must start above 0 and hold at least %d", i.UIDStart, i.GIDStart, i.Size, idCount)
	}
	if i.hasUID(os.Geteuid()) || i.hasGID(os.Getegid()) {
		return fmt.Errorf("id range %d/%d holds the caller's own id", i.UIDStart, i.GIDStart)
	}
	return nil
}

func (i IDs) hasUID(id int) bool { return id >= i.UIDStart && id < i.UIDStart+i.Size }
func (i IDs) hasGID(id int) bool { return id >= i.GIDStart && id < i.GIDStart+i.Size }

// FindIDs returns the range the caller may use: its entries in /etc/subuid and
// /etc/subgid. Root without an entry gets the first range that is free in both files;
// it changes when they do, so keep it with the layers made with it.
func FindIDs() (IDs, error) {
	owner, err := currentUser()
	if err != nil {
		return IDs{}, err
	}
	uids, err := readRanges("/etc/subuid")
	if err != nil {
		return IDs{}, err
	}
	gids, err := readRanges("/etc/subgid")
	if err != nil {
		return IDs{}, err
	}
	return chooseIDs(owner, uids, gids)
}

// idOwner is a user as subordinate id files name it.
type idOwner struct {
	uid  int
	name string // empty when the user has no name
}

func currentUser() (idOwner, error) {
	owner := idOwner{uid: os.Geteuid()}
	u, err := user.LookupId(strconv.Itoa(owner.uid))
	var unknown user.UnknownUserIdError
	if errors.As(err, &unknown) {
		return owner, nil
	}
	if err != nil {
		return idOwner{}, fmt.Errorf("look up user %d: %w", owner.uid, err)
	}
	owner.name = u.Username
	return owner, nil
}

// idRange is a line of /etc/subuid or /etc/subgid.
type idRange struct {
	owner       string
	start, size int
}

// readRanges reads a subordinate id file; one that doesn't exist has no entries.
func readRanges(path string) ([]idRange, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var ranges []idRange
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if r, ok := parseRange(lines.Text()); ok {
			ranges = append(ranges, r)
		}
	}
	return ranges, lines.Err()
}

// parseRange reads "owner:start:size". Like the system's own tools it passes over
// lines it can't read.
func parseRange(line string) (idRange, bool) {
	fields := strings.Split(strings.TrimSpace(line), ":")
	if len(fields) != 3 || fields[0] == "" {
		return idRange{}, false
	}
	start, err1 := strconv.ParseUint(fields[1], 10, 32)
	size, err2 := strconv.ParseUint(fields[2], 10, 32)
	if err1 != nil || err2 != nil {
		return idRange{}, false
	}
	return idRange{owner: fields[0], start: int(start), size: int(size)}, true
}

func chooseIDs(owner idOwner, uids, gids []idRange) (IDs, error) {
	uid, okUID := findRange(owner, uids)
	gid, okGID := findRange(owner, gids)
	free := freeStart(append(append([]idRange(nil), uids...), gids...))
	switch {
	case okUID && okGID:
		return IDs{UIDStart: uid.start, GIDStart: gid.start, Size: idCount}, nil
	case owner.uid == 0:
		return IDs{UIDStart: free, GIDStart: free, Size: idCount}, nil
	default:
		return IDs{}, noRangeError(owner, okUID, okGID, free)
	}
}

func findRange(owner idOwner, ranges []idRange) (idRange, bool) {
	for _, r := range ranges {
		mine := r.owner == strconv.Itoa(owner.uid) || owner.name != "" && r.owner == owner.name
		if mine && r.start > 0 && r.size >= idCount {
			return r, true
		}
	}
	return idRange{}, false
}

// freeStart returns the first aligned start above every range.
func freeStart(ranges []idRange) int {
	start := firstRootID
	for _, r := range ranges {
		if end := r.start + r.size; end > start {
			start = (end + idCount - 1) / idCount * idCount
		}
	}
	return start
}

func noRangeError(owner idOwner, okUID, okGID bool, free int) error {
	name := owner.name
	if name == "" {
		return fmt.Errorf("user %d has no name in /etc/passwd, so it can't be given subordinate ids", owner.uid)
	}
	files, args := "", ""
	if !okUID {
		files += " /etc/subuid"
		args += fmt.Sprintf(" --add-subuids %d-%d", free, free+idCount-1)
	}
	if !okGID {
		files += " /etc/subgid"
		args += fmt.Sprintf(" --add-subgids %d-%d", free, free+idCount-1)
	}
	return fmt.Errorf("user %q has no range of %d subordinate ids in%s; run: sudo usermod%s %s",
		name, idCount, strings.ReplaceAll(files, " /etc/subuid /etc", " /etc/subuid and /etc"), args, name)
}

// writeMaps gives a child's user namespace its ids. With caller, the id after the
// last is the caller's own.
func writeMaps(pid int, ids IDs, caller bool) error {
	uidMap := []int{0, ids.UIDStart, ids.Size}
	gidMap := []int{0, ids.GIDStart, ids.Size}
	if caller {
		uidMap = append(uidMap, ids.Size, os.Geteuid(), 1)
		gidMap = append(gidMap, ids.Size, os.Getegid(), 1)
	}
	if os.Geteuid() == 0 {
		return errors.Join(
			writeMap(fmt.Sprintf("/proc/%d/uid_map", pid), uidMap),
			writeMap(fmt.Sprintf("/proc/%d/gid_map", pid), gidMap))
	}
	second := make(chan error, 1)
	go func() { second <- runMapper("newgidmap", pid, gidMap) }()
	first := runMapper("newuidmap", pid, uidMap)
	return errors.Join(first, <-second)
}

func writeMap(path string, ids []int) error {
	text := ""
	for i := 0; i < len(ids); i += 3 {
		text += fmt.Sprintf("%d %d %d\n", ids[i], ids[i+1], ids[i+2])
	}
	if err := os.WriteFile(path, []byte(text), 0); err != nil {
		return fmt.Errorf("map ids %d to %d (is gild in a container that doesn't have these ids?): %w", ids[1], ids[1]+ids[2]-1, err)
	}
	return nil
}

// runMapper runs the set-uid helper that maps ids for unprivileged users.
func runMapper(tool string, pid int, ids []int) error {
	args := []string{strconv.Itoa(pid)}
	for _, id := range ids {
		args = append(args, strconv.Itoa(id))
	}
	out, err := exec.Command(tool, args...).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%s isn't installed; run: sudo apt-get install -y uidmap", tool)
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", tool, err, strings.TrimSpace(string(out)))
	}
	return nil
}
