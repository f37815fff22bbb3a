//! A real password store with a key of its own, whose passphrase gpg-agent knows or does not.

use crate::programs::needed;
use crate::sandbox::{Output, Sandbox};
use std::path::Path;

const PASSPHRASE: &str = "a passphrase of gpg's";

pub struct Store<'a> {
    sandbox: &'a Sandbox,
    /// The key's owner: what `pass init` is told.
    id: &'static str,
}

impl<'a> Store<'a> {
    /// An empty store in the sandbox's home.
    pub fn new(sandbox: &'a Sandbox) -> Self {
        let store = Self { sandbox, id: "keyloan@example.org" };
        sandbox.make_directory("home/.gnupg");
        sandbox.write("home/.gnupg/gpg-agent.conf", "allow-preset-passphrase\nmax-cache-ttl 36000\n");
        let key = ["--batch", "--pinentry-mode", "loopback", "--passphrase", PASSPHRASE, "--quick-gen-key"];
        let key = [&key[..], &[store.id, "future-default", "default", "never"]].concat();
        sandbox.command(needed("gpg"), &key).run().ok();
        store.pass(&["init", store.id]).run().ok();
        store.unlock();
        store
    }

    /// The real `pass`.
    pub fn pass(&self, arguments: &[&str]) -> crate::sandbox::Run {
        self.sandbox.command(needed("pass"), arguments)
    }

    #[track_caller]
    pub fn insert(&self, name: &str, text: impl AsRef<[u8]>) {
        self.pass(&["insert", "--multiline", "--force", name]).stdin(text).run().ok();
    }

    /// Gives gpg-agent the passphrase, as if it had been typed.
    pub fn unlock(&self) {
        let listed = ["--batch", "--with-colons", "--with-keygrip", "--list-secret-keys"];
        let listed = self.sandbox.command(needed("gpg"), &listed).run().ok().text();
        for line in listed.lines().filter(|line| line.starts_with("grp:")) {
            let grip = line.split(':').nth(9).unwrap();
            let preset = Path::new("/usr/lib/gnupg/gpg-preset-passphrase");
            self.sandbox.command(preset, &["--preset", grip]).stdin(PASSPHRASE).run().ok();
        }
    }

    /// Has gpg-agent forget it.
    pub fn lock(&self) {
        self.sandbox.command(needed("gpg-connect-agent"), &["reloadagent", "/bye"]).run().ok();
    }

    /// Links it under the name `pass`.
    #[track_caller]
    #[allow(clippy::must_use_candidate, reason = "done for its effect")]
    pub fn link(&self) -> Output {
        self.sandbox.keyed(crate::PASSPHRASE, &["vault", "add", "pass", "--passphrase-fd", "3"]).run().ok()
    }
}

impl Drop for Store<'_> {
    fn drop(&mut self) {
        let _ = self.sandbox.command(needed("gpgconf"), &["--kill", "all"]).run();
    }
}
