//! The shells as people have set them up, and what a loan is to everything that is started from one.

use keyloan_e2e::programs::needed;
use keyloan_e2e::shell::{BASH, CANARY, FISH, SHELLS, Shell, ZSH, markers, out, until_unmarked, with_sets};
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{Sandbox, eventually};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// The whole life of a loan, in whatever shell the terminal shows.
fn works(sandbox: &Sandbox, terminal: &Terminal<'_>) {
    terminal.run("opvars");
    terminal.expect("\nset: PLAIN TOKEN\n");
    terminal.run("opvars second");
    terminal.expect("\nset: SECOND\nstill set: PLAIN TOKEN\n");
    terminal.run("printenv TOKEN");
    terminal.expect(CANARY);
    terminal.run("unopvars SECOND");
    terminal.expect("\nremoved: SECOND\n");
    // An empty line: some settings end the shell with the first command that fails.
    sandbox.keyloan(&["recall", "--all"]).run().ok();
    until_unmarked(sandbox);
    terminal.press("Enter");
    terminal.expect("keyloan: removed: PLAIN TOKEN (recalled)");
    terminal.run("echo \"<${TOKEN:-none}>\"");
    terminal.expect("\n<none>\n");
    terminal.run("unopvars");
    terminal.expect("\nnothing set\n");
}

fn in_settings(shell: &Shell, settings: &[&str]) {
    let sandbox = with_sets();
    for setting in settings {
        for (before, after) in [(*setting, ""), ("", *setting)] {
            shell.set_up(&sandbox, before, after);
            let terminal = shell.open(&sandbox);
            if shell.name == "fish" {
                works_in_fish(&sandbox, &terminal);
            } else {
                works(&sandbox, &terminal);
            }
        }
    }
}

fn works_in_fish(sandbox: &Sandbox, terminal: &Terminal<'_>) {
    terminal.run("opvars; opvars second");
    terminal.expect("\nset: SECOND\nstill set: PLAIN TOKEN\n");
    terminal.run("printenv TOKEN");
    terminal.expect(CANARY);
    sandbox.keyloan(&["recall", "--all"]).run().ok();
    until_unmarked(sandbox);
    terminal.press("Enter");
    terminal.expect("keyloan: removed: PLAIN TOKEN (recalled)");
    terminal.run("unopvars");
    terminal.expect("\nnothing set\n");
}

#[test]
fn bash_with_strict_and_odd_settings() {
    in_settings(
        &BASH,
        &[
            "set -u",
            "set -eu -o pipefail",
            "set -x",
            "set -a",
            "set -o noclobber",
            "set -o vi",
            "set -o functrace -o errtrace; trap : DEBUG ERR RETURN",
            "IFS=/a:0",
            "shopt -s nullglob failglob extglob nocasematch",
            "BASH_COMPAT=3.2; set -eu",
            "PROMPT_COMMAND='true; false'",
        ],
    );
}

#[test]
fn zsh_with_strict_and_odd_settings() {
    in_settings(
        &ZSH,
        &[
            "setopt no_unset",
            "setopt err_return no_unset",
            "setopt xtrace",
            "setopt all_export",
            "setopt no_clobber",
            "bindkey -v",
            "setopt ksh_arrays sh_word_split glob_subst",
            "setopt warn_create_global warn_nested_var null_glob extended_glob",
            "IFS=/a:0",
            "precmd() { true; }; other() { false; }; precmd_functions=(other)",
        ],
    );
}

#[test]
fn fish_with_odd_settings() {
    in_settings(
        &FISH,
        &[
            "fish_vi_key_bindings",
            "set -g fish_trace 1",
            "function mine --on-event fish_prompt; false; end",
            "set -g IFS /",
            "set -gx TOKEN before; set -e TOKEN",
        ],
    );
}

#[test]
fn what_other_programs_hang_on_the_prompt_goes_on() {
    let sandbox = with_sets();
    let cases = [
        (&BASH, "PROMPT_COMMAND='echo \"status-$?\"'"),
        (&BASH, "PROMPT_COMMAND=('echo \"status-$?\"' 'echo second-one')"),
        (&ZSH, "mine() { echo \"status-$?\"; }; precmd_functions=(mine)"),
        (&FISH, "function mine --on-event fish_prompt; echo status-$status; end"),
    ];
    for (shell, hook) in cases {
        shell.set_up(&sandbox, hook, "");
        let terminal = shell.open(&sandbox);
        terminal.run("opvars");
        terminal.expect("\nset: PLAIN TOKEN\n");
        terminal.run("sh -c 'exit 7'");
        terminal.expect("\nstatus-7\n");
        terminal.run("unopvars");
        terminal.expect("\nremoved: PLAIN TOKEN\n");
    }
}

