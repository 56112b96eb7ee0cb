package catalog_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/catalog"
	"github.com/gildhq/gild/engine/step"
)

const day = 24 * time.Hour

// aged is an image of pipeline web that is as many days old.
func aged(id string, days int) catalog.Image {
	return catalog.Image{ID: id, Pipeline: "web", Created: noon.Add(-time.Duration(days) * day)}
}

func TestRetainable(t *testing.T) {
	t.Parallel()
	four := []catalog.Image{aged("a", 1), aged("b", 10), aged("c", 100), aged("d", 1000)}
	with := func(i int, change func(*catalog.Image)) []catalog.Image {
		images := slices.Clone(four)
		change(&images[i])
		return images
	}
	tests := map[string]struct {
		images   []catalog.Image
		channels []catalog.Channel
		rule     step.RetainRule
		gone     map[string]string
		kept     map[string]string
	}{
		"no rule": {
			images: four,
			kept:   map[string]string{"a": "it is the newest", "b": "no rule lets it go", "c": "no rule lets it go", "d": "no rule lets it go"},
		},
		"keep": {
			images: four, rule: step.RetainRule{Keep: 2},
			kept: map[string]string{"a": "it is the newest", "b": "it is one of the newest 2"},
			gone: map[string]string{"c": "2 builds are newer and the newest 2 stay", "d": "3 builds are newer and the newest 2 stay"},
		},
		"max-age overrides keep, not the newest": {
			images: four[2:], rule: step.RetainRule{Keep: 5, MaxAge: 30 * day},
			kept: map[string]string{"c": "it is the newest"},
			gone: map[string]string{"d": "it is older than 30d"},
		},
		"min-age overrides both": {
			images: four, rule: step.RetainRule{Keep: 1, MaxAge: 5 * day, MinAge: 36 * time.Hour * 10},
			kept: map[string]string{"a": "it is the newest", "b": "it is younger than 15d"},
			gone: map[string]string{"c": "it is older than 5d", "d": "it is older than 5d"},
		},
		"channel": {
			images: four, rule: step.RetainRule{Keep: 1},
			channels: []catalog.Channel{{Pipeline: "web", Name: "stable", Image: "c"}, {Pipeline: "web", Name: "beta", Image: "c"}},
			kept:     map[string]string{"a": "it is the newest", "c": "channel web@beta points to it"},
			gone:     map[string]string{"b": "1 build is newer and the newest 1 stays", "d": "3 builds are newer and the newest 1 stays"},
		},
		"parent, also of an image that goes": {
			images: with(2, func(i *catalog.Image) { i.Parent = "d" }), rule: step.RetainRule{Keep: 2},
			kept: map[string]string{"a": "it is the newest", "b": "it is one of the newest 2", "d": "image c was built from it"},
			gone: map[string]string{"c": "2 builds are newer and the newest 2 stay"},
		},
		"parent of a retired image": {
			images: with(0, func(i *catalog.Image) { i.Parent, i.Retired = "d", noon }), rule: step.RetainRule{Keep: 2},
			kept: map[string]string{"b": "it is the newest", "c": "it is one of the newest 2"},
			gone: map[string]string{"d": "2 builds are newer and the newest 2 stay"},
		},
		"other cells and pipelines count apart": {
			images: append(with(1, func(i *catalog.Image) { i.Cell = "arch=arm64" })[:3], catalog.Image{ID: "x", Pipeline: "db", Created: noon}),
			rule:   step.RetainRule{Keep: 1},
			kept:   map[string]string{"a": "it is the newest", "b": "it is the newest", "x": "it is the newest"},
			gone:   map[string]string{"c": "1 build is newer and the newest 1 stays"},
		},
		"deprecated": {
			images: with(1, func(i *catalog.Image) { i.DeprecateAt = noon.Add(-day) })[:2], rule: step.RetainRule{Keep: 2},
			kept: map[string]string{"a": "it is the newest", "b": "it is one of the newest 2 (deprecated since 2026-11-19)"},
		},
		"same age": {
			images: []catalog.Image{{ID: "a", Build: 1, Created: noon}, {ID: "b", Build: 3, Created: noon}, {ID: "c", Build: 2, Created: noon}},
			rule:   step.RetainRule{Keep: 1},
			kept:   map[string]string{"b": "it is the newest"},
			gone:   map[string]string{"c": "1 build is newer and the newest 1 stays", "a": "2 builds are newer and the newest 1 stays"},
		},
		"nothing": {},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gone, kept := catalog.Retainable(tt.images, tt.channels, tt.rule, noon)
			if diff := cmp.Diff(tt.gone, reasons(gone)); diff != "" {
				t.Errorf("gone (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.kept, reasons(kept)); diff != "" {
				t.Errorf("kept (-want +got):\n%s", diff)
			}
		})
	}
}

func reasons(decisions []catalog.Decision) map[string]string {
	if decisions == nil {
		return nil
	}
	m := map[string]string{}
	for _, d := range decisions {
		m[d.Image.ID] = d.Reason
	}
	return m
}

