package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gildhq/gild/engine/builder/local/disk"
)

// SeedImage is an image that is there from the start, as a publisher's are on AWS.
type SeedImage struct {
	// Account owns it: twelve digits. Name is the image's, unique with the account.
	Account, Name string
	// OwnerAlias is "amazon" for images of AWS itself, else empty.
	OwnerAlias  string
	Description string
	// Arch in Go's names; empty means amd64.
	Arch string
	// BootMode is "legacy-bios", "uefi", "uefi-preferred", or empty for what the type prefers.
	BootMode string
	// RootDevice is the name of the root device; empty means "/dev/xvda".
	RootDevice string
	// SizeGiB of the root volume; 0 means 8. The bytes may be fewer, not more.
	SizeGiB int64
	// DiskPath is a raw disk, which is copied when the image is first used. Bytes makes one
	// then, and returns its path; what it made belongs to the caller. Without both the disk is empty.
	DiskPath string
	Bytes    func(ctx context.Context) (string, error)
	// Region is where it is; empty means in every region, with another id in each.
	Region string
	// Created is its creation date; zero means the time when it is added.
	Created time.Time
	// Deprecated is when it becomes deprecated; zero means never.
	Deprecated time.Time
	// Private images can be seen and launched by Users only; the others are public.
	Private bool
	Users   []string
	// IMDSv2 says that instances of it use IMDSv2 unless told otherwise. TPM says "v2.0" or nothing.
	IMDSv2 bool
	TPM    string
	Tags   map[string]string
	// SSMParameters are names of public parameters that hold its id, such as
	// "/aws/service/debian/release/12/latest/amd64".
	SSMParameters []string
}

// seed is a SeedImage as it is kept.
type seed struct {
	Image  image
	Size   int64
	Region string
	Tags   map[string]string
	Names  []string
	Empty  bool
	// IDs are the image's by region, where it was made already.
	IDs map[string]string
}

// AddImage adds an image, and returns its id in its region, or in [DefaultRegion] when it is
// in all. Adding one again (the same account and name) keeps its ids and gives it its bytes
// back, which a sandbox that is opened again only has if they were used before; what else
// has changed is ignored.
func (s *Server) AddImage(ctx context.Context, i SeedImage) (id string, err error) {
	sd, err := newSeed(i)
	if err != nil {
		return "", fmt.Errorf("add image %q: %w", i.Name, err)
	}
	name := i.Account + "/" + i.Name
	err = s.update(func() error {
		switch {
		case i.Bytes != nil:
			s.sources[name] = i.Bytes
		case i.DiskPath != "":
			s.sources[name] = func(context.Context) (string, error) { return i.DiskPath, nil }
		}
		if old := s.seeds.get(name); old != nil {
			sd = old
		} else {
			if sd.Image.Created.IsZero() {
				sd.Image.Created = s.now()
			}
			s.seeds.put(name, sd)
		}
		clear(s.regions)
		region := sd.Region
		if region == "" {
			region = DefaultRegion
		}
		s.seedRegion(region)
		id = sd.IDs[region]
		return ctx.Err()
	})
	return id, err
}

