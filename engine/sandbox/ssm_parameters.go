package sandbox

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// parameter is a parameter of the parameter store with its versions, oldest first.
type parameter struct {
	Name, Account, Region      string
	Type, Tier, KeyID, Pattern string
	Versions                   []parameterVersion
	Tags                       map[string]string
}

type parameterVersion struct {
	Version               int64
	Value, DataType       string
	Description, Modifier string
	Modified              time.Time
	Labels                []string
}

const (
	maxVersions = 100
	maxLabels   = 10
	typeAMI     = "aws:ec2:image"
	// servicePath begins the names of AWS's own public parameters.
	servicePath = "/aws/service/"
)

func (p *parameter) latest() *parameterVersion { return &p.Versions[len(p.Versions)-1] }

// selected returns a version by number or label; empty means the latest.
func (p *parameter) selected(selector string) *parameterVersion {
	if selector == "" {
		return p.latest()
	}
	for i := range p.Versions {
		v := &p.Versions[i]
		if strconv.FormatInt(v.Version, 10) == selector || slices.Contains(v.Labels, selector) {
			return v
		}
	}
	return nil
}

func (c *call) parameterARN(name string) string {
	account := c.account
	if strings.HasPrefix(name, servicePath) {
		account = ""
	}
	return partitionARN(c.region, "ssm", account, "parameter/"+strings.TrimPrefix(name, "/"))
}

// named splits what a request calls a parameter: a name or an ARN, with a version or a
// label behind a colon or without.
func (c *call) named(text string) (name, selector string) {
	if rest, ok := strings.CutPrefix(text, partitionARN(c.region, "ssm", c.account, "parameter/")); ok {
		text = rest
		if strings.Contains(text, "/") {
			text = "/" + text
		}
	}
	name, selector, _ = strings.Cut(text, ":")
	return name, selector
}

// find returns a parameter of the caller, or one of AWS's own.
func (c *call) findParameter(name string) *parameter {
	if strings.HasPrefix(name, servicePath) {
		id, ok := c.s.publicParameter(c.region, name)
		if !ok {
			return nil
		}
		made := c.now
		if i := c.s.images.get(id); i != nil {
			made = i.Created
		}
		return &parameter{Name: name, Type: "String", Tier: "Standard",
			Versions: []parameterVersion{{Version: 1, Value: id, DataType: typeAMI, Modified: made}}}
	}
	return c.s.parameters.get(scoped(c.account, c.region, name))
}

func noParameter(name string) error {
	return fail("ParameterNotFound", "Parameter %s not found.", name)
}

// parameterAnswer shows one version. A secure one stays unreadable unless it is to be decrypted.
func (c *call) parameterAnswer(p *parameter, v *parameterVersion, selector string) answer {
	value := v.Value
	if p.Type == "SecureString" && !c.p.yes("WithDecryption") {
		value = hidden(p, v)
	}
	out := answer{"Name": p.Name, "Type": p.Type, "Value": value, "Version": v.Version, "LastModifiedDate": v.Modified,
		"ARN": c.parameterARN(p.Name), "DataType": v.DataType}
	if selector != "" {
		out["Selector"] = ":" + selector
	}
	return out
}

// hidden is what a secure value looks like to who doesn't ask for decryption.
func hidden(p *parameter, v *parameterVersion) string {
	return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "sealed by %s: %s, version %d", p.KeyID, p.Name, v.Version))
}

func getParameter(c *call) (answer, error) {
	name, selector := c.named(c.p.str("Name"))
	p := c.findParameter(name)
	if p == nil {
		return nil, noParameter(c.p.str("Name"))
	}
	v := p.selected(selector)
	if v == nil {
		return nil, fail("ParameterVersionNotFound", "Systems Manager could not find version %s of %s.", selector, name)
	}
	return answer{"Parameter": c.parameterAnswer(p, v, selector)}, nil
}

func getParameters(c *call) (answer, error) {
	asked := c.p.texts("Names")
	if len(slices.Compact(slices.Sorted(slices.Values(asked)))) != len(asked) {
		return nil, fail("ValidationException", "Duplicate parameter names were found in the request.")
	}
	found, invalid := []any{}, []any{}
	for _, text := range asked {
		name, selector := c.named(text)
		p := c.findParameter(name)
		if p == nil || p.selected(selector) == nil {
			invalid = append(invalid, text)
			continue
		}
		found = append(found, c.parameterAnswer(p, p.selected(selector), selector))
	}
	return answer{"Parameters": found, "InvalidParameters": invalid}, nil
}

