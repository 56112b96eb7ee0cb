package run

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func TestMaskString(t *testing.T) {
	t.Parallel()
	const secret = `p@ss/w"rd+ü<'>`
	tests := map[string]struct {
		secrets    []string
		text, want string
	}{
		"no secrets":              {nil, "text", "text"},
		"as it is":                {[]string{"hunter22"}, "pw=hunter22;", "pw=***;"},
		"twice":                   {[]string{"hunter22"}, "hunter22 hunter22", "*** ***"},
		"touching":                {[]string{"hunter22"}, "hunter22hunter22", "***"},
		"overlapping":             {[]string{"abcdef", "defghi"}, "-abcdefghi-", "-***-"},
		"overlapping itself":      {[]string{"abab"}, "-ababab-", "-***-"},
		"one inside another":      {[]string{"1234", "x12345"}, "x12345 123456", "*** ***56"},
		"only the inner one":      {[]string{"1234", "x12345"}, "x1234y", "x***y"},
		"beginning, then another": {[]string{"aaab"}, "aaaaab", "aa***"},
		"base64":                  {[]string{secret}, base64.StdEncoding.EncodeToString([]byte(secret)), "***"},
		"base64 for URLs":         {[]string{secret}, base64.RawURLEncoding.EncodeToString([]byte(secret)), "***"},
		"query":                   {[]string{secret}, "?a=" + url.QueryEscape(secret) + "&b", "?a=***&b"},
		"path":                    {[]string{secret}, "/" + url.PathEscape(secret) + "/", "/***/"},
		"lower-case percent":      {[]string{secret}, "p%40ss%2fw%22rd%2b%c3%bc%3c%27%3e", "***"},
		"spaces as %20":           {[]string{"one two/three"}, "one%20two%2Fthree one%20two/three one+two%2Fthree", "*** *** ***"},
		"JSON of Go":              {[]string{secret}, `{"a":"p@ss/w\"rd+ü\u003c'\u003e"}`, `{"a":"***"}`},
		"JSON without HTML":       {[]string{secret}, `{"a":"p@ss/w\"rd+ü<'>"}`, `{"a":"***"}`},
		"JSON in ASCII":           {[]string{secret}, `{"a":"p@ss/w\"rd+\u00fc<'>"}`, `{"a":"***"}`},
		"JSON beyond the plane":   {[]string{"key🙂"}, `"key\ud83d\ude42"`, `"***"`},
		"hex":                     {[]string{"hunter22"}, "68756e7465723232 68756E7465723232", "*** ***"},
		"set -x of a shell":       {[]string{"it's me"}, `+ echo 'it'\''s me'`, `+ echo '***'`},
		"a newline at the end":    {[]string{"hunter22\n"}, "hunter22;", "***;"},
		"each line":               {[]string{"line one\n  line two\r\nx\n"}, "a line two b line one c x", "a *** b *** c x"},
		"base64 of a line":        {[]string{"line one\nline two"}, base64.StdEncoding.EncodeToString([]byte("line two")), "***"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := NewMask(tc.secrets...)
			if got := m.String(tc.text); got != tc.want {
				t.Errorf("String(%q) = %q, want %q", tc.text, got, tc.want)
			}
			if got := inPieces(t, m, tc.text, 1); got != tc.want {
				t.Errorf("byte by byte %q becomes %q, want %q", tc.text, got, tc.want)
			}
		})
	}
}

func TestMaskWrappedBase64(t *testing.T) {
	t.Parallel()
	key := strings.Repeat("0123456789abcdefghijklmnopqrstuvwxyz\n", 40)
	encoded := base64.StdEncoding.EncodeToString([]byte(key))
	for _, width := range []int{64, 76} {
		var text strings.Builder
		for rest := encoded; rest != ""; {
			n := min(width, len(rest))
			text.WriteString("| " + rest[:n] + "\n")
			rest = rest[n:]
		}
		got := NewMask(key).String(text.String())
		if left := strings.Trim(got, "|* \n"); left != "" {
			t.Errorf("wrapped at %d, this is left: %q", width, left)
		}
	}
}

func TestMaskTooShort(t *testing.T) {
	t.Parallel()
	m := NewMask("abc", "", "long enough", "äöü", "   \t  ", " ab ", "abcd")
	if diff := cmp.Diff([]int{0, 3, 4, 5}, m.TooShort()); diff != "" {
		t.Errorf("too short (-want +got):\n%s", diff)
	}
	if got := m.String("abc äöü ab abcd"); got != "abc äöü ab ***" {
		t.Errorf("masked: %q", got)
	}
}

func TestNilMask(t *testing.T) {
	t.Parallel()
	var m *Mask
	if got := m.String("text"); got != "text" || m.TooShort() != nil || inPieces(t, m, "text", 2) != "text" {
		t.Errorf("a nil mask makes %q of text", got)
	}
}

func TestMaskHugeSecret(t *testing.T) {
	t.Parallel()
	secret := strings.Repeat("0123456789", encodeLimit/10) + "the end of it"
	if got := NewMask(secret).String("a " + secret + " b"); got != "a *** b" {
		t.Errorf("a secret of %d bytes leaves %.100q", len(secret), got)
	}
}

