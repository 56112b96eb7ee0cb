package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gildhq/gild/cmd/gild/ui"
	"github.com/gildhq/gild/engine"
	"github.com/gildhq/gild/engine/catalog"
)

type imagesOptions struct {
	pipeline, channel string
	retired, json     bool
}

func (a *app) imagesCommand() *cobra.Command {
	var o imagesOptions
	cmd := &cobra.Command{
		Use:   "images",
		Short: "List published images",
		Long:  `Images lists the images of the catalog, newest first.`,
		Example: `  gild images
  gild images --pipeline web --channel stable --json`,
		Args: argsBetween(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.images(cmd.Context(), o) },
	}
	flags := cmd.Flags()
	flags.StringVar(&o.pipeline, "pipeline", "", "only images of this `PIPELINE`")
	flags.StringVar(&o.channel, "channel", "", "only images that a `CHANNEL` points to")
	flags.BoolVar(&o.retired, "retired", false, "retired images too")
	flags.BoolVar(&o.json, "json", false, "print the list as JSON")
	return cmd
}

func (a *app) images(ctx context.Context, o imagesOptions) error {
	return a.withEngine(ctx, func(e *engine.Engine) error {
		images, err := e.Catalog().Images(ctx, catalog.Filter{Pipeline: o.pipeline, Channel: o.channel, IncludeRetired: o.retired})
		if err != nil {
			return err
		}
		channels, err := channelsByImage(ctx, e.Catalog())
		if err != nil {
			return err
		}
		if o.json {
			out := []jsonCatalogImage{}
			for _, image := range images {
				out = append(out, catalogImageJSON(image, channels[image.ID]))
			}
			return a.printJSON(out)
		}
		var rows [][]string
		for _, image := range images {
			rows = append(rows, []string{
				image.ID, image.Name, image.Release, fmt.Sprint(image.Build), dash(strings.Join(channels[image.ID], ",")),
				ui.Size(image.Size), when(image.Created), imageState(image),
			})
		}
		return a.printTable("no images yet: \"gild build\" publishes one when the pipeline has a publish section",
			[]string{"ID", "NAME", "RELEASE", "BUILD", "CHANNELS", "SIZE", "CREATED", "STATE"}, rows)
	})
}

func imageState(image catalog.Image) string {
	if image.Live() {
		return "live"
	}
	return "retired: " + image.RetiredWhy
}

// channelsByImage lists the names of the channels that point to each image, by its id.
func channelsByImage(ctx context.Context, c *catalog.Catalog) (map[string][]string, error) {
	channels, err := c.Channels(ctx, "")
	if err != nil {
		return nil, err
	}
	byImage := map[string][]string{}
	for _, ch := range channels {
		byImage[ch.Image] = append(byImage[ch.Image], ch.Name)
	}
	for _, names := range byImage {
		slices.Sort(names)
	}
	return byImage, nil
}
