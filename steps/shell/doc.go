// Package shell is the step that runs a script on the machine.
//
//	customize:
//	  - uses: shell
//	    with: {run: ./scripts/tune.sh}
//	  - uses: shell
//	    env: {PORT: "${{ params.port }}", LICENCE: "${{ secrets.licence }}"}
//	    with:
//	      run: |
//	        printf 'port=%s\n' "$PORT" > /etc/app.conf
//	  - uses: shell
//	    with:
//	      run: ./scripts/fetch.py
//	      interpreter: [/usr/bin/python3, -I]
//	      args: [--all]
//	      workdir: /opt/app
//	      user: www-data
//	      network: true
//	      creates: /opt/app/data.db
//
// `run` is the script's text, or a file of the project when it begins with ./ or ../
// A script runs with what its `#!` line says, else with /bin/sh -eu, so that it stops at
// the first command that fails and at a variable that isn't set.
//
// Values reach a script through the step's `env` only; nothing is put into its text. There
// is no network unless `network` is true, and what a script leaves running is ended with it.
//
// The output `stdout` is what the script printed, without the newlines at its end: at most
// the last 64 KiB.
package shell
