//! A password store that somebody else wrote to: it shows no other file, keeps the daemon from nothing, and has one name
//! for each item.

use keyloan_e2e::pass::Store;
use keyloan_e2e::sandbox::finished;
use keyloan_e2e::{PASSPHRASE, Sandbox, approver, eventually};
use std::fs;
use std::os::unix::fs::symlink;

fn linked(sandbox: &Sandbox) -> Store<'_> {
    let store = Store::new(sandbox);
    store.insert("web/prod", "s3cret\n");
    store.insert("web/test", "test\n");
    store.link();
    store
}

#[test]
fn a_list_of_keys_that_leads_elsewhere_shows_nothing_of_what_is_there() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let _store = linked(&sandbox);
    let list = sandbox.path("home/.password-store/.gpg-id");
    let other = sandbox.write("home/other", "the words of another file\n");
    fs::remove_file(&list).unwrap();
    symlink(&other, &list).unwrap();
    let test = || sandbox.keyloan(&["vault", "test", "pass"]).run();
    let said = test().text();
    assert!(said.contains("pass  ") && !said.contains("words"), "{said}");
    fs::remove_file(&list).unwrap();
    fs::rename(&other, &list).unwrap();
    let said = test().text();
    assert!(
        said.contains("gpg has no secret key for the 1 that the store is for") && !said.contains("words"),
        "{said}"
    );
}

#[test]
fn a_list_of_keys_that_is_a_pipe_or_without_end_takes_neither_threads_nor_memory() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let _store = linked(&sandbox);
    let list = sandbox.path("home/.password-store/.gpg-id");
    let right = fs::read(&list).unwrap();
    let many = |times: usize| {
        let asked: Vec<_> = (0..times).map(|_| sandbox.keyloan(&["vault", "test", "pass"]).start()).collect();
        for child in asked {
            finished(child);
        }
    };
    fs::remove_file(&list).unwrap();
    fs::File::create(&list).unwrap().set_len(2 << 30).unwrap();
    many(1);
    let status = fs::read_to_string(format!("/proc/{}/status", sandbox.daemon().unwrap())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 300_000, "{peak} kB");
    fs::remove_file(&list).unwrap();
    sandbox.command("/usr/bin/mkfifo", &[list.to_str().unwrap()]).run().ok();
    many(40);
    fs::remove_file(&list).unwrap();
    sandbox.write("home/.password-store/.gpg-id", right);
    sandbox.keyloan(&["vault", "test", "pass"]).run().ok();
    assert_eq!(sandbox.keyloan(&["item", "get", "pass://web/test/password"]).run().ok().text(), "test");
}

#[test]
fn links_in_a_store_lead_nowhere_and_give_no_item_a_second_name() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let _store = linked(&sandbox);
    let store = sandbox.path("home/.password-store");
    symlink("web/prod.gpg", store.join("alias.gpg")).unwrap();
    symlink("web", store.join("mirror")).unwrap();
    sandbox.policies(&["item.read[item=pass://*]=allow", "item.read[item=pass://web/prod]=deny"]);
    let get = |item: &str| sandbox.keyloan(&["item", "get", &format!("pass://{item}/password")]).run();
    get("web/prod").refused(5, "the policy forbids it");
    get("alias").refused(7, "a link");
    get("mirror/prod").refused(7, "a link");
    assert_eq!(get("web/test").ok().text(), "test");
    // Directories that hold themselves twice are 2^32 of them.
    symlink(".", store.join("a")).unwrap();
    symlink(".", store.join("b")).unwrap();
    let listed = sandbox.keyloan(&["item", "list", "--vault", "pass"]).run().ok();
    assert_eq!(listed.text(), "web/prod\nweb/test\n");
}

#[test]
fn a_gpg_that_is_told_to_write_elsewhere_by_the_users_files_does_not() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let store = linked(&sandbox);
    let elsewhere = sandbox.path("run/elsewhere");
    sandbox.write("home/.gnupg/gpg.conf", format!("output {}\n", elsewhere.display()));
    // The undefended victim.
    store.pass(&["show", "web/test"]).run();
    assert!(elsewhere.exists());
    fs::remove_file(&elsewhere).unwrap();
    let got = sandbox.keyloan(&["item", "get", "pass://web/test/password"]).run().ok();
    assert_eq!(got.text(), "test");
    assert!(!elsewhere.exists());
}

/// The store with a program of the test's in gpg's place: a double that serves `vault add` by the real one.
fn with_gpg<'a>(sandbox: &'a Sandbox, script: &str) -> Store<'a> {
    let store = Store::new(sandbox);
    let ready = "case \"$*\" in *list-secret-keys*) exec /usr/bin/gpg \"$@\";; esac";
    let gpg = sandbox.write_program("home/gpg", format!("#!/bin/sh\n{ready}\n{script}\n"));
    let setting = format!("gpg={}", gpg.display());
    let arguments = ["vault", "add", "pass", &setting, "--passphrase-fd", "3"];
    sandbox.keyed(PASSPHRASE, &arguments).run().ok();
    store
}

#[test]
fn a_gpg_that_says_nothing_gives_no_empty_password() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let store = with_gpg(&sandbox, "cat >/dev/null; echo '[GNUPG:] DECRYPTION_OKAY' >&2");
    store.insert("web", "pw\n");
    let got = sandbox.keyloan(&["item", "get", "pass://web/password"]).run();
    got.refused(7, "gpg gave nothing for 'web'");
}

#[test]
fn a_gpg_that_hangs_keeps_nobody_else_waiting_and_ends_with_its_requester() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let pids = sandbox.path("run/pids");
    let hang = format!("sleep 1000 & echo $$ $! >{0}.new; mv {0}.new {0}; wait", pids.display());
    let store = with_gpg(&sandbox, &hang);
    store.insert("web", "pw\n");
    sandbox.keyloan(&["item", "set", "own", "token"]).stdin("tok").run().ok();
    let mut hanging = sandbox.keyloan(&["item", "get", "pass://web/password"]).start();
    eventually("gpg runs", || pids.exists());
    assert_eq!(sandbox.keyloan(&["item", "get", "own", "token"]).run().ok().text(), "tok");
    sandbox.keyloan(&["vault", "test", "pass"]).run().ok();
    hanging.kill().unwrap();
    hanging.wait().unwrap();
    let started = fs::read_to_string(&pids).unwrap();
    eventually("it and its own child are gone", || {
        started.split_whitespace().all(|pid| {
            fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
        })
    });
}
