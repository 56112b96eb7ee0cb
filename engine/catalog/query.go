package catalog

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/gildhq/gild/engine/sqlite"
)

// newestFirst orders images; equal times are told apart by build and id, so that the order
// is the same every time.
const newestFirst = ` ORDER BY created DESC, build DESC, id DESC`

// Images returns the images that the filter chooses, newest first.
func (c *Catalog) Images(ctx context.Context, f Filter) ([]Image, error) {
	images, err := c.list(ctx, `WHERE (?1 = '' OR pipeline = ?1) AND (?2 = '' OR cell = ?2) AND (?3 OR retired = 0)
		AND (?4 = '' OR id IN (SELECT image FROM channels WHERE name = ?4))`+newestFirst,
		f.Pipeline, f.Cell, f.IncludeRetired, f.Channel)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	return images, nil
}

// Children returns the images built from an image, retired ones too, newest first.
func (c *Catalog) Children(ctx context.Context, id string) ([]Image, error) {
	images, err := c.list(ctx, `WHERE parent = ? AND parent <> ''`+newestFirst, id)
	if err != nil {
		return nil, fmt.Errorf("list the images built from %s: %w", id, err)
	}
	return images, nil
}

// ByKey returns the live images that share a disk, newest first: the disk may be removed only
// when there is none. A release that changes nothing but the number has the disk of the one before.
func (c *Catalog) ByKey(ctx context.Context, key string) ([]Image, error) {
	images, err := c.list(ctx, `WHERE key = ? AND retired = 0`+newestFirst, key)
	if err != nil {
		return nil, fmt.Errorf("list the images of disk %s: %w", key, err)
	}
	return images, nil
}

// Copies lists where the images of a disk are, retired ones too: their removal may have
// been cut short.
func (c *Catalog) Copies(ctx context.Context, key string) ([]Copy, error) {
	images, err := c.list(ctx, `WHERE key = ?`+newestFirst, key)
	if err != nil {
		return nil, fmt.Errorf("list the copies of disk %s: %w", key, err)
	}
	var all []Copy
	for _, img := range images {
		all = append(all, img.Copies...)
	}
	return all, nil
}

// ByPublishKey returns the image published under a key, even if it is retired; ok is false when there is none.
func (c *Catalog) ByPublishKey(ctx context.Context, key string) (img Image, ok bool, err error) {
	err = c.db.Read(ctx, func(tx *sqlite.Tx) error {
		img, ok, err = selectOne(tx, `WHERE publish_key = ?`, key)
		return err
	})
	if err != nil {
		return Image{}, false, fmt.Errorf("find the image of publish key %s: %w", key, err)
	}
	return img, ok, nil
}

