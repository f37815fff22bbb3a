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

opvars() {
	__keyloan_untrace
	local __keyloan_result=0
	__keyloan_lend "$@" || __keyloan_result=$?
	# The last argument of the last command stands in $_.
	builtin : opvars
	__keyloan_retrace
	return "$__keyloan_result"
}

unopvars() {
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
	local IFS=' ' 2>/dev/null
	local __keyloan_my_record __keyloan_my_code='' __keyloan_my_mark='' __keyloan_my_live='' __keyloan_my_loan=''
	local __keyloan_my_until='' __keyloan_my_name='' __keyloan_my_whole='' __keyloan_my_at=0 __keyloan_my_count=0
	local __keyloan_my_i __keyloan_my_found __keyloan_my_kind __keyloan_my_kinds __keyloan_my_shown
	local __keyloan_my_names __keyloan_my_values
	__keyloan_my_names=() __keyloan_my_values=() __keyloan_my_kinds=()
	if [[ $IFS != ' ' ]]; then
		builtin printf 'keyloan: cannot lend credentials to this shell: its IFS is read-only, which would change values\n' >&2
		return 2
	fi
	case $- in *i*) __keyloan_install || return 2 ;; esac
	__keyloan_check
	# Each name and each value ends with a NUL and is taken as it is; the C locale has no invalid bytes.
	while LC_ALL=C IFS='' builtin read -r -d '' __keyloan_my_record; do
		case $__keyloan_my_at in
		0) __keyloan_my_code=$__keyloan_my_record ;;
		1) __keyloan_my_mark=$__keyloan_my_record ;;
		2) __keyloan_my_live=$__keyloan_my_record ;;
		3) __keyloan_my_loan=$__keyloan_my_record ;;
		4) __keyloan_my_until=$__keyloan_my_record ;;
		*)
			if [[ -n $__keyloan_my_name ]]; then
				__keyloan_my_names[__keyloan_my_count]=$__keyloan_my_name __keyloan_my_values[__keyloan_my_count]=$__keyloan_my_record __keyloan_my_name=''
				__keyloan_my_count=$((__keyloan_my_count + 1))
			elif [[ $__keyloan_my_record == '=' ]]; then
				__keyloan_my_whole=1
			else
				__keyloan_my_name=$__keyloan_my_record
			fi
			;;
		esac
		__keyloan_my_at=$((__keyloan_my_at + 1))
	done < <(builtin exec keyloan shell-lend "$@")
	__keyloan_my_record=''
	if [[ -z $__keyloan_my_whole ]]; then
		# Without a status keyloan did not even start, or was killed; with 0 and nothing else it printed its help.
		if [[ $__keyloan_my_code != 0 ]]; then
			return "${__keyloan_my_code:-127}"
		fi
		[[ $__keyloan_my_at == 1 ]] && return 0
		__keyloan_back "$__keyloan_my_mark"
		builtin printf 'keyloan: cannot lend credentials to this shell: keyloan ended too early\n' >&2
		return 3
	fi
	for ((__keyloan_my_i = 0; __keyloan_my_i < __keyloan_my_count; __keyloan_my_i++)); do
		# An integer's value would be evaluated, a read-only one stays as it is, and no array is exported.
		__keyloan_my_kind=$(builtin declare -p "${__keyloan_my_names[__keyloan_my_i]}" 2>/dev/null)
		__keyloan_my_kind=${__keyloan_my_kind#declare }
		case ${__keyloan_my_names[__keyloan_my_i]} in [!A-Za-z_]* | *[!A-Za-z0-9_]* | '') __keyloan_my_kind='not a name' ;; esac
		__keyloan_my_kinds[__keyloan_my_i]=${__keyloan_my_kind%% *}
		__keyloan_my_kind=''
		case ${__keyloan_my_kinds[__keyloan_my_i]} in
		'' | -- | -x) ;;
		*)
			__keyloan_back "$__keyloan_my_mark"
			builtin printf 'keyloan: cannot set %s in this shell: it is no plain variable there (%s)\n' "${__keyloan_my_names[__keyloan_my_i]}" "${__keyloan_my_kinds[__keyloan_my_i]}" >&2
			builtin printf 'hint: with-secrets does not need it; or unset %s, or open another shell\n' "${__keyloan_my_names[__keyloan_my_i]}" >&2
			return 2
			;;
		esac
	done
	__keyloan_join "$__keyloan_my_mark" "$__keyloan_my_live" "$__keyloan_my_loan" "$__keyloan_my_until"
	__keyloan_my_shown=()
	for ((__keyloan_my_i = 0; __keyloan_my_i < __keyloan_my_count; __keyloan_my_i++)); do
		__keyloan_my_name=${__keyloan_my_names[__keyloan_my_i]}
		__keyloan_my_shown[__keyloan_my_i]=$__keyloan_my_name
		__keyloan_my_found=-1
		__keyloan_find "$__keyloan_my_name"
		if [[ $__keyloan_my_found == -1 ]]; then
			__keyloan_my_found=${#__keyloan_name[@]}
			__keyloan_had[__keyloan_my_found]='' __keyloan_was[__keyloan_my_found]=''
			[[ ${__keyloan_my_kinds[__keyloan_my_i]} != -x ]] || __keyloan_had[__keyloan_my_found]=e
			if [[ -n ${!__keyloan_my_name+set} ]]; then
				case ${__keyloan_had[__keyloan_my_found]} in e) __keyloan_had[__keyloan_my_found]=x ;; *) __keyloan_had[__keyloan_my_found]=v ;; esac
				__keyloan_was[__keyloan_my_found]=${!__keyloan_my_name}
			fi
			__keyloan_name[__keyloan_my_found]=$__keyloan_my_name
		fi
		__keyloan_of[__keyloan_my_found]=$__keyloan_my_mark
		# As an argument it would stand in $_, where a trap sees it. Only the name, checked above, is evaluated.
		builtin eval "$__keyloan_my_name=\${__keyloan_my_values[__keyloan_my_i]}"
		builtin export "${__keyloan_my_name?}"
	done
	builtin unset -v __keyloan_my_values
	# Without this the daemon ends the loan: something ended this function on its way.
	{ builtin : >|"$__keyloan_my_mark.has"; } 2>/dev/null || builtin :
	__keyloan_drop_empty
	__keyloan_announce_vars
	__keyloan_sort "${__keyloan_my_shown[@]}"
	builtin printf 'set: %s\n' "${__keyloan_sorted[*]}"
	__keyloan_my_shown=()
	for __keyloan_my_name in "${__keyloan_name[@]}"; do
		__keyloan_among "$__keyloan_my_name" "${__keyloan_sorted[@]}" || __keyloan_my_shown[${#__keyloan_my_shown[@]}]=$__keyloan_my_name
	done
	if [[ ${#__keyloan_my_shown[@]} != 0 ]]; then
		__keyloan_sort "${__keyloan_my_shown[@]}"
		builtin printf 'still set: %s\n' "${__keyloan_sorted[*]}"
	fi
}

__keyloan_return() {
	local IFS=' ' __keyloan_my_name __keyloan_my_found __keyloan_my_removed __keyloan_my_missing='' __keyloan_my_kept=''
	__keyloan_my_removed=()
	if [[ $# == 0 ]]; then
		if [[ ${#__keyloan_name[@]} == 0 ]]; then
			builtin printf 'nothing set\n'
			return 0
		fi
		builtin set -- "${__keyloan_name[@]}"
	fi
	for __keyloan_my_name; do
		__keyloan_my_found=-1
		__keyloan_find "$__keyloan_my_name"
		if [[ $__keyloan_my_found == -1 ]]; then
			__keyloan_my_missing="$__keyloan_my_missing $__keyloan_my_name"
			continue
		fi
		if __keyloan_restore "$__keyloan_my_found"; then
			__keyloan_my_removed[${#__keyloan_my_removed[@]}]=$__keyloan_my_name
		else
			__keyloan_my_kept=1
		fi
	done
	__keyloan_drop_empty
	__keyloan_announce_vars
	if [[ ${#__keyloan_my_removed[@]} != 0 ]]; then
		__keyloan_sort "${__keyloan_my_removed[@]}"
		builtin printf 'removed: %s\n' "${__keyloan_sorted[*]}"
	fi
	if [[ -n $__keyloan_my_missing ]]; then
		builtin printf 'not set by opvars:%s\n' "$__keyloan_my_missing" >&2
	fi
	[[ -z $__keyloan_my_missing$__keyloan_my_kept ]]
}

# Sets '__keyloan_my_found', the caller's.
__keyloan_find() {
	local __keyloan_my_i
	for ((__keyloan_my_i = 0; __keyloan_my_i < ${#__keyloan_name[@]}; __keyloan_my_i++)); do
		if builtin test "${__keyloan_name[__keyloan_my_i]}" = "$1"; then
			__keyloan_my_found=$__keyloan_my_i
			return 0
		fi
	done
	return 0
}

# Whether the first of the words is among the others: to the letter, whatever nocasematch says.
__keyloan_among() {
	local __keyloan_my_name
	for __keyloan_my_name in "${@:2}"; do
		if builtin test "$__keyloan_my_name" = "$1"; then
			return 0
		fi
	done
	return 1
}

# Gives a variable what it had (an exported one still is), and closes the gap it leaves. One that has become read-only
# keeps what it was lent, and its entry; to try is the only way to know that needs no other process.
__keyloan_restore() {
	local __keyloan_my_i=$1 __keyloan_my_last=$((${#__keyloan_name[@]} - 1)) __keyloan_my_name=${__keyloan_name[$1]}
	if ! builtin unset -v "$__keyloan_my_name" 2>/dev/null; then
		builtin printf 'keyloan: cannot remove %s: it is read-only\n' "$__keyloan_my_name" >&2
		return 1
	fi
	# A function's own may have hidden what was lent.
	while [[ -n ${!__keyloan_my_name+set} ]]; do
		builtin unset -v "$__keyloan_my_name" 2>/dev/null || return 1
	done
	case ${__keyloan_had[__keyloan_my_i]} in
	x | v) builtin eval "$__keyloan_my_name=\${__keyloan_was[__keyloan_my_i]}" ;;
	esac
	case ${__keyloan_had[__keyloan_my_i]} in
	x | e) builtin export "${__keyloan_my_name?}" ;;
	esac
	__keyloan_name[__keyloan_my_i]=${__keyloan_name[__keyloan_my_last]} __keyloan_of[__keyloan_my_i]=${__keyloan_of[__keyloan_my_last]}
	__keyloan_had[__keyloan_my_i]=${__keyloan_had[__keyloan_my_last]} __keyloan_was[__keyloan_my_i]=${__keyloan_was[__keyloan_my_last]}
	builtin unset -v "__keyloan_name[$__keyloan_my_last]" "__keyloan_of[$__keyloan_my_last]" "__keyloan_had[$__keyloan_my_last]" "__keyloan_was[$__keyloan_my_last]"
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
	local __keyloan_my_i=$1 __keyloan_my_last=$((__keyloan_loans - 1)) __keyloan_my_loans=":${KEYLOAN_LOAN-}:"
	__keyloan_my_loans=${__keyloan_my_loans/":${__keyloan_loan[__keyloan_my_i]}:"/:}
	__keyloan_my_loans=${__keyloan_my_loans#:}
	__keyloan_my_loans=${__keyloan_my_loans%:}
	if [[ -n $__keyloan_my_loans ]]; then
		builtin export KEYLOAN_LOAN="$__keyloan_my_loans"
	else
		builtin unset -v KEYLOAN_LOAN
	fi
	[[ -n ${2-} ]] || __keyloan_back "${__keyloan_mark[__keyloan_my_i]}"
	__keyloan_mark[__keyloan_my_i]=${__keyloan_mark[__keyloan_my_last]} __keyloan_live[__keyloan_my_i]=${__keyloan_live[__keyloan_my_last]}
	__keyloan_loan[__keyloan_my_i]=${__keyloan_loan[__keyloan_my_last]} __keyloan_until[__keyloan_my_i]=${__keyloan_until[__keyloan_my_last]}
	builtin unset -v "__keyloan_mark[$__keyloan_my_last]" "__keyloan_live[$__keyloan_my_last]" "__keyloan_loan[$__keyloan_my_last]" "__keyloan_until[$__keyloan_my_last]"
	__keyloan_loans=$__keyloan_my_last
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
	local __keyloan_my_i=0 __keyloan_my_of __keyloan_my_left
	while [[ $__keyloan_my_i -lt $__keyloan_loans ]]; do
		__keyloan_my_left=''
		for __keyloan_my_of in ${__keyloan_of[@]+"${__keyloan_of[@]}"}; do
			if [[ $__keyloan_my_of == "${__keyloan_mark[__keyloan_my_i]}" ]]; then
				__keyloan_my_left=1
				break
			fi
		done
		if [[ -n $__keyloan_my_left ]]; then
			__keyloan_my_i=$((__keyloan_my_i + 1))
		else
			__keyloan_part "$__keyloan_my_i"
		fi
	done
}

# The prompt's stars and the names, and for shells that follow this one the loans.
__keyloan_announce_vars() {
	local IFS=' ' __keyloan_my_i __keyloan_my_j __keyloan_my_stars='' __keyloan_my_loans='' __keyloan_my_names
	if [[ ${#__keyloan_name[@]} == 0 ]]; then
		builtin unset -v KEYLOAN_VARS KEYLOAN_PROMPT KEYLOAN_SHELL
		return 0
	fi
	for ((__keyloan_my_i = 0; __keyloan_my_i < ${#__keyloan_name[@]}; __keyloan_my_i++)); do
		__keyloan_my_stars="$__keyloan_my_stars*"
	done
	for ((__keyloan_my_i = 0; __keyloan_my_i < __keyloan_loans; __keyloan_my_i++)); do
		__keyloan_my_names=''
		for ((__keyloan_my_j = 0; __keyloan_my_j < ${#__keyloan_name[@]}; __keyloan_my_j++)); do
			if [[ ${__keyloan_of[__keyloan_my_j]} == "${__keyloan_mark[__keyloan_my_i]}" ]]; then
				__keyloan_my_names="$__keyloan_my_names ${__keyloan_name[__keyloan_my_j]}"
			fi
		done
		__keyloan_my_loans="$__keyloan_my_loans${__keyloan_mark[__keyloan_my_i]}"$'\t'"${__keyloan_live[__keyloan_my_i]}"$'\t'"${__keyloan_loan[__keyloan_my_i]}"$'\t'"${__keyloan_my_names# }"
		# A line is all that there is of a loan; no directory is named like the rest of one.
		__keyloan_my_loans="$__keyloan_my_loans"$'\t'"${__keyloan_until[__keyloan_my_i]//$'\n'//?}"$'\n'
	done
	__keyloan_sort "${__keyloan_name[@]}"
	# shellcheck disable=SC2034 # exported, for prompts
	builtin export KEYLOAN_VARS="${__keyloan_sorted[*]}" KEYLOAN_PROMPT="$__keyloan_my_stars" KEYLOAN_SHELL="$__keyloan_my_loans"
}

# What a shell had that this one was started from, or was before it became this one.
__keyloan_inherit() {
	local IFS=' ' __keyloan_my_rest=$KEYLOAN_SHELL __keyloan_my_line __keyloan_my_mark __keyloan_my_live __keyloan_my_loan __keyloan_my_until __keyloan_my_names __keyloan_my_name __keyloan_my_at
	while [[ -n $__keyloan_my_rest ]]; do
		__keyloan_my_line=${__keyloan_my_rest%%$'\n'*}
		__keyloan_my_rest=${__keyloan_my_rest#"$__keyloan_my_line"}
		__keyloan_my_rest=${__keyloan_my_rest#$'\n'}
		__keyloan_my_mark=${__keyloan_my_line%%$'\t'*}
		__keyloan_my_line=${__keyloan_my_line#*$'\t'}
		__keyloan_my_live=${__keyloan_my_line%%$'\t'*}
		__keyloan_my_line=${__keyloan_my_line#*$'\t'}
		__keyloan_my_loan=${__keyloan_my_line%%$'\t'*}
		__keyloan_my_line=${__keyloan_my_line#*$'\t'}
		__keyloan_my_names=${__keyloan_my_line%%$'\t'*}
		# Without this field the line is of an older keyloan.
		__keyloan_my_until=''
		case $__keyloan_my_line in *$'\t'*) __keyloan_my_until=${__keyloan_my_line#*$'\t'} ;; esac
		case $__keyloan_my_names in '' | *[!A-Za-z0-9_\ ]*) continue ;; esac
		__keyloan_join "$__keyloan_my_mark" "$__keyloan_my_live" "$__keyloan_my_loan" "$__keyloan_my_until"
		while [[ -n $__keyloan_my_names ]]; do
			__keyloan_my_name=${__keyloan_my_names%% *}
			__keyloan_my_names=${__keyloan_my_names#"$__keyloan_my_name"}
			__keyloan_my_names=${__keyloan_my_names# }
			__keyloan_my_at=${#__keyloan_name[@]}
			__keyloan_name[__keyloan_my_at]=$__keyloan_my_name __keyloan_of[__keyloan_my_at]=$__keyloan_my_mark __keyloan_had[__keyloan_my_at]='' __keyloan_was[__keyloan_my_at]=''
		done
	done
	__keyloan_announce_vars
}

__keyloan_sort() {
	local __keyloan_my_i __keyloan_my_name
	__keyloan_sorted=()
	for __keyloan_my_name; do
		for ((__keyloan_my_i = ${#__keyloan_sorted[@]}; __keyloan_my_i > 0; __keyloan_my_i--)); do
			[[ ${__keyloan_sorted[__keyloan_my_i - 1]} > $__keyloan_my_name ]] || break
			__keyloan_sorted[__keyloan_my_i]=${__keyloan_sorted[__keyloan_my_i - 1]}
		done
		__keyloan_sorted[__keyloan_my_i]=$__keyloan_my_name
	done
}

# Whether the shell left the directory that a loan is for. Unlike [[ and case, neither 'test' nor '#' can be set to take
# one letter for another.
__keyloan_left() {
	local __keyloan_my_directory=${1%/} __keyloan_my_here=$PWD/
	if builtin test "${__keyloan_my_here#"$__keyloan_my_directory"/}" != "$__keyloan_my_here"; then
		return 1
	fi
	# A link may lead into it.
	__keyloan_my_here=$(builtin pwd -P 2>/dev/null)/
	builtin test "${__keyloan_my_here#"$__keyloan_my_directory"/}" = "$__keyloan_my_here"
}

# Takes out what loans lent that have ended. A directory in which none of them had ended is not looked at again.
__keyloan_check() {
	local __keyloan_my_i=0
	while [[ $__keyloan_my_i -lt $__keyloan_loans ]]; do
		if [[ ! -e ${__keyloan_mark[__keyloan_my_i]} || ! -e ${__keyloan_live[__keyloan_my_i]} ]]; then
			__keyloan_over "$__keyloan_my_i" ''
		elif [[ -n ${__keyloan_until[__keyloan_my_i]} ]] && builtin test "$PWD" != "$__keyloan_good" &&
			__keyloan_left "${__keyloan_until[__keyloan_my_i]}"; then
			__keyloan_over "$__keyloan_my_i" "this shell left ${__keyloan_until[__keyloan_my_i]}"
		else
			__keyloan_my_i=$((__keyloan_my_i + 1))
		fi
	done
	__keyloan_good=$PWD
}

__keyloan_over() {
	local IFS=' ' __keyloan_my_i __keyloan_my_name __keyloan_my_kept='' __keyloan_my_why=$2 __keyloan_my_removed
	local __keyloan_my_mark=${__keyloan_mark[$1]} __keyloan_my_else
	__keyloan_my_else='the loan is over'
	[[ -e ${__keyloan_live[$1]} ]] || __keyloan_my_else='the daemon has ended'
	__keyloan_untrace
	__keyloan_my_removed=()
	__keyloan_my_i=0
	while [[ $__keyloan_my_i -lt ${#__keyloan_name[@]} ]]; do
		if [[ ${__keyloan_of[__keyloan_my_i]} == "$__keyloan_my_mark" ]]; then
			__keyloan_my_name=${__keyloan_name[__keyloan_my_i]}
			if __keyloan_restore "$__keyloan_my_i"; then
				__keyloan_my_removed[${#__keyloan_my_removed[@]}]=$__keyloan_my_name
				continue
			fi
			__keyloan_my_kept=1
			__keyloan_my_i=$((__keyloan_my_i + 1))
		else
			__keyloan_my_i=$((__keyloan_my_i + 1))
		fi
	done
	# Anything of the user's can put a file there: a pipe would never end, and a terminal act on what it says.
	if [[ -z $__keyloan_my_why && -f $__keyloan_my_mark.why && -r $__keyloan_my_mark.why ]]; then
		builtin read -r -n 200 __keyloan_my_why <"$__keyloan_my_mark.why" || builtin :
	fi
	__keyloan_my_why=${__keyloan_my_why//[^[:print:]]/?}
	__keyloan_part "$1" "$__keyloan_my_kept"
	__keyloan_announce_vars
	[[ ${#__keyloan_my_removed[@]} != 0 ]] || return 0
	__keyloan_sort "${__keyloan_my_removed[@]}"
	builtin printf 'keyloan: removed: %s (%s)\n' "${__keyloan_sorted[*]}" "${__keyloan_my_why:-$__keyloan_my_else}" >&2
}

# A title that warns, and a word about sets on entering a directory: both off unless asked for.
__keyloan_extras() {
	if [[ -n ${KEYLOAN_TITLE-} ]]; then
		if [[ -n ${KEYLOAN_VARS-} ]]; then
			builtin printf '\033]2;keyloan: %s\007' "${KEYLOAN_VARS//[^[:print:]]/?}" >&2
			__keyloan_titled=1
		elif [[ -n $__keyloan_titled ]]; then
			local __keyloan_my_title=${PWD##*/}
			builtin printf '\033]2;%s\007' "${__keyloan_my_title//[^[:print:]]/?}" >&2
			__keyloan_titled=''
		fi
	fi
	if [[ -n ${KEYLOAN_ANNOUNCE-} && $PWD != "$__keyloan_at" ]]; then
		__keyloan_at=$PWD
		local __keyloan_my_directory=$PWD
		while [[ $__keyloan_my_directory == /* && $__keyloan_my_directory != "${HOME-}" ]]; do
			if [[ -e $__keyloan_my_directory/.keyloan.toml ]]; then
				builtin printf 'keyloan: opvars is available here\n' >&2
				break
			fi
			[[ -e $__keyloan_my_directory/.git ]] && break
			__keyloan_my_directory=${__keyloan_my_directory%/*}
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
	case "${PROMPT_COMMAND[*]-}" in
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
