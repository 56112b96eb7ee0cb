package sandbox

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"
)

// newID makes an id such as "ami-0123456789abcdef0".
func newID(prefix string) string {
	b := make([]byte, 9)
	rand.Read(b)
	return prefix + "-0" + hex.EncodeToString(b)[:16]
}

// idOf makes an id that is the same whenever it is made of the same texts: default networks
// and seed images keep theirs in every sandbox.
func idOf(prefix string, texts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(texts, "\x00")))
	return prefix + "-0" + hex.EncodeToString(sum[:])[:16]
}

var idText = regexp.MustCompile(`^[a-z]+-([0-9a-f]{8}|[0-9a-f]{17})$`)

// wellFormed reports whether an id could be one of its kind.
func wellFormed(id, prefix string) bool {
	return strings.HasPrefix(id, prefix+"-") && idText.MatchString(id)
}
