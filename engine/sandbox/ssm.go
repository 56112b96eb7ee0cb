package sandbox

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gildhq/gild/engine/step"
)

// agentVersion is the version of the agent that instances report.
const agentVersion = "3.3.3050.0"

func ssmOperations() map[string]operation {
	out := quick(map[string]func(*call) (answer, error){
		"AddTagsToResource":           addTagsToResource,
		"CancelCommand":               cancelCommand,
		"DeleteParameter":             deleteParameter,
		"DescribeInstanceInformation": describeInstanceInformation,
		"GetCommandInvocation":        getCommandInvocation,
		"GetParameter":                getParameter,
		"GetParameterHistory":         getParameterHistory,
		"GetParameters":               getParameters,
		"GetParametersByPath":         getParametersByPath,
		"LabelParameterVersion":       labelParameterVersion,
		"ListCommandInvocations":      listCommandInvocations,
		"PutParameter":                putParameter,
		"SendCommand":                 sendCommand,
	})
	for action, op := range out {
		op.access = ssmAccess
		out[action] = op
	}
	return out
}

// ssmAccess are the permissions for a call, on the parameters or instances that it names.
func ssmAccess(c *call) []access {
	action := "ssm:" + c.r.Action
	tags := requestTags(c.p.subs("Tags"))
	var all []access
	for _, text := range append(c.p.texts("Names"), c.p.str("Name"), c.p.str("Path"), c.p.str("ResourceId")) {
		if name, _ := c.named(text); name != "" {
			all = append(all, access{action, c.parameterARN(name), tags})
		}
	}
	switch {
	case c.r.Action == "PutParameter" && len(tags) > 0:
		all = append(all, access{"ssm:AddTagsToResource", all[0].Resource, tags})
	case c.r.Action == "SendCommand":
		return c.sendAccess()
	case len(all) == 0:
		return []access{{action, "*", nil}}
	}
	return all
}

// sendAccess are the permissions for SendCommand: on the document and every instance.
func (c *call) sendAccess() []access {
	document, owner := c.p.str("DocumentName"), c.account
	if strings.HasPrefix(document, "AWS-") {
		owner = ""
	}
	all := []access{{"ssm:SendCommand", partitionARN(c.region, "ssm", owner, "document/"+document), nil}}
	for _, id := range c.targets() {
		keys := map[string][]string{}
		for key, value := range c.tagsOf(id) {
			keys["aws:ResourceTag/"+key] = []string{value}
			keys["ssm:resourceTag/"+key] = []string{value}
		}
		all = append(all, access{"ssm:SendCommand", c.arn(kindInstance.typ, id), keys})
	}
	return all
}

// managedInstance is an instance whose agent has reported.
type managedInstance struct {
	ID                string
	Registered        time.Time
	LastPing          time.Time
	Platform, Version string
	// Machine tells which boot of the instance the agent reported from.
	Machine string
}

// agentRuns reports whether an instance's agent can be reached now. It needs the lock.
func (s *Server) agentRuns(i *instance) bool {
	if i.State != "running" || !s.profileAllows(i) {
		return false
	}
	m := s.machine(i.ID)
	if m == nil {
		return false
	}
	select {
	case <-m.Done():
		return false
	default:
	}
	select {
	case <-m.Ready():
		return true
	default:
		return false
	}
}

// profileAllows reports whether the agent's calls are allowed by the instance's role.
func (s *Server) profileAllows(i *instance) bool {
	if i.Profile == "" {
		return false
	}
	p, ok := s.findProfile(i.Account, i.Profile)
	return ok && p.Role != "" && s.roleAllows(p.Role, "ssm:UpdateInstanceInformation")
}

// meet looks at an instance: its agent reports some time after the first look at which the
// machine answers, as soon as it has said what system it is. It needs the lock.
func (s *Server) meet(i *instance) *managedInstance {
	known := s.managed.get(i.ID)
	if !s.agentRuns(i) {
		return known
	}
	if known != nil {
		known.LastPing = s.now()
		return known
	}
	if s.meeting[i.ID] {
		return nil
	}
	s.meeting[i.ID] = true
	id, m := i.ID, s.machine(i.ID)
	s.background(func(ctx context.Context) {
		platform, version, err := askSystem(ctx, m)
		s.record(func() {
			delete(s.meeting, id)
			if err != nil {
				s.cfg.Log.Warn("sandbox: the agent of an instance doesn't answer", "instance", id, "error", err)
				return
			}
			if now := s.now(); s.managed.get(id) == nil {
				s.managed.put(id, &managedInstance{ID: id, Registered: now, LastPing: now, Platform: platform, Version: version})
			}
		})
	})
	return nil
}

