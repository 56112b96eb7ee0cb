// Package seal is the step that makes an image out of a machine: it removes what must not
// be in every copy of it. It is always there, always last, and can't be left out.
//
// A pipeline file has no section for it: the engine puts it in front of the disk. Its
// config knows `skip`, a list of {item, reason} to leave alone, and `allow`, a list of
// {path, reason} that the search for secrets may find; the engine gives it neither.
//
// The items, by the name that `skip` knows them by:
//
//   - machine-id: emptied, so that the first boot makes a new one and changes nothing else
//   - ssh-host-keys: removed; a unit makes new ones before sshd starts for the first time
//   - user-keys: all in .ssh but `config`, and but authorized_keys that the step `user` wrote
//   - cloud-init: its state, logs and generated files
//   - logs: emptied, rotated ones and the journal removed
//   - histories: of shells, editors and database clients
//   - hostname: localhost, when it is the builder's
//   - resolv-conf: emptied, unless it is a link
//   - network-state: DHCP leases, persistent device names, iSCSI and NVMe names
//   - entropy: random seeds and the credential secret
//   - package-state: apt's lists, archives and caches, dpkg's old files, policy-rc.d
//   - backups: /etc/passwd- and its like
//   - temporary-files: /tmp, /var/tmp, crash dumps, mail
//   - caches: of users and language package managers
//   - passwords: nothing is removed; an account with a password, or an empty one, is an error
//   - secrets: nothing is removed; see below
//
// A second pass looks whether all that is really gone. It fails with the item and the path
// when something is left, or when a file in /etc, /root, /home, /opt, /srv, /usr/local or
// /var looks like a secret: a private key, an access key or token, a .netrc and its like.
package seal
