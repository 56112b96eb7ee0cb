# Has the machine switched off in a few seconds, by when this and the connection have ended.
# What is written after sealing would be in every copy of the image, and a shutdown writes
# much: the journal of this machine, the users who were logged in, and a random seed, the
# same for all. So no service is stopped. The kernel makes all file systems read-only, which
# brings them to the disk, whole, and then switches off.
set -eu
if [ ! -d /run/systemd/system ] || systemd-detect-virt --quiet --container; then
	echo "systemd doesn't run here" >&2
	exit 1
fi
exec systemd-run --quiet --unit=gild-freeze /bin/sh -c '
frozen() {
	while read -r _ on _ how _; do
		case $on,$how in /,ro | /,ro,*) return 0 ;; esac
	done </proc/self/mounts
	return 1
}
sleep 5
sync
echo u >/proc/sysrq-trigger
tries=0
until frozen || [ "$tries" -ge 100 ]; do
	tries=$((tries + 1))
	sleep 0.1
done
echo o >/proc/sysrq-trigger
'
