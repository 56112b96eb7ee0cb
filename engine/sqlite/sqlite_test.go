package sqlite_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gildhq/gild/engine/sqlite"
)

const countsPerChild = 50

// counters is the part that these tests own.
var counters = sqlite.Schema{Part: "counters", Migrations: []string{
	`CREATE TABLE counter (n INTEGER NOT NULL); INSERT INTO counter VALUES (0)`,
	`CREATE TABLE blobs (data BLOB NOT NULL)`,
}}

func count(ctx context.Context, d *sqlite.DB) error {
	return d.Write(ctx, func(tx *sqlite.Tx) error {
		var n int
		if _, err := tx.Row(`SELECT n FROM counter`, nil, &n); err != nil {
			return err
		}
		_, err := tx.Exec(`UPDATE counter SET n = ?`, n+1)
		return err
	})
}

func total(ctx context.Context, d *sqlite.DB) (n int, err error) {
	err = d.Read(ctx, func(tx *sqlite.Tx) error {
		_, err := tx.Row(`SELECT n FROM counter`, nil, &n)
		return err
	})
	return n, err
}

func open(t *testing.T, path string, schema sqlite.Schema) *sqlite.DB {
	t.Helper()
	d, err := sqlite.Open(t.Context(), path, schema)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func TestWriteIsKeptOrUndone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "odd name ?%#&é.db")
	d := open(t, path, counters)
	if err := count(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	err := d.Write(t.Context(), func(tx *sqlite.Tx) error {
		if _, err := tx.Exec(`UPDATE counter SET n = 99`); err != nil {
			return err
		}
		return stop
	})
	if !errors.Is(err, stop) {
		t.Errorf("got error %v, want %v", err, stop)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
	if n, err := total(t.Context(), open(t, path, counters)); n != 1 || err != nil {
		t.Errorf("got %d, %v; want 1", n, err)
	}
}

func TestReadCannotWrite(t *testing.T) {
	t.Parallel()
	d := open(t, filepath.Join(t.TempDir(), "gild.db"), counters)
	err := d.Read(t.Context(), func(tx *sqlite.Tx) error {
		_, err := tx.Exec(`UPDATE counter SET n = 99`)
		return err
	})
	if err == nil {
		t.Error("a write in a reading transaction went through")
	}
}

func TestDurability(t *testing.T) {
	t.Parallel()
	d := open(t, filepath.Join(t.TempDir(), "gild.db"), counters)
	err := d.Write(t.Context(), func(tx *sqlite.Tx) error {
		for pragma, want := range map[string]string{
			"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "application_id": fmt.Sprint(0x67696c64),
		} {
			var got string
			if _, err := tx.Row(`PRAGMA `+pragma, nil, &got); err != nil || got != want {
				t.Errorf("%s is %q, %v; want %q", pragma, got, err, want)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestMigrations(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "gild.db")
	older := sqlite.Schema{Part: counters.Part, Migrations: counters.Migrations[:1]}
	d := open(t, path, older)
	if err := count(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	open(t, path, sqlite.Schema{Part: "other", Migrations: []string{`CREATE TABLE other (n INTEGER)`}})
	if n, err := total(t.Context(), open(t, path, counters)); n != 1 || err != nil {
		t.Errorf("got %d, %v after the migration; want 1", n, err)
	}
	_, err := sqlite.Open(t.Context(), path, older)
	want := "holds version 2 of the counters, and this gild knows version 1: use the newer gild that wrote it"
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got error %v, want one with %q", err, want)
	}
}

func TestBrokenMigrationChangesNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "gild.db")
	open(t, path, counters)
	broken := sqlite.Schema{Part: counters.Part, Migrations: append(counters.Migrations[:2:2], `DROP TABLE counter; nonsense`)}
	if _, err := sqlite.Open(t.Context(), path, broken); err == nil || !strings.Contains(err.Error(), "bring the counters to version 3") {
		t.Errorf("got error %v", err)
	}
	if err := count(t.Context(), open(t, path, counters)); err != nil {
		t.Errorf("after a migration that failed: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		make   func(path string) error
		kind   sqlite.Kind
		remedy string
	}{
		"a text": {
			func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("hello\n"), 400), 0o600) },
			sqlite.Damaged, "move it away together with its -wal and -shm files (images and layers stay in ",
		},
		"a folder": {
			func(path string) error { return os.Mkdir(path, 0o700) },
			sqlite.Missing, "see that its folder is there",
		},
		"no folder": {
			func(path string) error { return os.Remove(filepath.Dir(path)) },
			sqlite.Missing, "see that its folder is there",
		},
		"another program's database": {
			func(path string) error { return script(path, `CREATE TABLE theirs (x)`) },
			sqlite.Foreign, "choose another state folder",
		},
		"another program's id": {
			func(path string) error { return script(path, `PRAGMA application_id = 7`) },
			sqlite.Foreign, "choose another state folder",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "gild.db")
			if err := tt.make(path); err != nil {
				t.Fatal(err)
			}
			_, err := sqlite.Open(t.Context(), path, counters)
			if err := wantKind(err, tt.kind, tt.remedy); err != nil {
				t.Error(err)
			}
		})
	}
}

// script runs SQL on a database as another program would.
func script(path, text string) (err error) {
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	_, err = db.Exec(text)
	return err
}

