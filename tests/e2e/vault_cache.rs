//! Values of linked vaults that are kept, where the policy says so. What is kept is told by counting the runs of a
//! `command` vault's program, a double that writes each of them down.

use crate::vault_keepass::{self, PASSWORD};
use keyloan_e2e::sandbox::Output;
use keyloan_e2e::{PASSPHRASE, Sandbox, approver, eventually};
use std::fs;

/// Prints its arguments, and where a batch is wanted what it was asked for.
const SCRIPT: &str = "[ \"$1\" = batch ] || { echo \"$1\"; exit; }\n\
     tr '\\0' ' ' <&0 | tee -a RUNS | xargs -n 2 printf '+%s.%s\\0'";

fn link(sandbox: &Sandbox, name: &str, more: &[&str]) -> Output {
    let runs = sandbox.path("run/runs");
    let script = SCRIPT.replace("RUNS", runs.to_str().unwrap());
    let text = format!("#!/bin/sh\necho run >>{}\n{script}\n", runs.display());
    let setting = format!("program={}", sandbox.write_program(&format!("home/{name}"), text).display());
    let add = ["vault", "add", name, "--kind", "command", &setting, "--passphrase-fd", "3"];
    sandbox.keyed(PASSPHRASE, &[&add[..], more].concat()).run().ok()
}

fn runs(sandbox: &Sandbox) -> usize {
    let text = fs::read_to_string(sandbox.path("run/runs")).unwrap_or_default();
    text.lines().filter(|line| line.ends_with("run")).count()
}

fn get(sandbox: &Sandbox, reference: &str) -> String {
    sandbox.keyloan(&["item", "get", reference]).run().ok().text()
}

fn list(sandbox: &Sandbox) -> String {
    sandbox.keyloan(&["vault", "list"]).run().ok().text()
}

/// A sandbox with the vault `any` and this setting.
fn keeping(time: &str) -> Sandbox {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    link(&sandbox, "any", &[]);
    sandbox.policy(&format!("vault.cache[vault=any]={time}"));
    sandbox
}

#[test]
fn nothing_is_kept_unless_the_policy_says_so_and_that_wants_the_passphrase() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    link(&sandbox, "any", &[]);
    link(&sandbox, "other", &[]);
    for at in 1..=2 {
        assert_eq!(get(&sandbox, "any://a/b"), "a");
        assert_eq!(runs(&sandbox), at);
    }
    assert!(!list(&sandbox).contains("kept"));
    let set = ["policy", "set", "vault.cache[vault=any]=10m"];
    sandbox.keyloan(&set).run().refused(6, "");
    assert_eq!(sandbox.status()["kept"].as_array().unwrap().len(), 0);
    sandbox.policy(set[2]);
    assert!(list(&sandbox).contains("values are kept for 10m (0 now)"), "{}", list(&sandbox));
    for _ in 0..3 {
        assert_eq!(get(&sandbox, "any://a/b"), "a");
    }
    assert_eq!(runs(&sandbox), 3);
    assert!(list(&sandbox).contains("values are kept for 10m (1 now)"), "{}", list(&sandbox));
    assert_eq!(sandbox.status()["kept"][0], "values of any are kept for 10m; 1 now");
    // Of this vault alone.
    get(&sandbox, "other://a/b");
    get(&sandbox, "other://a/b");
    assert_eq!(runs(&sandbox), 5);
    // Stricter needs no passphrase.
    sandbox.keyloan(&["policy", "set", "vault.cache[vault=any]="]).run().ok();
    get(&sandbox, "any://a/b");
    assert_eq!(runs(&sandbox), 6);
}

#[test]
fn a_kept_value_has_its_own_question_and_its_own_record_each_time() {
    let sandbox = Sandbox::with_vault();
    let (no, asked) = (sandbox.path("run/no"), sandbox.path("run/asked"));
    let answers = format!(
        "#!/bin/sh\n{{ cat; echo; }} >>{}\n[ ! -e {} ] || {{ echo '{{\"decision\":\"deny\"}}'; exit; }}\n\
         echo '{{\"decision\":\"allow\"}}'\n",
        asked.display(),
        no.display()
    );
    sandbox.set_approver(answers);
    link(&sandbox, "any", &[]);
    sandbox.policy("vault.cache[vault=any]=10m");
    for _ in 0..3 {
        get(&sandbox, "any://a/b");
    }
    assert_eq!(runs(&sandbox), 1);
    assert_eq!(approver::questions(&asked).len(), 3);
    assert_eq!(sandbox.events("released").len(), 3);
    assert_eq!(sandbox.events("approved").len(), 3);
    sandbox.write("run/no", "");
    let refused = sandbox.keyloan(&["item", "get", "any://a/b"]).run().refused(6, "declined");
    assert!(refused.stdout.is_empty() && sandbox.events("released").len() == 3);
}

