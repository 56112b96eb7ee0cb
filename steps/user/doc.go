// Package user is the step that makes, changes or removes a user account.
//
//	customize:
//	  - uses: user
//	    with:
//	      name: ops
//	      groups: [adm]
//	      shell: /bin/bash
//	      sudo: nopasswd
//	      authorized-keys:
//	        - ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsk3gHNFwcXp2QCGmQHmGGrwhoD9nQBOdiqWEJwLhVy ops@example.com
//	  - uses: user
//	    with: {name: app, uid: 950, gid: 950, system: true, home: /var/lib/app}
//	  - uses: user
//	    with: {name: games, absent: true}
//
// An account that is there already is changed to what is asked for; what isn't mentioned
// stays. The password of a new account is locked: who shall come in comes in with a key.
// `authorized-keys` is the whole list, and the only keys that sealing leaves in the image.
//
// `sudo` needs the package sudo. An account that is removed loses its home folder too.
package user
