#compdef keyloan with-secrets opvars unopvars deopvars
# Completion of keyloan, with-secrets and opvars in zsh. What can be completed is asked for at each Tab; names come from
# the daemon, if it runs and the vault is open.

_keyloan() {
	local line tab=$'\t'
	local -a candidates shown
	if [[ ${words[1]:t} == (un|de)opvars ]]; then
		candidates=(${(s. .)KEYLOAN_VARS})
		compadd -a candidates
		return
	fi
	for line in "${(@f)$(command keyloan complete -- "${(@Q)words[1,CURRENT]}" 2>/dev/null)}"; do
		case $line in
		files) _files ;;
		directories) _files -/ ;;
		'command '*)
			shift ${line#command } words
			(( CURRENT -= ${line#command } ))
			_normal
			return
			;;
		'='*)
			line=${line#=}
			candidates+=("${line%%$tab*}")
			shown+=("${line/$tab/  -- }")
			;;
		esac
	done
	(( ${#candidates} )) && compadd -l -d shown -a candidates
}

# Where completion is set up only after this line, it is told before the first prompt.
__keyloan_compdef() {
	precmd_functions=("${(@)precmd_functions:#__keyloan_compdef}")
	(( ${+functions[compdef]} )) && compdef _keyloan keyloan with-secrets opvars unopvars deopvars
	return 0
}

if [[ ${funcstack[1]-} == _keyloan ]]; then
	# A file in fpath: zsh has just read it to complete.
	_keyloan "$@"
else
	typeset -ga precmd_functions
	precmd_functions+=(__keyloan_compdef)
fi
