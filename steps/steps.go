// Package steps lists the built-in steps.
//
// Each lives in a folder of its own, whose package comment is the user's help. A plugin's
// steps are values of the same type and are not listed here.
package steps

import (
	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/steps/boot"
	"github.com/gildhq/gild/steps/check"
	"github.com/gildhq/gild/steps/command"
	"github.com/gildhq/gild/steps/copy"
	"github.com/gildhq/gild/steps/download"
	"github.com/gildhq/gild/steps/file"
	"github.com/gildhq/gild/steps/hostname"
	"github.com/gildhq/gild/steps/http"
	"github.com/gildhq/gild/steps/kernelargs"
	"github.com/gildhq/gild/steps/packages"
	"github.com/gildhq/gild/steps/publish"
	"github.com/gildhq/gild/steps/retain"
	"github.com/gildhq/gild/steps/seal"
	"github.com/gildhq/gild/steps/service"
	"github.com/gildhq/gild/steps/shell"
	"github.com/gildhq/gild/steps/user"
)

// All returns the built-in steps, in the order of the sections they stand in, then by name.
func All() []step.Step {
	return []step.Step{
		download.Step,
		file.Step,
		hostname.Step,
		kernelargs.Step,
		packages.Step,
		service.Step,
		shell.Step,
		user.Step,

		seal.Step,

		boot.Step,
		check.Step,
		command.Step,
		http.Step,

		publish.Step,
		copy.Step,
		retain.Step,
	}
}
