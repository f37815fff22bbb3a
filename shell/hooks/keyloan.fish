# keyloan in fish: opvars, unopvars (deopvars), and the check before each prompt that every loan still lasts.
# For config.fish:  keyloan shell fish | source
#
# What must hold: no value is ever evaluated, traced, shown to another program but by the environment, or written to a
# file; the check starts no program and waits for nothing.

if not set -q __keyloan_ready
    # One entry a variable: its name and the marker of its loan. What it had before is in __keyloan_was_NAME, and how
    # in __keyloan_had_NAME: g for global, x for exported as well.
    set -g __keyloan_name
    set -g __keyloan_of
    # One entry a loan: its marker, what shows that the daemon lives, its name for children, the directory it ends with.
    set -g __keyloan_mark
    set -g __keyloan_live
    set -g __keyloan_loan
    set -g __keyloan_until
    set -g __keyloan_leaving
    set -g __keyloan_inside ''
    set -g __keyloan_titled ''
    set -g __keyloan_at ''
    set -g __keyloan_ready 1
end

function opvars --description 'Lend credentials to this shell'
    # A trace shows values. Functions that this one calls see it, too.
    set -l fish_trace
    __keyloan_check
    # Each name and each value ends with a NUL and is taken as it is.
    set -l records (command keyloan shell-lend $argv | string split0)
    set -l count (count $records)
    if test $count -eq 0
        # keyloan did not even start, or was killed.
        return 127
    else if test "$records[1]" != 0
        return $records[1]
    else if test $count -eq 1
        # It printed its help.
        return 0
    end
    set -l mark "$records[2]"
    if test "$records[-1]" != =
        __keyloan_back $mark
        echo 'keyloan: cannot lend credentials to this shell: keyloan ended too early' >&2
        return 3
    end
    __keyloan_join $mark "$records[3]" "$records[4]" "$records[5]"
    set -l names
    set -l i 6
    while test $i -lt $count
        set -l name $records[$i]
        set -a names $name
        set -l at (contains -i -- $name $__keyloan_name)
        if test -n "$at"
            set __keyloan_of[$at] $mark
        else
            if set -qg $name
                set -g __keyloan_was_$name $$name
                set -g __keyloan_had_$name g
                if set -qgx $name
                    set -g __keyloan_had_$name x
                end
            end
            set -ga __keyloan_name $name
            set -ga __keyloan_of $mark
        end
        set -gx --unpath $name $records[(math $i + 1)]
        set i (math $i + 2)
    end
    set -e records
    __keyloan_drop_empty
    __keyloan_announce_vars
    echo set: (string join ' ' -- (__keyloan_sorted $names))
    set -l still
    for name in $__keyloan_name
        contains -- $name $names; or set -a still $name
    end
    if set -q still[1]
        echo still set: (string join ' ' -- (__keyloan_sorted $still))
    end
    return 0
end

function unopvars --description 'Take lent credentials out of this shell'
    set -l fish_trace
    set -l wanted $argv
    if not set -q argv[1]
        set wanted $__keyloan_name
        if not set -q wanted[1]
            echo nothing set
            return 0
        end
    end
    set -l removed
    set -l missing
    for name in $wanted
        if contains -- $name $__keyloan_name
            __keyloan_restore $name
            set -a removed $name
        else
            set -a missing $name
        end
    end
    __keyloan_drop_empty
    __keyloan_announce_vars
    if set -q removed[1]
        echo removed: (string join ' ' -- (__keyloan_sorted $removed))
    end
    if set -q missing[1]
        echo not set by opvars: $missing >&2
        return 1
    end
    return 0
end

function deopvars --description 'Take lent credentials out of this shell'
    unopvars $argv
end

# fish before 3.5 cannot sort without a program.
function __keyloan_sorted
    path sort -- $argv 2>/dev/null; or printf '%s\n' $argv
end

# Gives a variable what it had.
function __keyloan_restore --argument-names name
    set -l fish_trace
    set -eg $name
    set -l had __keyloan_had_$name
    set -l was __keyloan_was_$name
    switch "$$had"
        case x
            set -gx $name $$was
        case g
            set -gu $name $$was
    end
    set -eg $had
    set -eg $was
    set -l at (contains -i -- $name $__keyloan_name)
    set -e __keyloan_name[$at]
    set -e __keyloan_of[$at]
end

function __keyloan_join --argument-names mark live loan until
    set -ga __keyloan_mark $mark
    set -ga __keyloan_live $live
    set -ga __keyloan_loan $loan
    set -ga __keyloan_until "$until"
    # One that ends with a directory is looked at closely before each prompt.
    if test -n "$until"
        set -g __keyloan_leaving /nowhere/keyloan
    end
    set -l loans (string split : -- $KEYLOAN_LOAN)
    if not contains -- $loan $loans
        set -a loans $loan
    end
    set -gx --unpath KEYLOAN_LOAN (string join : -- $loans)
end

function __keyloan_part --argument-names at
    set -l loans (string match -v -- $__keyloan_loan[$at] (string split : -- $KEYLOAN_LOAN))
    if set -q loans[1]
        set -gx --unpath KEYLOAN_LOAN (string join : -- $loans)
    else
        set -eg KEYLOAN_LOAN
    end
    __keyloan_back $__keyloan_mark[$at]
    set -e __keyloan_mark[$at]
    set -e __keyloan_live[$at]
    set -e __keyloan_loan[$at]
    set -e __keyloan_until[$at]
    if not string match -q '*?*' -- $__keyloan_until
        set -g __keyloan_leaving
    end
