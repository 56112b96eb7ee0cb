package host

import "testing"

// A variable that holds a secret of a pipeline isn't passed to a plugin that asks for it.
func TestWithhold(t *testing.T) {
	t.Setenv("GILD_TEST_TOKEN", "secret")
	t.Setenv("GILD_TEST_PROXY", "proxy")
	h := newHost(t, nil)
	h.Withhold([]string{"GILD_TEST_TOKEN"})
	h.Withhold([]string{"GILD_TEST_OTHER"})
	c := plugin{binary: true, manifest: "environment: [GILD_TEST_PROXY, GILD_TEST_TOKEN]"}.install(t, h.cfg.Store)
	env := environmentIn(t, h, c)
	if value, ok := env["GILD_TEST_TOKEN"]; ok {
		t.Errorf("the plugin sees the secret %q", value)
	}
	if env["GILD_TEST_PROXY"] != "proxy" {
		t.Errorf("GILD_TEST_PROXY is %q", env["GILD_TEST_PROXY"])
	}
}
