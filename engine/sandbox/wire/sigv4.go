package wire

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	algorithm       = "AWS4-HMAC-SHA256"
	dateLayout      = "20060102T150405Z"
	unsignedPayload = "UNSIGNED-PAYLOAD"
	// skew is how far the client's clock may be from ours.
	skew = 15 * time.Minute
)

// signature is what a request's Authorization header says.
type signature struct {
	accessKey, date, region, service string
	headers                          []string
	sum                              string
}

// refusal is why a request isn't authenticated, to be worded as its protocol does.
type refusal int

const (
	noRefusal refusal = iota
	missingToken
	incomplete
	unknownKey
	badToken
	expiredToken
	mismatch
	expiredDate
)

// parseSignature reads the Authorization header.
func parseSignature(h http.Header) (signature, refusal) {
	var s signature
	text := h.Get("Authorization")
	if text == "" {
		return s, missingToken
	}
	rest, ok := strings.CutPrefix(text, algorithm+" ")
	if !ok {
		return s, incomplete
	}
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch name {
		case "Credential":
			f := strings.Split(value, "/")
			if len(f) != 5 || f[4] != "aws4_request" || slices.Contains(f, "") {
				return s, incomplete
			}
			s.accessKey, s.date, s.region, s.service = f[0], f[1], f[2], f[3]
		case "SignedHeaders":
			s.headers = strings.Split(strings.ToLower(value), ";")
		case "Signature":
			s.sum = value
		}
	}
	if s.accessKey == "" || s.sum == "" || !slices.Contains(s.headers, "host") {
		return s, incomplete
	}
	return s, noRefusal
}

// verify checks a request against its signature. body is the whole body; unsigned says
// that the operation lets the client leave the body out of the signature.
func (s signature) verify(r *http.Request, body []byte, unsigned bool, c Credentials, now time.Time) (account string, why refusal) {
	secret, account, ok := c.Lookup(s.accessKey)
	if !ok {
		return "", unknownKey
	}
	stamp := r.Header.Get("X-Amz-Date")
	at, err := time.Parse(dateLayout, stamp)
	if err != nil || !strings.HasPrefix(stamp, s.date) {
		return "", incomplete
	}
	hash, ok := payloadHash(r.Header, body, unsigned)
	if !ok {
		return "", mismatch
	}
	scope := s.date + "/" + s.region + "/" + s.service + "/aws4_request"
	canonical := sha256.Sum256([]byte(s.canonical(r, hash)))
	toSign := algorithm + "\n" + stamp + "\n" + scope + "\n" + hex.EncodeToString(canonical[:])
	key := []byte("AWS4" + secret)
	for _, part := range []string{s.date, s.region, s.service, "aws4_request"} {
		key = mac(key, part)
	}
	if !hmac.Equal([]byte(hex.EncodeToString(mac(key, toSign))), []byte(s.sum)) {
		return "", mismatch
	}
	if d := now.Sub(at); d > skew || d < -skew {
		return "", expiredDate
	}
	return account, checkSession(r.Header.Get("X-Amz-Security-Token"), s.accessKey, c, now)
}

func checkSession(got, accessKey string, c Credentials, now time.Time) refusal {
	want, expires, needed := "", time.Time{}, false
	if sessions, ok := c.(Sessions); ok {
		want, expires, needed = sessions.Session(accessKey)
	}
	switch {
	case !needed && got == "":
		return noRefusal
	case !needed || !hmac.Equal([]byte(got), []byte(want)):
		return badToken
	case now.After(expires):
		return expiredToken
	}
	return noRefusal
}

// payloadHash returns the hash of the body as the signature has it, and whether it is
// that of the body.
func payloadHash(h http.Header, body []byte, unsigned bool) (string, bool) {
	sum := sha256.Sum256(body)
	own := hex.EncodeToString(sum[:])
	switch said := h.Get("X-Amz-Content-Sha256"); said {
	case "", own:
		return own, true
	case unsignedPayload:
		return said, unsigned
	default:
		return "", false
	}
}

// canonical is the canonical request: what both sides hash.
func (s signature) canonical(r *http.Request, payload string) string {
	var b strings.Builder
	b.WriteString(r.Method + "\n" + canonicalPath(r.URL.EscapedPath()) + "\n" + canonicalQuery(r.URL.RawQuery) + "\n")
	for _, name := range s.headers {
		b.WriteString(name + ":" + headerValue(r, name) + "\n")
	}
	b.WriteString("\n" + strings.Join(s.headers, ";") + "\n" + payload)
	return b.String()
}

// headerValue returns a header as it is signed. Go keeps two of them out of the headers.
func headerValue(r *http.Request, name string) string {
	switch {
	case name == "host":
		return r.Host
	case name == "content-length" && r.Header.Get("Content-Length") == "":
		return strconv.FormatInt(r.ContentLength, 10)
	}
	var values []string
	for _, v := range r.Header.Values(name) {
		values = append(values, strings.Join(strings.Fields(v), " "))
	}
	return strings.Join(values, ",")
}

// canonicalPath encodes the path as it was sent once more, as every service but S3 wants.
func canonicalPath(path string) string {
	if path == "" {
		return "/"
	}
	return escape(path, "/")
}

// canonicalQuery sorts the query as it was sent, by name and then by value.
func canonicalQuery(raw string) string {
	if raw == "" {
		return ""
	}
	var pairs [][2]string
	for part := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(part, "=")
		pairs = append(pairs, [2]string{reescape(name), reescape(value)})
	}
	slices.SortFunc(pairs, func(a, b [2]string) int {
		if c := strings.Compare(a[0], b[0]); c != 0 {
			return c
		}
		return strings.Compare(a[1], b[1])
	})
	out := make([]string, len(pairs))
	for i, p := range pairs {
		out[i] = p[0] + "=" + p[1]
	}
	return strings.Join(out, "&")
}

// reescape writes a part of a query in the one way that is signed, whatever the client
// left bare. A part that can't be read stays as it is: its signature won't match.
func reescape(part string) string {
	plain, err := unescape(part)
	if err != nil {
		return part
	}
	return escape(plain, "")
}

// escape percent-encodes every byte but the unreserved ones of RFC 3986 and those in keep.
func escape(s, keep string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~"+keep, c) >= 0:
			b.WriteByte(c)
		default:
			b.WriteString("%" + strings.ToUpper(hex.EncodeToString([]byte{c})))
		}
	}
	return b.String()
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}
