//! Tab, the manual pages, and what else the integration shows before anything is lent.

use keyloan_e2e::eventually;
use keyloan_e2e::programs::{bin, needed};
use keyloan_e2e::shell::{BASH, FISH, SHELLS, ZSH, with_sets};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn candidates_come_from_the_command_line_and_from_the_daemon() {
    let sandbox = with_sets();
    let after = |words: &[&str]| {
        let all = [&["complete", "--"], words].concat();
        let said = sandbox.keyloan(&all).run().ok();
        assert_eq!(said.stderr, "", "{words:?}");
        let names: Vec<String> = said
            .text()
            .lines()
            .map(|line| line.split('\t').next().unwrap().trim_start_matches('=').to_owned())
            .collect();
        names.join(" ")
    };
    let before = after(&["keyloan", "loans", ""]);
    let cases: [(&[&str], &str); 20] = [
        (&["keyloan", "un"], "unlock untrust"),
        (&["keyloan", "item", "g"], "generate get"),
        (&["keyloan", "item", "get", ""], "big odd pypi second ~/titled"),
        (&["keyloan", "item", "get", "pypi", ""], "token"),
        (&["keyloan", "item", "mv", "p"], "pypi"),
        (&["keyloan", "ssh", "export", "p"], "pypi"),
        (&["keyloan", "item", "set", "--p"], "--public"),
        (&["keyloan", "item", "generate", "--kind", "h"], "hex"),
        (&["keyloan", "item", "generate", "--kind=h"], "--kind=hex"),
        (&["keyloan", "daemon", "st"], "start stop"),
        (&["keyloan", "shell", ""], "bash zsh fish"),
        (&["keyloan", "merge", ""], "directories"),
        (&["keyloan", "trust", ""], "files"),
        (&["keyloan", "recall", ""], ""),
        (&["with-secrets", "-s", "s"], "second short"),
        (&["with-secrets", "-ss"], ""),
        (&["with-secrets", "-s", "odd", "--", "gi"], "command 4"),
        (&["with-secrets", "git", "-C", "x", "st"], "command 1"),
        (&["opvars", "odd", "~"], "~/titled"),
        (&["opvars", "-"], "--only --for --help -h"),
    ];
    for (words, expected) in cases {
        assert_eq!(after(words), expected, "{words:?}");
    }
    assert_eq!(before, "");
    let mut holder = keyloan_e2e::Running(sandbox.with_secrets(&["--", "sleep", "100"]).start());
    eventually("it is lent", || after(&["keyloan", "recall", ""]) == "1");
    holder.end();
    // Hidden commands stay hidden, and nobody is asked for a passphrase.
    assert_eq!(after(&["keyloan", "shell-"]), "");
    sandbox.keyloan(&["lock"]).run().ok();
    assert_eq!(after(&["keyloan", "item", "get", ""]), "");
    assert_eq!(after(&["keyloan", "item", "g"]), "generate get");
    sandbox.stop();
    assert_eq!(after(&["opvars", ""]), "");
    assert!(sandbox.daemon().is_none(), "completion starts none");
}

#[test]
fn tab_completes_in_each_shell() {
    let sandbox = with_sets();
    for shell in &SHELLS {
        // Before the line and after it: neither order of start-up files is a trap.
        for late in [false, true] {
            let system = if shell.name == "zsh" { "autoload -Uz compinit; compinit -D -u" } else { "" };
            let (before, after) = if late { ("", system) } else { (system, "") };
            shell.set_up(&sandbox, before, after);
            let terminal = shell.open(&sandbox);
            for (typed, completed) in [
                ("keyloan unl", "keyloan unlock"),
                ("keyloan item get pyp", "keyloan item get pypi"),
                ("opvars sec", "opvars second"),
                ("with-secrets -s sec", "with-secrets -s second"),
                ("with-secrets -s odd -- printen", "with-secrets -s odd -- printenv"),
                ("keyloan item generate --kind=he", "keyloan item generate --kind=hex"),
                ("with-secrets --set=sec", "with-secrets --set=second"),
                ("with-secrets --set=odd -- printen", "with-secrets --set=odd -- printenv"),
            ] {
                terminal.tmux(&["send-keys", "-R"]).ok();
                terminal.type_text(typed);
                terminal.press("Tab");
                terminal.expect(completed);
                terminal.press("C-u");
            }
            terminal.run("opvars odd");
            terminal.expect("set: BIG ODD");
            terminal.type_text("unopvars BI");
            terminal.press("Tab");
            terminal.expect("unopvars BIG");
        }
    }
}

