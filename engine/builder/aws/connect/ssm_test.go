package connect

import "testing"

func TestSSM(t *testing.T) {
	t.Parallel()
	h := startHost(t, "yes")
	conform(t, h, openSSM(t, newFakeSSM(h), Options{Env: testEnv}))
}
