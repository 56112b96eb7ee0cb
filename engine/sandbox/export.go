package sandbox

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/gildhq/gild/engine/builder/local/disk"
)

// Export writes the bytes of a snapshot, or of an image's root volume, to a new file: a raw
// disk. The image or snapshot must be complete; whose it is isn't asked.
func (s *Server) Export(ctx context.Context, region, id, path string) error {
	snapshotID, err := s.exportable(region, id)
	if err != nil {
		return fmt.Errorf("export %s: %w", id, err)
	}
	from, err := s.snapshotFile(snapshotID)
	if err != nil {
		return fmt.Errorf("export %s: %w", id, err)
	}
	if err := disk.CopySparse(ctx, from, path); err != nil {
		return fmt.Errorf("export %s: %w", id, err)
	}
	return nil
}

func (s *Server) exportable(region, id string) (snapshotID string, err error) {
	err = s.update(func() error {
		s.seedRegion(region)
		snapshotID = id
		if strings.HasPrefix(id, kindImage.prefix+"-") {
			i := s.images.get(id)
			if i == nil || i.Region != region {
				return fmt.Errorf("there is no such image in %s", region)
			}
			root := slices.IndexFunc(i.Mappings, func(m mapping) bool { return m.Device == i.RootDevice })
			if root < 0 {
				return fmt.Errorf("it has no root volume")
			}
			snapshotID = i.Mappings[root].SnapshotID
		}
		sn := s.snapshots.get(snapshotID)
		switch {
		case sn == nil || sn.Region != region:
			return fmt.Errorf("there is no such snapshot in %s", region)
		case sn.State != "completed":
			return fmt.Errorf("snapshot %s is %s, not completed", snapshotID, sn.State)
		}
		return nil
	})
	return snapshotID, err
}
