//! Everything that can go wrong with `op`, by its double: each is told apart, and nothing that it prints is passed on.

use keyloan_e2e::onepassword::{Account, field};
use keyloan_e2e::{Output, PASSPHRASE, Sandbox, approver, eventually};
use std::fs;

fn get(sandbox: &Sandbox) -> Output {
    sandbox.keyloan(&["item", "get", "op://Work/gcp/key"]).run()
}

fn linked(sandbox: &Sandbox) -> Account<'_> {
    let mut account = Account::new(sandbox);
    account.item(0, "gcp", &[field("key", "s3cret"), field("other", "s3cret")]);
    account.link(&[]).ok();
    account
}

#[test]
fn every_failure_of_op_is_told_apart_and_none_is_quoted() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let mut account = linked(&sandbox);
    let failures = [
        ("signed out", "not signed in"),
        ("signed out within", "not signed in"),
        ("session expired", "not signed in"),
        ("no accounts", "not signed in"),
        ("dismissed", "the question of the 1Password app was dismissed"),
        ("prompt timeout", "nobody answered the question of the 1Password app"),
        ("forbidden", "1Password forbids it to this account"),
        ("rate limited", "asked too often; it answers again within an hour"),
        ("unknown", "a message of another kind"),
        ("garbage", "does not answer as op 2 does"),
        ("silent", "does not answer as op 2 does"),
        ("not taken", "does not answer as op 2 does"),
        ("twice", "does not answer as op 2 does"),
        ("dying", "died of signal 9"),
        ("flood", "printed more than 8192 KiB"),
    ];
    for (mode, said) in failures {
        account.set("mode", mode);
        let refused = get(&sandbox).refused(7, said);
        assert!(!refused.stderr.contains("s3cret") && refused.stdout.is_empty(), "{}", refused.stderr);
    }
    account.set("mode", "signed out");
    let hint = get(&sandbox).stderr;
    assert!(hint.contains("hint: unlock the 1Password app"), "{hint}");
    assert_eq!(sandbox.events("failed").len(), failures.len() + 1);
    assert!(sandbox.events("released").is_empty());
    assert!(!fs::read_to_string(sandbox.log()).unwrap().contains("s3cret"));
    let pid = sandbox.daemon().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 300_000, "{peak} kB after a gigabyte");
    account.set("mode", "");
    assert_eq!(get(&sandbox).ok().text(), "s3cret");
}

#[test]
fn vault_test_tells_each_state_and_never_has_the_app_ask() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let mut account = linked(&sandbox);
    let test = || sandbox.keyloan(&["vault", "test", "op"]).run();
    assert!(test().ok().text().contains("op  ready"));
    let asked: Vec<String> = account.calls().iter().map(|call| call["argv"].to_string()).collect();
    assert!(asked.iter().all(|argv| argv.contains("--version") || argv.contains("account")), "{asked:?}");
    let accounts = account.state["accounts"].clone();
    account.set("accounts", serde_json::json!([]));
    assert!(test().refused(7, "would not answer").text().contains("op  signed out"));
    account.set("accounts", accounts);
    account.set("version", "1.12.9");
    assert!(test().refused(7, "would not answer").text().contains("op  broken: "));
    sandbox.write("home/op", "#!/bin/sh\n");
    assert!(test().refused(7, "would not answer").text().contains("op  changed: "));
    fs::remove_file(sandbox.path("home/op")).unwrap();
    assert!(test().refused(7, "would not answer").text().contains("there is no such program"));
}

#[test]
fn a_program_that_is_missing_or_not_op_is_not_linked() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let add = |program: &str| {
        let program = format!("op={program}");
        let arguments = ["vault", "add", "op", "--kind", "onepassword", &program, "--passphrase-fd", "3"];
        sandbox.keyed(PASSPHRASE, &arguments).run()
    };
    add("/nowhere/op").refused(7, "there is no such program");
    add("/bin/true").refused(7, "does not answer as op 2 does");
    add("/bin/false").refused(7, "does not answer as op 2 does");
    let mut account = Account::new(&sandbox);
    account.set("version", "1.12.9");
    account.link(&[]).refused(7, "does not answer as op 2 does");
    assert_eq!(sandbox.keyloan(&["vault", "list"]).run().ok().text(), "local  built in\n");
    // One that is signed out is linked all the same.
    account.set("version", "2.30.3");
    account.set("accounts", serde_json::json!([]));
    let linked = account.link(&[]).ok();
    assert!(linked.stderr.contains("it is not signed in"), "{}{}", linked.text(), linked.stderr);
}

