package wire

import (
	"embed"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
)

//go:embed models/*.json
var models embed.FS

type protocol string

const (
	protocolEC2   protocol = "ec2"
	protocolQuery protocol = "query"
	protocolJSON  protocol = "json"
	protocolREST  protocol = "rest-json"
)

// service is one model, all references resolved.
type service struct {
	name       string
	version    string
	protocol   protocol
	target     string // prefix of X-Amz-Target
	namespace  string
	json       string // version of JSON protocol
	operations map[string]*operation
}

type operation struct {
	name          string
	method        string
	path          []string // segments of the URI; "{x}" takes any
	status        int
	wrapper       string
	unsigned      bool
	input, output *shape // nil when there is none
	errors        []*shape
}

type shape struct {
	name      string
	kind      string
	members   []*member
	byName    map[string]*member
	required  map[string]bool
	item      *member // of a list
	key       *member // of a map
	value     *member
	enum      []string
	min, max  *float64
	pattern   *regexp.Regexp
	source    string // pattern as AWS writes it
	payload   string
	code      string // of an exception
	httpCode  int
	fault     bool
	sensitive bool
}

type member struct {
	name         string
	shape        *shape
	locationName string
	queryName    string
	location     string
	flattened    bool
}

// rawModel is the format of the files in models.
type rawModel struct {
	Metadata struct {
		APIVersion, TargetPrefix, XMLNamespace, JSONVersion string
		Protocol                                            protocol
	}
	Operations map[string]struct {
		Method, URI            string
		Status                 int
		Input, Output, Wrapper string
		Unsigned               bool
		Errors                 []string
	}
	Shapes map[string]rawShape
}

type rawShape struct {
	Type                  string
	Required, Enum        []string
	Members               []rawMember
	Member, Key, Value    *rawMember
	Min, Max              *float64
	Pattern, LocationName string
	Flattened, Fault      bool
	Payload               string
	Sensitive             bool
	Error                 struct {
		Code           string
		HTTPStatusCode int
	}
}

type rawMember struct {
	Name, Shape, LocationName, QueryName, Location string
	Flattened                                      bool
}

// load returns the services of every embedded model. They are read once, because it takes
// longer than most calls, and nobody changes them.
var load = sync.OnceValues(readModels)

func readModels() (map[string]*service, error) {
	entries, err := models.ReadDir("models")
	if err != nil {
		return nil, err
	}
	services := map[string]*service{}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		data, err := models.ReadFile("models/" + e.Name())
		if err != nil {
			return nil, err
		}
		if services[name], err = parseModel(name, data); err != nil {
			return nil, fmt.Errorf("read model of %s: %w", name, err)
		}
	}
	return services, nil
}

func parseModel(name string, data []byte) (*service, error) {
	var raw rawModel
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil, err
	}
	l := linker{raw: raw.Shapes, done: map[string]*shape{}}
	s := &service{
		name: name, version: raw.Metadata.APIVersion, protocol: raw.Metadata.Protocol, target: raw.Metadata.TargetPrefix,
		namespace: raw.Metadata.XMLNamespace, json: raw.Metadata.JSONVersion, operations: map[string]*operation{},
	}
	for opName, o := range raw.Operations {
		op := &operation{
			name: opName, method: o.Method, path: strings.Split(o.URI, "/"), status: o.Status, wrapper: o.Wrapper,
			unsigned: o.Unsigned, input: l.shape(o.Input), output: l.shape(o.Output),
		}
		if op.status == 0 {
			op.status = http.StatusOK
		}
		for _, e := range o.Errors {
			op.errors = append(op.errors, l.shape(e))
		}
		s.operations[opName] = op
	}
	return s, l.err
}

// linker turns references by name into pointers. Its first mistake stays in err.
type linker struct {
	raw  map[string]rawShape
	done map[string]*shape
	err  error
}

