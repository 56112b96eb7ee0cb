// Command gild-plugin-hello is the smallest plugin: its step writes a greeting to /etc/motd.
package main

import (
	"context"
	_ "embed"
	"strings"

	"github.com/gildhq/gild/plugins/sdk"
)

//go:embed main.go
var source string

type config struct {
	// Who to greet.
	Name string `json:"name"`
}

func hello(ctx context.Context, t *sdk.Target, c config) (struct{}, error) {
	return struct{}{}, t.Machine.Put(ctx, sdk.PutFile{Path: "/etc/motd"}, strings.NewReader("Hello, "+c.Name+"!\n"))
}

func plugin() sdk.Plugin {
	step := sdk.Step{Name: "gild/hello", Summary: "write a greeting", Sections: []sdk.Section{sdk.Customize}, Cacheable: true}
	return sdk.Plugin{Name: "gild/hello", Version: "1.0.0", Steps: []sdk.Step{sdk.Define(step, hello, sdk.Source(source))}}
}

func main() { sdk.Serve(plugin()) }
