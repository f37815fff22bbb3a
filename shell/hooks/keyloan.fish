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

function __keyloan_lend --argument-names __keyloan_my_hidden
    set -e argv[1]
    # A trace shows values. Functions that this one calls see it, too.
    set -l fish_trace
    __keyloan_check
    # Each name and each value ends with a NUL and is taken as it is.
    set -l __keyloan_my_records (command keyloan shell-lend $argv | string split0)
    set -l __keyloan_my_count (builtin count $__keyloan_my_records)
    if test $__keyloan_my_count -eq 0
        # keyloan did not even start, or was killed.
        return 127
    else if test "$__keyloan_my_records[1]" != 0
        return $__keyloan_my_records[1]
    else if test $__keyloan_my_count -eq 1
        # It printed its help.
        return 0
    end
    set -l __keyloan_my_mark "$__keyloan_my_records[2]"
    # Five, two for each variable, and the end: a value may look like it.
    if test "$__keyloan_my_records[-1]" != =; or test (builtin math $__keyloan_my_count % 2) -ne 0
        __keyloan_back $__keyloan_my_mark
        builtin echo 'keyloan: cannot lend credentials to this shell: keyloan ended too early' >&2
        return 3
    end
    set -l __keyloan_my_names
    set -l __keyloan_my_values
    set -l __keyloan_my_i 6
    while test $__keyloan_my_i -lt $__keyloan_my_count
        set -a __keyloan_my_names $__keyloan_my_records[$__keyloan_my_i]
        set -a __keyloan_my_values $__keyloan_my_records[(builtin math $__keyloan_my_i + 1)]
        set __keyloan_my_i (builtin math $__keyloan_my_i + 2)
    end
    for __keyloan_my_name in $__keyloan_my_names
        if builtin contains -- $__keyloan_my_name (string split ' ' -- $__keyloan_my_hidden)
            __keyloan_back $__keyloan_my_mark
            builtin echo "keyloan: cannot set $__keyloan_my_name in this shell: a function that runs has one of its own" >&2
            return 2
        end
    end
    __keyloan_join $__keyloan_my_mark "$__keyloan_my_records[3]" "$__keyloan_my_records[4]" "$__keyloan_my_records[5]"
    set __keyloan_my_i 0
    for __keyloan_my_name in $__keyloan_my_names
        set __keyloan_my_i (builtin math $__keyloan_my_i + 1)
        set -l __keyloan_my_at (builtin contains -i -- $__keyloan_my_name $__keyloan_name)
        if test -n "$__keyloan_my_at"
            set __keyloan_of[$__keyloan_my_at] $__keyloan_my_mark
        else
            if set -qg $__keyloan_my_name
                set -g __keyloan_was_$__keyloan_my_name $$__keyloan_my_name
                set -g __keyloan_had_$__keyloan_my_name g
                if set -qgx $__keyloan_my_name
                    set -g __keyloan_had_$__keyloan_my_name x
                end
                if set -qg --path $__keyloan_my_name
                    set -ga __keyloan_had_$__keyloan_my_name --path
                end
            end
            set -ga __keyloan_name $__keyloan_my_name
            set -ga __keyloan_of $__keyloan_my_mark
        end
        set -gx --unpath $__keyloan_my_name $__keyloan_my_values[$__keyloan_my_i]
    end
    set -e __keyloan_my_values
    set -e __keyloan_my_records
    # Without this the daemon ends the loan: something ended this function on its way.
    begin
        builtin echo -n >$__keyloan_my_mark.has
    end 2>/dev/null
    __keyloan_drop_empty
    __keyloan_announce_vars
    builtin echo set: (string join ' ' -- (__keyloan_sorted $__keyloan_my_names))
    set -l __keyloan_my_still
    for __keyloan_my_name in $__keyloan_name
        builtin contains -- $__keyloan_my_name $__keyloan_my_names; or set -a __keyloan_my_still $__keyloan_my_name
    end
    if set -q __keyloan_my_still[1]
        builtin echo still set: (string join ' ' -- (__keyloan_sorted $__keyloan_my_still))
    end
    return 0
end

