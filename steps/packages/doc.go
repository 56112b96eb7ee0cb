// Package packages is the step that installs and removes Debian packages with apt.
//
//	customize:
//	  - id: web-server
//	    uses: packages
//	    with: {install: [nginx-light, openssh-server]}
//	  - uses: packages
//	    with:
//	      install: [postgresql-15=15.10-0+deb12u1]
//	      remove: [nano]
//	      purge: true
//	      hold: [postgresql-15]
//
// What the names mean is decided by the package lists of the base, so that the same base
// gives the same versions; only a base without lists fetches them. Packages are downloaded
// first and installed with no network. Recommended packages stay out unless asked for,
// changed configuration files are kept, and no service is started.
//
// When the archive no longer has a version that the lists name, the step says so:
// `gild lock` moves the base on.
//
// The step's env is passed to apt, which reads http_proxy and https_proxy from it.
package packages
