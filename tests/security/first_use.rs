//! What a question says of first times, and that no program can make one look like another.

use crate::attack;
use keyloan_e2e::approver::{self, Question};
use keyloan_e2e::programs::needed;
use keyloan_e2e::sshd::Ssh;
use keyloan_e2e::{Output, Sandbox, eventually};

const LABEL: &str = "first use";

/// Runs a line in a shell that leads a session of its own, as one on a terminal does: above it nobody is looked at.
fn in_session(sandbox: &Sandbox, line: &str) -> Output {
    let ssh = sandbox.agent_socket();
    sandbox.command(needed("setsid"), &["--wait", "/bin/sh", "-c", line]).env("SSH_AUTH_SOCK", ssh).run()
}

fn asked(sandbox: &Sandbox) -> Question {
    approver::questions(&sandbox.path("run/questions")).pop().unwrap()
}

/// What the question of that command said of first times.
fn said(sandbox: &Sandbox, line: &str) -> Option<String> {
    in_session(sandbox, line).ok();
    let question = asked(sandbox);
    question.line(LABEL).map(|(text, certainty)| {
        assert_eq!(certainty, "seen");
        text.to_owned()
    })
}

fn with_keeper() -> Sandbox {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.set_approver(approver::keeping(&sandbox.path("run/questions")));
    sandbox
}

/// Asks nothing that counts until the log is read.
fn read(sandbox: &Sandbox) {
    eventually("the log is read", || {
        let line = said(sandbox, "keyloan item get other field; :");
        line.is_none_or(|line| !line.contains("not known yet"))
    });
}

const LEND: &str = "with-secrets -- printenv TWINE_PASSWORD >/dev/null; :";

#[test]
fn the_first_time_is_said_once_for_each_program_and_each_key() {
    let sandbox = with_keeper();
    sandbox.keyloan(&["item", "set", "other", "field"]).stdin("x").run().ok();
    let first = said(&sandbox, LEND).expect("it is the first time");
    assert!(first.starts_with("of pypi/token by /usr/bin/printenv ← "), "{first}");
    assert!(first.ends_with("sh"), "{first}");
    assert_eq!(said(&sandbox, LEND), None);
    // Another program, the same program by way of another, and another thing.
    let other = said(&sandbox, "with-secrets -- true; :").expect("it is another program");
    assert!(other.starts_with("of pypi/token by /usr/bin/true ← "), "{other}");
    let by_way = "env with-secrets -- printenv TWINE_PASSWORD >/dev/null; :";
    assert_eq!(said(&sandbox, by_way), None, "env became keyloan");
    let by_way = "bash -c 'with-secrets -- printenv TWINE_PASSWORD >/dev/null; :'";
    assert!(said(&sandbox, by_way).expect("bash is another").ends_with("bash"));
    let get = "keyloan item get pypi token; :";
    assert!(said(&sandbox, get).expect("keyloan is another").starts_with("of pypi/token by "));
    assert_eq!(said(&sandbox, get), None);
    // It is remembered over locks and restarts.
    sandbox.stop();
    sandbox.unlock().ok();
    read(&sandbox);
    assert_eq!(said(&sandbox, LEND), None);
    assert_eq!(said(&sandbox, get), None);
    sandbox.keyloan(&["log", "--verify"]).run().ok();
}

#[test]
fn what_was_declined_or_given_by_a_rule_stays_a_first_time() {
    let sandbox = with_keeper();
    sandbox.policy("env=allow");
    in_session(&sandbox, LEND).ok();
    assert!(sandbox.events("lent").last().unwrap().get("given").is_none(), "a rule gives to whoever comes");
    sandbox.policy("env=ask");
    sandbox.set_approver(approver::declining(&sandbox.path("run/questions")));
    for _ in 0..2 {
        in_session(&sandbox, LEND);
        assert!(asked(&sandbox).line(LABEL).is_some());
    }
}

#[test]
fn a_signature_tells_the_first_time_of_a_key_and_the_programs_up_to_the_session() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &[]);
    for name in ["work", "other"] {
        ssh.key(name, &["ed25519"]);
        ssh.store(name, &[]);
    }
    let file = sandbox.write("project/file", "text").display().to_string();
    let sign = |key: &str| {
        let public = ssh.path(&format!("{key}.pub")).display().to_string();
        format!("rm -f {file}.sig; ssh-keygen -q -Y sign -n file -f {public} {file}; :")
    };
    let first = said(&sandbox, &sign("work")).expect("it is the first time");
    assert!(first.starts_with("of this key by /usr/bin/ssh-keygen ← "));
    assert_eq!(said(&sandbox, &sign("work")), None);
    assert!(said(&sandbox, &sign("other")).is_some());
    let deeper = format!("/bin/bash -c '{}'", sign("work"));
    let first = said(&sandbox, &deeper).expect("bash is between them");
    assert_eq!(first.matches(" ← ").count(), 2, "{first}");
}

/// Writes, while the vault is locked, that a program was given what it was not: once as such records are written, with
/// a chain value that is right, and once as if with the vault's key.
const FORGER: &str = r#"
import hashlib, json, sys
path, given = sys.argv[1], json.loads(sys.argv[2])
lines = open(path).read().splitlines()
last = json.loads(lines[-1])
chain = bytes.fromhex(last["chain"])
for at, keyed in enumerate([True, False, False]):
    body = json.dumps({"seq": last["seq"] + 1 + at, "time": last["time"], "counter": last["counter"], "keyed": keyed,
                       "event": "lent", "request": 1, "loan": 1, "names": [], "pid": 1, "given": given},
                      separators=(",", ":"), ensure_ascii=False)
    chain = hashlib.sha256(b"keyloan audit unkeyed v1" + chain + body.encode()).digest()
    lines.append(body[:-1] + ',"chain":"' + chain.hex() + '"}')
open(path, "w").write("\n".join(lines) + "\n")
"#;

#[test]
fn records_forged_while_the_vault_is_locked_hide_no_first_time_and_neither_does_a_lost_log() {
    let sandbox = with_keeper();
    sandbox.keyloan(&["item", "set", "other", "field"]).stdin("x").run().ok();
    assert!(said(&sandbox, LEND).is_some());
    let given = sandbox.events("lent").last().unwrap()["given"].to_string();
    let forged = given.replace("printenv", "true");
    assert_ne!(given, forged);
    sandbox.stop();
    let adopted = sandbox.events("adopted").len();
    attack(&sandbox, FORGER, &[&sandbox.log().display().to_string(), &forged]).ok();
    sandbox.unlock().ok();
    assert_eq!(sandbox.events("adopted").len(), adopted + 1, "whoever believes what was adopted is fooled");
    let believed = |lent: &serde_json::Value| {
        lent["given"] == serde_json::from_str::<serde_json::Value>(&forged).unwrap()
    };
    assert!(sandbox.events("lent").iter().any(believed));
    read(&sandbox);
    assert!(said(&sandbox, "with-secrets -- true; :").is_some());
    assert_eq!(said(&sandbox, LEND), None, "what was before counts as it did");

    sandbox.stop();
    std::fs::remove_file(sandbox.log()).unwrap();
    sandbox.unlock().ok();
    read(&sandbox);
    assert!(said(&sandbox, LEND).is_some());
    assert_eq!(said(&sandbox, LEND), None);
}
