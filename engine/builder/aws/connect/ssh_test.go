package connect

import (
	"testing"
)

func openSSH(tb testing.TB, h *host, user string, o Options) *Machine {
	tb.Helper()
	m, err := SSH(tb.Context(), h.instance(user), h.key, o)
	must(tb, err)
	tb.Cleanup(func() { must(tb, m.Close()) })
	return m
}

var testEnv = map[string]string{"CLOCK": "17"}

func TestSSHRoot(t *testing.T) {
	t.Parallel()
	h := startHost(t, "yes")
	conform(t, h, openSSH(t, h, "root", Options{Env: testEnv}))
}

func TestSSHSudo(t *testing.T) {
	t.Parallel()
	h := startHost(t, "no")
	conform(t, h, openSSH(t, h, "", Options{Env: testEnv}))
}
