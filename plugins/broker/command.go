package broker

import (
	"context"
	"fmt"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

// These calls are for programs whose work is spread over several processes, such as a
// script that runs one command after the other. Others have the step's target.

// OpenClaim is [Client.Claim] for a claim that [Client.SettleClaim] of another process may
// settle. It returns the claim's name, which is good until the step ends.
func (c *Client) OpenClaim(ctx context.Context, r step.Resource) (claim string, err error) {
	resp, err := c.host.Claim(ctx, &pluginv1.ClaimRequest{Resource: &pluginv1.Resource{Kind: r.Kind, Id: r.ID, Note: r.Note}})
	if err != nil {
		return "", fmt.Errorf("claim %s %q: %w", r.Kind, r.ID, callError(ctx, err))
	}
	return resp.GetClaim(), nil
}

// SettleClaim closes a claim: its resource is gone, or is meant to stay. Doing it again
// changes nothing.
func (c *Client) SettleClaim(ctx context.Context, claim string) error {
	if _, err := c.host.Settle(ctx, &pluginv1.SettleRequest{Claim: claim}); err != nil {
		return fmt.Errorf("settle the claim %q: %w", claim, callError(ctx, err))
	}
	return nil
}

// Console is the guest's Console, with the error that this one has no place for.
func (c *Client) Console(ctx context.Context) (string, error) {
	resp, err := c.machine.Console(ctx, &pluginv1.ConsoleRequest{})
	if err != nil {
		return "", fmt.Errorf("read the console: %w", callError(ctx, err))
	}
	return resp.GetText(), nil
}
