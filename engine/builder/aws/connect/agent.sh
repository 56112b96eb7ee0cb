#!/bin/sh
# Runs commands for gild on an instance, as root, whatever connection it is reached by.
#
#   sh agent.sh WORK ACTION ...      WORK is a private folder in /run
#
# A request is a piece of shell text made by gild: it sets the positional parameters to
# the program and its arguments, enters the folder and exports the environment. Every
# word in it is quoted; it comes on stdin or encrypted, never as an argument.
#
# One job is one command. Its folder WORK/ID is made once, so that a call that arrives
# twice, or after the job was killed, starts nothing:
#
#   group     the cgroup the command runs in       killed    it was told to end
#   pid       of the runner, see "run"             status    the exit status, written last
#   o.N e.N   output that nobody has fetched       o.acked   what has been, as a number
#   in.N      input that the command hasn't read   in.end    how many there are in all
#
# Over SSH a job is one "exec", with the streams of the connection. Over Run Command it is
# a "start", which leaves a runner behind, and then calls of "feed" and "fetch".
#
# Its own names begin with _gild_ where the environment of the command could hit them.

set -u
umask 077
work=$1
action=$2
shift 2

# Pieces of output: one must fit in an answer when it can't be compressed.
piece=17000
answer=23400

fail() {
	printf 'gild: %s\n' "$1" >&2
	exit 1
}

# make_group makes the cgroup $group below the one this shell is in.
make_group() {
	group=
	while IFS=: read -r number name path; do
		case $number:$name in
		0:)
			base=/sys/fs/cgroup
			[ -e "$base/cgroup.controllers" ] || base=$base/unified
			;;
		*:name=systemd)
			base=/sys/fs/cgroup/systemd
			;;
		*)
			continue
			;;
		esac
		[ -e "$base/cgroup.procs" ] || continue
		case $path in
		*/..*) path=/ ;; # of another cgroup namespace
		esac
		[ -d "$base$path" ] || path=/
		group=${base}${path%/}/gild-${work##*-}-${job##*/}
		[ -z "$name" ] || continue
		break
	done </proc/self/cgroup
	[ -n "$group" ] || fail "no cgroup is mounted, so a command's processes can't be found again"
	mkdir -p "$group" || fail "make the cgroup $group"
	printf '%s\n' "$group" >"$job/group.new" && mv "$job/group.new" "$job/group"
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
		# A process stuck in the kernel must not hold everything up.
		[ "$tries" -lt 100 ] || return
		tries=$((tries + 1))
		[ "$tries" -lt 3 ] || sleep 0.05
	done 2>/dev/null
}

# launch MARK becomes the command. The mark is written where output begins: what comes
# before it was said by something else.
launch() {
	[ -n "$_gild_setsid" ] || fail "setsid isn't there"
	echo 0 >"$group/cgroup.procs" || fail "enter the cgroup $group"
	# Whoever kills writes the note first and looks into the cgroup afterwards.
	[ ! -e "$job/killed" ] || exit 137
	printf %s "$1"
	[ "$merge" = 1 ] || printf %s "$1" >&2
	: >"$job/begun"
	umask 022
	eval "$_gild_request"
	exec "$_gild_setsid" -- "$@"
}

finish_group() {
	end_group
	rmdir "$group" 2>/dev/null || :
}

# Messages are compressed, encrypted and printable.
encode() {
	gzip -c | openssl enc -aes-256-cbc -salt -pbkdf2 -iter 1 -md sha256 -pass "file:$work/key" | base64 | tr -d '\n'
}

decode() {
	base64 -d | openssl enc -d -aes-256-cbc -pbkdf2 -iter 1 -md sha256 -pass "file:$work/key" | gzip -dc
}

# store FILE writes what comes on stdin, in one piece.
store() {
	decode >"$1.new$$" && mv -f "$1.new$$" "$1"
}

# pump NAME cuts a stream into files. It waits when many of them weren't fetched yet, and
# takes its time over small ones, so that a chatty program doesn't make a file per line.
pump() {
	n=0
	acked=0
	while dd bs="$piece" count=1 of="$job/$1.new" 2>/dev/null; do
		size=$(wc -c <"$job/$1.new")
		[ "$size" -gt 0 ] || break
		mv -f "$job/$1.new" "$job/$1.$n"
		n=$((n + 1))
		while [ $((n - acked)) -ge 256 ]; do
			[ ! -e "$job/killed" ] || return
			sleep 0.05
			[ ! -e "$job/$1.acked" ] || read -r acked <"$job/$1.acked"
		done
		[ "$size" -ge "$piece" ] || sleep 0.02
	done
}