func newSeed(i SeedImage) (*seed, error) {
	arch := map[string]string{"": "x86_64", "amd64": "x86_64", "arm64": "arm64"}[i.Arch]
	switch {
	case !isAccount(i.Account):
		return nil, fmt.Errorf("its account %q isn't twelve digits", i.Account)
	case !imageName.MatchString(i.Name):
		return nil, errors.New("an image's name has 3 to 128 letters, digits and ()[] ./-'@_")
	case arch == "":
		return nil, fmt.Errorf("there is no architecture %q: amd64 and arm64 are", i.Arch)
	case i.Region != "" && validRegion(i.Region) != nil:
		return nil, fmt.Errorf("there is no region %q", i.Region)
	case i.DiskPath != "" && i.Bytes != nil:
		return nil, errors.New("it has both DiskPath and Bytes; give one")
	case !slices.Contains([]string{"", "legacy-bios", "uefi", "uefi-preferred"}, i.BootMode):
		return nil, fmt.Errorf("there is no boot mode %q", i.BootMode)
	}
	img := image{Account: i.Account, Name: i.Name, Description: i.Description, Arch: arch, State: "available", BootMode: i.BootMode,
		TPM: i.TPM, ENA: true, SRIOV: "simple", Virtualization: "hvm", RootDevice: i.RootDevice, Created: i.Created, Deprecated: i.Deprecated,
		Public: !i.Private, Users: i.Users, Alias: i.OwnerAlias, Open: true}
	if img.RootDevice == "" {
		img.RootDevice = "/dev/xvda"
	}
	if i.IMDSv2 {
		img.IMDS = "v2.0"
	}
	size := i.SizeGiB
	if size == 0 {
		size = 8
	}
	return &seed{Image: img, Size: size, Region: i.Region, Tags: i.Tags, Names: i.SSMParameters,
		Empty: i.DiskPath == "" && i.Bytes == nil, IDs: map[string]string{}}, nil
}

// seedRegion makes the seed images of a region that aren't there yet. It needs the lock.
func (s *Server) seedRegion(region string) {
	if s.regions[region] || validRegion(region) != nil {
		return
	}
	s.regions[region] = true
	for name, sd := range s.seeds.all {
		if sd.IDs[region] != "" || sd.Region != "" && sd.Region != region {
			continue
		}
		img := sd.Image
		img.Region = region
		img.ID = idOf(kindImage.prefix, name, region)
		sn := snapshot{ID: idOf(kindSnapshot.prefix, name, region), Account: img.Account, Region: region, SizeGiB: sd.Size, State: "completed",
			Description: "The root volume of " + img.Name, Alias: img.Alias, Started: img.Created, Completed: img.Created, Seed: name}
		img.Mappings = []mapping{{Device: img.RootDevice, SnapshotID: sn.ID, SizeGiB: sd.Size, Type: "gp3", IOPS: 3000, Throughput: 125, Delete: true}}
		s.images.put(img.ID, &img)
		s.snapshots.put(sn.ID, &sn)
		s.setTags(img.Account, region, img.ID, kindImage.typ, sd.Tags)
		sd.IDs[region] = img.ID
		s.seeds.put(name, sd)
	}
}

// publicParameter returns the image id behind the name of a public SSM parameter. It needs
// the lock.
func (s *Server) publicParameter(region, name string) (id string, ok bool) {
	s.seedRegion(region)
	for _, sd := range s.seeds.all {
		if slices.Contains(sd.Names, name) && sd.IDs[region] != "" {
			return sd.IDs[region], true
		}
	}
	return "", false
}

// seedFile returns the bytes of a seed image, which are made once and then shared by the
// snapshots of all regions.
func (s *Server) seedFile(name string, size int64) (string, error) {
	path := filepath.Join(s.cfg.Dir, "seeds", idOf("seed", name)+".raw")
	_, err, _ := s.seeding.Do(name, func() (any, error) {
		if _, err := os.Stat(path); err == nil {
			return nil, nil
		}
		s.mu.Lock()
		source := s.sources[name]
		sd := s.seeds.get(name)
		s.mu.Unlock()
		if sd != nil && sd.Empty && source == nil {
			return nil, s.place(path, size, empty)
		}
		if source == nil {
			return nil, errors.New("the sandbox was opened again without it: add the image again")
		}
		// Others may wait for it, so it doesn't end with the caller who came first.
		from, err := source(s.ctx)
		if err != nil {
			return nil, err
		}
		return nil, s.place(path, size, func(at string) error { return disk.CopySparse(s.ctx, from, at) })
	})
	if err != nil {
		return "", fmt.Errorf("make the bytes of seed image %s: %w", name, err)
	}
	return path, nil
}
