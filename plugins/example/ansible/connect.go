package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"syscall"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/broker"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

// helperArg is the argument that makes this program the connection's helper.
const helperArg = "connect"

// The environment that the connection plugin and its helper find. Nothing is passed in
// arguments, which every process of the host can read.
const (
	helperVar  = "GILD_ANSIBLE_HELPER"  // this program
	addressVar = "GILD_ANSIBLE_ADDRESS" // of the broker
	tokenVar   = "GILD_ANSIBLE_TOKEN"
	requestVar = "GILD_ANSIBLE_REQUEST"
	eventsVar  = "GILD_ANSIBLE_EVENTS" // number of the callback plugin's pipe
)

// request is one call of the connection plugin. Its data is on standard input.
type request struct {
	// Op is "exec", "put" or "get".
	Op string `json:"op"`
	// Command is a line for the machine's shell.
	Command string `json:"command"`
	// Path on the machine.
	Path string `json:"path"`
	// Result is the number of the pipe that takes the answer.
	Result uintptr `json:"result"`
}

// answer tells how a call went.
type answer struct {
	// Status is that of the command.
	Status int `json:"status"`
	// Error is why there was none; empty if the call went well.
	Error string `json:"error"`
	// Missing says that there is no such file.
	Missing bool `json:"missing"`
}

// connect makes one call to the machine and returns this program's exit status.
func connect() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var req request
	if err := json.Unmarshal([]byte(os.Getenv(requestVar)), &req); err != nil {
		fmt.Fprintf(os.Stderr, "read %s: %v\n", requestVar, err)
		return 1
	}
	out := os.NewFile(req.Result, "result")
	if err := json.NewEncoder(out).Encode(answerOf(call(ctx, req))); err != nil {
		fmt.Fprintf(os.Stderr, "tell the result: %v\n", err)
		return 1
	}
	return 0
}

func answerOf(err error) answer {
	var exit *step.ExitError
	switch {
	case err == nil:
		return answer{}
	case errors.As(err, &exit):
		return answer{Status: exit.Status}
	}
	return answer{Error: err.Error(), Missing: errors.Is(err, fs.ErrNotExist)}
}

func call(ctx context.Context, req request) error {
	client, err := broker.Dial(os.Getenv(addressVar), os.Getenv(tokenVar))
	if err != nil {
		return fmt.Errorf("reach gild: %w", err)
	}
	// The process ends with the call, and the connection with it.
	defer client.Close()
	machine := client.Machine(&pluginv1.MachineInfo{})
	switch req.Op {
	case "exec":
		return machine.Exec(ctx, step.Cmd{
			Argv:  []string{"/bin/sh", "-c", req.Command},
			Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		})
	case "put":
		return machine.Put(ctx, step.PutFile{Path: req.Path, Mode: 0o600}, os.Stdin)
	case "get":
		return machine.Get(ctx, req.Path, os.Stdout)
	}
	return fmt.Errorf("%q is no call to the machine", req.Op)
}
