package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/gildhq/gild/engine"
	"github.com/gildhq/gild/engine/builder/aws"
	"github.com/gildhq/gild/engine/sandbox"
	"github.com/gildhq/gild/engine/sandbox/seed"
	"github.com/gildhq/gild/engine/sandbox/vm"
)

// sandboxAddress is where a sandbox listens unless it is told otherwise.
const sandboxAddress = "127.0.0.1:4567"

type sandboxOptions struct {
	dir, listen string
	speed       float64
	fresh       bool
	noImages    bool
}

func (a *app) sandboxCommand() *cobra.Command {
	var o sandboxOptions
	cmd := &cobra.Command{
		Use:   "sandbox",
		Short: "Rehearse on a stand-in for AWS, with real machines",
		Long: `Sandbox answers as EC2, EBS direct, SSM, STS, KMS, IAM and EC2 Instance Connect do, as
far as gild uses them, for any AWS SDK or command line. Its instances are virtual
machines on this host: steps really change them, and the images made of them hold real
bytes, which "gild sandbox export" writes as a disk that boots anywhere. No account is
needed and nothing is sent to AWS.

It runs until Ctrl-C; then its machines are shut down, and their instances stopped. What
there is stays in its folder for the next time. The first start builds the first image, a
Debian 12, which takes a minute or two. Every access key "sandbox" with the secret
"sandbox" acts in account ` + sandbox.DefaultAccount + `, and AKIA followed by twelve digits and
anything, with the same secret, in the account of these digits.

An instance's ports are reached at its public address, one of 127.8.0.0/16, which only
root may listen on below 1024: as another user, connect through SSM, or do once as root
sysctl net.ipv4.ip_unprivileged_port_start=22`,
		Example: `  gild sandbox
  gild sandbox --speed 10 --fresh              # ten times as fast as AWS, with nothing in it
  gild sandbox export ami-0123456789abcdef0 disk.raw
  gild sandbox faults --throttle 0.3 --lost 0.05`,
		Args: argsBetween(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.sandbox(cmd, o) },
	}
	flags := cmd.Flags()
	flags.StringVar(&o.dir, "dir", "", "keep everything in this `FOLDER` (default sandbox in the state folder)")
	flags.StringVar(&o.listen, "listen", sandboxAddress, "listen on this loopback `ADDRESS`; port 0 takes a free one")
	flags.Float64Var(&o.speed, "speed", 0, "let things take as long as on AWS, divided by `N`; 0 makes them as quick as they can be")
	flags.BoolVar(&o.fresh, "fresh", false, "begin without what was made the last time; the first image isn't built again")
	flags.BoolVar(&o.noImages, "no-images", false, "begin without the first images: there is nothing to launch then")
	cmd.AddCommand(a.sandboxExportCommand(), a.sandboxCallsCommand(), a.sandboxFaultsCommand())
	return cmd
}

func (a *app) sandbox(cmd *cobra.Command, o sandboxOptions) (err error) {
	if o.speed < 0 {
		return usagef(cmd, "--speed is %v, but must be at least 0", o.speed)
	}
	if err := loopback(cmd, o.listen); err != nil {
		return err
	}
	ctx, stop := a.interruptible(cmd.Context(), nil)
	defer stop()
	s, err := a.startSandbox(ctx, o)
	if err != nil {
		return err
	}
	if err := a.explainSandbox(s.url()); err != nil {
		return errors.Join(err, s.close())
	}
	select {
	case err := <-s.failed:
		return errors.Join(fmt.Errorf("serve the sandbox: %w", err), s.close())
	case <-ctx.Done():
		a.say("shutting the machines down; Ctrl-C again exits at once")
		return s.close()
	}
}

// sandboxFlag adds --sandbox to a command that [app.onSandbox] runs.
func (a *app) sandboxFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&a.inSandbox, "sandbox", false, "in place of AWS use a sandbox that runs as long as this command; see gild sandbox --help")
}

// onSandbox runs fn, with --sandbox while a sandbox stands in for AWS. The command has
// --builder too, which is aws then.
func (a *app) onSandbox(cmd *cobra.Command, fn func() error) (err error) {
	if !a.inSandbox {
		return fn()
	}
	if err := exclusive(cmd, "sandbox", "endpoint"); err != nil {
		return err
	}
	flag := cmd.Flags().Lookup("builder")
	if flag.Changed && flag.Value.String() != aws.Kind {
		return usagef(cmd, "--sandbox stands in for AWS, and --builder is %q", flag.Value)
	}
	if err := flag.Value.Set(aws.Kind); err != nil {
		return err
	}
	ctx, stop := a.interruptible(cmd.Context(), nil)
	s, err := a.startSandbox(ctx, sandboxOptions{listen: "127.0.0.1:0"})
	stop()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	a.cloud.Endpoint = s.url()
	a.cloud.Credentials = credentials.NewStaticCredentialsProvider(sandbox.DefaultKey, sandbox.DefaultKey, "")
	return fn()
}

