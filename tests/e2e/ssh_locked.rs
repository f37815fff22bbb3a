//! The agent and a vault that is locked, questions that stand, and clients that go away.

use keyloan_e2e::approver::patient;
use keyloan_e2e::sandbox::finished;
use keyloan_e2e::sshd::{Server, Ssh};
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{PASSPHRASE, Sandbox, eventually};

const HOST: &str = "git.example.org";

fn with_a_key<'a>(sandbox: &'a Sandbox, policy: &[&str]) -> (Ssh<'a>, Server) {
    let ssh = Ssh::asked(sandbox, policy);
    ssh.key("work", &["ed25519"]);
    ssh.store("work", &[]);
    let server = ssh.server(HOST, &[ssh.public("work")]);
    (ssh, server)
}

#[test]
fn keys_are_listed_while_the_vault_is_locked() {
    let sandbox = Sandbox::with_vault();
    let (ssh, _server) = with_a_key(&sandbox, &[]);
    let open = ssh.add(&["-L"]).ok().text();
    assert_eq!(open.trim(), ssh.public("work"));
    sandbox.keyloan(&["lock"]).run().ok();
    assert_eq!(ssh.add(&["-L"]).ok().text(), open);
    // A daemon that has not seen the vault open knows them, too.
    sandbox.stop();
    sandbox.keyloan(&["daemon", "start"]).run().ok();
    assert_eq!(ssh.add(&["-L"]).ok().text(), open);
    assert_eq!(sandbox.status()["vault"], "locked");
}

#[test]
fn one_question_unlocks_and_signs() {
    let sandbox = Sandbox::with_vault();
    let (ssh, server) = with_a_key(&sandbox, &["approver.command="]);
    sandbox.keyloan(&["lock"]).run().ok();
    let terminal = Terminal::open(&sandbox);
    terminal.run(&ssh.exports());
    let line = format!("ssh -F {} {HOST} 'echo in $((40+2))'; echo ended $?", ssh.path("config").display());
    terminal.run(&line);
    let shown = terminal.expect("Passphrase, Enter alone to decline:");
    assert!(shown.contains("unlock the vault, and log in with an ssh key"), "{shown}");
    assert!(shown.contains(&format!("@{HOST}  (named by known_hosts)")), "{shown}");
    // What is listed of a locked vault lies beside it in the clear.
    assert!(shown.contains("work  (claimed)"), "{shown}");
    terminal.type_text(PASSPHRASE);
    terminal.press("Enter");
    assert!(terminal.expect("ended 0").contains("\nin 42\n"));
    assert_eq!((sandbox.status()["vault"].as_str(), server.accepted()), (Some("unlocked"), 1));
    let decided = sandbox.events("decided").pop().unwrap();
    assert!(decided["approver"].as_str().unwrap().starts_with("passphrase on pts/"), "{decided}");
    sandbox.keyloan(&["lock"]).run().ok();
    terminal.run(&line);
    terminal.expect("Passphrase, Enter alone to decline:");
    terminal.press("Enter");
    terminal.expect("ended 255");
    assert_eq!((sandbox.status()["vault"].as_str(), server.accepted()), (Some("locked"), 1));
}

#[test]
fn a_key_that_was_swapped_beside_the_locked_vault_does_not_sign() {
    let sandbox = Sandbox::with_vault();
    let (ssh, server) = with_a_key(&sandbox, &["approver.command="]);
    ssh.key("other", &["ed25519"]);
    sandbox.stop();
    let public = sandbox.vault().join("public");
    let text = std::fs::read_to_string(&public).unwrap();
    assert!(text.contains(&ssh.public("work")), "{text}");
    sandbox.write("home/.local/share/keyloan/vault/public", text.replace("\"work\"", "\"harmless\""));
    sandbox.keyloan(&["daemon", "start"]).run().ok();
    let terminal = Terminal::open(&sandbox);
    terminal.run(&ssh.exports());
    terminal.run(&format!("ssh -F {} {HOST} true; echo ended $?", ssh.path("config").display()));
    let shown = terminal.expect("Passphrase, Enter alone to decline:");
    assert!(shown.contains("harmless  (claimed)"), "{shown}");
    terminal.type_text(PASSPHRASE);
    terminal.press("Enter");
    terminal.expect("ended 255");
    assert_eq!((server.accepted(), sandbox.events("public_keys_replaced").len()), (0, 1));
    assert!(std::fs::read_to_string(&public).unwrap().contains("\"work\""));
}

#[test]
fn without_anybody_to_ask_a_login_waits_for_the_vault_to_be_unlocked_elsewhere() {
    let sandbox = Sandbox::with_vault();
    let (ssh, server) = with_a_key(&sandbox, &[]);
    sandbox.stop();
    sandbox.keyloan(&["daemon", "start"]).run().ok();
    let waiting = ssh.client("ssh", &[HOST, "echo", "in"]).start();
    eventually("the client wants its signature", || server.log().contains("Postponed publickey"));
    assert!(ssh.questions().is_empty());
    sandbox.unlock().ok();
    assert_eq!(finished(waiting).ok().text(), "in\n");
    assert_eq!((ssh.questions().len(), server.accepted()), (1, 1));
}

#[test]
fn a_question_that_stands_delays_nobody_elses_list() {
    let sandbox = Sandbox::with_vault();
    let (ssh, server) = with_a_key(&sandbox, &[]);
    let go = sandbox.path("run/go");
    ssh.answered_by(patient(&go), &[]);
    let asking = ssh.client("ssh", &[HOST, "echo", "in"]).start();
    eventually("the question stands", || sandbox.status()["pending"] == 1);
    for _ in 0..20 {
        assert_eq!(ssh.add(&["-L"]).ok().text().trim(), ssh.public("work"));
    }
    assert_eq!((sandbox.status()["pending"].as_i64(), server.accepted()), (Some(1), 0));
    std::fs::write(&go, "").unwrap();
    assert_eq!(finished(asking).ok().text(), "in\n");
}

#[test]
fn a_question_closes_when_its_client_is_gone() {
    let sandbox = Sandbox::with_vault();
    let (ssh, server) = with_a_key(&sandbox, &[]);
    let go = sandbox.path("run/go");
    ssh.answered_by(patient(&go), &[]);
    let mut asking = ssh.client("ssh", &[HOST, "true"]).start();
    eventually("the question stands", || sandbox.status()["pending"] == 1);
    asking.kill().unwrap();
    asking.wait().unwrap();
    eventually("the question is gone", || sandbox.status()["pending"] == 0);
    let decided = sandbox.events("decided").pop().unwrap();
    assert_eq!(decided["approver"], "the requester went away");
    std::fs::write(&go, "").unwrap();
    ssh.ssh(&[HOST, "true"]).ok();
    assert_eq!((sandbox.events("signed").len(), server.accepted()), (1, 1));
}
