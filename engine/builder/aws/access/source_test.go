package access

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ebs"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2instanceconnect"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// TestSource holds the table against the source of the builder: every operation of AWS that
// the code names is in it, and nothing is in it that the code doesn't name. Calls that only
// make messages better aren't part of the policy, and are listed here.
func TestSource(t *testing.T) {
	t.Parallel()
	better := []string{"iam:GetRole", "iam:SimulatePrincipalPolicy", "sts:DecodeAuthorizationMessage", "sts:GetCallerIdentity"}
	named := named(t)
	var needed []string
	for _, r := range table() {
		needed = append(needed, r.actions...)
		for _, a := range r.actions {
			if !r.implied && named[a] == "" {
				t.Errorf("nothing in the builder calls %s, which is in the policy for %q", a, r.feature)
			}
		}
	}
	for _, a := range keys(named) {
		if !slices.Contains(needed, a) && !slices.Contains(better, a) {
			t.Errorf("%s calls %s, and the table of policies doesn't have it", named[a], a)
		}
	}
}

// named finds the operations of the SDK's clients that the builder's code names, and a place
// of each.
func named(t *testing.T) map[string]string {
	t.Helper()
	actions := operations()
	found := map[string]string{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				// A builder's own methods have some of the names; they aren't named on a client.
				if onClient(n.X) {
					if a := actions[n.Sel.Name]; a != "" {
						found[a] = files.Position(n.Pos()).String()
					}
				}
			case *ast.InterfaceType:
				for _, m := range n.Methods.List {
					for _, name := range m.Names {
						if a := actions[name.Name]; a != "" && takesInput(m.Type, name.Name) {
							found[a] = files.Position(m.Pos()).String()
						}
					}
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) < 20 {
		t.Fatalf("only %d operations found in the source of the builder", len(found))
	}
	return found
}

// onClient tells a client from another value by its name.
func onClient(x ast.Expr) bool {
	clients := []string{"EC2", "SSM", "IAM", "KMS", "STS", "Connect", "c", "client"}
	switch x := x.(type) {
	case *ast.SelectorExpr:
		return slices.Contains(clients, x.Sel.Name)
	case *ast.Ident:
		return slices.Contains(clients, x.Name)
	}
	return false
}

// takesInput tells an operation of the SDK by its second parameter.
func takesInput(f ast.Expr, name string) bool {
	fn, ok := f.(*ast.FuncType)
	if !ok || len(fn.Params.List) < 2 {
		return false
	}
	star, ok := fn.Params.List[1].Type.(*ast.StarExpr)
	if !ok {
		return false
	}
	sel, ok := star.X.(*ast.SelectorExpr)
	return ok && sel.Sel.Name == name+"Input"
}

// operations are the actions by the name of the operation.
func operations() map[string]string {
	all := map[string]string{}
	for service, client := range map[string]reflect.Type{
		"ebs": reflect.TypeFor[*ebs.Client](), "ec2": reflect.TypeFor[*ec2.Client](), "iam": reflect.TypeFor[*iam.Client](),
		"kms": reflect.TypeFor[*kms.Client](), "ssm": reflect.TypeFor[*ssm.Client](), "sts": reflect.TypeFor[*sts.Client](),
		"ec2-instance-connect": reflect.TypeFor[*ec2instanceconnect.Client](),
	} {
		for m := range client.Methods() {
			if m.Name != "Options" {
				all[m.Name] = service + ":" + m.Name
			}
		}
	}
	return all
}
