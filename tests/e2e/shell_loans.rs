//! `opvars` and `unopvars` in the real shells, with real prompts: one set of scenarios for all of them.

use keyloan_e2e::shell::{
    BASH, BASH_3_2, CANARY, FISH, Shell, ZSH, markers, odd_value, out, until_unmarked, with_sets,
};
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{PIN, approver, eventually};

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
    assert!(shown.contains("\nremoved: BIG ODD PLAIN SECOND TOKEN\n"), "{shown}");
    for name in
        ["TOKEN", "SECOND", "ODD", "BIG", "KEYLOAN_PROMPT", "KEYLOAN_VARS", "KEYLOAN_LOAN", "KEYLOAN_SHELL"]
    {
        assert_eq!(value(&terminal, shell, name), None, "{name}");
    }
    assert_eq!(value(&terminal, shell, "PLAIN").as_deref(), Some("before"));
    for again in ["unopvars", "deopvars"] {
        assert!(told(&terminal, shell, again).contains("\nnothing set\n"));
    }
}

fn values_are_exact_and_nothing_of_them_is_evaluated(shell: &Shell) {
    let sandbox = with_sets();
    let terminal = shell.opened(&sandbox);
    assert!(told(&terminal, shell, "opvars odd").contains("\nset: BIG ODD\n"));
    told(&terminal, shell, "sh -c 'printf %s \"$ODD\" >odd; printf %s \"$BIG\" >big'");
    let held = |name: &str| std::fs::read(sandbox.path("project").join(name)).unwrap();
    assert!(held("odd") == odd_value(), "{:?}", String::from_utf8_lossy(&held("odd")));
    let big: Vec<u8> = odd_value().into_iter().cycle().take(100 * 1024).collect();
    assert!(held("big") == big, "{} bytes", held("big").len());
    // And again as what a variable had before.
    told(&terminal, shell, "rm odd; opvars odd; unopvars ODD; opvars odd");
    told(&terminal, shell, "sh -c 'printf %s \"$ODD\" >odd'");
    assert!(held("odd") == odd_value());
    assert!(!sandbox.path("project/evaluated").exists() && !sandbox.path("home/evaluated").exists());
}

fn a_set_that_is_titled_with_a_directory_works_as_its_users_know_it(shell: &Shell) {
    let sandbox = with_sets();
    sandbox.make_directory("home/titled");
    let terminal = shell.opened(&sandbox);
    assert!(told(&terminal, shell, "cd ~/titled; opvars").contains("\nset: FIRST OTHER\n"));
    assert_eq!(value(&terminal, shell, "FIRST").as_deref(), Some("one = 1"));
    assert_eq!(value(&terminal, shell, "OTHER").as_deref(), Some("\"quoted\""));
    assert!(told(&terminal, shell, "deopvars").contains("\nremoved: FIRST OTHER\n"));
    // As an argument the shell makes a path of it, or does not.
    assert!(told(&terminal, shell, "cd /; opvars ~/titled").contains("\nset: FIRST OTHER\n"));
    assert!(told(&terminal, shell, "unopvars; opvars '~/titled'").contains("\nset: FIRST OTHER\n"));
}

fn what_fails_sets_nothing_and_keeps_what_was(shell: &Shell) {
    let sandbox = with_sets();
    let terminal = shell.opened(&sandbox);
    told(&terminal, shell, "opvars second");
    let shown = told(&terminal, shell, "opvars again nosuch");
    assert!(shown.contains("there is no set 'nosuch'") && shown.contains("ended 2."), "{shown}");
    let shown = told(&terminal, shell, "opvars --nosuch");
    assert!(shown.contains("unexpected argument") && shown.contains("ended 2."), "{shown}");
    let shown = told(&terminal, shell, "opvars --help");
    assert!(shown.contains("Usage: opvars [OPTIONS] [SET]...") && shown.contains("ended 0."), "{shown}");
    let shown = told(&terminal, shell, "opvars own");
    assert!(shown.contains("HISTFILE is not lent to a shell") && shown.contains("ended 2."), "{shown}");
    sandbox.policy("env=deny");
    assert!(told(&terminal, shell, "opvars").contains("ended 5."));
    sandbox.policy("env=ask");
    sandbox.set_approver(approver::DENY);
    assert!(told(&terminal, shell, "opvars").contains("ended 6."));
    assert_eq!(value(&terminal, shell, "TOKEN"), None);
    assert_eq!(value(&terminal, shell, "SECOND").as_deref(), Some("zwei"));
    let shown = told(&terminal, shell, "unopvars NONE SECOND");
    assert!(shown.contains("removed: SECOND") && shown.contains("not set by opvars: NONE"), "{shown}");
    assert!(shown.contains("ended 1."), "{shown}");
}

