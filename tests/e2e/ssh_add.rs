//! `ssh-add` with all its flags, and the signals that OpenSSH's agent knows.

use keyloan_e2e::agent::{FAILURE, SUCCESS, adding};
use keyloan_e2e::programs::needed;
use keyloan_e2e::sshd::{Server, Ssh};
use keyloan_e2e::{Output, Sandbox, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const HOST: &str = "git.example.org";

fn with_a_file<'a>(sandbox: &'a Sandbox, policy: &[&str]) -> (Ssh<'a>, String) {
    let ssh = Ssh::asked(sandbox, policy);
    let key = ssh.key("work", &["ed25519"]);
    (ssh, key)
}

fn admitting(ssh: &Ssh<'_>) -> Server {
    ssh.server(HOST, &[ssh.public("work")])
}

/// `ssh-add` that gets a passphrase or PIN from a program.
fn add_typing(ssh: &Ssh<'_>, typed: &str, arguments: &[&str]) -> Output {
    let program = ssh.sandbox.write_program("ssh/askpass", format!("#!/bin/sh\necho '{typed}'\n"));
    let run = ssh.client("ssh-add", arguments);
    run.env("SSH_ASKPASS", program).env("SSH_ASKPASS_REQUIRE", "force").run()
}

#[test]
fn a_key_that_was_added_is_listed_used_and_removed() {
    let sandbox = Sandbox::with_vault();
    let (ssh, key) = with_a_file(&sandbox, &["ssh.login=allow"]);
    let server = admitting(&ssh);
    assert_eq!(ssh.add(&["-l"]).status, 1);
    let added = ssh.add(&[&key]).ok();
    assert!(added.stderr.contains("Identity added") && added.stdout.is_empty(), "{}", added.stderr);
    assert_eq!(ssh.add(&["-L"]).ok().text().trim(), ssh.public("work"));
    let line = ssh.add(&["-l"]).ok().text();
    assert_eq!(line, format!("256 {} work (ED25519)\n", ssh.fingerprint("work")));
    let (_agent, plain) = ssh.plain_agent();
    ssh.client_of(&plain, "ssh-add", &["-q", &key]).run().ok();
    for flags in [&["-l"][..], &["-l", "-E", "md5"], &["-l", "-E", "sha512"], &["-L"]] {
        let theirs = ssh.client_of(&plain, "ssh-add", flags).run().ok();
        assert_eq!(ssh.add(flags).ok().text(), theirs.text(), "{flags:?}");
    }
    ssh.ssh(&[HOST, "true"]).ok();
    assert_eq!(server.accepted(), 1);
    assert!(ssh.add(&["-v", "-l"]).ok().text().contains("work"));
    assert!(ssh.add(&["-d", &key]).ok().stderr.contains("Identity removed"));
    assert_eq!(ssh.add(&["-l"]).status, 1);
    assert_eq!(ssh.add(&["-d", &key]).status, 1);
    let quiet = ssh.add(&["-q", &key]).ok();
    assert!(quiet.stderr.is_empty() && quiet.stdout.is_empty());
    assert!(ssh.add(&["-D"]).ok().stderr.contains("All identities removed"));
    assert_eq!(ssh.add(&["-l"]).status, 1);
    ssh.ssh(&[HOST, "true"]).refused(255, "Permission denied");
}

#[test]
fn adding_a_key_is_asked_and_a_no_adds_nothing() {
    let sandbox = Sandbox::with_vault();
    let (ssh, key) = with_a_file(&sandbox, &["key.add=ask"]);
    ssh.add(&["-q", "-t", "600", &key]).ok();
    let question = ssh.questions().pop().unwrap();
    assert_eq!(question.title(), "add an ssh key to the agent");
    question.says("key", &format!("ssh-ed25519 {}", ssh.fingerprint("work")), "verified");
    question.says("comment", "work", "claimed");
    question.says("stays", "for 10m", "verified");
    ssh.add(&["-D"]).ok();
    ssh.answered_by(keyloan_e2e::approver::DENY, &["key.add=ask"]);
    ssh.add(&["-q", &key]).refused(1, "agent refused operation");
    assert_eq!(ssh.add(&["-l"]).status, 1);
}

#[test]
fn what_an_added_key_takes_the_place_of_and_how_it_is_confirmed_is_in_the_question() {
    let sandbox = Sandbox::with_vault();
    let (ssh, key) = with_a_file(&sandbox, &["key.add=ask"]);
    let asked = |flags: &[&str]| {
        ssh.add(&[&["-q"], flags, &[&key]].concat()).ok();
        ssh.questions().pop().unwrap()
    };
    let confirmed = ("every use", "verified");
    let replaced = ("the same key, with whatever it was added with before", "verified");
    let question = asked(&[]);
    assert_eq!((question.line("confirm"), question.line("replaces")), (None, None), "{question:?}");
    let question = asked(&["-c"]);
    assert_eq!((question.line("confirm"), question.line("replaces")), (Some(confirmed), Some(replaced)));
    let question = asked(&[]);
    assert_eq!((question.line("confirm"), question.line("replaces")), (None, Some(replaced)), "{question:?}");
    ssh.add(&["-d", &key]).ok();
    let question = asked(&["-c"]);
    assert_eq!((question.line("confirm"), question.line("replaces")), (Some(confirmed), None));
}

