-- Times are nanoseconds since 1970 UTC, 0 for none. JSON is text, empty for none.
CREATE TABLE images (
	id           TEXT PRIMARY KEY,
	name         TEXT NOT NULL,
	pipeline     TEXT NOT NULL,
	cell         TEXT NOT NULL,
	release      TEXT NOT NULL,
	build        INTEGER NOT NULL,
	key          TEXT NOT NULL,
	publish_key  TEXT NOT NULL UNIQUE,
	arch         TEXT NOT NULL,
	created      INTEGER NOT NULL,
	size         INTEGER NOT NULL,
	files        TEXT NOT NULL,
	parent       TEXT NOT NULL,
	tags         TEXT NOT NULL,
	deprecate_at INTEGER NOT NULL,
	run          TEXT NOT NULL,
	retired      INTEGER NOT NULL,
	retired_why  TEXT NOT NULL,
	base         TEXT NOT NULL,
	UNIQUE (pipeline, cell, release, build)
) STRICT, WITHOUT ROWID;
CREATE INDEX images_by_age ON images (created, build, id);
CREATE INDEX images_by_key ON images (key);
CREATE INDEX images_by_parent ON images (parent) WHERE parent <> '';

CREATE TABLE copies (
	image    TEXT NOT NULL REFERENCES images (id),
	region   TEXT NOT NULL,
	location TEXT NOT NULL,
	at       INTEGER NOT NULL,
	PRIMARY KEY (image, region)
) STRICT, WITHOUT ROWID;

CREATE TABLE channels (
	pipeline TEXT NOT NULL,
	cell     TEXT NOT NULL,
	name     TEXT NOT NULL,
	image    TEXT NOT NULL REFERENCES images (id),
	moved    INTEGER NOT NULL,
	PRIMARY KEY (pipeline, cell, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX channels_by_image ON channels (image);

-- from_image is empty for a channel's first move.
CREATE TABLE moves (
	seq        INTEGER PRIMARY KEY,
	pipeline   TEXT NOT NULL,
	cell       TEXT NOT NULL,
	channel    TEXT NOT NULL,
	from_image TEXT NOT NULL,
	to_image   TEXT NOT NULL REFERENCES images (id),
	at         INTEGER NOT NULL,
	by         TEXT NOT NULL,
	why        TEXT NOT NULL
) STRICT;
CREATE INDEX moves_by_channel ON moves (pipeline, cell, channel, seq);