function unopvars --description 'Take lent credentials out of this shell'
    set -l fish_trace
    set -l __keyloan_my_wanted $argv
    if not set -q argv[1]
        set __keyloan_my_wanted $__keyloan_name
        if not set -q __keyloan_my_wanted[1]
            builtin echo nothing set
            return 0
        end
    end
    set -l __keyloan_my_removed
    set -l __keyloan_my_missing
    for __keyloan_my_name in $__keyloan_my_wanted
        if builtin contains -- $__keyloan_my_name $__keyloan_name
            __keyloan_restore $__keyloan_my_name
            set -a __keyloan_my_removed $__keyloan_my_name
        else
            set -a __keyloan_my_missing $__keyloan_my_name
        end
    end
    __keyloan_drop_empty
    __keyloan_announce_vars
    if set -q __keyloan_my_removed[1]
        builtin echo removed: (string join ' ' -- (__keyloan_sorted $__keyloan_my_removed))
    end
    if set -q __keyloan_my_missing[1]
        builtin echo not set by opvars: $__keyloan_my_missing >&2
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
function __keyloan_restore --argument-names __keyloan_my_name
    set -l fish_trace
    set -eg $__keyloan_my_name
    set -l __keyloan_my_had __keyloan_had_$__keyloan_my_name
    set -l __keyloan_my_was __keyloan_was_$__keyloan_my_name
    set -l __keyloan_my_how $$__keyloan_my_had
    switch "$__keyloan_my_how[1]"
        case x
            set -gx $__keyloan_my_how[2..] $__keyloan_my_name $$__keyloan_my_was
        case g
            set -gu $__keyloan_my_how[2..] $__keyloan_my_name $$__keyloan_my_was
    end
    set -eg $__keyloan_my_had
    set -eg $__keyloan_my_was
    set -l __keyloan_my_at (builtin contains -i -- $__keyloan_my_name $__keyloan_name)
    set -e __keyloan_name[$__keyloan_my_at]
    set -e __keyloan_of[$__keyloan_my_at]
end

function __keyloan_join --argument-names __keyloan_my_mark __keyloan_my_live __keyloan_my_loan __keyloan_my_until
    set -ga __keyloan_mark $__keyloan_my_mark
    set -ga __keyloan_live $__keyloan_my_live
    set -ga __keyloan_loan $__keyloan_my_loan
    set -ga __keyloan_until "$__keyloan_my_until"
    # Whether any ends with a directory.
    if test -n "$__keyloan_my_until"
        set -g __keyloan_leaving 1
        set -g __keyloan_good ''
    end
    set -l __keyloan_my_loans (string split : -- $KEYLOAN_LOAN)
    if not builtin contains -- $__keyloan_my_loan $__keyloan_my_loans
        set -a __keyloan_my_loans $__keyloan_my_loan
    end
    set -gx --unpath KEYLOAN_LOAN (string join : -- $__keyloan_my_loans)
end

function __keyloan_part --argument-names __keyloan_my_at
    set -l __keyloan_my_loans (string match -v -- $__keyloan_loan[$__keyloan_my_at] (string split : -- $KEYLOAN_LOAN))
    if set -q __keyloan_my_loans[1]
        set -gx --unpath KEYLOAN_LOAN (string join : -- $__keyloan_my_loans)
    else
        set -eg KEYLOAN_LOAN
    end
    __keyloan_back $__keyloan_mark[$__keyloan_my_at]
    set -e __keyloan_mark[$__keyloan_my_at]
    set -e __keyloan_live[$__keyloan_my_at]
    set -e __keyloan_loan[$__keyloan_my_at]
    set -e __keyloan_until[$__keyloan_my_at]
    if not string match -q '*?*' -- $__keyloan_until
        set -eg __keyloan_leaving
    end
end

# Says that nothing is left of a loan: only in the very process it was to, or a child would end it for all.
function __keyloan_back --argument-names __keyloan_my_mark
    # The marker's name may be the environment's word: nothing that is there is written to.
    if test -e $__keyloan_my_mark.back; or test -L $__keyloan_my_mark.back
        return 0
    end
    if string match -q -- "$fish_pid-*" (string split -r -m1 / -- $__keyloan_my_mark)[-1]
        builtin echo -n >$__keyloan_my_mark.back
    end 2>/dev/null
end

# Parts with the loans of which no variable is left.
function __keyloan_drop_empty
    set -l __keyloan_my_at 1
    while set -q __keyloan_mark[$__keyloan_my_at]
        if builtin contains -- $__keyloan_mark[$__keyloan_my_at] $__keyloan_of
            set __keyloan_my_at (builtin math $__keyloan_my_at + 1)
        else
            __keyloan_part $__keyloan_my_at
        end
    end
end

function __keyloan_names_of --argument-names __keyloan_my_mark
    set -l __keyloan_my_i 1
    while set -q __keyloan_name[$__keyloan_my_i]
        test "$__keyloan_of[$__keyloan_my_i]" = $__keyloan_my_mark; and builtin echo $__keyloan_name[$__keyloan_my_i]
        set __keyloan_my_i (builtin math $__keyloan_my_i + 1)
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
    set -l __keyloan_my_loans ''
    set -l __keyloan_my_at 1
    while set -q __keyloan_mark[$__keyloan_my_at]
        set -l __keyloan_my_names (__keyloan_names_of $__keyloan_mark[$__keyloan_my_at])
        # A line is all that there is of a loan; no directory is named like the rest of one.
        set -l __keyloan_my_until (string replace -a \n '/?' -- "$__keyloan_until[$__keyloan_my_at]" | string collect)
        set __keyloan_my_loans $__keyloan_my_loans$__keyloan_mark[$__keyloan_my_at]\t$__keyloan_live[$__keyloan_my_at]\t$__keyloan_loan[$__keyloan_my_at]\t(string join ' ' -- $__keyloan_my_names)\t"$__keyloan_my_until"\n
        set __keyloan_my_at (builtin math $__keyloan_my_at + 1)
    end
    set -gx KEYLOAN_VARS (string join ' ' -- (__keyloan_sorted $__keyloan_name))
    set -gx KEYLOAN_PROMPT (string repeat -n (builtin count $__keyloan_name) '*')
    set -gx KEYLOAN_SHELL $__keyloan_my_loans