// A flipped byte is either without effect on what is read or a clear error: never a panic,
// and never an error that doesn't say what to do.
func TestFlippedBytes(t *testing.T) {
	t.Parallel()
	whole := filepath.Join(t.TempDir(), "gild.db")
	d := open(t, whole, counters)
	err := d.Write(t.Context(), func(tx *sqlite.Tx) error {
		for range 60 {
			if _, err := tx.Exec(`INSERT INTO blobs (data) VALUES (randomblob(700))`); err != nil {
				return err
			}
		}
		return nil
	})
	if err = errors.Join(err, d.Close()); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	const page = 4096
	damaged := 0
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 200 {
		flipped := bytes.Clone(data)
		// Half of the bytes are chosen from the headers of the pages, where they matter most.
		for range 1 + i%8 {
			at := random.IntN(len(data))
			if i%2 == 0 {
				at = at/page*page + random.IntN(16)
			}
			flipped[at] ^= byte(1 + random.IntN(255))
		}
		if err := useDamaged(t, flipped); err != nil {
			damaged++
			var e *sqlite.Error
			if !errors.As(err, &e) {
				t.Errorf("case %d: an error without advice: %v", i, err)
			}
		}
	}
	if damaged < 80 {
		t.Errorf("only %d of 200 damaged files were noticed", damaged)
	}
}

func useDamaged(t *testing.T, data []byte) (err error) {
	path := filepath.Join(t.TempDir(), "gild.db")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := sqlite.Open(t.Context(), path, counters)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	var sum int
	err = d.Read(t.Context(), func(tx *sqlite.Tx) error {
		_, err := tx.Row(`SELECT sum(length(data)) FROM blobs`, nil, &sum)
		return err
	})
	return errors.Join(err, count(t.Context(), d), sqlite.Check(t.Context(), path))
}

func TestCheck(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "gild.db")
	d := open(t, path, counters)
	if err := sqlite.Check(t.Context(), path); err != nil {
		t.Errorf("a whole file: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 4096 + 3; i < len(data); i += 4096 {
		data[i] ^= 0x55
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := wantKind(sqlite.Check(t.Context(), path), sqlite.Damaged, "move it away"); err != nil {
		t.Error(err)
	}
	gone := filepath.Join(t.TempDir(), "none.db")
	if err := wantKind(sqlite.Check(t.Context(), gone), sqlite.Missing, ""); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(gone); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("checking made the file: %v", err)
	}
}

func TestTroubleWithTheDisk(t *testing.T) {
	t.Parallel()
	for role, mounts := range map[string]bool{"full": true, "read-only system": true, "read-only folder": false} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if out, err := child(t, role, dir, mounts).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Error(err)
			}
		})
	}
}

// Processes that start together make the file together, and none of their writes is lost.
func TestManyProcesses(t *testing.T) {
	t.Parallel()
	const processes = 6
	dir := t.TempDir()
	var all sync.WaitGroup
	for range processes {
		all.Go(func() {
			if out, err := child(t, "count", dir, false).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	all.Wait()
	n, err := total(t.Context(), open(t, filepath.Join(dir, "gild.db"), counters))
	if err != nil || n != processes*countsPerChild {
		t.Errorf("got %d, %v; want %d", n, err, processes*countsPerChild)
	}
}

func TestManyGoroutines(t *testing.T) {
	t.Parallel()
	d := open(t, filepath.Join(t.TempDir(), "gild.db"), counters)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 10 {
				if err := count(t.Context(), d); err != nil {
					t.Error(err)
				}
				if _, err := total(t.Context(), d); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if n, err := total(t.Context(), d); n != 80 || err != nil {
		t.Errorf("got %d, %v; want 80", n, err)
	}
}

func TestCancelledWhileAnotherWrites(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "gild.db")
	first, second := open(t, path, counters), open(t, path, counters)
	cause := errors.New("interrupted")
	err := first.Write(t.Context(), func(*sqlite.Tx) error {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(20*time.Millisecond, func() { cancel(cause) })
		if err := count(ctx, second); !errors.Is(err, cause) {
			t.Errorf("got error %v, want %v", err, cause)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := total(t.Context(), second); n != 0 || err != nil {
		t.Errorf("got %d, %v; want 0", n, err)
	}
	if err := count(t.Context(), second); err != nil {
		t.Errorf("after the other was done: %v", err)
	}
}

func TestTimes(t *testing.T) {
	t.Parallel()
	far := time.Date(2261, 12, 31, 23, 59, 59, 999, time.UTC)
	tests := map[string]struct{ in, want time.Time }{
		"zero":        {time.Time{}, time.Time{}},
		"nanoseconds": {time.Unix(1700000000, 123456789), time.Unix(1700000000, 123456789).UTC()},
		"other zone":  {time.Unix(5, 0).In(time.FixedZone("x", 3600)), time.Unix(5, 0).UTC()},
		"before 1970": {time.Unix(-5, 0), time.Unix(-5, 0).UTC()},
		"last year":   {far, far},
		"too far":     {far.AddDate(500, 0, 0), time.Unix(0, 1<<63-1).UTC()},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := sqlite.ToTime(sqlite.FromTime(tt.in)); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}