#[test]
fn a_start_up_file_that_is_read_again_keeps_what_is_lent() {
    let sandbox = with_sets();
    for (shell, again) in
        [(&BASH, ". ~/.bashrc"), (&ZSH, ". ~/.zshrc"), (&FISH, "source ~/.config/fish/config.fish")]
    {
        let terminal = shell.opened(&sandbox);
        terminal.run(&shell.export("PLAIN", "before"));
        terminal.run("opvars");
        terminal.expect("\nset: PLAIN TOKEN\n");
        terminal.run(again);
        terminal.run("unopvars; printenv PLAIN");
        terminal.expect("\nremoved: PLAIN TOKEN\nbefore\n");
    }
}

#[test]
fn a_shell_without_a_home_or_with_one_that_cannot_be_written() {
    let sandbox = with_sets();
    for shell in &SHELLS {
        shell.set_up(&sandbox, "", "");
        let home = sandbox.path("home");
        // Its own start-up file is found all the same: the shell is told where.
        let line = match shell.name {
            "bash" => format!("bash --rcfile {}/.bashrc -i", home.display()),
            "zsh" => format!("env ZDOTDIR={} zsh -i", home.display()),
            _ => format!("env XDG_CONFIG_HOME={0}/.config fish -i", home.display()),
        };
        // The daemon runs already; without HOME it is found by the runtime directory.
        let terminal = Terminal::open_with(&sandbox, &format!("env -u HOME {line}"));
        terminal.run("opvars second; unopvars");
        terminal.expect("\nremoved: SECOND\n");
        drop(terminal);
        let read_only =
            |mode: &str| sandbox.command(needed("chmod"), &[mode, home.to_str().unwrap()]).run().ok();
        read_only("500");
        let terminal = Terminal::open_with(&sandbox, &line);
        terminal.run("opvars; printenv TOKEN");
        terminal.expect(CANARY);
        read_only("700");
    }
}

#[test]
fn a_subshell_can_do_without_and_ends_nothing() {
    for shell in [&BASH, &ZSH] {
        let sandbox = with_sets();
        let terminal = shell.opened(&sandbox);
        terminal.run("opvars");
        terminal.expect("\nset: PLAIN TOKEN\n");
        terminal.run("(unopvars; echo \"in <$TOKEN>\")");
        terminal.expect("\nremoved: PLAIN TOKEN\nin <>\n");
        // Looking makes the daemon take back what shells say they gave back.
        assert!(sandbox.keyloan(&["loans"]).run().ok().text().contains("TOKEN"));
        terminal.run("echo \"out <$TOKEN>\"");
        terminal.expect(&format!("\nout <{CANARY}>\n"));
        // A loan to the subshell alone ends with it.
        terminal.run("(opvars second; printenv SECOND); echo \"then <$SECOND>\"");
        terminal.expect("\nzwei\nthen <>\n");
        eventually("only the outer loan is left", || markers(&sandbox).len() == 1);
    }
}

#[test]
fn a_shell_that_becomes_another_keeps_its_loan_and_the_other_ends_it() {
    for (from, to) in [(&BASH, &ZSH), (&ZSH, &FISH), (&FISH, &BASH)] {
        let sandbox = with_sets();
        to.set_up(&sandbox, "", "");
        let terminal = from.opened(&sandbox);
        terminal.run("opvars");
        terminal.expect("\nset: PLAIN TOKEN\n");
        terminal.run(&format!("exec {}", to.command()));
        terminal.expect("ready>");
        terminal.run("printenv TOKEN KEYLOAN_PROMPT");
        terminal.expect(&format!("\n{CANARY}\n**\n"));
        assert_eq!(out(&sandbox), 1, "the process is the same");
        sandbox.keyloan(&["recall", "--all"]).run().ok();
        terminal.press("Enter");
        terminal.expect("keyloan: removed: PLAIN TOKEN (recalled)");
    }
}

#[test]
fn a_shell_started_from_one_loses_what_the_outer_one_loses() {
    let sandbox = with_sets();
    for shell in &SHELLS {
        let terminal = shell.opened(&sandbox);
        terminal.run("opvars");
        terminal.expect("\nset: PLAIN TOKEN\n");
        terminal.run(&shell.command());
        terminal.expect("ready>");
        // It can drop them for itself, and the outer one has them still.
        terminal.run("unopvars");
        terminal.expect("\nremoved: PLAIN TOKEN\n");
        terminal.run("exit");
        terminal.expect("ready>");
        terminal.run("printenv TOKEN");
        terminal.expect(&format!("\n{CANARY}\n"));
        terminal.run(&shell.command());
        terminal.expect("ready>");
        sandbox.keyloan(&["recall", "--all"]).run().ok();
        terminal.press("Enter");
        terminal.expect("keyloan: removed: PLAIN TOKEN (recalled)");
    }
}

