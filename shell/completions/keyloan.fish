# Completion of keyloan, with-secrets and opvars in fish. What can be completed is asked for at each Tab; names come
# from the daemon, if it runs and the vault is open.

function __keyloan_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    for line in (command keyloan complete -- $words $current 2>/dev/null)
        switch $line
            case files directories
                __fish_complete_path $current
            case 'command *'
                set -l at (math (string replace 'command ' '' -- $line) + 1)
                if test (count $words) -lt $at
                    complete -C "$current"
                else
                    complete -C (string join ' ' -- (string escape -- $words[$at..-1]) $current)
                end
            case '=*'
                string sub -s 2 -- $line
        end
    end
end

complete -c keyloan -f -a '(__keyloan_complete)'
complete -c with-secrets -f -a '(__keyloan_complete)'
complete -c opvars -f -a '(__keyloan_complete)'
complete -c unopvars -f -a '(string split " " -- $KEYLOAN_VARS)'
complete -c deopvars -f -a '(string split " " -- $KEYLOAN_VARS)'
