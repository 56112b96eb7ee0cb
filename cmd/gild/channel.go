package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/gildhq/gild/engine"
)

func (a *app) channelCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "channel",
		Short: "List, move and look back at channels",
		Long: `A channel is a named pointer to an image, with a history. Each combination of a
pipeline's matrix has its own. A build moves the channel of its publish section.`,
		Example: `  gild channel list
  gild channel set web@1.3.9 stable --why "1.4.0 breaks TLS"
  gild channel history web stable`,
		Args: needSubcommand,
		RunE: func(*cobra.Command, []string) error { return nil },
	}
	cmd.AddCommand(a.channelListCommand(), a.channelSetCommand(), a.channelHistoryCommand())
	return cmd
}

func (a *app) channelListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list [PIPELINE]",
		Short:   "List channels and the images they point to",
		Example: "  gild channel list web",
		Args:    argsBetween(0, 1, "one pipeline's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			pipeline := ""
			if len(args) > 0 {
				pipeline = args[0]
			}
			return a.channelList(cmd.Context(), pipeline, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the list as JSON")
	return cmd
}

type jsonChannel struct {
	Pipeline string    `json:"pipeline"`
	Cell     string    `json:"cell"`
	Name     string    `json:"name"`
	Image    string    `json:"image"`
	Moved    time.Time `json:"moved"`
}

func (a *app) channelList(ctx context.Context, pipeline string, asJSON bool) error {
	return a.withEngine(ctx, func(e *engine.Engine) error {
		channels, err := e.Catalog().Channels(ctx, pipeline)
		if err != nil {
			return err
		}
		out := []jsonChannel{}
		var rows [][]string
		for _, c := range channels {
			out = append(out, jsonChannel{c.Pipeline, c.Cell, c.Name, c.Image, c.Moved})
			rows = append(rows, []string{c.Pipeline, dash(c.Cell), c.Name, c.Image, when(c.Moved)})
		}
		if asJSON {
			return a.printJSON(out)
		}
		return a.printTable("no channels yet", []string{"PIPELINE", "MATRIX", "CHANNEL", "IMAGE", "MOVED"}, rows)
	})
}

func (a *app) channelSetCommand() *cobra.Command {
	var why string
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "set IMAGE CHANNEL",
		Short:   "Make a channel point to an image",
		Long:    "Set moves a channel of the image's pipeline, or makes it when there is none.\n\n" + referenceHelp,
		Example: `  gild channel set web@1.3.9 stable --why "1.4.0 breaks TLS"`,
		Args:    argsBetween(2, 2, "an image and a channel"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.channelSet(cmd.Context(), args[0], args[1], why, asJSON)
		},
	}
	cmd.Flags().StringVar(&why, "why", "", "the reason, for the channel's history")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the channel as JSON")
	return cmd
}

func (a *app) channelSet(ctx context.Context, ref, name, why string, asJSON bool) error {
	return a.withEngine(ctx, func(e *engine.Engine) error {
		image, err := e.Catalog().Get(ctx, ref)
		if err != nil {
			return err
		}
		if err := e.Catalog().MoveChannel(ctx, image.Pipeline, image.Cell, name, image.ID, "user", why); err != nil {
			return err
		}
		if asJSON {
			moves, err := e.Catalog().History(ctx, image.Pipeline, image.Cell, name)
			if err != nil {
				return err
			}
			return a.printJSON(jsonChannel{image.Pipeline, image.Cell, name, image.ID, moves[0].At})
		}
		return a.print(fmt.Sprintf("%s of %s is now %s (%s)\n", name, pipelineName(image.Pipeline, image.Cell), image.Name, image.ID))
	})
}

func (a *app) channelHistoryCommand() *cobra.Command {
	var cell string
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "history PIPELINE CHANNEL",
		Short:   "Show where a channel has pointed",
		Example: "  gild channel history web stable --cell arch=arm64",
		Args:    argsBetween(2, 2, "a pipeline's name and a channel"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.channelHistory(cmd.Context(), args[0], cell, args[1], asJSON)
		},
	}
	cmd.Flags().StringVar(&cell, "cell", "", "the `COMBINATION` of the matrix, such as arch=arm64")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the history as JSON")
	return cmd
}

type jsonMove struct {
	From string    `json:"from,omitempty"`
	To   string    `json:"to"`
	At   time.Time `json:"at"`
	By   string    `json:"by"`
	Why  string    `json:"why,omitempty"`
}

func (a *app) channelHistory(ctx context.Context, pipeline, cell, name string, asJSON bool) error {
	return a.withEngine(ctx, func(e *engine.Engine) error {
		moves, err := e.Catalog().History(ctx, pipeline, cell, name)
		if err != nil {
			return err
		}
		if len(moves) == 0 {
			return invalid("%s has no channel %q; \"gild channel list %s\" shows what there is", pipelineName(pipeline, cell), name, pipeline)
		}
		out := []jsonMove{}
		var rows [][]string
		for _, m := range moves {
			out = append(out, jsonMove{m.From, m.To, m.At, m.By, m.Why})
			rows = append(rows, []string{when(m.At), m.To, dash(m.From), m.By, dash(m.Why)})
		}
		if asJSON {
			return a.printJSON(out)
		}
		return a.printTable("", []string{"AT", "IMAGE", "BEFORE", "BY", "WHY"}, rows)
	})
}

// pipelineName names one combination of a pipeline's matrix.
func pipelineName(pipeline, cell string) string {
	if cell == "" {
		return pipeline
	}
	return pipeline + "[" + cell + "]"
}
