# keyloan in bash: opvars, unopvars (deopvars), and the check before each prompt that every loan still lasts.
# For the start-up file:  eval "$(keyloan shell bash)"
#
# Written for bash 3.2. What must hold: no value is ever evaluated, traced, shown to another program but by the
# environment, or written to a file; the check starts no program and waits for nothing; no setting of the shell is
# changed, and none breaks it.
# shellcheck shell=bash

# An alias of that name would be taken for the function's first word. bash reads on only after this line.
builtin unalias opvars unopvars deopvars 2>/dev/null || builtin :

# An array, which no environment hands on: under 'set -a' a child would have this, and nothing of what it says.
if [[ -z ${__keyloan_ready[1]-} ]]; then
	# One entry a variable: its name, the marker of its loan, whether it had a value before ('', v, x for an exported one,
	# e for one that was exported without a value), and that value. Arrays are never exported.
	__keyloan_name=() __keyloan_of=() __keyloan_had=() __keyloan_was=()
	# One entry a loan: its marker, what shows that the daemon lives, its name for children, the directory it ends with.
	__keyloan_mark=() __keyloan_live=() __keyloan_loan=() __keyloan_until=()
	__keyloan_loans=0 __keyloan_untraced='' __keyloan_good='' __keyloan_titled='' __keyloan_at=''
	__keyloan_ready=(yes yes)
fi

# Traces show values. Whatever ends the function, the hook turns the trace on again.
__keyloan_untrace() {
	case $- in
	*x*)
		{ builtin set +x; } 2>/dev/null
		__keyloan_untraced=x
		;;
	esac
}

__keyloan_retrace() {
	if [[ -n $__keyloan_untraced ]]; then
		__keyloan_untraced=''
		builtin set -x
	fi
}

# Under 'set -a' a child has the functions by the environment, and nothing of what they look after.
__keyloan_is_whole() {
	[[ -n ${__keyloan_ready[1]-} ]] && return 0
	builtin printf 'keyloan: this shell has only a part of the integration\n' >&2
	# shellcheck disable=SC2016 # shown, not run
	builtin printf 'hint: eval "$(keyloan shell bash)"\n' >&2
	return 1
}

opvars() {
	__keyloan_is_whole || return 2
	__keyloan_untrace
	local __keyloan_result=0
	__keyloan_lend "$@" || __keyloan_result=$?
	# The last argument of the last command stands in $_.
	builtin : opvars
	__keyloan_retrace
	return "$__keyloan_result"
}

unopvars() {
	__keyloan_is_whole || return 2
	__keyloan_untrace
	local __keyloan_result=0
	__keyloan_return "$@" || __keyloan_result=$?
	builtin : unopvars
	__keyloan_retrace
	return "$__keyloan_result"
}

deopvars() {
	unopvars "$@"
}

