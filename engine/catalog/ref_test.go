package catalog_test

import (
	"context"
	"errors"
	"testing"

	"github.com/gildhq/gild/engine/catalog"
)

func TestGet(t *testing.T) {
	t.Parallel()
	c := fresh(t)
	name := map[string]string{}
	add := func(as string, img catalog.Image, channel string) {
		name[publish(t, c, img, channel).ID] = as
	}
	add("web old", image("web", "", "1.3.0", 1), "beta")
	add("web 1", image("web", "", "1.4.0", 2), "stable")
	add("web 2", image("web", "", "1.4.0", 3), "")
	add("retired", image("web", "", "1.4.0", 4), "")
	add("amd", image("db", "arch=amd64,flavour=slim", "2.0.0", 5), "stable")
	add("amd full", image("db", "arch=amd64,flavour=full", "2.0.0", 6), "stable")
	add("arm", image("db", "arch=arm64,flavour=slim", "2.0.0", 7), "edge")
	add("plain db", image("db", "", "1.0.0", 8), "")
	add("named latest", image("odd", "", "1.0.0", 9), "latest")
	add("odd newest", image("odd", "", "1.0.0", 10), "")
	id := map[string]string{}
	for k, v := range name {
		id[v] = k
	}
	must(t, c.Retire(t.Context(), id["retired"], "bad", noon))

	tests := map[string]struct{ ref, want, err string }{
		"id":                     {id["web 1"], "web 1", ""},
		"beginning of an id":     {id["web 1"][:9], "web 1", ""},
		"retired by id":          {id["retired"], "retired", ""},
		"newest":                 {"web", "web 2", ""},
		"latest":                 {"web@latest", "web 2", ""},
		"channel called latest":  {"odd@latest", "named latest", ""},
		"channel":                {"web@stable", "web 1", ""},
		"channel to older":       {"web@beta", "web old", ""},
		"release":                {"web@1.4.0", "web 2", ""},
		"older release":          {"web@1.3.0", "web old", ""},
		"build":                  {"web@1.4.0+1", "web 1", ""},
		"retired build":          {"web@1.4.0+3", "retired", ""},
		"published name":         {"web-1.4.0", "web 2", ""},
		"published name, build":  {"web-1.4.0@1.4.0+1", "web 1", ""},
		"cell":                   {"db[arch=arm64,flavour=slim]", "arm", ""},
		"cell in another order":  {"db[flavour=slim, arch=amd64]@2.0.0", "amd", ""},
		"part of a cell":         {"db[arch=arm64]", "arm", ""},
		"part and channel":       {"db[flavour=full]@stable", "amd full", ""},
		"only one has channel":   {"db@edge", "arm", ""},
		"no cell":                {"db[]", "plain db", ""},
		"several cells":          {"db", "", `not in the catalog under this name alone: it could be any of db, db[arch=amd64,flavour=full], db[arch=amd64,flavour=slim], db[arch=arm64,flavour=slim]`},
		"several in a channel":   {"db@stable", "", `not in the catalog under this name alone: it could be any of db[arch=amd64,flavour=full], db[arch=amd64,flavour=slim]`},
		"several ids":            {"img-", "", ""},
		"unknown id":             {"img-zz", "", "not in the catalog (gild images lists what is)"},
		"misspelt channel":       {"web@stabel", "", "not in the catalog; did you mean web@stable?"},
		"misspelt name":          {"wev", "", "not in the catalog; did you mean web?"},
		"misspelt release":       {"web@1.4.1", "", "not in the catalog; did you mean web@1.4.0 or web-1.4.0 or web@1.3.0?"},
		"misspelt cell":          {"db[arch=arm65]", "", ""},
		"nothing like it":        {"web@something-else-entirely", "", "not in the catalog; web has web, web-1.3.0, web-1.4.0"},
		"unclosed bracket":       {"web[x@stable", "", "not in the catalog: a reference is written like web, web@stable or web[arch=arm64]@1.4.0+3"},
		"text after the bracket": {"web[x]stable", "", "not in the catalog: a reference is written like web, web@stable or web[arch=arm64]@1.4.0+3"},
		"empty":                  {"", "", ""},
	}
	for name2, tt := range tests {
		t.Run(name2, func(t *testing.T) {
			t.Parallel()
			got, err := c.Get(context.Background(), tt.ref)
			if tt.want != "" {
				if err != nil || name[got.ID] != tt.want {
					t.Errorf("got %q, %v; want %q", name[got.ID], err, tt.want)
				}
				return
			}
			if !errors.Is(err, catalog.ErrNotFound) {
				t.Fatalf("got %q, error %v; want %v", name[got.ID], err, catalog.ErrNotFound)
			}
			if want := `find image "` + tt.ref + `": ` + tt.err; tt.err != "" && err.Error() != want {
				t.Errorf("error\n got %s\nwant %s", err, want)
			}
		})
	}
}

func TestGetFromAnEmptyCatalog(t *testing.T) {
	t.Parallel()
	_, err := fresh(t).Get(t.Context(), "web@stable")
	want := `find image "web@stable": not in the catalog: it holds no image yet; gild build publishes them`
	if !errors.Is(err, catalog.ErrNotFound) || err.Error() != want {
		t.Errorf("error\n got %v\nwant %s", err, want)
	}
}

// Whatever is asked for, the answer is an image or ErrNotFound.
func FuzzGet(f *testing.F) {
	c, err := catalog.Open(context.Background(), f.TempDir()+"/gild.db")
	must(f, err)
	f.Cleanup(func() { must(f, c.Close()) })
	for i, cell := range []string{"", "arch=arm64", "arch=amd64,flavour=slim"} {
		_, err := c.Publish(context.Background(), image("web", cell, "1.0.0", i), "stable")
		must(f, err)
	}
	for _, ref := range []string{"web", "web@stable", "web[arch=arm64]@1.0.0+1", "img-1", "web[", "@", "[]@", "]["} {
		f.Add(ref)
	}
	f.Fuzz(func(t *testing.T, ref string) {
		img, err := c.Get(context.Background(), ref)
		if (err == nil) == (img.ID == "") || (err != nil && !errors.Is(err, catalog.ErrNotFound)) {
			t.Errorf("%q: got image %q, error %v", ref, img.ID, err)
		}
	})
}
