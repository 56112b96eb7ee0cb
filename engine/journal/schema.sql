-- Times are nanoseconds since 1970 UTC, 0 for none. JSON is text, empty for none.
CREATE TABLE runs (
	seq       INTEGER PRIMARY KEY,
	id        TEXT NOT NULL UNIQUE,
	state     TEXT NOT NULL,
	exit_code INTEGER NOT NULL,
	started   INTEGER NOT NULL,
	ended     INTEGER NOT NULL,
	pid       INTEGER NOT NULL,
	host      TEXT NOT NULL,
	request   TEXT NOT NULL
) STRICT;
CREATE INDEX runs_by_start ON runs (started, seq);

CREATE TABLE nodes (
	run      TEXT NOT NULL,
	id       TEXT NOT NULL,
	key      TEXT NOT NULL,
	state    TEXT NOT NULL,
	reason   TEXT NOT NULL,
	attempt  INTEGER NOT NULL,
	outputs  TEXT NOT NULL,
	started  INTEGER NOT NULL,
	ended    INTEGER NOT NULL,
	error    TEXT NOT NULL,
	log_path TEXT NOT NULL,
	PRIMARY KEY (run, id)
) STRICT, WITHOUT ROWID;

-- A row is a resource that exists or may exist; settling removes it.
CREATE TABLE intents (
	id   INTEGER PRIMARY KEY AUTOINCREMENT,
	run  TEXT NOT NULL,
	node TEXT NOT NULL,
	kind TEXT NOT NULL,
	name TEXT NOT NULL,
	note TEXT NOT NULL,
	made INTEGER NOT NULL
) STRICT;

CREATE TABLE events (
	seq   INTEGER PRIMARY KEY,
	run   TEXT NOT NULL,
	event TEXT NOT NULL
) STRICT;
CREATE INDEX events_by_run ON events (run, seq);

CREATE TABLE key_parts (
	scope TEXT NOT NULL,
	node  TEXT NOT NULL,
	key   TEXT NOT NULL,
	parts TEXT NOT NULL,
	PRIMARY KEY (scope, node)
) STRICT, WITHOUT ROWID;

CREATE TABLE results (
	key     TEXT NOT NULL PRIMARY KEY,
	outputs TEXT NOT NULL
) STRICT, WITHOUT ROWID;
