// Package service is the step that enables, disables, masks or installs a systemd unit.
//
//	customize:
//	  - uses: service
//	    with: {name: nginx, enable: true}
//	  - uses: service
//	    with: {name: apt-daily.timer, mask: true}
//	  - uses: service
//	    with:
//	      name: app.service
//	      enable: true
//	      unit: |
//	        [Unit]
//	        Description=The app
//	        [Service]
//	        ExecStart=/opt/app/run
//	        [Install]
//	        WantedBy=multi-user.target
//	  - uses: service
//	    with:
//	      name: ssh
//	      dropin: |
//	        [Service]
//	        Restart=always
//	  - uses: service
//	    with: {name: backup.timer, from: ./units/backup.timer, enable: true}
//
// `unit` or `from` is the whole unit file, `dropin` is added to the one that is there; both
// are put into /etc/systemd/system. Nothing is started: the unit takes effect when the
// image boots.
package service