func TestMaskWriterPassesErrorsOn(t *testing.T) {
	t.Parallel()
	broken := errors.New("disk full")
	w := NewMask("secret").Writer(writerFunc(func([]byte) (int, error) { return 0, broken }))
	if _, err := io.WriteString(w, "text"); !errors.Is(err, broken) {
		t.Errorf("Write: %v, want %v", err, broken)
	}
}

// What can't be a secret any more must not wait for what comes next.
func TestMaskWriterHoldsBackOnlyBeginnings(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	w := NewMask("secret").Writer(&out)
	for _, s := range []struct{ write, seen string }{
		{"Password: ", "Password: "},
		{"sec", "Password: "},
		{"ond ", "Password: second "},
		{"secret", "Password: second "},
		{"!", "Password: second ***!"},
	} {
		if _, err := io.WriteString(w, s.write); err != nil {
			t.Fatal(err)
		}
		// The end of a secret may be the beginning of an encoded one, so it may wait.
		if got := out.String(); got != s.seen && got != s.seen+"***" {
			t.Errorf("after %q there is %q, want %q", s.write, got, s.seen)
		}
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// inPieces masks text in writes of n bytes.
func inPieces(t *testing.T, m *Mask, text string, n int) string {
	t.Helper()
	var out bytes.Buffer
	w := m.Writer(&out)
	for rest := text; rest != ""; {
		k := min(n, len(rest))
		if _, err := io.WriteString(w, rest[:k]); err != nil {
			t.Fatal(err)
		}
		rest = rest[k:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// FuzzMask puts a secret into a text in every form and asserts that nothing of the
// output, decoded again, has it.
func FuzzMask(f *testing.F) {
	f.Add("hunter22", "user=root pw=", ";\n", 3)
	f.Add("line one\nline two", "\x00", "line", 1)
	f.Add("abab", "aba", "b", 2)
	f.Add("ü\xffü<'\">\\", "a", "", 7)
	f.Add("aaaa", "aaa", "aaaaa", 1)
	f.Add("/+/+", "%", "=", 5)
	f.Fuzz(func(t *testing.T, secret, before, after string, chunk int) {
		// Stars and their code points could be completed to a secret by the mask itself.
		if !maskable(secret) || len(secret) > 1<<10 || len(before)+len(after) > 1<<12 || strings.Contains(secret, "*") || chunk < 1 {
			return
		}
		m := NewMask(secret)
		whole := before + secret + after
		texts := map[string]string{
			"raw":        whole,
			"base64":     base64.StdEncoding.EncodeToString([]byte(whole)),
			"base64 URL": base64.RawURLEncoding.EncodeToString([]byte(whole)),
			"hex":        hex.EncodeToString([]byte(whole)),
			"query":      url.QueryEscape(whole),
			"path":       url.PathEscape(whole),
		}
		for form, text := range texts {
			got := m.String(text)
			if streamed := inPieces(t, m, text, chunk); streamed != got {
				t.Errorf("%s: %q becomes %q at once, %q in pieces of %d", form, text, got, streamed, chunk)
			}
			if leaks(got, secret) {
				t.Errorf("%s: %q becomes %q, which still has %q", form, text, got, secret)
			}
		}
	})
}

// leaks tells whether secret can be had from text, as it is or decoded in some way.
func leaks(text, secret string) bool {
	if strings.Contains(text, secret) {
		return true
	}
	for piece := range strings.SplitSeq(text, hidden) {
		for skip := range min(4, len(piece)) {
			for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
				part := strings.TrimRight(piece[skip:], "=")
				plain, err := enc.DecodeString(part[:len(part)-len(part)%4])
				if err == nil && strings.Contains(string(plain), secret) {
					return true
				}
			}
			if plain, err := hex.DecodeString(piece[skip : len(piece)-(len(piece)-skip)%2]); err == nil && strings.Contains(string(plain), secret) {
				return true
			}
		}
		for _, decode := range []func(string) (string, error){url.QueryUnescape, url.PathUnescape} {
			if plain, err := decode(piece); err == nil && strings.Contains(plain, secret) {
				return true
			}
		}
	}
	return false
}

// FuzzMaskJSON does the same for JSON, which only valid text survives.
func FuzzMaskJSON(f *testing.F) {
	f.Add("hunter22", "user=root pw=", ";\n")
	f.Add("a\nb<>&\u2028", "\"", "\\")
	f.Fuzz(func(t *testing.T, secret, before, after string) {
		if !maskable(secret) || strings.ToValidUTF8(secret, "") != secret || strings.Contains(secret, "*") || len(secret) > 1<<10 {
			return
		}
		text, err := json.Marshal(before + secret + after)
		if err != nil {
			t.Fatal(err)
		}
		var plain string
		masked := NewMask(secret).String(string(text))
		if err := json.Unmarshal([]byte(masked), &plain); err == nil && strings.Contains(plain, secret) {
			t.Errorf("%s becomes %s, which still has %q", text, masked, secret)
		}
	})
}

func TestMaskReader(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	w := NewMask("topsecret").Writer(&out)
	if _, err := io.Copy(w, iotest.HalfReader(strings.NewReader(strings.Repeat("a topsecret b", 10_000)))); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if want := strings.Repeat("a *** b", 10_000); out.String() != want {
		t.Errorf("%d bytes, want %d", out.Len(), len(want))
	}
}
