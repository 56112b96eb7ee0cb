package main

import (
	"fmt"

	"github.com/gildhq/gild/cmd/gild/ui"
	"github.com/gildhq/gild/engine"
	"github.com/gildhq/gild/engine/step"
)

// outcome is what the end table tells beside the steps.
func outcome(r *engine.Report, channels map[string][]string) ui.Outcome {
	out := ui.Outcome{Locks: r.Locks}
	for _, image := range r.Images {
		if len(image.Info.Files) > 0 || image.Published != nil {
			out.Images = append(out.Images, tableImage(image, channels))
		}
	}
	for _, gone := range r.Retired {
		out.Retired = append(out.Retired, fmt.Sprintf("%s build %d: %s", gone.Name, gone.Build, gone.Reason))
	}
	return out
}

func tableImage(image engine.ImageReport, channels map[string][]string) ui.Image {
	out := ui.Image{Name: image.Name}
	for _, f := range image.Info.Files {
		out.Files = append(out.Files, ui.File{Format: f.Format, Path: f.Path, SHA256: f.SHA256, Size: f.Size, Allocated: f.Allocated})
	}
	if p := image.Published; p != nil {
		out.Name, out.Release, out.Build, out.Channels = p.Name, p.Release, p.Build, channels[p.ID]
		for _, c := range p.Copies {
			out.Copies = append(out.Copies, ui.Copy{Region: c.Region, Location: c.Location})
		}
	}
	return out
}

// jsonReport is the form in which build and resume print how a run ended.
type jsonReport struct {
	Run       string            `json:"run"`
	State     string            `json:"state"`
	ExitCode  int               `json:"exit_code"`
	ElapsedMS int64             `json:"elapsed_ms"`
	First     string            `json:"first_failure,omitempty"`
	Nodes     []jsonNodeReport  `json:"nodes"`
	Images    []jsonImageReport `json:"images"`
	Retired   []jsonRetired     `json:"retired"`
	Leftovers []jsonLeftover    `json:"leftovers"`
	Locks     []string          `json:"locks"`
}

type jsonNodeReport struct {
	ID        string `json:"id"`
	Title     string `json:"title"`
	Place     string `json:"place,omitempty"`
	State     string `json:"state"`
	Reason    string `json:"reason,omitempty"`
	Error     string `json:"error,omitempty"`
	ElapsedMS int64  `json:"elapsed_ms"`
	LogPath   string `json:"log_path,omitempty"`
}

type jsonImageReport struct {
	Name      string            `json:"name"`
	Built     bool              `json:"built"`
	Files     []jsonFile        `json:"files"`
	Published *jsonCatalogImage `json:"published"`
}

type jsonFile struct {
	Format    string `json:"format"`
	Path      string `json:"path"`
	SHA256    string `json:"sha256"`
	Size      int64  `json:"size"`
	Allocated int64  `json:"allocated"`
}

type jsonLeftover struct {
	Kind  string `json:"kind"`
	ID    string `json:"id"`
	Note  string `json:"note,omitempty"`
	Node  string `json:"node,omitempty"`
	Error string `json:"error,omitempty"`
}

func reportJSON(r *engine.Report, channels map[string][]string) jsonReport {
	out := jsonReport{
		Run: r.Run, State: string(r.State), ExitCode: r.ExitCode, ElapsedMS: r.Elapsed.Milliseconds(), First: r.First,
		Nodes: []jsonNodeReport{}, Images: []jsonImageReport{}, Retired: retiredJSON(r.Retired),
		Leftovers: leftoversJSON(r.Leftovers), Locks: orEmpty(r.Locks),
	}
	for _, n := range r.Nodes {
		node := jsonNodeReport{
			ID: n.ID, Title: n.Title, Place: n.Place, State: string(n.State), Reason: n.Reason,
			ElapsedMS: n.Elapsed.Milliseconds(), LogPath: n.LogPath,
		}
		if n.Err != nil {
			node.Error = n.Err.Error()
		}
		out.Nodes = append(out.Nodes, node)
	}
	for _, image := range r.Images {
		i := jsonImageReport{Name: image.Name, Built: image.Built, Files: []jsonFile{}}
		for _, f := range image.Info.Files {
			i.Files = append(i.Files, jsonFile{f.Format, f.Path, f.SHA256, f.Size, f.Allocated})
		}
		if image.Published != nil {
			p := catalogImageJSON(*image.Published, channels[image.Published.ID])
			i.Published = &p
		}
		out.Images = append(out.Images, i)
	}
	return out
}

func retiredJSON(retired []step.Retired) []jsonRetired {
	out := []jsonRetired{}
	for _, r := range retired {
		out = append(out, jsonRetired{r.ID, r.Name, r.Build, r.Reason})
	}
	return out
}
