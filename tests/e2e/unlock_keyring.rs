//! A key in the desktop's keyring that opens the vault: what it opens, and what it does not stand for.

use keyloan_e2e::keyring::Keyring;
use keyloan_e2e::sandbox::Output;
use keyloan_e2e::{PASSPHRASE, Sandbox, approver};

struct Kept<'a> {
    sandbox: &'a Sandbox,
    keyring: Keyring<'a>,
}

impl<'a> Kept<'a> {
    fn of(sandbox: &'a Sandbox) -> Self {
        let keyring = Keyring::open(sandbox);
        let unlock = sandbox.keyed(PASSPHRASE, &["unlock", "--here", "--passphrase-fd", "3"]);
        keyring.on(unlock).env("DISPLAY", ":7").run().ok();
        sandbox.keyed(PASSPHRASE, &["recipient", "keyring", "--passphrase-fd", "3"]).run().ok();
        Self { sandbox, keyring }
    }

    fn lock(&self) {
        self.sandbox.keyloan(&["lock"]).run().ok();
    }

    fn unlock(&self) -> Output {
        self.keyring.on(self.sandbox.keyloan(&["unlock", "--keyring"])).env("DISPLAY", ":7").run()
    }

    fn key(&self) -> String {
        self.keyring.secret_tool(&["lookup", "application", "keyloan"]).run().ok().text()
    }

    fn open(&self) -> bool {
        self.sandbox.status()["vault"] == "unlocked"
    }
}

#[test]
fn the_keyring_opens_the_vault_for_whoever_can_ask_it() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.set_approver(approver::ALLOW);
    let kept = Kept::of(&sandbox);
    // That is its price, and the question says so: the key lies open to every program on the bus.
    assert!(kept.key().starts_with("AGE-SECRET-KEY-1"), "{}", kept.key());
    for again in [false, true] {
        kept.lock();
        if again {
            sandbox.stop();
        }
        assert!(kept.unlock().ok().stderr.contains("the vault is unlocked"));
        assert_eq!(sandbox.keyloan(&["item", "get", "local://pypi/token"]).run().ok().text(), "tok");
    }
    assert_eq!(sandbox.events("keyring_used").len(), 2);
}

#[test]
fn a_key_in_the_keyring_stands_for_the_passphrase_in_nothing_else() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.set_approver(approver::ALLOW);
    let kept = Kept::of(&sandbox);
    let moved = sandbox.events("surface_moved").len();
    kept.lock();
    kept.unlock().ok();
    assert_eq!(sandbox.events("surface_moved").len(), moved, "questions are asked where they were");
    let key = kept.key();
    sandbox.keyed(PASSPHRASE, &["policy", "set", "env=allow", "--passphrase-fd", "3"]).run().ok();
    let with_key = sandbox.keyed(&key, &["policy", "set", "file=allow", "--passphrase-fd", "3"]).run();
    assert_ne!(with_key.status, 0, "{with_key:?}");
    kept.lock();
    assert_ne!(sandbox.keyed(&key, &["unlock", "--passphrase-fd", "3"]).run().status, 0);
    assert!(!kept.open());
}

#[test]
fn a_keyring_that_gives_another_key_or_none_opens_nothing() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.set_approver(approver::ALLOW);
    let mut kept = Kept::of(&sandbox);
    kept.lock();
    let failed = sandbox.events("unlock_failed").len();
    let listed = kept.keyring.secret_tool(&["search", "--all", "application", "keyloan"]).run().ok();
    let all = listed.text() + &listed.stderr;
    let vault = all.lines().find_map(|line| line.strip_prefix("attribute.vault = ")).unwrap().to_owned();
    kept.keyring.store("x", &["application", "keyloan", "vault", &vault], "AGE-SECRET-KEY-1NONE");
    kept.unlock().refused(7, "does not open the vault");
    assert_eq!(sandbox.events("unlock_failed").len(), failed + 1);
    kept.keyring.secret_tool(&["clear", "application", "keyloan"]).run().ok();
    assert_ne!(kept.unlock().status, 0);
    kept.keyring.end();
    assert_ne!(kept.unlock().status, 0);
    assert!(!kept.open());
    sandbox.unlock().ok();
    assert!(kept.open());
    // Without the recipient the key opens nothing more.
    sandbox.keyed(PASSPHRASE, &["recipient", "rm", "keyring", "--passphrase-fd", "3"]).run().ok();
    kept.lock();
    kept.unlock().refused(1, "keyring");
}

#[test]
fn the_requesters_bus_is_never_given_the_key() {
    let sandbox = Sandbox::with_token(b"tok");
    let keyring = Keyring::open(&sandbox);
    // Unlocked from nowhere, so the bus is that of the user's session, which is not here.
    let add = sandbox.keyed(PASSPHRASE, &["recipient", "keyring", "--passphrase-fd", "3"]);
    keyring.on(add).env("DISPLAY", ":7").run().refused(7, "there is no session bus");
    assert_eq!(keyring.secret_tool(&["lookup", "application", "keyloan"]).run().stdout, b"");
    keyring.on(sandbox.keyloan(&["unlock", "--keyring"])).run().ok();
    sandbox.keyloan(&["lock"]).run().ok();
    keyring.on(sandbox.keyloan(&["unlock", "--keyring"])).run().refused(1, "keyring");
}
