// Command shellplugin serves gild's own shell step as a plugin.
package main

import (
	"github.com/gildhq/gild/plugins/sdk"
	"github.com/gildhq/gild/steps/shell"
)

func main() {
	step := shell.Step
	step.Name = "gild/shell"
	sdk.Serve(sdk.Plugin{Name: "gild/shell", Version: "1.0.0", Steps: []sdk.Step{step}})
}
