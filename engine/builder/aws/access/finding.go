package access

import (
	"cmp"
	"slices"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/diag"
)

// Finding is one thing that a pipeline needs of AWS, and whether it is there. Optional
// marks what a build can do without, and what couldn't be found out: see Unknown.
type Finding struct {
	builder.Finding
	// Code is a stable kebab-case name, such as "aws-instance-type".
	Code string
	// Pos is what of the file asks for it.
	Pos diag.Pos
	// Unknown says that it couldn't be found out; Detail says why.
	Unknown bool
	// Statement is what the policy of the credentials lacks, or nil.
	Statement *Statement
}

// Diagnostics are the findings that aren't well: errors, and warnings for those that are
// optional or unknown.
func Diagnostics(findings []Finding) diag.List {
	var l diag.List
	for _, f := range findings {
		switch {
		case f.OK:
		case f.Optional || f.Unknown:
			l.Warnf(f.Pos, f.Code, f.Fix, "%s: %s", f.Name, f.Detail)
		default:
			l.Addf(f.Pos, f.Code, f.Fix, "%s: %s", f.Name, f.Detail)
		}
	}
	return l
}

// report collects findings.
type report struct {
	findings []Finding
	// denied are the actions that a call has already been refused for.
	denied set
}

func (r *report) ok(code, name, detail string, pos diag.Pos) {
	r.findings = append(r.findings, Finding{Code: code, Pos: pos, Finding: builder.Finding{Name: name, OK: true, Detail: detail}})
}

func (r *report) bad(code, name, detail, fix string, pos diag.Pos) {
	r.findings = append(r.findings, Finding{Code: code, Pos: pos, Finding: builder.Finding{Name: name, Detail: detail, Fix: fix}})
}

// warn is for what a build can do without.
func (r *report) warn(code, name, detail, fix string, pos diag.Pos) {
	r.findings = append(r.findings, Finding{Code: code, Pos: pos, Finding: builder.Finding{Name: name, Detail: detail, Fix: fix, Optional: true}})
}

func (r *report) unknown(code, name, detail, fix string, pos diag.Pos) {
	r.findings = append(r.findings, Finding{Code: code, Pos: pos, Unknown: true, Finding: builder.Finding{Name: name, Detail: detail, Fix: fix, Optional: true}})
}

// failed records a call that AWS didn't answer as hoped, and so left name unknown.
func (c *check) failed(code, name, action string, err error, pos diag.Pos) {
	if !isDenied(err) {
		c.unknown(code, name, "it can't be looked up: "+trim(err).Error(), "", pos)
		return
	}
	c.denied.add(action)
	c.unknown(code, name, "it can't be looked up without the permission "+action, "", pos)
	c.missing(action, "", pos)
}

// missing records that the credentials lack an action, with the statements of the policy
// that give it on the resource, or on all when resource is empty.
func (c *check) missing(action, resource string, pos diag.Pos) {
	doc := c.known.Policy(c.p)
	feature, at := c.why(action)
	if feature == "" {
		c.warn("aws-permission", "permission "+action, "gild could tell more with it", "allow "+action+" on *", pos)
		return
	}
	for _, s := range doc.Statement {
		if !slices.Contains(s.Action, action) || !s.touches(resource) {
			continue
		}
		s.Action = []string{action}
		c.lacks(s, feature, cmp.Or(at, pos))
	}
}

// lacks records one statement that is to be added.
func (c *check) lacks(s Statement, feature string, pos diag.Pos) {
	f := Finding{Code: "aws-permission", Pos: pos, Statement: &s}
	f.Name = "permission " + joined(s.Action)
	f.Detail = "the credentials " + c.caller() + " lack it on " + joined(s.Resource) + "; it is needed for " + feature
	f.Fix = "add the statement " + s.Sid + " of gild schema iam to a policy of theirs"
	c.findings = append(c.findings, f)
}

// why returns the feature that needs an action, and its place.
func (c *check) why(action string) (feature string, pos diag.Pos) {
	for _, r := range c.want.rows() {
		if slices.Contains(r.actions, action) {
			return r.feature, r.place(c.p)
		}
	}
	return "", diag.Pos{}
}
