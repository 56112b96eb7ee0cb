// Package catalog is the record of what builds yielded: images with their releases, build
// numbers, files, parents and copies, the channels that point to them, and which were retired.
//
// In go finished images and moves of channels; out come lists, and single images by the
// references people write ([Catalog.Get]). It shares one SQLite file with the journal, and
// many gild processes may use it at once: every change is one durable transaction. It never
// touches an image's files, and decides nothing about retention by itself: [Retainable] is a
// pure function.
package catalog

import (
	"context"
	_ "embed"
	"errors"
	"time"

	"github.com/gildhq/gild/engine/sqlite"
)

//go:embed schema.sql
var schemaV1 string

var (
	// ErrNotFound is wrapped by errors about an image or channel that the catalog doesn't have.
	ErrNotFound = errors.New("not in the catalog")
	// ErrInUse is wrapped by the error of retiring an image that a channel points to or another image was built from.
	ErrInUse = errors.New("image in use")
)

// Catalog is an open catalog. Safe for concurrent use; close it with [Catalog.Close].
type Catalog struct{ db *sqlite.DB }

// Open opens the catalog in the state database at path, making the file when there is none.
// Its folder must exist. The error is a [*sqlite.Error] when the file can't be used.
func Open(ctx context.Context, path string) (*Catalog, error) {
	db, err := sqlite.Open(ctx, path, sqlite.Schema{Part: "catalog", Migrations: []string{schemaV1}})
	if err != nil {
		return nil, err
	}
	return &Catalog{db: db}, nil
}

// Close closes the file. Calling it again does nothing.
func (c *Catalog) Close() error { return c.db.Close() }

// Image is one published image.
type Image struct {
	// ID is "img-" and 12 hex digits, made from PublishKey by Publish.
	ID string
	// Name is the full published name, such as "web-1.4.0-amd64".
	Name string
	// Pipeline and Cell say what it was built from; Cell is the matrix combination
	// ("arch=amd64,flavour=slim"), empty without a matrix. Release is the pipeline's.
	Pipeline, Cell, Release string
	// Build counts from 1 within pipeline, cell and release. Publish gives it.
	Build int
	// Key is the key of the disk; PublishKey that of its publication, which the image is
	// recognised by when it is published again.
	Key, PublishKey string
	// Arch in Go's names.
	Arch string
	// Created is when it was published, in UTC; ages are counted from it.
	Created time.Time
	// Size of the disk in bytes.
	Size  int64
	Files []File
	// Parent is the id of the image it was built from, or empty.
	Parent string
	Tags   map[string]string
	// DeprecateAt is when it counts as deprecated; zero means never.
	DeprecateAt time.Time
	// Run is the run that published it.
	Run string
	// Retired is when it was retired and RetiredWhy the reason; zero and empty for a live image.
	Retired    time.Time
	RetiredWhy string
	// Base is a summary of what the pipeline starts from, for people.
	Base string
	// Copies are sorted by region.
	Copies []Copy
}

// Live reports whether the image isn't retired.
func (i Image) Live() bool { return i.Retired.IsZero() }

// File is one file of an image.
type File struct {
	// Format is "raw" or "qcow2".
	Format string `json:"format"`
	// Path on this machine.
	Path string `json:"path"`
	// SHA256 is the lower-case hex digest.
	SHA256 string `json:"sha256"`
	// Size in bytes as `ls` shows it; Allocated is what it takes on disk.
	Size      int64 `json:"size"`
	Allocated int64 `json:"allocated"`
}

// Copy is a copy of an image in a region.
type Copy struct {
	Region string
	// Location is where it is, such as a folder.
	Location string
	// At is when the copy was made, in UTC.
	At time.Time
}

// Channel is a named pointer to an image. Each cell of a pipeline has its own.
type Channel struct {
	Pipeline, Cell, Name string
	// Image is the id of the image it points to.
	Image string
	// Moved is when it last moved, in UTC.
	Moved time.Time
}

// Move is one entry of a channel's history.
type Move struct {
	// From and To are image ids; From is empty for the first move.
	From, To string
	At       time.Time
	// By is the id of the run that moved it, or "user".
	By string
	// Why is for people.
	Why string
}

// Filter chooses images. Empty fields choose all.
type Filter struct {
	Pipeline, Cell string
	// Channel chooses the images that a channel of this name points to.
	Channel string
	// IncludeRetired adds retired images.
	IncludeRetired bool
}
