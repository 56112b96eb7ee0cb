# Boots a quick machine: this shell becomes its first process. It is started in new
# namespaces, with the folder of the tree as $1 and an empty one beside it as $2. Descriptor 3
# says with its end that the machine is to go off, 4 is told that it is up.
set -eu
mount --make-rprivate /
# The programs are the host's; what the machine changes of them is its own.
mount -t overlay -o "lowerdir=/usr,upperdir=$1/usr,workdir=$2,index=off,xino=off,metacopy=off,redirect_dir=off" overlay "$1/usr"
mount --rbind "$1" "$1"
cd "$1"

mount -t proc -o nosuid,nodev,noexec proc proc
mount -t tmpfs -o mode=0755,nosuid,nodev tmpfs run
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs tmp
mount -t tmpfs -o mode=0755,nosuid tmpfs dev
for name in null zero full random urandom tty; do
	: >"dev/$name"
	mount --bind "/dev/$name" "dev/$name"
done
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
mkdir run/lock
chmod 1777 run/lock

mount -t tmpfs -o mode=0755,nosuid,nodev,noexec tmpfs sys
mkdir -p sys/fs/cgroup
mount -t cgroup2 cgroup2 sys/fs/cgroup

# Every boot has an id, by which a restart is seen; the kernel's is the host's.
cat /proc/sys/kernel/random/uuid >run/boot_id
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount --bind run/boot_id proc/sys/kernel/random/boot_id

hostname "$(cat etc/hostname)"
pivot_root . .
umount -l .
cd /

trap 'exit 0' TERM
{
	read -r _ || :
	kill -TERM 1
} <&3 3<&- 4<&- &
exec 3<&- </dev/null
echo "gild: the quick machine is up"
echo up >&4
exec 4>&-
# A first process has to collect those whose parents are gone, which wait does.
while :; do
	sleep 3600 &
	wait "$!" || :
done
