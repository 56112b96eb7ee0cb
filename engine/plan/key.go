package plan

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"hash"
	"maps"
	"slices"

	"github.com/gildhq/gild/engine/spec"
)

// keyFormat is part of every key: raise it when keys are made in another way, or when
// the engine makes something else from the same inputs.
const keyFormat = "1"

// Key hashes the named parts of a node. Names and values are length-prefixed, so
// no two sets of parts run together.
func Key(parts map[string]string) string {
	h := sha256.New()
	writeField(h, keyFormat)
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		writeField(h, name)
		writeField(h, parts[name])
	}
	return hex.EncodeToString(h.Sum(nil))
}

func writeField(h hash.Hash, s string) {
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(s)))
	h.Write(n[:])
	h.Write([]byte(s))
}

// digest is the hash of one part's value. Parts hold digests of user text, not the
// text, so that a journal of parts stays small and shows nobody's content.
func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// valueParts adds one part per top-level field of a value, named prefix.field, so that
// a changed key can name the field. A value that isn't an object is one part.
func valueParts(parts map[string]string, prefix string, v spec.Value) {
	canonical := v.Canonical()
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(canonical, &fields); err != nil {
		parts[prefix] = digest(canonical)
		return
	}
	for name, raw := range fields {
		parts[prefix+"."+name] = digest(raw)
	}
}

// changed names the parts that differ between two sets, sorted.
func changed(before, after map[string]string) []string {
	names := map[string]bool{}
	for name, value := range before {
		if after[name] != value {
			names[name] = true
		}
	}
	for name, value := range after {
		if before[name] != value {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}
