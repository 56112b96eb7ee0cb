package spec

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"

	"github.com/gildhq/gild/engine/diag"
)

const (
	// maxFile bounds the size of a file in bytes.
	maxFile = 1 << 20
	// maxNodes bounds how many values a file may unfold to, aliases counted each time.
	maxNodes = 100_000
	// maxDepth bounds how deep values may be nested.
	maxDepth = 64
	// maxRefine bounds the size in bytes up to which the line of a syntax error is
	// looked for more closely than the YAML library does.
	maxRefine = 32 << 10
	// maxTries bounds how many beginnings of a file are tried for that.
	maxTries = 200
)

// readYAML decodes one YAML document. The node is nil when there is none to work with.
func readYAML(path string, src []byte, diags *diag.List) (*node, *source) {
	text := strings.TrimPrefix(string(src), "\ufeff")
	s := &source{path: path}
	if len(text) > maxFile {
		diags.Addf(diag.Pos{File: path, Line: 1, Column: 1}, "file-too-large",
			"put long content into files of its own and name them here",
			"the file has %d bytes; at most %d are read", len(text), maxFile)
		return nil, s
	}
	s.lines = splitLines(text)
	if !checkBytes(s, text, diags) {
		return nil, s
	}
	root := decode(s, text, diags)
	if root == nil {
		return nil, s
	}
	c := converter{source: s, diags: diags}
	n := c.convert(nil, root)
	if c.full {
		// What was left out would only cause mistakes that aren't there.
		return nil, s
	}
	return n, s
}

// checkBytes reports the first byte that is no UTF-8, or a character YAML forbids.
func checkBytes(s *source, text string, diags *diag.List) bool {
	line, column := 1, 1
	for i, r := range text {
		bad := ""
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(text[i:], "\ufffd"):
			bad = fmt.Sprintf("byte 0x%02x is not valid UTF-8", text[i])
		case r < ' ' && r != '\t' && r != '\n' && r != '\r', r == 0x7f, r > 0x7f && r < 0xa0 && r != 0x85,
			r == 0xfffe, r == 0xffff:
			bad = fmt.Sprintf("the character U+%04X can't stand in YAML", r)
		}
		if bad != "" {
			code, hint := "control-character", `write it as an escape in double quotes, such as "\e" or "\x07"`
			if strings.HasPrefix(bad, "byte") {
				code, hint = "not-utf8", "save the file as UTF-8"
			}
			diags.Addf(diag.Pos{File: s.path, Line: line, Column: column}, code, hint, "%s", bad)
			return false
		}
		column++
		if r == '\n' || r == '\u0085' || r == '\u2028' || r == '\u2029' || r == '\r' && !strings.HasPrefix(text[i+1:], "\n") {
			line, column = line+1, 1
		}
	}
	return true
}

// decode returns the content of the file's only document, or nil.
func decode(s *source, text string, diags *diag.List) *yaml.Node {
	dec := yaml.NewDecoder(strings.NewReader(text))
	var doc yaml.Node
	err := dec.Decode(&doc)
	switch {
	case errors.Is(err, io.EOF), err == nil && emptyDocument(&doc):
		diags.Addf(diag.Pos{File: s.path, Line: 1, Column: 1}, "empty-file",
			"`gild init` writes one to start from", "the file is empty")
		return nil
	case err != nil:
		syntaxError(s, text, err, diags)
		return nil
	}
	var second yaml.Node
	switch err := dec.Decode(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		syntaxError(s, text, err, diags)
		return nil
	default:
		pos := documentStart(s, second.Line)
		diags.Addf(pos, "second-document", "one file is one image: move it to a file of its own",
			"a second YAML document begins here")
	}
	return doc.Content[0]
}

func emptyDocument(doc *yaml.Node) bool {
	if len(doc.Content) == 0 {
		return true
	}
	c := doc.Content[0]
	return c.Kind == yaml.ScalarNode && c.ShortTag() == "!!null" && c.Value == ""
}

