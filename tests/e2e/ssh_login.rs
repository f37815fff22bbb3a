//! Logins with OpenSSH's client through the agent: who is asked, what the question says of key and host, what a no
//! does.

use keyloan_e2e::sshd::Ssh;
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{PIN, Sandbox, approver};

const HOST: &str = "git.example.org";

fn user(sandbox: &Sandbox) -> String {
    sandbox.command("/usr/bin/id", &["-un"]).run().ok().text().trim().to_owned()
}

#[test]
fn a_login_asks_once_and_says_where_and_with_what() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &[]);
    ssh.key("work", &["ed25519"]);
    ssh.store("work", &[]);
    let server = ssh.server(HOST, &[ssh.public("work")]);
    assert_eq!(ssh.ssh(&[HOST, "echo", "in"]).ok().text(), "in\n");
    let [question] = &ssh.questions()[..] else { panic!("{:?}", ssh.questions()) };
    assert_eq!(question.title(), "log in with an ssh key");
    question.says("to", &format!("{}@{HOST}", user(&sandbox)), "known_hosts");
    let of = |key: &str| format!("ssh-ed25519 {}", ssh.fingerprint(key));
    question.says("host key", &of(&format!("host-{HOST}")), "verified");
    question.says("key", "work", "verified");
    question.says("key is", &of("work"), "verified");
    assert!(question.line("command").unwrap().0.ends_with(&format!("{HOST} echo in")));
    assert!(question.line("forwarded").is_none());
    let signed = sandbox.events("signed");
    assert_eq!((signed.len(), server.accepted()), (1, 1));
    assert_eq!(signed[0]["key"], ssh.fingerprint("work"));
    assert_eq!(signed[0]["permits"], format!("{}@{HOST}", user(&sandbox)));
}

#[test]
fn the_pin_on_the_terminal_lets_a_login_in() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &["approver.command="]);
    ssh.key("work", &["ed25519"]);
    ssh.store("work", &[]);
    let _server = ssh.server(HOST, &[ssh.public("work")]);
    let terminal = Terminal::open(&sandbox);
    terminal.run(&ssh.exports());
    let line = format!("ssh -F {} {HOST} 'echo in $((40+2))'; echo ended $?", ssh.path("config").display());
    terminal.run(&line);
    let shown = terminal.expect("PIN to allow, Enter alone to decline:");
    for part in
        ["keyloan: log in with an ssh key", &format!("@{HOST}  (named by known_hosts)"), "work  (verified)"]
    {
        assert!(shown.contains(part), "'{part}' is not in:\n{shown}");
    }
    terminal.type_text(PIN);
    terminal.press("Enter");
    assert!(terminal.expect("ended 0").contains("\nin 42\n"));
    terminal.run(&line);
    terminal.expect("PIN to allow, Enter alone to decline:");
    terminal.press("Enter");
    let shown = terminal.expect("ended 255");
    assert!(shown.contains("agent refused operation") && shown.contains("Permission denied"), "{shown}");
}

#[test]
fn after_a_no_the_login_fails_and_the_log_says_so() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::of(&sandbox);
    ssh.answered_by(approver::declining(&ssh.kept()), &[]);
    ssh.key("work", &["ed25519"]);
    ssh.store("work", &[]);
    let server = ssh.server(HOST, &[ssh.public("work")]);
    ssh.ssh(&[HOST, "true"]).refused(255, "Permission denied (publickey)");
    assert_eq!((ssh.questions().len(), server.accepted()), (1, 0));
    let decided = sandbox.events("decided").pop().unwrap();
    assert_eq!(
        (decided["decision"].as_str(), decided["rule"].as_str()),
        (Some("declined"), Some("ssh.login=ask"))
    );
    assert!(sandbox.events("signed").is_empty());
}

