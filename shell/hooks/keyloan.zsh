# keyloan in zsh: opvars, unopvars (deopvars), and the check before each prompt that every loan still lasts.
# For the start-up file:  eval "$(keyloan shell zsh)"
#
# What must hold: no value is ever evaluated, traced, shown to another program but by the environment, or written to a
# file; the check starts no program and waits for nothing; no option of the shell is changed, and none breaks it.

if [[ -z ${__keyloan_ready-} ]]; then
	# By variable: the marker of its loan, whether it had a value before ('', v, or x for an exported one), that value.
	typeset -gA __keyloan_of=() __keyloan_had=() __keyloan_was=()
	# By marker: what shows that the daemon lives, the loan's name for children, the directory it ends with.
	typeset -gA __keyloan_live=() __keyloan_loan=() __keyloan_until=()
	# 1 while there is a loan.
	typeset -g __keyloan_on='' __keyloan_inside='' __keyloan_titled='' __keyloan_at=''
	typeset -g __keyloan_ready=1
fi

# Each function sets the options it needs for itself alone. Traces show values, so they end in the first line; that of
# a function that is traced by itself (typeset -ft) does, too.
opvars() {
	emulate -L zsh
	setopt no_xtrace no_verbose no_err_exit no_err_return unset no_all_export no_warn_create_global
	local out mark live loan until name kind record whole='' IFS=' '
	local -a records names values shown
	local -i i
	__keyloan_check
	# Read at once, NULs and all.
	out="$(exec keyloan shell-lend "$@")"
	records=("${(@0)out}")
	out=''
	# What follows the last NUL is empty.
	if [[ ${#records} -lt 2 ]]; then
		# keyloan did not even start, or was killed.
		return 127
	elif [[ ${records[1]} != 0 ]]; then
		return ${records[1]}
	elif [[ ${#records} -eq 2 ]]; then
		# It printed its help.
		return 0
	fi
	mark=${records[2]} live=${records[3]} loan=${records[4]} until=${records[5]}
	for (( i = 6; i < ${#records}; i += 2 )); do
		if [[ ${records[i]} == '=' ]]; then
			whole=1
			break
		fi
		names+=("${records[i]}") values+=("${records[i+1]}")
	done
	records=()
	if [[ -z $whole ]]; then
		__keyloan_back "$mark"
		print -ru2 -- 'keyloan: cannot lend credentials to this shell: keyloan ended too early'
		return 3
	fi
	for name in "${names[@]}"; do
		kind=${(Pt)name}
		[[ $name == [A-Za-z_]* && $name != *[^A-Za-z0-9_]* ]] || kind='not a name'
		# A number's value would be evaluated; arrays, read-only and special ones are no plain text.
		case $kind in
		'' | scalar | scalar-export | scalar-local | scalar-local-export) ;;
		*)
			__keyloan_back "$mark"
			print -ru2 -- "keyloan: cannot set $name in this shell: it is no plain variable there ($kind)"
			print -ru2 -- "hint: with-secrets does not need it; or unset $name, or open another shell"
			return 2
			;;
		esac
	done
	__keyloan_join "$mark" "$live" "$loan" "$until"
	for (( i = 1; i <= ${#names}; i++ )); do
		name=${names[i]}
		if (( ! ${+__keyloan_of[$name]} )); then
			__keyloan_had[$name]='' __keyloan_was[$name]=''
			if (( ${(P)+name} )); then
				case ${(Pt)name} in
				*export*) __keyloan_had[$name]=x ;;
				*) __keyloan_had[$name]=v ;;
				esac
				__keyloan_was[$name]=${(P)name}
			fi
		fi
		__keyloan_of[$name]=$mark
		# As an argument it would stand in $_, where a trap sees it. Only the name, checked above, is evaluated.
		builtin typeset -gx -- "$name"
		builtin eval "$name=\${values[i]}"
	done
	values=()
	__keyloan_drop_empty
	__keyloan_announce_vars
	shown=(${(ok)__keyloan_of})
	shown=(${shown:|names})
	names=(${(o)names})
	print -r -- "set: $names"
	(( ${#shown} )) && print -r -- "still set: $shown"
	# The last argument of the last command stands in $_.
	: opvars
	return 0
}

unopvars() {
	emulate -L zsh
	setopt no_xtrace no_verbose no_err_exit no_err_return unset no_all_export no_warn_create_global
	local name IFS=' '
	local -a wanted removed missing
	wanted=("$@")
	if (( ! $# )); then
		wanted=(${(k)__keyloan_of})
		if (( ! ${#wanted} )); then
			print -r -- 'nothing set'
			return 0
		fi
	fi
	for name in "${wanted[@]}"; do
		if (( ${+__keyloan_of[$name]} )); then
			__keyloan_restore "$name"
			removed+=("$name")
		else
			missing+=("$name")
		fi
	done
	__keyloan_drop_empty
	__keyloan_announce_vars
	removed=(${(o)removed})
	(( ${#removed} )) && print -r -- "removed: $removed"
	: unopvars
	if (( ${#missing} )); then
		print -ru2 -- "not set by opvars: $missing"
		return 1
	fi
	return 0
}

deopvars() {
	unopvars "$@"
}

# Gives a variable what it had; an exported one still is.
__keyloan_restore() {
	emulate -L zsh
	setopt no_xtrace no_verbose no_all_export
	case ${__keyloan_had[$1]} in
	x) builtin eval "$1=\${__keyloan_was[$1]}" ;;
	v)
		builtin typeset -g +x -- "$1"
		builtin eval "$1=\${__keyloan_was[$1]}"
		;;
	*) builtin unset -v -- "$1" ;;
	esac
	builtin unset "__keyloan_of[$1]" "__keyloan_had[$1]" "__keyloan_was[$1]"
	: restored
}

__keyloan_join() {
	emulate -L zsh
	setopt no_xtrace
	__keyloan_live[$1]=$2 __keyloan_loan[$1]=$3 __keyloan_until[$1]=$4
	__keyloan_on=1
	case ":${KEYLOAN_LOAN-}:" in
	*":$3:"*) ;;
	*) builtin typeset -gx KEYLOAN_LOAN="${KEYLOAN_LOAN-}${KEYLOAN_LOAN:+:}$3" ;;
	esac
}

__keyloan_part() {
	emulate -L zsh
	setopt no_xtrace
	local -a loans
	loans=("${(@s.:.)KEYLOAN_LOAN}")
	loans=("${(@)loans:#${__keyloan_loan[$1]}}")
	if [[ -n ${(j.:.)loans} ]]; then
		builtin typeset -gx KEYLOAN_LOAN="${(j.:.)loans}"
	else
		builtin unset -v KEYLOAN_LOAN
	fi
	__keyloan_back "$1"
	builtin unset "__keyloan_live[$1]" "__keyloan_loan[$1]" "__keyloan_until[$1]"
	(( ${#__keyloan_live} )) || __keyloan_on=''
	return 0
}

# Says that nothing is left of a loan: only in the very process it was to, or a subshell would end it for all.
__keyloan_back() {
	emulate -L zsh
	setopt no_xtrace
	if [[ ${1:t} == $$-* && $ZSH_SUBSHELL == 0 ]]; then
		{ : >|"$1.back" } 2>/dev/null
	fi
	return 0
}

# Parts with the loans of which no variable is left.
__keyloan_drop_empty() {
	emulate -L zsh
	setopt no_xtrace
	local mark
	for mark in "${(@k)__keyloan_live}"; do
		[[ -n ${(M)__keyloan_of:#$mark} ]] || __keyloan_part "$mark"
	done
	return 0
}

# The prompt's stars and the names, and for shells that follow this one the loans.
__keyloan_announce_vars() {
	emulate -L zsh
	setopt no_xtrace
	local mark name loans='' stars='' IFS=' '
	local -a names
	if (( ! ${#__keyloan_of} )); then
		builtin unset -v KEYLOAN_VARS KEYLOAN_PROMPT KEYLOAN_SHELL
		return 0
	fi
	for mark in "${(@k)__keyloan_live}"; do
		names=()
		for name in "${(@k)__keyloan_of}"; do
			[[ ${__keyloan_of[$name]} == "$mark" ]] && names+=("$name")
		done
		loans+="$mark"$'\t'"${__keyloan_live[$mark]}"$'\t'"${__keyloan_loan[$mark]}"$'\t'"$names"$'\n'
	done
	for name in "${(@k)__keyloan_of}"; do
		stars+='*'
	done
	names=(${(ok)__keyloan_of})
	builtin typeset -gx KEYLOAN_VARS="$names" KEYLOAN_PROMPT="$stars" KEYLOAN_SHELL="$loans"
}

# What a shell had that this one was started from, or was before it became this one.
__keyloan_inherit() {
	emulate -L zsh
	setopt no_xtrace
	local line name
	local -a parts
	for line in "${(@f)KEYLOAN_SHELL}"; do
		parts=("${(@ps.\t.)line}")
		[[ ${#parts} -eq 4 && -n ${parts[4]} && ${parts[4]} != *[^A-Za-z0-9_\ ]* ]] || continue
		__keyloan_join "${parts[1]}" "${parts[2]}" "${parts[3]}" ''
		for name in ${(s. .)parts[4]}; do
			__keyloan_of[$name]=${parts[1]} __keyloan_had[$name]='' __keyloan_was[$name]=''
		done
	done
	__keyloan_announce_vars
}

# Takes out what loans that have ended lent.
__keyloan_check() {
	emulate -L zsh
	setopt no_xtrace no_err_exit no_err_return
	local mark
	for mark in "${(@k)__keyloan_live}"; do
		if [[ ! -e $mark || ! -e ${__keyloan_live[$mark]} ]]; then
			__keyloan_over "$mark" ''
		elif [[ -n ${__keyloan_until[$mark]} && $PWD/ != ${__keyloan_until[$mark]%/}/* ]]; then
			# Where a link leads into the directory, that is looked at once.
			if [[ $PWD != $__keyloan_inside ]]; then
				if [[ ${PWD:A}/ == ${__keyloan_until[$mark]%/}/* ]]; then
					__keyloan_inside=$PWD
				else
					__keyloan_over "$mark" "this shell left ${__keyloan_until[$mark]}"
				fi
			fi
		fi
	done
	return 0
}

__keyloan_over() {
	emulate -L zsh
	setopt no_xtrace no_verbose no_err_exit no_err_return
	local mark=$1 why=$2 name IFS=' '
	local -a removed
	for name in "${(@k)__keyloan_of}"; do
		if [[ ${__keyloan_of[$name]} == "$mark" ]]; then
			removed+=("$name")
			__keyloan_restore "$name"
		fi
	done
	if [[ -z $why && -r $mark.why ]]; then
		IFS='' builtin read -r why <"$mark.why"
	fi
	__keyloan_part "$mark"
	__keyloan_announce_vars
	removed=(${(o)removed})
	print -ru2 -- "keyloan: removed: $removed (${why:-the daemon has ended})"
}

# A title that warns, and a word about sets on entering a directory: both off unless asked for.
__keyloan_extras() {
	emulate -L zsh
	setopt no_xtrace no_err_exit no_err_return
	if [[ -n ${KEYLOAN_TITLE-} ]]; then
		if [[ -n ${KEYLOAN_VARS-} ]]; then
			print -rnu2 -- $'\e]2;keyloan: '"$KEYLOAN_VARS"$'\a'
			__keyloan_titled=1
		elif [[ -n $__keyloan_titled ]]; then
			print -rnu2 -- $'\e]2;'"${PWD:t}"$'\a'
			__keyloan_titled=''
		fi
	fi
	if [[ -n ${KEYLOAN_ANNOUNCE-} && $PWD != "$__keyloan_at" ]]; then
		__keyloan_at=$PWD
		local directory=$PWD
		while [[ -n $directory && $directory != "${HOME-}" ]]; do
			if [[ -e $directory/.keyloan.toml ]]; then
				print -ru2 -- 'keyloan: opvars is available here'
				break
			fi
			[[ -e $directory/.git ]] && break
			directory=${directory%/*}
		done
	fi
	return 0
}

__keyloan_hook() {
	[[ -n $__keyloan_on ]] && __keyloan_check
	[[ -n ${KEYLOAN_TITLE-}${KEYLOAN_ANNOUNCE-} ]] && __keyloan_extras
	return 0
}

typeset -ga precmd_functions
if [[ " ${precmd_functions[*]-} " != *' __keyloan_hook '* ]]; then
	precmd_functions=(__keyloan_hook "${precmd_functions[@]}")
fi

if [[ -n ${KEYLOAN_SHELL-} && -z $__keyloan_on ]]; then
	__keyloan_inherit
fi
