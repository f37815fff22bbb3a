# keyloan in fish: opvars, unopvars (deopvars), and the check before each prompt that every loan still lasts.
# For config.fish:  keyloan shell fish | source
#
# What must hold: no value is ever evaluated, traced, shown to another program but by the environment, or written to a
# file; the check starts no program and waits for nothing.

# No environment hands a function on.
if not functions -q __keyloan_hook
    # One entry a variable: its name and the marker of its loan. What it had before is in __keyloan_was_NAME, and how
    # in __keyloan_had_NAME: g for global, x for exported as well; --path for a list that is exported with colons.
    set -g __keyloan_name
    set -g __keyloan_of
    # One entry a loan: its marker, what shows that the daemon lives, its name for children, the directory it ends with.
    set -g __keyloan_mark
    set -g __keyloan_live
    set -g __keyloan_loan
    set -g __keyloan_until
    set -g __keyloan_good ''
    set -g __keyloan_titled ''
    set -g __keyloan_at ''
end

# Sees the variables of the functions that call it, whose names it tells: one of them would hide what is lent.
function opvars --no-scope-shadowing --description 'Lend credentials to this shell'
    __keyloan_lend (set -ln | string join ' ') $argv
end

function __keyloan_lend --argument-names __kl_hidden
    set -e argv[1]
    # A trace shows values. Functions that this one calls see it, too.
    set -l fish_trace
    __keyloan_check
    # Each name and each value ends with a NUL and is taken as it is.
    set -l __kl_records (command keyloan shell-lend $argv | string split0)
    set -l __kl_count (builtin count $__kl_records)
    if test $__kl_count -eq 0
        # keyloan did not even start, or was killed.
        return 127
    else if test "$__kl_records[1]" != 0
        return $__kl_records[1]
    else if test $__kl_count -eq 1
        # It printed its help.
        return 0
    end
    set -l __kl_mark "$__kl_records[2]"
    # Five, two for each variable, and the end: a value may look like it.
    if test "$__kl_records[-1]" != =; or test (builtin math $__kl_count % 2) -ne 0
        __keyloan_back $__kl_mark
        builtin echo 'keyloan: cannot lend credentials to this shell: keyloan ended too early' >&2
        return 3
    end
    set -l __kl_names
    set -l __kl_values
    set -l __kl_i 6
    while test $__kl_i -lt $__kl_count
        set -a __kl_names $__kl_records[$__kl_i]
        set -a __kl_values $__kl_records[(builtin math $__kl_i + 1)]
        set __kl_i (builtin math $__kl_i + 2)
    end
    for __kl_name in $__kl_names
        if builtin contains -- $__kl_name (string split ' ' -- $__kl_hidden)
            __keyloan_back $__kl_mark
            builtin echo "keyloan: cannot set $__kl_name in this shell: a function that runs has one of its own" >&2
            return 2
        end
    end
    __keyloan_join $__kl_mark "$__kl_records[3]" "$__kl_records[4]" "$__kl_records[5]"
    set __kl_i 0
    for __kl_name in $__kl_names
        set __kl_i (builtin math $__kl_i + 1)
        set -l __kl_at (builtin contains -i -- $__kl_name $__keyloan_name)
        if test -n "$__kl_at"
            set __keyloan_of[$__kl_at] $__kl_mark
        else
            if set -qg $__kl_name
                set -g __keyloan_was_$__kl_name $$__kl_name
                set -g __keyloan_had_$__kl_name g
                if set -qgx $__kl_name
                    set -g __keyloan_had_$__kl_name x
                end
                if set -qg --path $__kl_name
                    set -ga __keyloan_had_$__kl_name --path
                end
            end
            set -ga __keyloan_name $__kl_name
            set -ga __keyloan_of $__kl_mark
        end
        set -gx --unpath $__kl_name $__kl_values[$__kl_i]
    end
    set -e __kl_values
    set -e __kl_records
    # Without this the daemon ends the loan: something ended this function on its way.
    begin
        builtin echo -n >$__kl_mark.has
    end 2>/dev/null
    __keyloan_drop_empty
    __keyloan_announce_vars
    builtin echo set: (string join ' ' -- (__keyloan_sorted $__kl_names))
    set -l __kl_still
    for __kl_name in $__keyloan_name
        builtin contains -- $__kl_name $__kl_names; or set -a __kl_still $__kl_name
    end
    if set -q __kl_still[1]
        builtin echo still set: (string join ' ' -- (__keyloan_sorted $__kl_still))
    end
    return 0
