//! `with-secrets`: asks, receives, and becomes the command.

use keyloan_e2e::programs::{bin, needed};
use keyloan_e2e::sandbox::finished;
use keyloan_e2e::{Sandbox, approver, eventually};
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

#[test]
fn a_trusted_file_and_a_yes_lend_to_the_command() {
    let sandbox = Sandbox::with_token(b"tok");
    let lent = sandbox.with_secrets(&["--", "printenv", "TWINE_PASSWORD"]).run().ok();
    assert_eq!((lent.text().as_str(), lent.stderr.as_str()), ("tok\n", ""));
    let literal = sandbox.keyloan(&["run", "--", "printenv", "TWINE_USERNAME"]).run().ok();
    assert_eq!(literal.text(), "__token__\n");
}

#[test]
fn without_a_yes_nothing_is_lent() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.set_approver(approver::DENY);
    let refused = sandbox.with_secrets(&["--", "printenv", "TWINE_PASSWORD"]).run();
    assert!(refused.stdout.is_empty());
    refused.refused(125, "it was declined");
    assert!(sandbox.events("lent").is_empty());
}

#[test]
fn a_file_that_is_not_trusted_is_not_used() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    sandbox.write("project/.keyloan.toml", "[env]\nA = \"local://pypi/token\"\n");
    sandbox.with_secrets(&["--", "true"]).run().refused(125, "is not trusted");
}

#[test]
fn the_commands_own_end_is_the_end() {
    let sandbox = Sandbox::with_token(b"tok");
    for status in [0, 1, 7, 255] {
        let line = format!("exit {status}");
        assert_eq!(sandbox.with_secrets(&["--", "sh", "-c", &line]).run().status, status);
    }
    for signal in [1, 9, 13, 15] {
        let line = format!("kill -{signal} $$");
        assert_eq!(sandbox.with_secrets(&["--", "sh", "-c", &line]).run().signal, Some(signal));
    }
}

#[test]
fn a_hundred_runs_all_end_as_they_should() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.policy("env=allow");
    for run in 0..100 {
        let line = format!("exit {}", run % 5);
        assert_eq!(sandbox.with_secrets(&["--", "sh", "-c", &line]).run().status, run % 5);
    }
    assert_eq!(sandbox.events("lent").len(), 100);
    eventually("every loan ends", || sandbox.events("loan_ended").len() == 100);
}

/// What a command finds of itself, with and without keyloan before it.
fn process_state(sandbox: &Sandbox, before: &str, with_secrets: bool) -> String {
    let look = "grep -E '^Sig(Ign|Blk|Cgt)' /proc/self/status; ls /proc/self/fd | wc -l; umask; pwd";
    let prefix = if with_secrets { "with-secrets --" } else { "" };
    let line = format!("{before} exec {prefix} sh -c \"{look}\"");
    sandbox.command("/bin/sh", &["-c", &line]).run().ok().text()
}

#[test]
fn the_command_finds_signals_and_descriptors_as_without_keyloan() {
    let sandbox = Sandbox::with_token(b"tok");
    for before in ["", "trap '' PIPE;", "trap '' PIPE HUP; umask 027;", "exec 7</dev/null;"] {
        assert_eq!(process_state(&sandbox, before, true), process_state(&sandbox, before, false), "{before}");
    }
}

#[test]
fn the_command_keeps_the_pid_and_standard_input() {
    let sandbox = Sandbox::with_token(b"tok");
    let child = sandbox.with_secrets(&["--", "sh", "-c", "echo $$; cat"]).stdin("from the caller").start();
    let pid = child.id();
    assert_eq!(finished(child).text(), format!("{pid}\nfrom the caller"));
}

#[test]
fn a_loan_lasts_as_long_as_its_holder() {
    let sandbox = Sandbox::with_token(b"tok");
    let mut child = sandbox.with_secrets(&["--", "cat"]).start();
    let loans = || {
        let loans = sandbox.keyloan(&["loans", "--json"]).run().ok();
        serde_json::from_slice::<serde_json::Value>(&loans.stdout).unwrap()
    };
    eventually("the loan is out", || loans().as_array().unwrap().len() == 1);
    assert_eq!(loans()[0]["pid"], child.id());
    child.stdin.take().unwrap().write_all(b"done").unwrap();
    assert_eq!(finished(child).text(), "done");
    eventually("the loan has ended", || loans().as_array().unwrap().is_empty());
    assert_eq!(sandbox.events("loan_ended")[0]["why"], "the process ended");
}