# pour writes the job's input, file by file, until it ends or the command does.
pour() {
	n=0
	while [ ! -e "$job/exit" ]; do
		if [ -e "$job/in.$n" ]; then
			cat "$job/in.$n" || return
			rm -f "$job/in.$n"
			n=$((n + 1))
			echo "$n" >"$job/poured.new" && mv -f "$job/poured.new" "$job/poured"
		elif [ -e "$job/in.end" ] && read -r last <"$job/in.end" && [ "$n" -ge "$last" ]; then
			return
		else
			sleep 0.03
		fi
	done
}

# capture runs the command of a job and collects what it writes.
capture() {
	{
		{
			if [ "$merge" = 1 ]; then
				(launch '') 2>&1 7>&-
			else
				(launch '') 2>&7 7>&-
			fi
			echo "$?" >"$job/exit"
			finish_group
		} | pump o
	} 7>&1 | pump e
}

# over tells whether nothing more comes from a job.
over() {
	[ -e "$job/status" ] || [ -e "$job/failed" ] || dead
}

dead() {
	[ -e "$job/pid" ] && read -r pid <"$job/pid" && ! kill -0 "$pid" 2>/dev/null
}

state() {
	if [ -e "$job/status" ] && read -r status <"$job/status"; then
		state="ended $status"
	elif [ -e "$job/failed" ] && read -r why <"$job/failed"; then
		state="failed $why"
	elif [ ! -e "$job/pid" ]; then
		state=new
	elif dead; then
		state=dead
		[ ! -e "$job/status" ] || state
	else
		state=running
	fi
}

# acknowledge NAME N removes output that has arrived.
acknowledge() {
	echo "$2" >"$job/$1.acked.$$" && mv -f "$job/$1.acked.$$" "$job/$1.acked"
	n=$(($2 - 1))
	while [ -e "$job/$1.$n" ]; do
		rm -f "$job/$1.$n"
		n=$((n - 1))
	done
}

# count NAME FROM MOST sets $n behind the last file there is.
count() {
	n=$2
	while [ "$n" -lt $(($2 + $3)) ] && [ -e "$job/$1.$n" ]; do
		n=$((n + 1))
	done
}

# section NAME FROM TO writes files with a line before them.
section() {
	name=$1
	from=$2
	to=$3
	[ "$from" -lt "$to" ] || return 0
	set --
	n=$from
	while [ "$n" -lt "$to" ]; do
		set -- "$@" "$job/$name.$n"
		n=$((n + 1))
	done
	printf '%s %s %s %s\n' "$name" "$from" "$to" "$(cat -- "$@" | wc -c)"
	cat -- "$@"
}

# pick NAME OTHER MOST decides how much of both streams goes into an answer, the first
# before the second. It sets $o_to and $e_to.
pick() {
	o_to=$o
	e_to=$e
	if [ "$1" = o ]; then
		count o "$o" "$3"
		o_to=$n
		count e "$e" $(($3 - o_to + o))
		e_to=$n
	else
		count e "$e" "$3"
		e_to=$n
		count o "$o" $(($3 - e_to + e))
		o_to=$n
	fi
}

# fetch ACKED_O ACKED_E O E MOST FIRST WAIT LINGER answers with output from file O and E on,
# and with the state of the job as it was before. WAIT and LINGER are how long to wait for
# any, and for more when there is some, in tenths of a second.
fetch() {
	acknowledge o "$1"
	acknowledge e "$2"
	o=$3
	e=$4
	most=$5
	first=$6
	left=$7
	linger=$8
	steps=0
	while [ "$left" -gt 0 ] && [ ! -e "$job/o.$o" ] && [ ! -e "$job/e.$e" ] && ! over; do
		steps=$((steps + 1))
		if [ "$steps" -le 20 ]; then
			sleep 0.02
			[ $((steps % 5)) -ne 0 ] || left=$((left - 1))
		else
			sleep 0.1
			left=$((left - 1))
		fi
	done
	linger=$((2 * linger))
	while [ "$linger" -gt 0 ] && [ ! -e "$job/o.$((o + 30))" ] && [ ! -e "$job/e.$((e + 30))" ] && ! over; do
		linger=$((linger - 1))
		sleep 0.05
	done
	state
	count o "$o" 100000
	o_have=$n
	count e "$e" 100000
	e_have=$n
	while :; do
		pick "$first" x "$most"
		{
			printf 'state %s\nhave %s %s\n' "$state" "$o_have" "$e_have"
			section o "$o" "$o_to"
			section e "$e" "$e_to"
		} | encode >"$job/answer.$$"
		size=$(wc -c <"$job/answer.$$")
		if [ "$size" -le "$answer" ] || [ "$most" -le 1 ]; then
			break
		fi
		taken=$((o_to - o + e_to - e))
		most=$((taken * answer / size))
		[ "$most" -ge 1 ] || most=1
	done
	printf 'gild '
	cat "$job/answer.$$"
	rm -f "$job/answer.$$"
}

