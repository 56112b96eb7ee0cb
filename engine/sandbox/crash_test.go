package sandbox_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/gildhq/gild/engine/sandbox"
)

// child serves a sandbox until it is killed, and prints its address.
func child(dir string) int {
	s, err := sandbox.Open(context.Background(), sandbox.Config{Dir: dir})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if _, err := s.AddImage(context.Background(), sandbox.SeedImage{Account: publisher, Name: "base", SizeGiB: 1}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Printf("http://%s\n", l.Addr())
	fmt.Fprintln(os.Stderr, http.Serve(l, s.Handler()))
	return 1
}

// startChild starts a sandbox in a process of its own.
func startChild(t *testing.T, dir string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Env = append(os.Environ(), "GILD_SANDBOX_CHILD="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	url, err := bufio.NewReader(out).ReadString('\n')
	must(t, err)
	return cmd, strings.TrimSpace(url)
}

// promises is what a sandbox has answered, and so must still hold.
type promises struct {
	mu        sync.Mutex
	count     int
	instances map[string]string // client token to id
	keys      map[string]bool   // whether it is there
	tagged    map[string]bool
	snapshots map[string]bool
}

func (p *promises) note(f func()) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	p.count++
	return p.count
}

// Whenever a sandbox is killed, everything it has answered holds when it is opened again.
func TestKilled(t *testing.T) {
	t.Parallel()
	for _, after := range []int{1, 20, 90} {
		t.Run(fmt.Sprintf("after %d answers", after), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			cmd, url := startChild(t, dir)
			p := &promises{instances: map[string]string{}, keys: map[string]bool{}, tagged: map[string]bool{}, snapshots: map[string]bool{}}
			c := (&world{URL: url}).mine(t)
			base := aws.ToString(describe(t, c).ImageId)
			var wg sync.WaitGroup
			errs := make([]error, 4)
			for worker := range errs {
				wg.Go(func() {
					errs[worker] = p.work(t.Context(), c, base, worker, after, func() { must(t, cmd.Process.Kill()) })
				})
			}
			wg.Wait()
			if p.count < after {
				t.Errorf("only %d calls were answered: %v", p.count, errors.Join(append(errs, cmd.Process.Kill())...))
			}
			if err := cmd.Wait(); err == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("the sandbox ended with %v", err)
			}
			p.check(t, open(t, sandbox.Config{Dir: dir}), base)
		})
	}
}

func describe(t *testing.T, c *ec2.Client) types.Image {
	t.Helper()
	out, err := c.DescribeImages(t.Context(), &ec2.DescribeImagesInput{})
	must(t, err)
	return out.Images[0]
}

// work makes and removes things until the sandbox is gone; the answer with the number after
// is the one that is followed by the kill. It returns the error that ended it.
func (p *promises) work(ctx context.Context, c *ec2.Client, base string, worker, after int, kill func()) error {
	done := func(err error, note func()) bool {
		if err != nil {
			return false
		}
		if p.note(note) == after {
			kill()
		}
		return true
	}
	for n := 0; ; n++ {
		name := fmt.Sprintf("w%d-%d", worker, n)
		_, err := c.CreateKeyPair(ctx, &ec2.CreateKeyPairInput{KeyName: &name, KeyType: "ed25519"})
		if !done(err, func() { p.keys[name] = true }) {
			return err
		}
		out, err := c.RunInstances(ctx, runInput(base, func(in *ec2.RunInstancesInput) { in.ClientToken = &name }))
		var id, volume string
		if !done(err, func() { id = *out.Instances[0].InstanceId; p.instances[name] = id }) {
			return err
		}
		_, err = c.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{id}, Tags: []types.Tag{{Key: aws.String("by"), Value: &name}}})
		if !done(err, func() { p.tagged[id] = true }) {
			return err
		}
		volumes, err := c.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{Filters: []types.Filter{filter("attachment.instance-id", id)}})
		if !done(err, func() { volume = *volumes.Volumes[0].VolumeId }) {
			return err
		}
		sn, err := c.CreateSnapshot(ctx, &ec2.CreateSnapshotInput{VolumeId: &volume})
		if !done(err, func() { p.snapshots[*sn.SnapshotId] = true }) {
			return err
		}
		if n%2 == 0 {
			continue
		}
		// While it is being removed either is right.
		p.mu.Lock()
		delete(p.keys, name)
		p.mu.Unlock()
		_, err = c.DeleteKeyPair(ctx, &ec2.DeleteKeyPairInput{KeyName: &name})
		if !done(err, func() { p.keys[name] = false }) {
			return err
		}
		_, err = c.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{id}})
		if !done(err, func() { p.instances[name] = "" }) {
			return err
		}
	}
}

func (p *promises) check(t *testing.T, w *world, base string) {
	t.Helper()
	ctx, c := t.Context(), w.mine(t)
	for name, there := range p.keys {
		_, err := c.DescribeKeyPairs(ctx, &ec2.DescribeKeyPairsInput{KeyNames: []string{name}})
		if there != (err == nil) {
			t.Errorf("key pair %s: %v, want it there: %v", name, err, there)
		}
	}
	for name, id := range p.instances {
		out, err := c.RunInstances(ctx, runInput(base, func(in *ec2.RunInstancesInput) { in.ClientToken = &name }))
		switch {
		case id == "":
			wantCode(t, "IdempotentInstanceTerminated", err)
		case code(err) == "IdempotentInstanceTerminated": // its end was asked for and not answered
		case err != nil || *out.Instances[0].InstanceId != id:
			t.Errorf("the token %s doesn't give %s again: %v", name, id, err)
		}
	}
	for id := range p.tagged {
		if i := instance(t, c, &id); len(i.Tags) != 1 {
			t.Errorf("instance %s has the tags %v", id, i.Tags)
		}
	}
	for id := range p.snapshots {
		eventually(t, "snapshot "+id+" is completed or failed", func() bool {
			out, err := c.DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{id}})
			must(t, err)
			if out.Snapshots[0].State == "completed" {
				if _, err := w.SnapshotFile(id); err != nil {
					t.Errorf("snapshot %s is completed and has no bytes: %v", id, err)
				}
			}
			return out.Snapshots[0].State != "pending"
		})
	}
}