#[test]
fn a_job_in_the_background_has_what_it_was_started_with_and_is_said_to() {
    let sandbox = with_sets();
    for shell in &SHELLS {
        let terminal = shell.opened(&sandbox);
        terminal.run("opvars");
        terminal.expect("\nset: PLAIN TOKEN\n");
        terminal.run("sleep 600 &");
        terminal.run("unopvars");
        terminal.expect("\nremoved: PLAIN TOKEN\n");
        let mut told = String::new();
        eventually("the job is found", || {
            told = sandbox.keyloan(&["loans"]).run().ok().text();
            told.contains("(/usr/bin/sleep)")
        });
        assert!(told.contains("the shell says that it gave it back, still held by pid"), "{told}");
        assert!(!told.contains(&format!("(/usr/bin/{})", shell.name)), "the shell has nothing: {told}");
        drop(terminal);
        sandbox.keyloan(&["recall", "--all", "--kill"]).run().ok();
    }
}

#[test]
fn another_pane_of_tmux_has_nothing() {
    let sandbox = with_sets();
    for shell in &SHELLS {
        let terminal = shell.opened(&sandbox);
        terminal.run("opvars");
        terminal.expect("\nset: PLAIN TOKEN\n");
        terminal.tmux(&["split-window", "-d", "printenv TOKEN >pane 2>&1; echo over >>pane"]).ok();
        eventually("the pane is over", || {
            fs::read_to_string(sandbox.path("project/pane")).is_ok_and(|text| text == "over\n")
        });
        fs::remove_file(sandbox.path("project/pane")).unwrap();
        // But a tmux that is started from such a shell passes them on to all of its panes.
        terminal
            .run("tmux -L inner -f /dev/null new-session -d 'printenv TOKEN >pane 2>&1; echo over >>pane'");
        eventually("the pane is over", || {
            fs::read_to_string(sandbox.path("project/pane"))
                .is_ok_and(|text| text == format!("{CANARY}\nover\n"))
        });
        fs::remove_file(sandbox.path("project/pane")).unwrap();
    }
}

/// In a shell of root's, since the user of the tests may not use sudo; keyloan runs as that user.
#[test]
fn sudo_leaves_what_was_lent_behind_unless_it_is_told_not_to() {
    let (user, group) = keyloan_e2e::sandbox::user().expect("only root uses sudo without a password");
    let sandbox = with_sets();
    sandbox.make_directory("run/as-user");
    let keyloan = keyloan_e2e::programs::bin().join("keyloan");
    let as_user = format!("{} --reuid={user} --regid={group} --clear-groups", needed("setpriv").display());
    let text = format!("#!/bin/sh\nexec {as_user} {} \"$@\"\n", keyloan.display());
    let wrapper = sandbox.write("run/as-user/keyloan", text);
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", sandbox.path("run/as-user").display());
    let sudo = needed("sudo");
    for shell in &SHELLS {
        let load = match shell.name {
            "fish" => "keyloan shell fish | source".to_owned(),
            name => format!("eval \"$(keyloan shell {name})\""),
        };
        let script = format!(
            "{load}\nopvars\nprintenv TOKEN\n{0} -n printenv TOKEN || echo nothing\n{0} -n -E printenv TOKEN\nunopvars\n",
            sudo.display()
        );
        let mut command = std::process::Command::new(needed(shell.name));
        command.args(["-c", &script]).env_clear().envs(sandbox.environment()).env("PATH", &path);
        let output = command.current_dir(sandbox.path("project")).output().unwrap();
        let told = format!("set: PLAIN TOKEN\n{CANARY}\nnothing\n{CANARY}\nremoved: PLAIN TOKEN\n");
        assert_eq!(String::from_utf8_lossy(&output.stdout), told, "{}: {output:?}", shell.name);
    }
}

#[test]
fn what_a_shell_keeps_as_something_else_is_not_touched() {
    let sandbox = with_sets();
    let cases = [
        (&BASH, "readonly TOKEN=fixed", "echo \"<$TOKEN>\"", "<fixed>"),
        (&BASH, "declare -a TOKEN=(one two)", "echo \"<${TOKEN[1]}>\"", "<two>"),
        (&ZSH, "readonly TOKEN=fixed", "echo \"<$TOKEN>\"", "<fixed>"),
        (&ZSH, "typeset -a TOKEN=(one two)", "echo \"<${TOKEN[2]}>\"", "<two>"),
    ];
    for (shell, before, show, shown) in cases {
        shell.set_up(&sandbox, "", before);
        let terminal = shell.open(&sandbox);
        terminal.run("opvars; echo en''ded $?");
        let said = terminal.expect("ended 2");
        assert!(said.contains("keyloan: cannot set TOKEN in this shell"), "{said}");
        terminal.run(&format!("{show}; echo \"plain <$PLAIN>\""));
        terminal.expect(&format!("\n{shown}\nplain <>\n"));
        eventually("the loan is given back", || {
            sandbox.keyloan(&["loans"]).run().ok().stderr.contains("nothing is lent")
        });
    }
}
