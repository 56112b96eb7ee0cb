package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/gildhq/gild/engine"
	"github.com/gildhq/gild/engine/builder/aws/access"
)

func (a *app) schemaIAMCommand() *cobra.Command {
	var inputs requestOptions
	cmd := &cobra.Command{
		Use:   "iam FILE...",
		Short: "Print the least IAM policy that pipelines need",
		Long: fmt.Sprintf(`Iam prints the policy that credentials need to build these files on AWS, and no more: each
action, on the resources and under the conditions that the files call for. It asks nobody.

IAM takes managed policies of up to %d characters. A longer one is printed as several
policies, one JSON document after the other, and standard error says how many: make a
policy of each, and attach all of them.`, access.MaxManaged),
		Example: `  gild schema iam web.yaml > policy.json
  gild schema iam web.yaml db.yaml | jq -s '.[0]' > first.json`,
		Args: argsBetween(1, -1, "a pipeline file"),
		RunE: func(cmd *cobra.Command, files []string) error {
			inputs.builder = "aws"
			req, err := inputs.request(cmd, files)
			if err != nil {
				return err
			}
			return a.withLanguage(func(l *engine.Language) error { return a.schemaIAM(cmd.Context(), l, req) })
		},
	}
	inputs.values(cmd)
	return cmd
}

func (a *app) schemaIAM(ctx context.Context, l *engine.Language, req engine.Request) error {
	pipelines, diags, err := l.Pipelines(ctx, req)
	if err != nil {
		return err
	}
	if err := a.report("text", diags); err != nil {
		return err
	}
	if diags.HasErrors() {
		return diags.Err()
	}
	policies, err := access.Policy(pipelines...).Split(access.MaxManaged)
	if err != nil {
		return err
	}
	for _, p := range policies {
		if err := a.printJSON(p); err != nil {
			return err
		}
	}
	if n := len(policies); n > 1 {
		a.say("these are %d policies, as IAM takes no more than %d characters in one: make and attach all of them", n, access.MaxManaged)
	}
	return nil
}
