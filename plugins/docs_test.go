package plugins_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/plugins"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

func TestMarkdown(t *testing.T) {
	t.Parallel()
	got, err := plugins.Markdown(plugins.Description{Environment: []string{"HTTPS_PROXY", "NO_PROXY"}, DescribeResponse: &pluginv1.DescribeResponse{Name: "acme/agent", Version: "1.0.0", Steps: []*pluginv1.StepType{
		{
			Name: "acme/agent", Summary: "installs the agent\x1b[2J", Doc: "Some help:\n\n    - uses: acme/agent\n\x1b]0;x\a",
			Sections: []string{"customize", "tests"}, Cacheable: true,
			Schema: []byte(`{"type": "object", "required": ["channel"], "properties": {
				"channel": {"enum": ["stable", "edge"], "default": "stable", "description": "Which one | to follow."},
				"port": {"type": "integer", "minimum": 1, "maximum": 65535},
				"files": {"type": "array", "items": {"type": "string", "format": "gild-path"}},
				"script": {"type": "string", "format": "gild-script"},
				"proxy": {"$ref": "#/$defs/proxy"},
				"hosts": {"type": "array", "items": {"$ref": "#/$defs/proxy"}},
				"size": {"oneOf": [{"type": "string", "pattern": "^[0-9]+GiB$"}, {"type": "integer"}]},
				"loop": {"$ref": "#/$defs/loop"},
				"more": true
			}, "$defs": {
				"proxy": {"type": "object", "required": ["url"], "properties": {"url": {"type": "string", "description": "address"}}},
				"loop": {"$ref": "#/$defs/loop"}
			}}`),
			Outputs: map[string]string{"version": "string", "changed": "boolean"},
		},
		{Name: "acme/agent/remove", Sections: []string{"customize"}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{
		"# acme/agent 1.0.0",
		"",
		"Sees of gild's environment: HTTPS_PROXY, NO_PROXY.",
		"",
		"## acme/agent",
		"",
		`installs the agent\x1b[2J`,
		"",
		"Some help:",
		"",
		"    - uses: acme/agent",
		`\x1b]0;x\x07`,
		"",
		"Stands in customize, tests; a step that is done isn't run again while its key stays the same.",
		"",
		"### with",
		"",
		"| field | type | required | description |",
		"|---|---|---|---|",
		"| `channel` | string | yes | Which one \\| to follow. One of `\"stable\"`, `\"edge\"`. Default: `\"stable\"`. |",
		"| `files` | list of path of the project |  |  |",
		"| `hosts` | list of object |  |  |",
		"| `hosts[].url` | string | yes | address. |",
		"| `loop` | any |  |  |",
		"| `more` | any |  |  |",
		"| `port` | integer |  | At least 1. At most 65535. |",
		"| `proxy` | object |  |  |",
		"| `proxy.url` | string | yes | address. |",
		"| `script` | script, or path of one |  |  |",
		"| `size` | string or integer |  |  |",
		"",
		"### outputs",
		"",
		"| name | type |",
		"|---|---|",
		"| `changed` | boolean |",
		"| `version` | string |",
		"",
		"## acme/agent/remove",
		"",
		"Stands in customize.",
		"",
	}, "\n")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func FuzzMarkdown(f *testing.F) {
	f.Add("text", []byte(`{"properties": {"a": {"items": {"$ref": "#/$defs/a"}}}, "$defs": {"a": {"properties": {"b": {"$ref": "#/$defs/a"}}}}}`))
	f.Fuzz(func(t *testing.T, doc string, schema []byte) {
		text, err := plugins.Markdown(plugins.Description{DescribeResponse: &pluginv1.DescribeResponse{Name: "a/b", Steps: []*pluginv1.StepType{{Name: "a/b", Doc: doc, Schema: schema}}}})
		if err == nil && strings.ContainsAny(text, "\x1b\a\r") {
			t.Errorf("a control character in %q", text)
		}
	})
}
