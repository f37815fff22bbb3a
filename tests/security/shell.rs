//! Where a value that a shell is lent could come up: traces, traps, history, process lists, files. Each place first
//! shows the value of the line that everybody would write.

use keyloan_e2e::programs::needed;
use keyloan_e2e::shell::{BASH, CANARY, FISH, SHELLS, Shell, ZSH, with_sets};
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{Sandbox, eventually};
use std::fs;
use std::path::Path;

/// What a function that is written without care does: what a program prints is run. It prints what is the value here.
const NAIVE: &str =
    "fetch() { printf 'export TOKEN=%s PLAIN=plain\\n' canary-5f1e; }\nnaive() { eval \"$(fetch)\"; }\n";
const NAIVE_FISH: &str =
    "function fetch; echo set -gx TOKEN canary-5f1e; end\nfunction naive; fetch | source; end\n";

fn naive(shell: &Shell) -> &'static str {
    if shell.name == "fish" { NAIVE_FISH } else { NAIVE }
}

/// Runs a script with `LOAD` standing for the naive function, then for the real one; what it left in `trace` each time.
fn traced(shell: &Shell, script: &str) -> [String; 2] {
    let sandbox = with_sets();
    ["naive", "opvars"].map(|load| {
        let _ = fs::remove_file(sandbox.path("project/trace"));
        let script = format!("{}{}", naive(shell), script.replace("LOAD", load));
        let output = shell.script(&sandbox, &script);
        assert!(output.text().contains("has 11"), "{load}: {output:?}");
        let file = fs::read(sandbox.path("project/trace")).unwrap_or_default();
        String::from_utf8_lossy(&file).into_owned() + &output.text() + &output.stderr
    })
}

/// The script says that the variable is there by its length.
fn leaks_nothing(shell: &Shell, script: &str) {
    let length =
        if shell.name == "fish" { "echo has (string length $TOKEN)" } else { "echo \"has ${#TOKEN}\"" };
    let [naive, real] = traced(shell, &script.replace("SHOW", length));
    assert!(naive.contains(CANARY), "the attack itself does not work: {script}\n{naive}");
    assert!(!real.contains(CANARY), "{script}\n{real}");
}

#[test]
fn no_trace_of_bash_shows_a_value() {
    for before in [
        "set -x",
        "set -x; PS4='+ ${FUNCNAME[0]} ${value-} ${record-} '",
        "exec 9>trace; BASH_XTRACEFD=9; set -x",
        "set -o functrace; trap 'echo \"$BASH_COMMAND\" >>trace' DEBUG",
        "set -o functrace; trap 'echo \"$BASH_COMMAND\" \"$_\" >>trace' DEBUG",
        "set -o functrace; set -o errtrace; trap 'echo \"$BASH_COMMAND\" >>trace' DEBUG ERR RETURN",
        "shopt -s extdebug; trap 'echo \"$BASH_COMMAND ${BASH_ARGV[*]-}\" >>trace' DEBUG",
    ] {
        leaks_nothing(
            &BASH,
            &format!(
                "{before}\nLOAD\n{{ set +x; }} 2>/dev/null; trap - DEBUG\nSHOW\nopvars second; unopvars\n"
            ),
        );
    }
    // With a trace of one function alone, and of a value that comes back.
    leaks_nothing(
        &BASH,
        "declare -ft naive opvars __keyloan_lend; trap 'echo \"$BASH_COMMAND\" >>trace' DEBUG\nLOAD\ntrap - DEBUG\nSHOW\n",
    );
}

#[test]
fn no_trace_of_zsh_shows_a_value() {
    for before in [
        "setopt xtrace",
        "setopt xtrace prompt_subst; PS4='+ $out $values '",
        "typeset -ft naive opvars __keyloan_join __keyloan_restore __keyloan_announce_vars",
        "setopt xtrace; typeset -fT naive opvars",
        "TRAPDEBUG() { print -r -- \"$ZSH_DEBUG_CMD\" >>trace; }",
        "trap 'print -r -- \"$ZSH_DEBUG_CMD\" >>trace' DEBUG",
        "TRAPDEBUG() { print -r -- \"$_\" >>trace; }",
        "setopt xtrace verbose",
    ] {
        leaks_nothing(&ZSH, &format!("{before}\nLOAD\nunsetopt xtrace verbose; trap - DEBUG; SHOW\n"));
    }
}

#[test]
fn no_trace_of_fish_shows_a_value() {
    for before in ["set -g fish_trace 1", "set -gx fish_trace 1", "set -g fish_trace all"] {
        leaks_nothing(&FISH, &format!("{before}\nLOAD\nset -e fish_trace\nSHOW\n"));
    }
}

