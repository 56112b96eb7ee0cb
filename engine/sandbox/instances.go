package sandbox

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/gildhq/gild/engine/builder/local/disk"
)

// stopLimit is how long a machine may take to shut down before it is ended by force.
const stopLimit = 2 * time.Minute

// Reaper is implemented by [Machines] that can find what a dead process left running.
type Reaper interface {
	// Reap ends the machines of these instances. That none of them runs is no error.
	Reap(ctx context.Context, instanceIDs []string) error
}

// Pauser is implemented by a [Machine] that can be held still while its disks are copied,
// so that a snapshot of a running instance is of one moment, as on AWS.
type Pauser interface {
	// Pause returns when nothing is written to the disks any more. resume lets the machine
	// go on; it is called once.
	Pause(ctx context.Context) (resume func() error, err error)
}

// running is a machine behind an instance.
type running struct {
	machine Machine
	// expected says that we end it ourselves.
	expected bool
}

// machine returns the machine behind an instance, or nil when it has none just now. It
// needs the lock; using the machine doesn't.
func (s *Server) machine(id string) Machine {
	if r := s.machines[id]; r != nil {
		return r.machine
	}
	return nil
}

// newAddress gives out a public address. Those given out go round in the loopback network.
func (s *Server) newAddress() string {
	set := s.settings.get("")
	prefix := s.cfg.Loopback.Masked()
	room := 1<<(prefix.Addr().BitLen()-prefix.Bits()) - 2
	for range room {
		set.Addresses = set.Addresses%room + 1
		address := addTo(prefix.Addr(), set.Addresses)
		taken := false
		for _, i := range s.instances.all {
			taken = taken || i.Address == address && i.State != "terminated"
		}
		if !taken {
			s.settings.put("", set)
			return address
		}
	}
	return "" // more instances than addresses: these can't be reached
}

func addTo(base netip.Addr, n int) string {
	b := base.AsSlice()
	for i := len(b) - 1; i >= 0 && n > 0; i-- {
		n += int(b[i])
		b[i] = byte(n)
		n >>= 8
	}
	sum, _ := netip.AddrFromSlice(b)
	return sum.String()
}