func (l *linker) shape(name string) *shape {
	if name == "" {
		return nil
	}
	if s, ok := l.done[name]; ok {
		return s
	}
	r, ok := l.raw[name]
	if !ok {
		l.fail(fmt.Errorf("no shape %q", name))
		return &shape{}
	}
	s := &shape{
		name: name, kind: r.Type, enum: r.Enum, min: r.Min, max: r.Max, source: r.Pattern, payload: r.Payload,
		code: r.Error.Code, httpCode: r.Error.HTTPStatusCode, fault: r.Fault, sensitive: r.Sensitive,
		byName: map[string]*member{}, required: map[string]bool{},
	}
	l.done[name] = s
	s.pattern = l.pattern(r.Pattern)
	for _, m := range r.Members {
		one := l.member(&m)
		s.members = append(s.members, one)
		s.byName[m.Name] = one
	}
	for _, m := range r.Required {
		s.required[m] = true
	}
	s.item, s.key, s.value = l.member(r.Member), l.member(r.Key), l.member(r.Value)
	return s
}

// member resolves a reference. What it doesn't say itself, its shape says.
func (l *linker) member(r *rawMember) *member {
	if r == nil {
		return nil
	}
	target := l.raw[r.Shape]
	name := r.LocationName
	if name == "" {
		name = target.LocationName
	}
	return &member{
		name: r.Name, shape: l.shape(r.Shape), locationName: name, queryName: r.QueryName, location: r.Location,
		flattened: r.Flattened || target.Flattened,
	}
}

func (l *linker) pattern(source string) *regexp.Regexp {
	if source == "" {
		return nil
	}
	re, err := regexp.Compile(`\A(?:` + goPattern(source) + `)\z`)
	if err != nil {
		l.fail(fmt.Errorf("pattern %q: %w", source, err))
	}
	return re
}

func (l *linker) fail(err error) {
	if l.err == nil {
		l.err = err
	}
}

// javaEscape matches the escapes of characters by number that Go writes in another way.
var javaEscape = regexp.MustCompile(`\\u(10FFFF|10000|[0-9A-Fa-f]{4})`)

// goPattern translates a pattern of the models, which are written for Java.
func goPattern(source string) string {
	if same, ok := rewritten()[source]; ok {
		return same
	}
	// Surrogates aren't characters: a range that ends before or begins after them is cut there.
	return javaEscape.ReplaceAllString(source, `\x{$1}`)
}

// rewritten holds the patterns that look ahead, which Go can't, in other words.
func rewritten() map[string]string {
	return map[string]string{
		`^(?!\s*$).+`: `[^\n]*[^\s][^\n]*`,
		`^([\-]?\d{4}(?!\d{2}\b))((-?)((0[1-9]|1[0-2])(\3([12]\d|0[1-9]|3[01]))?|W([0-4]\d|5[0-2])(-?[1-7])?|(00[1-9]|0[1-9]\d|[12]\d{2}|3([0-5]\d|6[1-6])))([T\s]((([01]\d|2[0-3])((:?)[0-5]\d)?|24\:?00)([\.,]\d(?!:))?)?(\17[0-5]\d([\.,]\d)?)?([zZ]|([\-])([01]\d|2[0-3]):?([0-5]\d)?)?)?)?$`: `|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`,
		`(^[A-Za-z_][A-Za-z0-9\@\._-]{0,30}[A-Za-z0-9\$_-]?$)|(^(?=.{2,32}$)[0-9]{1,32}[A-Za-z\@\._-][A-Za-z0-9\@\._-]*[A-Za-z0-9\$_-]?$)`: `[A-Za-z_][A-Za-z0-9@._-]{0,30}[A-Za-z0-9$_-]?|` +
			`[0-9]{1,31}[A-Za-z@._-][A-Za-z0-9@._-]*[A-Za-z0-9$_-]?`,
	}
}

// Operations returns the operations of every service, sorted: what a [Handler] is asked for.
func Operations() (map[string][]string, error) {
	services, err := load()
	if err != nil {
		return nil, err
	}
	all := map[string][]string{}
	for name, s := range services {
		for op := range s.operations {
			all[name] = append(all[name], op)
		}
		slices.Sort(all[name])
	}
	return all, nil
}