fn a_loan_ends_at_its_time_and_the_next_prompt_says_so(shell: &Shell) {
    let sandbox = with_sets();
    let terminal = shell.opened(&sandbox);
    told(&terminal, shell, "opvars; opvars short");
    assert_eq!(value(&terminal, shell, "SHORT").as_deref(), Some(CANARY));
    eventually("its time is up", || markers(&sandbox).len() == 1);
    terminal.press("Enter");
    terminal.expect("keyloan: removed: SHORT (its time is up)");
    assert_eq!(value(&terminal, shell, "SHORT"), None);
    assert_eq!(value(&terminal, shell, "TOKEN").as_deref(), Some(CANARY), "the other set goes on");
    let minutes = sandbox.keyloan(&["loans"]).run().ok().text();
    assert!(minutes.contains("TOKEN") && minutes.contains("for another "), "{minutes}");
    let loans = sandbox.keyloan(&["loans", "--json"]).run().ok();
    let loans: serde_json::Value = serde_json::from_slice(&loans.stdout).unwrap();
    let left = loans[0]["seconds_left"].as_u64().unwrap();
    assert!((800..=900).contains(&left), "15 minutes where nothing is said: {left}");
    told(&terminal, shell, "unopvars; opvars --for 2h");
    let loans = sandbox.keyloan(&["loans", "--json"]).run().ok();
    let loans: serde_json::Value = serde_json::from_slice(&loans.stdout).unwrap();
    assert!(loans[0]["seconds_left"].as_u64().unwrap() > 7000, "{loans}");
}

fn lock_and_recall_reach_the_next_prompt(shell: &Shell) {
    let sandbox = with_sets();
    let terminal = shell.opened(&sandbox);
    told(&terminal, shell, &format!("{}; opvars", shell.export("PLAIN", "before")));
    sandbox.keyloan(&["lock"]).run().ok();
    assert!(markers(&sandbox).is_empty());
    terminal.press("Enter");
    terminal.expect("keyloan: removed: PLAIN TOKEN (the vault was locked)");
    assert_eq!(value(&terminal, shell, "TOKEN"), None);
    assert_eq!(value(&terminal, shell, "PLAIN").as_deref(), Some("before"));
    sandbox.unlock().ok();
    told(&terminal, shell, "opvars second; opvars");
    sandbox.keyloan(&["recall", "--all"]).run().ok();
    terminal.press("Enter");
    terminal.expect("keyloan: removed: PLAIN TOKEN (recalled)");
    assert_eq!(value(&terminal, shell, "SECOND"), None);
    // The shell has said that it has nothing any more.
    eventually("nothing is lent", || {
        sandbox.keyloan(&["loans"]).run().ok().stderr.contains("nothing is lent")
    });
}

fn leaving_the_directory_ends_what_is_for_it_alone(shell: &Shell) {
    let sandbox = with_sets();
    sandbox.make_directory("project/below");
    std::os::unix::fs::symlink(sandbox.path("project/below"), sandbox.path("home/link")).unwrap();
    let terminal = shell.opened(&sandbox);
    told(&terminal, shell, "opvars; opvars here");
    told(&terminal, shell, "cd below");
    assert_eq!(value(&terminal, shell, "HERE").as_deref(), Some(CANARY));
    // The same directory by another name.
    told(&terminal, shell, "cd ~/link");
    assert_eq!(value(&terminal, shell, "HERE").as_deref(), Some(CANARY));
    terminal.run("cd ..");
    terminal.expect("keyloan: removed: HERE (this shell left ");
    assert_eq!(value(&terminal, shell, "HERE"), None);
    assert_eq!(value(&terminal, shell, "TOKEN").as_deref(), Some(CANARY));
    eventually("the daemon knows", || {
        out(&sandbox) == 1 || {
            sandbox.keyloan(&["loans"]).run();
            false
        }
    });
}