func newMAC() string {
	b := make([]byte, 5)
	rand.Read(b)
	return fmt.Sprintf("02:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4])
}

// startMachine copies an instance's disks and starts its machine, in the background. It
// needs the lock.
func (s *Server) startMachine(i *instance) {
	id := i.ID
	s.enqueue(func(ctx context.Context) {
		err := s.bootMachine(ctx, id)
		if err == nil || s.ctx.Err() != nil {
			return
		}
		s.workFailed("start an instance", id, err)
		s.record(func() { s.startFailed(id) })
	}, id)
}

// startFailed ends an instance that couldn't be started, or leaves it stopped when it ran before.
func (s *Server) startFailed(id string) {
	i := s.instances.get(id)
	if i == nil || !i.alive() {
		return
	}
	if i.Started.Equal(i.Launched) {
		s.endInstance(i, s.now(), "Server.InternalError", "Server.InternalError: Internal error on launch")
		return
	}
	s.beginStop(i, s.now(), "Server.InternalError", "Server.InternalError: Internal error on launch")
}

// bootMachine makes sure that an instance's disks have their bytes, and starts its machine.
func (s *Server) bootMachine(ctx context.Context, id string) error {
	spec, volumes, ok := s.machineSpec(id)
	if !ok {
		return nil
	}
	for i, v := range volumes {
		path, err := s.volumeFile(ctx, v.ID, v.SnapshotID, v.SizeGiB)
		if err != nil {
			return err
		}
		spec.Disks[i].Path = path
	}
	if s.cfg.Machines == nil {
		return nil
	}
	if err := errors.Join(os.RemoveAll(spec.Dir), os.MkdirAll(spec.Dir, 0o700)); err != nil {
		return err
	}
	m, err := s.cfg.Machines.Start(ctx, spec)
	if err != nil {
		return err
	}
	return s.adopt(id, m)
}

// adopt takes a machine in, unless its instance is gone by now.
func (s *Server) adopt(id string, m Machine) error {
	r := &running{machine: m}
	s.mu.Lock()
	i := s.instances.get(id)
	wanted := i != nil && i.alive() && !s.closed
	if wanted {
		s.machines[id] = r
	}
	s.mu.Unlock()
	if !wanted {
		return m.Kill()
	}
	s.background(func(context.Context) { s.watch(id, r) })
	return nil
}

// machineSpec describes the machine of an instance that is to run.
func (s *Server) machineSpec(id string) (MachineSpec, []volume, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.instances.get(id)
	if i == nil || !i.alive() || s.machines[id] != nil {
		return MachineSpec{}, nil, false
	}
	t, _ := findType(i.Type)
	spec := MachineSpec{InstanceID: id, Arch: goArch(i.Arch), Firmware: "bios", MemoryMiB: int(t.memoryMiB), CPUs: int(t.cpus),
		Address: i.Address, Ports: s.portsOf(i), Metadata: s.metadata(id), Dir: s.machineDir(id)}
	if i.BootMode == "uefi" {
		spec.Firmware = "uefi"
	}
	var volumes []volume
	for _, v := range s.attached(i) {
		volumes = append(volumes, *v)
		spec.Disks = append(spec.Disks, MachineDisk{Device: v.Device, VolumeID: v.ID})
	}
	return spec, volumes, true
}

func goArch(arch string) string {
	if arch == "x86_64" {
		return "amd64"
	}
	return arch
}

// watch waits for the end of a machine. One that ends by itself was shut down from inside.
func (s *Server) watch(id string, r *running) {
	<-r.machine.Done()
	s.record(func() {
		if s.machines[id] == r {
			delete(s.machines, id)
		}
		i := s.instances.get(id)
		if r.expected || i == nil || !i.alive() || s.closed {
			return
		}
		const code = "Client.InstanceInitiatedShutdown"
		if i.Shutdown == "terminate" {
			s.endInstance(i, s.now(), code, code+": Instance initiated shutdown")
			s.endSpot(i, "closed", "instance-terminated-by-user")
			return
		}
		s.beginStop(i, s.now(), code, code+": Instance initiated shutdown")
	})
}

// expectEnd returns the machine of an instance that is about to be ended from here.
func (s *Server) expectEnd(id string) Machine {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.machines[id]
	if r == nil {
		return nil
	}
	r.expected = true
	return r.machine
}

// killMachine ends the machine of an instance at once, and removes its folder.
func (s *Server) killMachine(id string) {
	if m := s.expectEnd(id); m != nil {
		s.workFailed("end a machine", id, m.Kill())
		<-m.Done()
		s.forget(id, m)
	}
	s.workFailed("remove a machine's folder", id, os.RemoveAll(s.machineDir(id)))
}

// shutDown shuts the machine of an instance down, so that its disks are whole.
func (s *Server) shutDown(ctx context.Context, id string) {
	m := s.expectEnd(id)
	if m == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, stopLimit)
	defer cancel()
	if err := m.Stop(ctx); err != nil {
		s.workFailed("shut a machine down", id, err)
		s.workFailed("end a machine", id, m.Kill())
	}
	<-m.Done()
	s.forget(id, m)
}

func (s *Server) forget(id string, m Machine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.machines[id]; r != nil && r.machine == m {
		delete(s.machines, id)
	}
}

func (s *Server) rebootMachine(ctx context.Context, id string) {
	s.mu.Lock()
	m := s.machine(id)
	s.mu.Unlock()
	if m == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, stopLimit)
	defer cancel()
	s.workFailed("reboot a machine", id, m.Reboot(ctx))
}

