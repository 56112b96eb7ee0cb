package conformance

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	"github.com/gildhq/gild/engine/lock"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

func checkStarts(ctx context.Context, s *session) verdict {
	p, err := s.launch.start(ctx, false)
	if err != nil {
		s.dead = "the plugin doesn't start"
		return fails("%v", err)
	}
	s.p = p
	s.described, err = s.describe(ctx, p)
	if err != nil {
		return fails("%v", err)
	}
	return saw("in %v", p.started.Round(time.Millisecond))
}

func (s *session) describe(ctx context.Context, p *process) (*pluginv1.DescribeResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Within)
	defer cancel()
	answer, err := p.client.Describe(ctx, &pluginv1.DescribeRequest{GildVersion: describeVersion})
	if err != nil {
		return nil, fmt.Errorf("ask it to describe itself: %w", err)
	}
	return answer, nil
}

func checkHandshake(_ context.Context, s *session) verdict {
	text := string(s.p.stdout.Bytes())
	if before, _, _ := strings.Cut(text, s.p.handshake); before != "" {
		return fails("%q stands on its standard output before the handshake; send logs to standard error", before)
	}
	line, _ := strings.CutSuffix(s.p.handshake, "\n")
	fields := strings.Split(line, "|")
	cert := ""
	if s.launch.tls {
		cert = "CERTIFICATE"
	}
	want := fmt.Sprintf("1|%d|unix|%s/SOCKET|grpc|%s", pluginv1.Version, s.p.sockets, cert)
	ok := len(fields) == 6 && fields[0] == "1" && fields[1] == fmt.Sprint(pluginv1.Version) && fields[2] == "unix" &&
		strings.HasPrefix(fields[3], s.p.sockets+"/") && fields[4] == "grpc" && (fields[5] != "") == s.launch.tls
	if !ok {
		return fails("got  %s\nwant %s", line, want)
	}
	return holds()
}

func checkHealth(ctx context.Context, s *session) verdict {
	ctx, cancel := context.WithTimeout(ctx, s.options.Within)
	defer cancel()
	answer, err := grpc_health_v1.NewHealthClient(s.p.conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "plugin"})
	if err != nil {
		return fails("ask grpc.health.v1.Health about \"plugin\": %v", err)
	}
	if answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		return fails("the service \"plugin\" is %v, not SERVING", answer.GetStatus())
	}
	return holds()
}

func checkDescribe(ctx context.Context, s *session) verdict {
	again, err := s.describe(ctx, s.p)
	if err != nil {
		return fails("%v", err)
	}
	if d := difference(s.described, again); d != "" {
		return fails("one process, asked twice, tells %s differently", d)
	}
	return s.with(ctx, false, func(p *process) verdict {
		other, err := s.describe(ctx, p)
		if err != nil {
			return fails("%v", err)
		}
		if d := difference(s.described, other); d != "" {
			return fails("two processes tell %s differently; gild keeps the description by the plugin's digest", d)
		}
		return holds()
	})
}

// difference names the first thing in which two descriptions differ.
func difference(a, b *pluginv1.DescribeResponse) string {
	switch {
	case a.GetName() != b.GetName():
		return "the plugin's name"
	case a.GetVersion() != b.GetVersion():
		return "the plugin's version"
	case len(a.GetSteps()) != len(b.GetSteps()):
		return "how many steps there are"
	}
	for i, step := range a.GetSteps() {
		if !proto.Equal(step, b.GetSteps()[i]) {
			return fmt.Sprintf("step %q", step.GetName())
		}
	}
	return ""
}

var (
	stepRest   = regexp.MustCompile(`^(/[a-z0-9][a-z0-9-]*)*$`)
	outputName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_-]*$`)
	sections   = []string{"customize", "tests", "publish"}
	types      = []string{"string", "integer", "number", "boolean", "list"}
)

func checkNames(_ context.Context, s *session) verdict {
	var wrong []string
	add := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	d, m := s.described, s.content.Manifest
	switch {
	case !lock.ValidPluginName(d.GetName()):
		add("the plugin's name is %q, not like acme/agent", d.GetName())
	case m.Name != "" && m.Name != d.GetName():
		add("the plugin's name is %q, and its plugin.yaml says %q", d.GetName(), m.Name)
	}
	switch {
	case !lock.ValidVersion(d.GetVersion()):
		add("the plugin's version is %q, not like 1.2.3", d.GetVersion())
	case m.Version != "" && m.Version != d.GetVersion():
		add("the plugin's version is %q, and its plugin.yaml says %q", d.GetVersion(), m.Version)
	}
	if len(d.GetSteps()) == 0 {
		add("it has no steps")
	}
	seen := map[string]bool{}
	for _, step := range d.GetSteps() {
		if seen[step.GetName()] {
			add("two steps are called %q", step.GetName())
		}
		seen[step.GetName()] = true
		wrong = append(wrong, wrongInStep(d.GetName(), step)...)
	}
	if len(wrong) > 0 {
		return fails("%s", strings.Join(wrong, "\n"))
	}
	return saw("%d %s", len(d.GetSteps()), plural(len(d.GetSteps()), "step"))
}

func wrongInStep(plugin string, step *pluginv1.StepType) (wrong []string) {
	add := func(format string, args ...any) {
		wrong = append(wrong, fmt.Sprintf("step %q: ", step.GetName())+fmt.Sprintf(format, args...))
	}
	if rest, ok := strings.CutPrefix(step.GetName(), plugin); !ok || !stepRest.MatchString(rest) {
		add("its name isn't the plugin's, %q, or that with /name behind it", plugin)
	}
	if text := step.GetSummary(); strings.TrimSpace(text) == "" || strings.Contains(text, "\n") {
		add("its summary isn't one line")
	}
	if len(step.GetSections()) == 0 {
		add("it names no section")
	}
	for i, section := range step.GetSections() {
		if !slices.Contains(sections, section) || slices.Contains(step.GetSections()[:i], section) {
			add("the section %q isn't one of %s, or is there twice", section, strings.Join(sections, ", "))
		}
	}
	for name, t := range step.GetOutputs() {
		if !outputName.MatchString(name) {
			add("the output %q has no name that ${{ }} can use", name)
		}
		if !slices.Contains(types, t) {
			add("the output %q has the type %q, not one of %s", name, t, strings.Join(types, ", "))
		}
	}
	slices.Sort(wrong)
	return wrong
}

func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}
