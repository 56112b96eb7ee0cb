// Package check is the test of the booted image's state, in the manner of goss.
//
//	tests:
//	  - uses: check
//	    with:
//	      file:
//	        /etc/motd: {mode: "0644", owner: root, group: root, contains: hello}
//	        /etc/localtime: {type: symlink, linked-to: /usr/share/zoneinfo/Etc/UTC}
//	        /root/.ssh: {exists: false}
//	      service:
//	        nginx: {enabled: true, running: true}
//	      port:
//	        tcp:22: {banner: "^SSH-2\\.0-"}
//	        tcp:80: {}
//	        udp:111: {listening: false}
//	      package:
//	        nginx-light: {versions: [1.22.1-9+deb12u3]}
//	        telnetd: {installed: false}
//	      user:
//	        ops: {uid: 1000, groups: [adm, sudo], shell: /bin/bash}
//	      kernel-param:
//	        net.ipv4.ip_forward: {value: "0"}
//	      command:
//	        nginx -t: {stderr: test is successful}
//	        grep -q splash /proc/cmdline: {exit-status: 1}
//	      within: 30s
//
// Every assertion that doesn't hold is reported, in one go. With `within` all are looked at
// again until they hold or the time is over.
//
// Whether a port is listened on is read in the guest; a `banner` is read from outside,
// through its network card.
package check
