# keyloan in bash: opvars, unopvars (deopvars), and the check before each prompt that every loan still lasts.
# For the start-up file:  eval "$(keyloan shell bash)"
#
# Written for bash 3.2. What must hold: no value is ever evaluated, traced, shown to another program but by the
# environment, or written to a file; the check starts no program and waits for nothing; no setting of the shell is
# changed, and none breaks it.
# shellcheck shell=bash

if [[ -z ${__keyloan_ready-} ]]; then
	# One entry a variable: its name, the marker of its loan, whether it had a value before ('', v, or x for an exported
	# one), and that value. Arrays are never exported.
	__keyloan_name=() __keyloan_of=() __keyloan_had=() __keyloan_was=()
	# One entry a loan: its marker, what shows that the daemon lives, its name for children, the directory it ends with.
	__keyloan_mark=() __keyloan_live=() __keyloan_loan=() __keyloan_until=()
	__keyloan_loans=0 __keyloan_untraced='' __keyloan_inside='' __keyloan_titled='' __keyloan_at=''
	__keyloan_ready=1
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
	local IFS=' ' record names values code='' mark='' live='' loan='' until='' name='' whole='' at=0 count=0 i found kind shown
	names=() values=()
	__keyloan_check
	# Each name and each value ends with a NUL and is taken as it is; the C locale has no invalid bytes.
	while LC_ALL=C IFS='' builtin read -r -d '' record; do
		case $at in
		0) code=$record ;;
		1) mark=$record ;;
		2) live=$record ;;
		3) loan=$record ;;
		4) until=$record ;;
		*)
			if [[ -n $name ]]; then
				names[count]=$name values[count]=$record name=''
				count=$((count + 1))
			elif [[ $record == '=' ]]; then
				whole=1
			else
				name=$record
			fi
			;;
		esac
		at=$((at + 1))
	done < <(exec keyloan shell-lend "$@")
	record=''
	if [[ -z $whole ]]; then
		# Without a status keyloan did not even start, or was killed; with 0 and nothing else it printed its help.
		if [[ $code != 0 ]]; then
			return "${code:-127}"
		fi
		[[ $at == 1 ]] && return 0
		__keyloan_back "$mark"
		builtin printf 'keyloan: cannot lend credentials to this shell: keyloan ended too early\n' >&2
		return 3
	fi
	for ((i = 0; i < count; i++)); do
		# An integer's value would be evaluated, a read-only one stays as it is, and no array is exported.
		kind=$(builtin declare -p "${names[i]}" 2>/dev/null)
		kind=${kind#declare }
		case ${names[i]} in [!A-Za-z_]* | *[!A-Za-z0-9_]* | '') kind='not a name' ;; esac
		case ${kind%% *} in
		'' | -- | -x) ;;
		*)
			__keyloan_back "$mark"
			builtin printf 'keyloan: cannot set %s in this shell: it is no plain variable there (%s)\n' "${names[i]}" "${kind%% *}" >&2
			builtin printf 'hint: with-secrets does not need it; or unset %s, or open another shell\n' "${names[i]}" >&2
			return 2
			;;
		esac
	done
	__keyloan_join "$mark" "$live" "$loan" "$until"
	shown=()
	for ((i = 0; i < count; i++)); do
		name=${names[i]}
		shown[i]=$name
		found=-1
		__keyloan_find "$name"
		if [[ $found == -1 ]]; then
			found=${#__keyloan_name[@]}
			__keyloan_had[found]='' __keyloan_was[found]=''
			if [[ -n ${!name+set} ]]; then
				kind=$(builtin declare -p "$name" 2>/dev/null)
				case $kind in 'declare -x'*) __keyloan_had[found]=x ;; *) __keyloan_had[found]=v ;; esac
				__keyloan_was[found]=${!name}
			fi
			__keyloan_name[found]=$name
		fi
		__keyloan_of[found]=$mark
		# As an argument it would stand in $_, where a trap sees it. Only the name, checked above, is evaluated.
		builtin eval "$name=\${values[i]}"
		builtin export "${name?}"
	done
	kind=''
	builtin unset -v values
	__keyloan_drop_empty
	__keyloan_announce_vars
	__keyloan_sort "${shown[@]}"
	builtin printf 'set: %s\n' "${__keyloan_sorted[*]}"
	shown=()
	for name in "${__keyloan_name[@]}"; do
		case " ${__keyloan_sorted[*]} " in *" $name "*) ;; *) shown[${#shown[@]}]=$name ;; esac
	done
	if [[ ${#shown[@]} != 0 ]]; then
		__keyloan_sort "${shown[@]}"
		builtin printf 'still set: %s\n' "${__keyloan_sorted[*]}"
	fi
}

__keyloan_return() {
	local IFS=' ' name found removed missing=''
	removed=()
	if [[ $# == 0 ]]; then
		if [[ ${#__keyloan_name[@]} == 0 ]]; then
			builtin printf 'nothing set\n'
			return 0
		fi
		set -- "${__keyloan_name[@]}"
	fi
	for name; do
		found=-1
		__keyloan_find "$name"
		if [[ $found == -1 ]]; then
			missing="$missing $name"
			continue
		fi
		__keyloan_restore "$found"
		removed[${#removed[@]}]=$name
	done
	__keyloan_drop_empty
	__keyloan_announce_vars
	if [[ ${#removed[@]} != 0 ]]; then
		__keyloan_sort "${removed[@]}"
		builtin printf 'removed: %s\n' "${__keyloan_sorted[*]}"
	fi
	if [[ -n $missing ]]; then
		builtin printf 'not set by opvars:%s\n' "$missing" >&2
		return 1
	fi
}

# Sets 'found', the caller's.
__keyloan_find() {
	local i
	for ((i = 0; i < ${#__keyloan_name[@]}; i++)); do
		if [[ ${__keyloan_name[i]} == "$1" ]]; then
			found=$i
			return 0
		fi
	done
	return 0
}

# Gives a variable what it had (an exported one still is), and closes the gap it leaves.
__keyloan_restore() {
	local i=$1 last=$((${#__keyloan_name[@]} - 1)) name=${__keyloan_name[$1]}
	case ${__keyloan_had[i]} in
	x) builtin eval "$name=\${__keyloan_was[i]}" ;;
	v)
		builtin export -n "${name?}"
		builtin eval "$name=\${__keyloan_was[i]}"
		;;
	*) builtin unset -v "$name" ;;
	esac
	__keyloan_name[i]=${__keyloan_name[last]} __keyloan_of[i]=${__keyloan_of[last]}
	__keyloan_had[i]=${__keyloan_had[last]} __keyloan_was[i]=${__keyloan_was[last]}
	builtin unset -v "__keyloan_name[$last]" "__keyloan_of[$last]" "__keyloan_had[$last]" "__keyloan_was[$last]"
}

__keyloan_join() {
	__keyloan_mark[__keyloan_loans]=$1 __keyloan_live[__keyloan_loans]=$2
	__keyloan_loan[__keyloan_loans]=$3 __keyloan_until[__keyloan_loans]=$4
	__keyloan_loans=$((__keyloan_loans + 1))
	case ":${KEYLOAN_LOAN-}:" in
	*":$3:"*) ;;
	*) builtin export KEYLOAN_LOAN="${KEYLOAN_LOAN-}${KEYLOAN_LOAN:+:}$3" ;;
	esac
}

__keyloan_part() {
	local i=$1 last=$((__keyloan_loans - 1)) loans=":${KEYLOAN_LOAN-}:"
	loans=${loans/":${__keyloan_loan[i]}:"/:}
	loans=${loans#:}
	loans=${loans%:}
	if [[ -n $loans ]]; then
		builtin export KEYLOAN_LOAN="$loans"
	else
		builtin unset -v KEYLOAN_LOAN
	fi
	__keyloan_back "${__keyloan_mark[i]}"
	__keyloan_mark[i]=${__keyloan_mark[last]} __keyloan_live[i]=${__keyloan_live[last]}
	__keyloan_loan[i]=${__keyloan_loan[last]} __keyloan_until[i]=${__keyloan_until[last]}
	builtin unset -v "__keyloan_mark[$last]" "__keyloan_live[$last]" "__keyloan_loan[$last]" "__keyloan_until[$last]"
	__keyloan_loans=$last
}

# Says that nothing is left of a loan: only in the very process it was to, or a subshell would end it for all.
__keyloan_back() {
	case ${1##*/} in
	"$$"-*) [[ $BASH_SUBSHELL != 0 ]] || { builtin : >|"$1.back"; } 2>/dev/null || builtin : ;;
	esac
}

# Parts with the loans of which no variable is left.
__keyloan_drop_empty() {
	local i=0 of left
	while [[ $i -lt $__keyloan_loans ]]; do
		left=''
		for of in ${__keyloan_of[@]+"${__keyloan_of[@]}"}; do
			if [[ $of == "${__keyloan_mark[i]}" ]]; then
				left=1
				break
			fi
		done
		if [[ -n $left ]]; then
			i=$((i + 1))
		else
			__keyloan_part "$i"
		fi
	done
}

# The prompt's stars and the names, and for shells that follow this one the loans.
__keyloan_announce_vars() {
	local IFS=' ' i j stars='' loans='' names
	if [[ ${#__keyloan_name[@]} == 0 ]]; then
		builtin unset -v KEYLOAN_VARS KEYLOAN_PROMPT KEYLOAN_SHELL
		return 0
	fi
	for ((i = 0; i < ${#__keyloan_name[@]}; i++)); do
		stars="$stars*"
	done
	for ((i = 0; i < __keyloan_loans; i++)); do
		names=''
		for ((j = 0; j < ${#__keyloan_name[@]}; j++)); do
			if [[ ${__keyloan_of[j]} == "${__keyloan_mark[i]}" ]]; then
				names="$names ${__keyloan_name[j]}"
			fi
		done
		loans="$loans${__keyloan_mark[i]}"$'\t'"${__keyloan_live[i]}"$'\t'"${__keyloan_loan[i]}"$'\t'"${names# }"$'\n'
	done
	__keyloan_sort "${__keyloan_name[@]}"
	# shellcheck disable=SC2034 # exported, for prompts
	builtin export KEYLOAN_VARS="${__keyloan_sorted[*]}" KEYLOAN_PROMPT="$stars" KEYLOAN_SHELL="$loans"
}

# What a shell had that this one was started from, or was before it became this one.
__keyloan_inherit() {
	local IFS=' ' rest=$KEYLOAN_SHELL line mark live loan names name at
	while [[ -n $rest ]]; do
		line=${rest%%$'\n'*}
		rest=${rest#"$line"}
		rest=${rest#$'\n'}
		mark=${line%%$'\t'*}
		line=${line#*$'\t'}
		live=${line%%$'\t'*}
		line=${line#*$'\t'}
		loan=${line%%$'\t'*}
		names=${line#*$'\t'}
		case $names in '' | *[!A-Za-z0-9_\ ]*) continue ;; esac
		__keyloan_join "$mark" "$live" "$loan" ''
		while [[ -n $names ]]; do
			name=${names%% *}
			names=${names#"$name"}
			names=${names# }
			at=${#__keyloan_name[@]}
			__keyloan_name[at]=$name __keyloan_of[at]=$mark __keyloan_had[at]='' __keyloan_was[at]=''
		done
	done
	__keyloan_announce_vars
}

__keyloan_sort() {
	local i name
	__keyloan_sorted=()
	for name; do
		for ((i = ${#__keyloan_sorted[@]}; i > 0; i--)); do
			[[ ${__keyloan_sorted[i - 1]} > $name ]] || break
			__keyloan_sorted[i]=${__keyloan_sorted[i - 1]}
		done
		__keyloan_sorted[i]=$name
	done
}

# Whether the shell left the directory that a loan is for. Where a link leads into it, that is looked at once.
__keyloan_left() {
	local directory=${1%/} physical
	case $PWD/ in "$directory"/*) return 1 ;; esac
	[[ $PWD == "$__keyloan_inside" ]] && return 1
	physical=$(builtin pwd -P 2>/dev/null)
	case $physical/ in
	"$directory"/*)
		__keyloan_inside=$PWD
		return 1
		;;
	esac
}

# Takes out what loans have ended lent.
__keyloan_check() {
	local i=0
	while [[ $i -lt $__keyloan_loans ]]; do
		if [[ ! -e ${__keyloan_mark[i]} || ! -e ${__keyloan_live[i]} ]]; then
			__keyloan_over "$i" ''
		elif [[ -n ${__keyloan_until[i]} ]] && __keyloan_left "${__keyloan_until[i]}"; then
			__keyloan_over "$i" "this shell left ${__keyloan_until[i]}"
		else
			i=$((i + 1))
		fi
	done
}

__keyloan_over() {
	local IFS=' ' i why=$2 removed mark=${__keyloan_mark[$1]}
	__keyloan_untrace
	removed=()
	i=0
	while [[ $i -lt ${#__keyloan_name[@]} ]]; do
		if [[ ${__keyloan_of[i]} == "$mark" ]]; then
			removed[${#removed[@]}]=${__keyloan_name[i]}
			__keyloan_restore "$i"
		else
			i=$((i + 1))
		fi
	done
	if [[ -z $why && -r $mark.why ]]; then
		builtin read -r why <"$mark.why" || builtin :
	fi
	__keyloan_part "$1"
	__keyloan_announce_vars
	__keyloan_sort ${removed[@]+"${removed[@]}"}
	builtin printf 'keyloan: removed: %s (%s)\n' "${__keyloan_sorted[*]}" "${why:-the daemon has ended}" >&2
}

# A title that warns, and a word about sets on entering a directory: both off unless asked for.
__keyloan_extras() {
	if [[ -n ${KEYLOAN_TITLE-} ]]; then
		if [[ -n ${KEYLOAN_VARS-} ]]; then
			builtin printf '\033]2;keyloan: %s\007' "$KEYLOAN_VARS" >&2
			__keyloan_titled=1
		elif [[ -n $__keyloan_titled ]]; then
			builtin printf '\033]2;%s\007' "${PWD##*/}" >&2
			__keyloan_titled=''
		fi
	fi
	if [[ -n ${KEYLOAN_ANNOUNCE-} && $PWD != "$__keyloan_at" ]]; then
		__keyloan_at=$PWD
		local directory=$PWD
		while [[ -n $directory && $directory != "${HOME-}" ]]; do
			if [[ -e $directory/.keyloan.toml ]]; then
				builtin printf 'keyloan: opvars is available here\n' >&2
				break
			fi
			[[ -e $directory/.git ]] && break
			directory=${directory%/*}
		done
	fi
	return 0
}

__keyloan_hook() {
	local __keyloan_status=$?
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
	case $- in *e*) return 0 ;; esac
	return "$__keyloan_status"
}

case ";${PROMPT_COMMAND-};" in
*__keyloan_hook*) ;;
*) PROMPT_COMMAND="__keyloan_hook${PROMPT_COMMAND:+;$PROMPT_COMMAND}" ;;
esac

if [[ -n ${KEYLOAN_SHELL-} && $__keyloan_loans == 0 ]]; then
	__keyloan_inherit
fi
