// Package sandboxtest gives tests an AWS sandbox whose instances start in a tenth of a second.
//
// [Start] opens a sandbox in a temporary folder, serves it, adds a base image called and
// owned like Debian's, and says which environment leads a process there. Its instances are
// [Machines]: a small root file system in namespaces of its own (mounts, processes, network,
// host name, IPC, cgroups), with fewer capabilities, on which commands run as root. They are
// not the real thing, and stand in for it only where a test needs hundreds of machines:
//
//   - A disk is a tar of the tree behind a header that says so. It doesn't boot anywhere else.
//   - The programs in /usr are this host's, whatever it runs; a machine's disk holds only what
//     it has changed there. Everything else is the machine's own.
//   - There is no init system and no service runs. Restarting ends all processes.
//   - The disk is written when the machine is held still, stopped or restarted; a machine that
//     is killed leaves it as it was then. sync does nothing for it.
//   - Nothing outside reaches a port of the machine, and the machine reaches nothing outside
//     but its metadata service.
//   - Firmware, memory, processors and disks other than the root disk are ignored.
//
// The machines of package vm are QEMU guests and have none of these limits; what is tested
// here about bytes and boots must be tested there too.
//
// Tests that use machines need root, Linux, a cgroup2 hierarchy, util-linux, openssl, and a
// folder for temporary files that isn't in an overlay.
package sandboxtest
