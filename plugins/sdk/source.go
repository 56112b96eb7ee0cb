package sdk

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strings"
)

// sourceDocs are the comments of a program's source.
type sourceDocs struct {
	pkg    string
	byName map[string]string // "Type" and "Type.Field"
}

func parseSources(files []string) (sourceDocs, error) {
	docs := sourceDocs{byName: map[string]string{}}
	for i, text := range files {
		file, err := parser.ParseFile(token.NewFileSet(), fmt.Sprintf("source %d", i+1), text, parser.ParseComments)
		if err != nil {
			return docs, fmt.Errorf("read the comments: %w", err)
		}
		if docs.pkg == "" {
			docs.pkg = file.Doc.Text()
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if gen, ok := n.(*ast.GenDecl); ok {
				docs.addTypes(gen)
			}
			return true
		})
	}
	return docs, nil
}

func (d sourceDocs) addTypes(gen *ast.GenDecl) {
	for _, spec := range gen.Specs {
		t, ok := spec.(*ast.TypeSpec)
		if !ok {
			continue
		}
		if s, ok := t.Type.(*ast.StructType); ok {
			d.addFields(t.Name.Name, s)
		}
	}
}

func (d sourceDocs) addFields(owner string, s *ast.StructType) {
	for _, f := range s.Fields.List {
		text := f.Doc.Text()
		if text == "" {
			text = f.Comment.Text()
		}
		for _, name := range f.Names {
			d.byName[owner+"."+name.Name] = strings.Join(strings.Fields(text), " ")
		}
	}
}

// comments returns the function that finds the comment of a field of the package's types. A
// type's own comment describes it to Go programmers, so it isn't used.
func (d sourceDocs) comments(pkg string) func(t reflect.Type, field string) string {
	return func(t reflect.Type, field string) string {
		if field == "" || t.PkgPath() != pkg {
			return ""
		}
		return d.byName[t.Name()+"."+field]
	}
}
