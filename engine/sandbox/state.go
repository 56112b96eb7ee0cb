package sandbox

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"
)

// What the other services of this package may use of the state.
//
// Locks. A handler of an [operation] runs with Server.mu held, transitions that are due
// already made, and what it put is on the disk before its answer is sent. It must not wait
// for anything. One that has to (a body to read, a command to run) is marked slow: it runs
// without the lock and uses Server.update around each look at the state or change of it.
// After a change in place of an object its table's put must be called. Check everything
// first, then change: what was put stays also when the handler fails.
//
// Work. Server.background(func(ctx)) starts a goroutine that Close ends and waits for.
//
// Time. call.now, or Server.now() with or without the lock: never time.Now.
//
// Caller. call.account, call.region, call.r.AccessKey, call.principal() (an ARN).
//
// Tables of one's own. openTable[T](ctx, store, "ssm-parameter") in state.open; the id is what
// is unique in the whole sandbox, such as scoped(account, region, name).
//
// Lookups; those that return an error return the one EC2 answers with.
//
//	call.instance(id)          an instance of the caller (*instance: State, Profile (an ARN or ""), ...)
//	call.image(id)             an image the caller may see
//	call.snapshot(id)          a snapshot the caller may see; call.ownSnapshot(id) one that is the caller's
//	Server.machine(id)         the machine behind an instance, or nil when it has none just now
//	Server.snapshotFile(id) the raw file of a snapshot; without the lock, because a seed's bytes may have to be made
//	Server.publicParameter(region, name) the image id behind a seed's SSM parameter name
//	call.tagsOf(id), call.setTags(id, typ, tags)
//	call.tagsAtCreation(types...) the checked TagSpecifications of a request, by resource type
//	call.replay(token, ...)    ClientToken: see token.go
//
// Making a snapshot whose bytes come from elsewhere (EBS direct): call.newSnapshot gives a
// pending one with an empty file of its size at Server.snapshotPath(id); write into it;
// Server.snapshotWritten(id, err) ends it. Set Direct so that a restart leaves it pending.
//
// Hooks, nil until set in newServer:
//
//	Server.findProfile(account, nameOrARN) (profile, bool)  an instance profile, for RunInstances and the metadata service
//	Server.policyOf(principal) (documents []string, known bool)  what IAM lets a principal do
//	Server.findKey(account, region, idOrAlias) (arn, ok)    a KMS key that is enabled; defaultKey(account, region) is that of alias/aws/ebs
//
// Permissions: operation.access lists what a call needs when that is more than the action on
// any resource; parsePolicy and judge decide, for SimulatePrincipalPolicy too; decodeDenial is
// for DecodeAuthorizationMessage.
//
// Credentials: Server.newSession(account, principal, life) makes temporary ones that the
// endpoint accepts from then on.

// state is all that survives. It is guarded by Server.mu.
type state struct {
	store       *store
	images      *table[image]
	snapshots   *table[snapshot]
	volumes     *table[volume]
	instances   *table[instance]
	keys        *table[keyPair]
	groups      *table[group]
	networks    *table[network]
	spots       *table[spotRequest]
	tags        *table[tagSet]
	tokens      *table[token]
	seeds       *table[seed]
	credentials *table[credential]
	settings    *table[settings]
	*services
}

// settings has one row, "".
type settings struct {
	// Offset is how far the clock was turned.
	Offset time.Duration
	// Addresses counts the public addresses given out.
	Addresses int
}

func openState(ctx context.Context, path string) (*state, error) {
	st, err := openStore(ctx, path)
	if err != nil {
		return nil, err
	}
	s := &state{store: st}
	var errs [14]error
	s.images, errs[0] = openTable[image](ctx, st, "image")
	s.snapshots, errs[1] = openTable[snapshot](ctx, st, "snapshot")
	s.volumes, errs[2] = openTable[volume](ctx, st, "volume")
	s.instances, errs[3] = openTable[instance](ctx, st, "instance")
	s.keys, errs[4] = openTable[keyPair](ctx, st, "key-pair")
	s.groups, errs[5] = openTable[group](ctx, st, "security-group")
	s.networks, errs[6] = openTable[network](ctx, st, "network")
	s.spots, errs[7] = openTable[spotRequest](ctx, st, "spot-request")
	s.tags, errs[8] = openTable[tagSet](ctx, st, "tags")
	s.tokens, errs[9] = openTable[token](ctx, st, "token")
	s.seeds, errs[10] = openTable[seed](ctx, st, "seed")
	s.credentials, errs[11] = openTable[credential](ctx, st, "credential")
	s.settings, errs[12] = openTable[settings](ctx, st, "settings")
	s.services, errs[13] = openServices(ctx, st)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, errors.Join(err, st.db.Close())
	}
	if s.settings.get("") == nil {
		s.settings.put("", &settings{})
	}
	return s, nil
}

// scoped makes the id of an object that is unique within an account and region.
func scoped(account, region, name string) string { return account + "/" + region + "/" + name }