#[test]
fn an_alias_and_a_function_are_told_how_to_be_run() {
    let sandbox = with_sets();
    let cases = [
        (&BASH, "alias mine='printenv TOKEN'", "bash -ic mine"),
        (&ZSH, "alias mine='printenv TOKEN'", "zsh -ic mine"),
        (&FISH, "function mine; printenv TOKEN; end", "fish -c mine"),
    ];
    for (shell, alias, way) in cases {
        shell.set_up(&sandbox, "", alias);
        let terminal = shell.open(&sandbox);
        terminal.run(&shell.export("SHELL", needed(shell.name).to_str().unwrap()));
        terminal.run("with-secrets -- mine");
        let shown = terminal.expect("hint: if it is an alias or a function of your shell: with-secrets -- ");
        assert!(shown.contains(way), "{shown}");
        terminal.run(&format!("with-secrets -- {way}"));
        terminal.expect("\ncanary-5f1e\n");
    }
}

#[test]
fn the_prompt_shows_a_star_for_each_variable_and_the_title_names_them() {
    let sandbox = with_sets();
    let cases = [
        (&BASH, "KEYLOAN_TITLE=1; PS1='$KEYLOAN_PROMPT ready> '"),
        (&ZSH, "KEYLOAN_TITLE=1; setopt prompt_subst; PS1='$KEYLOAN_PROMPT ready> '"),
        (
            &FISH,
            "set -g KEYLOAN_TITLE 1; function fish_title; end; function fish_prompt; echo -n \"$KEYLOAN_PROMPT ready> \"; end",
        ),
    ];
    for (shell, recipe) in cases {
        shell.set_up(&sandbox, "", recipe);
        let terminal = shell.open(&sandbox);
        let title = || terminal.tmux(&["display-message", "-p", "#{pane_title}"]).ok().text();
        terminal.run("opvars; opvars second");
        terminal.expect("\n*** ready>");
        eventually("the title warns", || title().trim() == "keyloan: PLAIN SECOND TOKEN");
        terminal.run("unopvars");
        terminal.expect("\n ready>");
        eventually("the title warns no more", || !title().contains("keyloan:"));
    }
}

#[test]
fn a_directory_with_a_set_is_announced_where_that_is_wanted_and_nothing_is_loaded() {
    let sandbox = with_sets();
    sandbox.make_directory("project/below");
    for shell in &SHELLS {
        let on = if shell.name == "fish" { "set -g KEYLOAN_ANNOUNCE 1" } else { "KEYLOAN_ANNOUNCE=1" };
        for (setting, announced) in [("", 0), (on, 3)] {
            shell.set_up(&sandbox, "", setting);
            let terminal = shell.open(&sandbox);
            // Where it is at first, below that, and there again; not twice in the same place.
            for line in [
                "cd /; cd ~/../project/below",
                "true",
                "cd /",
                "cd ~/../project",
                "printenv TOKEN; echo en''ded",
            ] {
                terminal.expect("ready>");
                terminal.type_text(line);
                terminal.press("Enter");
            }
            let shown = terminal.expect("\nended");
            let count = shown.matches("keyloan: opvars is available here").count();
            assert_eq!(count, announced, "{}: {shown}", shell.name);
            assert!(!shown.contains("canary"), "{shown}");
        }
    }
}

