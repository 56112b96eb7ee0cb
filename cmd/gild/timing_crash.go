//go:build crashtest

package main

import (
	"time"

	"github.com/gildhq/gild/engine/builder/aws"
	"github.com/gildhq/gild/engine/builder/aws/client"
)

// awsTiming is for a sandbox on this machine whose pending states end at once, which tests
// build on hundreds of times.
func awsTiming() aws.Timing {
	return aws.Timing{
		Timing: client.Timing{Attempt: 10 * time.Second, Settling: 2 * time.Second, Backoff: 5 * time.Millisecond},
		Poll:   10 * time.Millisecond, PollMost: 100 * time.Millisecond, Looks: 60 * time.Millisecond, Command: 60 * time.Millisecond,
	}
}
