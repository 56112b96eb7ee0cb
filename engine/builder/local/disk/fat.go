package disk

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"time"
)

// FAT32 with one sector per cluster; see espSize.
const (
	fatReserved  = 32
	fatCount     = 2
	fatEOC       = 0x0fffffff
	fatMedia     = 0xf8
	fatAttrDir   = 0x10
	fatAttrFile  = 0x20
	fatAttrLabel = 0x08
)

// fatVolume is a FAT32 file system that is written once, in full.
type fatVolume struct {
	// Size in bytes, a multiple of 512.
	Size int64
	// Hidden is the sector of the disk at which the volume starts.
	Hidden uint32
	Serial uint32
	// Label has at most 11 characters of upper-case ASCII.
	Label string
	// Clock is the time of every file.
	Clock time.Time
	Root  fatNode
}

// fatNode is a file with data or a folder with children. Names are upper-case 8.3.
type fatNode struct {
	Name     string
	Data     []byte
	Children []fatNode
	dir      bool
}

func fatDir(name string, children ...fatNode) fatNode {
	return fatNode{Name: name, Children: children, dir: true}
}

// fatWriter places clusters one after the other from cluster 2.
type fatWriter struct {
	fatVolume
	fatSectors uint32
	clusters   uint32
	fat        []uint32
	data       []byte
}

// writeTo writes the volume at offset into a file that is zero there.
func (v fatVolume) writeTo(w io.WriterAt, offset int64) error {
	fw := fatWriter{fatVolume: v, fat: []uint32{0x0fffff00 | fatMedia, fatEOC}}
	fw.geometry()
	fw.place(v.Root, 0)
	if free := int(fw.clusters) - (len(fw.fat) - 2); free < 0 {
		return fmt.Errorf("the files need %d KiB, the EFI system partition has %d KiB", len(fw.data)/1024, fw.clusters/2)
	}
	fat := make([]byte, 4*len(fw.fat))
	for i, next := range fw.fat {
		binary.LittleEndian.PutUint32(fat[4*i:], next)
	}
	first := offset + fatReserved*sectorSize
	span := int64(fw.fatSectors) * sectorSize
	for _, part := range []struct {
		at   int64
		data []byte
	}{
		{offset, fw.bootSectors()},
		{offset + 6*sectorSize, fw.bootSectors()},
		{first, fat},
		{first + span, fat},
		{first + fatCount*span, fw.data},
	} {
		if _, err := w.WriteAt(part.data, part.at); err != nil {
			return fmt.Errorf("write EFI system partition: %w", err)
		}
	}
	return nil
}

// geometry finds the smallest FAT that describes all clusters it leaves room for.
func (w *fatWriter) geometry() {
	total := uint32(w.Size / sectorSize)
	perSector := uint32(sectorSize / 4)
	w.fatSectors = (total - fatReserved + 2 + perSector + fatCount - 1) / (perSector + fatCount)
	w.clusters = total - fatReserved - fatCount*w.fatSectors
}

// take reserves the clusters that data needs and returns the first, or 0 for none.
func (w *fatWriter) take(data []byte) uint32 {
	n := (len(data) + sectorSize - 1) / sectorSize
	if n == 0 {
		return 0
	}
	first := uint32(len(w.fat))
	for i := 1; i < n; i++ {
		w.fat = append(w.fat, first+uint32(i))
	}
	w.fat = append(w.fat, fatEOC)
	w.data = append(w.data, data...)
	w.data = append(w.data, make([]byte, n*sectorSize-len(data))...)
	return first
}

