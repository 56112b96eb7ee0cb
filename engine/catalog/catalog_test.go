package catalog_test

import (
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/gildhq/gild/engine/catalog"
	"github.com/gildhq/gild/engine/sqlite"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 123456789, time.UTC)

func open(t testing.TB, path string) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func fresh(t testing.TB) *catalog.Catalog {
	t.Helper()
	return open(t, filepath.Join(t.TempDir(), "gild.db"))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// image describes the nth image of a pipeline and cell, an hour younger than the one before.
func image(pipeline, cell, release string, n int) catalog.Image {
	return catalog.Image{
		Name: pipeline + "-" + release, Pipeline: pipeline, Cell: cell, Release: release,
		PublishKey: fmt.Sprint(pipeline, cell, release, n), Created: noon.Add(time.Duration(n) * time.Hour), Run: fmt.Sprint("run-", n),
	}
}

func publish(t testing.TB, c *catalog.Catalog, img catalog.Image, channel string) catalog.Image {
	t.Helper()
	got, err := c.Publish(t.Context(), img, channel)
	must(t, err)
	return got
}

func ids(images []catalog.Image) (list []string) {
	for _, img := range images {
		list = append(list, img.ID)
	}
	return list
}

func TestPublish(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "gild.db")
	c := open(t, path)
	given := catalog.Image{
		Name: "web-1.4.0-amd64", Pipeline: "web", Cell: "arch=amd64", Release: "1.4.0", Key: "disk", PublishKey: "publish", Arch: "amd64",
		Created: noon, Size: 2 << 30, Files: []catalog.File{{Format: "raw", Path: "/x.raw", SHA256: "abc", Size: 2 << 30, Allocated: 1 << 20}},
		Parent: "img-000000000000", Tags: map[string]string{"team": "web"}, DeprecateAt: noon.AddDate(0, 3, 0), Run: "run-1", Base: "debian bookworm",
	}
	got := publish(t, c, given, "")
	if !regexp.MustCompile(`^img-[0-9a-f]{12}$`).MatchString(got.ID) {
		t.Errorf("got id %q", got.ID)
	}
	want := given
	want.ID, want.Build = got.ID, 1
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("published (-want +got):\n%s", diff)
	}
	must(t, c.Close())
	stored, ok, err := open(t, path).ByPublishKey(t.Context(), "publish")
	if diff := cmp.Diff(want, stored); diff != "" || !ok || err != nil {
		t.Errorf("stored: ok %v, error %v (-want +got):\n%s", ok, err, diff)
	}
}

func TestPublishAgainChangesNothing(t *testing.T) {
	t.Parallel()
	c := fresh(t)
	img := image("web", "", "1.0.0", 1)
	first := publish(t, c, img, "stable")
	img.Run, img.Created, img.Name = "run-2", noon.Add(9*time.Hour), "renamed"
	if diff := cmp.Diff(first, publish(t, c, img, "stable")); diff != "" {
		t.Errorf("the second time (-want +got):\n%s", diff)
	}
	moves, err := c.History(t.Context(), "web", "", "stable")
	must(t, err)
	want := []catalog.Move{{To: first.ID, At: first.Created, By: "run-1", Why: "published"}}
	if diff := cmp.Diff(want, moves); diff != "" {
		t.Errorf("history (-want +got):\n%s", diff)
	}
	img.Pipeline = "other"
	if _, err := c.Publish(t.Context(), img, ""); err == nil || !strings.Contains(err.Error(), "its publish key is that of "+first.ID) {
		t.Errorf("another pipeline's image with the same publish key: got error %v", err)
	}
	if _, err := c.Publish(t.Context(), catalog.Image{Pipeline: "web"}, ""); err == nil {
		t.Error("an image without a publish key was taken")
	}
}

