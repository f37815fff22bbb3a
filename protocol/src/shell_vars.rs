//! Variables that a shell takes for its own: given a value, they change what it runs or shows at every prompt, or keep
//! another type. A command that inherits them as strings does not care; a shell that is alive does.

/// Beyond those that steer a command ([`crate::env_vars::steers`]), in any of bash, zsh and fish.
const OWN: &[&str] = &[
    "_",
    "__",
    // Expanded, with `$(…)`, whenever a prompt or a trace is shown.
    "PS0",
    "PS1",
    "PS2",
    "PS3",
    "RPS1",
    "RPS2",
    "RPROMPT",
    "RPROMPT2",
    "SPROMPT",
    "POSTEDIT",
    "TIMEFMT",
    "TIMEFORMAT",
    "WATCHFMT",
    "MAIL",
    "MAILPATH",
    "MAILCHECK",
    "PERIOD",
    // Programs and files that the shell uses by itself.
    "FCEDIT",
    "HISTFILE",
    "HISTCMD",
    "HISTCONTROL",
    "HISTIGNORE",
    "HISTSIZE",
    "HISTFILESIZE",
    "HISTTIMEFORMAT",
    "SAVEHIST",
    "INPUTRC",
    "TMPPREFIX",
    "TMPSUFFIX",
    "NULLCMD",
    "READNULLCMD",
    "CORRECT_IGNORE",
    "CORRECT_IGNORE_FILE",
    "DIRSTACKSIZE",
    "HISTCHARS",
    "HISTORY_IGNORE",
    "KEYBOARD_HACK",
    "LISTMAX",
    "LOGCHECK",
    "REPORTMEMORY",
    "REPORTTIME",
    "STTY",
    "TERMINFO_DIRS",
    "WATCH",
    "BAUD",
    "ZBEEP",
    "AUTO_RESUME",
    "EMACS",
    "INSIDE_EMACS",
    "FPATH",
    "MODULE_PATH",
    "MANPATH",
    "EXECIGNORE",
    "FIGNORE",
    "FUNCNEST",
    "GLOBSORT",
    "HOSTFILE",
    "IGNOREEOF",
    "POSIXLY_CORRECT",
    "TMOUT",
    "TTY",
    "TTYIDLE",
    "COLUMNS",
    "LINES",
    "KEYTIMEOUT",
    "WORDCHARS",
    // Numbers, lists and others whose assignment is more than one.
    "RANDOM",
    "SRANDOM",
    "SECONDS",
    "EPOCHSECONDS",
    "EPOCHREALTIME",
    "LINENO",
    "OPTIND",
    "OPTARG",
    "OPTERR",
    "REPLY",
    "PWD",
    "OLDPWD",
    "SHLVL",
    "UID",
    "EUID",
    "GID",
    "EGID",
    "PPID",
    "USERNAME",
    "DIRSTACK",
    "GROUPS",
    "PIPESTATUS",
    "FUNCNAME",
    "STATUS",
    "STATUS_GENERATION",
    "LAST_PID",
    "HOSTNAME",
    "CMD_DURATION",
    "VERSION",
    "HISTORY",
    "ARGV",
    "UMASK",
    "PATH_MAX",
    "CHILD_MAX",
    "MATCH",
    "MBEGIN",
    "MEND",
    "ARGC",
    "ERRNO",
    "ERRNOS",
    "HOST",
    "HOSTTYPE",
    "MACHTYPE",
    "OSTYPE",
    "CPUTYPE",
    "VENDOR",
    "SIGNALS",
    "PSVAR",
    "TRY_BLOCK_ERROR",
    "TRY_BLOCK_INTERRUPT",
    "COMPREPLY",
    "COPROC",
    "MAPFILE",
    "EPOCHTIME",
    // Tables of zsh: a value would define functions, aliases, commands or directories.
    "ALIASES",
    "GALIASES",
    "SALIASES",
    "BUILTINS",
    "COMMANDS",
    "FUNCTIONS",
    "FUNCTIONS_SOURCE",
    "FUNCFILETRACE",
    "FUNCSOURCETRACE",
    "FUNCSTACK",
    "FUNCTRACE",
    "HISTORYWORDS",
    "JOBDIRS",
    "JOBSTATES",
    "JOBTEXTS",
    "KEYMAPS",
    "LANGINFO",
    "MODULES",
    "NAMEDDIRS",
    "OPTIONS",
    "PARAMETERS",
    "PATCHARS",
    "RESWORDS",
    "SYSPARAMS",
    "USERDIRS",
    "USERGROUPS",
    "WIDGETS",
    // Of any program there.
    "LANG",
    "TERM",
    "USER",
    "LOGNAME",
];

/// The last ones are of prompts and pickers that hang in a shell, which expand or run what these say.
const PREFIXES: &[&str] = &[
    "BASH",
    "ZSH_",
    "ZLE_",
    "ZCURSES_",
    "ZFTP_",
    "DIS_",
    "PROMPT",
    "COMP_",
    "READLINE_",
    "FISH_",
    "LC_",
    "__KEYLOAN",
    "__KL_",
    "__FISH",
    "__MISE",
    "POWERLEVEL9K_",
    "P9K_",
    "STARSHIP_",
    "SPACESHIP_",
    "TIDE_",
    "FZF_",
    "GIT_PS1_",
    "DIRENV_",
];

/// zsh runs the functions that `precmd_functions` and its like name.
const SUFFIX: &str = "_FUNCTIONS";

