package main

import (
	"bytes"
	"testing"

	"github.com/gildhq/gild/plugins/sdk/sdktest"
)

func TestMain(m *testing.M) { sdktest.Main(m, plugin()) }

func TestHello(t *testing.T) {
	machine := sdktest.NewMachine()
	got := sdktest.Target{Machine: machine}.Run(t, sdktest.Self(t)["gild/hello"], "name: world")
	if file, _ := machine.File("/etc/motd"); got.Err != nil || file.Content != "Hello, world!\n" {
		t.Errorf("got %q, %v", file.Content, got.Err)
	}
	if problems := sdktest.Problems(t, plugin().Steps[0], "nome: world"); len(problems) == 0 {
		t.Error("a misspelt key is no problem")
	}
}

// TestShort keeps the promise that a step needs less than 30 lines.
func TestShort(t *testing.T) {
	if n := bytes.Count([]byte(source), []byte("\n")); n >= 30 {
		t.Errorf("the smallest plugin has %d lines", n)
	}
}
