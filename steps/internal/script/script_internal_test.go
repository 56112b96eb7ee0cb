package script

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestShebang(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		text string
		want []string
	}{
		"none":          {"echo x\n", nil},
		"comment":       {"# !/bin/sh\n", nil},
		"program":       {"#!/bin/sh\necho", []string{"/bin/sh"}},
		"one argument":  {"#!/usr/bin/env -S bash -eu \n", []string{"/usr/bin/env", "-S bash -eu"}},
		"blanks":        {"#! \t/bin/sh\t -e\n", []string{"/bin/sh", "-e"}},
		"no newline":    {"#!/bin/sh", []string{"/bin/sh"}},
		"nothing in it": {"#! \n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if d := cmp.Diff(tc.want, shebang([]byte(tc.text))); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

func TestEnv(t *testing.T) {
	t.Parallel()
	got := Account{Name: "ops", Home: "/srv/ops"}.Env(map[string]string{"PORT": "80", "HOME": "/given"})
	want := map[string]string{"HOME": "/given", "USER": "ops", "LOGNAME": "ops", "PORT": "80"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}
