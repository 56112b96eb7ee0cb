// Package compat tells whether a protobuf schema still understands what programs built
// with an older one say, on the wire and as JSON.
//
// In go two sets of file descriptors, out come the ways in which the newer one breaks the
// older: the rules of `buf breaking` for files, as far as proto3 has what they are about.
// Adding is always allowed; removing, renaming, renumbering and retyping never is, not even
// what has been marked as reserved since.
package compat

import (
	"cmp"
	"fmt"
	"slices"

	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// Breaks returns what now breaks of base, one line each, sorted; none when it breaks
// nothing. Files that base doesn't have are not looked at.
func Breaks(base, now *descriptorpb.FileDescriptorSet) ([]string, error) {
	was, err := protodesc.NewFiles(base)
	if err != nil {
		return nil, fmt.Errorf("read the older schema: %w", err)
	}
	is, err := protodesc.NewFiles(now)
	if err != nil {
		return nil, fmt.Errorf("read the newer schema: %w", err)
	}
	c := &comparison{is: is}
	was.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		c.file(f)
		return true
	})
	slices.Sort(c.breaks)
	return c.breaks, nil
}

type comparison struct {
	is     *protoregistry.Files
	breaks []string
}

func (c *comparison) add(format string, args ...any) {
	c.breaks = append(c.breaks, fmt.Sprintf(format, args...))
}

// same notes that a property of something changed.
func same[T comparable](c *comparison, what any, property string, was, is T) {
	if was != is {
		c.add("%v: %s was %v and is %v", what, property, was, is)
	}
}

func (c *comparison) file(was protoreflect.FileDescriptor) {
	is, err := c.is.FindFileByPath(was.Path())
	if err != nil {
		c.add("file %s is gone", was.Path())
		return
	}
	what := "file " + was.Path()
	if same(c, what, "its package", was.Package(), is.Package()); was.Package() != is.Package() {
		return // nothing in it has the name that it had
	}
	same(c, what, "its syntax", was.Syntax(), is.Syntax())
	same(c, what, "go_package", goPackage(was), goPackage(is))
	messages(c, was.Messages(), is.Messages())
	enums(c, was.Enums(), is.Enums())
	c.services(was.Services(), is.Services())
}

func goPackage(f protoreflect.FileDescriptor) string {
	return f.Options().(*descriptorpb.FileOptions).GetGoPackage()
}

func messages(c *comparison, was, is protoreflect.MessageDescriptors) {
	for i := range was.Len() {
		old := was.Get(i)
		if old.IsMapEntry() {
			continue // what it says is part of the type of its field
		}
		m := is.ByName(old.Name())
		if m == nil {
			c.add("message %s is gone", old.FullName())
			continue
		}
		c.fields(old, m)
		c.oneofs(old, m)
		what := fmt.Sprintf("message %s", old.FullName())
		reserved(c, what, ranges(old.ReservedRanges()), ranges(m.ReservedRanges()))
		reservedNames(c, what, old.ReservedNames(), m.ReservedNames())
		messages(c, old.Messages(), m.Messages())
		enums(c, old.Enums(), m.Enums())
	}
}

func (c *comparison) fields(was, is protoreflect.MessageDescriptor) {
	for i := range was.Fields().Len() {
		old := was.Fields().Get(i)
		f := is.Fields().ByNumber(old.Number())
		if f != nil {
			c.field(old, f)
			continue
		}
		if moved := is.Fields().ByName(old.Name()); moved != nil {
			c.add("field %s: its number was %d and is %d", old.FullName(), old.Number(), moved.Number())
			continue
		}
		c.add("field %s (%d) is gone", old.FullName(), old.Number())
	}
}

func (c *comparison) field(was, is protoreflect.FieldDescriptor) {
	what := fmt.Sprintf("field %s (%d)", was.FullName(), was.Number())
	same(c, what, "its name", was.Name(), is.Name())
	same(c, what, "its name in JSON", was.JSONName(), is.JSONName())
	same(c, what, "its type", typeOf(was), typeOf(is))
	same(c, what, "its cardinality", was.Cardinality(), is.Cardinality())
	same(c, what, "that it can be told from absent", was.HasPresence(), is.HasPresence())
	same(c, what, "its oneof", oneofOf(was), oneofOf(is))
}

// typeOf is a field's type in the words of the language.
func typeOf(f protoreflect.FieldDescriptor) string {
	switch {
	case f.IsMap():
		return fmt.Sprintf("map<%s, %s>", typeOf(f.MapKey()), typeOf(f.MapValue()))
	case f.Message() != nil:
		return string(f.Message().FullName())
	case f.Enum() != nil:
		return string(f.Enum().FullName())
	default:
		return f.Kind().String()
	}
}

