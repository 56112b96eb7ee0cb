// Command gild-plugin-goss is a test step: it runs an unmodified goss.yaml in the guest
// booted from the image.
//
// A goss file goes in; assertions that don't hold come out as failed checks. The program
// goss, built without C libraries, lies beside this one in the plugin's folder, one for each
// architecture, and is put into the guest, which needs nothing itself. See README.md.
package main

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"

	"github.com/gildhq/gild/plugins/sdk"
)

//go:embed README.md
var doc string

// source has the comments of Config, for the schema.
//
//go:embed goss.go
var source string

func main() {
	program, err := os.Executable()
	if err != nil {
		fmt.Fprintf(os.Stderr, "find the plugin's folder: %v\n", err)
		os.Exit(1)
	}
	sdk.Serve(plugin(filepath.Dir(program)))
}

// plugin is the plugin whose folder is dir.
func plugin(dir string) sdk.Plugin {
	return sdk.Plugin{Name: "gild/goss", Version: "1.0.0", Steps: []sdk.Step{
		sdk.Define(sdk.Step{
			Name:      "gild/goss",
			Summary:   "run a goss file in the booted image",
			Doc:       doc,
			Sections:  []sdk.Section{sdk.Tests},
			Cacheable: true,
		}, tool(dir).run, sdk.Source(source)),
	}}
}
