package aws

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/gildhq/gild/engine/step"
)

//go:embed freeze.sh
var freezeScript string

// freezeWithin is how long a machine may take to switch itself off: the script's pauses, and
// what EC2 needs to notice.
const freezeWithin = 2 * time.Minute

// freeze has the machine switch itself off without writing any more, and ends the connection
// to it. One that can't is said to be shut down instead.
func (m *maker) freeze(ctx context.Context, in *instance) error {
	if in.conn == nil {
		return nil
	}
	err := in.conn.Exec(ctx, step.Cmd{Argv: []string{"/bin/sh", "-c", freezeScript}, Stdout: io.Discard, Stderr: m.req.Log})
	// A machine that is off can't be told to tidy up, and would be asked for half a minute.
	in.conn.Close()
	in.conn = nil
	if err == nil {
		limited, cancel := context.WithTimeoutCause(ctx, freezeWithin, errors.New("it stayed on"))
		defer cancel()
		_, err = m.region.instances.Wait(limited, in.id, func(i types.Instance, found bool) (bool, error) {
			return !found || i.State.Name != types.InstanceStateNameRunning, nil
		})
	}
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("switch %s in %s off: %w", in.id, m.region.Name, cause)
	}
	if err != nil {
		say(m.req.Log, "%s can't switch itself off, and is shut down instead, which writes logs: %v", in.id, err)
	}
	return nil
}
