package catalog

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/gildhq/gild/engine/sqlite"
)

// Publish records an image, gives it its ID and Build, and makes the channel of its pipeline and
// cell point to it unless channel is empty, in one transaction. It returns the image as stored.
// A zero Created becomes the present.
//
// An image whose PublishKey is known is not recorded again: the one in the catalog is returned,
// and the channel moves only if it points elsewhere. If that one was retired it comes back, under its
// old build number, with the files and the time given.
func (c *Catalog) Publish(ctx context.Context, img Image, channel string) (Image, error) {
	if img.PublishKey == "" || img.Pipeline == "" {
		return Image{}, errors.New("publish image: it has no publish key or no pipeline")
	}
	if img.Created.IsZero() {
		img.Created = time.Now()
	}
	img.ID = imageID(img.PublishKey)
	var stored Image
	err := c.db.Write(ctx, func(tx *sqlite.Tx) error {
		var err error
		if stored, err = record(tx, img); err != nil || channel == "" {
			return err
		}
		return moveChannel(tx, Channel{Pipeline: img.Pipeline, Cell: img.Cell, Name: channel, Image: img.ID, Moved: img.Created},
			img.Run, "published")
	})
	if err != nil {
		return Image{}, fmt.Errorf("publish image %q: %w", img.Name, err)
	}
	return stored, nil
}

// imageID makes an id from a publish key.
func imageID(publishKey string) string {
	sum := sha256.Sum256([]byte(publishKey))
	return "img-" + hex.EncodeToString(sum[:6])
}

// record stores a new image, revives a retired one, and leaves a live one alone.
func record(tx *sqlite.Tx, img Image) (Image, error) {
	old, known, err := selectOne(tx, `WHERE publish_key = ?`, img.PublishKey)
	switch {
	case err != nil:
		return Image{}, err
	case known && (old.Pipeline != img.Pipeline || old.Cell != img.Cell):
		return Image{}, fmt.Errorf("its publish key is that of %s, an image of %s", old.ID, line(old.Pipeline, old.Cell))
	case known && old.Live():
		return old, nil
	case known:
		err = revive(tx, img)
	default:
		err = insert(tx, img)
	}
	if err != nil {
		return Image{}, err
	}
	stored, _, err := selectOne(tx, `WHERE id = ?`, img.ID)
	return stored, err
}