#[test]
fn an_op_that_hangs_ends_with_its_requester() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let mut account = linked(&sandbox);
    account.forget();
    account.set("mode", "hanging");
    let mut child = sandbox.keyloan(&["item", "get", "op://Work/gcp/key"]).start();
    eventually("op runs", || account.calls().len() == 1);
    assert!(sandbox.keyloan(&["vault", "test", "local"]).run().ok().text().contains("local  ready"));
    child.kill().unwrap();
    child.wait().unwrap();
    let pid = account.calls()[0]["pid"].as_u64().unwrap();
    eventually("op is gone", || {
        fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
    });
}

#[test]
fn the_callers_environment_reaches_no_op() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let account = linked(&sandbox);
    sandbox.stop();
    let redirected = |run: keyloan_e2e::sandbox::Run| {
        run.env("OP_ACCOUNT", "evil")
            .env("OP_CONNECT_HOST", "http://evil")
            .env("OP_CONNECT_TOKEN", "evil")
            .env("OP_SERVICE_ACCOUNT_TOKEN", "evil")
            .env("OP_SESSION_my", "evil")
            .env("HTTPS_PROXY", "http://evil")
            .env("SSL_CERT_FILE", "/evil")
            .env("XDG_CONFIG_HOME", "/evil")
            .env("LD_LIBRARY_PATH", "/evil")
    };
    // The daemon is started by the first of these.
    redirected(sandbox.keyed(PASSPHRASE, &["unlock", "--passphrase-fd", "3"])).run().ok();
    account.forget();
    let given = redirected(sandbox.keyloan(&["item", "get", "op://Work/gcp/key"])).run().ok();
    assert_eq!(given.text(), "s3cret");
    let environment = account.calls().remove(0)["env"].clone();
    assert_eq!(environment, serde_json::json!(["HOME", "LANG", "PATH", "PYTHONNOUSERSITE"]));
}

#[test]
fn an_item_that_was_removed_after_the_search_is_said_to_be_missing() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let mut account = linked(&sandbox);
    account.item(1, "~/coverage", &[field("vars", "A=1\n")]);
    let directory = sandbox.make_directory("home/coverage");
    // The approver, which answers between the search and the reading, takes it away.
    let state = sandbox.path("home/op-double/state.json").display().to_string();
    let removes = format!(
        "#!/bin/sh\nsed -i 's|~/coverage|~/renamed|' {state}\n{}",
        approver::ALLOW.trim_start_matches("#!/bin/sh\n")
    );
    sandbox.set_approver(removes);
    let gone = sandbox.with_secrets(&["--", "true"]).within(&directory).run();
    gone.refused(125, "there is no item 'Environment variables/~/coverage'");
    assert!(sandbox.events("lent").is_empty());
}

#[test]
fn an_op_that_is_signed_out_has_no_set_taken_from_further_up() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let mut account = linked(&sandbox);
    account.item(1, "~/coverage/src", &[field("vars", "A=nearer\n")]);
    sandbox.keyloan(&["item", "set", "~/coverage", "vars"]).stdin("A=farther\n").run().ok();
    sandbox.make_directory("home/coverage");
    let directory = sandbox.make_directory("home/coverage/src");
    let lent = || sandbox.with_secrets(&["--", "printenv", "A"]).within(&directory).run();
    assert_eq!(lent().ok().text(), "nearer\n");
    for mode in ["signed out", "dismissed", "rate limited", "garbage"] {
        account.set("mode", mode);
        let refused = lent().refused(125, "op: ");
        assert!(refused.stderr.contains("--no-search") && refused.stdout.is_empty(), "{}", refused.stderr);
    }
    assert_eq!(sandbox.events("lent").len(), 1);
}