end

# What a shell had that this one was started from, or was before it became this one.
function __keyloan_inherit
    for __keyloan_my_line in (string split \n -- $KEYLOAN_SHELL)
        set -l __keyloan_my_parts (string split -m4 \t -- $__keyloan_my_line)
        if test (builtin count $__keyloan_my_parts) -lt 4; or not string match -qr '^[A-Za-z0-9_ ]+$' -- $__keyloan_my_parts[4]
            continue
        end
        __keyloan_join $__keyloan_my_parts[1] $__keyloan_my_parts[2] $__keyloan_my_parts[3] "$__keyloan_my_parts[5]"
        for __keyloan_my_name in (string split ' ' -- $__keyloan_my_parts[4])
            set -ga __keyloan_name $__keyloan_my_name
            set -ga __keyloan_of $__keyloan_my_parts[1]
        end
    end
    __keyloan_announce_vars
end

# Takes out what loans lent that have ended. A directory in which none of them had ended is not looked at again.
function __keyloan_check
    set -l __keyloan_my_at 1
    while set -q __keyloan_mark[$__keyloan_my_at]
        set -l __keyloan_my_until (string trim -r -c / -- "$__keyloan_until[$__keyloan_my_at]" | string collect)
        if not test -e $__keyloan_mark[$__keyloan_my_at]; or not test -e $__keyloan_live[$__keyloan_my_at]
            __keyloan_over $__keyloan_my_at ''
        else if test -n "$__keyloan_my_until"; and not __keyloan_within $__keyloan_my_until
            __keyloan_over $__keyloan_my_at "this shell left $__keyloan_my_until"
        else
            set __keyloan_my_at (builtin math $__keyloan_my_at + 1)
        end
    end
    set -g __keyloan_good $PWD
end

# A link may lead into the directory.
function __keyloan_within --argument-names __keyloan_my_directory
    set -l __keyloan_my_length (string length -- $__keyloan_my_directory/)
    if test (string sub -l $__keyloan_my_length -- $PWD/ | string collect) = $__keyloan_my_directory/
        return 0
    end
    set -l __keyloan_my_physical (builtin pwd -P | string collect)
    if test (string sub -l $__keyloan_my_length -- $__keyloan_my_physical/ | string collect) = $__keyloan_my_directory/
        return 0
    end
    return 1
end

function __keyloan_over --argument-names __keyloan_my_at __keyloan_my_why
    set -l fish_trace
    set -l __keyloan_my_mark $__keyloan_mark[$__keyloan_my_at]
    set -l __keyloan_my_removed (__keyloan_names_of $__keyloan_my_mark)
    for __keyloan_my_name in $__keyloan_my_removed
        __keyloan_restore $__keyloan_my_name
    end
    # Anything of the user's can put a file there: a pipe would never end, and a terminal act on what it says.
    if test -z "$__keyloan_my_why"; and test -f $__keyloan_my_mark.why; and test -r $__keyloan_my_mark.why
        read -l -n 200 __keyloan_my_text <$__keyloan_my_mark.why
        set __keyloan_my_why $__keyloan_my_text
    end
    if test -z "$__keyloan_my_why"
        set __keyloan_my_why 'the loan is over'
        test -e $__keyloan_live[$__keyloan_my_at]; or set __keyloan_my_why 'the daemon has ended'
    end
    __keyloan_part $__keyloan_my_at
    __keyloan_announce_vars
    builtin echo "keyloan: removed: "(string join ' ' -- (__keyloan_sorted $__keyloan_my_removed))" ("(__keyloan_plain $__keyloan_my_why)")" >&2
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
        set -l __keyloan_my_directory $PWD
        while string match -q '/*' -- $__keyloan_my_directory; and test "$__keyloan_my_directory" != "$HOME"
            if test -e $__keyloan_my_directory/.keyloan.toml
                builtin echo 'keyloan: opvars is available here' >&2
                break
            end
            test -e $__keyloan_my_directory/.git; and break
            set __keyloan_my_directory (string replace -r '/[^/]*$' '' -- $__keyloan_my_directory)
        end
    end
end

# Few commands, since each costs as much here as the whole check in other shells.
function __keyloan_hook --on-event fish_prompt
    for __keyloan_my_path in $__keyloan_mark $__keyloan_live
        if not test -e $__keyloan_my_path
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
