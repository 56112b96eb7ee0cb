package main

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/broker"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

// The variables by which a step's program reaches the step's target.
const (
	targetEnv      = "GILD_TARGET"
	targetTokenEnv = "GILD_TARGET_TOKEN"
)

// exitNotRun is the exit status of `target exec` when gild, and not the command, failed.
const exitNotRun = 125

// targetCommand is for programs and not for people, so the help of gild leaves it out.
func (a *app) targetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "target",
		Short: "Work on the machine of a step, from a plugin's script",
		Long: `The commands of target are for the programs of plugins of kind exec. They find the
step that they work for in the variables GILD_TARGET and GILD_TARGET_TOKEN, which a
program has while its step runs. In scripts, call them by "$GILD" target.`,
		Example: "  gild target exec --network -- apt-get install -y nginx",
		Hidden:  true,
		Args:    needSubcommand,
		RunE:    func(*cobra.Command, []string) error { return nil },
	}
	cmd.AddCommand(a.targetFactsCommand(), a.targetExecCommand(), a.targetPutCommand(), a.targetGetCommand(),
		a.targetDialCommand(), a.targetConsoleCommand(), a.targetInputCommand(), a.targetClaimCommand(), a.targetSettleCommand())
	return cmd
}

// withTarget connects to the step's target. Signals end what is done with it.
func (a *app) withTarget(ctx context.Context, do func(ctx context.Context, c *broker.Client) error) (err error) {
	address, token := a.getenv(targetEnv), a.getenv(targetTokenEnv)
	if address == "" || token == "" {
		return invalid("%s and %s are not set: this works only in a plugin's program while its step runs", targetEnv, targetTokenEnv)
	}
	ctx, stop := a.interruptible(ctx, nil)
	defer stop()
	c, err := broker.Dial(address, token)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	return do(ctx, c)
}

// withMachine connects to the step's machine. As the machine is asked, and not this
// process, whether it is a guest, all of them are taken for one.
func (a *app) withMachine(ctx context.Context, do func(ctx context.Context, m step.Guest) error) error {
	return a.withTarget(ctx, func(ctx context.Context, c *broker.Client) error {
		return do(ctx, c.Machine(&pluginv1.MachineInfo{Guest: true}).(step.Guest))
	})
}

type jsonFacts struct {
	OS             string `json:"os"`
	Version        string `json:"version"`
	Arch           string `json:"arch"`
	PackageManager string `json:"package_manager"`
}

func (a *app) targetFactsCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "facts",
		Short:   "Print what the machine is, as JSON",
		Example: "  gild target facts | jq -r .os",
		Args:    argsBetween(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withMachine(cmd.Context(), func(ctx context.Context, m step.Guest) error {
				f, err := m.Facts(ctx)
				if err != nil {
					return err
				}
				return a.printJSON(jsonFacts(f))
			})
		},
	}
}

// targetExecOptions are the flags of `target exec`.
type targetExecOptions struct {
	network bool
	env     []string
	dir     string
}

func (a *app) targetExecCommand() *cobra.Command {
	var opts targetExecOptions
	cmd := &cobra.Command{
		Use:   "exec [--] COMMAND [ARGUMENT...]",
		Short: "Run a command on the machine",
		Long: `Exec runs a command on the machine, with the standard input, output and error of this
one, and ends with its exit status: 128 plus the signal when one ended it, and 125 when
the command couldn't be run at all. No shell is involved unless COMMAND is one.

A script must have read its request before it runs exec: the command would read it.`,
		Example: `  gild target exec --network -- apt-get install -y nginx
  gild target exec --env TOKEN -- sh -c 'curl -H "Authorization: $TOKEN" "$0"' "$url"`,
		Args: argsBetween(1, -1, "a command"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.targetExec(cmd.Context(), opts, args)
		},
	}
	flags := cmd.Flags()
	flags.SetInterspersed(false)
	flags.BoolVar(&opts.network, "network", false, "give the command the host's network")
	flags.StringArrayVar(&opts.env, "env", nil, "set a variable by `NAME=VALUE`, or by NAME to the value it has here, which is the way for secrets")
	flags.StringVar(&opts.dir, "dir", "", "the command's working `FOLDER` on the machine (default /)")
	return cmd
}

