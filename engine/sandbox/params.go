package sandbox

import (
	"time"
)

// params are the parameters of a request by the model's names. The wire package has checked
// their types, so what isn't there and what is empty look the same unless asked with has.
type params map[string]any

func (p params) has(name string) bool { _, ok := p[name]; return ok }

func (p params) str(name string) string { v, _ := p[name].(string); return v }

func (p params) num(name string) int64 { v, _ := p[name].(int64); return v }

func (p params) yes(name string) bool { v, _ := p[name].(bool); return v }

func (p params) bytes(name string) []byte { v, _ := p[name].([]byte); return v }

func (p params) time(name string) time.Time { v, _ := p[name].(time.Time); return v }

// or returns a text, or another when there is none.
func (p params) or(name, other string) string {
	if v := p.str(name); v != "" {
		return v
	}
	return other
}

func (p params) sub(name string) params { v, _ := p[name].(map[string]any); return v }

// subs returns a list of structures.
func (p params) subs(name string) []params {
	list, _ := p[name].([]any)
	out := make([]params, 0, len(list))
	for _, v := range list {
		if m, ok := v.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}

// texts returns a list of strings.
func (p params) texts(name string) []string {
	list, _ := p[name].([]any)
	var out []string
	for _, v := range list {
		if s, ok := v.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// answer is what is given back, or a structure in it, by the model's names.
type answer = map[string]any

// set adds a text unless it is empty: AWS leaves such members out.
func set(a answer, name, text string) {
	if text != "" {
		a[name] = text
	}
}

// list makes a list of structures or texts.
func list[T any](items []T, make_ func(T) any) []any {
	out := make([]any, 0, len(items))
	for _, item := range items {
		out = append(out, make_(item))
	}
	return out
}

// value is how attributes are given back.
func value(v any) answer { return answer{"Value": v} }

func setTime(a answer, name string, t time.Time) {
	if !t.IsZero() {
		a[name] = t
	}
}

// stamp is a time in the places where EC2's model has a text.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
