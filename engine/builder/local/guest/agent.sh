#!/bin/sh
# agent.sh [PREFIX] runs commands for gild in a guest: a throw-away one, on whose own copy
# of the disk it is put, or a machine of the sandbox, whose image has it as a service. Host
# and agent speak over five virtio-serial ports, whose names begin with PREFIX, or "gild":
#
#   gild.control  agent: "hello SESSION", "exit ID STATUS", "done ID"
#                 host: "exec SESSION ID MARKER WORDS VARIABLES INPUT", and WORDS words
#   gild.kill     host: "kill ID"; agent: "killed ID"
#   gild.stdin    host: "in MARKER BYTES" and BYTES of input; BYTES 0 is the end of it.
#                 Not used when INPUT is "none".
#   gild.stdout   agent: MARKER "<", the command's output as it is, MARKER ">"
#   gild.stderr   the same
#
# The words are the folder, VARIABLES times NAME=value, the program and its arguments,
# one a line. A word is a "+" and text for printf's %b in which every byte that is not a
# plain letter, digit or mark is \0 and three octal digits. Whatever the bytes are, they
# are only ever data here: decoded into a variable, and expanded between double quotes.
#
# Whatever an agent that was killed has left unread in a port is skipped: lines that
# don't name this agent's session or the command's marker mean nothing.
#
# Programs are slow to start on an emulated processor, so the shell does what it can.
#
# Descriptors: 3 control, 4 stdin, 5 stdout, 6 stderr, 9 kill.

prefix=${1:-gild}
work=/run/$prefix-agent

# find_port NAME sets $device.
find_port() {
	for file in /sys/class/virtio-ports/*/name; do
		[ -r "$file" ] || continue
		read -r name <"$file" || continue
		if [ "$name" = "$prefix.$1" ]; then
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

# make_group makes the cgroup $group, below the agent's own, that commands run in.
make_group() {
	while IFS=: read -r number name path; do
		case $number:$name in
		0:)
			group=/sys/fs/cgroup$path
			[ -e /sys/fs/cgroup/cgroup.controllers ] || group=/sys/fs/cgroup/unified$path
			;;
		*:name=systemd)
			group=/sys/fs/cgroup/systemd$path
			;;
		*)
			continue
			;;
		esac
		[ -d "$group" ] || continue
		group=$group/command
		[ -d "$group" ] || mkdir "$group"
		return
	done </proc/self/cgroup
	return 1
}

# end_group kills all that is left of a command.
end_group() {
	tries=0
	while read -r pid <"$group/cgroup.procs"; do
		if [ -e "$group/cgroup.kill" ]; then
			echo 1 >"$group/cgroup.kill"
		else
			while read -r pid; do
				kill -KILL "$pid"
			done <"$group/cgroup.procs"
		fi
		# A process stuck in the kernel must not stop the agent.
		[ "$tries" -lt 50 ] || return
		tries=$((tries + 1))
		[ "$tries" -lt 3 ] || sleep 0.1
	done
}

# kill_loop ends commands on the host's demand. The note comes first: a command that
# isn't in its cgroup yet finds it afterwards. The host runs nothing else before the
# answer.
kill_loop() {
	while read -r word id <&9; do
		[ "$word" = kill ] || continue
		echo "$id" >"$work/killed"
		end_group
		printf 'killed %s\n' "$id" >&9
	done
}

# feed MARKER passes the host's input on. Each piece is taken whole before any of it is
# passed, so a command that stops reading can't leave half a piece in the port.
feed() {
	while read -r word marker bytes <&4; do
		[ "$word $marker" = "in $1" ] || continue
		[ "$bytes" -gt 0 ] || return
		head -c "$bytes" <&4 >"$work/stdin"
		cat "$work/stdin"
	done
}

# run ID WORDS VARIABLES becomes the command. The host gives no variable a name that
# begins with _gild_.
run() {
	_gild_words=$2
	_gild_variables=$3
	echo 0 >"$group/cgroup.procs"
	read -r killed <"$work/killed"
	[ "$killed" != "$1" ] || _gild_words=0
	set --
	while [ "$_gild_words" -gt 0 ]; do
		_gild_words=$((_gild_words - 1))
		read -r _gild_word <&3
		_gild_word=${_gild_word#+}
		case $_gild_word in
		*\\*)
			# The dot keeps newlines at the end.
			_gild_word=$(printf '%b.' "$_gild_word")
			_gild_word=${_gild_word%.}
			;;
		esac
		set -- "$@" "$_gild_word"
	done
	[ $# -gt 0 ] || exit 137
	cd "$1" || exit 126
	unset PWD OLDPWD
	shift
	while [ "$_gild_variables" -gt 0 ]; do
		export "$1"
		shift
		_gild_variables=$((_gild_variables - 1))
	done
	exec /usr/bin/setsid -w -- "$@" 3>&- 4<&- 5>&- 6>&-
}

# capture ID MARKER WORDS VARIABLES runs a command and passes on what it writes.
capture() {
	printf '%s<' "$2" >&5
	printf '%s<' "$2" >&6
	{
		{
			(run "$1" "$3" "$4") 2>&7 7>&-
			printf 'exit %s %s\n' "$1" "$?" >&3
			# The agent of an instance leaves what a command left, as others do.
			[ "$prefix" != gild ] || end_group
		} | cat >&5
	} 7>&1 | cat >&6
	printf '%s>' "$2" >&5
	printf '%s>' "$2" >&6
	printf 'done %s\n' "$1" >&3
}

serve() {
	[ -d "$work" ] || mkdir -m 0700 "$work" || exit 1
	: >"$work/killed"
	make_group || exit 1
	cd /
	wait_port kill
	exec 9<>"$device"
	wait_port stdin
	exec 4<"$device"
	wait_port stdout
	exec 5>"$device"
	wait_port stderr
	exec 6>"$device"
	wait_port control
	kill_loop 4<&- 5>&- 6>&- &
	exec 3<>"$device" 9>&-
	read -r session </proc/sys/kernel/random/uuid
	printf 'hello %s\n' "$session" >&3
	while read -r word for id marker words variables input <&3; do
		[ "$word $for" = "exec $session" ] || continue
		if [ "$input" = none ]; then
			capture "$id" "$marker" "$words" "$variables" </dev/null
		else
			feed "$marker" | capture "$id" "$marker" "$words" "$variables"
		fi
	done
}

serve