func (a *app) targetExec(ctx context.Context, opts targetExecOptions, argv []string) error {
	env, err := a.targetVariables(opts.env)
	if err != nil {
		return err
	}
	err = a.withMachine(ctx, func(ctx context.Context, m step.Guest) error {
		return m.Exec(ctx, step.Cmd{
			Argv: argv, Env: env, Dir: opts.dir, Network: opts.network,
			Stdin: a.stdin, Stdout: a.stdout, Stderr: a.stderr,
		})
	})
	var (
		ended *step.ExitError
		known *exitError
		stop  *interrupted
	)
	switch {
	case err == nil, errors.As(err, &known), errors.As(err, &stop):
		return err
	case errors.As(err, &ended):
		return exitWith(ended.Status)
	default:
		return &exitError{code: exitNotRun, err: err}
	}
}

// targetVariables reads the flag --env.
func (a *app) targetVariables(flags []string) (map[string]string, error) {
	env := map[string]string{}
	for _, v := range flags {
		name, value, ok := strings.Cut(v, "=")
		if !ok {
			value = a.getenv(name)
		}
		if name == "" || strings.ContainsRune(v, 0) {
			return nil, invalid("--env is %q, but must be NAME=VALUE or NAME", v)
		}
		env[name] = value
	}
	return env, nil
}

func (a *app) targetDialCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "dial PORT",
		Short:   "Connect standard input and output to a port of the guest",
		Example: `  printf 'GET / HTTP/1.0\r\n\r\n' | gild target dial 80`,
		Args:    argsBetween(1, 1, "a port"),
		RunE: func(cmd *cobra.Command, args []string) error {
			port, err := strconv.ParseUint(args[0], 10, 16)
			if err != nil || port == 0 {
				return usagef(cmd, "%q is no TCP port from 1 to 65535", args[0])
			}
			return a.withMachine(cmd.Context(), func(ctx context.Context, m step.Guest) error {
				return a.targetDial(ctx, m, int(port))
			})
		},
	}
}

// targetDial copies both ways until the guest has sent all.
func (a *app) targetDial(ctx context.Context, m step.Guest, port int) (err error) {
	conn, err := m.Dial(ctx, port)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	defer context.AfterFunc(ctx, func() {
		// Ends the copy below, which is all that waits.
		_ = conn.Close()
	})()
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(conn, a.stdin)
		if half, ok := conn.(interface{ CloseWrite() error }); ok && err == nil {
			err = half.CloseWrite()
		}
		sent <- err
	}()
	if _, err := io.Copy(a.stdout, conn); err != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	select {
	case err := <-sent:
		return err
	default: // the guest closed first; what it doesn't read is its business
		return nil
	}
}

func (a *app) targetConsoleCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "console",
		Short:   "Print the end of the guest's serial console",
		Example: "  gild target console | tail",
		Args:    argsBetween(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withTarget(cmd.Context(), func(ctx context.Context, c *broker.Client) error {
				text, err := c.Console(ctx)
				if err != nil {
					return err
				}
				return a.print(text)
			})
		},
	}
}

func (a *app) targetClaimCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "claim KIND ID [NOTE]",
		Short: "Record a resource before it is made",
		Long: `Claim records a resource outside of the machine, such as an upload, and prints the
claim. Only when it has returned may the resource be made. KIND is a word of the plugin's
own, ID finds the resource again, and NOTE says to people what it is. If the step doesn't
settle the claim, because it failed or was killed, the plugin's verb "cleanup" gets the
resource.`,
		Example: `  claim=$(gild target claim upload "$url" "the image")`,
		Args:    argsBetween(2, 3, "a kind, an id and perhaps a note"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := step.Resource{Kind: args[0], ID: args[1]}
			if len(args) > 2 {
				r.Note = args[2]
			}
			return a.withTarget(cmd.Context(), func(ctx context.Context, c *broker.Client) error {
				claim, err := c.OpenClaim(ctx, r)
				if err != nil {
					return err
				}
				return a.print(claim + "\n")
			})
		},
	}
}

func (a *app) targetSettleCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "settle CLAIM",
		Short:   "Close a claim: its resource is gone, or is meant to stay",
		Example: `  gild target settle "$claim"`,
		Args:    argsBetween(1, 1, "a claim"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTarget(cmd.Context(), func(ctx context.Context, c *broker.Client) error {
				return c.SettleClaim(ctx, args[0])
			})
		},
	}
}
