//! The first login to a host: its name is kept with its key by the same yes, where that is offered.

use keyloan_e2e::sshd::{Server, Ssh};
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{PIN, Sandbox, approver};

const HOST: &str = "git.example.org";
const PROMPT: &str = "PIN to allow, Enter alone to decline:";

fn server(ssh: &Ssh<'_>) -> Server {
    ssh.key("work", &["ed25519"]);
    ssh.store("work", &[]);
    ssh.server(HOST, &[ssh.public("work")])
}

fn pins(sandbox: &Sandbox) -> String {
    sandbox.keyloan(&["ssh", "hosts", "list"]).run().ok().text()
}

#[test]
fn the_pin_and_p_let_in_and_keep_the_name_with_the_key() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &["approver.command="]);
    let server = server(&ssh);
    let terminal = Terminal::sized(&sandbox, "tmux", 80, 40);
    terminal.run(&ssh.exports());
    let line = format!("ssh -F {} {HOST} true; echo ended $?", ssh.path("config").display());
    terminal.run(&line);
    let shown = terminal.expect(PROMPT);
    assert!(shown.contains("\n  pinned    not yet  (verified)\n"), "{shown}");
    assert!(shown.contains(&format!("@{HOST}  (named by known_hosts)")), "{shown}");
    assert!(
        shown.contains(&format!("\n  PIN+p     allows it, and keeps the name {HOST} with this host key\n")),
        "{shown}"
    );
    terminal.type_text(&format!("{PIN}+p"));
    terminal.press("Enter");
    terminal.expect("ended 0");
    assert_eq!(server.accepted(), 1);
    let kept = pins(&sandbox);
    let fingerprint = ssh.fingerprint(&format!("host-{HOST}"));
    assert!(kept.lines().count() == 1 && kept.contains(HOST) && kept.contains(&fingerprint), "{kept}");
    let [changed] = &sandbox.events("host_changed")[..] else { panic!() };
    assert_eq!((&changed["host"], &changed["action"]), (&HOST.into(), &"pinned".into()));
    assert_eq!(changed["request"], sandbox.events("signed")[0]["request"]);
    // From now on the name is the vault's, and there is nothing to keep.
    terminal.run(&line);
    let shown = terminal.expect(PROMPT);
    assert!(shown.contains(&format!("@{HOST}  (verified)")), "{shown}");
    assert!(!shown.contains("PIN+p") && !shown.contains("pinned"), "{shown}");
    terminal.type_text(&format!("{PIN}+p"));
    terminal.press("Enter");
    terminal.expect("That is not the PIN.");
}

#[test]
fn a_plain_yes_keeps_nothing() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &[]);
    let server = server(&ssh);
    ssh.ssh(&[HOST, "true"]).ok();
    let question = ssh.questions().pop().unwrap();
    assert_eq!(question.scopes(), ["once", "command", "pin"]);
    assert_eq!((server.accepted(), pins(&sandbox).as_str()), (1, ""));
}

#[test]
fn an_approver_program_keeps_it_where_it_could_have_answered_the_pin_itself() {
    for (trust, offers) in
        [("trust=ask", true), ("trust=allow 1/1h", true), ("trust=ask-pin", false), ("trust=deny", false)]
    {
        let sandbox = Sandbox::with_vault();
        let ssh = Ssh::of(&sandbox);
        ssh.answered_by(approver::covering(&ssh.kept(), "pin"), &[trust]);
        let server = server(&ssh);
        ssh.ssh(&[HOST, "true"]).ok();
        let question = ssh.questions().pop().unwrap();
        assert_eq!(question.scopes().contains(&"pin"), offers, "{trust}");
        let line =
            if offers { "not yet".to_owned() } else { format!("not yet: keyloan ssh hosts pin {HOST}") };
        question.says("pinned", &line, "verified");
        assert_eq!((server.accepted(), pins(&sandbox).is_empty()), (1, !offers), "{trust}");
        if trust == "trust=allow 1/1h" {
            // Its one use is used up.
            let explained = sandbox.keyloan(&["policy", "explain", "trust"]).run().ok().text();
            assert!(explained.starts_with("ask: trust=allow 1/1h, used up"), "{explained}");
        }
    }
}

#[test]
fn where_the_pin_is_typed_it_is_offered_although_keeping_a_name_wants_the_pin() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &["trust=ask-pin", "ssh.login=ask-pin"]);
    let _server = server(&ssh);
    let terminal = Terminal::sized(&sandbox, "tmux", 80, 40);
    terminal.run(&ssh.exports());
    terminal.run(&format!("ssh -F {} {HOST} true; echo ended $?", ssh.path("config").display()));
    terminal.expect("PIN+p     allows it");
    terminal.expect(PROMPT);
    terminal.type_text(&format!("{PIN}+p"));
    terminal.press("Enter");
    terminal.expect("ended 0");
    assert!(pins(&sandbox).contains(HOST));
}

#[test]
fn a_name_that_may_be_another_hosts_is_not_offered() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &[]);
    let _server = server(&ssh);
    let pins_nothing = || {
        let question = ssh.questions().pop().unwrap();
        !question.scopes().contains(&"pin")
    };
    // Two names for one key: only one can be the host's own, and any program can have written the other.
    ssh.append("home/.ssh/known_hosts", &format!("bank.example {}\n", ssh.public(&format!("host-{HOST}"))));
    ssh.ssh(&[HOST, "true"]).ok();
    assert!(pins_nothing());
    // A name that is kept with another key already.
    sandbox.write("home/.ssh/known_hosts", format!("{HOST} {}\n", ssh.public(&format!("host-{HOST}"))));
    ssh.key("other", &["ed25519"]);
    sandbox.keyloan(&["ssh", "hosts", "pin", HOST, "--key", &ssh.public("other")]).run().ok();
    ssh.ssh(&[HOST, "true"]).ok();
    assert!(pins_nothing());
}
