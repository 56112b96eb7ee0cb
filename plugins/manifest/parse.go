package manifest

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/gildhq/gild/engine/lock"
	"github.com/gildhq/gild/engine/spec"
)

const (
	// version of the format.
	version = "1"

	leastMemory = 16 << 20
	leastFiles  = 16

	maxArguments = 64
	maxVariables = 64
)

var (
	variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

	keys = []string{"gild-plugin", "name", "version", "kind", "command", "tls", "environment", "limits", "steps"}
)

// parse returns the reader too, for the mistakes that only the folder shows.
func parse(path string, text []byte) (Manifest, *reader, error) {
	r := &reader{path: path}
	if doc := r.document(text); doc != nil {
		m := r.manifest(doc)
		if len(r.mistakes) == 0 {
			return m, r, nil
		}
	}
	return Manifest{}, r, r.err()
}

func (r *reader) manifest(doc *yaml.Node) Manifest {
	top := r.fields(doc, "the file", keys)
	if top == nil {
		return Manifest{}
	}
	if v, ok := top["gild-plugin"]; !ok {
		r.mistake(doc, "the key gild-plugin is missing: write gild-plugin: %s", version)
	} else if v.value.Value != version {
		r.mistake(v.value, "the format is %q, and this gild knows %s", v.value.Value, version)
	}
	m := Manifest{
		Name:        r.pluginName(top),
		Version:     r.version(top),
		Command:     r.command(top),
		TLS:         r.one(top, "tls", []string{TLSAuto, TLSNone}, TLSAuto),
		Environment: r.environment(top),
		Limits:      r.limits(top),
	}
	if r.one(top, "kind", []string{"grpc", "exec"}, "grpc") == "exec" {
		r.exec(doc, top, &m)
	} else {
		r.grpc(doc, top)
	}
	return m
}

func (r *reader) grpc(doc *yaml.Node, top map[string]field) {
	r.required(doc, top, "command")
	if f, ok := top["steps"]; ok {
		r.mistake(f.key, "steps are for kind: exec; a plugin of kind grpc describes them itself")
	}
}

func (r *reader) exec(doc *yaml.Node, top map[string]field, m *Manifest) {
	r.required(doc, top, "name", "version", "steps")
	if f, ok := top["tls"]; ok {
		r.mistake(f.key, "tls is for kind: grpc; gild itself serves a plugin of kind exec")
	}
	m.Exec = &Exec{Steps: r.steps(top, m)}
}

func (r *reader) required(at *yaml.Node, fields map[string]field, names ...string) {
	for _, name := range names {
		if _, ok := fields[name]; !ok {
			r.mistake(at, "the key %s is missing", name)
		}
	}
}

func (r *reader) pluginName(top map[string]field) string {
	name := r.text(top, "name")
	if f, ok := top["name"]; ok && name != "" && !lock.ValidPluginName(name) {
		r.mistake(f.value, "%q is no name of a plugin; one looks like acme/agent", name)
	}
	return name
}

func (r *reader) version(top map[string]field) string {
	v := r.text(top, "version")
	if f, ok := top["version"]; ok && v != "" && !lock.ValidVersion(v) {
		r.mistake(f.value, "%q is not a semantic version such as 1.4.0", v)
	}
	return v
}

// command reads a program of the folder and its arguments.
func (r *reader) command(fields map[string]field) []string {
	argv, nodes := r.list(fields, "command", maxArguments)
	f, ok := fields["command"]
	if !ok || f.value.Kind != yaml.SequenceNode {
		return nil
	}
	if len(f.value.Content) == 0 {
		r.mistake(f.value, "the command is empty")
	}
	if len(argv) == 0 {
		return nil
	}
	for i, arg := range argv {
		if strings.ContainsRune(arg, 0) {
			r.mistake(nodes[i], "a NUL byte can't stand in a command")
			return nil
		}
	}
	if !filepath.IsLocal(argv[0]) || filepath.Clean(argv[0]) == "." {
		r.mistake(nodes[0], "%q is not a path inside of the plugin's folder", argv[0])
		return nil
	}
	argv[0] = filepath.Clean(argv[0])
	r.programs = append(r.programs, program{nodes[0], argv[0]})
	return argv
}

func (r *reader) environment(top map[string]field) []string {
	names, nodes := r.list(top, "environment", maxVariables)
	for i, name := range names {
		switch {
		case !variable.MatchString(name):
			r.mistake(nodes[i], "%q is no name of a variable", name)
		case slices.Contains(names[:i], name):
			r.mistake(nodes[i], "the variable %s stands twice", name)
		}
	}
	return names
}

func (r *reader) limits(top map[string]field) Limits {
	l := Limits{Memory: DefaultMemory, Files: DefaultFiles}
	f, ok := top["limits"]
	if !ok {
		return l
	}
	fields := r.fields(f.value, "limits", []string{"memory", "files"})
	l.Files = r.integer(fields, "files", leastFiles, DefaultFiles)
	if text := r.text(fields, "memory"); text != "" {
		n, err := spec.ParseSize(text)
		switch {
		case err != nil:
			r.mistake(fields["memory"].value, "%v", err)
		case n < leastMemory:
			r.mistake(fields["memory"].value, "%s is less than 16MiB, which no plugin can start with", text)
		default:
			l.Memory = n
		}
	}
	return l
}
