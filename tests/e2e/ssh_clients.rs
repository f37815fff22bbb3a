//! Clients of the agent that are not OpenSSH's: `plink` of `PuTTY`, paramiko, libssh2 in curl. None says where it logs in,
//! so each login is asked. And OpenSSH's own for files: `ssh-keygen -Y`.

use keyloan_e2e::programs::needed;
use keyloan_e2e::sshd::{Server, Ssh};
use keyloan_e2e::{Output, Sandbox};

const HOST: &str = "git.example.org";
const UNKNOWN: &str = "UNKNOWN: the client does not say which host";

/// Logins of a foreign client: each asked, whatever the rules say, and none after a no.
fn asks_at_every_login(kinds: &[&[&str]], log_in: impl Fn(&Ssh<'_>, &Server, &str) -> Output) {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &["ssh.login=allow"]);
    let user = sandbox.command("/usr/bin/id", &["-un"]).run().ok().text().trim().to_owned();
    for (at, kind) in kinds.iter().enumerate() {
        let key = format!("key-{at}");
        ssh.key(&key, kind);
        ssh.store(&key, &[]);
        let server = ssh.server(&format!("{at}.{HOST}"), &[ssh.public(&key)]);
        let before = ssh.questions().len();
        let shown = log_in(&ssh, &server, &user).ok().text();
        assert!(shown.contains("let in"), "{shown}");
        let asked = ssh.questions().split_off(before);
        assert_eq!((asked.len(), server.accepted()), (1, 1), "{kind:?}: {asked:?}");
        asked[0].says("to", &format!("{user}@ {UNKNOWN}"), "claimed");
        asked[0].says("key", &key, "verified");
        assert!(asked[0].line("host key").is_none());
        // The next login is another.
        log_in(&ssh, &server, &user).ok();
        assert_eq!((ssh.questions().len(), server.accepted()), (before + 2, 2));
        let decided = sandbox.events("decided").pop().unwrap();
        assert_eq!(decided["rule"], "a login to a host that the client does not name is always asked");
        // A key for certain hosts is for none of these.
        let hosts = ["item", "set", "--public", &key, "hosts"];
        sandbox.keyloan(&hosts).stdin(format!("*.{HOST}")).run().ok();
        assert_ne!(log_in(&ssh, &server, &user).status, 0);
        let cause = sandbox.events("agent_refused").pop().unwrap()["cause"].to_string();
        assert!(cause.contains("does not say where"), "{cause}");
        sandbox.keyloan(&["item", "rm", &key]).run().ok();
    }
    let key = ssh.key("last", &["ed25519"]);
    ssh.add(&["-q", &key]).ok();
    let server = ssh.server("last.example.org", &[ssh.public("last")]);
    ssh.answered_by(keyloan_e2e::approver::DENY, &[]);
    assert_ne!(log_in(&ssh, &server, &user).status, 0);
    assert_eq!(server.accepted(), 0);
}

const EVERY: &[&[&str]] =
    &[&["ed25519"], &["ecdsa", "-b", "256"], &["ecdsa", "-b", "384"], &["ecdsa", "-b", "521"], &["rsa"]];

#[test]
fn plink_logs_in_after_a_question_each_time() {
    asks_at_every_login(EVERY, |ssh, server, user| {
        let (port, place) = (server.port.to_string(), format!("{user}@127.0.0.1"));
        let fingerprint = ssh.fingerprint(&format!("host-{}", server.name));
        let arguments = ["-batch", "-agent", "-P", &port, "-hostkey", &fingerprint, &place, "echo let in"];
        ssh.client("plink", &arguments).run()
    });
}

const PARAMIKO: &str = r#"
import paramiko, sys
client = paramiko.SSHClient()
client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
client.connect("127.0.0.1", int(sys.argv[1]), sys.argv[2], look_for_keys=False, allow_agent=True)
print(client.exec_command("echo let in")[1].read().decode())
client.close()
"#;

#[test]
fn paramiko_logs_in_after_a_question_each_time() {
    asks_at_every_login(EVERY, |ssh, server, user| {
        // Debian's interpreter, which has Debian's packages.
        let arguments = ["-c", PARAMIKO, &server.port.to_string(), user];
        ssh.client("python3", &arguments).run()
    });
}

#[test]
fn curl_logs_in_after_a_question_each_time() {
    // With RSA libssh2 before 1.11 signs with SHA-1 only, which servers refuse as well.
    asks_at_every_login(&[&["ed25519"], &["ecdsa", "-b", "256"]], |ssh, server, user| {
        let file = ssh.sandbox.write("project/file", "let in");
        let url = format!("sftp://127.0.0.1:{}{}", server.port, file.display());
        ssh.client("curl", &["-sS", "--insecure", "-u", &format!("{user}:"), &url]).run()
    });
}

#[test]
fn files_that_are_signed_verify_and_the_namespace_is_asked() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &[]);
    sandbox.write("project/file", "text");
    for (at, kind) in EVERY.iter().enumerate() {
        let key = format!("key-{at}");
        ssh.key(&key, kind);
        ssh.store(&key, &[]);
        let public = format!("{}.pub", ssh.path(&key).display());
        let sign = |arguments: &[&str]| {
            let all = [&["-q", "-Y", "sign", "-f", &public], arguments].concat();
            ssh.client("ssh-keygen", &all).stdin("text").run()
        };
        // By the private key beside it ssh-keygen would not need an agent.
        std::fs::remove_file(ssh.path(&key)).unwrap();
        for hash in ["sha256", "sha512"] {
            let asked = ssh.questions().len();
            let signature =
                sign(&["-n", "release@example.org", "-O", &format!("hashalg={hash}")]).ok().text();
            let question = &ssh.questions()[asked];
            question.says("for", "namespace release@example.org", "verified");
            let sum = sandbox.command(needed(&format!("{hash}sum")), &["file"]).run().ok().text();
            let name = if hash == "sha256" { "SHA-256" } else { "SHA-512" };
            question.says("hash", &format!("{name} {}", sum.split(' ').next().unwrap()), "verified");
            let file = sandbox.write("project/file.sig", signature).display().to_string();
            let signers = sandbox.write("ssh/signers", format!("me {}\n", ssh.public(&key)));
            let signers = signers.display().to_string();
            let verify = |namespace: &str, text: &str| {
                let arguments = ["-Y", "verify", "-f", &signers, "-I", "me", "-n", namespace, "-s", &file];
                ssh.client("ssh-keygen", &arguments).stdin(text).run()
            };
            verify("release@example.org", "text").ok();
            assert_ne!(verify("release@example.org", "text!").status, 0);
            assert_ne!(verify("git", "text").status, 0);
        }
    }
    ssh.answered_by(keyloan_e2e::approver::DENY, &[]);
    let public = format!("{}.pub", ssh.path("key-0").display());
    let refused =
        ssh.client("ssh-keygen", &["-q", "-Y", "sign", "-f", &public, "-n", "file"]).stdin("text").run();
    assert_ne!(refused.status, 0);
    assert!(!refused.text().contains("BEGIN SSH SIGNATURE"));
}