#[test]
fn a_rule_decides_where_the_host_is_known() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &["ssh.login=allow"]);
    ssh.key("work", &["ed25519"]);
    ssh.store("work", &[]);
    let server = ssh.server(HOST, &[ssh.public("work")]);
    ssh.ssh(&[HOST, "true"]).ok();
    assert_eq!((ssh.questions().len(), server.accepted()), (0, 1));
    sandbox.policy("ssh.login=deny");
    ssh.ssh(&[HOST, "true"]).refused(255, "Permission denied");
    assert_eq!((ssh.questions().len(), server.accepted()), (0, 1));
}

#[test]
fn keys_of_every_type_log_in_with_certificates_too() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &["ssh.login=allow"]);
    ssh.key("authority", &["ed25519"]);
    let name = user(&sandbox);
    for (at, kind) in [
        &["ed25519"][..],
        &["ecdsa", "-b", "256"],
        &["ecdsa", "-b", "384"],
        &["ecdsa", "-b", "521"],
        &["rsa"],
    ]
    .into_iter()
    .enumerate()
    {
        let (key, plain, certified) = (format!("key-{at}"), format!("plain-{at}"), format!("ca-{at}"));
        ssh.key(&key, kind);
        let certificate = ssh.certify("authority", &key, &["-n", &name]);
        let certificate = std::fs::read_to_string(certificate).unwrap();
        ssh.store(&key, &[("certificate", certificate.trim())]);
        let plain = ssh.server(&plain, &[ssh.public(&key)]);
        ssh.ssh(&[&plain.name, "true"]).ok();
        let certified = ssh.server(&certified, &[format!("cert-authority {}", ssh.public("authority"))]);
        ssh.ssh(&[&certified.name, "true"]).ok();
        assert_eq!((plain.accepted(), certified.accepted()), (1, 1));
        sandbox.keyloan(&["item", "rm", &key]).run().ok();
    }
}

#[test]
fn a_certified_host_key_is_named_by_its_authority() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &[]);
    ssh.key("work", &["ed25519"]);
    ssh.store("work", &[]);
    ssh.key("authority", &["ed25519"]);
    ssh.key(&format!("host-{HOST}"), &["ecdsa"]);
    let certificate = ssh.certify("authority", &format!("host-{HOST}"), &["-h", "-n", HOST]);
    let settings = format!("HostCertificate {certificate}");
    ssh.append("home/.ssh/known_hosts", &format!("@cert-authority *.org {}\n", ssh.public("authority")));
    let server = ssh.server_with(HOST, &[ssh.public("work")], &settings);
    ssh.ssh(&[HOST, "true"]).ok();
    assert_eq!(server.accepted(), 1);
    let question = ssh.questions().pop().unwrap();
    question.says("to", &format!("{}@{HOST}", user(&sandbox)), "known_hosts");
    let fingerprint = ssh.fingerprint(&format!("host-{HOST}"));
    question.says("host key", &format!("ecdsa-sha2-nistp256 {fingerprint}, by a certificate"), "verified");
}

#[test]
fn a_name_that_known_hosts_hides_is_taken_from_the_command_and_proved() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &[]);
    ssh.key("work", &["ed25519"]);
    ssh.store("work", &[]);
    let _server = ssh.server(HOST, &[ssh.public("work")]);
    let hosts = ssh.known_hosts().display().to_string();
    sandbox.command("/usr/bin/ssh-keygen", &["-q", "-H", "-f", &hosts]).run().ok();
    assert!(std::fs::read_to_string(&hosts).unwrap().starts_with("|1|"));
    ssh.ssh(&[HOST, "true"]).ok();
    let to = |place: &str| format!("{}@{place}", user(&sandbox));
    ssh.questions().pop().unwrap().says("to", &to(HOST), "known_hosts");
    // By a nickname of the configuration nobody could say which entry it is.
    let text = std::fs::read_to_string(ssh.path("config")).unwrap();
    sandbox.write("ssh/config", text.replace(&format!("Host {HOST}\n"), "Host nick\n"));
    ssh.ssh(&["nick", "true"]).ok();
    ssh.questions().pop().unwrap().says("to", &to("a host whose name known_hosts hides"), "seen");
}