#[test]
fn a_value_that_comes_back_is_not_traced_either() {
    let sandbox = with_sets();
    // The user's own, which stood in no trace before.
    let cases = [
        (&BASH, "PLAIN=own-7c2d", "set -x", "PLAIN=own-7c2d"),
        (&ZSH, "PLAIN=own-7c2d", "setopt xtrace", "PLAIN=own-7c2d"),
        (&FISH, "set -g PLAIN own-7c2d", "set -g fish_trace 1", "set PLAIN own-7c2d"),
    ];
    for (shell, own, trace, naive) in cases {
        let output = shell.script(&sandbox, &format!("{trace}\n{naive}\n"));
        assert!(output.stderr.contains("own-7c2d"), "{output:?}");
        for end in ["unopvars", "keyloan recall --all; __keyloan_hook"] {
            let output = shell.script(&sandbox, &format!("{own}\n{trace}\nopvars\n{end}\n"));
            assert!(!output.stderr.contains("own-7c2d"), "{output:?}");
            assert!((output.text() + &output.stderr).contains("removed: PLAIN TOKEN"), "{output:?}");
        }
    }
}

#[test]
fn nothing_of_a_value_or_a_name_is_evaluated() {
    let attack =
        "x$(touch $PWD/evaluated)`touch $PWD/evaluated`; touch $PWD/evaluated; x[$(touch $PWD/evaluated)]";
    let sandbox = with_sets();
    sandbox.keyloan(&["item", "set", "pypi", "token"]).stdin(attack).run().ok();
    let mark = sandbox.path("project/evaluated");
    let fetch = sandbox.path("home/value");
    fs::write(&fetch, attack).unwrap();
    let fetch = fetch.display();
    for (shell, naive, integer) in [
        (&BASH, format!("eval \"export TOKEN=$(cat {fetch})\""), "declare -i TOKEN"),
        (&ZSH, format!("eval \"export TOKEN=$(cat {fetch})\""), "typeset -i TOKEN"),
        (&FISH, format!("eval set -gx TOKEN (cat {fetch})"), "true"),
    ] {
        shell.script(&sandbox, &naive);
        assert!(mark.exists(), "{}: the attack itself does not work", shell.name);
        fs::remove_file(&mark).unwrap();
        let output =
            shell.script(&sandbox, "opvars; printenv TOKEN; unopvars; opvars; opvars again; unopvars");
        assert!(output.text().contains(&format!("{attack}\n")), "{output:?}");
        assert!(!mark.exists(), "{output:?}");
        // In bash a variable that is a number evaluates what it is given.
        if shell.name == "bash" {
            shell.script(&sandbox, &format!("{integer}; TOKEN=$(cat {fetch} | sed 's/.*; //')"));
            assert!(mark.exists(), "{}: the attack itself does not work", shell.name);
            fs::remove_file(&mark).unwrap();
        }
        if shell.name != "fish" {
            let output = shell.script(&sandbox, &format!("{integer}; opvars"));
            assert!(output.stderr.contains("no plain variable") && output.status == 2, "{output:?}");
            assert!(!mark.exists());
        }
    }
}

#[test]
fn history_process_lists_and_files_hold_no_value() {
    let sandbox = with_sets();
    for shell in &SHELLS {
        let history = match shell.name {
            "bash" => "HISTFILE=~/history; HISTSIZE=100",
            "zsh" => "HISTFILE=~/history; HISTSIZE=100; SAVEHIST=100; setopt inc_append_history",
            _ => "",
        };
        shell.set_up(&sandbox, "", history);
        let terminal = shell.open(&sandbox);
        // What is typed is kept.
        terminal.run(&shell.export("TYPED", "typed-31ab"));
        terminal.run("opvars; opvars second; opvars odd");
        terminal.expect("still set: ");
        terminal.run("unopvars");
        terminal.expect("\nremoved: ");
        terminal.run(if shell.name == "fish" { "history" } else { "fc -l 1 | cat" });
        let shown = terminal.expect("typed-31ab");
        assert!(!shown.contains(CANARY), "{shown}");
        terminal.run("exit");
        eventually("the history is written", || files_with(&sandbox.path("home"), "typed-31ab") > 0);
        assert_eq!(files_with(&sandbox.path("home"), CANARY), 0, "{}", shell.name);
        assert_eq!(files_with(&sandbox.path("run"), CANARY), 0, "{}", shell.name);
    }
}

fn files_with(directory: &Path, text: &str) -> usize {
    let mut found = 0;
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found += files_with(&path, text);
        } else if entry.file_type().is_ok_and(|kind| kind.is_file())
            && fs::read(&path).is_ok_and(|held| held.windows(text.len()).any(|part| part == text.as_bytes()))
        {
            found += 1;
        }
    }
    found
}

