//! Row 21: one question that unlocks and signs. It is shown before the vault is open, so it says what lies in the clear,
//! where somebody else writes; what the vault says of it counts. OpenSSH's agent has no names, and signs.

use keyloan_e2e::sshd::{Server, Ssh};
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{PASSPHRASE, Sandbox};

const HOST: &str = "git.example.org";
const EVIL: &str = "evil.example.org";

/// The key `work` in the vault, and its questions on a terminal where the vault is locked.
fn with_a_key(sandbox: &Sandbox) -> Ssh<'_> {
    let ssh = Ssh::asked(sandbox, &["trust=allow"]);
    ssh.key("work", &["ed25519"]);
    ssh.store("work", &[]);
    ssh
}

fn admitting(ssh: &Ssh<'_>, name: &str) -> Server {
    ssh.server(name, &[ssh.public("work")])
}

/// Lists the host key of `server` under more names.
fn called(ssh: &Ssh<'_>, server: &Server, names: &str) {
    ssh.append(
        "home/.ssh/known_hosts",
        &format!("{names} {}\n", ssh.public(&format!("host-{}", server.name))),
    );
}

fn pin(ssh: &Ssh<'_>, name: &str, host_key: &str) {
    let key = ssh.public(host_key);
    ssh.sandbox.keyloan(&["ssh", "hosts", "pin", name, "--key", &key]).run().ok();
}

/// Locks the vault, logs in, and says yes by the passphrase; gives what the question showed.
#[track_caller]
fn unlocks_and_logs_in(ssh: &Ssh<'_>, terminal: &Terminal<'_>, server: &Server, status: i32) -> String {
    ssh.sandbox.keyloan(&["lock"]).run().ok();
    terminal.run(&ssh.exports());
    terminal.run(&format!("ssh -F {} {} true; echo ended $?", ssh.path("config").display(), server.name));
    let shown = terminal.expect("Passphrase, Enter alone to decline:");
    terminal.type_text(PASSPHRASE);
    terminal.press("Enter");
    terminal.expect(&format!("ended {status}"));
    assert_eq!(ssh.sandbox.status()["vault"], "unlocked");
    shown
}

/// Fails the test unless the question says that `known_hosts` gives all these names.
#[track_caller]
fn shows(shown: &str, names: &[&str]) {
    let to: Vec<_> = shown.lines().skip_while(|line| !line.starts_with("  to  ")).collect();
    let to = to.join("").replace("          ⋮ ", "");
    let (to, _) = to.split_once("  host key").unwrap();
    assert!(to.ends_with("(named by known_hosts)") && names.iter().all(|name| to.contains(name)), "{to}");
}

#[test]
fn a_host_that_was_shown_under_a_name_that_is_pinned_with_another_key_gets_no_signature() {
    for (pinned, claimed) in [
        (HOST, HOST.to_owned()),
        (HOST, format!("[{HOST}]:2222")),
        ("[git.example.org]:2222", HOST.to_owned()),
        ("[git.example.org]:2222", format!("[{HOST}]:2022")),
    ] {
        let sandbox = Sandbox::with_vault();
        let ssh = with_a_key(&sandbox);
        let evil = admitting(&ssh, EVIL);
        ssh.key("honest", &["ed25519"]);
        pin(&ssh, pinned, "honest");
        // It has a pinned name itself: one that is right excuses no other.
        pin(&ssh, EVIL, &format!("host-{EVIL}"));
        called(&ssh, &evil, &claimed);
        let (_agent, plain) = ssh.plain_agent();
        ssh.client_of(&plain, "ssh-add", &["-q", &ssh.path("work").display().to_string()]).run().ok();
        ssh.client_of(&plain, "ssh", &[EVIL, "true"]).run().ok();
        assert_eq!(evil.accepted(), 1, "the victim logs in wherever it is sent");
        let terminal = Terminal::open(&sandbox);
        let shown = unlocks_and_logs_in(&ssh, &terminal, &evil, 255);
        shows(&shown, &[EVIL, &claimed]);
        assert_eq!((evil.accepted(), sandbox.events("signed").len()), (1, 0), "{claimed}");
        let failed = sandbox.events("failed").pop().unwrap();
        assert!(failed["cause"].as_str().unwrap().contains("calls the host otherwise"), "{failed}");
        // Open, the vault names the host; known_hosts is not asked.
        ssh.ssh(&[EVIL, "true"]).ok();
        let (to, certainty) = ssh.questions().pop().unwrap().line("to").map(owned).unwrap();
        assert!(to.ends_with(&format!("@{EVIL}")) && certainty == "verified", "{to} {certainty}");
    }
}

