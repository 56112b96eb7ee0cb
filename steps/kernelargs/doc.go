// Package kernelargs is the step that changes the kernel's command line.
//
//	customize:
//	  - uses: kernel-args
//	    with:
//	      add: [audit=1, "console=ttyS0,115200"]
//	      remove: [quiet, console]
//
// The arguments are kept in /etc/kernel/cmdline, in one line, which the disk is made from;
// what finds the root file system is added there and not here. Where GRUB is installed they
// are also written to /etc/default/grub.d, so that a later update-grub on the running
// machine comes to the same.
package kernelargs