// Channels returns the channels of a pipeline, or of all when pipeline is empty, sorted by
// pipeline, cell and name.
func (c *Catalog) Channels(ctx context.Context, pipeline string) ([]Channel, error) {
	var channels []Channel
	err := c.db.Read(ctx, func(tx *sqlite.Tx) (err error) {
		channels, err = selectChannels(tx, pipeline)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list channels: %w", err)
	}
	return channels, nil
}

// History returns the moves of a channel, newest first; nil when there is no such channel.
func (c *Catalog) History(ctx context.Context, pipeline, cell, name string) ([]Move, error) {
	var moves []Move
	err := c.db.Read(ctx, func(tx *sqlite.Tx) error {
		return tx.Each(`SELECT from_image, to_image, at, by, why FROM moves
			WHERE pipeline = ? AND cell = ? AND channel = ? ORDER BY seq DESC`, []any{pipeline, cell, name},
			func(scan func(...any) error) error {
				var m Move
				var at int64
				if err := scan(&m.From, &m.To, &at, &m.By, &m.Why); err != nil {
					return err
				}
				m.At = sqlite.ToTime(at)
				moves = append(moves, m)
				return nil
			})
	})
	if err != nil {
		return nil, fmt.Errorf("read the history of channel %s@%s: %w", line(pipeline, cell), name, err)
	}
	return moves, nil
}

func (c *Catalog) list(ctx context.Context, where string, args ...any) ([]Image, error) {
	var images []Image
	err := c.db.Read(ctx, func(tx *sqlite.Tx) (err error) {
		images, err = selectImages(tx, where, args...)
		return err
	})
	return images, err
}

func selectOne(tx *sqlite.Tx, where string, args ...any) (img Image, ok bool, err error) {
	images, err := selectImages(tx, where, args...)
	if err != nil || len(images) == 0 {
		return Image{}, false, err
	}
	return images[0], true, nil
}

// selectImages reads images with their copies.
func selectImages(tx *sqlite.Tx, where string, args ...any) ([]Image, error) {
	var images []Image
	err := tx.Each(`SELECT id, name, pipeline, cell, release, build, key, publish_key, arch, created, size, files,
		parent, tags, deprecate_at, run, retired, retired_why, base FROM images `+where, args, func(scan func(...any) error) error {
		img, err := scanImage(scan)
		images = append(images, img)
		return err
	})
	if err != nil || len(images) == 0 {
		return nil, err
	}
	return images, addCopies(tx, images)
}

func scanImage(scan func(...any) error) (Image, error) {
	var img Image
	var created, deprecateAt, retired int64
	var files, tags string
	err := scan(&img.ID, &img.Name, &img.Pipeline, &img.Cell, &img.Release, &img.Build, &img.Key, &img.PublishKey,
		&img.Arch, &created, &img.Size, &files, &img.Parent, &tags, &deprecateAt, &img.Run, &retired, &img.RetiredWhy, &img.Base)
	if err != nil {
		return Image{}, err
	}
	img.Created, img.DeprecateAt, img.Retired = sqlite.ToTime(created), sqlite.ToTime(deprecateAt), sqlite.ToTime(retired)
	if err := json.Unmarshal([]byte(files), &img.Files); err != nil {
		return Image{}, sqlite.DamagedRow(fmt.Errorf("files of image %s: %w", img.ID, err))
	}
	if err := json.Unmarshal([]byte(tags), &img.Tags); err != nil {
		return Image{}, sqlite.DamagedRow(fmt.Errorf("tags of image %s: %w", img.ID, err))
	}
	return img, nil
}

func addCopies(tx *sqlite.Tx, images []Image) error {
	byID := make(map[string]*Image, len(images))
	ids := make([]string, len(images))
	for i := range images {
		ids[i] = images[i].ID
		byID[ids[i]] = &images[i]
	}
	list, err := json.Marshal(ids)
	if err != nil {
		return err
	}
	return tx.Each(`SELECT image, region, location, at FROM copies
		WHERE image IN (SELECT value FROM json_each(?)) ORDER BY image, region`, []any{string(list)},
		func(scan func(...any) error) error {
			var id string
			var cp Copy
			var at int64
			if err := scan(&id, &cp.Region, &cp.Location, &at); err != nil {
				return err
			}
			cp.At = sqlite.ToTime(at)
			byID[id].Copies = append(byID[id].Copies, cp)
			return nil
		})
}

func selectChannels(tx *sqlite.Tx, pipeline string) ([]Channel, error) {
	var channels []Channel
	err := tx.Each(`SELECT pipeline, cell, name, image, moved FROM channels WHERE ?1 = '' OR pipeline = ?1
		ORDER BY pipeline, cell, name`, []any{pipeline}, func(scan func(...any) error) error {
		var ch Channel
		var moved int64
		if err := scan(&ch.Pipeline, &ch.Cell, &ch.Name, &ch.Image, &moved); err != nil {
			return err
		}
		ch.Moved = sqlite.ToTime(moved)
		channels = append(channels, ch)
		return nil
	})
	return channels, err
}