# room N waits until input N may come, and says how much was taken.
room() {
	tries=0
	poured=0
	while :; do
		[ ! -e "$job/poured" ] || read -r poured <"$job/poured"
		if [ -e "$job/exit" ] || over; then
			echo "gild ended"
			return
		fi
		if [ $(($1 - poured)) -lt 8 ] || [ "$tries" -ge 100 ]; then
			echo "gild $poured"
			return
		fi
		tries=$((tries + 1))
		sleep 0.1
	done
}

_gild_setsid=$(command -v setsid) || _gild_setsid=

# "forget ID" may stand before an action, for jobs that are over. Their folders stay: a
# "start" that arrives again starts nothing.
while [ "$action" = forget ]; do
	[ ! -d "$work/$1" ] || find "$work/$1" -mindepth 1 -delete
	action=$2
	shift 2
done

case $action in
exec) # ID MARK MERGE: the request is the first line of stdin, the rest the command's own
	job=$work/$1
	merge=$3
	mkdir -p "$work"
	mkdir "$job" || fail "job $1 was begun, or killed, before"
	read -r _gild_request || fail "the request is incomplete"
	_gild_request=$(printf %s "$_gild_request" | base64 -d) || fail "the request can't be read"
	make_group
	if [ "$merge" = 1 ]; then
		(launch "$2") 2>&1
	else
		(launch "$2")
	fi
	status=$?
	finish_group
	rm -rf "$job"
	exit "$status"
	;;
stage) # ID N: a piece of a request that is too long for one call
	store "$work/$1.request.$2" && echo "gild staged"
	;;
start) # ID MERGE INPUT STAGED, and what fetch takes. INPUT: none, some, all
	job=$work/$1
	if mkdir "$job" 2>/dev/null; then
		read -r request
		read -r input
		n=0
		: >"$job/request"
		while [ "$n" -lt "$4" ]; do
			cat "$work/$1.request.$n" >>"$job/request" || fail "a piece of the request is missing"
			rm -f "$work/$1.request.$n"
			n=$((n + 1))
		done
		printf %s "$request" | decode >>"$job/request" || fail "the request can't be read"
		[ "$3" = none ] || : >"$job/input"
		if [ "$3" = all ]; then
			printf %s "$input" | store "$job/in.0" || fail "the input can't be read"
			echo 1 >"$job/in.end"
		fi
		# Forked by the program: what a shell puts in the background ignores signals.
		setsid -f /bin/sh "$work/agent" "$work" run "$1" "$2" </dev/null >/dev/null 2>"$job/complaint"
	fi
	shift 4
	fetch "$@"
	;;
run) # ID MERGE
	job=$work/$1
	merge=$2
	cd /
	echo "$$" >"$job/pid.new" && mv "$job/pid.new" "$job/pid"
	_gild_request=$(cat "$job/request")
	rm -f "$job/request"
	trap '[ -e "$job/status" ] || { tail -n 1 "$job/complaint" >"$job/failed.new" && mv "$job/failed.new" "$job/failed"; }' EXIT
	make_group
	if [ -e "$job/input" ]; then
		pour | capture
	else
		capture
	fi
	if [ -e "$job/begun" ] || [ -e "$job/killed" ]; then
		mv "$job/exit" "$job/status"
	else
		echo "the command could not be started" >&2
		exit 1
	fi
	;;
feed) # ID N LAST: one piece of input; LAST is how many there are, or "more"
	job=$work/$1
	[ -d "$job" ] || fail "there is no job $1"
	store "$job/in.$2" || fail "the input can't be read"
	if [ "$3" != more ]; then
		echo "$3" >"$job/in.end.new" && mv "$job/in.end.new" "$job/in.end"
	fi
	room "$2"
	;;
room) # ID N
	job=$work/$1
	room "$2"
	;;
fetch) # ID, and what fetch takes
	job=$work/$1
	shift
	[ -d "$job" ] || fail "there is no job"
	fetch "$@"
	;;
kill) # ID
	job=$work/$1
	mkdir -p "$work"
	# A job that hasn't begun never will.
	mkdir "$job" 2>/dev/null && echo 137 >"$job/status"
	: >"$job/killed"
	if [ -e "$job/group" ] && read -r group <"$job/group"; then
		end_group
	fi
	tries=0
	while [ -e "$job/pid" ] && ! over && [ "$tries" -lt 50 ]; do
		tries=$((tries + 1))
		sleep 0.1
	done
	echo "gild killed"
	;;
close)
	for job in "$work"/*; do
		if [ -e "$job/group" ] && read -r group <"$job/group"; then
			: >"$job/killed"
			finish_group
		fi
	done
	rm -rf "$work"
	echo "gild closed"
	;;
*)
	fail "no action $action"
	;;
esac
