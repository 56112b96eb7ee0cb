package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Check reads the whole database at path and returns an [*Error] of kind [Damaged] when its
// structure isn't sound. It takes time in proportion to the file, and doesn't notice a value that
// was overwritten by another of the same shape.
func Check(ctx context.Context, path string) (err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("check state database: %w", err)
	}
	d := &DB{path: path}
	if _, err := os.Stat(path); err != nil {
		return &Error{Path: path, Kind: Missing, Err: err}
	}
	if d.read, err = pool(path, lockLimit, 1, true); err != nil {
		return fmt.Errorf("check state database: %w", err)
	}
	defer func() { err = errors.Join(err, d.read.Close()) }()
	return d.Read(ctx, func(tx *Tx) error {
		var problems []string
		err := tx.Each(`PRAGMA quick_check(10)`, nil, func(scan func(...any) error) error {
			var problem string
			err := scan(&problem)
			problems = append(problems, problem)
			return err
		})
		if err == nil && (len(problems) != 1 || problems[0] != "ok") {
			err = DamagedRow(errors.New(strings.Join(problems, ", ")))
		}
		return err
	})
}