// getParametersByPath lists the parameters below a path.
func getParametersByPath(c *call) (answer, error) {
	path := c.p.str("Path")
	if !strings.HasPrefix(path, "/") {
		return nil, fail("ValidationException", "The parameter doesn't meet the parameter name requirements. The parameter name must begin with a forward slash \"/\".")
	}
	path = strings.TrimSuffix(path, "/") + "/"
	if len(c.p.subs("ParameterFilters")) > 0 {
		return nil, fail("InvalidFilterKey", "This sandbox has no filters for GetParametersByPath.")
	}
	at, err := c.ssmPage(1, 10, 10)
	if err != nil {
		return nil, err
	}
	var found []*parameter
	for _, p := range c.parametersBelow(path) {
		if rest := strings.TrimPrefix(p.Name, path); c.p.yes("Recursive") || !strings.Contains(rest, "/") {
			found = append(found, p)
		}
	}
	slices.SortFunc(found, func(a, b *parameter) int { return strings.Compare(a.Name, b.Name) })
	found, token := cut(c, at, found, func(p *parameter) string { return p.Name })
	out := answer{"Parameters": list(found, func(p *parameter) any { return c.parameterAnswer(p, p.latest(), "") })}
	set(out, "NextToken", token)
	return out, nil
}

func (c *call) parametersBelow(path string) (out []*parameter) {
	for _, p := range c.s.parameters.all {
		if c.mine(p.Account, p.Region) && strings.HasPrefix(p.Name, path) {
			out = append(out, p)
		}
	}
	if !strings.HasPrefix(path, servicePath) {
		return out
	}
	for _, sd := range c.s.seeds.all {
		for _, name := range sd.Names {
			if p := c.findParameter(name); p != nil && strings.HasPrefix(name, path) {
				out = append(out, p)
			}
		}
	}
	return out
}

var parameterName = regexp.MustCompile(`^[a-zA-Z0-9_.\-/]+$`)

// checkName refuses what can't be the name of a parameter.
func checkName(name string) error {
	first := strings.ToLower(strings.SplitN(strings.TrimPrefix(name, "/"), "/", 2)[0])
	switch {
	case !parameterName.MatchString(name):
		return fail("ValidationException", "Parameter name: can't contain other characters than letters, numbers and .-_/")
	case strings.HasPrefix(first, "aws") || strings.HasPrefix(first, "ssm"):
		if first == "aws" {
			return fail("AccessDeniedException", "No access to reserved parameter name: %s.", name)
		}
		return fail("ValidationException", "Parameter name: can't be prefixed with \"aws\" or \"ssm\" (case-insensitive).")
	case strings.Contains(name, "/") && (!strings.HasPrefix(name, "/") || strings.HasSuffix(name, "/") || strings.Contains(name, "//")):
		return fail("ValidationException", "Parameter name must be a fully qualified name.")
	case strings.Count(name, "/") > 15:
		return fail("HierarchyLevelLimitExceededException", "The hierarchy of %s has more than 15 levels.", name)
	case len(name) > 1011:
		return fail("ValidationException", "The parameter name is longer than 1011 characters.")
	}
	return nil
}

// putParameter makes a parameter, or a new version of one.
func putParameter(c *call) (answer, error) {
	name := strings.TrimSpace(c.p.str("Name"))
	if err := checkName(name); err != nil {
		return nil, err
	}
	if c.p.has("Policies") {
		return nil, fail("InvalidPolicyTypeException", "This sandbox has no parameter policies.")
	}
	id := scoped(c.account, c.region, name)
	p := c.s.parameters.get(id)
	next, err := c.changedParameter(p, name)
	if err != nil {
		return nil, err
	}
	v := parameterVersion{Version: 1, Value: c.p.str("Value"), DataType: c.p.or("DataType", "text"), Description: c.p.str("Description"),
		Modifier: c.principal(), Modified: c.now}
	if p != nil {
		v.Version = p.latest().Version + 1
		if !c.p.has("DataType") {
			v.DataType = p.latest().DataType
		}
	}
	if err := c.checkValue(next, v); err != nil {
		return nil, err
	}
	if next.Versions, err = addVersion(next.Versions, v); err != nil {
		return nil, err
	}
	if v.DataType == typeAMI {
		if _, err := c.launchable(v.Value); err != nil {
			// AWS answers before it has looked at the image: a wrong one is never heard of again.
			return answer{"Version": v.Version, "Tier": next.Tier}, nil
		}
	}
	c.s.parameters.put(id, next)
	return answer{"Version": v.Version, "Tier": next.Tier}, nil
}