#[test]
fn a_comment_that_is_too_long_to_be_kept_is_refused_with_its_key() {
    let sandbox = Sandbox::with_vault();
    let (ssh, key) = with_a_file(&sandbox, &[]);
    let fields = ssh.private_fields("work");
    for (length, reply, listed) in [(1025, FAILURE, 0), (50_000, FAILURE, 0), (1024, SUCCESS, 1)] {
        let comment = "x".repeat(length);
        assert_eq!(ssh.agent().ask(&adding(&fields, &comment)).as_deref(), Some(reply), "{length}");
        let identities = ssh.agent().list();
        assert_eq!(identities.len(), listed, "{length}");
        assert!(identities.iter().all(|identity| identity.comment == comment.as_bytes()));
    }
    ssh.add(&["-D"]).ok();
    // Of files it is the longest that OpenSSH writes.
    let longest = "y".repeat(2000);
    sandbox.command(needed("ssh-keygen"), &["-q", "-c", "-C", &longest, "-f", &key]).run().ok();
    ssh.add(&["-q", &key]).ok();
    let taken = ssh.agent().list().pop().unwrap().comment;
    assert!(taken.len() > 1000 && longest.as_bytes().starts_with(&taken));
    let causes: Vec<_> =
        sandbox.events("agent_refused").iter().map(|event| event["cause"].to_string()).collect();
    assert_eq!(causes, ["\"the comment is longer than 1024 bytes\""; 2]);
}

#[test]
fn the_keys_of_the_vault_stay_when_all_are_removed() {
    let sandbox = Sandbox::with_vault();
    let (ssh, _) = with_a_file(&sandbox, &[]);
    ssh.store("work", &[]);
    let second = ssh.key("second", &["ecdsa"]);
    ssh.add(&["-q", &second]).ok();
    assert_eq!(ssh.add(&["-l"]).ok().text().lines().count(), 2);
    ssh.add(&["-D"]).ok();
    assert!(ssh.add(&["-l"]).ok().text().contains(" work (ED25519)"));
    // One that is in both is offered once: servers count.
    ssh.add(&["-q", &ssh.path("work").display().to_string()]).ok();
    assert_eq!(ssh.add(&["-l"]).ok().text().lines().count(), 1);
    ssh.add(&["-D"]).ok();
    assert_eq!(ssh.add(&["-d", &ssh.path("work").display().to_string()]).status, 1);
    assert!(ssh.add(&["-l"]).ok().text().contains(" work (ED25519)"));
}

#[test]
fn a_key_to_be_confirmed_is_asked_at_every_use() {
    let sandbox = Sandbox::with_vault();
    let (ssh, key) = with_a_file(&sandbox, &["ssh.login=allow"]);
    let server = admitting(&ssh);
    ssh.add(&["-q", "-c", &key]).ok();
    for logins in 1..=2 {
        ssh.ssh(&[HOST, "true"]).ok();
        assert_eq!((ssh.questions().len(), server.accepted()), (logins, logins));
    }
    assert_eq!(sandbox.events("decided").pop().unwrap()["rule"], "the key is confirmed at every use");
    ssh.add(&["-D"]).ok();
    // The same for a key of the vault that says so.
    ssh.store("work", &[("confirm", "always")]);
    ssh.ssh(&[HOST, "true"]).ok();
    assert_eq!((ssh.questions().len(), server.accepted()), (3, 3));
}

#[test]
fn a_key_with_a_lifetime_goes_by_itself() {
    let sandbox = Sandbox::with_vault();
    let (ssh, key) = with_a_file(&sandbox, &["ssh.login=allow"]);
    let server = admitting(&ssh);
    ssh.add(&["-q", "-t", "1h", &key]).ok();
    ssh.ssh(&[HOST, "true"]).ok();
    ssh.add(&["-q", "-t", "1", &key]).ok();
    eventually("the key is gone", || ssh.add(&["-l"]).status == 1);
    // It was ready to sign a moment ago.
    ssh.ssh(&[HOST, "true"]).refused(255, "Permission denied");
    assert_eq!(server.accepted(), 1);
}

