package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/gildhq/gild/plugins/adapter"
	"github.com/gildhq/gild/plugins/broker"
	"github.com/gildhq/gild/plugins/manifest"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
	"github.com/gildhq/gild/plugins/sdk"
)

// adaptCommand is what gild starts to have a plugin of kind exec as a process that speaks
// the plugin protocol, so it is nothing for people.
func (a *app) adaptCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "adapt FOLDER",
		Short:   "Serve a plugin of kind exec; gild starts this by itself",
		Example: "  gild plugin adapt ./motd",
		Hidden:  true,
		Args:    argsBetween(1, 1, "a plugin's folder"),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.adapt(args[0])
		},
	}
}

// adapt serves the steps of a folder until gild ends the process.
func (a *app) adapt(dir string) (err error) {
	if a.getenv(pluginv1.CookieKey) != pluginv1.CookieValue {
		return invalid("gild starts this by itself when a pipeline uses the plugin; \"gild plugin test %s\" tries it out", dir)
	}
	m, ok, err := manifest.Read(dir)
	switch {
	case err != nil:
		return err
	case !ok:
		return invalid("%s has no %s", dir, manifest.Name)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find gild's own program: %w", err)
	}
	// The folder that gild gave this process, and removes; nothing, and so the host's, when
	// it gave none.
	temp := a.getenv("PLUGIN_UNIX_SOCKET_DIR")
	if temp == "" {
		temp = os.TempDir()
	}
	targets, err := broker.Listen(temp)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, targets.Close()) }()
	plugin, err := adapter.New(dir, m, adapter.Config{Gild: self, Targets: targets, Temp: temp, Environ: os.Environ(), Log: os.Stderr})
	if err != nil {
		return err
	}
	defer plugin.Close()
	sdk.Serve(sdk.Plugin{Name: m.Name, Version: m.Version, Steps: plugin.Steps()})
	return nil
}