# shellcheck disable=SC2034 # values are used by eval, which is given their names only
__keyloan_lend() {
	local IFS='' 2>/dev/null
	local __kl_exact=$IFS
	local IFS=' ' 2>/dev/null
	local __kl_record __kl_code='' __kl_mark='' __kl_live='' __kl_loan=''
	local __kl_until='' __kl_name='' __kl_whole='' __kl_at=0 __kl_count=0
	local __kl_i __kl_found __kl_kind __kl_kinds __kl_shown
	local __kl_names __kl_values
	__kl_names=() __kl_values=() __kl_kinds=()
	if [[ -n $__kl_exact || $IFS != ' ' ]]; then
		builtin printf 'keyloan: cannot lend credentials to this shell: its IFS is read-only, which would change values\n' >&2
		return 2
	fi
	case $- in *i*) __keyloan_install || return 2 ;; esac
	__keyloan_check
	# Each name and each value ends with a NUL and is taken as it is; the C locale has no invalid bytes.
	while LC_ALL=C IFS='' builtin read -r -d '' __kl_record; do
		case $__kl_at in
		0) __kl_code=$__kl_record ;;
		1) __kl_mark=$__kl_record ;;
		2) __kl_live=$__kl_record ;;
		3) __kl_loan=$__kl_record ;;
		4) __kl_until=$__kl_record ;;
		*)
			if [[ -n $__kl_name ]]; then
				__kl_names[__kl_count]=$__kl_name __kl_values[__kl_count]=$__kl_record __kl_name=''
				__kl_count=$((__kl_count + 1))
			elif [[ $__kl_record == '=' ]]; then
				__kl_whole=1
			else
				__kl_name=$__kl_record
			fi
			;;
		esac
		__kl_at=$((__kl_at + 1))
	done < <(builtin exec keyloan shell-lend "$@")
	__kl_record=''
	if [[ -z $__kl_whole ]]; then
		# Without a status keyloan did not even start, or was killed; with 0 and nothing else it printed its help.
		if [[ $__kl_code != 0 ]]; then
			return "${__kl_code:-127}"
		fi
		[[ $__kl_at == 1 ]] && return 0
		__keyloan_back "$__kl_mark"
		builtin printf 'keyloan: cannot lend credentials to this shell: keyloan ended too early\n' >&2
		return 3
	fi
	for ((__kl_i = 0; __kl_i < __kl_count; __kl_i++)); do
		# An integer's value would be evaluated, a read-only one stays as it is, and no array is exported.
		__kl_kind=$(builtin declare -p "${__kl_names[__kl_i]}" 2>/dev/null)
		__kl_kind=${__kl_kind#declare }
		case ${__kl_names[__kl_i]} in [!A-Za-z_]* | *[!A-Za-z0-9_]* | '') __kl_kind='not a name' ;; esac
		__kl_kinds[__kl_i]=${__kl_kind%% *}
		__kl_kind=''
		case ${__kl_kinds[__kl_i]} in
		'' | -- | -x) ;;
		*)
			__keyloan_back "$__kl_mark"
			builtin printf 'keyloan: cannot set %s in this shell: it is no plain variable there (%s)\n' "${__kl_names[__kl_i]}" "${__kl_kinds[__kl_i]}" >&2
			builtin printf 'hint: with-secrets does not need it; or unset %s, or open another shell\n' "${__kl_names[__kl_i]}" >&2
			return 2
			;;
		esac
	done
	__keyloan_join "$__kl_mark" "$__kl_live" "$__kl_loan" "$__kl_until"
	__kl_shown=()
	for ((__kl_i = 0; __kl_i < __kl_count; __kl_i++)); do
		__kl_name=${__kl_names[__kl_i]}
		__kl_shown[__kl_i]=$__kl_name
		__kl_found=-1
		__keyloan_find "$__kl_name"
		if [[ $__kl_found == -1 ]]; then
			__kl_found=${#__keyloan_name[@]}
			__keyloan_had[__kl_found]='' __keyloan_was[__kl_found]=''
			[[ ${__kl_kinds[__kl_i]} != -x ]] || __keyloan_had[__kl_found]=e
			if [[ -n ${!__kl_name+set} ]]; then
				case ${__keyloan_had[__kl_found]} in e) __keyloan_had[__kl_found]=x ;; *) __keyloan_had[__kl_found]=v ;; esac
				__keyloan_was[__kl_found]=${!__kl_name}
			fi
			__keyloan_name[__kl_found]=$__kl_name
		fi
		__keyloan_of[__kl_found]=$__kl_mark
		# As an argument it would stand in $_, where a trap sees it. Only the name, checked above, is evaluated.
		builtin eval "$__kl_name=\${__kl_values[__kl_i]}"
		builtin export "${__kl_name?}"
	done
	builtin unset -v __kl_values
	# Without this the daemon ends the loan: something ended this function on its way.
	{ builtin : >|"$__kl_mark.has"; } 2>/dev/null || builtin :
	__keyloan_drop_empty
	__keyloan_announce_vars
	__keyloan_sort "${__kl_shown[@]}"
	builtin printf 'set: %s\n' "${__keyloan_sorted[*]}"
	__kl_shown=()
	for __kl_name in "${__keyloan_name[@]}"; do
		__keyloan_among "$__kl_name" "${__keyloan_sorted[@]}" || __kl_shown[${#__kl_shown[@]}]=$__kl_name
	done
	if [[ ${#__kl_shown[@]} != 0 ]]; then
		__keyloan_sort "${__kl_shown[@]}"
		builtin printf 'still set: %s\n' "${__keyloan_sorted[*]}"
	fi
}

__keyloan_return() {
	local IFS=' ' __kl_name __kl_found __kl_removed __kl_missing='' __kl_kept=''
	__kl_removed=()
	if [[ $# == 0 ]]; then
		if [[ ${#__keyloan_name[@]} == 0 ]]; then
			builtin printf 'nothing set\n'
			return 0
		fi
		builtin set -- "${__keyloan_name[@]}"
	fi
	for __kl_name; do
		__kl_found=-1
		__keyloan_find "$__kl_name"
		if [[ $__kl_found == -1 ]]; then
			__kl_missing="$__kl_missing $__kl_name"
			continue
		fi
		if __keyloan_restore "$__kl_found"; then
			__kl_removed[${#__kl_removed[@]}]=$__kl_name
		else
			__kl_kept=1
		fi
	done
	__keyloan_drop_empty
	__keyloan_announce_vars
	if [[ ${#__kl_removed[@]} != 0 ]]; then
		__keyloan_sort "${__kl_removed[@]}"
		builtin printf 'removed: %s\n' "${__keyloan_sorted[*]}"
	fi
	if [[ -n $__kl_missing ]]; then
		builtin printf 'not set by opvars:%s\n' "$__kl_missing" >&2
	fi
	[[ -z $__kl_missing$__kl_kept ]]
}

# Sets '__kl_found', the caller's.
__keyloan_find() {
	local __kl_i
	for ((__kl_i = 0; __kl_i < ${#__keyloan_name[@]}; __kl_i++)); do
		if builtin test "${__keyloan_name[__kl_i]}" = "$1"; then
			__kl_found=$__kl_i
			return 0
		fi
	done
	return 0
}

# Whether the first of the words is among the others: to the letter, whatever nocasematch says.
__keyloan_among() {
	local __kl_name
	for __kl_name in "${@:2}"; do
		if builtin test "$__kl_name" = "$1"; then
			return 0
		fi
	done
	return 1
}

# Gives a variable what it had (an exported one still is), and closes the gap it leaves. One that has become read-only
# keeps what it was lent, and its entry; to try is the only way to know that needs no other process.
__keyloan_restore() {
	local __kl_i=$1 __kl_last=$((${#__keyloan_name[@]} - 1)) __kl_name=${__keyloan_name[$1]}
	if ! builtin unset -v "$__kl_name" 2>/dev/null; then
		builtin printf 'keyloan: cannot remove %s: it is read-only\n' "$__kl_name" >&2
		return 1
	fi
	# A function's own may have hidden what was lent: no more of them than functions.
	for ((__kl_last = ${#FUNCNAME[@]}; __kl_last > 0; __kl_last--)); do
		builtin declare -p "$__kl_name" >/dev/null 2>&1 || break
		builtin unset -v "$__kl_name" 2>/dev/null || return 1
	done
	__kl_last=$((${#__keyloan_name[@]} - 1))
	case ${__keyloan_had[__kl_i]} in
	x | v) builtin eval "$__kl_name=\${__keyloan_was[__kl_i]}" ;;
	esac
	case ${__keyloan_had[__kl_i]} in
	x | e) builtin export "${__kl_name?}" ;;
	esac
	__keyloan_name[__kl_i]=${__keyloan_name[__kl_last]} __keyloan_of[__kl_i]=${__keyloan_of[__kl_last]}
	__keyloan_had[__kl_i]=${__keyloan_had[__kl_last]} __keyloan_was[__kl_i]=${__keyloan_was[__kl_last]}
	builtin unset -v "__keyloan_name[$__kl_last]" "__keyloan_of[$__kl_last]" "__keyloan_had[$__kl_last]" "__keyloan_was[$__kl_last]"
}

__keyloan_join() {
	__keyloan_mark[__keyloan_loans]=$1 __keyloan_live[__keyloan_loans]=$2
	__keyloan_loan[__keyloan_loans]=$3 __keyloan_until[__keyloan_loans]=$4
	__keyloan_loans=$((__keyloan_loans + 1)) __keyloan_good=''
	case ":${KEYLOAN_LOAN-}:" in
	*":$3:"*) ;;
	*) builtin export KEYLOAN_LOAN="${KEYLOAN_LOAN-}${KEYLOAN_LOAN:+:}$3" ;;
	esac
}

# With a second argument something of it is left all the same.
__keyloan_part() {
	local __kl_i=$1 __kl_last=$((__keyloan_loans - 1)) __kl_loans=":${KEYLOAN_LOAN-}:"
	__kl_loans=${__kl_loans/":${__keyloan_loan[__kl_i]}:"/:}
	__kl_loans=${__kl_loans#:}
	__kl_loans=${__kl_loans%:}
	if [[ -n $__kl_loans ]]; then
		builtin export KEYLOAN_LOAN="$__kl_loans"
	else
		builtin unset -v KEYLOAN_LOAN
	fi
	[[ -n ${2-} ]] || __keyloan_back "${__keyloan_mark[__kl_i]}"
	__keyloan_mark[__kl_i]=${__keyloan_mark[__kl_last]} __keyloan_live[__kl_i]=${__keyloan_live[__kl_last]}
	__keyloan_loan[__kl_i]=${__keyloan_loan[__kl_last]} __keyloan_until[__kl_i]=${__keyloan_until[__kl_last]}
	builtin unset -v "__keyloan_mark[$__kl_last]" "__keyloan_live[$__kl_last]" "__keyloan_loan[$__kl_last]" "__keyloan_until[$__kl_last]"
	__keyloan_loans=$__kl_last
}

# Says that nothing is left of a loan: only in the very process it was to, or a subshell would end it for all.
__keyloan_back() {
	# The marker's name may be the environment's word: nothing that is there is written to.
	[[ ! -e $1.back && ! -L $1.back ]] || return 0
	case ${1##*/} in
	"$$"-*) [[ $BASH_SUBSHELL != 0 ]] || { builtin : >|"$1.back"; } 2>/dev/null || builtin : ;;
	esac
}

# Parts with the loans of which no variable is left.
__keyloan_drop_empty() {
	local __kl_i=0 __kl_of __kl_left
	while [[ $__kl_i -lt $__keyloan_loans ]]; do
		__kl_left=''
		for __kl_of in ${__keyloan_of[@]+"${__keyloan_of[@]}"}; do
			if [[ $__kl_of == "${__keyloan_mark[__kl_i]}" ]]; then
				__kl_left=1
				break
			fi
		done
		if [[ -n $__kl_left ]]; then
			__kl_i=$((__kl_i + 1))
		else
			__keyloan_part "$__kl_i"
		fi
	done
}

# The prompt's stars and the names, and for shells that follow this one the loans.
__keyloan_announce_vars() {
	local IFS=' ' __kl_i __kl_j __kl_stars='' __kl_loans='' __kl_names
	if [[ ${#__keyloan_name[@]} == 0 ]]; then
		builtin unset -v KEYLOAN_VARS KEYLOAN_PROMPT KEYLOAN_SHELL
		return 0
	fi
	for ((__kl_i = 0; __kl_i < ${#__keyloan_name[@]}; __kl_i++)); do
		__kl_stars="$__kl_stars*"
	done
	for ((__kl_i = 0; __kl_i < __keyloan_loans; __kl_i++)); do
		__kl_names=''
		for ((__kl_j = 0; __kl_j < ${#__keyloan_name[@]}; __kl_j++)); do
			if [[ ${__keyloan_of[__kl_j]} == "${__keyloan_mark[__kl_i]}" ]]; then
				__kl_names="$__kl_names ${__keyloan_name[__kl_j]}"
			fi
		done
		__kl_loans="$__kl_loans${__keyloan_mark[__kl_i]}"$'\t'"${__keyloan_live[__kl_i]}"$'\t'"${__keyloan_loan[__kl_i]}"$'\t'"${__kl_names# }"
		# A line is all that there is of a loan; no directory is named like the rest of one.
		__kl_loans="$__kl_loans"$'\t'"${__keyloan_until[__kl_i]//$'\n'//?}"$'\n'
	done
	__keyloan_sort "${__keyloan_name[@]}"
	# shellcheck disable=SC2034 # exported, for prompts
	builtin export KEYLOAN_VARS="${__keyloan_sorted[*]}" KEYLOAN_PROMPT="$__kl_stars" KEYLOAN_SHELL="$__kl_loans"
}

# What a shell had that this one was started from, or was before it became this one.
__keyloan_inherit() {
	local IFS=' ' __kl_rest=$KEYLOAN_SHELL __kl_line __kl_mark __kl_live __kl_loan __kl_until __kl_names __kl_name __kl_at
	while [[ -n $__kl_rest ]]; do
		__kl_line=${__kl_rest%%$'\n'*}
		__kl_rest=${__kl_rest#"$__kl_line"}
		__kl_rest=${__kl_rest#$'\n'}
		__kl_mark=${__kl_line%%$'\t'*}
		__kl_line=${__kl_line#*$'\t'}
		__kl_live=${__kl_line%%$'\t'*}
		__kl_line=${__kl_line#*$'\t'}
		__kl_loan=${__kl_line%%$'\t'*}
		__kl_line=${__kl_line#*$'\t'}
		__kl_names=${__kl_line%%$'\t'*}
		# Without this field the line is of an older keyloan.
		__kl_until=''
		case $__kl_line in *$'\t'*) __kl_until=${__kl_line#*$'\t'} ;; esac
		case $__kl_names in '' | *[!A-Za-z0-9_\ ]*) continue ;; esac
		__keyloan_join "$__kl_mark" "$__kl_live" "$__kl_loan" "$__kl_until"
		while [[ -n $__kl_names ]]; do
			__kl_name=${__kl_names%% *}
			__kl_names=${__kl_names#"$__kl_name"}
			__kl_names=${__kl_names# }
			# Of these nobody was lent one: a made-up loan would take them away.
			case $__kl_name in _ | IFS | PATH | HOME | SHELL | USER | PWD | TERM) continue ;; esac
			__kl_at=${#__keyloan_name[@]}
			__keyloan_name[__kl_at]=$__kl_name __keyloan_of[__kl_at]=$__kl_mark __keyloan_had[__kl_at]='' __keyloan_was[__kl_at]=''
		done
	done
	__keyloan_announce_vars
}

__keyloan_sort() {
	local __kl_i __kl_name
	__keyloan_sorted=()
	for __kl_name; do
		for ((__kl_i = ${#__keyloan_sorted[@]}; __kl_i > 0; __kl_i--)); do
			[[ ${__keyloan_sorted[__kl_i - 1]} > $__kl_name ]] || break
			__keyloan_sorted[__kl_i]=${__keyloan_sorted[__kl_i - 1]}
		done
		__keyloan_sorted[__kl_i]=$__kl_name
	done
}

# Whether the shell left the directory that a loan is for. Unlike [[ and case, neither 'test' nor '#' can be set to take
# one letter for another.
__keyloan_left() {
	local __kl_directory=${1%/} __kl_here=$PWD/
	if builtin test "${__kl_here#"$__kl_directory"/}" != "$__kl_here"; then
		return 1
	fi
	# A link may lead into it.
	__kl_here=$(builtin pwd -P 2>/dev/null)/
	builtin test "${__kl_here#"$__kl_directory"/}" = "$__kl_here"
}

# Takes out what loans lent that have ended. A directory in which none of them had ended is not looked at again.
__keyloan_check() {
	local __kl_i=0
	while [[ $__kl_i -lt $__keyloan_loans ]]; do
		if [[ ! -e ${__keyloan_mark[__kl_i]} || ! -e ${__keyloan_live[__kl_i]} ]]; then
			__keyloan_over "$__kl_i" ''
		elif [[ -n ${__keyloan_until[__kl_i]} ]] && builtin test "$PWD" != "$__keyloan_good" &&
			__keyloan_left "${__keyloan_until[__kl_i]}"; then
			__keyloan_over "$__kl_i" "this shell left ${__keyloan_until[__kl_i]}"
		else
			__kl_i=$((__kl_i + 1))
		fi
	done
	__keyloan_good=$PWD
}

__keyloan_over() {
	local IFS=' ' 2>/dev/null
	local __kl_i __kl_name __kl_kept='' __kl_why=$2 __kl_removed
	local __kl_mark=${__keyloan_mark[$1]} __kl_else
	__kl_else='the loan is over'
	# Without a daemon that it can see it looks for the marker alone.
	[[ -e ${__keyloan_live[$1]} || ${__keyloan_live[$1]} == "$__kl_mark" ]] || __kl_else='the daemon has ended'
	__keyloan_untrace
	__kl_removed=()
	__kl_i=0
	while [[ $__kl_i -lt ${#__keyloan_name[@]} ]]; do
		if [[ ${__keyloan_of[__kl_i]} == "$__kl_mark" ]]; then
			__kl_name=${__keyloan_name[__kl_i]}
			if __keyloan_restore "$__kl_i"; then
				__kl_removed[${#__kl_removed[@]}]=$__kl_name
				continue
			fi
			__kl_kept=1
			__kl_i=$((__kl_i + 1))
		else
			__kl_i=$((__kl_i + 1))
		fi
	done
	# Anything of the user's can put a file there: a pipe would never end, and a terminal act on what it says.
	if [[ -z $__kl_why && -f $__kl_mark.why && -r $__kl_mark.why ]]; then
		builtin read -r -n 200 __kl_why <"$__kl_mark.why" || builtin :
	fi
	__kl_why=${__kl_why//[^[:print:]]/?}
	__keyloan_part "$1" "$__kl_kept"
	__keyloan_announce_vars
	[[ ${#__kl_removed[@]} != 0 ]] || return 0
	__keyloan_sort "${__kl_removed[@]}"
	builtin printf 'keyloan: removed: %s (%s)\n' "${__keyloan_sorted[*]}" "${__kl_why:-$__kl_else}" >&2
}

# A title that warns, and a word about sets on entering a directory: both off unless asked for.
__keyloan_extras() {
	if [[ -n ${KEYLOAN_TITLE-} ]]; then
		if [[ -n ${KEYLOAN_VARS-} ]]; then
			builtin printf '\033]2;keyloan: %s\007' "${KEYLOAN_VARS//[^[:print:]]/?}" >&2
			__keyloan_titled=1
		elif [[ -n $__keyloan_titled ]]; then
			local __kl_title=${PWD##*/}
			builtin printf '\033]2;%s\007' "${__kl_title//[^[:print:]]/?}" >&2
			__keyloan_titled=''
		fi
	fi
	if [[ -n ${KEYLOAN_ANNOUNCE-} && $PWD != "$__keyloan_at" ]]; then
		__keyloan_at=$PWD
		local __kl_directory=$PWD
		while [[ $__kl_directory == /* && $__kl_directory != "${HOME-}" ]]; do
			if [[ -e $__kl_directory/.keyloan.toml ]]; then
				builtin printf 'keyloan: opvars is available here\n' >&2
				break
			fi
			[[ -e $__kl_directory/.git ]] && break
			__kl_directory=${__kl_directory%/*}
		done
	fi
	return 0
}

__keyloan_hook() {
	local __keyloan_status=$?
	# Under 'set -a' a child has the hook, and nothing of what it looks after.
	[[ -n ${__keyloan_ready[1]-} ]] || return "$__keyloan_status"
	if [[ $__keyloan_loans != 0 ]]; then
		__keyloan_check
	fi
	if [[ -n ${KEYLOAN_TITLE-}${KEYLOAN_ANNOUNCE-} ]]; then
		__keyloan_extras
	fi
	if [[ -n $__keyloan_untraced ]]; then
		__keyloan_retrace
	fi
	# What failed has failed already; under 'set -e' to say so again would end the shell.
	[[ ! -o errexit ]] || return 0
	return "$__keyloan_status"
}

# Again at each loan: what comes later in a start-up file may have put something else in its place.
__keyloan_install() {
	# Before 5.1 only the first of them is run.
	local __kl_commands=${PROMPT_COMMAND-}
	((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 501)) || __kl_commands="${PROMPT_COMMAND[*]-}"
	case $__kl_commands in
	*__keyloan_hook*) return 0 ;;
	esac
	# shellcheck disable=SC2030,SC2031 # tried where it changes nothing
	if ! (PROMPT_COMMAND='') 2>/dev/null; then
		builtin printf 'keyloan: cannot take anything out of this shell by itself: its PROMPT_COMMAND is read-only\n' >&2
		return 2
	fi
	# shellcheck disable=SC2031
	PROMPT_COMMAND="__keyloan_hook${PROMPT_COMMAND:+;$PROMPT_COMMAND}"
}

__keyloan_install || builtin :

if [[ -n ${KEYLOAN_SHELL-} && $__keyloan_loans == 0 ]]; then
	__keyloan_inherit
fi
