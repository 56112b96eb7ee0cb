package catalog

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/gildhq/gild/engine/sqlite"
)

// latest is the selector that means the newest image, unless there is a channel of this name.
const latest = "latest"

// Get returns the image that a reference names:
//
//	img-0123456789ab       its id, or the beginning of it if no other id begins so
//	web                    the newest image of a pipeline, or of a published name
//	web@stable             the image that a channel points to; "latest" means the newest
//	web@1.4.0              the newest build of a release
//	web@1.4.0+3            one build of a release
//	web[arch=arm64]@stable any of these, within one combination of the matrix
//
// Between brackets it is enough to give the values that tell the combinations apart; "[]" means
// images made without a matrix. Retired images are found by id and by build number only. The
// error wraps [ErrNotFound], with proposals, when nothing is found or several combinations could be meant.
func (c *Catalog) Get(ctx context.Context, ref string) (Image, error) {
	var img Image
	err := c.db.Read(ctx, func(tx *sqlite.Tx) (err error) {
		if strings.HasPrefix(ref, "img-") {
			img, err = byID(tx, ref)
		} else {
			img, err = byName(tx, ref)
		}
		return err
	})
	if err != nil {
		return Image{}, fmt.Errorf("find image %q: %w", ref, err)
	}
	return img, nil
}

// byID finds an image by its id or the beginning of it.
func byID(tx *sqlite.Tx, id string) (Image, error) {
	images, err := selectImages(tx, `WHERE substr(id, 1, length(?1)) = ?1 ORDER BY id LIMIT 4`, id)
	switch {
	case err != nil:
		return Image{}, err
	case len(images) == 0:
		return Image{}, fmt.Errorf("%w (gild images lists what is)", ErrNotFound)
	case len(images) > 1:
		var ids []string
		for _, img := range images {
			ids = append(ids, img.ID)
		}
		return Image{}, fmt.Errorf("%w under this beginning alone: it could be any of %s", ErrNotFound, strings.Join(ids, ", "))
	}
	return images[0], nil
}

// reference is a parsed reference by name.
type reference struct {
	name string
	// cell holds the pairs between the brackets; inCell tells "[]" from no brackets.
	cell   []string
	inCell bool
	// selector is what follows the @, or empty.
	selector string
}

func parseReference(text string) (reference, error) {
	var r reference
	r.name, r.selector, _ = strings.Cut(text, "@")
	if name, rest, ok := strings.Cut(text, "["); ok {
		cell, after, closed := strings.Cut(rest, "]")
		selector, at := strings.CutPrefix(after, "@")
		if !closed || (after != "" && !at) {
			return reference{}, fmt.Errorf("%w: a reference is written like web, web@stable or web[arch=arm64]@1.4.0+3", ErrNotFound)
		}
		r = reference{name: name, inCell: true, selector: selector}
		if cell != "" {
			r.cell = strings.Split(cell, ",")
		}
	}
	return r, nil
}

// matches tells whether an image's cell has all the pairs of the reference.
func (r reference) matches(cell string) bool {
	if !r.inCell {
		return true
	}
	if len(r.cell) == 0 {
		return cell == ""
	}
	pairs := strings.Split(cell, ",")
	for _, p := range r.cell {
		if !slices.Contains(pairs, strings.TrimSpace(p)) {
			return false
		}
	}
	return true
}

// byName finds an image by a pipeline's name or, when no pipeline is called so, a published one.
func byName(tx *sqlite.Tx, text string) (Image, error) {
	ref, err := parseReference(text)
	if err != nil {
		return Image{}, err
	}
	images, err := selectImages(tx, `WHERE pipeline = ?`+newestFirst, ref.name)
	if err == nil && len(images) == 0 {
		images, err = selectImages(tx, `WHERE name = ?`+newestFirst, ref.name)
	}
	if err != nil {
		return Image{}, err
	}
	channels, err := selectChannels(tx, "")
	if err != nil {
		return Image{}, err
	}
	images = slices.DeleteFunc(images, func(img Image) bool { return !ref.matches(img.Cell) })
	chosen := choose(images, channels, ref.selector)
	if len(chosen) == 0 {
		return Image{}, notFound(tx, text, images, channels)
	}
	if lines := linesOf(chosen); len(lines) > 1 {
		return Image{}, fmt.Errorf("%w under this name alone: it could be any of %s", ErrNotFound, strings.Join(lines, ", "))
	}
	return chosen[0], nil
}

// choose returns the images that a selector means, in the order given.
func choose(images []Image, channels []Channel, selector string) []Image {
	pointed := map[string]bool{}
	for _, ch := range channels {
		pointed[ch.Image] = pointed[ch.Image] || ch.Name == selector
	}
	for _, want := range []func(Image) bool{
		func(img Image) bool { return pointed[img.ID] },
		func(img Image) bool { return img.Live() && (selector == "" || selector == latest) },
		func(img Image) bool { return img.Live() && img.Release == selector },
		func(img Image) bool { return releaseBuild(img) == selector },
	} {
		var chosen []Image
		for _, img := range images {
			if want(img) {
				chosen = append(chosen, img)
			}
		}
		if len(chosen) > 0 {
			return chosen
		}
	}
	return nil
}

func releaseBuild(img Image) string { return img.Release + "+" + strconv.Itoa(img.Build) }

// linesOf returns the pipelines and cells of images, sorted.
func linesOf(images []Image) []string {
	var lines []string
	for _, img := range images {
		lines = append(lines, line(img.Pipeline, img.Cell))
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}

// notFound proposes what may have been meant: of the images with the right name, if there are any.
func notFound(tx *sqlite.Tx, text string, named []Image, channels []Channel) error {
	what := "the catalog has"
	if len(named) == 0 {
		all, err := selectImages(tx, `WHERE retired = 0`+newestFirst)
		if err != nil {
			return err
		}
		if len(all) == 0 {
			return fmt.Errorf("%w: it holds no image yet; gild build publishes them", ErrNotFound)
		}
		named = all
	} else {
		what = strings.Join(linesOf(named), ", ") + " has"
	}
	known := references(named, channels)
	if near := closest(text, known); len(near) > 0 {
		return fmt.Errorf("%w; did you mean %s?", ErrNotFound, strings.Join(near, " or "))
	}
	return fmt.Errorf("%w; %s %s", ErrNotFound, what, strings.Join(known[:min(len(known), proposals)], ", "))
}

// references lists the ways to name live images, sorted.
func references(images []Image, channels []Channel) []string {
	var refs []string
	cells := map[string]string{}
	for _, img := range images {
		if !img.Live() {
			continue
		}
		at := line(img.Pipeline, img.Cell)
		cells[img.ID] = at
		refs = append(refs, at, at+"@"+img.Release, at+"@"+releaseBuild(img), img.Name)
	}
	for _, ch := range channels {
		if at, ok := cells[ch.Image]; ok {
			refs = append(refs, at+"@"+ch.Name)
		}
	}
	slices.Sort(refs)
	return slices.Compact(refs)
}