#[test]
fn a_locked_agent_shows_and_does_nothing_until_it_is_unlocked() {
    let sandbox = Sandbox::with_vault();
    let (ssh, key) = with_a_file(&sandbox, &["ssh.login=allow"]);
    let server = admitting(&ssh);
    ssh.store("work", &[]);
    let other = ssh.key("other", &["ed25519"]);
    ssh.add(&["-q", &other]).ok();
    add_typing(&ssh, "let me in", &["-x"]).ok();
    assert_eq!(ssh.add(&["-l"]).status, 1);
    assert_ne!(ssh.add(&["-q", &key]).status, 0);
    assert_ne!(ssh.add(&["-d", &other]).status, 0);
    assert_ne!(add_typing(&ssh, "again", &["-x"]).status, 0);
    ssh.ssh(&[HOST, "true"]).refused(255, "Permission denied");
    assert_ne!(add_typing(&ssh, "wrong", &["-X"]).status, 0);
    assert_eq!(ssh.add(&["-l"]).status, 1);
    add_typing(&ssh, "let me in", &["-X"]).ok();
    assert_eq!(ssh.add(&["-l"]).ok().text().lines().count(), 2);
    ssh.ssh(&[HOST, "true"]).ok();
    assert_eq!(server.accepted(), 1);
    assert_ne!(add_typing(&ssh, "let me in", &["-X"]).status, 0);
}

#[test]
fn bytes_that_nobody_understands_are_signed_only_where_a_rule_says_so() {
    let sandbox = Sandbox::with_vault();
    let (ssh, key) = with_a_file(&sandbox, &[]);
    ssh.add(&["-q", &key]).ok();
    let public = format!("{key}.pub");
    ssh.add(&["-T", &public]).refused(1, "Agent signature failed");
    assert!(ssh.questions().is_empty());
    assert_eq!(sandbox.events("decided").pop().unwrap()["rule"], "ssh.other=deny");
    sandbox.policy("ssh.other=ask");
    ssh.add(&["-T", &public]).ok();
    let question = ssh.questions().pop().unwrap();
    assert_eq!(question.title(), "sign bytes that keyloan does not understand with an ssh key");
    assert!(question.line("hash").unwrap().0.starts_with("SHA-256 "));
    sandbox.policy("ssh.other=allow");
    ssh.add(&["-T", &public]).ok();
    assert_eq!(ssh.questions().len(), 1);
}

#[test]
fn a_certificate_is_added_with_its_key_or_left_out() {
    let sandbox = Sandbox::with_vault();
    let (ssh, key) = with_a_file(&sandbox, &["ssh.login=allow"]);
    ssh.key("authority", &["ed25519"]);
    let name = sandbox.command("/usr/bin/id", &["-un"]).run().ok().text();
    ssh.certify("authority", "work", &["-n", name.trim()]);
    let server = ssh.server(HOST, &[format!("cert-authority {}", ssh.public("authority"))]);
    ssh.add(&["-q", "-k", &key]).ok();
    assert_eq!(ssh.add(&["-l"]).ok().text().lines().count(), 1);
    ssh.ssh(&[HOST, "true"]).refused(255, "Permission denied");
    ssh.add(&["-q", &key]).ok();
    let listed = ssh.add(&["-l"]).ok().text();
    assert!(listed.lines().count() == 2 && listed.contains("(ED25519-CERT)"), "{listed}");
    ssh.ssh(&[HOST, "true"]).ok();
    assert_eq!(server.accepted(), 1);
    ssh.add(&["-d", &key]).ok();
    assert_eq!(ssh.add(&["-l"]).status, 1);
}

#[test]
fn libraries_that_speak_to_tokens_are_refused_unseen() {
    let sandbox = Sandbox::with_vault();
    let (ssh, _) = with_a_file(&sandbox, &[]);
    for flag in ["-s", "-e"] {
        let refused = add_typing(&ssh, "123456", &[flag, "/usr/lib/evil.so"]);
        assert_ne!(refused.status, 0, "{}", refused.stderr);
    }
    let refused = sandbox.events("agent_refused");
    assert_eq!(refused.len(), 1, "removing a token is nothing that is known");
    assert!(refused[0]["cause"].as_str().unwrap().contains("a library that speaks to one"));
    assert!(!std::fs::read_to_string(sandbox.log()).unwrap().contains("123456"));
}

#[test]
fn a_signal_drops_the_keys_that_were_added_and_another_ends_the_daemon_cleanly() {
    let sandbox = Sandbox::with_vault();
    let (ssh, key) = with_a_file(&sandbox, &[]);
    ssh.store("work", &[]);
    let other = ssh.key("other", &["ed25519"]);
    ssh.add(&["-q", &other]).ok();
    let pid = Pid::from_raw(sandbox.daemon().unwrap());
    kill(pid, Signal::SIGUSR1).unwrap();
    eventually("only the vault's key is left", || ssh.add(&["-l"]).text().lines().count() == 1);
    assert_eq!(ssh.add(&["-L"]).ok().text().trim(), ssh.public("work"));
    assert!(std::path::Path::new(&ssh.socket()).exists());
    kill(pid, Signal::SIGTERM).unwrap();
    eventually("the daemon says that it ended", || sandbox.events("daemon_stopped").len() == 2);
    eventually("its socket is gone", || !std::path::Path::new(&ssh.socket()).exists());
    ssh.add(&["-q", &key]).refused(2, "Error connecting to agent");
}
