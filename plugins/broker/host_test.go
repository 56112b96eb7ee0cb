package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

// files is an input in memory. A file whose content begins with "changed" isn't what it was.
type files map[string]string

func (f files) IsDir() bool { return true }

func (f files) Files() []step.InputFile {
	list := []step.InputFile{{Path: ".", Mode: fs.ModeDir | 0o755}}
	for i := range 2000 {
		name := fmt.Sprintf("f%04d", i)
		if text, ok := f[name]; ok {
			list = append(list, step.InputFile{Path: name, Mode: 0o644, Size: int64(len(text))})
		}
	}
	return append(list, step.InputFile{Path: "link", Mode: fs.ModeSymlink | 0o777, Link: "f0000"})
}

func (f files) Open(rel string) (io.ReadCloser, error) {
	text, ok := f[rel]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: rel, Err: fs.ErrNotExist}
	}
	r := io.Reader(strings.NewReader(text))
	if strings.HasPrefix(text, "changed") {
		r = io.MultiReader(r, errReader{errors.New("the content has changed since it was planned with")})
	}
	return io.NopCloser(r), nil
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

func TestInputs(t *testing.T) {
	t.Parallel()
	in := files{"secret": "not in the list"}
	for i := range 2000 {
		in[fmt.Sprintf("f%04d", i)] = "text"
	}
	in["f0001"], in["f0002"], in["f0003"] = "changed", big, ""
	target := newTarget(nil)
	target.Inputs["./in"] = in
	_, client := open(t, target)
	inputs, err := client.Inputs(t.Context(), []string{"./in"})
	if err != nil {
		t.Fatal(err)
	}
	got := inputs["./in"]
	if d := cmp.Diff(in.Files(), got.Files()); d != "" || !got.IsDir() {
		t.Errorf("(-want +got)\n%s", d)
	}
	for name, tc := range map[string]struct {
		want string
		fail string
		is   error
	}{
		"f0000":       {want: "text"},
		"f0002":       {want: big},
		"f0003":       {},
		"f0001":       {want: "changed", fail: `read "f0001" of the input "./in": the content has changed since it was planned with`},
		"none":        {fail: `read "none" of the input "./in": open none: file does not exist`, is: fs.ErrNotExist},
		"secret":      {fail: `read "secret" of the input "./in": open secret: file does not exist`, is: fs.ErrNotExist},
		"../../etc":   {fail: `read "../../etc" of the input "./in": open ../../etc: file does not exist`, is: fs.ErrNotExist},
		".":           {fail: `read "." of the input "./in": "." of the input "./in" is no regular file`},
		"link":        {fail: `read "link" of the input "./in": "link" of the input "./in" is no regular file`},
		"/etc/passwd": {fail: `read "/etc/passwd" of the input "./in": open /etc/passwd: file does not exist`, is: fs.ErrNotExist},
	} {
		text, err := readAll(got, name)
		said := ""
		if err != nil {
			said = err.Error()
		}
		if text != tc.want || said != tc.fail || tc.is != nil && !errors.Is(err, tc.is) {
			t.Errorf("%s: got %d bytes and %q, want %d bytes and %q", name, len(text), said, len(tc.want), tc.fail)
		}
	}
	if _, err := client.Inputs(t.Context(), []string{"./in", "./out"}); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), `list the input "./out"`) {
		t.Errorf("an input that the step hasn't: %v", err)
	}
}

func readAll(in step.Input, name string) (string, error) {
	r, err := in.Open(name)
	if err != nil {
		return "", err
	}
	var text bytes.Buffer
	_, err = io.Copy(&text, r)
	return text.String(), errors.Join(err, r.Close())
}

// TestInputEndsWithItsContext reads on after the step's context has ended.
func TestInputEndsWithItsContext(t *testing.T) {
	t.Parallel()
	target := newTarget(nil)
	target.Inputs["./in"] = files{"f0000": strings.Repeat(big, 16)}
	_, client := open(t, target)
	ctx, cancel := context.WithCancelCause(t.Context())
	inputs, err := client.Inputs(ctx, []string{"./in"})
	if err != nil {
		t.Fatal(err)
	}
	r, err := inputs["./in"].Open("f0000")
	if err != nil {
		t.Fatal(err)
	}
	cancel(errBroken)
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, errBroken) {
		t.Errorf("got %v, want the cause of the context's end", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func TestClaims(t *testing.T) {
	t.Parallel()
	_, client := open(t, newTarget(nil))
	claim := func(r step.Resource) (func(context.Context) error, error) { return client.Claim(t.Context(), r) }
	settle, err := claim(step.Resource{Kind: "upload", ID: "1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(settle(t.Context()), settle(t.Context())); err != nil {
		t.Errorf("settled twice: %v", err)
	}
	for name, tc := range map[string]struct {
		r    step.Resource
		want string
	}{
		"journal fails":             {step.Resource{Kind: "refused", ID: "1"}, `claim refused "1": the journal is full`},
		"no kind":                   {step.Resource{ID: "1"}, "the kind of a resource has 0 bytes, not 1 to 256"},
		"no id":                     {step.Resource{Kind: "upload"}, "the id of a resource has 0 bytes"},
		"long id":                   {step.Resource{Kind: "upload", ID: strings.Repeat("x", maxID+1)}, "the id of a resource has 4097 bytes"},
		"kind of two lines":         {step.Resource{Kind: "up\nload", ID: "1"}, `the kind of a resource, "up\nload", is not plain text`},
		"id for the terminal":       {step.Resource{Kind: "upload", ID: "\u009b2J"}, `the id of a resource, "\u009b2J", is not plain text`},
		"note that is turned round": {step.Resource{Kind: "upload", ID: "1", Note: "\u202eabc"}, `the note of a resource, "\u202eabc", is not plain text`},
		"id that isn't text":        {step.Resource{Kind: "upload", ID: "\xff"}, "invalid UTF-8"},
		"long note":                 {step.Resource{Kind: "upload", ID: "1", Note: strings.Repeat("x", maxNote+1)}, "the note of a resource has 4097 bytes"},
	} {
		if _, err := claim(tc.r); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
	settle, err = claim(step.Resource{Kind: "unsettled", ID: "2"})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := settle(t.Context()); err == nil || !strings.Contains(err.Error(), "the journal is gone") {
			t.Errorf("settling that fails: %v", err)
		}
	}
	if err := client.SettleClaim(t.Context(), "nosuch"); err == nil || !strings.Contains(err.Error(), `the step has no claim "nosuch"`) {
		t.Errorf("a claim that there isn't: %v", err)
	}
}

func TestTooManyClaims(t *testing.T) {
	t.Parallel()
	_, client := open(t, newTarget(nil))
	for i := range maxClaims + 1 {
		_, err := client.host.Claim(t.Context(), &pluginv1.ClaimRequest{Resource: &pluginv1.Resource{Kind: "upload", Id: fmt.Sprint(i)}})
		if (err != nil) != (i == maxClaims) {
			t.Fatalf("claim %d: %v", i, err)
		}
	}
}
