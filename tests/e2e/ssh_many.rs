//! Random keys of every type, added by `ssh-add`, used over the socket, judged by `ssh-keygen`: numbers that begin with
//! a zero byte come up for one key in 256, and with P-521 for every other.

use data_encoding::{BASE64, HEXLOWER};
use keyloan_e2e::Sandbox;
use keyloan_e2e::agent::{document, encoded};
use keyloan_e2e::sshd::Ssh;
use keyloan_protocol::ssh_agent::message::SignFlags;

/// What each key signs: SHA-512 of `text`.
const HASH: &[u8] = b"eaf2c12742cb8c161bcbd84b032b9bb98999a23282542672ca01cc6edd268f7dce9987ad6b2bc79305634f89d90b90102bcd59a57e7135b8e3ceb93c0597117b";

/// Four at a time: what stands in `$do` for each number below the count.
fn each(ssh: &Ssh<'_>, count: usize, work: &str) {
    let line = format!(
        "set -e; cd {}; for lane in 0 1 2 3; do (i=$lane; while [ $i -lt {count} ]; do {work}; i=$((i+4)); done) & \
         pids=\"$pids $!\"; done; for pid in $pids; do wait $pid; done",
        ssh.path("many").display()
    );
    ssh.sandbox.command("/bin/sh", &["-ec", &line]).run().ok();
}

fn all_sign(kind: &str, count: usize, flags: SignFlags) {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &["ssh.signature=allow"]);
    sandbox.make_directory("ssh/many");
    each(&ssh, count, &format!("ssh-keygen -q -t {kind} -N '' -C many-$i -f key-$i"));
    let files: Vec<String> =
        (0..count).map(|at| ssh.path(&format!("many/key-{at}")).display().to_string()).collect();
    let arguments: Vec<&str> = ["-q"].into_iter().chain(files.iter().map(String::as_str)).collect();
    ssh.add(&arguments).ok();
    let mut agent = ssh.agent();
    let listed = agent.list();
    let comments: Vec<String> = (0..count).map(|at| format!("many-{at}")).collect();
    let shown: Vec<_> = listed.iter().map(|identity| String::from_utf8_lossy(&identity.comment)).collect();
    assert_eq!(shown, comments);
    let mut signers = String::new();
    let data = document("file", &HEXLOWER.decode(HASH).unwrap().try_into().unwrap());
    for (at, identity) in listed.iter().enumerate() {
        let key = identity.key().unwrap();
        let signature = agent.sign(&key, &data, flags).unwrap_or_else(|| panic!("key {at} does not sign"));
        // PROTOCOL.sshsig section 1.
        let whole = encoded(|out| {
            out.bytes(b"SSHSIG");
            out.u32(1);
            out.string(key.blob());
            for text in ["file", "", "sha512"] {
                out.text(text);
            }
            out.string(&signature.encode());
        });
        let armoured = BASE64.encode(&whole);
        let armoured = format!("-----BEGIN SSH SIGNATURE-----\n{armoured}\n-----END SSH SIGNATURE-----\n");
        sandbox.write(&format!("ssh/many/sig-{at}"), armoured);
        signers.extend(["me-", &at.to_string(), " ", &ssh.public(&format!("many/key-{at}")), "\n"]);
    }
    sandbox.write("ssh/many/signers", signers);
    sandbox.write("ssh/many/text", "text");
    let verify = "ssh-keygen -q -Y verify -f signers -I me-$i -n file -s sig-$i >&2 <text";
    each(&ssh, count, verify);
    // What verifies everything proves nothing.
    each(&ssh, 4, &format!("{} && exit 1 || true", verify.replace("<text", "<signers")));
    each(&ssh, 4, &format!("{} && exit 1 || true", verify.replace("me-$i", "me-5")));
    assert!(ssh.questions().is_empty());
}

#[test]
fn a_thousand_ed25519_keys_sign() {
    all_sign("ed25519", 1000, SignFlags::NONE);
}

#[test]
fn a_thousand_keys_on_p256_sign() {
    all_sign("ecdsa -b 256", 1000, SignFlags::NONE);
}

#[test]
fn a_thousand_keys_on_p384_sign() {
    all_sign("ecdsa -b 384", 1000, SignFlags::NONE);
}

#[test]
fn a_thousand_keys_on_p521_sign() {
    all_sign("ecdsa -b 521", 1000, SignFlags::NONE);
}

#[test]
fn rsa_keys_sign_with_both_hashes() {
    all_sign("rsa -b 2048", 100, SignFlags::RSA_SHA256);
    all_sign("rsa -b 2048", 100, SignFlags::RSA_SHA512);
}
