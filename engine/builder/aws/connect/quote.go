package connect

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/gildhq/gild/engine/step"
)

var variableRE = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// agentPrefix begins the names of the agent's own variables.
const agentPrefix = "_gild_"

// maxRequest bounds a command together with its environment, in bytes of shell text. It is
// about what Linux takes.
const maxRequest = 2 << 20

// quote makes one word of a POSIX shell out of any bytes but NUL.
func quote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// request returns the shell text of a command for agent.sh. It is one list on purpose: a
// shell reads all of it before it runs any, so that no variable has a say in how the rest
// is read.
func request(cmd step.Cmd, minimal map[string]string) (string, error) {
	dir := cmd.Dir
	if dir == "" {
		dir = "/"
	}
	switch {
	case len(cmd.Argv) == 0:
		return "", errors.New("no program given")
	case !path.IsAbs(dir):
		return "", fmt.Errorf("folder %q isn't absolute", dir)
	}
	var b strings.Builder
	b.WriteString("set --")
	for _, word := range cmd.Argv {
		b.WriteString(" " + quote(word))
	}
	fmt.Fprintf(&b, "; cd -- %s || exit 126; unset PWD OLDPWD SHLVL; export", quote(dir))
	env := map[string]string{"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
	maps.Copy(env, minimal)
	maps.Copy(env, cmd.Env)
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if !variableRE.MatchString(name) || strings.HasPrefix(name, agentPrefix) {
			return "", fmt.Errorf("environment variable %q can't be set: give it a name of letters, digits and '_' that begins neither with a digit nor with %q", name, agentPrefix)
		}
		b.WriteString(" " + name + "=" + quote(env[name]))
	}
	text := b.String()
	switch {
	case strings.IndexByte(text, 0) >= 0:
		return "", errors.New("a NUL byte can be in no argument, variable or folder")
	case len(text) > maxRequest:
		return "", fmt.Errorf("the command and its environment take %d bytes, of which %d are allowed: put what is long in a file", len(text), maxRequest)
	}
	return text, nil
}
