// Package conformance holds a plugin against the contract of plugins/proto/pluginv1: the
// kit behind `gild plugin test`.
//
// The path of a plugin goes in, written in any language, and a [Report] comes out: one
// [Result] for each thing that must hold, with what was seen when it doesn't. The plugin is
// started as gild starts it, but spoken to without go-plugin's client, which forgives more
// than other languages' libraries do; a last check goes through plugins/host.
//
// Beside the plugin may lie a file gild-plugin-test.yaml with good and bad configs and runs
// with their expected outcome:
//
//	steps:
//	  acme/motd:
//	    good:                        # configs that the step takes
//	      - {text: hello}
//	    bad:                         # configs that its schema or its Validate refuses
//	      - with: {text: "two\nlines"}
//	        pointer: /text           # the place that must be named; may be left out
//	    runs:
//	      - name: writes the file
//	        with: {text: hello}
//	        env: {GREETING: hi}      # the step's `env`; treated as secrets
//	        inputs: [./files/a.txt]  # files or folders beside this one, as `with` names them
//	        section: customize       # if the step may stand in several
//	        machine: memory          # or, in customize, real: a Debian system in namespaces
//	        files: {/etc/issue: "Debian"}                          # on the machine before
//	        # What commands that begin so do in memory; others fail. The last that fits counts.
//	        commands: [{argv: [id, -u], stdout: "0\n", stderr: "", status: 0}]
//	        ports: {80: "HTTP/1.1 200 OK\r\n\r\n"}                 # of the guest, in tests
//	        console: "login:"
//	        prints-secrets: false    # true: the step shows its env, which is a warning then
//	        runs-until-cancelled: false
//	        expect:
//	          outcome: succeeded     # or failed, permanent, test-failed, skipped
//	          message: no such file  # a part of the failure's message
//	          outputs: {bytes: 6}
//	          log: [wrote]           # parts of the log
//	          files: {/etc/motd: "hello\n"}
//	    cleanup:                     # resources that Cleanup must take, twice
//	      - {kind: upload, id: gone}
//
// The text ${{ temp }} in a config stands for a folder that is removed afterwards. Each run
// finds a secret in its env, GILD_TEST_SECRET, that must show nowhere.
// Without the file the examples of the step's help serve as configs. The kit runs nothing
// but the plugin, changes nothing outside of a temporary folder, and ends every process
// that the plugin leaves behind.
package conformance
