//! What bounds keys of linked vaults: rules about where their private halves are, how many a vault may offer, and how often
//! one is opened for many who sign at once. The vaults are KeePass databases made by the real `keepassxc-cli`, and scripts
//! of the test as programs of the kind `command`, which are doubles.

use keyloan_e2e::keepass;
use keyloan_e2e::sandbox::{Output, finished};
use keyloan_e2e::sshd::Ssh;
use keyloan_e2e::{PASSPHRASE, Sandbox, eventually};
use std::fmt::Write;
use std::fs;

/// A program as the vault `any`, which notes each of its runs.
fn program(sandbox: &Sandbox, script: &str) {
    let runs = sandbox.path("runs").display().to_string();
    let program =
        sandbox.write_program("home/vault-program", format!("#!/bin/sh\necho run >>{runs}\n{script}\n"));
    let setting = format!("program={}", program.display());
    let arguments =
        ["vault", "add", "any", "--kind", "command", &setting, "seconds=60", "--passphrase-fd", "3"];
    sandbox.keyed(PASSPHRASE, &arguments).run().ok();
}

fn runs(sandbox: &Sandbox) -> usize {
    fs::read_to_string(sandbox.path("runs")).unwrap_or_default().lines().count()
}

fn link(sandbox: &Sandbox, arguments: &[&str]) -> Output {
    sandbox.keyloan(&[&["ssh", "link"], arguments].concat()).run()
}

#[test]
fn a_rule_against_reading_an_item_holds_for_the_key_in_it_however_that_is_linked() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &["item.write=allow", "key.add=allow", "ssh.signature=allow"]);
    let file = ssh.key("deploy", &["ed25519"]);
    program(&sandbox, &format!("cat {file}"));
    let public = ssh.path("deploy.pub").display().to_string();
    let with_public = ["any://prod/key", "k", "--public", &public];
    sandbox.policy("item.read[item=any://*]=deny");
    link(&sandbox, &["any://prod/key"]).refused(5, "item.read[item=any://*]=deny");
    link(&sandbox, &with_public).refused(5, "item.read[item=any://*]=deny");
    // A rule that is made afterwards holds for signatures.
    sandbox.policy("item.read[item=any://*]=");
    link(&sandbox, &with_public).ok();
    let sign = || {
        let arguments = ["-q", "-Y", "sign", "-f", &public, "-n", "file"];
        ssh.client("ssh-keygen", &arguments).stdin("text").run()
    };
    sandbox.policy("item.read[item=any://*]=deny");
    let before = runs(&sandbox);
    assert_ne!(sign().status, 0);
    let decided = sandbox.events("decided").pop().unwrap();
    assert_eq!(decided["rule"], "item.read[item=any://*]=deny");
    assert_eq!(runs(&sandbox), before, "it was not read");
    sandbox.policy("item.read[item=any://*]=ask");
    let asked = ssh.questions().len();
    sign().ok();
    assert_eq!(ssh.questions().len(), asked, "the rule for the key decides on what may be read");
}

#[test]
fn a_database_of_more_keys_than_anybody_has_is_refused_before_a_question() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &[]);
    let file = fs::read(ssh.key("many", &["ed25519"])).unwrap();
    let file = data_encoding::BASE64.encode(&file);
    let mut entries = String::new();
    for number in 0..300 {
        let attached = format!("<Binary><Key>id</Key><Value>{file}</Value></Binary></Entry>");
        let entry = keepass::entry(&format!("e{number}"), "x").replace("</Entry>", &attached);
        write!(entries, "{entry}").unwrap();
    }
    let database = keepass::made(&sandbox, "keys.kdbx", &entries, keepass::PASSWORD, &[]);
    keepass::link(&sandbox, &database, keepass::PASSWORD, &[]).ok();
    link(&sandbox, &["--vault", "keys"]).refused(2, "more than 256 ssh keys");
    assert!(ssh.questions().is_empty() && sandbox.ssh_keys().is_empty());
    link(&sandbox, &["--vault", "keys", "e7"]).ok();
    assert_eq!(sandbox.ssh_keys().len(), 1);
}

#[test]
fn a_key_is_read_once_for_many_who_sign_with_it_at_once() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &["ssh.signature=allow"]);
    let file = ssh.key("deploy", &["ed25519"]);
    let go = sandbox.path("go").display().to_string();
    program(&sandbox, &format!("until [ -e {go} ]; do sleep 0.05; done; cat {file}"));
    let public = ssh.path("deploy.pub").display().to_string();
    link(&sandbox, &["any://deploy/key", "--public", &public]).ok();
    let before = (runs(&sandbox), sandbox.events("approved").len());
    let sign = ["-q", "-Y", "sign", "-f", &public, "-n", "file"];
    let signing: Vec<_> = (0..6).map(|_| ssh.client("ssh-keygen", &sign).stdin("text").start()).collect();
    eventually("all are allowed", || sandbox.events("approved").len() == before.1 + 6);
    fs::write(&go, "").unwrap();
    for one in signing {
        finished(one).ok();
    }
    assert_eq!(runs(&sandbox) - before.0, 1);
    assert_eq!(sandbox.events("signed").len(), 6);
}
