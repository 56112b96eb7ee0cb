# Looks for what must not be in an image. The arguments are the items to verify; what each
# looks for is the function of its name. It prints a line "item<TAB>path<TAB>problem" for
# each thing found, and changes nothing.

report() { printf '%s\t%s\t%s\n' "$item" "$1" "$2"; }

# gone reports every argument that exists.
gone() {
	for path; do
		if [ -e "$path" ] || [ -L "$path" ]; then report "$path" "is still there"; fi
	done
}

# no_content reports every file in the folders that isn't empty.
no_content() {
	for dir; do
		if [ ! -d "$dir" ]; then continue; fi
		find "$dir" -xdev -type f -size +0 | sort | while read -r path; do report "$path" "is still there"; done
	done
}

verify_machine_id() {
	if [ -s /etc/machine-id ]; then report /etc/machine-id "is not empty"; fi
	if [ -s /var/lib/dbus/machine-id ]; then report /var/lib/dbus/machine-id "is not empty"; fi
}

verify_ssh_host_keys() {
	gone /etc/ssh/ssh_host_*
	if [ -x /usr/sbin/sshd ] && [ ! -e /etc/systemd/system/multi-user.target.wants/gild-ssh-host-keys.service ]; then
		report /usr/sbin/sshd "would find no host keys: nothing makes them at boot"
	fi
}

verify_user_keys() {
	homes | while read -r home; do
		for path in "$home"/.ssh/* "$home"/.ssh/.[!.]*; do
			case $path in
			*/config) continue ;;
			*/authorized_keys) if [ -f "$path" ] && [ "$(head -n 1 "$path")" = "$KEYS_MARK" ]; then continue; fi ;;
			esac
			gone "$path"
		done
	done
}

verify_cloud_init() {
	if [ -d /var/lib/cloud ]; then no_content /var/lib/cloud; fi
	gone /etc/sudoers.d/90-cloud-init-users
}

verify_logs() { no_content /var/log; }

verify_histories() {
	homes | while read -r home; do
		gone "$home"/.*_history "$home/.lesshst" "$home/.viminfo" "$home/.wget-hsts"
	done
}

verify_hostname() {
	if [ ! -f /etc/hostname ]; then return; fi
	for name in $BUILDER_NAMES; do
		if [ "$(cat /etc/hostname)" = "$name" ]; then report /etc/hostname "is the builder's name"; fi
	done
}

verify_resolv_conf() {
	if [ ! -L /etc/resolv.conf ] && [ -s /etc/resolv.conf ]; then report /etc/resolv.conf "is not empty"; fi
}

verify_network_state() {
	no_content /var/lib/dhcp /var/lib/dhcpcd /var/lib/NetworkManager /var/lib/systemd/network
	gone /etc/udev/rules.d/70-persistent-net.rules /etc/lvm/devices/system.devices /etc/nvme/hostnqn /etc/nvme/hostid
}

verify_entropy() {
	gone /var/lib/systemd/random-seed /var/lib/systemd/credential.secret /var/lib/urandom/random-seed \
		/boot/efi/loader/random-seed /boot/loader/random-seed /efi/loader/random-seed
}

verify_package_state() {
	no_content /var/lib/apt/lists /var/cache/apt
	gone /var/lib/dpkg/*-old /var/cache/ldconfig/aux-cache /usr/sbin/policy-rc.d
}

verify_backups() { gone /etc/passwd- /etc/shadow- /etc/group- /etc/gshadow- /etc/subuid- /etc/subgid-; }

verify_temporary_files() { no_content /tmp /var/tmp /var/crash /var/lib/systemd/coredump; }

verify_caches() {
	homes | while read -r home; do gone "$home/.cache" "$home/.npm" "$home/.ansible" "$home/.pip"; done
}

# Only what begins with ! or * can't be a password.
verify_passwords() {
	if [ ! -f /etc/shadow ]; then return; fi
	awk -F: '$2 == "" { print $1, "has an empty password" } $2 != "" && $2 !~ /^[!*]/ { print $1, "has a password" }' /etc/shadow |
		while read -r line; do report /etc/shadow "$line"; done
}

# verify_secrets looks where people and programs put secrets. What dpkg and apt keep there
# is theirs. Files are known by their names or by what is in them.
verify_secrets() {
	roots=
	for dir in /etc /root /home /opt /srv /usr/local /var; do
		if [ -d "$dir" ]; then roots="$roots $dir"; fi
	done
	# Assigned first: a command that fails inside of a pipe would go unnoticed.
	list=$(find $roots -xdev \( -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/cache \) -prune -o -type f -size +0 \( \
		-name .netrc -o -name .git-credentials -o -name .pgpass -o -name .pypirc -o -name .vault-token -o -name '*.keytab' \
		-o -path '*/.aws/credentials' -o -path '*/.kube/config' -o -path '*/gcloud/credentials.db' -o -path '*/.azure/*Tokens.json' \
		\) -print)
	each "$list" report "is a file of credentials"
	list=$(find $roots -xdev -type f \( -name .npmrc -o -path '*/.docker/config.json' -o -path '*/containers/auth.json' \) -print0 |
		matching -e "$password")
	each "$list" report "holds a registry's password or token"
	list=$(find $roots -xdev \( -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/cache \) -prune -o -type f -size +0 -print0 |
		matching -e "$private_key" -e "$access_key" -e "$secret_key" -e "$token")
	each "$list" name_secret
}

# matching prints those of the files, which it reads with NULs between them, that match.
matching() { xargs -0 -r /bin/sh -c 'grep -IlE "$@" || [ $? -eq 1 ]' grep "$@" --; }

# each calls a function with every line of a list, sorted, in front of its other arguments.
each() {
	lines=$1 call=$2
	shift 2
	printf '%s\n' "$lines" | sort | while read -r line; do
		if [ -n "$line" ]; then "$call" "$line" "$@"; fi
	done
}

private_key='-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY( BLOCK)?-----(\\n|[[:space:]]*$)'
access_key='(^|[^A-Za-z0-9/+])(AKIA|ASIA)[A-Z2-7]{16}([^A-Za-z0-9/+=]|$)'
secret_key='aws_secret_access_key[[:space:]]*[=:][[:space:]]*"?[A-Za-z0-9/+]{40}'
token='(^|[^A-Za-z0-9_])(gh[pousr]_[A-Za-z0-9]{36}|glpat-[A-Za-z0-9_-]{20}|xox[abprs]-[0-9A-Za-z-]{20})'
password='_authToken[[:space:]]*=|_password[[:space:]]*=|"(auth|identitytoken|registrytoken)"[[:space:]]*:[[:space:]]*"[^"]'

# name_secret reports what kind of secret is in a file, and never the secret.
name_secret() {
	if grep -qE -e "$private_key" -- "$1"; then report "$1" "holds a private key"; fi
	# Amazon's documentation uses a key that ends in EXAMPLE.
	if grep -oE -e "$access_key" -- "$1" | grep -qv EXAMPLE; then report "$1" "holds an AWS access key"; fi
	if grep -E -e "$secret_key" -- "$1" | grep -qv EXAMPLE; then report "$1" "holds an AWS secret key"; fi
	if grep -qE -e "$token" -- "$1"; then report "$1" "holds an access token"; fi
}

for item; do
	"verify_$(echo "$item" | tr - _)"
done
