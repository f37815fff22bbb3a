# Completion of keyloan, with-secrets and opvars in bash. What can be completed is asked for at each Tab; names come
# from the daemon, if it runs and the vault is open.
# shellcheck shell=bash

_keyloan() {
	local IFS=$'\n' current=${COMP_WORDS[COMP_CWORD]} line candidate before=''
	COMPREPLY=()
	# Where bash breaks words at ':' or '=', it completes what follows the last of them only.
	local words
	words=("${COMP_WORDS[@]:0:COMP_CWORD}")
	case $current in ':' | '=') current='' ;; esac
	while IFS=$'\t' read -r candidate line; do
		case $candidate in
		@files) while IFS='' read -r line; do COMPREPLY[${#COMPREPLY[@]}]=$line; done < <(compgen -f -- "$current") ;;
		@directories) while IFS='' read -r line; do COMPREPLY[${#COMPREPLY[@]}]=$line; done < <(compgen -d -- "$current") ;;
		'@command '*)
			if declare -F _command_offset >/dev/null; then
				_command_offset "${candidate#@command }"
			elif [[ $COMP_CWORD == "${candidate#@command }" ]]; then
				while IFS='' read -r line; do COMPREPLY[${#COMPREPLY[@]}]=$line; done < <(compgen -c -- "$current")
			else
				while IFS='' read -r line; do COMPREPLY[${#COMPREPLY[@]}]=$line; done < <(compgen -f -- "$current")
			fi
			;;
		*)
			printf -v line %q "$candidate"
			COMPREPLY[${#COMPREPLY[@]}]=$before$line
			;;
		esac
	done < <(command keyloan complete -- "${words[@]}" "$current" 2>/dev/null)
}

_unopvars() {
	local IFS=' ' name
	COMPREPLY=()
	for name in ${KEYLOAN_VARS-}; do
		case $name in "${COMP_WORDS[COMP_CWORD]}"*) COMPREPLY[${#COMPREPLY[@]}]=$name ;; esac
	done
}

complete -F _keyloan keyloan with-secrets opvars
complete -F _unopvars unopvars deopvars
