package sandbox

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

const (
	// maxParameters is how many bytes the parameters of a command may have in all.
	maxParameters = 64 << 10
	// keptCommands is how many commands are remembered, the newest ones.
	keptCommands = 2000
	runDocument  = "AWS-RunShellScript"
	runPlugin    = "aws:runShellScript"
)

// command is one SendCommand.
type command struct {
	ID, Account, Region  string
	Comment              string
	Lines                []string
	Dir                  string // working directory, or empty
	Seconds              int64  // execution timeout
	Timeout              int64  // delivery timeout, seconds
	Requested            time.Time
	Instances, ByTargets []string
	Targets              []params
	Parameters           map[string][]string
}

// invocation is a command on one instance.
type invocation struct {
	Command, Instance string
	// Status and Details as SSM words them.
	Status, Details string
	Code            int64 // -1 until it has run
	Out, Err        string
	Started, Ended  time.Time
}

func (inv *invocation) id() string { return inv.Command + "/" + inv.Instance }

func (inv *invocation) over() bool {
	return !slices.Contains([]string{"Pending", "InProgress", "Delayed", "Cancelling"}, inv.Status)
}

// targets are the instances that a SendCommand names by Targets, or by their ids.
func (c *call) targets() []string {
	ids := slices.Clone(c.p.texts("InstanceIds"))
	for _, t := range c.p.subs("Targets") {
		key, values := t.str("Key"), t.texts("Values")
		if strings.EqualFold(key, "InstanceIds") {
			ids = append(ids, values...)
			continue
		}
		tag, ok := strings.CutPrefix(key, "tag:")
		for _, i := range c.s.instances.all {
			if value, has := c.tagsOf(i.ID)[tag]; ok && has && c.mine(i.Account, i.Region) && slices.Contains(values, value) && i.State == "running" {
				ids = append(ids, i.ID)
			}
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// sendCommand accepts a command and starts it on every instance.
func sendCommand(c *call) (answer, error) {
	cmd, err := c.newCommand()
	if err != nil {
		return nil, err
	}
	var bad []string
	for _, id := range cmd.Instances {
		i := c.s.instances.get(id)
		if i == nil || !c.mine(i.Account, i.Region) || i.State != "running" || c.s.meet(i) == nil {
			bad = append(bad, id)
		}
	}
	if len(bad) > 0 && len(cmd.Targets) == 0 {
		return nil, fail("InvalidInstanceId", "Instances [[%s]] not in a valid state for account %s", strings.Join(bad, ", "), c.account)
	}
	cmd.Instances = slices.DeleteFunc(cmd.Instances, func(id string) bool { return slices.Contains(bad, id) })
	c.s.commands.put(cmd.ID, cmd)
	c.born(cmd.ID)
	for _, id := range cmd.Instances {
		inv := &invocation{Command: cmd.ID, Instance: id, Status: "Pending", Details: "Pending", Code: -1}
		c.s.invocations.put(inv.id(), inv)
		c.s.startInvocation(cmd, inv)
	}
	c.s.dropOldCommands()
	return answer{"Command": c.commandAnswer(cmd)}, nil
}

// newCommand checks a SendCommand.
func (c *call) newCommand() (*command, error) {
	switch name := c.p.str("DocumentName"); {
	case name != runDocument:
		return nil, fail("InvalidDocument", "Document with name %s does not exist.", name)
	case !slices.Contains([]string{"1", "$DEFAULT", "$LATEST"}, c.p.or("DocumentVersion", "$DEFAULT")):
		return nil, fail("InvalidDocumentVersion", "The document %s has only the version 1.", name)
	case c.p.has("OutputS3BucketName"):
		return nil, fail("InvalidOutputFolder", "This sandbox has no S3: leave out OutputS3BucketName.")
	case len(c.p.texts("InstanceIds")) > 0 && len(c.p.subs("Targets")) > 0:
		return nil, fail("InvalidTargets", "InstanceIds and Targets can't be used together.")
	case len(c.p.texts("InstanceIds"))+len(c.p.subs("Targets")) == 0:
		return nil, fail("InvalidInstanceId", "No instance is named: give InstanceIds or Targets.")
	}
	if ids := c.p.texts("InstanceIds"); len(slices.Compact(slices.Sorted(slices.Values(ids)))) != len(ids) {
		return nil, fail("DuplicateInstanceId", "You can't specify an instance ID in more than one association.")
	}
	cmd := &command{ID: uuid.NewString(), Account: c.account, Region: c.region, Comment: c.p.str("Comment"), Seconds: 3600, Timeout: 3600,
		Requested: c.now, Instances: c.targets(), Targets: c.p.subs("Targets"), Parameters: map[string][]string{}}
	if c.p.has("TimeoutSeconds") {
		cmd.Timeout = c.p.num("TimeoutSeconds")
	}
	return cmd, cmd.read(c.p.sub("Parameters"))
}

// read checks the parameters of the document.
func (cmd *command) read(p params) error {
	size := 0
	for name := range p {
		values := p.texts(name)
		cmd.Parameters[name] = values
		for _, v := range values {
			size += len(v)
		}
		first := ""
		if len(values) == 1 {
			first = values[0]
		}
		switch name {
		case "commands":
			cmd.Lines = values
		case "workingDirectory":
			cmd.Dir = first
		case "executionTimeout":
			n, err := strconv.ParseInt(first, 10, 64)
			if err != nil || n < 1 || n > 172_800 {
				return fail("InvalidParameters", "Parameter \"executionTimeout\" value \"%s\" is not a number of seconds from 1 to 172800.", first)
			}
			cmd.Seconds = n
		default:
			return fail("InvalidParameters", "Parameter \"%s\" is not defined in the document.", name)
		}
	}
	if size > maxParameters {
		return fail("MaxDocumentSizeExceeded", "The parameters of the command have %d bytes; at most %d are allowed.", size, maxParameters)
	}
	if len(cmd.Lines) == 0 {
		return fail("InvalidParameters", "Parameter \"commands\" requires a value.")
	}
	return nil
}

// dropOldCommands forgets the oldest commands that have ended, beyond those that are kept.
func (s *Server) dropOldCommands() {
	over := len(s.commands.rows) - keptCommands
	if over <= 0 {
		return
	}
	var old []*command
	for _, cmd := range s.commands.all {
		old = append(old, cmd)
	}
	slices.SortFunc(old, func(a, b *command) int { return a.Requested.Compare(b.Requested) })
	// A tenth more goes at once, so that it isn't done for every command.
	for _, cmd := range old[:min(len(old), over+keptCommands/10)] {
		if slices.ContainsFunc(s.invocationsOf(cmd), func(inv *invocation) bool { return !inv.over() }) {
			continue
		}
		for _, inv := range s.invocationsOf(cmd) {
			s.invocations.remove(inv.id())
		}
		s.commands.remove(cmd.ID)
	}
}

func (s *Server) invocationsOf(cmd *command) (out []*invocation) {
	for _, id := range cmd.Instances {
		if inv := s.invocations.get(cmd.ID + "/" + id); inv != nil {
			out = append(out, inv)
		}
	}
	return out
}

// commandAnswer describes a command with the state of all its invocations.
func (c *call) commandAnswer(cmd *command) answer {
	done, failed, undelivered := 0, 0, 0
	status := "Success"
	for _, inv := range c.s.invocationsOf(cmd) {
		switch {
		case !inv.over():
			status = inv.Status
		case inv.Status != "Success" && status == "Success":
			status = inv.Status
		}
		if inv.over() {
			done++
		}
		if inv.Details == "DeliveryTimedOut" {
			undelivered++
		} else if inv.over() && inv.Status != "Success" {
			failed++
		}
	}
	out := answer{"CommandId": cmd.ID, "DocumentName": runDocument, "DocumentVersion": "$DEFAULT", "Comment": cmd.Comment,
		"ExpiresAfter": cmd.Requested.Add(time.Duration(cmd.Timeout+cmd.Seconds) * time.Second), "Parameters": cmd.Parameters,
		"InstanceIds": cmd.Instances, "Targets": list(cmd.Targets, func(p params) any { return map[string]any(p) }),
		"RequestedDateTime": cmd.Requested, "Status": status, "StatusDetails": status, "OutputS3BucketName": "", "OutputS3KeyPrefix": "",
		"MaxConcurrency": "50", "MaxErrors": "0", "TargetCount": len(cmd.Instances), "CompletedCount": done, "ErrorCount": failed,
		"DeliveryTimedOutCount": undelivered, "ServiceRole": "", "TimeoutSeconds": cmd.Timeout}
	return out
}

// command finds one of the caller's commands.
func (c *call) command(id string) (*command, bool) {
	cmd := c.s.commands.get(id)
	if cmd == nil || !c.mine(cmd.Account, cmd.Region) || !c.sees(id) {
		return nil, false
	}
	return cmd, true
}

func getCommandInvocation(c *call) (answer, error) {
	cmd, ok := c.command(c.p.str("CommandId"))
	var inv *invocation
	if ok {
		inv = c.s.invocations.get(cmd.ID + "/" + c.p.str("InstanceId"))
	}
	if inv == nil {
		return nil, fail("InvocationDoesNotExist", "The command ID and managed node ID you specified didn't match any invocations.")
	}
	if plugin := c.p.or("PluginName", runPlugin); plugin != runPlugin {
		return nil, fail("InvalidPluginName", "The plugin name %s isn't valid.", plugin)
	}
	out := answer{"CommandId": cmd.ID, "InstanceId": inv.Instance, "Comment": cmd.Comment, "DocumentName": runDocument,
		"DocumentVersion": "$DEFAULT", "PluginName": runPlugin, "ResponseCode": inv.Code, "Status": inv.Status, "StatusDetails": inv.Details,
		"ExecutionStartDateTime": "", "ExecutionElapsedTime": "", "ExecutionEndDateTime": "",
		"StandardOutputContent": inv.Out, "StandardErrorContent": inv.Err, "StandardOutputUrl": "", "StandardErrorUrl": "",
		"CloudWatchOutputConfig": answer{"CloudWatchLogGroupName": "", "CloudWatchOutputEnabled": false}}
	if !inv.Started.IsZero() {
		out["ExecutionStartDateTime"] = stamp(inv.Started)
	}
	if inv.over() && !inv.Started.IsZero() {
		out["ExecutionEndDateTime"] = stamp(inv.Ended)
		out["ExecutionElapsedTime"] = isoDuration(inv.Ended.Sub(inv.Started))
	}
	return out, nil
}

func listCommandInvocations(c *call) (answer, error) {
	at, err := c.ssmPage(1, 50, 50)
	if err != nil {
		return nil, err
	}
	match, err := c.invocationFilter()
	if err != nil {
		return nil, err
	}
	if id := c.p.str("CommandId"); id != "" {
		if _, ok := c.command(id); !ok {
			return nil, fail("InvalidCommandId", "The command ID %s isn't valid.", id)
		}
	}
	var found []*invocation
	for _, inv := range c.s.invocations.all {
		if cmd, ok := c.command(inv.Command); ok && match(cmd, inv) {
			found = append(found, inv)
		}
	}
	found, token := cut(c, at, found, (*invocation).id)
	out := answer{"CommandInvocations": list(found, func(inv *invocation) any { return c.invocationAnswer(inv) })}
	set(out, "NextToken", token)
	return out, nil
}

func (c *call) invocationFilter() (func(*command, *invocation) bool, error) {
	var after, before time.Time
	want := map[string]string{"CommandId": c.p.str("CommandId"), "InstanceId": c.p.str("InstanceId")}
	for _, f := range c.p.subs("Filters") {
		key, value := f.str("key"), f.str("value")
		switch key {
		case "InvokedAfter", "InvokedBefore":
			at, err := time.Parse(time.RFC3339, value)
			if err != nil {
				return nil, fail("InvalidFilterKey", "The value %s of the filter %s is not a time.", value, key)
			}
			if key == "InvokedAfter" {
				after = at
			} else {
				before = at
			}
		case "Status", "DocumentName":
			want[key] = value
		default:
			return nil, fail("InvalidFilterKey", "The filter key %s is not one that this sandbox knows.", key)
		}
	}
	return func(cmd *command, inv *invocation) bool {
		for key, have := range map[string]string{"CommandId": cmd.ID, "InstanceId": inv.Instance, "Status": inv.Status, "DocumentName": runDocument} {
			if want[key] != "" && want[key] != have {
				return false
			}
		}
		return (after.IsZero() || cmd.Requested.After(after)) && (before.IsZero() || cmd.Requested.Before(before))
	}, nil
}

// pluginOutput is how many characters of the output a list shows.
const pluginOutput = 2500

func (c *call) invocationAnswer(inv *invocation) answer {
	cmd := c.s.commands.get(inv.Command)
	out := answer{"CommandId": inv.Command, "InstanceId": inv.Instance, "InstanceName": "", "Comment": cmd.Comment, "DocumentName": runDocument,
		"DocumentVersion": "$DEFAULT", "RequestedDateTime": cmd.Requested, "Status": inv.Status, "StatusDetails": inv.Details,
		"StandardOutputUrl": "", "StandardErrorUrl": "", "ServiceRole": "", "CommandPlugins": []any{}}
	if !c.p.yes("Details") {
		return out
	}
	text := inv.Out
	if inv.Err != "" {
		text += "\n----------ERROR-------\n" + inv.Err
	}
	plugin := answer{"Name": runPlugin, "Status": inv.Status, "StatusDetails": inv.Details, "ResponseCode": inv.Code,
		"Output": shorten(text, pluginOutput), "StandardOutputUrl": "", "StandardErrorUrl": "", "OutputS3Region": c.region,
		"OutputS3BucketName": "", "OutputS3KeyPrefix": ""}
	if inv.Status == "Delayed" || inv.Status == "Cancelling" {
		plugin["Status"] = "InProgress"
	}
	setTime(plugin, "ResponseStartDateTime", inv.Started)
	setTime(plugin, "ResponseFinishDateTime", inv.Ended)
	out["CommandPlugins"] = []any{plugin}
	return out
}

// cancelCommand ends what hasn't ended.
func cancelCommand(c *call) (answer, error) {
	cmd, ok := c.command(c.p.str("CommandId"))
	if !ok {
		return nil, fail("InvalidCommandId", "The command ID %s isn't valid.", c.p.str("CommandId"))
	}
	ids := c.p.texts("InstanceIds")
	for _, id := range ids {
		if !slices.Contains(cmd.Instances, id) {
			return nil, fail("InvalidInstanceId", "The command wasn't sent to the instance %s.", id)
		}
	}
	for _, inv := range c.s.invocationsOf(cmd) {
		if len(ids) > 0 && !slices.Contains(ids, inv.Instance) || inv.over() {
			continue
		}
		if inv.Status == "Pending" {
			inv.Status, inv.Details, inv.Ended = "Cancelled", "Cancelled", c.now
		} else {
			inv.Status, inv.Details = "Cancelling", "Cancelling"
		}
		c.s.invocations.put(inv.id(), inv)
		if end := c.s.invoked[inv.id()]; end != nil {
			end()
		}
	}
	return answer{}, nil
}