end

# Says that nothing is left of a loan: only in the very process it was to, or a child would end it for all.
function __keyloan_back --argument-names mark
    if string match -q -- "$fish_pid-*" (string split -r -m1 / -- $mark)[-1]
        echo -n >$mark.back
    end 2>/dev/null
end

# Parts with the loans of which no variable is left.
function __keyloan_drop_empty
    set -l at 1
    while set -q __keyloan_mark[$at]
        if contains -- $__keyloan_mark[$at] $__keyloan_of
            set at (math $at + 1)
        else
            __keyloan_part $at
        end
    end
end

function __keyloan_names_of --argument-names mark
    set -l i 1
    while set -q __keyloan_name[$i]
        test "$__keyloan_of[$i]" = $mark; and echo $__keyloan_name[$i]
        set i (math $i + 1)
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
    set -l loans ''
    set -l at 1
    while set -q __keyloan_mark[$at]
        set -l names (__keyloan_names_of $__keyloan_mark[$at])
        set loans $loans$__keyloan_mark[$at]\t$__keyloan_live[$at]\t$__keyloan_loan[$at]\t(string join ' ' -- $names)\n
        set at (math $at + 1)
    end
    set -gx KEYLOAN_VARS (string join ' ' -- (__keyloan_sorted $__keyloan_name))
    set -gx KEYLOAN_PROMPT (string repeat -n (count $__keyloan_name) '*')
    set -gx KEYLOAN_SHELL $loans
end

# What a shell had that this one was started from, or was before it became this one.
function __keyloan_inherit
    for line in (string split \n -- $KEYLOAN_SHELL)
        set -l parts (string split \t -- $line)
        if test (count $parts) -ne 4; or not string match -qr '^[A-Za-z0-9_ ]+$' -- $parts[4]
            continue
        end
        __keyloan_join $parts[1] $parts[2] $parts[3] ''
        for name in (string split ' ' -- $parts[4])
            set -ga __keyloan_name $name
            set -ga __keyloan_of $parts[1]
        end
    end
    __keyloan_announce_vars
end

# Takes out what loans that have ended lent.
function __keyloan_check
    set -l at 1
    while set -q __keyloan_mark[$at]
        set -l until (string trim -r -c / -- "$__keyloan_until[$at]")
        if not test -e $__keyloan_mark[$at]; or not test -e $__keyloan_live[$at]
            __keyloan_over $at ''
        else if test -n "$until"; and not __keyloan_within $until
            __keyloan_over $at "this shell left $until"
        else
            set at (math $at + 1)
        end
    end
end

# Where a link leads into the directory, that is looked at once.
function __keyloan_within --argument-names directory
    set -l length (string length -- $directory/)
    if test (string sub -l $length -- $PWD/) = $directory/; or test "$PWD" = "$__keyloan_inside"
        return 0
    end
    if test (string sub -l $length -- (pwd -P)/) = $directory/
        set -g __keyloan_inside $PWD
        return 0
    end
    return 1
end

function __keyloan_over --argument-names at why
    set -l fish_trace
    set -l mark $__keyloan_mark[$at]
    set -l removed (__keyloan_names_of $mark)
    for name in $removed
        __keyloan_restore $name
    end
    if test -z "$why"; and test -r $mark.why
        read why <$mark.why
    end
    test -n "$why"; or set why 'the daemon has ended'
    __keyloan_part $at
    __keyloan_announce_vars
    echo "keyloan: removed: "(string join ' ' -- (__keyloan_sorted $removed))" ($why)" >&2
end

# A title that warns, and a word about sets on entering a directory: both off unless asked for.
function __keyloan_extras
    if test -n "$KEYLOAN_TITLE"
        if test -n "$KEYLOAN_VARS"
            printf '\e]2;keyloan: %s\a' $KEYLOAN_VARS >&2
            set -g __keyloan_titled 1
        else if test -n "$__keyloan_titled"
            printf '\e]2;%s\a' (string split -r -m1 / -- $PWD)[-1] >&2
            set -g __keyloan_titled ''
        end
    end
    if test -n "$KEYLOAN_ANNOUNCE"; and test "$PWD" != "$__keyloan_at"
        set -g __keyloan_at $PWD
        set -l directory $PWD
        while test -n "$directory"; and test "$directory" != "$HOME"
            if test -e $directory/.keyloan.toml
                echo 'keyloan: opvars is available here' >&2
                break
            end
            test -e $directory/.git; and break
            set directory (string replace -r '/[^/]*$' '' -- $directory)
        end
    end
end

# Few commands, since each costs as much here as the whole check in other shells.
function __keyloan_hook --on-event fish_prompt
    for path in $__keyloan_mark $__keyloan_live $__keyloan_leaving
        if not test -e $path
            __keyloan_check
            break
        end
    end
    if set -q KEYLOAN_TITLE; or set -q KEYLOAN_ANNOUNCE
        __keyloan_extras
    end
end

if set -q KEYLOAN_SHELL; and not set -q __keyloan_mark[1]
    __keyloan_inherit
end
