package run

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// secretForms lists the texts a secret may appear as.
func secretForms(secret string) []string {
	values := []string{secret, strings.TrimSpace(secret)}
	for line := range strings.Lines(secret) {
		if line = strings.TrimSpace(line); maskable(line) {
			values = append(values, line)
		}
	}
	slices.Sort(values)
	var forms []string
	for _, v := range slices.Compact(values) {
		forms = append(forms, v)
		if len(secret) <= encodeLimit {
			forms = append(forms, encodings(v)...)
		}
	}
	return forms
}

func encodings(v string) []string {
	forms := slices.Concat(base64Forms(v, base64.StdEncoding), base64Forms(v, base64.URLEncoding), urlForms(v), jsonForms(v))
	h := hex.EncodeToString([]byte(v))
	return append(forms, h, strings.ToUpper(h), strings.ReplaceAll(v, "'", `'\''`), strings.ReplaceAll(v, "'", `'"'"'`))
}

// base64Forms encodes v as it looks alone and inside a longer text. There, the
// characters at its two ends also depend on the neighbours and are left out.
func base64Forms(v string, enc *base64.Encoding) []string {
	var forms []string
	for before := range 3 {
		padded := enc.EncodeToString(append(make([]byte, before), v...))
		padded = padded[[]int{0, 2, 3}[before]:]
		bare := strings.TrimRight(padded, "=")
		inside := bare
		if (before+len(v))%3 != 0 {
			inside = bare[:len(bare)-1]
		}
		forms = append(forms, padded, bare, inside)
	}
	return append(forms, wrapped(forms[0], 64, 76)...)
}

// wrapped breaks an encoded text into lines as tools do: all of it, and each line.
func wrapped(text string, widths ...int) []string {
	var forms []string
	for _, width := range widths {
		if len(text) <= width {
			continue
		}
		var all strings.Builder
		for line := range slices.Chunk([]byte(text), width) {
			if all.Len() > 0 {
				all.WriteByte('\n')
			}
			all.Write(line)
			if len(line) >= shortest {
				forms = append(forms, string(line))
			}
		}
		forms = append(forms, all.String())
	}
	return forms
}

func urlForms(v string) []string {
	forms := []string{url.QueryEscape(v), url.PathEscape(v), percent(v, "-._~"), percent(v, "-._~/"), percent(v, "-._~!'()*")}
	for _, f := range forms {
		forms = append(forms, lowerPercent(f))
	}
	return forms
}

// percent encodes every byte but letters, digits and those of keep.
func percent(v, keep string) string {
	var b strings.Builder
	for _, c := range []byte(v) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte(keep, c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// lowerPercent writes the hex digits of an encoded text in lower case.
func lowerPercent(v string) string {
	b := []byte(v)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i+1:], bytes.ToLower(b[i+1:i+3]))
			i += 2
		}
	}
	return string(b)
}

// jsonForms are the contents of a JSON string: as Go writes it, without HTML's escapes,
// and in ASCII only.
func jsonForms(v string) []string {
	if !utf8.ValidString(v) {
		return nil
	}
	var plain bytes.Buffer
	enc := json.NewEncoder(&plain)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(fmt.Sprintf("encode a string as JSON: %v", err))
	}
	html, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode a string as JSON: %v", err))
	}
	bare := strings.TrimSuffix(plain.String(), "\n")
	forms := []string{bare[1 : len(bare)-1], string(html[1 : len(html)-1])}
	for _, f := range forms {
		forms = append(forms, asciiJSON(f), strings.ReplaceAll(f, "/", `\/`))
	}
	return forms
}

func asciiJSON(v string) string {
	var b strings.Builder
	for _, c := range v {
		if c < utf8.RuneSelf {
			b.WriteRune(c)
			continue
		}
		for _, u := range utf16.Encode([]rune{c}) {
			fmt.Fprintf(&b, `\u%04x`, u)
		}
	}
	return b.String()
}
