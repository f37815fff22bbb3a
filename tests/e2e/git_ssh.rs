//! git over ssh, and commits and tags signed with ssh keys, through the agent.

use keyloan_e2e::sshd::Ssh;
use keyloan_e2e::{Output, Sandbox};
use std::path::Path;

const HOST: &str = "git.example.org";

fn git(ssh: &Ssh<'_>, within: &Path, arguments: &[&str]) -> Output {
    ssh.client("git", arguments).within(within).run()
}

/// A repository with an author, that signs with the key `work`.
fn repository(ssh: &Ssh<'_>) -> std::path::PathBuf {
    let directory = ssh.sandbox.make_directory("project/repository");
    let key = format!("{}.pub", ssh.path("work").display());
    let admitted = format!("ada@example.org namespaces=\"git\" {}\n", ssh.public("work"));
    let signers = ssh.sandbox.write("ssh/signers", admitted).display().to_string();
    git(ssh, &directory, &["init", "-q", "-b", "main"]).ok();
    for (name, value) in [
        ("user.name", "Ada Lovelace"),
        ("user.email", "ada@example.org"),
        ("gpg.format", "ssh"),
        ("user.signingKey", &key),
        ("gpg.ssh.allowedSignersFile", &signers),
    ] {
        git(ssh, &directory, &["config", name, value]).ok();
    }
    directory
}

fn with_a_key<'a>(sandbox: &'a Sandbox, policy: &[&str]) -> Ssh<'a> {
    let ssh = Ssh::asked(sandbox, policy);
    ssh.key("work", &["ed25519"]);
    ssh.store("work", &[]);
    ssh
}

#[test]
fn push_fetch_and_clone_ask_once_each() {
    let sandbox = Sandbox::with_vault();
    let ssh = with_a_key(&sandbox, &[]);
    let server = ssh.server(HOST, &[ssh.public("work")]);
    let bare = sandbox.path("project/bare.git").display().to_string();
    git(&ssh, &sandbox.path("project"), &["init", "-q", "--bare", "-b", "main", &bare]).ok();
    let here = repository(&ssh);
    git(&ssh, &here, &["commit", "-q", "--allow-empty", "-m", "one"]).ok();
    git(&ssh, &here, &["remote", "add", "origin", &format!("{HOST}:{bare}")]).ok();
    git(&ssh, &here, &["push", "-q", "-u", "origin", "main"]).ok();
    assert_eq!((ssh.questions().len(), server.accepted()), (1, 1));
    let question = ssh.questions().pop().unwrap();
    assert!(question.line("to").unwrap().0.ends_with(&format!("@{HOST}")));
    assert!(question.line("command").unwrap().0.contains("git-receive-pack"), "{question:?}");
    let chain = question.line("asked by").unwrap().0;
    assert!(chain.starts_with("/usr/bin/ssh (pid ") && chain.contains("/usr/bin/git"), "{chain}");
    let url = format!("ssh://{HOST}{bare}");
    git(&ssh, &sandbox.path("project"), &["clone", "-q", &url, "copy"]).ok();
    assert_eq!((ssh.questions().len(), server.accepted()), (2, 2));
    let copy = sandbox.path("project/copy");
    assert_eq!(git(&ssh, &copy, &["log", "--format=%s"]).ok().text(), "one\n");
    git(&ssh, &copy, &["fetch", "-q"]).ok();
    assert_eq!((ssh.questions().len(), server.accepted()), (3, 3));
    ssh.answered_by(keyloan_e2e::approver::DENY, &[]);
    git(&ssh, &copy, &["fetch", "-q"]).refused(128, "Permission denied");
    assert_eq!(server.accepted(), 3);
}

