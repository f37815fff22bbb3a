//! What one loan costs a linked vault, by counting; and that one vault that hangs is nobody else's trouble.

use crate::vault_keepass::{self, PASSWORD};
use keyloan_e2e::pass::Store;
use keyloan_e2e::{PASSPHRASE, Running, Sandbox, approver, eventually};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::fs;

/// A `command` vault, a double.
fn link(sandbox: &Sandbox, name: &str, script: &str, more: &[&str]) {
    let program = sandbox.write_program(&format!("home/{name}"), format!("#!/bin/sh\n{script}\n"));
    let setting = format!("program={}", program.display());
    let add = ["vault", "add", name, "--kind", "command", &setting, "--passphrase-fd", "3"];
    sandbox.keyed(PASSPHRASE, &[&add[..], more].concat()).run().ok();
}

/// A trusted `.keyloan.toml` with these lines.
fn manifest(sandbox: &Sandbox, directory: &str, lines: &[String]) {
    sandbox.make_directory(directory);
    let text = format!("[env]\n{}\n", lines.join("\n"));
    sandbox.write(&format!("{directory}/.keyloan.toml"), text);
    sandbox.keyloan(&["trust", sandbox.path(directory).to_str().unwrap()]).run().ok();
}

#[test]
fn twenty_references_cost_one_open_of_a_keepass_database_and_one_process_of_a_program() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let database = vault_keepass::made(&sandbox);
    vault_keepass::add(&sandbox, &database, PASSWORD, &[]).ok();
    let count = sandbox.path("run/count");
    let batch = format!("echo run >>{}; xargs -0 -n 2 printf '+%s.%s\\0'", count.display());
    link(&sandbox, "any", &batch, &["batch=all"]);
    let fields = ["password", "username", "title", "empty"];
    let keys = (0..20).map(|at| format!("K{at} = \"keys://pypi/{}\"", fields[at % 4]));
    let any = (0..20).map(|at| format!("A{at} = \"any://item {at}/f\""));
    manifest(&sandbox, "project", &keys.chain(any).collect::<Vec<_>>());

    let watch = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
    // With the closing, since an event that is like the one before it is told once (inotify(7)).
    watch.add_watch(&database, AddWatchFlags::IN_OPEN | AddWatchFlags::IN_CLOSE).unwrap();
    let opens = || {
        let events = watch.read_events().unwrap();
        events.iter().filter(|event| event.mask.contains(AddWatchFlags::IN_OPEN)).count()
    };
    for _ in 0..2 {
        sandbox.keyloan(&["item", "get", "keys://pypi/password"]).run().ok();
    }
    assert_eq!(opens(), 2, "each is seen");
    let lent = sandbox.with_secrets(&["--", "sh", "-c", "echo $K1 $K2 $A0 $A19"]).run().ok();
    assert_eq!(lent.text(), "__token__ pypi item 0.f item 19.f\n");
    assert_eq!(opens(), 1);
    assert_eq!(fs::read_to_string(count).unwrap(), "run\n");
}

#[test]
fn a_loan_whose_requester_dies_ends_its_vaults_programs_and_lends_nothing() {
    for batch in [&[][..], &["batch=all"]] {
        let sandbox = Sandbox::with_approver(approver::ALLOW);
        let pids = sandbox.path("run/pids");
        let script = format!("echo $$ >>{0}; sleep 1000 & echo $! >>{0}; wait", pids.display());
        link(&sandbox, "slow", &script, &[batch, &["seconds=300"]].concat());
        link(&sandbox, "quick", "echo x", &[]);
        let lines = ["A", "B", "C"].map(|name| format!("{name} = \"slow://a/{name}\""));
        manifest(&sandbox, "project", &[&lines[..], &["Q = \"quick://a/b\"".to_owned()]].concat());
        let ran = sandbox.path("run/ran");
        let mut asking = Running(sandbox.with_secrets(&["--", "touch", ran.to_str().unwrap()]).start());
        let started = if batch.is_empty() { 6 } else { 2 };
        let all = || -> Vec<i32> {
            let text = fs::read_to_string(&pids).unwrap_or_default();
            text.lines().filter_map(|pid| pid.parse().ok()).collect()
        };
        eventually("the programs run", || all().len() == started);
        asking.end();
        eventually("they and what they started are gone", || {
            all().iter().all(|pid| {
                fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
            })
        });
        // Served after the end of the request before it, which has left no trace of a loan.
        assert_eq!(sandbox.keyloan(&["item", "get", "quick://a/b"]).run().ok().text(), "x");
        assert!(!ran.exists() && sandbox.events("lent").is_empty());
        assert_eq!(sandbox.keyloan(&["loans"]).run().ok().text(), "");
        assert_eq!(all().len(), started, "and none was started after");
    }
}

#[test]
fn a_vault_that_hangs_holds_up_its_own_loan_and_no_other() {
    let sandbox = Sandbox::with_token(b"tok");
    let began = sandbox.path("run/began");
    link(&sandbox, "slow", &format!("touch {}; sleep 1000", began.display()), &["seconds=300"]);
    link(&sandbox, "quick", "echo quick", &[]);
    let store = Store::new(&sandbox);
    store.insert("web", "from pass\n");
    store.link();
    let database = vault_keepass::made(&sandbox);
    vault_keepass::add(&sandbox, &database, PASSWORD, &[]).ok();
    for (directory, reference) in [
        ("project/slow", "slow://a/b"),
        ("project/quick", "quick://a/b"),
        ("project/pass", "pass://web/password"),
        ("project/keys", "keys://pypi/username"),
        ("project/local", "local://pypi/token"),
    ] {
        manifest(&sandbox, directory, &[format!("V = \"{reference}\"")]);
    }
    let loan =
        |directory: &str| sandbox.with_secrets(&["--", "printenv", "V"]).within(&sandbox.path(directory));
    let mut hanging = Running(loan("project/slow").start());
    eventually("it hangs", || began.exists());
    for (directory, value) in [
        ("project/local", "tok\n"),
        ("project/quick", "quick\n"),
        ("project/pass", "from pass\n"),
        ("project/keys", "__token__\n"),
    ] {
        assert_eq!(loan(directory).run().ok().text(), value);
    }
    assert!(hanging.0.try_wait().unwrap().is_none(), "it still hangs");
    hanging.end();
}
