//! `opvars` and `unopvars` in the real shells, with real prompts: one set of scenarios for all of them.

use keyloan_e2e::shell::{BASH, CANARY, FISH, Shell, ZSH, out, with_sets};
use keyloan_e2e::terminal::Terminal;


/// Runs a line and says when it is over, with its status. A line ends with the next prompt only.
fn told(terminal: &Terminal<'_>, shell: &Shell, line: &str) -> String {
    let status = if shell.name == "fish" { "$status" } else { "$?" };
    terminal.run(&format!("{line}; echo en''ded {status}."));
    let shown = terminal.expect("\nended ");
    assert!(!shown.contains("command not found"), "{shown}");
    shown
}

/// What `printenv` says of a variable, or that there is none.
fn value(terminal: &Terminal<'_>, shell: &Shell, name: &str) -> Option<String> {
    let shown = told(terminal, shell, &format!("printenv {name}"));
    let at = shown.find("\nended ").unwrap();
    shown[at..].starts_with("\nended 0.").then(|| shown[..at].lines().last().unwrap_or_default().to_owned())
}

fn story(shell: &Shell) {
    let sandbox = with_sets();
    let terminal = shell.opened(&sandbox);
    assert_eq!(value(&terminal, shell, "TOKEN"), None);
    terminal.run(&shell.export("PLAIN", "before"));
    let shown = told(&terminal, shell, "opvars");
    assert!(shown.contains("\nset: PLAIN TOKEN\n") && shown.contains("ended 0."), "{shown}");
    assert_eq!(value(&terminal, shell, "TOKEN").as_deref(), Some(CANARY));
    assert_eq!(value(&terminal, shell, "KEYLOAN_PROMPT").as_deref(), Some("**"));
    let shown = told(&terminal, shell, "opvars second");
    assert!(shown.contains("\nset: SECOND\nstill set: PLAIN TOKEN\n"), "{shown}");
    let shown = told(&terminal, shell, "opvars again odd");
    assert!(shown.contains("\nset: BIG ODD TOKEN\nstill set: PLAIN SECOND\n"), "{shown}");
    assert_eq!(value(&terminal, shell, "TOKEN").as_deref(), Some("zwei"));
    assert_eq!(value(&terminal, shell, "KEYLOAN_VARS").as_deref(), Some("BIG ODD PLAIN SECOND TOKEN"));
    assert_eq!(out(&sandbox), 3);
    // From any directory, and without a daemon.
    sandbox.stop();
    let shown = told(&terminal, shell, "cd /; unopvars");
    assert!(shown.contains("removed: ") || shown.contains("nothing set"), "{shown}");
    for name in ["TOKEN", "SECOND", "ODD", "BIG", "KEYLOAN_PROMPT", "KEYLOAN_VARS", "KEYLOAN_LOAN", "KEYLOAN_SHELL"] {
        assert_eq!(value(&terminal, shell, name), None, "{name}");
    }
    assert_eq!(value(&terminal, shell, "PLAIN").as_deref(), Some("before"));
    for again in ["unopvars", "deopvars"] {
        assert!(told(&terminal, shell, again).contains("\nnothing set\n"));
    }
}

/// One test for each shell of a scenario.
macro_rules! in_each_shell {
    ($($scenario:ident),+ $(,)?) => {
        $(mod $scenario {
            #[test]
            fn in_bash() {
                super::$scenario(&super::BASH);
            }
            #[test]
            fn in_zsh() {
                super::$scenario(&super::ZSH);
            }
            #[test]
            fn in_fish() {
                super::$scenario(&super::FISH);
            }
        })+
    };
}

in_each_shell!(story);