#[test]
fn arguments_and_values_of_any_bytes_arrive_exactly() {
    let value = b"\xff\xfe 'quoted' $HOME `x`\n*\ttwo\xc3\xa4";
    let sandbox = Sandbox::with_token(value);
    let shown = sandbox.with_secrets(&["--", "printenv", "TWINE_PASSWORD"]).run().ok();
    assert_eq!(shown.stdout, [value.as_slice(), b"\n"].concat());
    let arguments = ["--", "printf", "%s|%s", "caf\u{e9}", ""].map(OsStr::new);
    let raw = OsStr::from_bytes(b"\xff\x01");
    let shown = sandbox.with_secrets(&[&arguments[..3], &[raw, OsStr::new("x y")]].concat()).run().ok();
    assert_eq!(shown.stdout, b"\xff\x01|x y");
}

#[test]
fn several_sets_are_merged_and_later_ones_win() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let vars = "# the staging set\nA=1\n\nB==two words\nLD_PRELOAD=/tmp/x.so\n";
    sandbox.keyloan(&["item", "set", "staging", "vars"]).stdin(vars).run().ok();
    sandbox.write(
        "project/.keyloan.toml",
        "[sets.deploy.env]\nB = { value = \"file\" }\nC = { value = \"c\" }\n",
    );
    sandbox.keyloan(&["trust"]).run().ok();
    let show = ["--", "sh", "-c", "echo \"$A|$B|$C|$LD_PRELOAD\""];
    let run = |sets: &[&str]| {
        let run = sandbox.with_secrets(&[sets, &show].concat()).run().ok();
        (run.text(), run.stderr)
    };
    let (lent, said) = run(&["-s", "staging", "-s", "deploy"]);
    assert_eq!(lent, "1|file|c|\n");
    assert!(said.contains("LD_PRELOAD of item 'staging' is not lent"), "{said}");
    assert_eq!(run(&["-s", "deploy", "-s", "staging"]).0, "1|=two words|c|\n");
    assert_eq!(run(&["-s", "staging", "-s", "deploy", "--only", "C"]).0, "||c|\n");
    sandbox.with_secrets(&["-s", "deploy", "--only", "X", "--", "true"]).run().refused(125, "has X");
    sandbox.keyloan(&["item", "set", "deploy", "vars"]).stdin("A=1").run().ok();
    sandbox.with_secrets(&["-s", "deploy", "--", "true"]).run().refused(125, "is a set of");
}

#[test]
fn an_item_titled_with_the_directory_is_its_set() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    sandbox.make_directory("home/coverage");
    let inner = sandbox.make_directory("home/coverage/src");
    sandbox.keyloan(&["item", "set", "~/coverage", "vars"]).stdin("TOKEN=of the directory").run().ok();
    let show = ["--", "printenv", "TOKEN"];
    let shown = sandbox.with_secrets(&show).within(&inner).run().ok();
    assert_eq!(shown.text(), "of the directory\n");
    sandbox.with_secrets(&show).run().refused(125, "nothing is set for this directory");
    // A stranger's clone inside it inherits nothing.
    sandbox.make_directory("home/coverage/src/.git");
    sandbox.with_secrets(&show).within(&inner).run().refused(125, "nothing is set for this directory");
}

#[test]
fn a_dry_run_tells_everything_but_the_value() {
    let sandbox = Sandbox::with_token(b"tok-secret");
    let run = sandbox.with_secrets(&["--dry-run", "--", "printenv"]);
    let told = run.env("HTTPS_PROXY", "http://elsewhere").env("PYTHONPATH", "/x").run().ok().text();
    for part in [
        "TWINE_PASSWORD  from local://pypi/token, asked for by [env] of ",
        "to: /usr/bin/printenv",
        "steering the command: HTTPS_PROXY, PYTHONPATH (--clean-env drops them)",
        "decision: ask (env=ask)",
    ] {
        assert!(told.contains(part), "'{part}' is not in:\n{told}");
    }
    assert!(!told.contains("tok-secret"));
    assert!(sandbox.events("lent").is_empty());
    let json = sandbox.with_secrets(&["--dry-run", "--json"]).run().ok();
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["variables"][0]["from"], "local://pypi/token");
}