// changedParameter is the parameter as it will be, but for the new version.
func (c *call) changedParameter(p *parameter, name string) (*parameter, error) {
	if p == nil {
		if !c.p.has("Type") {
			return nil, fail("ValidationException", "A parameter type is required when you create a parameter.")
		}
		tags, err := checkTags(c.p.subs("Tags"))
		if err != nil {
			return nil, fail("ValidationException", "%v", err)
		}
		p = &parameter{Name: name, Account: c.account, Region: c.region, Type: c.p.str("Type"), Tier: "Standard", Tags: tags}
		if p.Type == "SecureString" {
			p.KeyID = c.p.or("KeyId", "alias/aws/ssm")
		}
	} else {
		switch {
		case !c.p.yes("Overwrite"):
			return nil, fail("ParameterAlreadyExists", "The parameter already exists. To overwrite this value, set the overwrite option in the request to true.")
		case len(c.p.subs("Tags")) > 0:
			return nil, fail("ValidationException", "Invalid request: tags and overwrite can't be used together. "+
				"To create a parameter with tags, please remove overwrite flag. To update tags for an existing parameter, please use AddTagsToResource or RemoveTagsFromResource.")
		case c.p.has("Type") && c.p.str("Type") != p.Type:
			return nil, fail("ValidationException", "The type of a parameter can't be changed from %s to %s.", p.Type, c.p.str("Type"))
		}
		same := *p
		same.Versions = slices.Clone(p.Versions)
		p = &same
	}
	if c.p.has("AllowedPattern") {
		p.Pattern = c.p.str("AllowedPattern")
	}
	return p, c.setTier(p)
}

func (c *call) setTier(p *parameter) error {
	switch tier := c.p.or("Tier", p.Tier); {
	case p.Tier == "Advanced" && tier == "Standard":
		return fail("ValidationException", "This parameter uses the advanced-parameter tier. You can't downgrade a parameter from the advanced-parameter tier to the standard-parameter tier.")
	case tier == "Intelligent-Tiering":
		if len(c.p.str("Value")) > 4096 {
			p.Tier = "Advanced"
		}
	default:
		p.Tier = tier
	}
	return nil
}

func (c *call) checkValue(p *parameter, v parameterVersion) error {
	limit := 4096
	if p.Tier == "Advanced" {
		limit = 8192
	}
	switch {
	case v.Value == "":
		return fail("ValidationException", "Parameter value can't be empty.")
	case strings.Contains(v.Value, "{{"):
		return fail("ValidationException", "Parameter value: can't nest another parameter.")
	case len(v.Value) > limit:
		return fail("ValidationException", "%s tier parameters support a maximum parameter value of %d characters.", p.Tier, limit)
	case !slices.Contains([]string{"text", typeAMI, "aws:ssm:integration"}, v.DataType):
		return fail("ValidationException", "The data type %s is not supported.", v.DataType)
	case v.DataType != "text" && p.Type != "String" && v.DataType == typeAMI:
		return fail("ValidationException", "The data type %s is for parameters of the type String.", v.DataType)
	}
	if p.Pattern == "" {
		return nil
	}
	re, err := regexp.Compile(p.Pattern)
	if err != nil {
		return fail("InvalidAllowedPatternException", "The pattern %s isn't a regular expression.", p.Pattern)
	}
	if !re.MatchString(v.Value) {
		return fail("ParameterPatternMismatchException", "Parameter value, cannot be validated against allowedPattern: %s", p.Pattern)
	}
	return nil
}

