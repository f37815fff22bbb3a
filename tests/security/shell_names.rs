//! Names of variables that would make a shell evaluate, expand or run what it is lent.

use keyloan_e2e::Sandbox;
use keyloan_e2e::shell::{SHELLS, Shell, ZSH, with_sets};
use keyloan_protocol::{env_vars, shell_vars};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// Evaluated wherever a shell takes it for a number.
const NUMBER: &str = "x[$(touch evaluated)]";

fn hook(shell: &Shell) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../shell/hooks/keyloan.{}", shell.name));
    fs::read_to_string(path).unwrap()
}

/// What the functions of a hook keep for themselves.
fn locals(shell: &Shell) -> BTreeSet<String> {
    let text = hook(shell);
    let mut found = BTreeSet::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        for (begin, all) in [
            ("local ", true),
            ("set -l ", false),
            ("for ", false),
            ("--argument-names ", true),
            ("read -r ", false),
        ] {
            let Some((_, rest)) = line.split_once(begin) else { continue };
            let words = rest.split_whitespace().filter(|word| !word.starts_with('-'));
            let names = words.map(|word| word.trim_start_matches('(').split('=').next().unwrap_or_default());
            let names = names.map(|name| name.trim_end_matches(';').to_owned());
            let name = |name: &String| {
                name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                    && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            };
            found.extend(names.filter(name).take(if all { 100 } else { 1 }));
        }
    }
    // The daemon refuses these two; a shell cannot do without them.
    found.remove("IFS");
    found.remove("fish_trace");
    found
}

/// Trusts a file of one set a variable.
fn lends(sandbox: &Sandbox, variables: &[(String, &str)]) {
    let mut text = String::new();
    for (name, value) in variables {
        writeln!(text, "sets.of-{name}.env.{name} = {{ value = \"{value}\" }}").unwrap();
    }
    sandbox.write("project/.keyloan.toml", text);
    sandbox.keyloan(&["trust"]).run().ok();
}

fn refused(name: &str) -> bool {
    shell_vars::is_the_shells(name) || env_vars::steers(name)
}

#[test]
fn a_variable_named_like_one_of_the_hooks_own_is_not_evaluated() {
    let sandbox = with_sets();
    let mark = sandbox.path("project/evaluated");
    for shell in &SHELLS {
        let naive = match shell.name {
            "fish" => "set i '(touch evaluated)'; eval echo $i".to_owned(),
            "zsh" => format!("f() {{ local i; eval \"i={NUMBER}\"; }}; f"),
            _ => format!("f() {{ local i; i='{NUMBER}'; for ((; i < 0; i++)); do :; done; }}; f"),
        };
        shell.script(&sandbox, &naive);
        assert!(mark.exists(), "{}: the attack itself does not work", shell.name);
        fs::remove_file(&mark).unwrap();
        let locals = locals(shell);
        assert!(locals.len() > 15, "{locals:?}");
        let bare =
            |name: &String| name.trim_start_matches("__keyloan_").trim_start_matches("__kl_").to_owned();
        let names: BTreeSet<String> = locals.iter().map(bare).filter(|name| !refused(name)).collect();
        let all: Vec<(String, &str)> = names.into_iter().map(|name| (name, NUMBER)).collect();
        // More lines are more than a question about a file can show.
        for some in all.chunks(20) {
            lends(&sandbox, some);
            let mut script = String::new();
            for (name, _) in some {
                writeln!(script, "opvars of-{name}; printenv {name}; unopvars; echo of-{name} ended")
                    .unwrap();
            }
            let output = shell.script(&sandbox, &script);
            assert!(!mark.exists(), "{}: {output:?}", shell.name);
            for (name, _) in some {
                let told = format!("set: {name}\n{NUMBER}\nremoved: {name}\nof-{name} ended\n");
                assert!(output.text().contains(&told), "{}, {name}: {output:?}", shell.name);
            }
        }
        // Nobody can have one of this name.
        for name in locals {
            assert!(name.starts_with("__keyloan_") || name.starts_with("__kl_"), "{}: {name}", shell.name);
            for name in [name.clone(), name.to_ascii_uppercase()] {
                assert!(refused(&name), "{name}");
            }
        }
    }
}