// capture copies volumes to new snapshots in the background; pairs are ids of volumes, each
// followed by its snapshot's. The instance, when there is one, is shut down meanwhile and
// started again, or only held still. It needs the lock.
func (s *Server) capture(i *instance, reboot bool, pairs []string) {
	var snapshots, ids []string
	for at := 1; at < len(pairs); at += 2 {
		snapshots = append(snapshots, pairs[at])
	}
	// The snapshots' worker is first: ending the instance doesn't end the work.
	ids = append(slices.Clone(snapshots), volumesOf(pairs)...)
	id := ""
	if i != nil {
		id = i.ID
		ids = append(ids, id)
	}
	s.enqueue(func(ctx context.Context) {
		resume := s.holdStill(ctx, id, reboot)
		errs := make([]error, len(snapshots))
		for at := range snapshots {
			errs[at] = s.captureVolume(ctx, pairs[2*at], snapshots[at])
		}
		resume()
		s.record(func() {
			for at, sn := range snapshots {
				s.snapshotWritten(sn, errs[at])
			}
		})
	}, ids...)
}

func volumesOf(pairs []string) (out []string) {
	for at := 0; at < len(pairs); at += 2 {
		out = append(out, pairs[at])
	}
	return out
}

// holdStill keeps a machine from writing until the function it returns is called.
func (s *Server) holdStill(ctx context.Context, id string, reboot bool) (resume func()) {
	s.mu.Lock()
	m := s.machine(id)
	s.mu.Unlock()
	if m == nil {
		return func() {}
	}
	if reboot {
		s.shutDown(ctx, id)
		return func() {
			s.mu.Lock()
			i := s.instances.get(id)
			again := i != nil && (i.State == "running" || i.State == "pending")
			s.mu.Unlock()
			if !again {
				return
			}
			if err := s.bootMachine(ctx, id); err != nil && s.ctx.Err() == nil {
				s.workFailed("start an instance again", id, err)
				s.record(func() { s.startFailed(id) })
			}
		}
	}
	p, ok := m.(Pauser)
	if !ok {
		return func() {}
	}
	resumed, err := p.Pause(ctx)
	if err != nil {
		s.workFailed("hold a machine still", id, err)
		return func() {}
	}
	return func() { s.workFailed("let a machine go on", id, resumed()) }
}

func (s *Server) captureVolume(ctx context.Context, volumeID, snapshotID string) error {
	s.mu.Lock()
	v := s.volumes.get(volumeID)
	var from string
	var size int64
	if sn := s.snapshots.get(snapshotID); sn != nil {
		size = sn.SizeGiB
	}
	if v != nil {
		from = v.SnapshotID
	}
	s.mu.Unlock()
	path := s.volumePath(volumeID)
	if v != nil {
		var err error
		if path, err = s.volumeFile(ctx, volumeID, from, size); err != nil {
			return err
		}
	}
	return s.place(s.snapshotPath(snapshotID), size*gib, func(at string) error { return disk.CopySparse(ctx, path, at) })
}

// endMachines shuts every machine down, when the sandbox closes.
func (s *Server) endMachines() error {
	s.mu.Lock()
	all := make(map[string]Machine)
	for id, r := range s.machines {
		r.expected = true
		all[id] = r.machine
	}
	s.mu.Unlock()
	errs := make(chan error, len(all))
	ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
	defer cancel()
	for _, m := range all {
		go func() {
			if err := m.Stop(ctx); err != nil {
				err = errors.Join(err, m.Kill())
				errs <- err
				return
			}
			errs <- nil
		}()
	}
	var out error
	for range all {
		out = errors.Join(out, <-errs)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.instances.all {
		s.rest(i)
	}
	return out
}

// rest puts an instance in the state it has when nothing runs: its machine is gone.
func (s *Server) rest(i *instance) {
	if !i.Machine {
		return
	}
	switch i.State {
	case "pending", "running", "stopping":
		i.State = "stopped"
		i.ReasonCode, i.ReasonMessage = "Server.ScheduledStop", "Server.ScheduledStop: The sandbox was stopped"
		s.instances.put(i.ID, i)
	case "shutting-down":
		i.Due = time.Time{}
		s.instances.put(i.ID, i)
	}
}
