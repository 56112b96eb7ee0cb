package main

import (
	"encoding/json"

	"github.com/spf13/cobra"

	"github.com/gildhq/gild/engine"
	"github.com/gildhq/gild/engine/builder/aws/access"
)

func (a *app) schemaIAMCommand() *cobra.Command {
	var inputs requestOptions
	cmd := &cobra.Command{
		Use:   "iam FILE...",
		Short: "Print the least IAM policy that pipelines need",
		Long: `Iam prints the policy that credentials need to build these files on AWS, and no more: each
action, on the resources and under the conditions that the files call for. It asks nobody.`,
		Example: "  gild schema iam web.yaml > policy.json",
		Args:    argsBetween(1, -1, "a pipeline file"),
		RunE: func(cmd *cobra.Command, files []string) error {
			inputs.builder = "aws"
			req, err := inputs.request(cmd, files)
			if err != nil {
				return err
			}
			return a.withLanguage(func(l *engine.Language) error {
				pipelines, diags, err := l.Pipelines(cmd.Context(), req)
				if err != nil {
					return err
				}
				if err := a.report("text", diags); err != nil {
					return err
				}
				if diags.HasErrors() {
					return diags.Err()
				}
				text, err := json.MarshalIndent(access.Policy(pipelines...), "", "  ")
				if err != nil {
					return err
				}
				return a.print(string(text) + "\n")
			})
		},
	}
	inputs.values(cmd)
	return cmd
}