/// Whether a shell may not be lent a variable of this name. Compared without case: zsh has `path`, fish has `history`.
pub fn is_the_shells(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    OWN.contains(&upper.as_str())
        || PREFIXES.iter().any(|prefix| upper.starts_with(prefix))
        || upper.ends_with(SUFFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What bash(1), zshparam(1), zshmodules(1) and fish-language(1) name, and what prompts and pickers read.
    const BASH: &str = "BASH BASHOPTS BASHPID BASH_ALIASES BASH_ARGC BASH_ARGV BASH_ARGV0 BASH_CMDS BASH_COMMAND \
        BASH_COMPAT BASH_ENV BASH_EXECUTION_STRING BASH_LINENO BASH_LOADABLES_PATH BASH_REMATCH \
        BASH_SOURCE BASH_SUBSHELL BASH_VERSINFO BASH_VERSION BASH_XTRACEFD CDPATH CHILD_MAX COLUMNS \
        COMPREPLY COMP_CWORD COMP_KEY COMP_LINE COMP_POINT COMP_TYPE COMP_WORDBREAKS COMP_WORDS COPROC \
        DIRSTACK EMACS ENV EPOCHREALTIME EPOCHSECONDS EUID EXECIGNORE FCEDIT FIGNORE FUNCNAME FUNCNEST \
        GLOBIGNORE GROUPS HISTCMD HISTCONTROL HISTFILE HISTFILESIZE HISTIGNORE HISTSIZE HISTTIMEFORMAT \
        HOME HOSTFILE HOSTNAME HOSTTYPE IFS IGNOREEOF INPUTRC INSIDE_EMACS LANG LC_ALL LC_COLLATE \
        LC_CTYPE LC_MESSAGES LC_NUMERIC LC_TIME LINENO LINES MACHTYPE MAIL MAILCHECK MAILPATH MAPFILE \
        OLDPWD OPTARG OPTERR OPTIND OSTYPE PATH PIPESTATUS POSIXLY_CORRECT PPID PROMPT_COMMAND \
        PROMPT_DIRTRIM PS0 PS1 PS2 PS3 PS4 PWD RANDOM READLINE_ARGUMENT READLINE_LINE READLINE_MARK \
        READLINE_POINT REPLY SECONDS SHELL SHELLOPTS SHLVL SRANDOM TIMEFORMAT TMOUT TMPDIR UID _ \
        auto_resume histchars";
    const ZSH: &str = "ARGC CORRECT_IGNORE CORRECT_IGNORE_FILE CPUTYPE DIRSTACKSIZE EGID ERRNO FUNCNEST GID HISTCHARS \
        HISTORY_IGNORE HOST KEYBOARD_HACK KEYTIMEOUT LISTMAX LOGNAME MATCH MBEGIN MEND NULLCMD POSTEDIT \
        PROMPT PROMPT2 PROMPT3 PROMPT4 PROMPT_EOL_MARK READNULLCMD REPORTMEMORY REPORTTIME RPROMPT \
        RPROMPT2 RPS1 RPS2 SAVEHIST SPROMPT STTY TERM TERMINFO TERMINFO_DIRS TIMEFMT TMPPREFIX TMPSUFFIX \
        TRY_BLOCK_ERROR TRY_BLOCK_INTERRUPT TTY TTYIDLE USERNAME VENDOR WORDCHARS ZBEEP ZDOTDIR \
        ZLE_LINE_ABORTED ZLE_REMOVE_SUFFIX_CHARS ZLE_RPROMPT_INDENT ZLE_SPACE_SUFFIX_CHARS ZSH_ARGZERO \
        ZSH_EXECUTION_STRING ZSH_NAME ZSH_PATCHLEVEL ZSH_SCRIPT ZSH_SUBSHELL ZSH_VERSION argv cdpath \
        fignore fpath mailpath manpath match mbegin mend module_path path pipestatus prompt psvar \
        signals status zle_bracketed_paste zle_highlight zsh_eval_context zsh_scheduled_events WATCH \
        WATCHFMT LOGCHECK aliases dis_aliases functions commands options precmd_functions";
    const FISH: &str = "CMD_DURATION BROWSER fish_complete_path fish_function_path fish_greeting fish_user_paths \
        FISH_DEBUG_OUTPUT history hostname last_pid status_generation umask version";
    const OTHERS: &str = "POWERLEVEL9K_CUSTOM_X_CONTENT_EXPANSION STARSHIP_CONFIG FZF_DEFAULT_COMMAND FZF_DEFAULT_OPTS \
        __KEYLOAN_I __keyloan_i __Keyloan_x __kl_name __KL_I";

    #[test]
    fn no_variable_that_a_shells_manual_lists_is_lent_to_one() {
        for name in [BASH, ZSH, FISH, OTHERS].into_iter().flat_map(str::split_whitespace) {
            assert!(is_the_shells(name) || crate::env_vars::steers(name), "{name}");
        }
    }

    #[test]
    fn what_a_shell_expands_or_keeps_as_a_number_is_its_own() {
        for name in [
            "PS1",
            "prompt",
            "HISTFILE",
            "RANDOM",
            "BASH_REMATCH",
            "fish_greeting",
            "path_max",
            "LC_ALL",
            "_",
        ] {
            assert!(is_the_shells(name), "{name}");
        }
        for name in ["TWINE_PASSWORD", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "COMPANY_TOKEN", "ZSHARE_TOKEN"]
        {
            assert!(!is_the_shells(name), "{name}");
        }
    }
}