func insert(tx *sqlite.Tx, img Image) error {
	files, err := json.Marshal(img.Files)
	if err != nil {
		return err
	}
	tags, err := json.Marshal(img.Tags)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO images (id, name, pipeline, cell, release, key, publish_key, arch, created, size,
			files, parent, tags, deprecate_at, run, base, retired, retired_why, build)
		SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, 0, '',
			1 + coalesce((SELECT max(build) FROM images WHERE pipeline = ?3 AND cell = ?4 AND release = ?5), 0)`,
		img.ID, img.Name, img.Pipeline, img.Cell, img.Release, img.Key, img.PublishKey, img.Arch,
		sqlite.FromTime(img.Created), img.Size, string(files), img.Parent, string(tags),
		sqlite.FromTime(img.DeprecateAt), img.Run, img.Base)
	return err
}

// revive brings a retired image back with new files; its id and build number stay.
func revive(tx *sqlite.Tx, img Image) error {
	files, err := json.Marshal(img.Files)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`UPDATE images SET created = ?, files = ?, deprecate_at = ?, run = ?, retired = 0, retired_why = '' WHERE id = ?`,
		sqlite.FromTime(img.Created), string(files), sqlite.FromTime(img.DeprecateAt), img.Run, img.ID)
	return err
}

// AddCopy records that an image has a copy in a region, in place of an earlier one there. The same
// copy again changes nothing. The error wraps [ErrNotFound] when there is no such image.
func (c *Catalog) AddCopy(ctx context.Context, id string, cp Copy) error {
	err := c.db.Write(ctx, func(tx *sqlite.Tx) error {
		if err := mustExist(tx, id); err != nil {
			return err
		}
		_, err := tx.Exec(`INSERT INTO copies (image, region, location, at) VALUES (?, ?, ?, ?)
			ON CONFLICT (image, region) DO UPDATE SET location = excluded.location, at = excluded.at
			WHERE location <> excluded.location`, id, cp.Region, cp.Location, sqlite.FromTime(cp.At))
		return err
	})
	if err != nil {
		return fmt.Errorf("record the copy of image %s in %s: %w", id, cp.Region, err)
	}
	return nil
}

// MoveChannel makes a channel point to a live image of the same pipeline and cell, making the
// channel when there is none. by is a run's id or "user". A channel that points there already
// doesn't move. The error wraps [ErrNotFound] when there is no such image.
func (c *Catalog) MoveChannel(ctx context.Context, pipeline, cell, name, imageID, by, why string) error {
	err := c.db.Write(ctx, func(tx *sqlite.Tx) error {
		img, ok, err := selectOne(tx, `WHERE id = ?`, imageID)
		switch {
		case err != nil:
			return err
		case !ok:
			return fmt.Errorf("%w: image %q", ErrNotFound, imageID)
		case !img.Live():
			return fmt.Errorf("the image was retired on %s (%s): build it again, or choose another", img.Retired.Format(time.DateOnly), img.RetiredWhy)
		case img.Pipeline != pipeline || img.Cell != cell:
			return fmt.Errorf("the image is one of %s: a channel holds images of its own pipeline and matrix combination", line(img.Pipeline, img.Cell))
		}
		return moveChannel(tx, Channel{Pipeline: pipeline, Cell: cell, Name: name, Image: imageID, Moved: time.Now()}, by, why)
	})
	if err != nil {
		return fmt.Errorf("move channel %s@%s to %s: %w", line(pipeline, cell), name, imageID, err)
	}
	return nil
}

// moveChannel points a channel to an image and adds to its history, unless it is there already.
func moveChannel(tx *sqlite.Tx, ch Channel, by, why string) error {
	var from string
	_, err := tx.Row(`SELECT image FROM channels WHERE pipeline = ? AND cell = ? AND name = ?`,
		[]any{ch.Pipeline, ch.Cell, ch.Name}, &from)
	if err != nil || from == ch.Image {
		return err
	}
	moved := sqlite.FromTime(ch.Moved)
	if _, err := tx.Exec(`INSERT OR REPLACE INTO channels (pipeline, cell, name, image, moved) VALUES (?, ?, ?, ?, ?)`,
		ch.Pipeline, ch.Cell, ch.Name, ch.Image, moved); err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO moves (pipeline, cell, channel, from_image, to_image, at, by, why) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		ch.Pipeline, ch.Cell, ch.Name, from, ch.Image, moved, by, why)
	return err
}

// Retire marks an image as retired. It doesn't touch its files, and forgets its copies: whoever
// retires an image removes them, unless [Catalog.ByKey] tells that another has the same disk.
// An image that is retired already is no error.
//
// The error wraps [ErrInUse] when a channel points to the image or a live image was built from
// it, and [ErrNotFound] when there is no such image.
func (c *Catalog) Retire(ctx context.Context, id, why string, at time.Time) error {
	err := c.db.Write(ctx, func(tx *sqlite.Tx) error {
		img, ok, err := selectOne(tx, `WHERE id = ?`, id)
		switch {
		case err != nil:
			return err
		case !ok:
			return ErrNotFound
		case !img.Live():
			return nil
		}
		if err := mustBeFree(tx, id); err != nil {
			return err
		}
		if _, err := tx.Exec(`DELETE FROM copies WHERE image = ?`, id); err != nil {
			return err
		}
		_, err = tx.Exec(`UPDATE images SET retired = ?, retired_why = ? WHERE id = ?`, sqlite.FromTime(at), why, id)
		return err
	})
	if err != nil {
		return fmt.Errorf("retire image %s: %w", id, err)
	}
	return nil
}

// mustBeFree fails when something still needs the image.
func mustBeFree(tx *sqlite.Tx, id string) error {
	var pipeline, cell, name, child string
	ok, err := tx.Row(`SELECT pipeline, cell, name FROM channels WHERE image = ? ORDER BY name LIMIT 1`, []any{id}, &pipeline, &cell, &name)
	if err != nil {
		return err
	}
	if ok {
		return fmt.Errorf("%w: channel %s@%s points to it", ErrInUse, line(pipeline, cell), name)
	}
	ok, err = tx.Row(`SELECT id FROM images WHERE parent = ? AND retired = 0 ORDER BY id LIMIT 1`, []any{id}, &child)
	if err != nil {
		return err
	}
	if ok {
		return fmt.Errorf("%w: image %s was built from it", ErrInUse, child)
	}
	return nil
}

// mustExist fails when there is no such image.
func mustExist(tx *sqlite.Tx, id string) error {
	var n int
	if _, err := tx.Row(`SELECT count(*) FROM images WHERE id = ?`, []any{id}, &n); err != nil {
		return err
	}
	if n == 0 {
		return ErrNotFound
	}
	return nil
}

// line is how people write a pipeline and a cell of its matrix.
func line(pipeline, cell string) string {
	if cell == "" {
		return pipeline
	}
	return pipeline + "[" + cell + "]"
}