#[test]
fn a_value_is_in_no_argument_and_no_file_on_its_way() {
    let sandbox = with_sets();
    for shell in &SHELLS {
        // A here-string is a file in some versions of some shells, and a command's argument is everybody's.
        let naive = "env TOKEN=canary-5f1e true; echo canary-5f1e >f";
        for (load, leaks) in [(naive, true), ("opvars; true; unopvars", false)] {
            let script = format!("keyloan shell {0} >hook\n. ./hook\n{load}\n", shell.name);
            let script =
                script.replace(". ./hook", if shell.name == "fish" { "source hook" } else { ". ./hook" });
            let trace = sandbox.path("run/strace").display().to_string();
            let line = ["-f", "-s", "4096", "-o", &trace, "-e", "trace=execve,write,openat,sendmsg,pwrite64"];
            let program = needed(shell.name).display().to_string();
            let all = [&line[..], &[program.as_str(), "-c", &script]].concat();
            sandbox.command(needed("strace"), &all).run().ok();
            let text = fs::read_to_string(&trace).unwrap();
            fs::remove_file(&trace).unwrap();
            let executed =
                text.lines().any(|line| line.contains("execve(") && arguments(line).contains(CANARY));
            assert_eq!(executed, leaks, "{}", shell.name);
            // The shell writes it nowhere; keyloan, which does, shows a tracer of the same user nothing of its memory.
            let written = text.lines().any(|line| line.contains("write(") && line.contains(CANARY));
            assert_eq!(written, leaks, "{}: {text}", shell.name);
            assert!(leaks || text.contains("write(3, 0x"), "{}: {text}", shell.name);
        }
    }
}

/// The second part of `execve("…", ["…"], 0x… /* … */)`.
fn arguments(line: &str) -> &str {
    line.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("", |(arguments, _)| arguments)
}

#[test]
fn the_way_to_a_shell_ends_in_a_pipe_or_nowhere() {
    let sandbox = with_sets();
    // What any program that prints its answer does.
    sandbox.command("/bin/sh", &["-c", "echo canary-5f1e >kept"]).run().ok();
    assert_eq!(files_with(&sandbox.path("project"), CANARY), 1);
    fs::remove_file(sandbox.path("project/kept")).unwrap();
    let output = sandbox.command("/bin/sh", &["-c", "keyloan shell-lend >kept; cat kept; exit 9"]).run();
    output.refused(9, "standard output is no pipe");
    assert_eq!(files_with(&sandbox.path("project"), CANARY), 0);
    let terminal = Terminal::open(&sandbox);
    terminal.run("keyloan shell-lend; echo ended $?");
    let shown = terminal.expect("ended 2");
    assert!(shown.contains("standard output is no pipe") && !shown.contains(CANARY), "{shown}");
}

#[test]
fn an_environment_that_lies_about_loans_takes_no_more_than_variables() {
    let sandbox = with_sets();
    let mark = sandbox.path("project/evaluated");
    for shell in &SHELLS {
        let lie = "/nowhere/1-1-1\t/nowhere\t$(touch evaluated)\tA$(touch evaluated) B\n/nowhere/2-2-2\t/\tx\tMINE\n";
        let check = if shell.name == "fish" {
            "__keyloan_hook; set -q MINE; or echo gone"
        } else {
            "__keyloan_hook; echo \"${MINE-gone}\""
        };
        let script = format!(
            "{}{check}\n",
            match shell.name {
                "fish" => "keyloan shell fish | source\n".to_owned(),
                name => format!("eval \"$(keyloan shell {name})\"\n"),
            }
        );
        let run = sandbox.command(needed(shell.name), &["-c", &script]);
        let output = run.env("KEYLOAN_SHELL", lie).env("MINE", "mine").run();
        assert!(output.text().contains("gone"), "{output:?}");
        assert!(!mark.exists(), "{}", shell.name);
    }
}

#[test]
fn another_program_cannot_take_over_the_loan_of_a_shell() {
    let sandbox: Sandbox = with_sets();
    sandbox.policy("env=ask");
    let kept = sandbox.path("home/questions");
    sandbox.set_approver(keyloan_e2e::approver::keeping(&kept));
    // Who asks is the parent of the asking process, whatever that says: here a python, and no shell.
    let ask = "import os, subprocess; out = subprocess.run(['keyloan', 'shell-lend'], stdout=subprocess.PIPE, \
               env={**os.environ, 'SHELL': '/bin/bash', 'KEYLOAN_SHELL': 'x'}).stdout; print(out.split(b'\\0')[0].decode())";
    let output = crate::attack(&sandbox, ask, &[]).ok();
    assert_eq!(output.text(), "0\n");
    let question = keyloan_e2e::approver::questions(&kept).remove(0);
    let (to, certainty) = question.line("to").unwrap();
    assert!(to.contains("python") && certainty == "seen", "{to}");
    // With its parent the loan is over.
    eventually("it has ended", || sandbox.events("loan_ended").len() == 1);
}