fn a_shell_that_dies_ends_its_loans(shell: &Shell) {
    let sandbox = with_sets();
    let terminal = shell.opened(&sandbox);
    told(&terminal, shell, "opvars; opvars second");
    let loans = sandbox.keyloan(&["loans", "--json"]).run().ok();
    let loans: serde_json::Value = serde_json::from_slice(&loans.stdout).unwrap();
    assert!(loans[0]["program"].as_str().unwrap().ends_with(shell.name), "{loans}");
    let pid = i32::try_from(loans[0]["pid"].as_i64().unwrap()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    until_unmarked(&sandbox);
    eventually("no loan is out", || out(&sandbox) == 0);
    let ended: Vec<_> = sandbox.events("loan_ended").iter().map(|event| event["why"].to_string()).collect();
    assert_eq!(ended, ["\"the process ended\""; 2]);
}

fn a_daemon_that_is_killed_or_started_anew_leaves_no_loan(shell: &Shell) {
    let sandbox = with_sets();
    let terminal = shell.opened(&sandbox);
    told(&terminal, shell, "opvars");
    let daemon = nix::unistd::Pid::from_raw(sandbox.daemon().unwrap());
    nix::sys::signal::kill(daemon, nix::sys::signal::Signal::SIGKILL).unwrap();
    eventually("it is gone", || !std::path::Path::new(&format!("/proc/{daemon}")).exists());
    assert_eq!(markers(&sandbox).len(), 1, "nobody has removed it");
    terminal.press("Enter");
    terminal.expect("keyloan: removed: PLAIN TOKEN (the daemon has ended)");
    assert_eq!(value(&terminal, shell, "TOKEN"), None);
    sandbox.unlock().ok();
    assert!(markers(&sandbox).is_empty(), "the next daemon has");
    told(&terminal, shell, "opvars");
    let daemon = sandbox.daemon().unwrap();
    sandbox.stop();
    eventually("it is gone", || !std::path::Path::new(&format!("/proc/{daemon}")).exists());
    sandbox.unlock().ok();
    terminal.press("Enter");
    // What it said about the end went with it.
    terminal.expect("keyloan: removed: PLAIN TOKEN (the daemon ");
    assert_eq!(value(&terminal, shell, "TOKEN"), None);
}

fn the_question_says_which_shell_and_that_its_children_see_it(shell: &Shell) {
    let sandbox = with_sets();
    sandbox.policy("env=ask");
    let kept = sandbox.path("home/questions");
    sandbox.set_approver(approver::keeping(&kept));
    let terminal = shell.opened(&sandbox);
    told(&terminal, shell, "opvars here second");
    let question = approver::questions(&kept).remove(0);
    assert_eq!(question.title(), "lend 2 variables to a shell");
    let loans = sandbox.keyloan(&["loans", "--json"]).run().ok();
    let loans: serde_json::Value = serde_json::from_slice(&loans.stdout).unwrap();
    let to = format!("/usr/bin/{} (pid {})", shell.name, loans[0]["pid"]);
    question.says("to", &to, "seen");
    question.says("for", "at most 15m", "verified");
    question.says("note", "until then every program that this shell starts gets them, unasked", "verified");
    assert!(question.line("until").unwrap().0.starts_with("the shell leaves /"));
    assert_eq!(question.scopes(), ["once"], "a shell is no command");
    // What the first loan put into the shell's environment is nothing to warn of.
    told(&terminal, shell, "opvars second");
    assert_eq!(approver::questions(&kept).remove(1).line("warning"), None);
    // On the terminal itself, too: the daemon asks there, and the shell goes on.
    sandbox.policy("approver.command=");
    terminal.run("opvars");
    terminal.expect("PIN to allow, Enter alone to decline:");
    terminal.type_text(PIN);
    terminal.press("Enter");
    terminal.expect("\nset: PLAIN TOKEN\n");
    assert_eq!(value(&terminal, shell, "TOKEN").as_deref(), Some(CANARY));
    terminal.run("opvars");
    terminal.expect("PIN to allow, Enter alone to decline:");
    terminal.press("C-c");
    terminal.expect("it was declined");
    assert_eq!(value(&terminal, shell, "TOKEN").as_deref(), Some(CANARY));
}

fn ctrl_c_at_the_question_leaves_all_as_it_was(shell: &Shell) {
    let sandbox = with_sets();
    sandbox.policy("env=ask");
    let terminal = shell.opened(&sandbox);
    told(&terminal, shell, &format!("{}; opvars second", shell.export("PLAIN", "before")));
    let is_as_it_was = || {
        eventually("the question is gone", || sandbox.status()["pending"] == 0);
        assert_eq!(value(&terminal, shell, "TOKEN"), None);
        assert_eq!(value(&terminal, shell, "PLAIN").as_deref(), Some("before"));
        assert_eq!(value(&terminal, shell, "SECOND").as_deref(), Some("zwei"));
        eventually("there is one loan", || {
            sandbox.keyloan(&["loans"]).run().ok();
            (out(&sandbox), markers(&sandbox).len()) == (1, 1)
        });
    };
    // Where another answers, the terminal sends the shell and keyloan a signal.
    sandbox.set_approver(approver::HANG);
    for line in ["opvars", "opvars; opvars"] {
        terminal.run(line);
        eventually("it is asked", || sandbox.status()["pending"] == 1);
        terminal.press("C-c");
        terminal.expect("\nready>");
        is_as_it_was();
    }
    assert_eq!(sandbox.events("lent").len(), 1);
    sandbox.set_approver(approver::ALLOW);
    assert!(told(&terminal, shell, "opvars; unopvars PLAIN TOKEN").contains("\nremoved: PLAIN TOKEN\n"));
    // Where the daemon asks, it reads a key.
    sandbox.policy("approver.command=");
    terminal.run("opvars");
    terminal.expect("PIN to allow, Enter alone to decline:");
    terminal.press("C-c");
    terminal.expect("it was declined");
    terminal.expect("\nready>");
    is_as_it_was();
    sandbox.keyloan(&["lock"]).run().ok();
    told(&terminal, shell, "true");
    terminal.run("opvars");
    terminal.expect("Passphrase, Enter alone to decline:");
    terminal.press("C-c");
    terminal.expect("\nready>");
    eventually("the question is gone", || sandbox.status()["pending"] == 0);
    assert_eq!(value(&terminal, shell, "TOKEN"), None);
    assert_eq!(value(&terminal, shell, "PLAIN").as_deref(), Some("before"));
    assert!(told(&terminal, shell, "unopvars").contains("\nnothing set\n"));
}

fn files_are_lent_to_a_shell_and_go_with_its_loan(shell: &Shell) {
    let sandbox = with_sets();
    let terminal = shell.opened(&sandbox);
    told(&terminal, shell, "opvars kept");
    let path = value(&terminal, shell, "KUBECONFIG").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), CANARY);
    sandbox.keyloan(&["recall", "--all"]).run().ok();
    assert!(!std::path::Path::new(&path).exists());
    told(&terminal, shell, "true");
    assert_eq!(value(&terminal, shell, "KUBECONFIG"), None);
    told(&terminal, shell, "opvars kept");
    let path = value(&terminal, shell, "KUBECONFIG").unwrap();
    told(&terminal, shell, "unopvars");
    eventually("the file is gone", || {
        sandbox.keyloan(&["loans"]).run();
        !std::path::Path::new(&path).exists()
    });
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
            fn in_bash_at_the_level_of_3_2() {
                super::$scenario(&super::BASH_3_2);
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

in_each_shell!(
    story,
    values_are_exact_and_nothing_of_them_is_evaluated,
    a_set_that_is_titled_with_a_directory_works_as_its_users_know_it,
    what_fails_sets_nothing_and_keeps_what_was,
    a_loan_ends_at_its_time_and_the_next_prompt_says_so,
    lock_and_recall_reach_the_next_prompt,
    leaving_the_directory_ends_what_is_for_it_alone,
    a_shell_that_dies_ends_its_loans,
    a_daemon_that_is_killed_or_started_anew_leaves_no_loan,
    the_question_says_which_shell_and_that_its_children_see_it,
    ctrl_c_at_the_question_leaves_all_as_it_was,
    files_are_lent_to_a_shell_and_go_with_its_loan,
);