// place writes a folder before its children, so that the root gets cluster 2, then
// fills in where they went.
func (w *fatWriter) place(n fatNode, parent uint32) uint32 {
	if !n.dir {
		return w.take(n.Data)
	}
	entries := 1 + len(n.Children)
	if n.Name != "" {
		entries = 2 + len(n.Children)
	}
	self := w.take(make([]byte, 32*entries))
	var dir []byte
	if n.Name == "" {
		dir = w.entry(dir, w.Label, fatAttrLabel, 0, 0)
	} else {
		// ".." of a folder in the root is 0, not the root's cluster.
		up := parent
		if up == 2 {
			up = 0
		}
		dir = w.entry(dir, ".", fatAttrDir, self, 0)
		dir = w.entry(dir, "..", fatAttrDir, up, 0)
	}
	for _, c := range n.Children {
		attr := byte(fatAttrFile)
		if c.dir {
			attr = fatAttrDir
		}
		dir = w.entry(dir, c.Name, attr, w.place(c, self), len(c.Data))
	}
	copy(w.data[(self-2)*sectorSize:], dir)
	return self
}

// entry appends a directory entry.
func (w *fatWriter) entry(dir []byte, name string, attr byte, cluster uint32, size int) []byte {
	e := make([]byte, 32)
	copy(e, fatName(name, attr))
	e[11] = attr
	day, clock := fatTime(w.Clock)
	le := binary.LittleEndian
	le.PutUint16(e[14:], clock)
	le.PutUint16(e[16:], day)
	le.PutUint16(e[18:], day)
	le.PutUint16(e[20:], uint16(cluster>>16))
	le.PutUint16(e[22:], clock)
	le.PutUint16(e[24:], day)
	le.PutUint16(e[26:], uint16(cluster))
	le.PutUint32(e[28:], uint32(size))
	return append(dir, e...)
}

// fatName pads a name to the eleven bytes of an entry.
func fatName(name string, attr byte) string {
	if attr == fatAttrLabel || name == "." || name == ".." {
		return fmt.Sprintf("%-11s", name)
	}
	base, ext, _ := strings.Cut(name, ".")
	return fmt.Sprintf("%-8s%-3s", base, ext)
}

// fatTime encodes t in UTC. FAT counts from 1980 in steps of two seconds.
func fatTime(t time.Time) (day, clock uint16) {
	t = t.UTC()
	if t.Year() < 1980 {
		t = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	day = uint16((t.Year()-1980)<<9 | int(t.Month())<<5 | t.Day())
	clock = uint16(t.Hour()<<11 | t.Minute()<<5 | t.Second()/2)
	return day, clock
}

// bootSectors are the boot sector, the information sector and a third that only
// carries the signature; sectors 6 to 8 hold a copy.
func (w *fatWriter) bootSectors() []byte {
	b := make([]byte, 3*sectorSize)
	le := binary.LittleEndian
	copy(b, []byte{0xeb, 0x58, 0x90})
	copy(b[3:], "GILD    ")
	le.PutUint16(b[11:], sectorSize)
	b[13] = 1
	le.PutUint16(b[14:], fatReserved)
	b[16] = fatCount
	b[21] = fatMedia
	le.PutUint16(b[24:], 32)
	le.PutUint16(b[26:], 64)
	le.PutUint32(b[28:], w.Hidden)
	le.PutUint32(b[32:], uint32(w.Size/sectorSize))
	le.PutUint32(b[36:], w.fatSectors)
	le.PutUint32(b[44:], 2)
	le.PutUint16(b[48:], 1)
	le.PutUint16(b[50:], 6)
	b[64] = 0x80
	b[66] = 0x29
	le.PutUint32(b[67:], w.Serial)
	copy(b[71:], fmt.Sprintf("%-11s", w.Label))
	copy(b[82:], "FAT32   ")
	// Nothing boots from here: stop, instead of running into the padding.
	copy(b[90:], []byte{0xf4, 0xeb, 0xfd})
	info := b[sectorSize:]
	copy(info, "RRaA")
	copy(info[484:], "rrAa")
	le.PutUint32(info[488:], w.clusters-uint32(len(w.fat)-2))
	le.PutUint32(info[492:], uint32(len(w.fat)))
	for i := 510; i < len(b); i += sectorSize {
		b[i], b[i+1] = 0x55, 0xaa
	}
	return b
}
