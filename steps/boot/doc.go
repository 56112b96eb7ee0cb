// Package boot is the test that the image boots, in time and with no failed unit.
//
//	tests:
//	  - uses: boot
//	  - uses: boot
//	    with:
//	      within: 120s
//	      target: graphical.target
//	      allow-failed: [systemd-networkd-wait-online.service]
//
// Time counts from the moment the guest is switched on until systemd has nothing left to
// start. Then the target must be active, and no unit may have failed but those allowed;
// the status of each that did is in the step's log.
//
// Its output `seconds` is how long the boot took.
package boot
