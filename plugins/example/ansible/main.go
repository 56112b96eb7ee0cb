// Command gild-plugin-ansible is a customize step: it applies an Ansible playbook to the
// machine that gild is building, with the host's ansible-playbook.
//
// A playbook and variables go in; the machine, changed, and the counts of tasks come out.
// Ansible reaches the machine through a connection plugin of ours, whose helper is this
// program too, called as "gild-plugin-ansible connect". Tasks run on the machine only; the
// playbook's lookups run on the host, as the user who runs gild, and may start any program
// there. Nothing of the host's Ansible configuration is used. See README.md.
package main

import (
	_ "embed"
	"os"

	"github.com/gildhq/gild/plugins/sdk"
)

//go:embed README.md
var doc string

func main() {
	if len(os.Args) == 2 && os.Args[1] == helperArg {
		os.Exit(connect())
	}
	sdk.Serve(plugin())
}

func plugin() sdk.Plugin {
	return sdk.Plugin{Name: "gild/ansible", Version: "1.0.0", Steps: []sdk.Step{playbookStep()}}
}

func playbookStep() sdk.Step {
	return sdk.Define(sdk.Step{
		Name:      "gild/ansible",
		Summary:   "apply an Ansible playbook to the machine",
		Doc:       doc,
		Sections:  []sdk.Section{sdk.Customize},
		Cacheable: true,
		KeyParts:  sdk.KeyParts(keyParts),
	}, apply, sdk.Source(source))
}
