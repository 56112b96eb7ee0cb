// Command gild-plugin-oci-push is a publish target: it pushes the files of a finished image
// to an OCI registry as an artifact, from where `oras pull` and gild fetch them again.
//
// The image and a reference go in; the artifact's tag and digest come out. It works on no
// machine and changes nothing on this host. See README.md.
package main

import (
	_ "embed"

	"github.com/gildhq/gild/plugins/sdk"
)

//go:embed README.md
var doc string

// version is the plugin's semantic version.
const version = "1.0.0"

func main() { sdk.Serve(plugin()) }

func plugin() sdk.Plugin {
	return sdk.Plugin{Name: "gild/oci-push", Version: version, Steps: []sdk.Step{pushStep()}}
}

func pushStep() sdk.Step {
	return sdk.Define(sdk.Step{
		Name:     "gild/oci-push",
		Summary:  "push the image's files to an OCI registry as an artifact",
		Doc:      doc,
		Sections: []sdk.Section{sdk.Publish},
		Validate: sdk.Validate(validate),
		Cleanup:  cleanup,
	}, push, sdk.Source(source))
}
