#!/bin/sh
# Runs commands for gild in a throw-away guest. It is only ever on the guest's own
# copy of the disk. Host and agent speak over five virtio-serial ports:
#
#   gild.control  agent: "hello SESSION", "exit ID STATUS", "done ID"
#                 host: "exec SESSION ID MARKER BYTES VARIABLES" and BYTES of request
#   gild.kill     host: "kill ID"
#   gild.stdin    host: "in MARKER BYTES" and BYTES of input; BYTES 0 is the end of it
#   gild.stdout   agent: MARKER "<", the command's output as it is, MARKER ">"
#   gild.stderr   the same
#
# A request is one word per line: the folder, VARIABLES times NAME=value, the program
# and its arguments. A word is a "+", which keeps an empty one, and text for printf's %b
# in which every byte that is not a plain letter, digit or mark is \0 and three octal
# digits. Whatever the bytes are, they are only ever data here: split at newlines,
# decoded into a variable, and expanded between double quotes.
#
# Whatever an agent that was killed has left unread in a port is skipped: lines that
# don't name this agent's session or the command's marker mean nothing.
#
# Descriptors: 3 control, 4 stdin, 5 stdout, 6 stderr, 9 kill.

work=/run/gild-agent
port_dir=/sys/class/virtio-ports

# find_port NAME sets $device.
find_port() {
	for file in "$port_dir"/*/name; do
		[ -r "$file" ] || continue
		read -r name <"$file" || continue
		if [ "$name" = "gild.$1" ]; then
			device=${file%/name}
			device=/dev/${device##*/}
			[ -c "$device" ] && return 0
		fi
	done
	return 1
}

# wait_port NAME sets $device when the port is there. Nothing but the kernel is needed,
# so commands can be run long before udev is.
wait_port() {
	find_port "$1" || modprobe -q virtio_console
	until find_port "$1"; do
		sleep 0.1
	done
}

# find_cgroup sets $group to the agent's own cgroup, in which each command gets one below.
find_cgroup() {
	while IFS=: read -r number name path; do
		case $number:$name in
		0:)
			group=/sys/fs/cgroup$path
			[ -e /sys/fs/cgroup/cgroup.controllers ] || group=/sys/fs/cgroup/unified$path
			[ -d "$group" ] && return 0
			;;
		*:name=systemd)
			group=/sys/fs/cgroup/systemd$path
			[ -d "$group" ] && return 0
			;;
		esac
	done </proc/self/cgroup
	return 1
}

# end_group ID kills all that is left of a command.
end_group() {
	tries=0
	while read -r pid 2>/dev/null <"$group/$1/cgroup.procs"; do
		if [ -e "$group/$1/cgroup.kill" ]; then
			echo 1 >"$group/$1/cgroup.kill"
		else
			while read -r pid; do
				kill -KILL "$pid" 2>/dev/null
			done <"$group/$1/cgroup.procs"
		fi
		# A process stuck in the kernel must not stop the agent.
		[ "$tries" -lt 50 ] || return 0
		tries=$((tries + 1))
		[ "$tries" -lt 3 ] || sleep 0.1
	done
}

# kill_loop ends commands on the host's demand. The file comes first: a command that
# isn't in its cgroup yet finds it afterwards.
kill_loop() {
	while read -r word id <&9; do
		[ "$word" = kill ] || continue
		: >"$work/killed.$id"
		end_group "$id"
	done
}

# feed MARKER passes the host's input on. Each piece is taken whole before any of it is
# passed, so a command that stops reading can't leave half a piece in the port.
feed() {
	while read -r word marker bytes <&4; do
		[ "$word $marker" = "in $1" ] || continue
		[ "$bytes" -gt 0 ] || return 0
		head -c "$bytes" <&4 >"$work/stdin"
		cat "$work/stdin" 2>/dev/null
	done
}

# run ID BYTES VARIABLES becomes the command. The host gives no variable a name that
# begins with _gild_.
run() {
	_gild_variables=$3
	set -f
	IFS='
'
	set -- "$1" $(head -c "$2" <&3)
	echo "$$" >"$group/$1/cgroup.procs"
	[ ! -e "$work/killed.$1" ] || exit 137
	shift
	_gild_left=$#
	while [ "$_gild_left" -gt 0 ]; do
		# The dot keeps newlines at the end of the value.
		_gild_value=$(printf '%b.' "${1#?}")
		shift
		set -- "$@" "${_gild_value%.}"
		_gild_left=$((_gild_left - 1))
	done
	cd "$1" || exit 126
	unset PWD OLDPWD
	shift
	while [ "$_gild_variables" -gt 0 ]; do
		export "$1"
		shift
		_gild_variables=$((_gild_variables - 1))
	done
	exec "$@" 3>&- 4<&- 5>&- 6>&-
}

# execute ID MARKER BYTES VARIABLES runs a command and passes on what it writes.
execute() {
	mkdir "$group/$1"
	printf '%s<' "$2" >&5
	printf '%s<' "$2" >&6
	feed "$2" | {
		{
			setsid -w /bin/sh "$self" run "$group" "$1" "$3" "$4" 2>&7 7>&-
			printf 'exit %s %s\n' "$1" "$?" >&3
			end_group "$1" >/dev/null 2>&1
		} | cat >&5
	} 7>&1 | cat >&6
	rmdir "$group/$1" 2>/dev/null
	rm -f "$work/killed.$1"
	printf '%s>' "$2" >&5
	printf '%s>' "$2" >&6
	printf 'done %s\n' "$1" >&3
}

serve() {
	rm -rf "$work"
	mkdir -m 0700 "$work" && cd / && find_cgroup || exit 1
	wait_port kill
	kill_port=$device
	wait_port stdin
	stdin_port=$device
	wait_port stdout
	stdout_port=$device
	wait_port stderr
	stderr_port=$device
	wait_port control
	exec 3<>"$device" 4<"$stdin_port" 5>"$stdout_port" 6>"$stderr_port"
	kill_loop 9<"$kill_port" 3>&- 4<&- 5>&- 6>&- &
	read -r session </proc/sys/kernel/random/uuid
	printf 'hello %s\n' "$session" >&3
	while read -r word for id marker bytes variables <&3; do
		[ "$word $for" = "exec $session" ] && execute "$id" "$marker" "$bytes" "$variables"
	done
}

self=$0
case $1 in
run)
	group=$2
	run "$3" "$4" "$5"
	;;
*)
	serve
	;;
esac