func TestPublishAnEarlierImageMovesTheChannelBack(t *testing.T) {
	t.Parallel()
	c := fresh(t)
	one, two := image("web", "", "1.0.0", 1), image("web", "", "1.0.0", 2)
	first := publish(t, c, one, "stable")
	publish(t, c, two, "stable")
	publish(t, c, one, "stable")
	if got, err := c.Get(t.Context(), "web@stable"); err != nil || got.ID != first.ID {
		t.Errorf("got %s, %v; want %s", got.ID, err, first.ID)
	}
}

func TestPublishRevivesARetiredImage(t *testing.T) {
	t.Parallel()
	c := fresh(t)
	img := image("web", "", "1.0.0", 1)
	first := publish(t, c, img, "")
	must(t, c.AddCopy(t.Context(), first.ID, catalog.Copy{Region: "a", Location: "/a", At: noon}))
	publish(t, c, image("web", "", "1.0.0", 2), "")
	must(t, c.Retire(t.Context(), first.ID, "old", noon))
	img.Created, img.Run, img.Files = noon.Add(5*time.Hour), "run-5", []catalog.File{{Format: "raw"}}
	want := first
	want.Created, want.Run, want.Files = img.Created, img.Run, img.Files
	if diff := cmp.Diff(want, publish(t, c, img, "stable")); diff != "" {
		t.Errorf("revived (-want +got):\n%s", diff)
	}
}

func TestBuildsCountWithinARelease(t *testing.T) {
	t.Parallel()
	c := fresh(t)
	for i, want := range []struct {
		cell, release string
		build         int
	}{
		{"", "1.0.0", 1}, {"", "1.0.0", 2}, {"", "1.1.0", 1}, {"a=b", "1.0.0", 1}, {"", "1.0.0", 3}, {"a=b", "1.0.0", 2},
	} {
		got := publish(t, c, image("web", want.cell, want.release, i), "")
		if got.Build != want.build {
			t.Errorf("image %d of cell %q, release %s has build %d, want %d", i, want.cell, want.release, got.Build, want.build)
		}
		if i == 1 {
			must(t, c.Retire(t.Context(), got.ID, "its number stays taken", noon))
		}
	}
}

func TestChannels(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := fresh(t)
	amd1 := publish(t, c, image("web", "arch=amd64", "1.0.0", 1), "stable")
	arm := publish(t, c, image("web", "arch=arm64", "1.0.0", 2), "stable")
	amd2 := publish(t, c, image("web", "arch=amd64", "1.0.0", 3), "stable")
	other := publish(t, c, image("db", "", "1.0.0", 4), "beta")

	must(t, c.MoveChannel(ctx, "web", "arch=amd64", "stable", amd1.ID, "user", "it was better"))
	must(t, c.MoveChannel(ctx, "web", "arch=amd64", "stable", amd1.ID, "user", "again"))
	got, err := c.Channels(ctx, "")
	must(t, err)
	want := []catalog.Channel{
		{Pipeline: "db", Name: "beta", Image: other.ID},
		{Pipeline: "web", Cell: "arch=amd64", Name: "stable", Image: amd1.ID},
		{Pipeline: "web", Cell: "arch=arm64", Name: "stable", Image: arm.ID},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(catalog.Channel{}, "Moved")); diff != "" {
		t.Errorf("channels (-want +got):\n%s", diff)
	}
	got, err = c.Channels(ctx, "web")
	must(t, err)
	if len(got) != 2 || got[1].Moved != arm.Created {
		t.Errorf("channels of web: %v", got)
	}

	moves, err := c.History(ctx, "web", "arch=amd64", "stable")
	must(t, err)
	wantMoves := []catalog.Move{
		{From: amd2.ID, To: amd1.ID, By: "user", Why: "it was better"},
		{From: amd1.ID, To: amd2.ID, By: "run-3", Why: "published"},
		{To: amd1.ID, By: "run-1", Why: "published"},
	}
	if diff := cmp.Diff(wantMoves, moves, cmpopts.IgnoreFields(catalog.Move{}, "At")); diff != "" {
		t.Errorf("history (-want +got):\n%s", diff)
	}
	if moves, err := c.History(ctx, "web", "", "stable"); moves != nil || err != nil {
		t.Errorf("history of an unknown channel: %v, %v", moves, err)
	}
}

