// Package hostname is the step that sets the host name of an image.
//
//	customize:
//	  - uses: hostname
//	    with: {name: web.example.com}
//
// The name is written to /etc/hostname, and to /etc/hosts beside 127.0.1.1, a full domain
// name together with its first part. Where cloud-init or DHCP gives a machine its name,
// theirs wins.
package hostname
