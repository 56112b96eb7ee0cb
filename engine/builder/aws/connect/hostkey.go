package connect

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
)

// hostKeyError is the error of a server that isn't the machine.
type hostKeyError struct {
	got  ssh.PublicKey
	pins int
	seen bool
}

func (e *hostKeyError) Error() string {
	where := fmt.Sprintf("is none of the %d that the machine's console shows", e.pins)
	if e.seen {
		where = "isn't the one it had when it was first connected to"
	}
	return fmt.Sprintf("the server's key %s %s %s: somebody may be in between", e.got.Type(), ssh.FingerprintSHA256(e.got), where)
}

// hostKeys knows which keys a server may have.
type hostKeys struct {
	mu    sync.Mutex
	known []ssh.PublicKey
	seen  bool // known is what was seen first
}

func (h *hostKeys) check(_ string, _ net.Addr, key ssh.PublicKey) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.known) == 0 {
		h.known, h.seen = []ssh.PublicKey{key}, true
		return nil
	}
	for _, k := range h.known {
		if bytes.Equal(k.Marshal(), key.Marshal()) {
			return nil
		}
	}
	return permanent{&hostKeyError{got: key, pins: len(h.known), seen: h.seen}}
}

// algorithms lists those of the known keys, so that the server shows one of them; nil, for
// all, when none is known.
func (h *hostKeys) algorithms() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []string
	for _, k := range h.known {
		if k.Type() == ssh.KeyAlgoRSA {
			list = append(list, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
			continue
		}
		list = append(list, k.Type())
	}
	return list
}

const (
	keysBegin = "-----BEGIN SSH HOST KEY KEYS-----"
	keysEnd   = "-----END SSH HOST KEY KEYS-----"
)

// keyType is the first word of a public key in OpenSSH's form.
var keyType = regexp.MustCompile(`\b(ssh|ecdsa|sk-ssh|sk-ecdsa)-[a-z0-9@.-]+ `)

// ParseHostKeys finds the SSH host keys in what the serial console has said: cloud-init
// writes them there. A console that hasn't said them yet gives nil and no error.
func ParseHostKeys(console string) ([]ssh.PublicKey, error) {
	// The last ones count: a machine that was started again says them again.
	at := strings.LastIndex(console, keysBegin)
	if at < 0 {
		return nil, nil
	}
	text, _, ok := strings.Cut(console[at+len(keysBegin):], keysEnd)
	if !ok {
		return nil, nil
	}
	var keys []ssh.PublicKey
	for line := range strings.Lines(text) {
		// The console may put its own words in front, such as "ci-info: ", also of the end.
		at := keyType.FindStringIndex(line)
		if at == nil {
			continue
		}
		line = strings.TrimSpace(line[at[0]:])
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			return nil, fmt.Errorf("host key %.60q on the console: %w", line, err)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("the console's list of host keys is empty")
	}
	return keys, nil
}
