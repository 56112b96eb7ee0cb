// Package command is the test that runs a command in the booted image.
//
//	tests:
//	  - uses: command
//	    with: {run: [nginx, -t]}
//	  - uses: command
//	    with:
//	      run: ./tests/smoke.sh
//	      user: www-data
//	      within: 30s
//	  - uses: command
//	    with:
//	      run: [sysctl, -n, net.ipv4.ip_forward]
//	      stdout: {equals: "0"}
//	  - uses: command
//	    with:
//	      run: openssl version | grep -v beta
//	      status: 0
//	      stdout: {contains: [OpenSSL], matches: "^OpenSSL 3\\."}
//	      stderr: {equals: ""}
//
// `run` is a list of program and arguments, or a script: its text, or a file of the project
// when it begins with ./ or ../, run as the step `shell` does. The guest has a throw-away
// disk: nothing the command does reaches the image.
//
// Every assertion that doesn't hold is reported. With `within` the command is run again
// until all hold or the time is over.
package command
