package spec

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/expr-lang/expr/builtin"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/types"
)

// functions an expression may call. Whatever takes a predicate or can make much out of
// little is left out, so that the cost of an expression is bounded by its length.
var functions = []string{
	"abs", "ceil", "float", "floor", "hasPrefix", "hasSuffix", "indexOf", "int", "join", "last", "first", "len",
	"lower", "max", "min", "replace", "round", "split", "string", "toJSON", "trim", "trimPrefix", "trimSuffix", "upper",
}

var allowedBuiltins, disabledBuiltins = splitBuiltins()

func splitBuiltins() (allowed conf.FunctionsTable, disabled map[string]bool) {
	allowed, disabled = conf.FunctionsTable{}, map[string]bool{}
	for _, f := range builtin.Builtins {
		if slices.Contains(functions, f.Name) && bounded[f.Name] == nil {
			allowed[f.Name] = f
		} else {
			disabled[f.Name] = true
		}
	}
	return allowed, disabled
}

func newConfig() *conf.Config {
	c := &conf.Config{
		Strict: true, ShortCircuit: true, MaxNodes: 2000,
		Functions: bounded, Builtins: allowedBuiltins, Disabled: disabledBuiltins,
	}
	c.WithEnv(types.Map{})
	return c
}

// bounded replaces built-in functions whose result can be far longer than their arguments.
var bounded = conf.FunctionsTable{
	"join": {Name: "join", Types: funcTypes(new(func([]any, string) string)), Func: func(args ...any) (any, error) {
		list, parts := args[0].([]any), []string{}
		for _, v := range list {
			s, err := textOf(v)
			if err != nil {
				return nil, err
			}
			parts = append(parts, s)
		}
		return limit(strings.Join(parts, args[1].(string)))
	}},
	"split": {Name: "split", Types: funcTypes(new(func(string, string) []any)), Func: func(args ...any) (any, error) {
		list := []any{}
		for _, s := range strings.Split(args[0].(string), args[1].(string)) {
			list = append(list, s)
		}
		return list, nil
	}},
	"replace": {Name: "replace", Types: funcTypes(new(func(string, string, string) string)), Func: func(args ...any) (any, error) {
		s, from, to := args[0].(string), args[1].(string), args[2].(string)
		if strings.Count(s, from)*len(to) > maxText {
			return limit(strings.Repeat(" ", maxText+1))
		}
		return limit(strings.ReplaceAll(s, from, to))
	}},
}

func funcTypes(fn any) []reflect.Type { return []reflect.Type{reflect.TypeOf(fn).Elem()} }

// maxText bounds a text an expression makes, in bytes.
const maxText = 64 << 10

func limit(s string) (any, error) {
	if len(s) > maxText {
		return nil, fmt.Errorf("the text is longer than %d bytes", maxText)
	}
	return s, nil
}