// runningSandbox is a sandbox that answers.
type runningSandbox struct {
	release  func() error // gives its folder back
	server   *sandbox.Server
	listener net.Listener
	http     *http.Server
	failed   chan error // gets an error when it stops answering by itself
}

// startSandbox starts a sandbox. ctx bounds the start alone.
func (a *app) startSandbox(ctx context.Context, o sandboxOptions) (_ *runningSandbox, err error) {
	dir, release, err := a.sandboxFolder(o)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", o.listen)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the sandbox: %w; name another address with --listen", err), release())
	}
	server, err := a.openSandbox(ctx, dir, o)
	if err != nil {
		return nil, errors.Join(err, listener.Close(), release())
	}
	s := &runningSandbox{
		release: release, server: server, listener: listener, failed: make(chan error, 1),
		http: &http.Server{Handler: server.Handler(), ReadHeaderTimeout: 10 * time.Second},
	}
	go func() { s.failed <- s.http.Serve(listener) }()
	return s, nil
}

func (s *runningSandbox) url() string { return "http://" + s.listener.Addr().String() }

// close ends it. Callers are in the middle of nothing that its state doesn't know.
func (s *runningSandbox) close() error {
	return errors.Join(s.http.Close(), s.server.Close(), s.release())
}

// loopback refuses addresses that others could reach: whoever reaches a sandbox can run
// programs in its machines and write files with gild's rights.
func loopback(cmd *cobra.Command, address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return usagef(cmd, "--listen is %q, but must be an address and a port, such as %s", address, sandboxAddress)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return usagef(cmd, "--listen is %q, but a sandbox listens on loopback only, such as %s", address, sandboxAddress)
	}
	return nil
}

// sandboxFolder makes the sandbox's folder and takes it for this process.
func (a *app) sandboxFolder(o sandboxOptions) (dir string, release func() error, err error) {
	if dir = o.dir; dir == "" {
		state, err := engine.StateFolder(a.state)
		if err != nil {
			return "", nil, err
		}
		dir = filepath.Join(state, "sandbox")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", nil, fmt.Errorf("make the sandbox's folder: %w; name another with --dir", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", nil, fmt.Errorf("open the sandbox's folder: %w; name another with --dir", err)
	}
	err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("a running sandbox has the folder %s: use it with --endpoint, stop it, or name another folder with --dir", dir)
	}
	if err == nil && o.fresh {
		err = os.RemoveAll(filepath.Join(dir, cloudFolder))
	}
	if err != nil {
		return "", nil, errors.Join(err, lock.Close())
	}
	return dir, lock.Close, nil
}

// In a sandbox's folder.
const (
	cloudFolder = "aws"   // the state of package sandbox
	seedFolder  = "image" // what makes the first image
)

// openSandbox opens the state, with the first images in it.
func (a *app) openSandbox(ctx context.Context, dir string, o sandboxOptions) (*sandbox.Server, error) {
	images, err := a.seedImages(ctx, filepath.Join(dir, seedFolder), o.noImages)
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	c := sandbox.Config{
		Dir: filepath.Join(dir, cloudFolder), Log: log,
		Machines: vm.New(vm.Config{CacheDir: dir, Env: a.proxies(), Log: log}),
	}
	if o.speed > 0 {
		c.Pace = 1 / o.speed
	}
	server, err := sandbox.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	for _, i := range images {
		if _, err := server.AddImage(ctx, i); err != nil {
			return nil, errors.Join(err, server.Close())
		}
	}
	return server, nil
}

// proxies is the environment that leads programs in machines to the proxy that gild's own use.
func (a *app) proxies() map[string]string {
	env := map[string]string{}
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy"} {
		if v := a.getenv(name); v != "" {
			env[name] = v
		}
	}
	return env
}

// explainSandbox prints what leads programs to the sandbox, and how to go on.
func (a *app) explainSandbox(endpoint string) error {
	a.say("the sandbox is ready at %s; give these to the shell that is to use it:", endpoint)
	err := a.print(fmt.Sprintf(`export AWS_ENDPOINT_URL=%s
export AWS_ACCESS_KEY_ID=%[2]s AWS_SECRET_ACCESS_KEY=%[2]s
export AWS_REGION=%[3]s AWS_DEFAULT_REGION=%[3]s
`, endpoint, sandbox.DefaultKey, sandbox.DefaultRegion))
	a.say("then, for example:\n  gild build gild.yaml --builder aws\n  aws ec2 describe-images --owners %s\nCtrl-C ends it.", seed.Debian)
	return err
}
