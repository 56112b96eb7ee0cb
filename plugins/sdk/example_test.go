package sdk_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/gildhq/gild/plugins/sdk"
)

// greeting is the config of the example's step.
type greeting struct {
	// Who to greet.
	Name string `json:"name"`
}

func greet(ctx context.Context, t *sdk.Target, c greeting) (struct{}, error) {
	return struct{}{}, t.Machine.Put(ctx, sdk.PutFile{Path: "/etc/motd"}, strings.NewReader("Hello, "+c.Name+"!\n"))
}

// A plugin with one step. The whole program is in plugins/example/hello, in under 30 lines.
func Example() {
	step := sdk.Define(sdk.Step{
		Name: "acme/hello", Summary: "write a greeting",
		Sections: []sdk.Section{sdk.Customize}, Cacheable: true,
	}, greet)
	plugin := sdk.Plugin{Name: "acme/hello", Version: "1.0.0", Steps: []sdk.Step{step}}
	// main calls sdk.Serve(plugin).
	fmt.Println(plugin.Check(), plugin.Steps[0].Name)
	// Output: <nil> acme/hello
}
