package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
)

// access is one permission that a call needs.
type access struct {
	// Action is "ec2:RunInstances". Resource is an ARN, "*" for actions that IAM knows no
	// resources for, or empty when the sandbox doesn't tell which one it is: then every
	// Resource of a statement matches.
	Action, Resource string
	// Keys are condition keys with their values.
	Keys map[string][]string
}

// policyDocument is an IAM policy.
type policyDocument struct {
	Version   string
	ID        string `json:"Id,omitempty"`
	Statement oneOrMore[statement]
}

type statement struct {
	Sid                   string
	Effect                string
	Action, NotAction     oneOrMore[string]
	Resource, NotResource oneOrMore[string]
	Condition             map[string]map[string]oneOrMore[any]

	// plain says that the document is of the version that has no variables.
	plain bool
}

// oneOrMore is a value or a list of them, as IAM lets both be written.
type oneOrMore[T any] []T

func (o *oneOrMore[T]) UnmarshalJSON(text []byte) error {
	if strings.HasPrefix(strings.TrimSpace(string(text)), "[") {
		return json.Unmarshal(text, (*[]T)(o))
	}
	var one T
	if err := json.Unmarshal(text, &one); err != nil {
		return err
	}
	*o = oneOrMore[T]{one}
	return nil
}

// parsePolicy reads a policy document and refuses what the sandbox can't judge.
func parsePolicy(text string) (*policyDocument, error) {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	var doc policyDocument
	if err := dec.Decode(&doc); err != nil {
		return nil, fmt.Errorf("read the policy: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("read the policy: there is more behind it")
	}
	for i, st := range doc.Statement {
		doc.Statement[i].plain = doc.Version != "2012-10-17"
		if st.Effect != "Allow" && st.Effect != "Deny" {
			return nil, fmt.Errorf("read the policy: the effect %q of statement %d is neither Allow nor Deny", st.Effect, i+1)
		}
		if len(st.Action)+len(st.NotAction) == 0 || len(st.Resource)+len(st.NotResource) == 0 {
			return nil, fmt.Errorf("read the policy: statement %d needs Action and Resource", i+1)
		}
		for op := range st.Condition {
			if _, ok := conditionTest(op); !ok {
				return nil, fmt.Errorf("read the policy: the sandbox doesn't know the condition operator %q of statement %d", op, i+1)
			}
		}
	}
	return &doc, nil
}

// verdict of a set of policies on one access.
type verdict int

const (
	implicitDeny verdict = iota
	allowed
	explicitDeny
)

// judge decides as IAM does: what nothing allows is denied, and a Deny beats every Allow.
func judge(docs []*policyDocument, a access) verdict {
	out := implicitDeny
	for _, doc := range docs {
		for _, st := range doc.Statement {
			if !st.matches(a) {
				continue
			}
			if st.Effect == "Deny" {
				return explicitDeny
			}
			out = allowed
		}
	}
	return out
}

func (st statement) matches(a access) bool {
	action := func(pattern string) bool { return wild(strings.ToLower(pattern), strings.ToLower(a.Action)) }
	if len(st.Action) > 0 && !slices.ContainsFunc(st.Action, action) || len(st.NotAction) > 0 && slices.ContainsFunc(st.NotAction, action) {
		return false
	}
	resource := func(text string) bool {
		pattern, ok := st.resolve(a, text, true)
		return a.Resource == "" || ok && wild(pattern, a.Resource)
	}
	if len(st.Resource) > 0 && !slices.ContainsFunc(st.Resource, resource) || len(st.NotResource) > 0 && slices.ContainsFunc(st.NotResource, resource) {
		return false
	}
	for op, keys := range st.Condition {
		test, _ := conditionTest(op)
		for key, want := range keys {
			if !test(a.key(key), st.texts(a, want, strings.Contains(op, "Like") || strings.Contains(op, "Arn"))) {
				return false
			}
		}
	}
	return true
}

// key returns the values of a condition key, whose name has no case but for a tag's.
func (a access) key(name string) []string {
	for have, values := range a.Keys {
		if strings.EqualFold(have, name) {
			return values
		}
	}
	return nil
}

// texts are the values of a condition; those with a variable that the request hasn't are
// left out.
func (st statement) texts(a access, values []any, pattern bool) (out []string) {
	for _, v := range values {
		if text, ok := st.resolve(a, fmt.Sprint(v), pattern); ok {
			out = append(out, text)
		}
	}
	return out
}

// resolve puts condition keys in the places of a policy's variables: "${aws:PrincipalAccount}",
// or "${aws:username, 'nobody'}" with a text for a request without the key. A pattern comes
// back as wild reads it, in which what a variable stands for is no pattern.
func (st statement) resolve(a access, text string, pattern bool) (string, bool) {
	literal := func(s string) string { return s }
	backslashes := strings.NewReplacer()
	if pattern {
		literal = strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`).Replace
		backslashes = strings.NewReplacer(`\`, `\\`)
	}
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(text, "${")
		name, after, closed := strings.Cut(rest, "}")
		if !found || !closed || st.plain {
			out.WriteString(backslashes.Replace(text))
			return out.String(), true
		}
		name, other, given := strings.Cut(name, ",")
		name = strings.TrimSpace(name)
		value := strings.Trim(strings.TrimSpace(other), "'")
		switch have := a.key(name); {
		case name == "*" || name == "?" || name == "$":
			value = name
		case len(have) == 1:
			value = have[0]
		case !given:
			return "", false
		}
		out.WriteString(backslashes.Replace(before) + literal(value))
		text = after
	}
}

// conditionTest returns the test of a condition operator.
func conditionTest(op string) (func(have, want []string) bool, bool) {
	set, name, qualified := strings.Cut(op, ":")
	if !qualified {
		set, name = "", op
	}
	name, ifExists := strings.CutSuffix(name, "IfExists")
	positive, negated := negations()[name]
	if negated {
		name = positive
	}
	compare, ok := comparisons()[name]
	if !ok || qualified && set != "ForAllValues" && set != "ForAnyValue" {
		return nil, false
	}
	return func(have, want []string) bool {
		one := func(h string) bool {
			return slices.ContainsFunc(want, func(w string) bool { return compare(h, w) }) != negated
		}
		switch {
		case name == "Null":
			return (len(have) == 0) == slices.Contains(want, "true")
		case len(have) == 0:
			return ifExists || negated || set == "ForAllValues"
		case set == "ForAllValues":
			return !slices.ContainsFunc(have, func(h string) bool { return !one(h) })
		}
		return slices.ContainsFunc(have, one)
	}, true
}

// negations are the operators that hold when another doesn't.
func negations() map[string]string {
	return map[string]string{
		"StringNotEquals": "StringEquals", "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase", "StringNotLike": "StringLike",
		"ArnNotEquals": "ArnEquals", "ArnNotLike": "ArnLike", "NumericNotEquals": "NumericEquals", "NotIpAddress": "IpAddress",
	}
}

func comparisons() map[string]func(have, want string) bool {
	like := func(h, w string) bool { return wild(w, h) }
	return map[string]func(have, want string) bool{
		"StringEquals":             func(h, w string) bool { return h == w },
		"StringEqualsIgnoreCase":   strings.EqualFold,
		"StringLike":               like,
		"ArnEquals":                like,
		"ArnLike":                  like,
		"Bool":                     strings.EqualFold,
		"NumericEquals":            func(h, w string) bool { return toFloat(h) == toFloat(w) },
		"NumericLessThan":          func(h, w string) bool { return toFloat(h) < toFloat(w) },
		"NumericLessThanEquals":    func(h, w string) bool { return toFloat(h) <= toFloat(w) },
		"NumericGreaterThan":       func(h, w string) bool { return toFloat(h) > toFloat(w) },
		"NumericGreaterThanEquals": func(h, w string) bool { return toFloat(h) >= toFloat(w) },
		"Null":                     nil, // is no comparison
		"IpAddress": func(h, w string) bool {
			ip, err := netip.ParseAddr(h)
			prefix, err2 := netip.ParsePrefix(w)
			return err == nil && err2 == nil && prefix.Contains(ip)
		},
	}
}