end

function unopvars --description 'Take lent credentials out of this shell'
    set -l fish_trace
    set -l __kl_wanted $argv
    if not set -q argv[1]
        set __kl_wanted $__keyloan_name
        if not set -q __kl_wanted[1]
            builtin echo nothing set
            return 0
        end
    end
    set -l __kl_removed
    set -l __kl_missing
    for __kl_name in $__kl_wanted
        if builtin contains -- $__kl_name $__keyloan_name
            __keyloan_restore $__kl_name
            set -a __kl_removed $__kl_name
        else
            set -a __kl_missing $__kl_name
        end
    end
    __keyloan_drop_empty
    __keyloan_announce_vars
    if set -q __kl_removed[1]
        builtin echo removed: (string join ' ' -- (__keyloan_sorted $__kl_removed))
    end
    if set -q __kl_missing[1]
        builtin echo not set by opvars: $__kl_missing >&2
        return 1
    end
    return 0
end

function deopvars --description 'Take lent credentials out of this shell'
    unopvars $argv
end

# fish before 3.5 cannot sort without a program.
function __keyloan_sorted
    builtin path sort -- $argv 2>/dev/null; or builtin printf '%s\n' $argv
end

# What a terminal only shows.
function __keyloan_plain
    string replace -a -r '[^\pL\pN\pP\pS\pM ]' '?' -- "$argv" | string collect
end

# Gives a variable what it had.
function __keyloan_restore --argument-names __kl_name
    set -l fish_trace
    set -eg $__kl_name
    set -l __kl_had __keyloan_had_$__kl_name
    set -l __kl_was __keyloan_was_$__kl_name
    set -l __kl_how $$__kl_had
    switch "$__kl_how[1]"
        case x
            set -gx $__kl_how[2..] $__kl_name $$__kl_was
        case g
            set -gu $__kl_how[2..] $__kl_name $$__kl_was
    end
    set -eg $__kl_had
    set -eg $__kl_was
    set -l __kl_at (builtin contains -i -- $__kl_name $__keyloan_name)
    set -e __keyloan_name[$__kl_at]
    set -e __keyloan_of[$__kl_at]
end

function __keyloan_join --argument-names __kl_mark __kl_live __kl_loan __kl_until
    set -ga __keyloan_mark $__kl_mark
    set -ga __keyloan_live $__kl_live
    set -ga __keyloan_loan $__kl_loan
    set -ga __keyloan_until "$__kl_until"
    # Whether any ends with a directory.
    if test -n "$__kl_until"
        set -g __keyloan_leaving 1
        set -g __keyloan_good ''
    end
    set -l __kl_loans (string split : -- $KEYLOAN_LOAN)
    if not builtin contains -- $__kl_loan $__kl_loans
        set -a __kl_loans $__kl_loan
    end
    set -gx --unpath KEYLOAN_LOAN (string join : -- $__kl_loans)
end

function __keyloan_part --argument-names __kl_at
    set -l __kl_loans (string match -v -- $__keyloan_loan[$__kl_at] (string split : -- $KEYLOAN_LOAN))
    if set -q __kl_loans[1]
        set -gx --unpath KEYLOAN_LOAN (string join : -- $__kl_loans)
    else
        set -eg KEYLOAN_LOAN
    end
    __keyloan_back $__keyloan_mark[$__kl_at]
    set -e __keyloan_mark[$__kl_at]
    set -e __keyloan_live[$__kl_at]
    set -e __keyloan_loan[$__kl_at]
    set -e __keyloan_until[$__kl_at]
    if not string match -q '*?*' -- $__keyloan_until
        set -eg __keyloan_leaving
    end
