package catalog

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/gildhq/gild/engine/sqlite"
	"github.com/gildhq/gild/engine/step"
)

// Decision is what retention says about one image, and why.
type Decision struct {
	Image  Image
	Reason string
}

// Retention applies a rule to the images of one pipeline and cell, with the whole catalog in view:
// what other pipelines built from them stays. Both lists are newest first.
func (c *Catalog) Retention(ctx context.Context, pipeline, cell string, rule step.RetainRule, now time.Time) (gone, kept []Decision, err error) {
	var images []Image
	var channels []Channel
	err = c.db.Read(ctx, func(tx *sqlite.Tx) error {
		if images, err = selectImages(tx, `WHERE retired = 0`); err != nil {
			return err
		}
		channels, err = selectChannels(tx, "")
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("decide what to retain of %s: %w", line(pipeline, cell), err)
	}
	other := func(d Decision) bool { return d.Image.Pipeline != pipeline || d.Image.Cell != cell }
	gone, kept = Retainable(images, channels, rule, now)
	return slices.DeleteFunc(gone, other), slices.DeleteFunc(kept, other), nil
}

// Retainable decides for every live image whether the rule lets it go. The rule is applied to each
// pipeline and cell apart. An image stays when a channel points to it, when a live image was
// built from it, when it is the newest of its pipeline and cell, or when it is younger than
// MinAge, whatever else the rule says. Retired images are in neither list; both lists are newest
// first and don't depend on the order of what is given.
func Retainable(images []Image, channels []Channel, rule step.RetainRule, now time.Time) (gone, kept []Decision) {
	v := newRetentionView(images, channels)
	rank := map[[2]string]int{}
	for _, img := range v.live {
		group := [2]string{img.Pipeline, img.Cell}
		reason, goes := v.decide(img, rank[group], rule, now)
		rank[group]++
		if goes {
			gone = append(gone, Decision{img, reason})
		} else {
			kept = append(kept, Decision{img, reason})
		}
	}
	return gone, kept
}

// retentionView is what a decision depends on besides the image and the rule.
type retentionView struct {
	// live holds the live images, newest first.
	live []Image
	// channel and child name one channel and one live child of an image, by its id.
	channel, child map[string]string
}

func newRetentionView(images []Image, channels []Channel) retentionView {
	v := retentionView{channel: map[string]string{}, child: map[string]string{}}
	for _, img := range images {
		if !img.Live() {
			continue
		}
		v.live = append(v.live, img)
		if img.Parent != "" && (v.child[img.Parent] == "" || img.ID < v.child[img.Parent]) {
			v.child[img.Parent] = img.ID
		}
	}
	for _, ch := range channels {
		name := line(ch.Pipeline, ch.Cell) + "@" + ch.Name
		if v.channel[ch.Image] == "" || name < v.channel[ch.Image] {
			v.channel[ch.Image] = name
		}
	}
	slices.SortFunc(v.live, func(a, b Image) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(b.Build, a.Build), cmp.Compare(b.ID, a.ID))
	})
	return v
}

// decide judges one image; rank is how many newer ones its pipeline and cell have.
func (v retentionView) decide(img Image, rank int, rule step.RetainRule, now time.Time) (reason string, goes bool) {
	age := now.Sub(img.Created)
	switch {
	case v.channel[img.ID] != "":
		reason = fmt.Sprintf("channel %s points to it", v.channel[img.ID])
	case v.child[img.ID] != "":
		reason = fmt.Sprintf("image %s was built from it", v.child[img.ID])
	case rank == 0:
		reason = "it is the newest"
	case rule.MinAge > 0 && age < rule.MinAge:
		reason = fmt.Sprintf("it is younger than %s", span(rule.MinAge))
	case rule.MaxAge > 0 && age > rule.MaxAge:
		return fmt.Sprintf("it is older than %s", span(rule.MaxAge)), true
	case rule.Keep > 0 && rank >= rule.Keep:
		return tooMany(rank, rule.Keep), true
	case rule.Keep > 0:
		reason = fmt.Sprintf("it is one of the newest %d", rule.Keep)
	default:
		reason = "no rule lets it go"
	}
	if !img.DeprecateAt.IsZero() && !now.Before(img.DeprecateAt) {
		reason += fmt.Sprintf(" (deprecated since %s)", img.DeprecateAt.Format(time.DateOnly))
	}
	return reason, false
}

func tooMany(newer, keep int) string {
	builds, stay := "builds are", "stay"
	if newer == 1 {
		builds = "build is"
	}
	if keep == 1 {
		stay = "stays"
	}
	return fmt.Sprintf("%d %s newer and the newest %d %s", newer, builds, keep, stay)
}

// span writes a duration as the pipeline file does: in days where that is exact.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	if d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	return d.String()
}