// Whatever the images, channels and rule: each live image is decided once and with a reason, the
// order of the input is without effect, and what is needed stays.
func TestRetainableProperties(t *testing.T) {
	t.Parallel()
	for seed := range uint64(1000) {
		r := rand.New(rand.NewPCG(seed, 7))
		images, channels := randomImages(r)
		rule := step.RetainRule{Keep: r.IntN(5), MaxAge: time.Duration(r.IntN(50)) * day, MinAge: time.Duration(r.IntN(20)) * day}
		gone, kept := catalog.Retainable(images, channels, rule, noon)
		checkNeededStay(t, images, channels, rule, gone)
		checkAllDecided(t, images, gone, kept)

		r.Shuffle(len(images), func(i, j int) { images[i], images[j] = images[j], images[i] })
		r.Shuffle(len(channels), func(i, j int) { channels[i], channels[j] = channels[j], channels[i] })
		gone2, kept2 := catalog.Retainable(images, channels, rule, noon)
		if diff := cmp.Diff([][]catalog.Decision{gone, kept}, [][]catalog.Decision{gone2, kept2}); diff != "" {
			t.Errorf("another order of the input (-want +got):\n%s", diff)
		}
		if t.Failed() {
			t.Fatalf("with seed %d", seed)
		}
	}
}

func randomImages(r *rand.Rand) (images []catalog.Image, channels []catalog.Channel) {
	for i := range r.IntN(14) {
		img := aged(fmt.Sprint("img-", i), r.IntN(40)-2)
		img.Build = i
		img.Pipeline = []string{"web", "db"}[r.IntN(2)]
		img.Cell = []string{"", "arch=arm64"}[r.IntN(2)]
		if r.IntN(4) == 0 {
			img.Retired = noon
		}
		if r.IntN(3) == 0 && i > 0 {
			img.Parent = images[r.IntN(i)].ID
		}
		images = append(images, img)
		if r.IntN(4) == 0 {
			channels = append(channels, catalog.Channel{Pipeline: img.Pipeline, Cell: img.Cell, Name: "c" + fmt.Sprint(i), Image: img.ID})
		}
	}
	return images, channels
}

func checkNeededStay(t *testing.T, images []catalog.Image, channels []catalog.Channel, rule step.RetainRule, gone []catalog.Decision) {
	t.Helper()
	for _, d := range gone {
		newest := true
		for _, img := range images {
			if img.Live() && img.Parent == d.Image.ID {
				t.Errorf("%s goes, the parent of %s", d.Image.ID, img.ID)
			}
			later := img.Created.After(d.Image.Created) || (img.Created.Equal(d.Image.Created) && img.Build > d.Image.Build)
			if img.Live() && img.Pipeline == d.Image.Pipeline && img.Cell == d.Image.Cell && later {
				newest = false
			}
		}
		if newest {
			t.Errorf("%s goes, the newest", d.Image.ID)
		}
		for _, ch := range channels {
			if ch.Image == d.Image.ID {
				t.Errorf("%s goes, to which %s points", d.Image.ID, ch.Name)
			}
		}
		if noon.Sub(d.Image.Created) < rule.MinAge {
			t.Errorf("%s goes, younger than %v", d.Image.ID, rule.MinAge)
		}
	}
}

func checkAllDecided(t *testing.T, images []catalog.Image, gone, kept []catalog.Decision) {
	t.Helper()
	seen := map[string]int{}
	for _, d := range append(slices.Clone(gone), kept...) {
		seen[d.Image.ID]++
		if d.Reason == "" {
			t.Errorf("no reason for %s", d.Image.ID)
		}
	}
	for _, img := range images {
		if want := map[bool]int{true: 1, false: 0}[img.Live()]; seen[img.ID] != want {
			t.Errorf("%s (live %v) was decided %d times", img.ID, img.Live(), seen[img.ID])
		}
	}
}

func TestRetention(t *testing.T) {
	t.Parallel()
	c := fresh(t)
	one := publish(t, c, image("base", "", "1.0.0", 1), "")
	two := publish(t, c, image("base", "", "1.0.0", 2), "")
	three := publish(t, c, image("base", "", "1.0.0", 3), "")
	publish(t, c, image("base", "arch=arm64", "1.0.0", 4), "")
	child := image("web", "", "1.0.0", 5)
	child.Parent = one.ID
	publish(t, c, child, "")
	publish(t, c, image("web", "", "1.0.0", 6), "")
	gone, kept, err := c.Retention(t.Context(), "base", "", step.RetainRule{Keep: 1}, noon.Add(day))
	must(t, err)
	if len(gone) != 1 || gone[0].Image.ID != two.ID || len(kept) != 2 || kept[0].Image.ID != three.ID || kept[1].Image.ID != one.ID {
		t.Errorf("gone %v\nkept %v", reasons(gone), reasons(kept))
	}
	for _, d := range gone {
		must(t, c.Retire(t.Context(), d.Image.ID, d.Reason, noon))
	}
}
