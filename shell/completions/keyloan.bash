# Completion of keyloan, with-secrets and opvars in bash. What can be completed is asked for at each Tab; names come
# from the daemon, if it runs and the vault is open.
# shellcheck shell=bash

_keyloan() {
	local IFS=$' \t\n' current='' begun='' line candidate lines words places at last=-1
	COMPREPLY=()
	lines=() words=() places=()
	# bash breaks '--option=value' at the '=' and completes what follows it; the two belong together.
	for ((at = 0; at <= COMP_CWORD; at++)); do
		current=${COMP_WORDS[at]}
		if [[ $last -gt 0 && ${words[last]} == --* && ($current == = || ${words[last]} == *= && ${COMP_WORDS[at - 1]} == =) ]]; then
			begun=${words[last]}
			[[ $current != = ]] || begun=$begun=
			words[last]=$begun${current#=}
		else
			last=$((last + 1)) begun=''
			words[last]=$current places[last]=$at
		fi
	done
	current=${words[last]}
	unset "words[$last]"
	# Where it breaks at ':', it completes what follows the last of them only.
	[[ $current != : ]] || current=''
	# All of them first: what completes another command has keyloan's pipe for its input otherwise.
	while IFS='' read -r line; do
		lines[${#lines[@]}]=$line
	done < <(command keyloan complete -- ${words[@]+"${words[@]}"} "$current" 2>/dev/null)
	for candidate in ${lines[@]+"${lines[@]}"}; do
		case $candidate in
		files) while IFS='' read -r line; do COMPREPLY[${#COMPREPLY[@]}]=$line; done < <(compgen -f -- "$current") ;;
		directories) while IFS='' read -r line; do COMPREPLY[${#COMPREPLY[@]}]=$line; done < <(compgen -d -- "$current") ;;
		'command '*)
			at=${candidate#command }
			at=${places[at]-$COMP_CWORD}
			if declare -F _command_offset >/dev/null; then
				_command_offset "$at"
			elif [[ $COMP_CWORD == "$at" ]]; then
				while IFS='' read -r line; do COMPREPLY[${#COMPREPLY[@]}]=$line; done < <(compgen -c -- "$current")
			else
				while IFS='' read -r line; do COMPREPLY[${#COMPREPLY[@]}]=$line; done < <(compgen -f -- "$current")
			fi
			;;
		=*)
			candidate=${candidate#=}
			candidate=${candidate%%$'\t'*}
			printf -v line %q "${candidate#"$begun"}"
			COMPREPLY[${#COMPREPLY[@]}]=$line
			;;
		esac
	done
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
