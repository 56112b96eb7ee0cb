package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// childName is the argv[0] of every child; no user starts a program under it.
const childName = "gild-sandbox"

// The parts a child can play, its argv[1].
const (
	roleSession = "session"
	roleExec    = "exec"
	roleJob     = "job"
	roleChores  = "chores"
)

// controlFD is the descriptor of a child's control socket; in an exec's init it is
// the socket of the call.
const controlFD = 3

// Init must be the first call of main, and of TestMain in the tests of every package
// that uses this one. In a child of this package it does the child's work and never
// returns; otherwise it returns at once.
func Init() {
	if len(os.Args) != 2 || os.Args[0] != childName {
		return
	}
	roles := map[string]func() error{
		roleSession: runSession,
		roleExec:    runExecInit,
		roleJob:     runJob,
		roleChores:  runChores,
	}
	run, ok := roles[os.Args[1]]
	if !ok {
		return
	}
	// Descriptors the caller itself had inherited end here.
	err := unix.CloseRange(controlFD, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
	if err == nil {
		err = run()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintln(os.Stderr, err)
		exit(1)
	}
	exit(0)
}

// exit ends a child at once. Unlike os.Exit it runs no hooks: a race detector's would
// keep a command's processes alive for a second.
func exit(status int) { syscall.Exit(status) }

// awaitSetup waits for the setup, by which time the ids are mapped. The files are the
// folders of the setup.
func awaitSetup() (setup, []*os.File, error) {
	var s setup
	if _, err := readPacket(controlFD, &s); err != nil {
		return setup{}, nil, err
	}
	var folders []*os.File
	for len(folders) < s.Files {
		files, err := readPacket(controlFD, &request{})
		if err != nil {
			return setup{}, nil, err
		}
		folders = append(folders, files...)
	}
	return s, folders, nil
}

// takeIDs makes the process container root. From then on it can't be traced, and its
// memory and files can't be looked at, by anything that runs inside.
func takeIDs() error {
	if err := syscall.Setgroups(nil); err != nil {
		return fmt.Errorf("drop the caller's groups: %w", err)
	}
	if err := syscall.Setresgid(0, 0, 0); err != nil {
		return fmt.Errorf("take group id 0: %w", err)
	}
	if err := syscall.Setresuid(0, 0, 0); err != nil {
		return fmt.Errorf("take user id 0: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("hide from tracing: %w", err)
	}
	return nil
}

// answerSetup tells the parent how the setup went.
func answerSetup(setupErr error) error {
	data, err := json.Marshal(failed(setupErr))
	if err != nil {
		return err
	}
	return retry(func() error { return unix.Sendmsg(controlFD, data, nil, nil, 0) })
}
