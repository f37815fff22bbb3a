//! Questions for the passphrase: what opens the vault, hands it over or changes what opens it.

use crate::asked::Person;
use keyloan_e2e::Sandbox;
use keyloan_e2e::programs::needed;
use keyloan_e2e::sshd::Ssh;

#[test]
fn what_opens_the_vault() {
    let sandbox = Sandbox::with_token(b"tok");
    let ssh = Ssh::of(&sandbox);
    ssh.key("work", &["ed25519"]);
    ssh.store("work", &[]);
    sandbox.write("project/file", "text");
    let person = Person::of(&sandbox);
    person.runs(&ssh.exports());
    person.runs("keyloan lock");
    person.says_yes("unlock", "keyloan unlock");
    person.says_yes("unlock-desktop", "keyloan lock; DISPLAY=:0 keyloan unlock");
    person.runs("keyloan lock; keyloan unlock --passphrase-fd 3 3<../passphrase");
    person.is_asked("open-to-lend", "keyloan lock; with-secrets -- true");
    person.answer(keyloan_e2e::PASSPHRASE);
    person.terminal.expect("PIN to allow");
    person.answer(keyloan_e2e::PIN);
    person.terminal.expect("ended-0");
    let public = ssh.path("work.pub").display().to_string();
    let sign = format!("ssh-keygen -q -Y sign -n file -f {public} file");
    person.says_yes("open-to-sign", &format!("keyloan lock; {sign}"));
}

#[test]
fn what_changes_what_opens_it() {
    let sandbox = Sandbox::with_token(b"tok");
    let key = sandbox.key_file("id", &[]);
    let person = Person::of(&sandbox);
    person.turns_away("passwd", "keyloan passwd");
    person.turns_away("pin", "keyloan pin");
    let public = format!("\"$(cat {}.pub)\"", key.display());
    person.says_yes("recipient-add", &format!("keyloan recipient add laptop {public}"));
    person.says_yes("recipient-rm", "keyloan recipient rm laptop");
    person.turns_away("recipient-keyring", "keyloan recipient keyring");
    person.turns_away("rekey", "keyloan rekey");
    person.turns_away("recovery-key", "keyloan recovery-key");
    person.turns_away("approve", "keyloan approve");
    person.is_asked("phrase", "keyloan phrase");
    person.answer(keyloan_e2e::PASSPHRASE);
    person.terminal.expect("keyloan: the new phrase (Enter keeps things as they are;");
    // What is typed within 0.3 seconds does not count.
    std::thread::sleep(std::time::Duration::from_millis(400));
    person.answer("blue heron at noon");
    person.terminal.expect("ended-0");
    person.says_yes("phrase-remove", "keyloan phrase --remove");
    person.turns_away("approve-locked", "keyloan lock; keyloan approve");
}

#[test]
fn what_hands_it_over() {
    let sandbox = Sandbox::with_token(b"tok");
    let key = sandbox.key_file("id", &[]);
    let public = format!("\"$(cat {}.pub)\"", key.display());
    // Another machine's copy, with one item more.
    sandbox.stop();
    let other = sandbox.copy();
    other.unlock().ok();
    other.policy("item.write=allow");
    other.keyloan(&["item", "set", "npm", "token"]).stdin("tok").run().ok();
    other.stop();
    let copy = sandbox.path("home/copy").display().to_string();
    sandbox.command(needed("cp"), &["-r", &other.vault().display().to_string(), &copy]).run().ok();
    sandbox.unlock().ok();
    let person = Person::of(&sandbox);
    person.turns_away("backup", "keyloan backup ../vault.age");
    person.says_yes("backup-recipient", &format!("keyloan backup -r {public} ../vault.age"));
    person.says_yes("merge", &format!("keyloan merge {copy}"));
}
