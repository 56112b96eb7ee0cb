# Removes what belongs to one machine only. The arguments are the items to seal; what each
# does is the function of its name. BUILDER_NAMES are host names of the machine that builds.

# emptied removes everything in folders.
emptied() {
	for dir; do
		if [ -d "$dir" ] && [ ! -L "$dir" ]; then find "$dir" -xdev -mindepth 1 -delete; fi
	done
}

# without_files removes the files in folders and keeps the folders in them.
without_files() {
	for dir; do
		if [ -d "$dir" ]; then find "$dir" -xdev -type f -delete; fi
	done
}

seal_machine_id() {
	if [ -e /etc/machine-id ] || [ -d /etc/systemd ]; then
		rm -f /etc/machine-id
		: >/etc/machine-id
		# "uninitialized" would make the first boot enable units by preset again.
		chmod 0444 /etc/machine-id
	fi
	if [ -d /var/lib/dbus ]; then ln -sfn /etc/machine-id /var/lib/dbus/machine-id; fi
}

seal_ssh_host_keys() {
	rm -f /etc/ssh/ssh_host_*
	if [ ! -x /usr/sbin/sshd ] || [ ! -d /etc/systemd/system ]; then return; fi
	# It is there beside any other generator: cloud-init makes keys only where it finds a
	# data source, and the unit does nothing where there are keys.
	cat >/etc/systemd/system/gild-ssh-host-keys.service <<-'UNIT'
		[Unit]
		Description=Make the SSH host keys of this machine
		ConditionPathExistsGlob=!/etc/ssh/ssh_host_*_key
		DefaultDependencies=no
		RequiresMountsFor=/etc/ssh
		After=local-fs.target systemd-random-seed.service
		Before=ssh.service ssh.socket shutdown.target
		Conflicts=shutdown.target

		[Service]
		Type=oneshot
		RemainAfterExit=yes
		ExecStart=/usr/bin/ssh-keygen -A

		[Install]
		WantedBy=multi-user.target
	UNIT
	chmod 0644 /etc/systemd/system/gild-ssh-host-keys.service
	mkdir -p /etc/systemd/system/multi-user.target.wants
	ln -sfn /etc/systemd/system/gild-ssh-host-keys.service /etc/systemd/system/multi-user.target.wants/gild-ssh-host-keys.service
}

seal_user_keys() {
	homes | while read -r home; do
		if [ ! -d "$home/.ssh" ]; then continue; fi
		find "$home/.ssh" -xdev -mindepth 1 -maxdepth 1 ! -name config | while read -r file; do
			case $file in
			*/authorized_keys)
				if [ "$(head -n 1 "$file")" = "$KEYS_MARK" ]; then
					echo "kept $file, which the pipeline declares"
					continue
				fi
				;;
			esac
			rm -rf "$file"
		done
		rmdir --ignore-fail-on-non-empty "$home/.ssh"
	done
}

seal_cloud_init() {
	emptied /var/lib/cloud
	rm -f /var/log/cloud-init.log /var/log/cloud-init-output.log /etc/sudoers.d/90-cloud-init-users \
		/etc/netplan/50-cloud-init.yaml /etc/network/interfaces.d/50-cloud-init /etc/systemd/network/10-cloud-init-*.network
}

seal_logs() {
	emptied /var/log/journal /var/log/installer /var/log/apt
	if [ ! -d /var/log ]; then return; fi
	find /var/log -xdev -type f \( -name '*.gz' -o -name '*.xz' -o -name '*.zst' -o -name '*.old' -o -name '*.[0-9]' \) -delete
	find /var/log -xdev -type f -size +0 -exec truncate --size=0 {} +
}

seal_histories() {
	homes | while read -r home; do
		rm -f "$home"/.*_history "$home/.lesshst" "$home/.viminfo" "$home/.wget-hsts" "$home/.rnd"
	done
}

seal_hostname() {
	if [ ! -f /etc/hostname ]; then return; fi
	for name in $BUILDER_NAMES; do
		if [ "$(cat /etc/hostname)" = "$name" ]; then
			echo "the host name was the builder's, $name"
			echo localhost >/etc/hostname
		fi
	done
}

seal_resolv_conf() {
	if [ -f /etc/resolv.conf ] && [ ! -L /etc/resolv.conf ]; then
		: >/etc/resolv.conf
		chmod 0644 /etc/resolv.conf
	fi
}

seal_network_state() {
	without_files /var/lib/dhcp /var/lib/dhcpcd /var/lib/NetworkManager /var/lib/systemd/network
	rm -f /etc/udev/rules.d/70-persistent-net.rules /etc/lvm/devices/system.devices /etc/nvme/hostnqn /etc/nvme/hostid
	if [ -f /etc/iscsi/initiatorname.iscsi ]; then echo GenerateName=yes >/etc/iscsi/initiatorname.iscsi; fi
}

seal_entropy() {
	rm -f /var/lib/systemd/random-seed /var/lib/systemd/credential.secret /var/lib/urandom/random-seed \
		/boot/efi/loader/random-seed /boot/loader/random-seed /efi/loader/random-seed
}

seal_package_state() {
	without_files /var/lib/apt/lists /var/cache/apt
	rm -f /var/lib/dpkg/*-old /var/cache/debconf/*-old /var/cache/ldconfig/aux-cache /usr/sbin/policy-rc.d
}

seal_backups() {
	rm -f /etc/passwd- /etc/shadow- /etc/group- /etc/gshadow- /etc/subuid- /etc/subgid-
}

seal_temporary_files() {
	emptied /tmp /var/tmp /var/crash /var/lib/systemd/coredump
	without_files /var/mail /var/spool/mail
}

seal_caches() {
	homes | while read -r home; do
		rm -rf "$home/.cache" "$home/.npm" "$home/.ansible" "$home/.pip"
	done
}

for item; do
	"seal_$(echo "$item" | tr - _)"
done
