//! Questions for ssh keys: logins, signatures, keys that are added, hosts that are pinned.

use crate::asked::Person;
use crate::places::Board;
use keyloan_e2e::agent::hex;
use keyloan_e2e::sshd::Ssh;
use keyloan_e2e::{PASSPHRASE, Sandbox};
use keyloan_protocol::ssh_agent::message::{Request, Sign, SignFlags};

const HOST: &str = "git.example.org";
const HOP: &str = "hop.example.org";

/// A vault with the key `work`. The approver program answers until a person comes.
fn with_work<'a>(sandbox: &'a Sandbox, policy: &[&str]) -> Ssh<'a> {
    let ssh = Ssh::asked(sandbox, policy);
    ssh.key("work", &["ed25519"]);
    ssh.store("work", &[]);
    ssh
}

fn person<'a>(ssh: &Ssh<'a>) -> Person<'a> {
    let person = Person::of(ssh.sandbox);
    person.runs(&ssh.exports());
    person
}

#[test]
fn logins() {
    let sandbox = Sandbox::with_vault();
    let ssh = with_work(&sandbox, &["trust=allow"]);
    let _host = ssh.server(HOST, &[ssh.public("work")]);
    let person = person(&ssh);
    let ssh_to = |words: &str| format!("ssh -F ../ssh/config {words}");
    let login = ssh_to(&format!("{HOST} true"));
    person.says_yes("ssh-login-known-hosts", &login);
    person.runs(&format!("keyloan ssh hosts pin {HOST}"));
    person.says_yes("ssh-login-pinned", &login);
    person.runs(&format!("keyloan ssh hosts unpin {HOST}; echo >../home/.ssh/known_hosts"));
    let unknown = "-oStrictHostKeyChecking=no -oUserKnownHostsFile=/dev/null";
    person.says_yes("ssh-login-unknown", &ssh_to(&format!("{unknown} {HOST} true")));
}

#[test]
fn logins_that_are_asked_whatever_a_rule_allows() {
    let sandbox = Sandbox::with_vault();
    let ssh = with_work(&sandbox, &["ssh.login=allow"]);
    let _hop = ssh.server(HOP, &[ssh.public("work")]);
    let host = ssh.server(HOST, &[ssh.public("work")]);
    let inner = format!("ssh -F {} {HOST} true", ssh.path("config").display());
    let person = person(&ssh);
    let login = format!("ssh -F ../ssh/config -A {HOP} {inner}");
    // What is typed there may go to the other host.
    person.terminal.run(&format!("clear; {login}; echo ended-$?"));
    let shown = person.terminal.expect("ended-255");
    assert!(!shown.contains("PIN to allow") && shown.contains("Permission denied"), "{shown}");
    let board = Board::open(&sandbox);
    person.terminal.run(&format!("clear; {login}; echo ended-$?"));
    board.shows("ssh-login-forwarded");
    board.allow();
    person.terminal.expect("ended-0");
    board.leave();
    let key = ssh.fingerprint(&format!("host-{HOST}"));
    sandbox.write(
        "project/plink.sh",
        format!("plink -batch -agent -P {} -hostkey {key} \"$USER@127.0.0.1\" true\n", host.port),
    );
    person.says_yes("ssh-login-nowhere", "USER=$(id -un) sh plink.sh");
}

#[test]
fn signatures() {
    let sandbox = Sandbox::with_vault();
    let ssh = with_work(&sandbox, &["ssh.other=ask"]);
    let public = ssh.path("work.pub").display().to_string();
    sandbox.write("project/release.tar", "text");
    let person = person(&ssh);
    person.runs("git init -q -b main . && git config user.name 'Ada Lovelace' && git config user.email ada@example.org");
    person.runs(&format!("git config gpg.format ssh; git config user.signingKey {public}"));
    person.says_yes("sign-commit", "git commit -q -S --allow-empty -m 'Weave algebraical patterns'");
    person.says_yes("sign-tag", "git tag -s v1.0 -m 'The first'");
    person.says_yes("sign-file", &format!("ssh-keygen -q -Y sign -n file -f {public} release.tar"));
    let sign = Sign { key: ssh.public_key("work"), data: b"what is this?".to_vec(), flags: SignFlags::NONE };
    let bytes = hex(&Request::Sign(sign).encode().unwrap());
    let script = format!(
        "import socket, os\ns = socket.socket(socket.AF_UNIX)\ns.connect(os.environ['SSH_AUTH_SOCK'])\ns.sendall(bytes.fromhex('{bytes}'))\ns.recv(9)\n"
    );
    sandbox.write("project/sign.py", script);
    person.says_yes("sign-other", "python3 sign.py");
}

#[test]
fn keys_and_hosts() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &["key.add=ask"]);
    for name in ["id", "more"] {
        ssh.key(name, &["ed25519"]);
    }
    let person = person(&ssh);
    person.says_yes("ssh-add", "ssh-add -q ../ssh/id");
    person.says_yes("ssh-add-constrained", "ssh-add -q -c -t 1h ../ssh/more");
    person.says_yes("key-store", "keyloan ssh add --keep ../ssh/id");
    person.says_yes("key-generate", "keyloan ssh generate deploy --comment me@laptop");
    person.says_yes("key-set", "keyloan ssh set deploy --host git.example.org --confirm always");
    person.says_yes("host-pin", &format!("keyloan ssh hosts pin {HOST} --key \"$(cat ../ssh/id.pub)\""));
    person.says_yes(
        "host-pin-beside",
        &format!("keyloan ssh hosts pin {HOST} --key \"$(cat ../ssh/more.pub)\""),
    );
    person.says_yes("host-unpin", &format!("keyloan ssh hosts unpin {HOST}"));
}

#[test]
fn keys_and_certificates_of_linked_vaults() {
    let sandbox = Sandbox::with_vault();
    let ssh = with_work(&sandbox, &["key.add=ask"]);
    for name in ["deploy", "authority"] {
        ssh.key(name, &["ed25519"]);
    }
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = certify ] || exec cat {0}/deploy\nd=$(mktemp -d); cat >$d/key.pub\n\
         ssh-keygen -q -s {0}/authority -I made -n \"$(id -un)\" -V -1m:+${{2}}s $d/key.pub\n\
         cat $d/key-cert.pub; rm -r $d\n",
        sandbox.path("ssh").display()
    );
    let program = format!("program={}", sandbox.write_program("home/vault-program", script).display());
    let template = "certificate=certify {seconds} {role}";
    let add = ["vault", "add", "team", "--kind", "command", &program, template, "--passphrase-fd", "3"];
    sandbox.keyed(PASSPHRASE, &add).run().ok();
    let _server = ssh.server(HOST, &[ssh.public("deploy")]);
    let trusted = format!("TrustedUserCAKeys {}", ssh.path("authority.pub").display());
    ssh.key("host-prod.example.org", &["ed25519"]);
    let line = format!("prod.example.org {}\n", ssh.public("host-prod.example.org"));
    ssh.append("home/.ssh/known_hosts", &line);
    let _certified = ssh.server_with("prod.example.org", &[], &trusted);
    let person = person(&ssh);
    person.says_yes("key-link", "keyloan ssh link team://deploy/key");
    person.says_yes("ssh-login-elsewhere", &format!("ssh -F ../ssh/config {HOST} true"));
    let certify = "keyloan ssh certify work --vault team --role dev --host '*.example.org'";
    let certify = format!("{certify} --principals deploy,dev");
    person.says_yes("key-certify", &format!("{certify} --authority ../ssh/authority.pub"));
    person.turns_away("ssh-login-certificate", "ssh -F ../ssh/config prod.example.org true");
}