fn owned((text, certainty): (&str, &str)) -> (String, String) {
    (text.to_owned(), certainty.to_owned())
}

#[test]
fn a_pinned_host_that_was_shown_under_other_names_only_gets_no_signature() {
    let sandbox = Sandbox::with_vault();
    let ssh = with_a_key(&sandbox);
    let evil = admitting(&ssh, EVIL);
    pin(&ssh, EVIL, &format!("host-{EVIL}"));
    // ssh itself is told where else to look; the daemon reads the file that anybody writes.
    let believed = sandbox.write("ssh/believed", std::fs::read(ssh.known_hosts()).unwrap());
    let config = std::fs::read_to_string(ssh.path("config")).unwrap();
    let hosts = ssh.known_hosts().display().to_string();
    sandbox.write("ssh/config", config.replace(&hosts, &believed.display().to_string()));
    sandbox.write("home/.ssh/known_hosts", "");
    called(&ssh, &evil, HOST);
    let terminal = Terminal::open(&sandbox);
    let shown = unlocks_and_logs_in(&ssh, &terminal, &evil, 255);
    shows(&shown, &[HOST]);
    assert!(evil.accepted() == 0 && sandbox.events("signed").is_empty());
    let failed = sandbox.events("failed").pop().unwrap();
    assert!(failed["cause"].as_str().unwrap().contains("calls the host otherwise"), "{failed}");
    ssh.ssh(&[EVIL, "true"]).ok();
    assert_eq!(ssh.questions().pop().unwrap().line("to").unwrap().1, "verified");
}

#[test]
fn a_pinned_host_that_known_hosts_has_at_a_port_or_under_more_names_is_logged_in_to_as_the_vault_names_it() {
    for more in [format!("[{HOST}]:2222"), "alias.example.org".to_owned()] {
        let sandbox = Sandbox::with_vault();
        let ssh = with_a_key(&sandbox);
        let server = admitting(&ssh, HOST);
        ssh.key("honest", &["ed25519"]);
        pin(&ssh, HOST, &format!("host-{HOST}"));
        pin(&ssh, "elsewhere.example.org", "honest");
        called(&ssh, &server, &more);
        let terminal = Terminal::open(&sandbox);
        let shown = unlocks_and_logs_in(&ssh, &terminal, &server, 0);
        shows(&shown, &[HOST, &more]);
        assert_eq!(server.accepted(), 1);
        // The log is written when the vault is open, and says what that says.
        let signed = sandbox.events("signed").pop().unwrap();
        let permits = signed["permits"].as_str().unwrap();
        assert!(permits.ends_with(&format!("@{HOST}")) && !permits.contains(" or "), "{signed}");
        assert_eq!(signed["host_is"], "verified", "{signed}");
        assert_eq!(signed["host_key"], ssh.fingerprint(&format!("host-{HOST}")));
    }
}

#[test]
fn a_question_before_the_vault_is_open_says_nothing_of_what_is_pinned_there() {
    let sandbox = Sandbox::with_vault();
    let ssh = with_a_key(&sandbox);
    let (server, other) = (admitting(&ssh, HOST), admitting(&ssh, "other.example.org"));
    pin(&ssh, HOST, &format!("host-{HOST}"));
    let terminal = Terminal::open(&sandbox);
    for server in [&server, &other] {
        let shown = unlocks_and_logs_in(&ssh, &terminal, server, 0);
        shows(&shown, &[&server.name]);
        assert!(!shown.contains("pinned") && !shown.contains("ssh hosts pin"), "{shown}");
    }
    // Which is said of the one that is not, where it is known.
    ssh.ssh(&[&other.name, "true"]).ok();
    let asked = ssh.questions().pop().unwrap();
    asked.says("pinned", "not yet", "verified");
}