#[test]
fn clean_env_drops_what_steers_and_nothing_else() {
    let sandbox = Sandbox::with_token(b"tok");
    let show = "echo \"$HTTPS_PROXY|$LANG|$TWINE_PASSWORD\"";
    let run = |arguments: &[&str]| {
        let all = [arguments, &["--", "sh", "-c", show]].concat();
        sandbox.with_secrets(&all).env("HTTPS_PROXY", "p").run().ok().text()
    };
    assert_eq!(run(&[]), "p|C.UTF-8|tok\n");
    assert_eq!(run(&["--clean-env"]), "|C.UTF-8|tok\n");
}

#[test]
fn the_question_says_what_to_whom_where_and_how_sure_that_is() {
    let sandbox = Sandbox::with_token(b"tok");
    let kept = sandbox.path("project/question");
    sandbox.set_approver(approver::recording(&kept));
    let run = sandbox.with_secrets(&["--", "sh", "-c", "true #\u{1b}[2J"]);
    run.env("HTTPS_PROXY", "http://x").run().ok();
    let question: serde_json::Value = serde_json::from_slice(&std::fs::read(&kept).unwrap()).unwrap();
    let lines = question["lines"].as_array().unwrap();
    let line = |label: &str| {
        let line = lines.iter().find(|line| line["label"] == label).unwrap();
        (line["text"].as_str().unwrap().to_owned(), line["certainty"].as_str().unwrap().to_owned())
    };
    assert_eq!(question["title"], "lend 2 variables to a command");
    assert!(line("lends").0.contains("TWINE_PASSWORD  from local://pypi/token"));
    assert_eq!(line("lends").1, "verified");
    assert_eq!(line("to").1, "claimed");
    assert_eq!(line("command"), ("sh -c 'true #\\u{1b}[2J'".to_owned(), "claimed".to_owned()));
    assert_eq!(
        line("warning"),
        ("the environment steers the command: HTTPS_PROXY".to_owned(), "seen".to_owned())
    );
    let directory = sandbox.path("project").display().to_string();
    assert_eq!(line("in"), (directory, "seen".to_owned()));
    let asked_by = line("asked by");
    assert!(asked_by.0.contains(bin().to_str().unwrap()) && asked_by.1 == "seen", "{asked_by:?}");
    assert!(!question.to_string().contains("\"tok\""));
}

#[test]
fn one_item_that_holds_several_values_lends_each() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    for (field, value) in [("user", "u"), ("a/b", "slash")] {
        sandbox.keyloan(&["item", "set", "web/x", field]).stdin(value).run().ok();
    }
    sandbox
        .write("project/.keyloan.toml", "[env]\nU = \"local://web/x/user\"\nS = \"local://web/x/a%2Fb\"\n");
    sandbox.keyloan(&["trust"]).run().ok();
    let lent = sandbox.with_secrets(&["--", "sh", "-c", "echo $U $S"]).run().ok();
    assert_eq!(lent.text(), "u slash\n");
    let listed = sandbox.keyloan(&["item", "list", "--references"]).run().ok().text();
    assert_eq!(listed, "local://web/x/user\nlocal://web/x/a%2Fb\n");
}

#[test]
fn a_script_without_an_interpreter_line_runs_as_from_a_shell() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.write_program("project/plain", "echo $TWINE_PASSWORD $1\n");
    let by_hand = sandbox.prepared(shell("./plain x")).run().ok();
    assert_eq!(by_hand.text(), "x\n");
    assert_eq!(sandbox.with_secrets(&["--", "./plain", "x"]).run().ok().text(), "tok x\n");
}

fn shell(line: &str) -> Command {
    let mut command = Command::new(needed("sh"));
    command.args(["-c", line]);
    command
}
