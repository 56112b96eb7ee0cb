package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/gildhq/gild/engine"
	"github.com/gildhq/gild/engine/plan"
)

// requestOptions are the flags that say what to validate, plan or build.
type requestOptions struct {
	params            []string
	paramsFile        string
	builder           string
	only, from, until []string
	locked            bool
}

func (o *requestOptions) inputs(cmd *cobra.Command) {
	o.values(cmd)
	cmd.Flags().StringVar(&o.builder, "builder", "", "use this `BUILDER` in place of the files' own choice")
}

// values are the flags that give params their values.
func (o *requestOptions) values(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringArrayVarP(&o.params, "param", "p", nil, "give a param its value, as `NAME=VALUE`; may be repeated")
	flags.StringVar(&o.paramsFile, "params-file", "", "read values of params from a YAML `FILE`; --param wins")
}

func (o *requestOptions) selection(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringSliceVar(&o.only, "only", nil, "take only these `STEPS` and what they need")
	flags.StringSliceVar(&o.from, "from", nil, "run these `STEPS` and what comes after them even when cached")
	flags.StringSliceVar(&o.until, "until", nil, "leave out what comes after these `STEPS`")
	flags.BoolVar(&o.locked, "locked", false, "refuse to build from anything that gild.lock doesn't name")
}

// request makes the engine's request of the flags and the files named.
func (o *requestOptions) request(cmd *cobra.Command, files []string) (engine.Request, error) {
	params := map[string]string{}
	for _, p := range o.params {
		name, value, ok := strings.Cut(p, "=")
		if !ok || name == "" {
			return engine.Request{}, usagef(cmd, "--param is %q, but must be NAME=VALUE", p)
		}
		params[name] = value
	}
	return engine.Request{
		Files:      files,
		Params:     params,
		ParamsFile: o.paramsFile,
		Builder:    o.builder,
		Selection:  plan.Selection{Only: o.only, From: o.from, Until: o.until},
		Locked:     o.locked,
	}, nil
}
