# keyloan in zsh: opvars, unopvars (deopvars), and the check before each prompt that every loan still lasts.
# For the start-up file:  eval "$(keyloan shell zsh)"
#
# What must hold: no value is ever evaluated, traced, shown to another program but by the environment, or written to a
# file; the check starts no program and waits for nothing; no option of the shell is changed, and none breaks it.

# An alias of that name would win over the function.
builtin unalias opvars unopvars deopvars 2>/dev/null

if [[ ${(t)__keyloan_of-} != association* ]]; then
	# By variable: the marker of its loan, whether it had a value before ('', v, or x for an exported one), that value.
	typeset -gA __keyloan_of __keyloan_had __keyloan_was
	# By marker: what shows that the daemon lives, the loan's name for children, the directory it ends with.
	typeset -gA __keyloan_live __keyloan_loan __keyloan_until
	# 1 while there is a loan.
	typeset -g __keyloan_on='' __keyloan_good='' __keyloan_titled='' __keyloan_at=''
fi

# Each function sets the options it needs for itself alone. Traces show values, so they end in the first line; that of
# a function that is traced by itself (typeset -ft) does, too.
function opvars {
	builtin emulate -L zsh
	builtin setopt no_xtrace no_verbose no_err_exit no_err_return unset no_all_export no_warn_create_global
	local __kl_out __kl_mark __kl_live __kl_loan __kl_until __kl_name __kl_kind __kl_record __kl_whole='' IFS=' '
	local -a __kl_records __kl_names __kl_values __kl_shown
	local -i __kl_i
	[[ ! -o interactive ]] || __keyloan_install || return 2
	__keyloan_check
	# Read at once, NULs and all.
	__kl_out="$(builtin exec =keyloan shell-lend "$@")"
	__kl_records=("${(@0)__kl_out}")
	__kl_out=''
	# What follows the last NUL is empty.
	if [[ ${#__kl_records} -lt 2 ]]; then
		# keyloan did not even start, or was killed.
		return 127
	elif [[ ${__kl_records[1]} != 0 ]]; then
		return ${__kl_records[1]}
	elif [[ ${#__kl_records} -eq 2 ]]; then
		# It printed its help.
		return 0
	fi
	__kl_mark=${__kl_records[2]} __kl_live=${__kl_records[3]} __kl_loan=${__kl_records[4]} __kl_until=${__kl_records[5]}
	for (( __kl_i = 6; __kl_i < ${#__kl_records}; __kl_i += 2 )); do
		if [[ ${__kl_records[__kl_i]} == '=' ]]; then
			__kl_whole=1
			break
		fi
		__kl_names+=("${__kl_records[__kl_i]}") __kl_values+=("${__kl_records[__kl_i+1]}")
	done
	__kl_records=()
	if [[ -z $__kl_whole ]]; then
		__keyloan_back "$__kl_mark"
		builtin print -ru2 -- 'keyloan: cannot lend credentials to this shell: keyloan ended too early'
		return 3
	fi
	for __kl_name in "${__kl_names[@]}"; do
		__kl_kind=${(Pt)__kl_name}
		[[ $__kl_name == [A-Za-z_]* && $__kl_name != *[^A-Za-z0-9_]* ]] || __kl_kind='not a name'
		# A number's value would be evaluated; arrays, read-only and special ones are no plain text; a function's own is
		# gone with it.
		case $__kl_kind in
		'' | scalar | scalar-export) ;;
		*)
			__keyloan_back "$__kl_mark"
			builtin print -ru2 -- "keyloan: cannot set $__kl_name in this shell: it is no plain variable there ($__kl_kind)"
			builtin print -ru2 -- "hint: with-secrets does not need it; or unset $__kl_name, or open another shell"
			return 2
			;;
		esac
	done
	__keyloan_join "$__kl_mark" "$__kl_live" "$__kl_loan" "$__kl_until"
	for (( __kl_i = 1; __kl_i <= ${#__kl_names}; __kl_i++ )); do
		__kl_name=${__kl_names[__kl_i]}
		if (( ! ${+__keyloan_of[$__kl_name]} )); then
			__keyloan_had[$__kl_name]='' __keyloan_was[$__kl_name]=''
			if (( ${(P)+__kl_name} )); then
				case ${(Pt)__kl_name} in
				*export*) __keyloan_had[$__kl_name]=x ;;
				*) __keyloan_had[$__kl_name]=v ;;
				esac
				__keyloan_was[$__kl_name]=${(P)__kl_name}
			fi
		fi
		__keyloan_of[$__kl_name]=$__kl_mark
		# As an argument it would stand in $_, where a trap sees it. Only the name, checked above, is evaluated.
		builtin typeset -gx -- "$__kl_name"
		builtin eval "$__kl_name=\${__kl_values[__kl_i]}"
	done
	__kl_values=()
	# Without this the daemon ends the loan: something ended this function on its way.
	{ builtin : >|"$__kl_mark.has" } 2>/dev/null
	__keyloan_drop_empty
	__keyloan_announce_vars
	__kl_shown=(${(ok)__keyloan_of})
	__kl_shown=(${__kl_shown:|__kl_names})
	__kl_names=(${(o)__kl_names})
	builtin print -r -- "set: $__kl_names"
	(( ${#__kl_shown} )) && builtin print -r -- "still set: $__kl_shown"
	# The last argument of the last command stands in $_.
	builtin : opvars
	return 0
}

function unopvars {
	builtin emulate -L zsh
	builtin setopt no_xtrace no_verbose no_err_exit no_err_return unset no_all_export no_warn_create_global
	local __kl_name __kl_kept='' IFS=' '
	local -a __kl_wanted __kl_removed __kl_missing
	__kl_wanted=("$@")
	if (( ! $# )); then
		__kl_wanted=(${(k)__keyloan_of})
		if (( ! ${#__kl_wanted} )); then
			builtin print -r -- 'nothing set'
			return 0
		fi
	fi
	for __kl_name in "${__kl_wanted[@]}"; do
		if (( ${+__keyloan_of[$__kl_name]} )); then
			if __keyloan_restore "$__kl_name"; then
				__kl_removed+=("$__kl_name")
			else
				__kl_kept=1
			fi
		else
			__kl_missing+=("$__kl_name")
		fi
	done
	__keyloan_drop_empty
	__keyloan_announce_vars
	__kl_removed=(${(o)__kl_removed})
	(( ${#__kl_removed} )) && builtin print -r -- "removed: $__kl_removed"
	builtin : unopvars
	if (( ${#__kl_missing} )); then
		builtin print -ru2 -- "not set by opvars: $__kl_missing"
		return 1
	fi
	[[ -z $__kl_kept ]]
}

function deopvars {
	# Quoted, or an alias of before is what is read here.
	'unopvars' "$@"
}

# Gives a variable what it had; an exported one still is. One that cannot be touched keeps what it was lent, and its
# entry: zsh would end the whole line.
__keyloan_restore() {
	builtin emulate -L zsh
	builtin setopt no_xtrace no_verbose no_all_export
	case ${(Pt)1} in
	*readonly*)
		builtin print -ru2 -- "keyloan: cannot remove $1: it is read-only"
		return 1
		;;
	*local*)
		builtin print -ru2 -- "keyloan: cannot remove $1: a function that runs has one of its own"
		return 1
		;;
	esac
	case ${__keyloan_had[$1]} in
	'x')
		builtin typeset -gx -- "$1"
		builtin eval "$1=\${__keyloan_was[$1]}"
		;;
	'v')
		builtin typeset -g +x -- "$1"
		builtin eval "$1=\${__keyloan_was[$1]}"
		;;
	*) builtin unset -v -- "$1" ;;
	esac
	builtin unset "__keyloan_of[$1]" "__keyloan_had[$1]" "__keyloan_was[$1]"
	builtin : restored
}

__keyloan_join() {
	builtin emulate -L zsh
	builtin setopt no_xtrace
	__keyloan_live[$1]=$2 __keyloan_loan[$1]=$3 __keyloan_until[$1]=$4
	__keyloan_on=1 __keyloan_good=''
	case ":${KEYLOAN_LOAN-}:" in
	*":$3:"*) ;;
	*) builtin typeset -gx KEYLOAN_LOAN="${KEYLOAN_LOAN-}${KEYLOAN_LOAN:+:}$3" ;;
	esac
}

# With a second argument something of it is left all the same.
__keyloan_part() {
	builtin emulate -L zsh
	builtin setopt no_xtrace
	local -a __kl_loans
	__kl_loans=("${(@s.:.)KEYLOAN_LOAN}")
	__kl_loans=("${(@)__kl_loans:#${__keyloan_loan[$1]}}")
	if [[ -n ${(j.:.)__kl_loans} ]]; then
		builtin typeset -gx KEYLOAN_LOAN="${(j.:.)__kl_loans}"
	else
		builtin unset -v KEYLOAN_LOAN
	fi
	[[ -n ${2-} ]] || __keyloan_back "$1"
	builtin unset "__keyloan_live[$1]" "__keyloan_loan[$1]" "__keyloan_until[$1]"
	(( ${#__keyloan_live} )) || __keyloan_on=''
	return 0
}

# Says that nothing is left of a loan: only in the very process it was to, or a subshell would end it for all.
__keyloan_back() {
	builtin emulate -L zsh
	builtin setopt no_xtrace
	# The marker's name may be the environment's word: nothing that is there is written to.
	if [[ ${1:t} == $$-* && $ZSH_SUBSHELL == 0 && ! -e $1.back && ! -L $1.back ]]; then
		{ builtin : >|"$1.back" } 2>/dev/null
	fi
	return 0
}

# Parts with the loans of which no variable is left.
__keyloan_drop_empty() {
	builtin emulate -L zsh
	builtin setopt no_xtrace
	local __kl_mark
	for __kl_mark in "${(@k)__keyloan_live}"; do
		[[ -n ${(M)__keyloan_of:#$__kl_mark} ]] || __keyloan_part "$__kl_mark"
	done
	return 0
}

# The prompt's stars and the names, and for shells that follow this one the loans.
__keyloan_announce_vars() {
	builtin emulate -L zsh
	builtin setopt no_xtrace
	local __kl_mark __kl_name __kl_loans='' __kl_stars='' IFS=' '
	local -a __kl_names
	if (( ! ${#__keyloan_of} )); then
		builtin unset -v KEYLOAN_VARS KEYLOAN_PROMPT KEYLOAN_SHELL
		return 0
	fi
	for __kl_mark in "${(@k)__keyloan_live}"; do
		__kl_names=()
		for __kl_name in "${(@k)__keyloan_of}"; do
			[[ ${__keyloan_of[$__kl_name]} == "$__kl_mark" ]] && __kl_names+=("$__kl_name")
		done
		__kl_loans+="$__kl_mark"$'\t'"${__keyloan_live[$__kl_mark]}"$'\t'"${__keyloan_loan[$__kl_mark]}"$'\t'"$__kl_names"
		# A line is all that there is of a loan; no directory is named like the rest of one.
		__kl_loans+=$'\t'"${__keyloan_until[$__kl_mark]//$'\n'//?}"$'\n'
	done
	for __kl_name in "${(@k)__keyloan_of}"; do
		__kl_stars+='*'
	done
	__kl_names=(${(ok)__keyloan_of})
	builtin typeset -gx KEYLOAN_VARS="$__kl_names" KEYLOAN_PROMPT="$__kl_stars" KEYLOAN_SHELL="$__kl_loans"
}

# What a shell had that this one was started from, or was before it became this one.
__keyloan_inherit() {
	builtin emulate -L zsh
	builtin setopt no_xtrace
	local __kl_line __kl_name
	local -a __kl_parts
	for __kl_line in "${(@f)KEYLOAN_SHELL}"; do
		__kl_parts=("${(@ps.\t.)__kl_line}")
		[[ ${#__kl_parts} -ge 4 && -n ${__kl_parts[4]} && ${__kl_parts[4]} != *[^A-Za-z0-9_\ ]* ]] || continue
		__keyloan_join "${__kl_parts[1]}" "${__kl_parts[2]}" "${__kl_parts[3]}" "${(pj.\t.)__kl_parts[5,-1]}"
		for __kl_name in ${(s. .)__kl_parts[4]}; do
			# Of these nobody was lent one: a made-up loan would take them away.
			[[ $__kl_name != (_|IFS|PATH|HOME|SHELL|USER|PWD|TERM) ]] || continue
			__keyloan_of[$__kl_name]=${__kl_parts[1]} __keyloan_had[$__kl_name]='' __keyloan_was[$__kl_name]=''
		done
	done
	__keyloan_announce_vars
}

# Takes out what loans lent that have ended. A directory in which none of them had ended is not looked at again.
__keyloan_check() {
	builtin emulate -L zsh
	builtin setopt no_xtrace no_err_exit no_err_return
	local __kl_mark __kl_until
	for __kl_mark in "${(@k)__keyloan_live}"; do
		__kl_until=${__keyloan_until[$__kl_mark]}
		if [[ ! -e $__kl_mark || ! -e ${__keyloan_live[$__kl_mark]} ]]; then
			__keyloan_over "$__kl_mark" ''
		elif [[ -n $__kl_until && $PWD != $__keyloan_good && $PWD/ != ${__kl_until%/}/* ]]; then
			# A link may lead into it.
			[[ ${PWD:A}/ == ${__kl_until%/}/* ]] ||
				__keyloan_over "$__kl_mark" "this shell left $__kl_until"
		fi
	done
	__keyloan_good=$PWD
	return 0
}

__keyloan_over() {
	builtin emulate -L zsh
	builtin setopt no_xtrace no_verbose no_err_exit no_err_return
	local __kl_mark=$1 __kl_why=$2 __kl_name __kl_kept='' IFS=' '
	local __kl_else
	local -a __kl_removed
	__kl_else='the loan is over'
	# Without a daemon that it can see it looks for the marker alone.
	[[ -e ${__keyloan_live[$1]} || ${__keyloan_live[$1]} == "$1" ]] || __kl_else='the daemon has ended'
	for __kl_name in "${(@k)__keyloan_of}"; do
		if [[ ${__keyloan_of[$__kl_name]} == "$__kl_mark" ]]; then
			if __keyloan_restore "$__kl_name"; then
				__kl_removed+=("$__kl_name")
			else
				__kl_kept=1
			fi
		fi
	done
	# Anything of the user's can put a file there: a pipe would never end, and a terminal act on what it says.
	if [[ -z $__kl_why && -f $__kl_mark.why && -r $__kl_mark.why ]]; then
		builtin read -r -u 0 -k 200 __kl_why <"$__kl_mark.why"
		__kl_why=${__kl_why%%$'\n'*}
	fi
	__kl_why=${__kl_why//[^[:print:]]/?}
	__keyloan_part "$__kl_mark" "$__kl_kept"
	__keyloan_announce_vars
	(( ${#__kl_removed} )) || return 0
	__kl_removed=(${(o)__kl_removed})
	builtin print -ru2 -- "keyloan: removed: $__kl_removed (${__kl_why:-$__kl_else})"
}

# A title that warns, and a word about sets on entering a directory: both off unless asked for.
__keyloan_extras() {
	builtin emulate -L zsh
	builtin setopt no_xtrace no_err_exit no_err_return
	if [[ -n ${KEYLOAN_TITLE-} ]]; then
		if [[ -n ${KEYLOAN_VARS-} ]]; then
			builtin print -rnu2 -- $'\e]2;keyloan: '"${KEYLOAN_VARS//[^[:print:]]/?}"$'\a'
			__keyloan_titled=1
		elif [[ -n $__keyloan_titled ]]; then
			builtin print -rnu2 -- $'\e]2;'"${${PWD:t}//[^[:print:]]/?}"$'\a'
			__keyloan_titled=''
		fi
	fi
	if [[ -n ${KEYLOAN_ANNOUNCE-} && $PWD != "$__keyloan_at" ]]; then
		__keyloan_at=$PWD
		local __kl_directory=$PWD
		while [[ $__kl_directory == /* && $__kl_directory != "${HOME-}" ]]; do
			if [[ -e $__kl_directory/.keyloan.toml ]]; then
				builtin print -ru2 -- 'keyloan: opvars is available here'
				break
			fi
			[[ -e $__kl_directory/.git ]] && break
			__kl_directory=${__kl_directory%/*}
		done
	fi
	return 0
}

__keyloan_hook() {
	[[ -n $__keyloan_on ]] && __keyloan_check
	[[ -n ${KEYLOAN_TITLE-}${KEYLOAN_ANNOUNCE-} ]] && __keyloan_extras
	return 0
}

# Again at each loan: what comes later in a start-up file may have put something else in its place.
__keyloan_install() {
	builtin emulate -L zsh
	builtin setopt no_xtrace
	if [[ " ${precmd_functions[*]-} " == *' __keyloan_hook '* ]]; then
		return 0
	elif [[ ${(t)precmd_functions} == *readonly* ]]; then
		builtin print -ru2 -- 'keyloan: cannot take anything out of this shell by itself: its precmd_functions is read-only'
		return 2
	else
		builtin typeset -ga precmd_functions
		precmd_functions=(__keyloan_hook "${precmd_functions[@]}")
	fi
}

__keyloan_install || builtin :

if [[ -n ${KEYLOAN_SHELL-} && -z $__keyloan_on ]]; then
	__keyloan_inherit
fi
