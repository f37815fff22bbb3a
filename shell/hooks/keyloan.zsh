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
	local __keyloan_my_out __keyloan_my_mark __keyloan_my_live __keyloan_my_loan __keyloan_my_until __keyloan_my_name __keyloan_my_kind __keyloan_my_record __keyloan_my_whole='' IFS=' '
	local -a __keyloan_my_records __keyloan_my_names __keyloan_my_values __keyloan_my_shown
	local -i __keyloan_my_i
	[[ ! -o interactive ]] || __keyloan_install
	__keyloan_check
	# Read at once, NULs and all.
	__keyloan_my_out="$(builtin exec =keyloan shell-lend "$@")"
	__keyloan_my_records=("${(@0)__keyloan_my_out}")
	__keyloan_my_out=''
	# What follows the last NUL is empty.
	if [[ ${#__keyloan_my_records} -lt 2 ]]; then
		# keyloan did not even start, or was killed.
		return 127
	elif [[ ${__keyloan_my_records[1]} != 0 ]]; then
		return ${__keyloan_my_records[1]}
	elif [[ ${#__keyloan_my_records} -eq 2 ]]; then
		# It printed its help.
		return 0
	fi
	__keyloan_my_mark=${__keyloan_my_records[2]} __keyloan_my_live=${__keyloan_my_records[3]} __keyloan_my_loan=${__keyloan_my_records[4]} __keyloan_my_until=${__keyloan_my_records[5]}
	for (( __keyloan_my_i = 6; __keyloan_my_i < ${#__keyloan_my_records}; __keyloan_my_i += 2 )); do
		if [[ ${__keyloan_my_records[__keyloan_my_i]} == '=' ]]; then
			__keyloan_my_whole=1
			break
		fi
		__keyloan_my_names+=("${__keyloan_my_records[__keyloan_my_i]}") __keyloan_my_values+=("${__keyloan_my_records[__keyloan_my_i+1]}")
	done
	__keyloan_my_records=()
	if [[ -z $__keyloan_my_whole ]]; then
		__keyloan_back "$__keyloan_my_mark"
		builtin print -ru2 -- 'keyloan: cannot lend credentials to this shell: keyloan ended too early'
		return 3
	fi
	for __keyloan_my_name in "${__keyloan_my_names[@]}"; do
		__keyloan_my_kind=${(Pt)__keyloan_my_name}
		[[ $__keyloan_my_name == [A-Za-z_]* && $__keyloan_my_name != *[^A-Za-z0-9_]* ]] || __keyloan_my_kind='not a name'
		# A number's value would be evaluated; arrays, read-only and special ones are no plain text; a function's own is
		# gone with it.
		case $__keyloan_my_kind in
		'' | scalar | scalar-export) ;;
		*)
			__keyloan_back "$__keyloan_my_mark"
			builtin print -ru2 -- "keyloan: cannot set $__keyloan_my_name in this shell: it is no plain variable there ($__keyloan_my_kind)"
			builtin print -ru2 -- "hint: with-secrets does not need it; or unset $__keyloan_my_name, or open another shell"
			return 2
			;;
		esac
	done
	__keyloan_join "$__keyloan_my_mark" "$__keyloan_my_live" "$__keyloan_my_loan" "$__keyloan_my_until"
	for (( __keyloan_my_i = 1; __keyloan_my_i <= ${#__keyloan_my_names}; __keyloan_my_i++ )); do
		__keyloan_my_name=${__keyloan_my_names[__keyloan_my_i]}
		if (( ! ${+__keyloan_of[$__keyloan_my_name]} )); then
			__keyloan_had[$__keyloan_my_name]='' __keyloan_was[$__keyloan_my_name]=''
			if (( ${(P)+__keyloan_my_name} )); then
				case ${(Pt)__keyloan_my_name} in
				*export*) __keyloan_had[$__keyloan_my_name]=x ;;
				*) __keyloan_had[$__keyloan_my_name]=v ;;
				esac
				__keyloan_was[$__keyloan_my_name]=${(P)__keyloan_my_name}
			fi
		fi
		__keyloan_of[$__keyloan_my_name]=$__keyloan_my_mark
		# As an argument it would stand in $_, where a trap sees it. Only the name, checked above, is evaluated.
		builtin typeset -gx -- "$__keyloan_my_name"
		builtin eval "$__keyloan_my_name=\${__keyloan_my_values[__keyloan_my_i]}"
	done
	__keyloan_my_values=()
	# Without this the daemon ends the loan: something ended this function on its way.
	{ builtin : >|"$__keyloan_my_mark.has" } 2>/dev/null
	__keyloan_drop_empty
	__keyloan_announce_vars
	__keyloan_my_shown=(${(ok)__keyloan_of})
	__keyloan_my_shown=(${__keyloan_my_shown:|__keyloan_my_names})
	__keyloan_my_names=(${(o)__keyloan_my_names})
	builtin print -r -- "set: $__keyloan_my_names"
	(( ${#__keyloan_my_shown} )) && builtin print -r -- "still set: $__keyloan_my_shown"
	# The last argument of the last command stands in $_.
	builtin : opvars
	return 0
}

function unopvars {
	builtin emulate -L zsh
	builtin setopt no_xtrace no_verbose no_err_exit no_err_return unset no_all_export no_warn_create_global
	local __keyloan_my_name __keyloan_my_kept='' IFS=' '
	local -a __keyloan_my_wanted __keyloan_my_removed __keyloan_my_missing
	__keyloan_my_wanted=("$@")
	if (( ! $# )); then
		__keyloan_my_wanted=(${(k)__keyloan_of})
		if (( ! ${#__keyloan_my_wanted} )); then
			builtin print -r -- 'nothing set'
			return 0
		fi
	fi
	for __keyloan_my_name in "${__keyloan_my_wanted[@]}"; do
		if (( ${+__keyloan_of[$__keyloan_my_name]} )); then
			if __keyloan_restore "$__keyloan_my_name"; then
				__keyloan_my_removed+=("$__keyloan_my_name")
			else
				__keyloan_my_kept=1
			fi
		else
			__keyloan_my_missing+=("$__keyloan_my_name")
		fi
	done
	__keyloan_drop_empty
	__keyloan_announce_vars
	__keyloan_my_removed=(${(o)__keyloan_my_removed})
	(( ${#__keyloan_my_removed} )) && builtin print -r -- "removed: $__keyloan_my_removed"
	builtin : unopvars
	if (( ${#__keyloan_my_missing} )); then
		builtin print -ru2 -- "not set by opvars: $__keyloan_my_missing"
		return 1
	fi
	[[ -z $__keyloan_my_kept ]]
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
	local -a __keyloan_my_loans
	__keyloan_my_loans=("${(@s.:.)KEYLOAN_LOAN}")
	__keyloan_my_loans=("${(@)__keyloan_my_loans:#${__keyloan_loan[$1]}}")
	if [[ -n ${(j.:.)__keyloan_my_loans} ]]; then
		builtin typeset -gx KEYLOAN_LOAN="${(j.:.)__keyloan_my_loans}"
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
	local __keyloan_my_mark
	for __keyloan_my_mark in "${(@k)__keyloan_live}"; do
		[[ -n ${(M)__keyloan_of:#$__keyloan_my_mark} ]] || __keyloan_part "$__keyloan_my_mark"
	done
	return 0
}

# The prompt's stars and the names, and for shells that follow this one the loans.
__keyloan_announce_vars() {
	builtin emulate -L zsh
	builtin setopt no_xtrace
	local __keyloan_my_mark __keyloan_my_name __keyloan_my_loans='' __keyloan_my_stars='' IFS=' '
	local -a __keyloan_my_names
	if (( ! ${#__keyloan_of} )); then
		builtin unset -v KEYLOAN_VARS KEYLOAN_PROMPT KEYLOAN_SHELL
		return 0
	fi
	for __keyloan_my_mark in "${(@k)__keyloan_live}"; do
		__keyloan_my_names=()
		for __keyloan_my_name in "${(@k)__keyloan_of}"; do
			[[ ${__keyloan_of[$__keyloan_my_name]} == "$__keyloan_my_mark" ]] && __keyloan_my_names+=("$__keyloan_my_name")
		done
		__keyloan_my_loans+="$__keyloan_my_mark"$'\t'"${__keyloan_live[$__keyloan_my_mark]}"$'\t'"${__keyloan_loan[$__keyloan_my_mark]}"$'\t'"$__keyloan_my_names"
		# A line is all that there is of a loan; no directory is named like the rest of one.
		__keyloan_my_loans+=$'\t'"${__keyloan_until[$__keyloan_my_mark]//$'\n'//?}"$'\n'
	done
	for __keyloan_my_name in "${(@k)__keyloan_of}"; do
		__keyloan_my_stars+='*'
	done
	__keyloan_my_names=(${(ok)__keyloan_of})
	builtin typeset -gx KEYLOAN_VARS="$__keyloan_my_names" KEYLOAN_PROMPT="$__keyloan_my_stars" KEYLOAN_SHELL="$__keyloan_my_loans"
}

# What a shell had that this one was started from, or was before it became this one.
__keyloan_inherit() {
	builtin emulate -L zsh
	builtin setopt no_xtrace
	local __keyloan_my_line __keyloan_my_name
	local -a __keyloan_my_parts
	for __keyloan_my_line in "${(@f)KEYLOAN_SHELL}"; do
		__keyloan_my_parts=("${(@ps.\t.)__keyloan_my_line}")
		[[ ${#__keyloan_my_parts} -ge 4 && -n ${__keyloan_my_parts[4]} && ${__keyloan_my_parts[4]} != *[^A-Za-z0-9_\ ]* ]] || continue
		__keyloan_join "${__keyloan_my_parts[1]}" "${__keyloan_my_parts[2]}" "${__keyloan_my_parts[3]}" "${(pj.\t.)__keyloan_my_parts[5,-1]}"
		for __keyloan_my_name in ${(s. .)__keyloan_my_parts[4]}; do
			__keyloan_of[$__keyloan_my_name]=${__keyloan_my_parts[1]} __keyloan_had[$__keyloan_my_name]='' __keyloan_was[$__keyloan_my_name]=''
		done
	done
	__keyloan_announce_vars
}

# Takes out what loans lent that have ended. A directory in which none of them had ended is not looked at again.
__keyloan_check() {
	builtin emulate -L zsh
	builtin setopt no_xtrace no_err_exit no_err_return
	local __keyloan_my_mark __keyloan_my_until
	for __keyloan_my_mark in "${(@k)__keyloan_live}"; do
		__keyloan_my_until=${__keyloan_until[$__keyloan_my_mark]}
		if [[ ! -e $__keyloan_my_mark || ! -e ${__keyloan_live[$__keyloan_my_mark]} ]]; then
			__keyloan_over "$__keyloan_my_mark" ''
		elif [[ -n $__keyloan_my_until && $PWD != $__keyloan_good && $PWD/ != ${__keyloan_my_until%/}/* ]]; then
			# A link may lead into it.
			[[ ${PWD:A}/ == ${__keyloan_my_until%/}/* ]] ||
				__keyloan_over "$__keyloan_my_mark" "this shell left $__keyloan_my_until"
		fi
	done
	__keyloan_good=$PWD
	return 0
}

__keyloan_over() {
	builtin emulate -L zsh
	builtin setopt no_xtrace no_verbose no_err_exit no_err_return
	local __keyloan_my_mark=$1 __keyloan_my_why=$2 __keyloan_my_name __keyloan_my_kept='' IFS=' '
	local __keyloan_my_else
	local -a __keyloan_my_removed
	__keyloan_my_else='the loan is over'
	[[ -e ${__keyloan_live[$1]} ]] || __keyloan_my_else='the daemon has ended'
	for __keyloan_my_name in "${(@k)__keyloan_of}"; do
		if [[ ${__keyloan_of[$__keyloan_my_name]} == "$__keyloan_my_mark" ]]; then
			if __keyloan_restore "$__keyloan_my_name"; then
				__keyloan_my_removed+=("$__keyloan_my_name")
			else
				__keyloan_my_kept=1
			fi
		fi
	done
	# Anything of the user's can put a file there: a pipe would never end, and a terminal act on what it says.
	if [[ -z $__keyloan_my_why && -f $__keyloan_my_mark.why && -r $__keyloan_my_mark.why ]]; then
		builtin read -r -u 0 -k 200 __keyloan_my_why <"$__keyloan_my_mark.why"
		__keyloan_my_why=${__keyloan_my_why%%$'\n'*}
	fi
	__keyloan_my_why=${__keyloan_my_why//[^[:print:]]/?}
	__keyloan_part "$__keyloan_my_mark" "$__keyloan_my_kept"
	__keyloan_announce_vars
	(( ${#__keyloan_my_removed} )) || return 0
	__keyloan_my_removed=(${(o)__keyloan_my_removed})
	builtin print -ru2 -- "keyloan: removed: $__keyloan_my_removed (${__keyloan_my_why:-$__keyloan_my_else})"
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
		local __keyloan_my_directory=$PWD
		while [[ $__keyloan_my_directory == /* && $__keyloan_my_directory != "${HOME-}" ]]; do
			if [[ -e $__keyloan_my_directory/.keyloan.toml ]]; then
				builtin print -ru2 -- 'keyloan: opvars is available here'
				break
			fi
			[[ -e $__keyloan_my_directory/.git ]] && break
			__keyloan_my_directory=${__keyloan_my_directory%/*}
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
	typeset -ga precmd_functions
	if [[ " ${precmd_functions[*]-} " != *' __keyloan_hook '* ]]; then
		precmd_functions=(__keyloan_hook "${precmd_functions[@]}")
	fi
}

__keyloan_install

if [[ -n ${KEYLOAN_SHELL-} && -z $__keyloan_on ]]; then
	__keyloan_inherit
fi
