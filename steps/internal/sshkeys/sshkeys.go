// Package sshkeys holds what the steps user and seal agree on: how an authorized_keys file
// says that it is meant to be part of the image.
package sshkeys

import "strings"

// Mark is the first line of an authorized_keys file that the pipeline declares. Sealing
// removes every other one: it was left by whoever worked on the machine.
const Mark = "# declared in the pipeline, kept by seal"

// File returns the text of an authorized_keys file.
func File(keys []string) string {
	return Mark + "\n" + strings.Join(keys, "\n") + "\n"
}