func TestMoveChannelRefuses(t *testing.T) {
	t.Parallel()
	c := fresh(t)
	arm := publish(t, c, image("web", "arch=arm64", "1.0.0", 1), "")
	old := publish(t, c, image("web", "", "1.0.0", 2), "")
	must(t, c.Retire(t.Context(), old.ID, "too old", noon))
	tests := map[string]struct{ image, want string }{
		"unknown image": {"img-x", `move channel web@stable to img-x: not in the catalog: image "img-x"`},
		"retired image": {old.ID, "the image was retired on 2026-11-20 (too old)"},
		"other cell":    {arm.ID, "the image is one of web[arch=arm64]"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := c.MoveChannel(t.Context(), "web", "", "stable", tt.image, "user", "")
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestAddCopy(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := fresh(t)
	img := publish(t, c, image("web", "", "1.0.0", 1), "")
	publish(t, c, image("web", "", "1.0.0", 2), "")
	for _, cp := range []catalog.Copy{
		{Region: "b", Location: "/b", At: noon},
		{Region: "a", Location: "/old", At: noon},
		{Region: "a", Location: "/a", At: noon.Add(time.Hour)},
		{Region: "b", Location: "/b", At: noon.Add(time.Hour)},
	} {
		must(t, c.AddCopy(ctx, img.ID, cp))
	}
	got, err := c.Get(ctx, img.ID)
	must(t, err)
	want := []catalog.Copy{{Region: "a", Location: "/a", At: noon.Add(time.Hour)}, {Region: "b", Location: "/b", At: noon}}
	if diff := cmp.Diff(want, got.Copies); diff != "" {
		t.Errorf("copies (-want +got):\n%s", diff)
	}
	if err := c.AddCopy(ctx, "img-x", catalog.Copy{Region: "a"}); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("a copy of an unknown image: got error %v", err)
	}
}

func TestImages(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := fresh(t)
	var all []string
	for i, img := range []catalog.Image{
		image("web", "arch=amd64", "1.0.0", 0), image("web", "arch=arm64", "1.0.0", 1), image("db", "", "2.0.0", 2), image("web", "arch=amd64", "1.0.0", 3),
	} {
		channel := ""
		if i < 3 {
			channel = "stable"
		}
		all = append(all, publish(t, c, img, channel).ID)
	}
	must(t, c.Retire(ctx, all[3], "bad", noon))
	tests := map[string]struct {
		filter catalog.Filter
		want   []string
	}{
		"all live":        {catalog.Filter{}, []string{all[2], all[1], all[0]}},
		"retired too":     {catalog.Filter{IncludeRetired: true}, []string{all[3], all[2], all[1], all[0]}},
		"a pipeline":      {catalog.Filter{Pipeline: "web"}, []string{all[1], all[0]}},
		"a cell":          {catalog.Filter{Pipeline: "web", Cell: "arch=amd64"}, []string{all[0]}},
		"a channel":       {catalog.Filter{Channel: "stable"}, []string{all[2], all[1], all[0]}},
		"nothing":         {catalog.Filter{Pipeline: "none"}, nil},
		"unknown channel": {catalog.Filter{Pipeline: "web", Channel: "beta"}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := c.Images(ctx, tt.filter)
			must(t, err)
			if diff := cmp.Diff(tt.want, ids(got)); diff != "" {
				t.Errorf("images (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRetire(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := fresh(t)
	parent := publish(t, c, image("base", "", "1.0.0", 1), "")
	young := image("web", "", "1.0.0", 2)
	young.Parent = parent.ID
	son := publish(t, c, young, "stable")
	next := publish(t, c, image("web", "", "1.0.0", 3), "")
	must(t, c.AddCopy(ctx, son.ID, catalog.Copy{Region: "a", Location: "/a"}))

	refused := func(id, want string) {
		t.Helper()
		if err := c.Retire(ctx, id, "test", noon); !errors.Is(err, catalog.ErrInUse) || !strings.Contains(err.Error(), want) {
			t.Errorf("retire %s: got error %v, want one with %q", id, err, want)
		}
	}
	refused(son.ID, "channel web@stable points to it")
	refused(parent.ID, "image "+son.ID+" was built from it")
	must(t, c.MoveChannel(ctx, "web", "", "stable", next.ID, "user", ""))
	must(t, c.Retire(ctx, son.ID, "first", noon))
	must(t, c.Retire(ctx, son.ID, "second", noon.Add(time.Hour)))
	must(t, c.Retire(ctx, parent.ID, "free now", noon))

	got, err := c.Get(ctx, son.ID)
	must(t, err)
	want := son
	want.Retired, want.RetiredWhy = noon, "first"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("retired (-want +got):\n%s", diff)
	}
	children, err := c.Children(ctx, parent.ID)
	must(t, err)
	if diff := cmp.Diff([]string{son.ID}, ids(children)); diff != "" {
		t.Errorf("children (-want +got):\n%s", diff)
	}
	if children, err := c.Children(ctx, ""); children != nil || err != nil {
		t.Errorf("children of no image: %v, %v", children, err)
	}
	if err := c.Retire(ctx, "img-x", "", noon); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("an unknown image: got error %v", err)
	}
}

func TestByKey(t *testing.T) {
	t.Parallel()
	c := fresh(t)
	var shared []string
	for i, release := range []string{"1.0.0", "1.0.1", "1.0.2", "2.0.0"} {
		img := image("web", "", release, i)
		img.Key = map[bool]string{true: "new disk", false: "disk"}[release == "2.0.0"]
		shared = append(shared, publish(t, c, img, "").ID)
	}
	must(t, c.Retire(t.Context(), shared[1], "old", noon))
	got, err := c.ByKey(t.Context(), "disk")
	must(t, err)
	if diff := cmp.Diff([]string{shared[2], shared[0]}, ids(got)); diff != "" {
		t.Errorf("images of the disk (-want +got):\n%s", diff)
	}
}

func TestManyProcesses(t *testing.T) {
	t.Parallel()
	const processes = 4
	dir := t.TempDir()
	var all sync.WaitGroup
	for range processes {
		all.Go(func() {
			if out, err := child(dir).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	all.Wait()
	c := open(t, filepath.Join(dir, "gild.db"))
	images, err := c.Images(t.Context(), catalog.Filter{})
	must(t, err)
	builds := map[int]bool{}
	for _, img := range images {
		builds[img.Build] = true
	}
	const want = processes*(publishedPerChild-1) + 1
	if len(images) != want || len(builds) != want || !builds[1] || !builds[want] {
		t.Errorf("got %d images with %d build numbers, want %d from 1 without gaps", len(images), len(builds), want)
	}
	moves, err := c.History(t.Context(), "web", "", "stable")
	must(t, err)
	for i, m := range moves[:len(moves)-1] {
		if m.From != moves[i+1].To {
			t.Errorf("move %d goes from %s, but the channel was at %s", i, m.From, moves[i+1].To)
		}
	}
}

func TestOverwrittenValues(t *testing.T) {
	t.Parallel()
	for _, column := range []string{"files", "tags"} {
		t.Run(column, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "gild.db")
			c := open(t, path)
			publish(t, c, image("web", "", "1.0.0", 1), "")
			db, err := sql.Open("sqlite", path)
			must(t, err)
			_, err = db.Exec(`UPDATE images SET ` + column + ` = '[{'`)
			must(t, errors.Join(err, db.Close()))
			var e *sqlite.Error
			if _, err := c.Get(t.Context(), "web"); !errors.As(err, &e) || e.Kind != sqlite.Damaged {
				t.Errorf("got error %v, want one of damage", err)
			}
		})
	}
}
