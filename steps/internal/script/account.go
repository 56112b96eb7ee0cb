package script

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/gildhq/gild/engine/step"
)

// Account is a user of a machine. The zero Account is root, as whom commands run anyway.
type Account struct {
	// Name is empty for root.
	Name string
	// UID and GID are numbers.
	UID, GID string
	Home     string
}

// LookUp finds a user on the machine; an empty name is root.
func LookUp(ctx context.Context, m step.MachineHandle, name string) (Account, error) {
	if name == "" {
		return Account{}, nil
	}
	var entry bytes.Buffer
	err := m.Exec(ctx, step.Cmd{Argv: []string{"getent", "passwd", name}, Stdout: &entry})
	var exit *step.ExitError
	if errors.As(err, &exit) {
		return Account{}, &step.Permanent{Err: fmt.Errorf("user %q doesn't exist on the machine", name)}
	}
	if err != nil {
		return Account{}, fmt.Errorf("look up user %q: %w", name, err)
	}
	fields := strings.Split(strings.TrimSpace(entry.String()), ":")
	if len(fields) != 7 {
		return Account{}, fmt.Errorf("look up user %q: unexpected entry %q", name, entry.String())
	}
	return Account{Name: fields[0], UID: fields[2], GID: fields[3], Home: fields[5]}, nil
}

// Env returns what a login of the account would set, and given, which wins.
func (a Account) Env(given map[string]string) map[string]string {
	env := map[string]string{}
	if a.Name != "" {
		env["HOME"], env["USER"], env["LOGNAME"] = a.Home, a.Name, a.Name
	}
	maps.Copy(env, given)
	return env
}

// Become is the command that runs the rest of its arguments as the account. It is empty
// for root.
func (a Account) Become() []string {
	if a.Name == "" {
		return nil
	}
	return []string{"setpriv", "--reuid=" + a.UID, "--regid=" + a.GID, "--init-groups", "--"}
}