// documentStart is the place of the `---` at or above a line.
func documentStart(s *source, line int) diag.Pos {
	for n := min(line, len(s.lines)); n > 1; n-- {
		if strings.HasPrefix(s.line(n), "---") {
			return diag.Pos{File: s.path, Line: n, Column: 1, Width: 3}
		}
	}
	return diag.Pos{File: s.path, Line: max(line, 1), Column: 1}
}

var yamlError = regexp.MustCompile(`(?s)^yaml: (?:line (\d+): )?(.*)$`)

// syntaxError reports an error of the YAML library. It gives a line at best, and for
// some mistakes the one where the surrounding mapping begins.
func syntaxError(s *source, text string, err error, diags *diag.List) {
	line, message := 1, err.Error()
	if m := yamlError.FindStringSubmatch(err.Error()); m != nil {
		message = m[2]
		if n, err := strconv.Atoi(m[1]); err == nil {
			line = n
		}
	}
	line = min(max(refineLine(s, text, line), 1), len(s.lines))
	if n := tabLine(s, line); n > 0 {
		indent := s.line(n)
		column := utf8.RuneCountInString(indent[:strings.IndexByte(indent, '\t')]) + 1
		diags.Addf(diag.Pos{File: s.path, Line: n, Column: column}, "tab",
			"indent with spaces", "YAML doesn't allow a tab in the indentation")
		return
	}
	column, message, hint := explainSyntax(s.line(line), message)
	diags.Addf(diag.Pos{File: s.path, Line: line, Column: column}, "yaml-syntax", hint, "%s", message)
}

// explainSyntax finds the column that a message of the YAML library is most likely about,
// and says what it means in the words of somebody who writes YAML.
func explainSyntax(line, message string) (column int, text, hint string) {
	at := len(line) - len(strings.TrimLeft(line, " "))
	text = message
	switch {
	case strings.Contains(message, "mapping values are not allowed"):
		if i := strings.LastIndex(line, ": "); i > 0 {
			at = i
		}
		text, hint = `": " can't stand here`, "put the text into quotes, or correct the indentation"
	case strings.Contains(message, "unexpected end of stream"):
		at = max(strings.IndexAny(line, `"'`), at)
		text, hint = "this is never closed", "close the quotes or brackets"
	case strings.Contains(message, "cannot start any token"):
		hint = "put the text into quotes"
	case strings.Contains(message, "did not find expected key"), strings.Contains(message, "did not find expected '-' indicator"):
		text, hint = "this line doesn't continue what is above it", "correct the indentation"
	case strings.Contains(message, "could not find expected ':'"):
		text, hint = `this is no "key: value"`, "add the colon, or correct the indentation"
	case strings.HasPrefix(message, "did not find expected"):
		text = strings.TrimPrefix(message, "did not find ")
	}
	return utf8.RuneCountInString(line[:at]) + 1, text, hint
}

// tabLine returns the line at or next to line whose indentation has a tab, or 0.
func tabLine(s *source, line int) int {
	for _, n := range []int{line, line + 1, line - 1} {
		text := s.line(n)
		indent := text[:len(text)-len(strings.TrimLeft(text, " \t"))]
		if strings.Contains(indent, "\t") && strings.TrimSpace(text) != "" {
			return n
		}
	}
	return 0
}

// refineLine looks for the first line after which no beginning of the file is valid
// YAML any more: that is where a reader would look for the mistake.
func refineLine(s *source, text string, reported int) int {
	if len(text) > maxRefine || len(s.lines) < 2 {
		return reported
	}
	tries := 0
	valid := func(n int) bool {
		tries++
		var doc yaml.Node
		err := yaml.Unmarshal([]byte(strings.Join(s.lines[:n], "\n")+"\n"), &doc)
		return err == nil
	}
	good, bad := 0, len(s.lines)
	for {
		for bad-good > 1 {
			if mid := (good + bad) / 2; valid(mid) {
				good = mid
			} else {
				bad = mid
			}
		}
		// A flow collection or a quoted text of several lines is only valid once it is
		// closed, so a later beginning may be fine again.
		next := 0
		for n := bad + 1; n < min(bad+40, len(s.lines)) && next == 0 && tries < maxTries; n++ {
			if valid(n) {
				next = n
			}
		}
		if next == 0 {
			return bad
		}
		good, bad = next, len(s.lines)
	}
}
