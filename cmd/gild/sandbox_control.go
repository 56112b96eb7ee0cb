package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/sandbox"
)

func (a *app) sandboxExportCommand() *cobra.Command {
	region := sandbox.DefaultRegion
	cmd := &cobra.Command{
		Use:   "export IMAGE FILE",
		Short: "Write an image's bytes as a raw disk",
		Long: `Export writes the root volume of an image, or a snapshot, of the running sandbox to a
new file: a raw disk that boots on any machine. The file is sparse.`,
		Example: `  gild sandbox export ami-0123456789abcdef0 disk.raw`,
		Args:    argsBetween(2, 2, "an image's or snapshot's id, and a file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := filepath.Abs(args[1])
			if err != nil {
				return err
			}
			in := map[string]string{"region": region, "id": args[0], "path": path}
			return a.askSandbox(cmd.Context(), http.MethodPost, "export", in, nil)
		},
	}
	cmd.Flags().StringVar(&region, "region", region, "the image's `REGION`")
	return cmd
}

func (a *app) sandboxCallsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "calls",
		Short:   "List the calls that the running sandbox has answered",
		Example: `  gild sandbox calls --json | jq '.[] | select(.action == "RunInstances") | .params'`,
		Args:    argsBetween(0, 0, ""),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.sandboxCalls(cmd.Context(), asJSON) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the calls as JSON, with their parameters")
	return cmd
}

func (a *app) sandboxCalls(ctx context.Context, asJSON bool) error {
	calls := []sandbox.Call{}
	if err := a.askSandbox(ctx, http.MethodGet, "calls", nil, &calls); err != nil {
		return err
	}
	if asJSON {
		return a.printJSON(calls)
	}
	var rows [][]string
	for _, c := range calls {
		outcome := "ok"
		if c.Error != "" {
			outcome = c.Error
		}
		for _, f := range c.Faults {
			outcome += " (" + string(f) + ")"
		}
		rows = append(rows, []string{when(c.At), c.Region, c.Service, c.Action, diag.Printable(outcome)})
	}
	return a.printTable("no calls yet", []string{"AT", "REGION", "SERVICE", "ACTION", "OUTCOME"}, rows)
}

func (a *app) sandboxFaultsCommand() *cobra.Command {
	var f sandbox.Faults
	var certain []string
	var none bool
	cmd := &cobra.Command{
		Use:   "faults",
		Short: "Let things go wrong in the running sandbox",
		Long: `Faults replaces what goes wrong in the running sandbox. Rates are parts of all calls, 0
to 1; --call picks certain calls: a kind, a service and an action, and which of those
calls it is, 1 for the first since, or every one. The kinds are throttle, unavailable,
lost (done, but not answered), slow, stuck (pending for ever), capacity (no instances to
be had) and spot-interruption.`,
		Example: `  gild sandbox faults --throttle 0.3 --unavailable 0.1 --lost 0.05
  gild sandbox faults --call lost:ec2.RunInstances:1 --call stuck:ec2.CreateImage
  gild sandbox faults --none`,
		Args: argsBetween(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().NFlag() == 0 || none && cmd.Flags().NFlag() > 1 {
				return usagef(cmd, "%s needs what is to go wrong, or --none alone", cmd.CommandPath())
			}
			for _, text := range certain {
				fault, ok := parseFault(text)
				if !ok {
					return usagef(cmd, "--call is %q, but must be like lost:ec2.RunInstances or lost:ec2.RunInstances:1", text)
				}
				f.List = append(f.List, fault)
			}
			return a.askSandbox(cmd.Context(), http.MethodPost, "faults", f, nil)
		},
	}
	flags := cmd.Flags()
	flags.Float64Var(&f.Throttle, "throttle", 0, "refuse this `PART` of the calls for too many of them")
	flags.Float64Var(&f.Unavailable, "unavailable", 0, "fail this `PART` of the calls before anything has happened")
	flags.Float64Var(&f.Lost, "lost", 0, "do what this `PART` of the calls ask for, and don't answer")
	flags.Float64Var(&f.Slow, "slow", 0, "answer this `PART` of the calls two seconds late")
	flags.IntVar(&f.Lag, "lag", 0, "let new ids not be found the first `N` times")
	flags.Uint64Var(&f.Seed, "seed", 0, "throw the dice by this `NUMBER`")
	flags.StringArrayVar(&certain, "call", nil, "let certain calls go wrong, as `KIND:SERVICE.ACTION[:N]`; may be repeated")
	flags.BoolVar(&none, "none", false, "let nothing go wrong any more")
	return cmd
}

func parseFault(text string) (sandbox.Fault, bool) {
	parts := strings.Split(text, ":")
	if len(parts) < 2 || len(parts) > 3 {
		return sandbox.Fault{}, false
	}
	service, action, ok := strings.Cut(parts[1], ".")
	f := sandbox.Fault{Kind: sandbox.FaultKind(parts[0]), Service: service, Action: action}
	if len(parts) == 3 {
		n, err := strconv.Atoi(parts[2])
		f.Nth, ok = n, ok && err == nil && n > 0
	}
	return f, ok && parts[0] != "" && service != "" && action != ""
}

// maxSandboxAnswer is far more than 20,000 calls with their parameters.
const maxSandboxAnswer = 1 << 30

// askSandbox asks the running sandbox; in and out may be nil.
func (a *app) askSandbox(ctx context.Context, method, what string, in, out any) (err error) {
	endpoint := a.cloud.Endpoint
	if endpoint == "" {
		endpoint = a.getenv("AWS_ENDPOINT_URL")
	}
	if endpoint == "" {
		endpoint = "http://" + sandboxAddress
	}
	ctx, stop := a.interruptible(ctx, nil)
	defer stop()
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(endpoint, "/")+"/_gild/"+what, bytes.NewReader(body))
	if err != nil {
		return invalid("ask the sandbox: %w; --endpoint is its address, such as http://%s", err, sandboxAddress)
	}
	resp, err := http.DefaultClient.Do(req)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("no sandbox is running at %s: start it with \"gild sandbox\", or name another with --endpoint", endpoint)
	}
	if err != nil {
		return fmt.Errorf("ask the sandbox: %w", err)
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	return readAnswer(resp, out)
}

func readAnswer(resp *http.Response, out any) error {
	body := io.LimitReader(resp.Body, maxSandboxAnswer)
	if resp.StatusCode != http.StatusOK {
		var refusal struct{ Error string }
		if err := json.NewDecoder(body).Decode(&refusal); err != nil || refusal.Error == "" {
			return fmt.Errorf("the sandbox answered %s: is it one?", resp.Status)
		}
		return errors.New(refusal.Error)
	}
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(body).Decode(out); err != nil {
		return fmt.Errorf("read the sandbox's answer: %w", err)
	}
	return nil
}