func oneofOf(f protoreflect.FieldDescriptor) protoreflect.Name {
	if o := f.ContainingOneof(); o != nil && !o.IsSynthetic() {
		return o.Name()
	}
	return "none"
}

func (c *comparison) oneofs(was, is protoreflect.MessageDescriptor) {
	for i := range was.Oneofs().Len() {
		if old := was.Oneofs().Get(i); !old.IsSynthetic() && is.Oneofs().ByName(old.Name()) == nil {
			c.add("oneof %s is gone", old.FullName())
		}
	}
}

func enums(c *comparison, was, is protoreflect.EnumDescriptors) {
	for i := range was.Len() {
		old := was.Get(i)
		e := is.ByName(old.Name())
		if e == nil {
			c.add("enum %s is gone", old.FullName())
			continue
		}
		c.values(old, e)
		what := fmt.Sprintf("enum %s", old.FullName())
		reserved(c, what, enumRanges(old.ReservedRanges()), enumRanges(e.ReservedRanges()))
		reservedNames(c, what, old.ReservedNames(), e.ReservedNames())
	}
}

func (c *comparison) values(was, is protoreflect.EnumDescriptor) {
	for i := range was.Values().Len() {
		old := was.Values().Get(i)
		v := is.Values().ByNumber(old.Number())
		moved := is.Values().ByName(old.Name())
		switch {
		case moved != nil && moved.Number() != old.Number():
			c.add("enum value %s: its number was %d and is %d", old.FullName(), old.Number(), moved.Number())
		case v == nil:
			c.add("enum value %s (%d) is gone", old.FullName(), old.Number())
		case moved == nil:
			c.add("enum value %s (%d): its name was %s and is %s", old.FullName(), old.Number(), old.Name(), v.Name())
		}
	}
}

func (c *comparison) services(was, is protoreflect.ServiceDescriptors) {
	for i := range was.Len() {
		old := was.Get(i)
		s := is.ByName(old.Name())
		if s == nil {
			c.add("service %s is gone", old.FullName())
			continue
		}
		for i := range old.Methods().Len() {
			c.method(old.Methods().Get(i), s.Methods().ByName(old.Methods().Get(i).Name()))
		}
	}
}

func (c *comparison) method(was, is protoreflect.MethodDescriptor) {
	if is == nil {
		c.add("method %s is gone", was.FullName())
		return
	}
	what := fmt.Sprintf("method %s", was.FullName())
	same(c, what, "its request", was.Input().FullName(), is.Input().FullName())
	same(c, what, "its response", was.Output().FullName(), is.Output().FullName())
	same(c, what, "that it streams requests", was.IsStreamingClient(), is.IsStreamingClient())
	same(c, what, "that it streams responses", was.IsStreamingServer(), is.IsStreamingServer())
}

// span is a range of reserved numbers, both ends included.
type span struct{ first, last int64 }

func ranges(r protoreflect.FieldRanges) (list []span) {
	for i := range r.Len() {
		list = append(list, span{int64(r.Get(i)[0]), int64(r.Get(i)[1]) - 1})
	}
	return list
}

func enumRanges(r protoreflect.EnumRanges) (list []span) {
	for i := range r.Len() {
		list = append(list, span{int64(r.Get(i)[0]), int64(r.Get(i)[1])})
	}
	return list
}

// reserved notes numbers that may be used again though they once meant something.
func reserved(c *comparison, what string, was, is []span) {
	is = join(is)
	for _, old := range was {
		inside := func(s span) bool { return s.first <= old.first && old.last <= s.last }
		if !slices.ContainsFunc(is, inside) {
			c.add("%s: the numbers %d to %d aren't reserved any more", what, old.first, old.last)
		}
	}
}

// join makes one span of those that touch.
func join(list []span) (joined []span) {
	slices.SortFunc(list, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	for _, s := range list {
		if n := len(joined); n > 0 && s.first <= joined[n-1].last+1 {
			joined[n-1].last = max(joined[n-1].last, s.last)
			continue
		}
		joined = append(joined, s)
	}
	return joined
}

func reservedNames(c *comparison, what string, was, is protoreflect.Names) {
	for i := range was.Len() {
		if !is.Has(was.Get(i)) {
			c.add("%s: the name %q isn't reserved any more", what, was.Get(i))
		}
	}
}