end

# Says that nothing is left of a loan: only in the very process it was to, or a child would end it for all.
function __keyloan_back --argument-names __kl_mark
    # The marker's name may be the environment's word: nothing that is there is written to.
    if test -e $__kl_mark.back; or test -L $__kl_mark.back
        return 0
    end
    if string match -q -- "$fish_pid-*" (string split -r -m1 / -- $__kl_mark)[-1]
        builtin echo -n >$__kl_mark.back
    end 2>/dev/null
end

# Parts with the loans of which no variable is left.
function __keyloan_drop_empty
    set -l __kl_at 1
    while set -q __keyloan_mark[$__kl_at]
        if builtin contains -- $__keyloan_mark[$__kl_at] $__keyloan_of
            set __kl_at (builtin math $__kl_at + 1)
        else
            __keyloan_part $__kl_at
        end
    end
end

function __keyloan_names_of --argument-names __kl_mark
    set -l __kl_i 1
    while set -q __keyloan_name[$__kl_i]
        test "$__keyloan_of[$__kl_i]" = $__kl_mark; and builtin echo $__keyloan_name[$__kl_i]
        set __kl_i (builtin math $__kl_i + 1)
    end
    return 0
end

# The prompt's stars and the names, and for shells that follow this one the loans.
function __keyloan_announce_vars
    if not set -q __keyloan_name[1]
        set -eg KEYLOAN_VARS
        set -eg KEYLOAN_PROMPT
        set -eg KEYLOAN_SHELL
        return 0
    end
    set -l __kl_loans ''
    set -l __kl_at 1
    while set -q __keyloan_mark[$__kl_at]
        set -l __kl_names (__keyloan_names_of $__keyloan_mark[$__kl_at])
        # A line is all that there is of a loan; no directory is named like the rest of one.
        set -l __kl_until (string replace -a \n '/?' -- "$__keyloan_until[$__kl_at]" | string collect)
        set __kl_loans $__kl_loans$__keyloan_mark[$__kl_at]\t$__keyloan_live[$__kl_at]\t$__keyloan_loan[$__kl_at]\t(string join ' ' -- $__kl_names)\t"$__kl_until"\n
        set __kl_at (builtin math $__kl_at + 1)
    end
    set -gx KEYLOAN_VARS (string join ' ' -- (__keyloan_sorted $__keyloan_name))
    set -gx KEYLOAN_PROMPT (string repeat -n (builtin count $__keyloan_name) '*')
    set -gx KEYLOAN_SHELL $__kl_loans
end

# What a shell had that this one was started from, or was before it became this one.
function __keyloan_inherit
    for __kl_line in (string split \n -- $KEYLOAN_SHELL)
        set -l __kl_parts (string split -m4 \t -- $__kl_line)
        if test (builtin count $__kl_parts) -lt 4; or not string match -qr '^[A-Za-z0-9_ ]+$' -- $__kl_parts[4]
            continue
        end
        __keyloan_join $__kl_parts[1] $__kl_parts[2] $__kl_parts[3] "$__kl_parts[5]"
        for __kl_name in (string split ' ' -- $__kl_parts[4])
            # Of these nobody was lent one: a made-up loan would take them away.
            builtin contains -- $__kl_name _ IFS PATH HOME SHELL USER PWD TERM; and continue
            set -ga __keyloan_name $__kl_name
            set -ga __keyloan_of $__kl_parts[1]
        end
    end
    __keyloan_announce_vars
end

