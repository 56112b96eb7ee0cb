// Command gild builds golden machine images from pipeline files.
//
// In go a command line, pipeline files and a state folder; results go to standard
// output, progress and mistakes to standard error, and the exit status says how it
// ended (see `gild --help`). Everything that is more than flags and printing is in
// engine.
package main

import (
	"context"
	"os"

	"github.com/gildhq/gild/engine/builder/local/sandbox"
)

func main() {
	sandbox.Init() // must come first: a sandboxed child of gild starts here too, and never returns
	// Debian keeps some of the tools that gild runs where a user's PATH doesn't look.
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin"); err != nil {
		panic(err) // the name is a constant
	}
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv, makeBuilders: makeBuilders}
	os.Exit(a.run(context.Background(), os.Args[1:]))
}