#[test]
fn a_signed_commit_is_shown_as_it_is_and_verifies() {
    let sandbox = Sandbox::with_vault();
    let ssh = with_a_key(&sandbox, &["ssh.login=allow"]);
    let here = repository(&ssh);
    let message = "Weave algebraical patterns\n\nas the loom weaves flowers";
    git(&ssh, &here, &["commit", "-q", "-S", "--allow-empty", "-m", message]).ok();
    let [question] = &ssh.questions()[..] else { panic!("{:?}", ssh.questions()) };
    assert_eq!(question.title(), "sign a commit or tag with an ssh key");
    question.says("for", "namespace git", "verified");
    question.says("in", &format!("repository {}", here.display()), "seen");
    question.says("author", "Ada Lovelace <ada@example.org>", "verified");
    question.says("subject", "Weave algebraical patterns", "verified");
    question.says("key", "work", "verified");
    assert!(question.line("hash").is_none(), "{question:?}");
    let verified = git(&ssh, &here, &["verify-commit", "-v", "HEAD"]).ok().stderr;
    let good =
        format!("Good \"git\" signature for ada@example.org with ED25519 key {}", ssh.fingerprint("work"));
    assert!(verified.contains(&good), "{verified}");
    assert!(git(&ssh, &here, &["log", "--show-signature"]).ok().text().contains(&good));
    assert_eq!(sandbox.events("signed").pop().unwrap()["permits"], "namespace git");
    // Somebody else's name is shown as the author, since that is what is signed.
    let author = "--author=Charles Babbage <charles@example.org>";
    git(&ssh, &here, &["commit", "-q", "-S", "--allow-empty", author, "-m", "Engine"]).ok();
    let question = ssh.questions().pop().unwrap();
    question.says("author", "Charles Babbage <charles@example.org>", "verified");
    question.says("subject", "Engine", "verified");
}

#[test]
fn a_signed_tag_is_shown_by_its_name_and_verifies() {
    let sandbox = Sandbox::with_vault();
    let ssh = with_a_key(&sandbox, &[]);
    let here = repository(&ssh);
    git(&ssh, &here, &["commit", "-q", "--allow-empty", "-m", "one"]).ok();
    git(&ssh, &here, &["tag", "-s", "v1.0", "-m", "The first"]).ok();
    let [question] = &ssh.questions()[..] else { panic!("{:?}", ssh.questions()) };
    question.says("tag", "v1.0", "verified");
    question.says("tagger", "Ada Lovelace <ada@example.org>", "verified");
    question.says("subject", "The first", "verified");
    let verified = git(&ssh, &here, &["verify-tag", "v1.0"]).ok().stderr;
    assert!(verified.contains("Good \"git\" signature for ada@example.org"), "{verified}");
}

#[test]
fn a_commit_without_a_yes_is_not_made() {
    let sandbox = Sandbox::with_vault();
    let ssh = with_a_key(&sandbox, &[]);
    let here = repository(&ssh);
    ssh.answered_by(keyloan_e2e::approver::DENY, &[]);
    let refused = git(&ssh, &here, &["commit", "-q", "-S", "--allow-empty", "-m", "one"]);
    refused.refused(128, "failed to write commit object");
    assert_ne!(git(&ssh, &here, &["rev-parse", "-q", "--verify", "HEAD"]).status, 0);
    assert!(sandbox.events("signed").is_empty());
}

#[test]
fn every_commit_of_a_rebase_is_asked_and_a_rule_spares_the_questions() {
    let sandbox = Sandbox::with_vault();
    let ssh = with_a_key(&sandbox, &[]);
    let here = repository(&ssh);
    for number in ["one", "two", "three"] {
        sandbox.write(&format!("project/repository/{number}"), number);
        git(&ssh, &here, &["add", number]).ok();
        git(&ssh, &here, &["commit", "-q", "-m", number]).ok();
    }
    let rebase = ["rebase", "-q", "--force-rebase", "-S", "HEAD~2"];
    git(&ssh, &here, &rebase).ok();
    let subjects: Vec<_> =
        ssh.questions().iter().map(|question| question.line("subject").unwrap().0.to_owned()).collect();
    assert_eq!(subjects, ["two", "three"]);
    sandbox.policy("ssh.signature=allow");
    git(&ssh, &here, &rebase).ok();
    assert_eq!((ssh.questions().len(), sandbox.events("signed").len()), (2, 4));
    git(&ssh, &here, &["verify-commit", "HEAD", "HEAD~1"]).ok();
}