#[test]
fn each_command_has_a_manual_page_with_every_option_of_its_help() {
    let sandbox = with_sets();
    let pages = sandbox.keyloan(&["man"]).run().ok().text();
    let pages: BTreeSet<&str> = pages.lines().collect();
    assert!(pages.contains("keyloan-item-set") && pages.contains("with-secrets") && pages.contains("opvars"));
    assert!(!pages.iter().any(|page| page.contains("shell-lend") || page.contains("complete")), "{pages:?}");
    for page in &pages {
        let text = sandbox.keyloan(&["man", page]).run().ok().stdout;
        let file = sandbox.write("run/page.1", text);
        let line = ["--warnings", "-l", file.to_str().unwrap()];
        let shown = sandbox.command(needed("man"), &line).env("MANWIDTH", "500").run().ok();
        assert_eq!(shown.stderr, "", "{page}");
        let shown = shown.text();
        let help = match *page {
            "with-secrets" => sandbox.with_secrets(&["--help"]).run().ok().text(),
            "opvars" => {
                sandbox.command("/bin/sh", &["-c", "keyloan shell-lend --help | cat"]).run().ok().stderr
            }
            page => {
                let words: Vec<&str> = page.split('-').skip(1).collect();
                // `recovery-key` holds a hyphen itself.
                let tries = [words.clone(), vec![page.trim_start_matches("keyloan-")]];
                let help = tries
                    .iter()
                    .map(|words| sandbox.keyloan(&[words.as_slice(), &["--help"]].concat()).run());
                help.into_iter()
                    .find(|said| said.status == 0 && said.text().contains("Usage:"))
                    .unwrap()
                    .text()
            }
        };
        let words = help.split(|c: char| !(c.is_alphanumeric() || "-_".contains(c)));
        for option in words.filter(|word| word.starts_with("--") && word.len() > 2) {
            assert!(shown.contains(option), "{option} is not in the page {page}:\n{shown}");
        }
        for line in help.lines().filter(|line| line.starts_with("  ") && !line.trim_start().starts_with('-'))
        {
            let name = line.split_whitespace().next().unwrap_or_default();
            let name = name.trim_matches(['[', ']', '<', '>', '.']);
            assert!(name == "help" || shown.contains(name), "{name} is not in the page {page}:\n{shown}");
        }
    }
    sandbox.keyloan(&["man", "nosuch"]).run().refused(1, "there is no page nosuch");
}

#[test]
fn what_the_shells_get_is_what_lies_in_the_repository_and_suits_old_ones() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shell");
    for shell in ["bash", "zsh", "fish"] {
        let held = |part: &str| fs::read_to_string(root.join(format!("{part}/keyloan.{shell}"))).unwrap();
        let printed =
            std::process::Command::new(bin().join("keyloan")).args(["shell", shell]).output().unwrap();
        assert_eq!(String::from_utf8(printed.stdout).unwrap(), held("hooks") + &held("completions"));
        // A here-document is a file in some versions, and a value in one would lie on a disk.
        assert!(
            !held("hooks").lines().any(|line| !line.trim_start().starts_with('#') && line.contains("<<"))
        );
    }
    // bash 3.2 is what macOS has.
    let text = fs::read_to_string(root.join("hooks/keyloan.bash")).unwrap()
        + &fs::read_to_string(root.join("completions/keyloan.bash")).unwrap();
    assert_eq!(later_than_3_2(&text), Vec::<String>::new());
    // The search itself finds what it is for.
    for later in [
        "declare -A x",
        "local -n y=z",
        "local -A x",
        "declare -g x=1",
        "echo \"${x@Q}\"",
        "x=${y^^}",
        "y=${x,,}",
        "mapfile -t x",
        "readarray x",
        "[[ -v x ]]",
        "exec {fd}<f",
        "cmd |& cat",
        "cmd &>>f",
        "coproc cat",
        "printf -v x '%(%s)T'",
        "echo $EPOCHSECONDS",
        "echo \"$BASHPID\"",
        "local -",
        "wait -n",
        "read -N 1 x",
        "x=${y: -1}",
        "echo ${x[-1]}",
        ";;& )",
        "compopt -o nospace",
        "shopt -s globstar",
    ] {
        assert!(!later_than_3_2(later).is_empty(), "{later}");
    }
}

/// Lines with what came to bash after version 3.2.
fn later_than_3_2(text: &str) -> Vec<String> {
    const LATER: &[&str] = &[
        "declare -A",
        "local -A",
        "typeset -A",
        "declare -g",
        "local -n",
        "declare -n",
        "@Q}",
        "@E}",
        "@P}",
        "@A}",
        "^^}",
        "^}",
        ",,}",
        ",}",
        "mapfile",
        "readarray",
        "[[ -v ",
        "exec {",
        "|&",
        "&>>",
        "coproc",
        "%(%",
        "EPOCH",
        "BASHPID",
        "wait -n",
        "read -N",
        ": -1}",
        "[-1]",
        ";;&",
        ";&",
        "compopt",
        "globstar",
        "SRANDOM",
        "BASH_ARGV0",
        "lastpipe",
        "inherit_errexit",
    ];
    let code = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let later = |line: &&str| LATER.iter().any(|part| line.contains(part)) || line.trim() == "local -";
    code.filter(later).map(str::to_owned).collect()
}
