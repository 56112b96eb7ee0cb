package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gildhq/gild/cmd/gild/ui"
	"github.com/gildhq/gild/engine"
	"github.com/gildhq/gild/engine/catalog"
)

// referenceHelp explains how images are named on the command line.
const referenceHelp = `An IMAGE is named by its id or the start of it, or as PIPELINE, PIPELINE@CHANNEL,
PIPELINE@RELEASE or PIPELINE@RELEASE+BUILD; PIPELINE[arch=arm64]@... names one
combination of a matrix.`

func (a *app) showCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show IMAGE",
		Short: "Show all that is known of an image",
		Long:  "Show prints an image's files, digests, copies, channels, parent and children.\n\n" + referenceHelp,
		Example: `  gild show web@stable
  gild show img-0123456789ab --json`,
		Args: argsBetween(1, 1, "an image"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.show(cmd.Context(), args[0], asJSON) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the image as JSON")
	return cmd
}

func (a *app) show(ctx context.Context, ref string, asJSON bool) error {
	return a.withEngine(ctx, func(e *engine.Engine) error {
		image, err := e.Catalog().Get(ctx, ref)
		if err != nil {
			return err
		}
		channels, err := channelsByImage(ctx, e.Catalog())
		if err != nil {
			return err
		}
		children, err := e.Catalog().Children(ctx, image.ID)
		if err != nil {
			return err
		}
		if asJSON {
			out := catalogImageJSON(image, channels[image.ID])
			for _, c := range children {
				out.Children = append(out.Children, c.ID)
			}
			return a.printJSON(out)
		}
		return a.print(ui.Table(showRows(image, channels[image.ID], children)))
	})
}

func showRows(image catalog.Image, channels []string, children []catalog.Image) [][]string {
	var rows [][]string
	add := func(name, value string) {
		if value != "" {
			rows = append(rows, []string{name, value})
		}
	}
	add("id", image.ID)
	add("name", image.Name)
	add("pipeline", image.Pipeline)
	add("matrix", image.Cell)
	add("release", image.Release)
	add("build", fmt.Sprint(image.Build))
	add("arch", image.Arch)
	add("state", imageState(image))
	add("channels", strings.Join(channels, ", "))
	add("created", when(image.Created))
	if !image.DeprecateAt.IsZero() {
		add("deprecated", "from "+when(image.DeprecateAt))
	}
	add("base", image.Base)
	add("parent", image.Parent)
	for _, c := range children {
		add("child", c.ID+" "+c.Name)
	}
	add("run", image.Run)
	add("key", image.Key)
	for _, f := range image.Files {
		add(f.Format, f.Path)
		add("  sha-256", f.SHA256)
		add("  size", fmt.Sprintf("%s, %s on disk", ui.Size(f.Size), ui.Size(f.Allocated)))
	}
	for _, c := range image.Copies {
		add("copy", c.Region+": "+c.Location)
	}
	for _, name := range sortedKeys(image.Tags) {
		add("tag", name+"="+image.Tags[name])
	}
	return rows
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// jsonCatalogImage is the form in which images and show print an image as JSON.
type jsonCatalogImage struct {
	ID          string            `json:"id"`
	Name        string            `json:"name"`
	Pipeline    string            `json:"pipeline"`
	Cell        string            `json:"cell"`
	Release     string            `json:"release"`
	Build       int               `json:"build"`
	Arch        string            `json:"arch"`
	Key         string            `json:"key"`
	Created     time.Time         `json:"created"`
	Size        int64             `json:"size"`
	Files       []catalog.File    `json:"files"`
	Channels    []string          `json:"channels"`
	Copies      []jsonCopy        `json:"copies"`
	Base        string            `json:"base"`
	Parent      string            `json:"parent,omitempty"`
	Children    []string          `json:"children,omitempty"`
	Tags        map[string]string `json:"tags"`
	Run         string            `json:"run"`
	DeprecateAt *time.Time        `json:"deprecate_at,omitempty"`
	Retired     *time.Time        `json:"retired,omitempty"`
	RetiredWhy  string            `json:"retired_why,omitempty"`
}

type jsonCopy struct {
	Region   string `json:"region"`
	Location string `json:"location"`
}

func catalogImageJSON(image catalog.Image, channels []string) jsonCatalogImage {
	out := jsonCatalogImage{
		ID: image.ID, Name: image.Name, Pipeline: image.Pipeline, Cell: image.Cell, Release: image.Release,
		Build: image.Build, Arch: image.Arch, Key: image.Key, Created: image.Created, Size: image.Size,
		Files: image.Files, Channels: orEmpty(channels), Copies: []jsonCopy{}, Base: image.Base, Parent: image.Parent,
		Tags: image.Tags, Run: image.Run, DeprecateAt: timeOrNil(image.DeprecateAt), Retired: timeOrNil(image.Retired),
		RetiredWhy: image.RetiredWhy,
	}
	if out.Files == nil {
		out.Files = []catalog.File{}
	}
	if out.Tags == nil {
		out.Tags = map[string]string{}
	}
	for _, c := range image.Copies {
		out.Copies = append(out.Copies, jsonCopy{c.Region, c.Location})
	}
	return out
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