// askSystem runs a first command, which also shows that the agent works.
func askSystem(ctx context.Context, m Machine) (name, version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var out bytes.Buffer
	err = m.Exec(ctx, step.Cmd{Argv: []string{"cat", "/etc/os-release"}, Stdout: &limited{to: &out, left: 64 << 10}})
	if err != nil {
		return "", "", err
	}
	for line := range strings.Lines(out.String()) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		value = strings.Trim(value, `"'`)
		switch key {
		case "NAME":
			name = value
		case "VERSION_ID":
			version = value
		}
	}
	return name, version, nil
}

func describeInstanceInformation(c *call) (answer, error) {
	match, err := c.instanceFilter()
	if err != nil {
		return nil, err
	}
	at, err := c.ssmPage(5, 50, 10)
	if err != nil {
		return nil, err
	}
	var found []*managedInstance
	for _, i := range c.s.instances.all {
		if !c.mine(i.Account, i.Region) {
			continue
		}
		if m := c.s.meet(i); m != nil && i.alive() && match(i, m) {
			found = append(found, m)
		}
	}
	found, token := cut(c, at, found, func(m *managedInstance) string { return m.ID })
	out := answer{"InstanceInformationList": list(found, func(m *managedInstance) any { return c.informationAnswer(m) })}
	set(out, "NextToken", token)
	return out, nil
}

func (c *call) pingStatus(i *instance) string {
	if c.s.agentRuns(i) {
		return "Online"
	}
	return "ConnectionLost"
}

func (c *call) informationAnswer(m *managedInstance) answer {
	i := c.s.instances.get(m.ID)
	out := answer{"InstanceId": m.ID, "PingStatus": c.pingStatus(i), "LastPingDateTime": m.LastPing, "AgentVersion": agentVersion,
		"IsLatestVersion": true, "PlatformType": "Linux", "ResourceType": "EC2Instance", "IPAddress": i.Private,
		"ComputerName": i.privateName(), "SourceId": m.ID, "SourceType": "AWS::EC2::Instance"}
	set(out, "PlatformName", m.Platform)
	set(out, "PlatformVersion", m.Version)
	return out
}

// instanceFilter reads the filters, which can be written in an old and a new way.
func (c *call) instanceFilter() (func(*instance, *managedInstance) bool, error) {
	old, now := c.p.subs("InstanceInformationFilterList"), c.p.subs("Filters")
	if len(old) > 0 && len(now) > 0 {
		return nil, fail("ValidationException", "InstanceInformationFilterList and Filters can't be used together.")
	}
	type test struct {
		key    string
		values []string
	}
	var tests []test
	for _, f := range old {
		tests = append(tests, test{f.str("key"), f.texts("valueSet")})
	}
	for _, f := range now {
		tests = append(tests, test{f.str("Key"), f.texts("Values")})
	}
	for _, t := range tests {
		if _, ok := c.instanceValue(t.key, nil, nil); !ok {
			return nil, fail("InvalidFilterKey", "The filter key %s is not one that this sandbox knows.", t.key)
		}
	}
	return func(i *instance, m *managedInstance) bool {
		return !slices.ContainsFunc(tests, func(t test) bool {
			value, _ := c.instanceValue(t.key, i, m)
			return !slices.Contains(t.values, value)
		})
	}, nil
}

// instanceValue is what a filter compares; with no instance it tells whether there is such a filter.
func (c *call) instanceValue(key string, i *instance, m *managedInstance) (string, bool) {
	tag, isTag := strings.CutPrefix(key, "tag:")
	known := isTag || slices.Contains([]string{"InstanceIds", "PingStatus", "PlatformTypes", "ResourceType", "AgentVersion"}, key)
	if i == nil || !known {
		return "", known
	}
	switch key {
	case "InstanceIds":
		return m.ID, true
	case "PingStatus":
		return c.pingStatus(i), true
	case "PlatformTypes":
		return "Linux", true
	case "ResourceType":
		return "EC2Instance", true
	case "AgentVersion":
		return agentVersion, true
	}
	return c.tagsOf(i.ID)[tag], true
}

// ssmPage is page with the errors of SSM, and a limit where the caller sets none.
func (c *call) ssmPage(low, high, usual int64) (page, error) {
	if n := c.p.num("MaxResults"); c.p.has("MaxResults") && (n < low || n > high) {
		return page{}, fail("ValidationException", "MaxResults must be between %d and %d, not %d.", low, high, n)
	}
	p, err := c.page(low, high, "")
	if err != nil {
		return p, fail("InvalidNextToken", "The specified token isn't valid.")
	}
	if p.limit == 0 {
		p.limit = usual
	}
	return p, nil
}

// limited lets so many bytes through, and takes the others for nothing.
type limited struct {
	to   *bytes.Buffer
	left int
}

// Write never fails: what runs must not notice that nobody reads on.
func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.to.Write(p[:n])
	l.left -= n
	return len(p), nil
}

// isoDuration writes a duration as ISO 8601 does.
func isoDuration(d time.Duration) string { return fmt.Sprintf("PT%.3fS", d.Seconds()) }
