package access

import (
	"encoding/json"
	"fmt"
	"slices"
	"unicode/utf8"
)

// MaxManaged is how many characters a managed policy may have, white space not counted.
// Inline policies of a role may have 10,240, of a group 5,120, of a user 2,048.
const MaxManaged = 6144

// version is the policy language's; the other one there is knows no variables.
const version = "2012-10-17"

// Document is an IAM policy. Its JSON is what IAM takes.
type Document struct {
	// Version of the policy language.
	Version string
	// Statement holds at least one entry, unless nothing on AWS is asked for.
	Statement []Statement
}

// Statement allows actions on resources.
type Statement struct {
	// Sid is unique in a document: letters and digits.
	Sid string
	// Effect is always "Allow".
	Effect string
	// Action and Resource are sorted and never empty.
	Action, Resource []string
	// Condition must hold in all its parts; nil when there is none.
	Condition Condition `json:",omitempty"`
}

// Condition maps operators ("StringEquals") to keys ("aws:RequestedRegion") to the values
// of which one must match.
type Condition map[string]map[string][]string

// and returns c with one more part.
func (c Condition) and(operator, key string, values ...string) Condition {
	if c == nil {
		c = Condition{}
	}
	if c[operator] == nil {
		c[operator] = map[string][]string{}
	}
	c[operator][key] = values
	return c
}

// Size is the number of characters that IAM counts against its quotas: see [MaxManaged].
// The policies of this package have no white space but between tokens.
func (d Document) Size() int {
	data, err := json.Marshal(d)
	if err != nil {
		panic(fmt.Sprintf("a policy of strings can't be encoded: %v", err))
	}
	return utf8.RuneCount(data)
}

// Actions are all that the document allows, sorted, each once.
func (d Document) Actions() []string {
	var all []string
	for _, s := range d.Statement {
		all = append(all, s.Action...)
	}
	return sorted(all)
}

// Split deals the statements out to documents of at most size characters each, in order.
// Since all of them allow, the documents together are the one. A statement that is longer by
// itself is dealt out by its resources; the error names one whose conditions are too long.
func (d Document) Split(size int) ([]Document, error) {
	all := []Document{{d.Version, []Statement{}}}
	for _, whole := range d.Statement {
		parts, err := whole.split(size)
		if err != nil {
			return nil, err
		}
		for _, s := range parts {
			last := &all[len(all)-1]
			more := Document{d.Version, append(slices.Clone(last.Statement), s)}
			if len(last.Statement) > 0 && more.Size() > size {
				all = append(all, Document{d.Version, []Statement{s}})
				continue
			}
			*last = more
		}
	}
	return all, nil
}

// split divides a statement so that each part fits into a document of a size. All parts but
// the first have a number in their Sid.
func (s Statement) split(size int) ([]Statement, error) {
	var parts []Statement
	for left := s.Resource; len(left) > 0; {
		part := s
		if len(parts) > 0 {
			part.Sid = fmt.Sprintf("%s%d", s.Sid, len(parts)+1)
		}
		part.Resource = left
		for len(part.Resource) > 0 && (Document{version, []Statement{part}}).Size() > size {
			part.Resource = part.Resource[:len(part.Resource)-1]
		}
		if len(part.Resource) == 0 {
			return nil, fmt.Errorf("the statement %s for %q alone has more than the %d characters that IAM allows a policy; ask for the policies of fewer files at once",
				s.Sid, left[0], size)
		}
		parts, left = append(parts, part), left[len(part.Resource):]
	}
	return parts, nil
}