#[test]
fn a_prompt_expands_nothing_that_was_lent() {
    let sandbox = with_sets();
    let mark = sandbox.path("project/evaluated");
    let attack = "$(touch evaluated)";
    ZSH.set_up(&sandbox, "", "setopt prompt_subst prompt_sp prompt_cr");
    let terminal = ZSH.open(&sandbox);
    terminal.run(&format!("export PROMPT_EOL_MARK='{attack}'; printf unended"));
    terminal.run("echo naive");
    terminal.expect("\nnaive\n");
    assert!(mark.exists(), "the attack itself does not work");
    // It goes on with each prompt.
    terminal.run("unset PROMPT_EOL_MARK; echo harm''less");
    terminal.expect("\nharmless\nready>");
    drop(terminal);
    fs::remove_file(&mark).unwrap();
    let names = ["PROMPT_EOL_MARK", "prompt_eol_mark", "RPS1", "psvar", "HISTCHARS", "FZF_DEFAULT_COMMAND"];
    lends(&sandbox, &names.map(|name| (name.to_owned(), attack)));
    for shell in &SHELLS {
        shell.set_up(
            &sandbox,
            "",
            if shell.name == "zsh" { "setopt prompt_subst prompt_sp prompt_cr" } else { "" },
        );
        let terminal = shell.open(&sandbox);
        for name in names {
            terminal.run(&format!("opvars of-{name}; printf unended"));
            terminal.expect(&format!("{name} is not lent to a shell"));
        }
        terminal.run("echo over");
        terminal.expect("\nover\n");
        assert!(!mark.exists(), "{}", shell.name);
    }
}

#[test]
fn no_function_of_the_users_stands_in_for_what_the_hooks_call() {
    let sandbox = with_sets();
    let mark = sandbox.path("project/evaluated");
    for shell in &SHELLS {
        // All but what the shells reserve, and what nobody can replace and go on working.
        let (replace, naive) = match shell.name {
            "bash" => (
                "for b in $(compgen -b); do case $b in builtin | local | return | break | continue) ;; \
                 *) builtin eval \"$b() { touch evaluated; }\" ;; esac; done; keyloan() { touch evaluated; }",
                "printf x",
            ),
            "zsh" => (
                "for b in ${(k)builtins}; do case $b in builtin|local|return|break|continue) ;; \
                 *) functions[$b]='touch evaluated' ;; esac; done; functions[keyloan]='touch evaluated'",
                "print x",
            ),
            _ => (
                "for b in (builtin -n) keyloan; function $b; command touch evaluated; end 2>/dev/null; end",
                "echo x",
            ),
        };
        let output = shell.script(&sandbox, &format!("{replace}\n{naive}\n"));
        assert!(mark.exists(), "{}: the attack itself does not work: {output:?}", shell.name);
        fs::remove_file(&mark).unwrap();
        let script = "opvars; printenv TOKEN; opvars second; unopvars SECOND; unopvars NONE\n\
                      /usr/bin/env keyloan recall --all; __keyloan_hook; opvars; unopvars\n";
        let output = shell.script(&sandbox, &format!("{replace}\n{script}"));
        assert!(!mark.exists(), "{}: {output:?}", shell.name);
        let told = "set: PLAIN TOKEN\ncanary-5f1e\nset: SECOND\nstill set: PLAIN TOKEN\nremoved: SECOND\n";
        assert!(output.text().starts_with(told), "{}: {output:?}", shell.name);
        assert!(output.text().ends_with("set: PLAIN TOKEN\nremoved: PLAIN TOKEN\n"), "{output:?}");
        assert!(output.stderr.contains("keyloan: removed: PLAIN TOKEN (recalled)"), "{output:?}");
    }
}
