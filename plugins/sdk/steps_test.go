package sdk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/gildhq/gild/plugins/sdk"
	"github.com/gildhq/gild/steps/shell"
)

// everything is a step that does what its config says, one thing of each kind.
type everything struct {
	// Do is what to do.
	Do string `json:"do"`
	// N is how often.
	N int `json:"n,omitempty"`
}

type results struct {
	Text  string   `json:"text"`
	List  []string `json:"list"`
	Count int      `json:"count"`
	Ratio float64  `json:"ratio"`
	Yes   bool     `json:"yes"`
}

// testPlugin is the plugin that the tests' program is when it is started as one.
func testPlugin() sdk.Plugin {
	wrapped := shell.Step
	wrapped.Name = "gild/test/shell"
	return sdk.Plugin{Name: "gild/test", Version: "1.2.3", Steps: []sdk.Step{
		sdk.Define(sdk.Step{
			Name: "gild/test/customize", Summary: "do one thing", Sections: []sdk.Section{sdk.Customize}, Cacheable: true,
			Validate: sdk.Validate(validate), KeyParts: sdk.KeyParts(keyParts), Cleanup: cleanup,
		}, do),
		sdk.Define(sdk.Step{
			Name: "gild/test/tests", Summary: "look at an image", Sections: []sdk.Section{sdk.Tests, sdk.Publish},
		}, look),
		wrapped,
	}}
}

func validate(_ context.Context, c everything) ([]sdk.Problem, error) {
	switch c.Do {
	case "problem":
		return []sdk.Problem{{Pointer: "/do", Message: "it says problem", Hint: "say something else"}, {Message: "in general", Warning: true}}, nil
	case "broken":
		return nil, &sdk.Permanent{Err: errors.New("can't tell")}
	case "panic":
		panic("in validate")
	}
	return nil, nil
}

func keyParts(_ context.Context, c everything) (map[string]string, error) {
	if c.Do == "broken" {
		return nil, errors.New("no key")
	}
	return map[string]string{"does": c.Do}, nil
}

func cleanup(_ context.Context, r sdk.Resource) error {
	if r.Kind == "stuck" {
		return fmt.Errorf("remove %s: stuck", r.ID)
	}
	return nil
}

func do(ctx context.Context, t *sdk.Target, c everything) (results, error) {
	switch c.Do {
	case "outputs":
		return results{Text: "a\x00b ü", List: []string{"x", ""}, Count: 1 << 40, Ratio: 0.1, Yes: true}, nil
	case "large outputs":
		return results{Text: strings.Repeat("x", c.N)}, nil
	case "target":
		t.Clock = t.Clock.UTC()
		fmt.Fprintf(t.Log, "env=%v clock=%v pipeline=%+v attempt=%d token=%s image=%v registry=%v", t.Env, t.Clock, t.Pipeline, t.Attempt, t.Token, t.Image, t.Registry)
	case "log":
		for i := range c.N {
			if _, err := fmt.Fprintf(t.Log, "line %d\n", i); err != nil {
				return results{}, err
			}
		}
	case "long log":
		_, err := t.Log.Write(bytes.Repeat([]byte("x"), c.N))
		return results{}, err
	case "progress":
		for i := range c.N {
			t.Progress(int64(i+1), int64(c.N), "items")
		}
	case "machine":
		return results{}, onMachine(ctx, t)
	case "inputs":
		return results{}, listInputs(t)
	case "claim":
		return results{}, claim(ctx, t)
	case "wait":
		fmt.Fprintln(t.Log, "waiting")
		<-ctx.Done()
		return results{}, fmt.Errorf("stopped waiting: %w", context.Cause(ctx))
	default:
		return results{}, fail(ctx, t, c.Do)
	}
	return results{}, nil
}

func fail(ctx context.Context, t *sdk.Target, how string) error {
	switch how {
	case "error":
		return errors.New("it didn't work")
	case "permanent":
		return fmt.Errorf("here: %w", &sdk.Permanent{Err: errors.New("it never works")})
	case "skipped":
		return &sdk.Skipped{Reason: "nothing to do"}
	case "test failed":
		return &sdk.TestFailed{Checks: []string{"one", "two"}}
	case "not there":
		return fmt.Errorf("look: %w", fs.ErrNotExist)
	case "command":
		return t.Machine.Exec(ctx, sdk.Cmd{Argv: []string{"false", "x"}})
	case "panic":
		none := []int{}
		return fmt.Errorf("%d", none[len(t.Env)])
	}
	return nil
}

func onMachine(ctx context.Context, t *sdk.Target) error {
	if err := t.Machine.Put(ctx, sdk.PutFile{Path: "/etc/new", Mode: 0o600, Owner: "games", Parents: true}, strings.NewReader("text")); err != nil {
		return err
	}
	if err := t.Machine.Get(ctx, "/etc/new", t.Log); err != nil {
		return err
	}
	facts, err := t.Machine.Facts(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(t.Log, "\n%s %s\n", facts.OS, facts.Version)
	return t.Machine.Exec(ctx, sdk.Cmd{Argv: []string{"cat", "-"}, Stdin: strings.NewReader("in"), Stdout: t.Log, Stderr: t.Log})
}

func listInputs(t *sdk.Target) error {
	in := t.Inputs["./data"]
	for _, f := range in.Files() {
		fmt.Fprintf(t.Log, "%s %v %d %s\n", f.Path, f.Mode.Type(), f.Size, f.Link)
	}
	r, err := in.Open("sub/file")
	if err != nil {
		return err
	}
	if _, err := io.Copy(t.Log, r); err != nil {
		return err
	}
	if err := r.Close(); err != nil {
		return err
	}
	if _, err = in.Open("../secret"); err == nil {
		return errors.New("a path led out of the input")
	}
	return nil
}

func claim(ctx context.Context, t *sdk.Target) error {
	if _, err := t.Claim(ctx, sdk.Resource{Kind: "upload", ID: "1", Note: "stays open"}); err != nil {
		return err
	}
	settle, err := t.Claim(ctx, sdk.Resource{Kind: "upload", ID: "2"})
	if err != nil {
		return err
	}
	return settle(ctx)
}

func look(ctx context.Context, t *sdk.Target, _ struct{}) (struct{}, error) {
	fmt.Fprintf(t.Log, "%+v\n", *t.Image)
	guest, ok := t.Machine.(sdk.Guest)
	if !ok {
		fmt.Fprintf(t.Log, "no guest: %v\n", t.Machine)
		return struct{}{}, nil
	}
	fmt.Fprintf(t.Log, "%v %q\n", guest.PoweredOn().UTC(), guest.Console())
	if _, err := guest.Dial(ctx, 81); err == nil {
		return struct{}{}, errors.New("port 81 answers")
	}
	conn, err := guest.Dial(ctx, 80)
	if err != nil {
		return struct{}{}, err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "ping\n"); err != nil {
		return struct{}{}, err
	}
	_, err = io.Copy(t.Log, conn)
	return struct{}{}, err
}
