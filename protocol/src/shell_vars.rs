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
    "PROMPT",
    "PROMPT2",
    "PROMPT3",
    "PROMPT4",
    "RPS1",
    "RPS2",
    "RPROMPT",
    "RPROMPT2",
    "SPROMPT",
    "POSTEDIT",
    "PROMPT_DIRTRIM",
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
    "ZLE_REMOVE_SUFFIX_CHARS",
    "ZLE_SPACE_SUFFIX_CHARS",
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
    // Of any program there.
    "LANG",
    "TERM",
    "USER",
    "LOGNAME",
];

const PREFIXES: &[&str] = &["BASH", "ZSH_", "COMP_", "FISH_", "LC_", "__KEYLOAN", "__FISH"];

/// Whether a shell may not be lent a variable of this name. Compared without case: zsh has `path`, fish has `history`.
pub fn is_the_shells(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    OWN.contains(&upper.as_str()) || PREFIXES.iter().any(|prefix| upper.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for name in ["TWINE_PASSWORD", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "COMPANY_TOKEN", "PROMPTLY"] {
            assert!(!is_the_shells(name), "{name}");
        }
    }
}
