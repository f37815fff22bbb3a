//! Commands that cannot run, and surroundings that are missing.

use keyloan_e2e::programs::needed;
use keyloan_e2e::{Sandbox, approver};
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_command_that_cannot_run_is_told_before_anybody_is_asked() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.write("project/plain", "text");
    sandbox.make_directory("project/folder");
    let asked = sandbox.events("requested").len();
    for (command, status, said) in [
        ("no-such-command", 127, "cannot run no-such-command: command not found"),
        ("./no-such-file", 127, "command not found"),
        ("./plain", 126, "Permission denied"),
        ("./folder", 126, "it is a directory"),
        ("", 127, "command not found"),
    ] {
        sandbox.with_secrets(&["--", command]).run().refused(status, said);
    }
    assert_eq!(sandbox.events("requested").len(), asked);
    sandbox.with_secrets(&[""; 0]).run().refused(125, "required arguments were not provided");
    sandbox.keyloan(&["run"]).run().refused(2, "required arguments were not provided");
}

#[test]
fn a_program_with_a_missing_interpreter_ends_with_127_after_the_loan() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.write_program("project/odd", "#!/no/such/interpreter\n");
    let by_hand = sandbox.command("/usr/bin/env", &["./odd"]).run().status;
    assert_eq!(sandbox.with_secrets(&["--", "./odd"]).run().status, by_hand);
    keyloan_e2e::eventually("the loan ends", || sandbox.events("loan_ended").len() == 1);
}

#[test]
fn names_that_cannot_be_meant_are_refused_at_the_command_line() {
    let sandbox = Sandbox::with_vault();
    let long = "x".repeat(257);
    for name in ["", " a", "a\nb", "\u{1b}[31m", &long] {
        assert_eq!(sandbox.keyloan(&["item", "show", name]).run().status, 2, "{name:?}");
    }
    assert_eq!(sandbox.with_secrets(&["--only", "A-B", "--", "true"]).run().status, 125);
    assert_eq!(sandbox.keyloan(&["unlock", "--passphrase-fd", "77"]).run().status, 2);
}

#[test]
fn before_a_vault_is_made_every_command_says_how_to_make_it() {
    let sandbox = Sandbox::empty();
    for arguments in
        [vec!["unlock"], vec!["item", "list"], vec!["item", "get", "a", "b"], vec!["policy", "show"]]
    {
        let refused = sandbox.keyloan(&arguments).run().refused(1, "there is no vault yet");
        assert!(refused.stderr.contains("hint: keyloan init"), "{}", refused.stderr);
    }
    sandbox.with_secrets(&["--", "true"]).run().refused(125, "there is no vault yet");
}

#[test]
fn init_touches_no_vault_that_is_there() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.init().refused(7, "is there already; keyloan does not touch it");
    sandbox.with_secrets(&["--", "true"]).run().ok();
    let other = Sandbox::empty();
    let init = |passphrase: &str, pin: &str| {
        other.keyed(passphrase, &["init", "--passphrase-fd", "3", "--pin-fd", pin]).run()
    };
    init("", "4").refused(2, "a passphrase is empty");
    init("p", "3").refused(2, "a PIN has at least 4");
}

#[test]
fn a_read_only_home_is_said_and_nothing_is_lent() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.stop();
    let state = sandbox.path("home/.local/state/keyloan");
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o500)).unwrap();
    std::fs::set_permissions(sandbox.log(), std::fs::Permissions::from_mode(0o400)).unwrap();
    sandbox.unlock().refused(3, "audit.jsonl: Permission denied");
    std::fs::set_permissions(sandbox.log(), std::fs::Permissions::from_mode(0o600)).unwrap();
    let items = sandbox.vault().join("items");
    std::fs::set_permissions(&items, std::fs::Permissions::from_mode(0o500)).unwrap();
    sandbox.unlock().ok();
    sandbox.keyloan(&["item", "set", "a", "b"]).stdin("c").run().refused(7, "Permission denied");
    sandbox.with_secrets(&["--", "true"]).run().ok();
    std::fs::set_permissions(&items, std::fs::Permissions::from_mode(0o700)).unwrap();
    sandbox.keyloan(&["item", "set", "a", "b"]).stdin("c").run().ok();
}

#[test]
fn an_approver_that_is_gone_or_unfit_is_told() {
    let sandbox = Sandbox::with_token(b"tok");
    let path = sandbox.set_approver(approver::ALLOW);
    std::fs::remove_file(&path).unwrap();
    sandbox.with_secrets(&["--", "true"]).run().refused(125, "No such file or directory");
    // A pipe in its place, which nobody writes to, keeps nobody waiting.
    sandbox.command(needed("mkfifo"), &[&path]).run().ok();
    sandbox.with_secrets(&["--", "true"]).run().refused(125, "not a regular file");
    let set = |path: &str| {
        let setting = format!("approver.command={path}");
        sandbox.keyed(keyloan_e2e::PASSPHRASE, &["policy", "set", &setting, "--passphrase-fd", "3"]).run()
    };
    set("relative").refused(2, "takes the absolute path");
    set("/no/such").refused(2, "No such file");
    set("/tmp").refused(2, "not a regular file");
    sandbox.write_program("project/interpreter", "#!/bin/sh\n");
    let own = sandbox.path("project/interpreter").display().to_string();
    let script = sandbox.write_program("project/script", format!("#!{own}\n")).display().to_string();
    set(&script).refused(2, "is not root's alone to change");
}

#[test]
fn closed_standard_streams_are_borne() {
    let sandbox = Sandbox::with_token(b"tok");
    let line = "keyloan item list >&-; with-secrets -- sh -c 'exit 3' <&- >&- 2>&-; echo $?";
    assert_eq!(sandbox.command(needed("sh"), &["-c", line]).run().ok().text(), "3\n");
    let line = "with-secrets -- yes | head -n 1";
    assert_eq!(sandbox.command(needed("sh"), &["-c", line]).run().ok().text(), "y\n");
}

#[test]
fn more_sets_or_variables_than_anybody_needs_are_refused() {
    let sandbox = Sandbox::with_token(b"tok");
    let many = |option: &'static str, count: usize| {
        let mut arguments = [option, "NAME"].repeat(count);
        arguments.extend(["--", "true"]);
        sandbox.with_secrets(&arguments).run()
    };
    let said = "at most 64 sets and 1024 variables are named at once";
    many("-s", 65).refused(125, said);
    many("--only", 1025).refused(125, said);
    many("-s", 64).refused(125, "there is no set 'NAME'");
}