#[test]
fn a_host_that_nobody_knows_is_said_to_be_unknown() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &[]);
    ssh.key("work", &["ed25519"]);
    ssh.store("work", &[]);
    let _server = ssh.server(HOST, &[ssh.public("work")]);
    sandbox.write("home/.ssh/known_hosts", "");
    ssh.ssh(&["-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null", HOST, "true"]).ok();
    let text = format!("{}@a host that known_hosts does not know", user(&sandbox));
    ssh.questions().pop().unwrap().says("to", &text, "seen");
}

#[test]
fn a_revoked_host_gets_no_signature_whatever_the_client_believes() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &["ssh.login=allow"]);
    ssh.key("work", &["ed25519"]);
    ssh.store("work", &[]);
    let server = ssh.server(HOST, &[ssh.public("work")]);
    let other = sandbox.write("ssh/believed", std::fs::read(ssh.known_hosts()).unwrap());
    let believed = format!("-oUserKnownHostsFile={}", other.display());
    ssh.ssh(&[&believed, HOST, "true"]).ok();
    ssh.append("home/.ssh/known_hosts", &format!("@revoked * {}\n", ssh.public(&format!("host-{HOST}"))));
    ssh.ssh(&[&believed, HOST, "true"]).refused(255, "Permission denied");
    assert_eq!((ssh.questions().len(), server.accepted()), (0, 1));
    let refused = sandbox.events("agent_refused").pop().unwrap();
    assert_eq!(refused["cause"], "known_hosts says that the host's key is revoked");
}

#[test]
fn a_pinned_host_is_verified_whatever_known_hosts_calls_it() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &["trust=allow"]);
    ssh.key("work", &["ed25519"]);
    ssh.store("work", &[("hosts", HOST)]);
    let server = ssh.server(HOST, &[ssh.public("work")]);
    let other = sandbox.write("ssh/believed", std::fs::read(ssh.known_hosts()).unwrap());
    let believed = format!("-oUserKnownHostsFile={}", other.display());
    sandbox.keyloan(&["ssh", "hosts", "pin", HOST]).run().ok();
    let line = format!("evil.example.com {}\n", ssh.public(&format!("host-{HOST}")));
    sandbox.write("home/.ssh/known_hosts", line);
    ssh.ssh(&[&believed, HOST, "true"]).ok();
    ssh.questions().pop().unwrap().says("to", &format!("{}@{HOST}", user(&sandbox)), "verified");
    assert_eq!(sandbox.events("signed").pop().unwrap()["permits"], format!("{}@{HOST}", user(&sandbox)));
    sandbox.keyloan(&["ssh", "hosts", "unpin", HOST]).run().ok();
    ssh.ssh(&[&believed, HOST, "true"]).refused(255, "Permission denied");
    assert_eq!(server.accepted(), 1);
}

#[test]
fn a_host_is_forgotten_under_the_name_that_is_given_and_no_other() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &["trust=ask"]);
    ssh.key("host", &["ed25519"]);
    let key = ssh.public("host");
    let (plain, other) = ("host.example.org", "[host.example.org]:2222");
    let hosts = |arguments: &[&str]| sandbox.keyloan(&[&["ssh", "hosts"], arguments].concat()).run();
    let pinned = || -> Vec<String> {
        let list = hosts(&["list"]).ok().text();
        list.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    };
    for (goes, stays) in [(plain, other), (other, plain)] {
        hosts(&["pin", stays, "--key", &key]).ok();
        let asked = ssh.questions().len();
        // Nobody is asked for what would change nothing.
        hosts(&["unpin", goes]).refused(1, &format!("there is no pinned host '{goes}'"));
        assert_eq!((ssh.questions().len(), pinned()), (asked, vec![stays.to_owned()]));
        hosts(&["pin", goes, "--key", &key]).ok();
        assert_eq!(pinned().len(), 2);
        hosts(&["unpin", goes]).ok();
        assert_eq!(pinned(), [stays]);
        hosts(&["unpin", stays]).ok();
        assert!(pinned().is_empty());
    }
    // The usual port is none.
    hosts(&["pin", plain, "--key", &key]).ok();
    hosts(&["unpin", "[host.example.org]:22"]).ok();
    assert!(pinned().is_empty());
}
