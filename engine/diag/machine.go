package diag

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"
)

// WriteJSON renders the list as a JSON array of objects with the keys file, line, column,
// width, severity, code, message, hint and source; what isn't known is left out.
// An empty list is []. The error is that of w.
func WriteJSON(w io.Writer, l List) error {
	type object struct {
		File     string `json:"file"`
		Line     int    `json:"line,omitempty"`
		Column   int    `json:"column,omitempty"`
		Width    int    `json:"width,omitempty"`
		Severity string `json:"severity"`
		Code     string `json:"code"`
		Message  string `json:"message"`
		Hint     string `json:"hint,omitempty"`
		Source   string `json:"source,omitempty"`
	}
	all := make([]object, len(l))
	for i, d := range l {
		all[i] = object{d.Pos.File, d.Pos.Line, d.Pos.Column, d.Pos.Width, d.Severity.String(), d.Code, d.Message, d.Hint, d.Source}
	}
	return encode(w, all)
}

func encode(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// The parts of SARIF 2.1.0 that are used here.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool       sarifTool     `json:"tool"`
		ColumnKind string        `json:"columnKind"`
		Results    []sarifResult `json:"results"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name  string      `json:"name"`
		Rules []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID string `json:"id"`
	}
	sarifText struct {
		Text string `json:"text"`
	}
	sarifResult struct {
		RuleID    string          `json:"ruleId"`
		RuleIndex int             `json:"ruleIndex"`
		Level     string          `json:"level"`
		Message   sarifText       `json:"message"`
		Locations []sarifLocation `json:"locations,omitempty"`
	}
	sarifLocation struct {
		Physical sarifPhysical `json:"physicalLocation"`
	}
	sarifPhysical struct {
		Artifact sarifArtifact `json:"artifactLocation"`
		Region   *sarifRegion  `json:"region,omitempty"`
	}
	sarifArtifact struct {
		URI string `json:"uri"`
	}
	sarifRegion struct {
		StartLine   int        `json:"startLine"`
		StartColumn int        `json:"startColumn,omitempty"`
		EndColumn   int        `json:"endColumn,omitempty"`
		Snippet     *sarifText `json:"snippet,omitempty"`
	}
)

// WriteSARIF renders the list as a SARIF 2.1.0 log with one run, as code scanning services
// read it. Columns count code points. The error is that of w.
func WriteSARIF(w io.Writer, l List) error {
	run := sarifRun{ColumnKind: "unicodeCodePoints", Results: []sarifResult{}}
	run.Tool.Driver = sarifDriver{Name: "gild", Rules: []sarifRule{}}
	index := map[string]int{}
	for _, d := range l {
		if _, ok := index[d.Code]; !ok {
			index[d.Code] = len(run.Tool.Driver.Rules)
			run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, sarifRule{d.Code})
		}
		run.Results = append(run.Results, sarifResult{
			RuleID: d.Code, RuleIndex: index[d.Code], Level: d.Severity.String(),
			Message: sarifText{withHint(d)}, Locations: sarifLocations(d),
		})
	}
	return encode(w, sarifLog{
		Schema:  "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
		Version: "2.1.0", Runs: []sarifRun{run},
	})
}

func sarifLocations(d Diagnostic) []sarifLocation {
	if d.Pos.File == "" {
		return nil
	}
	at := sarifPhysical{Artifact: sarifArtifact{uri(d.Pos.File)}}
	if d.Pos.Line > 0 {
		at.Region = &sarifRegion{StartLine: d.Pos.Line}
		if d.Pos.Column > 0 {
			at.Region.StartColumn = d.Pos.Column
			at.Region.EndColumn = d.Pos.Column + max(d.Pos.Width, 1)
		}
		if d.Source != "" {
			at.Region.Snippet = &sarifText{d.Source}
		}
	}
	return []sarifLocation{{at}}
}

// uri makes a URI of a path: relative ones stay relative.
func uri(path string) string {
	u := url.URL{Path: path}
	if strings.HasPrefix(path, "/") {
		u.Scheme = "file"
	}
	return u.String()
}

func withHint(d Diagnostic) string {
	if d.Hint == "" {
		return d.Message
	}
	return d.Message + "\nhint: " + d.Hint
}

var (
	githubData     = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	githubProperty = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
)

// WriteGitHub renders the list as workflow commands, which GitHub and compatible CI
// systems show beside the lines they are about. The error is that of w.
func WriteGitHub(w io.Writer, l List) error {
	for _, d := range l {
		var props []string
		add := func(name, value string) {
			props = append(props, name+"="+githubProperty.Replace(value))
		}
		if d.Pos.File != "" {
			add("file", d.Pos.File)
		}
		if d.Pos.Line > 0 {
			add("line", fmt.Sprint(d.Pos.Line))
		}
		if d.Pos.Column > 0 {
			add("col", fmt.Sprint(d.Pos.Column))
			add("endColumn", fmt.Sprint(d.Pos.Column+max(d.Pos.Width, 1)))
		}
		add("title", d.Code)
		text := githubData.Replace(Printable(d.Message))
		if d.Hint != "" {
			text += "%0A" + githubData.Replace("hint: "+Printable(d.Hint))
		}
		if _, err := fmt.Fprintf(w, "::%s %s::%s\n", d.Severity, strings.Join(props, ","), text); err != nil {
			return err
		}
	}
	return nil
}