// addVersion adds a version, for which the oldest one has to go when there are too many.
func addVersion(have []parameterVersion, v parameterVersion) ([]parameterVersion, error) {
	if len(have) >= maxVersions {
		if len(have[0].Labels) > 0 {
			return nil, fail("ParameterMaxVersionLimitExceeded", "The oldest version, %d, has a label and can't be deleted: move the label first.", have[0].Version)
		}
		have = have[1:]
	}
	return append(have, v), nil
}

func deleteParameter(c *call) (answer, error) {
	id := scoped(c.account, c.region, c.p.str("Name"))
	if c.s.parameters.get(id) == nil {
		return nil, noParameter(c.p.str("Name"))
	}
	c.s.parameters.remove(id)
	return answer{}, nil
}

func getParameterHistory(c *call) (answer, error) {
	name, _ := c.named(c.p.str("Name"))
	p := c.s.parameters.get(scoped(c.account, c.region, name))
	if p == nil {
		return nil, noParameter(name)
	}
	at, err := c.ssmPage(1, 50, 50)
	if err != nil {
		return nil, err
	}
	order := func(v parameterVersion) string { return fmt.Sprintf("%012d", v.Version) }
	part, token := cut(c, at, p.Versions, order)
	out := answer{"Parameters": list(part, func(v parameterVersion) any {
		a := c.parameterAnswer(p, &v, "")
		delete(a, "ARN")
		a["LastModifiedUser"], a["Tier"], a["Labels"], a["Policies"] = v.Modifier, p.Tier, list(v.Labels, func(l string) any { return l }), []any{}
		set(a, "Description", v.Description)
		set(a, "KeyId", p.KeyID)
		set(a, "AllowedPattern", p.Pattern)
		return a
	})}
	set(out, "NextToken", token)
	return out, nil
}

var labelText = regexp.MustCompile(`^[a-zA-Z_.-][a-zA-Z0-9_.-]*$`)

// labelParameterVersion puts labels on a version; from another one they go away.
func labelParameterVersion(c *call) (answer, error) {
	id := scoped(c.account, c.region, c.p.str("Name"))
	p := c.s.parameters.get(id)
	if p == nil {
		return nil, noParameter(c.p.str("Name"))
	}
	selector := ""
	if c.p.has("ParameterVersion") {
		selector = strconv.FormatInt(c.p.num("ParameterVersion"), 10)
	}
	v := p.selected(selector)
	if v == nil {
		return nil, fail("ParameterVersionNotFound", "Systems Manager could not find version %s of %s.", selector, p.Name)
	}
	labels, invalid := slices.Clone(v.Labels), []any{}
	for _, l := range c.p.texts("Labels") {
		low := strings.ToLower(l)
		if !labelText.MatchString(l) || strings.HasPrefix(low, "aws") || strings.HasPrefix(low, "ssm") {
			invalid = append(invalid, l)
		} else if !slices.Contains(labels, l) {
			labels = append(labels, l)
		}
	}
	if len(labels) > maxLabels {
		return nil, fail("ParameterVersionLabelLimitExceeded", "A parameter version can have at most %d labels.", maxLabels)
	}
	for i := range p.Versions {
		p.Versions[i].Labels = slices.DeleteFunc(p.Versions[i].Labels, func(l string) bool { return slices.Contains(labels, l) })
	}
	v.Labels = labels
	c.s.parameters.put(id, p)
	return answer{"InvalidLabels": invalid, "ParameterVersion": v.Version}, nil
}

func addTagsToResource(c *call) (answer, error) {
	if typ := c.p.str("ResourceType"); typ != "Parameter" {
		return nil, fail("InvalidResourceType", "This sandbox has only tags for the resource type Parameter, not %s.", typ)
	}
	id := scoped(c.account, c.region, c.p.str("ResourceId"))
	p := c.s.parameters.get(id)
	if p == nil {
		return nil, fail("InvalidResourceId", "The resource ID %s isn't valid.", c.p.str("ResourceId"))
	}
	tags, err := checkTags(c.p.subs("Tags"))
	if err != nil {
		return nil, fail("ValidationException", "%v", err)
	}
	if tags = merged(p.Tags, tags); len(tags) > maxTags {
		return nil, fail("TooManyTagsError", "A resource can have at most %d tags.", maxTags)
	}
	p.Tags = tags
	c.s.parameters.put(id, p)
	return answer{}, nil
}
