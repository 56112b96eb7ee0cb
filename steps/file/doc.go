// Package file is the step that writes a file to the machine, or copies a folder to it.
//
//	customize:
//	  - uses: file
//	    with: {to: /etc/motd, content: "hello from ${{ pipeline.name }}\n", mode: "0644"}
//	  - uses: file
//	    with: {to: /etc/nginx/sites-available/default, from: ./files/site.conf}
//	  - uses: file
//	    with: {to: /srv/www, from: ./www, owner: www-data, group: www-data}
//	  - uses: file
//	    with:
//	      to: /etc/app/app.conf
//	      template: ./files/app.conf.tmpl
//	      vars: {port: "${{ params.port }}", workers: [a, b]}
//	      mode: "0640"
//	      parents: true
//
// `content` is written as it stands. `from` copies a file of the project, or all that is
// in a folder: links are kept and may not lead out of the folder, files on the machine that
// the folder doesn't have stay. `template` is a file in the form of Go's text/template that
// sees `vars` and nothing else; using a name that isn't in it is an error.
//
// A file is replaced in one piece, and its time of change is the build's clock.
package file