# Takes out what loans lent that have ended. A directory in which none of them had ended is not looked at again.
function __keyloan_check
    set -l __kl_at 1
    while set -q __keyloan_mark[$__kl_at]
        set -l __kl_until (string trim -r -c / -- "$__keyloan_until[$__kl_at]" | string collect)
        if not test -e $__keyloan_mark[$__kl_at]; or not test -e $__keyloan_live[$__kl_at]
            __keyloan_over $__kl_at ''
        else if test -n "$__kl_until"; and not __keyloan_within $__kl_until
            __keyloan_over $__kl_at "this shell left $__kl_until"
        else
            set __kl_at (builtin math $__kl_at + 1)
        end
    end
    set -g __keyloan_good $PWD
end

# A link may lead into the directory.
function __keyloan_within --argument-names __kl_directory
    set -l __kl_length (string length -- $__kl_directory/)
    if test (string sub -l $__kl_length -- $PWD/ | string collect) = $__kl_directory/
        return 0
    end
    set -l __kl_physical (builtin pwd -P | string collect)
    if test (string sub -l $__kl_length -- $__kl_physical/ | string collect) = $__kl_directory/
        return 0
    end
    return 1
end

function __keyloan_over --argument-names __kl_at __kl_why
    set -l fish_trace
    set -l __kl_mark $__keyloan_mark[$__kl_at]
    set -l __kl_removed (__keyloan_names_of $__kl_mark)
    for __kl_name in $__kl_removed
        __keyloan_restore $__kl_name
    end
    # Anything of the user's can put a file there: a pipe would never end, and a terminal act on what it says.
    if test -z "$__kl_why"; and test -f $__kl_mark.why; and test -r $__kl_mark.why
        read -l -n 200 __kl_text <$__kl_mark.why
        set __kl_why $__kl_text
    end
    if test -z "$__kl_why"
        set __kl_why 'the loan is over'
        # Without a daemon that it can see it looks for the marker alone.
        test -e $__keyloan_live[$__kl_at]; or test $__keyloan_live[$__kl_at] = $__kl_mark; or set __kl_why 'the daemon has ended'
    end
    __keyloan_part $__kl_at
    __keyloan_announce_vars
    builtin echo "keyloan: removed: "(string join ' ' -- (__keyloan_sorted $__kl_removed))" ("(__keyloan_plain $__kl_why)")" >&2
end

# A title that warns, and a word about sets on entering a directory: both off unless asked for.
function __keyloan_extras
    if test -n "$KEYLOAN_TITLE"
        if test -n "$KEYLOAN_VARS"
            builtin printf '\e]2;keyloan: %s\a' (__keyloan_plain $KEYLOAN_VARS) >&2
            set -g __keyloan_titled 1
        else if test -n "$__keyloan_titled"
            builtin printf '\e]2;%s\a' (__keyloan_plain (string replace -r '.*/' '' -- $PWD | string collect)) >&2
            set -g __keyloan_titled ''
        end
    end
    if test -n "$KEYLOAN_ANNOUNCE"; and test "$PWD" != "$__keyloan_at"
        set -g __keyloan_at $PWD
        set -l __kl_directory $PWD
        while string match -q '/*' -- $__kl_directory; and test "$__kl_directory" != "$HOME"
            if test -e $__kl_directory/.keyloan.toml
                builtin echo 'keyloan: opvars is available here' >&2
                break
            end
            test -e $__kl_directory/.git; and break
            set __kl_directory (string replace -r '/[^/]*$' '' -- $__kl_directory)
        end
    end
end

# Few commands, since each costs as much here as the whole check in other shells.
function __keyloan_hook --on-event fish_prompt
    for __kl_path in $__keyloan_mark $__keyloan_live
        if not test -e $__kl_path
            __keyloan_check
            break
        end
    end
    if set -q __keyloan_leaving; and test "$PWD" != "$__keyloan_good"
        __keyloan_check
    end
    if set -q KEYLOAN_TITLE; or set -q KEYLOAN_ANNOUNCE
        __keyloan_extras
    end
end

if set -q KEYLOAN_SHELL; and not set -q __keyloan_mark[1]
    __keyloan_inherit
end
