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
	// Statements are what the policies of the credentials lack.
	Statements []Statement
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
		c.unknown(code, name, "it can't be looked up: "+tell(err), "", pos)
		return
	}
	c.denied.add(action)
	c.unknown(code, name, "it can't be looked up without the permission "+action, "", pos)
}

// missing records that the credentials lack an action on a resource, or, when that is empty,
// on something that isn't known.
func (c *check) missing(action, resource string) {
	var lacking []Statement
	for _, s := range c.known.Policy(c.p).Statement {
		if !slices.Contains(s.Action, action) || !s.touches(resource) {
			continue
		}
		s.Action = []string{action}
		s.Resource = slices.DeleteFunc(slices.Clone(s.Resource), func(r string) bool { return !authorizedOn(action, r) })
		lacking = append(lacking, s)
	}
	if len(lacking) == 0 {
		c.warn("aws-permission", "permission "+action, "gild needs it on nothing that AWS says, but was refused on "+resource, "", c.p.AWS.Pos)
		return
	}
	c.lacks(lacking)
}

// lacks records statements that are to be added for the same actions.
func (c *check) lacks(missing []Statement) *Finding {
	var sids, features []string
	var pos diag.Pos
	for _, s := range missing {
		feature, at := c.why(s)
		pos = cmp.Or(pos, at)
		sids, features = append(sids, s.Sid), append(features, feature)
	}
	c.bad("aws-permission", "permission "+joined(missing[0].Action), "the credentials "+c.principal+" lack it", "", pos)
	f := &c.findings[len(c.findings)-1]
	f.Statements = missing
	if len(missing) == 1 {
		f.Detail += " on " + joined(missing[0].Resource)
	}
	f.Detail += "; it is needed for " + joined(sorted(features))
	// What only looking needs stops no build.
	f.Optional = !slices.ContainsFunc(features, func(f string) bool { return f != looks })
	f.Fix = "add to a policy of theirs what gild schema iam has as " + joined(sids)
	return f
}

// why returns the first feature that needs a statement, and its place.
func (c *check) why(s Statement) (feature string, pos diag.Pos) {
	for _, r := range c.want.rows() {
		if r.sid == s.Sid && slices.Contains(r.actions, s.Action[0]) {
			return r.feature, r.place(c.p)
		}
	}
	return "", c.p.AWS.Pos
}