// image is an AMI.
type image struct {
	ID, Account, Region string
	Name, Description   string
	// Arch is "x86_64" or "arm64".
	Arch string
	// State is pending, available, failed or disabled.
	State                      string
	ReasonCode, ReasonMessage  string
	BootMode, TPM, IMDS, SRIOV string
	UEFIData                   string
	ENA                        bool
	RootDevice                 string
	Mappings                   []mapping
	Created, Deprecated        time.Time
	LastLaunched, ToldLaunch   time.Time
	// Virtualization is "hvm" or "paravirtual".
	Virtualization string
	// Open says that everybody may copy the bytes, as those of publishers' images.
	Open                      bool
	Public                    bool
	Users, Orgs, Units        []string
	Alias                     string // "amazon"
	SourceInstance            string
	SourceImage, SourceRegion string
	Protected, Cooldown       bool
	ProtectedUntil            time.Time
	Due                       time.Time // when it may become available
	Stuck                     bool
}

// mapping is an entry of a block device mapping.
type mapping struct {
	Device, SnapshotID string
	SizeGiB            int64
	Type               string
	IOPS, Throughput   int64
	Encrypted          bool
	KMSKey             string
	Delete             bool
	Virtual            string
}

// snapshot is immutable once it is completed; its bytes are in a file of its own.
type snapshot struct {
	ID, Account, Region string
	VolumeID            string
	SizeGiB             int64
	// State is pending, completed or error.
	State, StateMessage string
	Description         string
	Encrypted           bool
	KMSKey              string
	Alias               string // of the owner
	Started, Completed  time.Time
	// Bytes that aren't holes.
	Bytes  int64
	Public bool
	Users  []string
	// Seed names the seed image that the bytes are still to be taken from.
	Seed string
	// Direct says that EBS direct writes it.
	Direct bool
	// Expires is when EBS direct gives it up unless another block comes.
	Expires time.Time
	// Fail is what goes wrong with it at the end, or empty.
	Fail  string
	Due   time.Time
	Stuck bool
}

// volume is an EBS volume; its bytes are in a file of its own.
type volume struct {
	ID, Account, Region, Zone string
	SizeGiB                   int64
	Type                      string
	IOPS, Throughput          int64
	Encrypted                 bool
	KMSKey                    string
	SnapshotID                string
	// State is creating, available, in-use or error.
	State   string
	Created time.Time
	Due     time.Time
	Stuck   bool
	// Instance it is attached to as Device, or empty.
	Instance, Device string
	Delete           bool
	Attached         time.Time
}

// instance is an EC2 instance.
type instance struct {
	ID, Account, Region, Zone string
	Reservation               string
	Index                     int64
	ImageID, Type, Arch       string
	// State is pending, running, stopping, stopped, shutting-down or terminated.
	State                     string
	Transition                string // "User initiated (2026-11-23 09:00:00 GMT)"
	ReasonCode, ReasonMessage string
	Launched, Started, Ended  time.Time
	Due                       time.Time
	Stuck                     bool
	// Machine says that a machine was made for it: it can't be running without.
	Machine                  bool
	BootMode, TPM            string // TPM of its image
	ImageBootMode, ImageIMDS string // what its image had, for images made of it
	ENA                      bool
	RootDevice               string
	VPC, Subnet              string
	Private, Address         string // Address is kept for the instance also without PublicIP
	PublicIP                 bool
	MAC, Interface           string
	Groups                   []string
	KeyName, PublicKey       string
	// Profile is the ARN of the instance profile, or empty.
	Profile, ProfileID    string
	Association           string
	UserData              []byte
	ClientToken           string
	SpotRequest           string
	Interrupt             time.Time // a spot interruption, announced two minutes ahead
	Shutdown              string    // "stop" or "terminate"
	NoTermination, NoStop bool
	EBSOptimized          bool
	Monitoring            string
	Tenancy               string
	Metadata              metadataOptions
	// Active holds keys pushed by Instance Connect, by user.
	Active map[string][]activeKey
}

// activeKey is an SSH key that may be used until a time.
type activeKey struct {
	Key   string
	Until time.Time
}

type metadataOptions struct {
	Tokens, Endpoint, Tags, IPv6 string
	Hops                         int64
}

// alive reports whether an instance still has its resources.
func (i *instance) alive() bool { return i.State != "terminated" && i.State != "shutting-down" }

// credential is an access key made at run time.
type credential struct {
	AccessKey, Secret, Token string
	Account, Principal       string
	Expires                  time.Time
}

// paths below Config.Dir

func (s *Server) snapshotPath(id string) string {
	return filepath.Join(s.cfg.Dir, "snapshots", id+".raw")
}

func (s *Server) volumePath(id string) string {
	return filepath.Join(s.cfg.Dir, "volumes", id+".raw")
}

func (s *Server) machineDir(id string) string { return filepath.Join(s.cfg.Dir, "machines", id) }

func (s *Server) scratch() string { return filepath.Join(s.cfg.Dir, "scratch") }

// makeDirs makes the folders of the state, private to the user.
func makeDirs(dir string) error {
	for _, name := range []string{"snapshots", "volumes", "machines", "scratch", "seeds"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			return err
		}
	}
	return nil
}