#[test]
fn only_what_is_not_kept_is_asked_for_again() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    link(&sandbox, "any", &["batch=batch"]);
    sandbox.policy("vault.cache[vault=any]=10m");
    assert_eq!(get(&sandbox, "any://a/b"), "a.b");
    sandbox.write("project/.keyloan.toml", "[env]\nA = \"any://a/b\"\nC = \"any://c/d\"\n");
    sandbox.keyloan(&["trust"]).run().ok();
    let lent = || sandbox.with_secrets(&["--", "sh", "-c", "echo $A $C"]).run().ok().text();
    assert_eq!(lent(), "a.b c.d\n");
    assert_eq!(lent(), "a.b c.d\n");
    assert_eq!(fs::read_to_string(sandbox.path("run/runs")).unwrap(), "run\na b run\nc d ");
    assert_eq!(sandbox.events("lent").len(), 2);
}

#[test]
fn what_is_kept_goes_with_the_lock_the_link_and_the_policy() {
    let sandbox = keeping("10m");
    link(&sandbox, "other", &[]);
    sandbox.policy("vault.cache[vault=other]=10m");
    let ends: [&dyn Fn(); 4] = [
        &|| {
            sandbox.keyloan(&["lock"]).run().ok();
            sandbox.unlock().ok();
        },
        &|| {
            link(&sandbox, "any", &["--replace", "seconds=19"]);
        },
        &|| sandbox.policy("deadline=2m"),
        &|| {
            sandbox.stop();
            sandbox.unlock().ok();
        },
    ];
    for (at, end) in ends.into_iter().enumerate() {
        get(&sandbox, "any://a/b");
        get(&sandbox, "any://a/b");
        assert_eq!(runs(&sandbox), at + 1);
        assert!(list(&sandbox).contains("(1 now)"));
        end();
        assert!(!list(&sandbox).contains("(1 now)"), "{at}: {}", list(&sandbox));
    }
    get(&sandbox, "any://a/b");
    assert_eq!(runs(&sandbox), 5);
    // Another vault's change is none of this one's.
    link(&sandbox, "other", &["--replace", "seconds=19"]);
    get(&sandbox, "any://a/b");
    assert_eq!(runs(&sandbox), 5);
}

#[test]
fn what_is_kept_goes_at_its_time_also_where_nobody_asks_for_it() {
    let sandbox = keeping("1s");
    get(&sandbox, "any://a/b");
    eventually("it is forgotten", || list(&sandbox).contains("values are kept for 1s (0 now)"));
    get(&sandbox, "any://a/b");
    assert_eq!(runs(&sandbox), 2);
}

#[test]
fn what_keyloan_writes_is_read_anew() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let database = vault_keepass::made(&sandbox);
    vault_keepass::add(&sandbox, &database, PASSWORD, &[]).ok();
    sandbox.policy("vault.cache[vault=keys]=10m");
    assert_eq!(get(&sandbox, "keys://pypi/password"), "tök \"1\"");
    // What another program writes is seen when the time is over.
    let path = database.to_str().unwrap();
    let edit = ["edit", "-p", path, "pypi"];
    vault_keepass::keepassxc(&sandbox, &edit, &format!("{PASSWORD}theirs\n")).ok();
    assert_eq!(get(&sandbox, "keys://pypi/password"), "tök \"1\"");
    sandbox.keyloan(&["item", "set", "keys://pypi/password"]).stdin("ours").run().ok();
    assert_eq!(get(&sandbox, "keys://pypi/password"), "ours");
    sandbox.keyloan(&["item", "set", "web", "x"]).stdin("copied").run().ok();
    sandbox.keyloan(&["item", "copy", "--replace", "local://web/x", "keys://pypi/password"]).run().ok();
    assert_eq!(get(&sandbox, "keys://pypi/password"), "copied");
}

#[test]
fn a_fault_is_not_kept() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let there = sandbox.path("run/there");
    let text = format!("#!/bin/sh\n[ -e {} ] || exit 9\necho x\n", there.display());
    let setting = format!("program={}", sandbox.write_program("home/any", text).display());
    let add = ["vault", "add", "any", "--kind", "command", &setting, "missing=9", "--passphrase-fd", "3"];
    sandbox.keyed(PASSPHRASE, &add).run().ok();
    sandbox.policy("vault.cache[vault=any]=10m");
    sandbox.keyloan(&["item", "get", "any://a/b"]).run().refused(1, "there is no item");
    sandbox.write("run/there", "");
    assert_eq!(get(&sandbox, "any://a/b"), "x");
}
