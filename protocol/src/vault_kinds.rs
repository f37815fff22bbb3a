//! The kinds of linked vaults: what each is called, and what has to be known to link one. The client asks people for
//! it, the daemon for the secrets among it.

use std::collections::BTreeMap;

/// A kind of vault that can be linked.
#[derive(Debug)]
pub struct Kind {
    /// As `keyloan vault add` takes it.
    pub name: &'static str,
    pub about: &'static str,
    pub settings: &'static [Setting],
    /// Whether its titles are searched for directories (`~/coverage`) unless said otherwise: where that costs next to
    /// nothing, or people expect it. 1Password's app asks before it answers, also for a plan that lends nothing.
    pub searched: bool,
}

#[derive(Debug)]
pub struct Setting {
    pub key: &'static str,
    /// What a person is asked; nothing where it is only taken when it is given.
    pub asks: &'static str,
    pub is: Is,
    pub needed: Needed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Is {
    Text,
    /// An absolute path, `~/` for the home directory.
    Path,
    /// The same, of a file that counts as it was when the vault was added.
    File,
    /// The same, of a program: it is pinned when the vault is added.
    Program,
    /// Kept sealed in the local vault, and never shown.
    Secret,
    /// Names of more such, with spaces between.
    Secrets,
    /// `NAME=value`, with spaces between; lists show the names alone.
    Variables,
}

/// A secret of one link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    pub key: String,
    pub asks: String,
    pub needed: Needed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needed {
    Always,
    /// Else this.
    Else(&'static str),
    /// Else this, unless that other setting, which comes before it, is given.
    Unless(&'static str, &'static str),
    No,
}

/// Every kind, in the order of lists.
pub const KINDS: &[Kind] = &[PASS, KEEPASS, COMMAND, KEYRING, OPENBAO, ONEPASSWORD, BITWARDEN, RBW];

const PASS: Kind = Kind {
    name: "pass",
    about: "the standard Unix password manager: a directory of files encrypted by gpg",
    settings: &[
        Setting {
            key: "store",
            asks: "directory of the password store",
            is: Is::Path,
            needed: Needed::Else("~/.password-store"),
        },
        Setting { key: "gpg", asks: "gpg", is: Is::Program, needed: Needed::Else("/usr/bin/gpg") },
        Setting { key: "gnupghome", asks: "another home for gpg", is: Is::Path, needed: Needed::No },
    ],
    searched: true,
};

const KEEPASS: Kind = Kind {
    name: "keepass",
    about: "a database of KeePass or KeePassXC: KDBX 4, or KDBX 3 to read only",
    settings: &[
        Setting { key: "database", asks: "the database's file", is: Is::Path, needed: Needed::Always },
        Setting { key: "keyfile", asks: "its key file", is: Is::Path, needed: Needed::No },
        Setting { key: "password", asks: "password", is: Is::Secret, needed: Needed::No },
    ],
    searched: false,
};

const COMMAND: Kind = Kind {
    name: "command",
    about: "any program that prints a value",
    settings: &[
        Setting { key: "program", asks: "the program", is: Is::Program, needed: Needed::Always },
        text("read", "its arguments to print one value", Needed::Else("{item} {field}")),
        text("batch", "its arguments to print many values", Needed::No),
        text("list", "its arguments to print the items' names", Needed::No),
        text("test", "its arguments to end with 0 where it would answer", Needed::No),
        text("certificate", "its arguments to print an ssh certificate", Needed::No),
        text("missing", "the status that it ends with where there is no such item", Needed::No),
        Setting {
            key: "environment",
            asks: "variables for it (NAME=value, with spaces between)",
            is: Is::Variables,
            needed: Needed::No,
        },
        text("seconds", "how long it may take", Needed::Else("20")),
        Setting {
            key: "secrets",
            asks: "variables for it that are secrets (their names, with spaces between)",
            is: Is::Secrets,
            needed: Needed::No,
        },
    ],
    searched: false,
};

const KEYRING: Kind = Kind {
    name: "keyring",
    about: "the keyring of a Linux desktop: GNOME's, KDE's, or what KeePassXC offers in their place",
    settings: &[
        text("collection", "its name, where it is not the desktop's default keyring", Needed::No),
        Setting {
            key: "bus",
            asks: "the session bus's socket, where it is not the desktop's",
            is: Is::Path,
            needed: Needed::No,
        },
    ],
    searched: false,
};

/// `openbao`, and not `vault`: that word means any place of credentials here.
const OPENBAO: Kind = Kind {
    name: "openbao",
    about: "a server of OpenBao or HashiCorp Vault",
    settings: &[
        text("address", "address of the server (https://…)", Needed::Always),
        Setting {
            key: "ca",
            asks: "file with the certificate that signs the server's",
            is: Is::File,
            needed: Needed::No,
        },
        text("namespace", "", Needed::No),
        text("mount", "engine that the items lie in", Needed::Else("secret")),
        text("kv", "", Needed::No),
        text("mounts", "", Needed::No),
        text("ssh", "", Needed::No),
        text("role-id", "role id of an AppRole, nothing for a token", Needed::No),
        text("approle", "", Needed::No),
        Setting { key: "token-file", asks: "", is: Is::Path, needed: Needed::No },
        Setting { key: "token", asks: "token", is: Is::Secret, needed: Needed::No },
        Setting { key: "secret-id", asks: "secret id of the AppRole", is: Is::Secret, needed: Needed::No },
        Setting { key: "wrapped-secret-id", asks: "", is: Is::Secret, needed: Needed::No },
    ],
    searched: false,
};

const ONEPASSWORD: Kind = Kind {
    name: "onepassword",
    about: "1Password, by its program op or by a Connect server",
    settings: &[
        text("address", "address of a Connect server, where it is not op", Needed::No),
        Setting {
            key: "ca",
            asks: "certificates that vouch for that server",
            is: Is::File,
            needed: Needed::No,
        },
        Setting { key: "op", asks: "op", is: Is::Program, needed: Needed::Unless("address", "/usr/bin/op") },
        text("account", "the account, where op has several", Needed::No),
        text("vault", "the vault of items titled with a directory", Needed::Else("Environment variables")),
        secret("service-account-token", "service account's token (for op without the app)"),
        secret("token", "Connect server's token"),
    ],
    searched: true,
};

const fn secret(key: &'static str, asks: &'static str) -> Setting {
    Setting { key, asks, is: Is::Secret, needed: Needed::No }
}

const BITWARDEN: Kind = Kind {
    name: "bitwarden",
    about: "Bitwarden, by its own program bw",
    settings: &[
        Setting { key: "bw", asks: "bw", is: Is::Program, needed: Needed::Else("/usr/local/bin/bw") },
        Setting {
            key: "appdata",
            asks: "the directory that bw keeps the account in (BITWARDENCLI_APPDATA_DIR)",
            is: Is::Path,
            needed: Needed::Else("~/.config/Bitwarden CLI"),
        },
        Setting {
            key: "ca",
            asks: "a file with the certificate that signed its server's, where the system does not know that",
            is: Is::File,
            needed: Needed::No,
        },
        text("minutes", "for how many minutes bw is kept open without use", Needed::Else("5")),
        Setting { key: "password", asks: "master password", is: Is::Secret, needed: Needed::No },
    ],
    searched: false,
};

const RBW: Kind = Kind {
    name: "rbw",
    about: "Bitwarden, by the program rbw and its agent",
    settings: &[
        Setting { key: "rbw", asks: "rbw", is: Is::Program, needed: Needed::Else("/usr/bin/rbw") },
        text("profile", "its profile, where it is not the usual one (RBW_PROFILE)", Needed::No),
        Setting {
            key: "runtime",
            asks: "the directory with its agent's, where that is not the desktop's XDG_RUNTIME_DIR",
            is: Is::Path,
            needed: Needed::No,
        },
    ],
    searched: false,
};

const fn text(key: &'static str, asks: &'static str, needed: Needed) -> Setting {
    Setting { key, asks, is: Is::Text, needed }
}

pub fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

impl Kind {
    pub fn setting(&self, key: &str) -> Option<&'static Setting> {
        self.settings.iter().find(|setting| setting.key == key)
    }

    /// What a link with these settings is opened with: the kind's own secrets, and those that the settings name.
    pub fn secrets(&self, settings: &BTreeMap<String, String>) -> Vec<Secret> {
        let mut secrets = Vec::new();
        for Setting { key, asks, is, needed } in self.settings {
            match is {
                Is::Secret => {
                    secrets.push(Secret {
                        key: (*key).to_owned(),
                        asks: (*asks).to_owned(),
                        needed: *needed,
                    });
                }
                Is::Secrets => {
                    let names = settings.get(*key).map(String::as_str).unwrap_or_default().split_whitespace();
                    secrets.extend(names.map(|name| Secret {
                        key: name.to_owned(),
                        asks: name.to_owned(),
                        needed: Needed::Always,
                    }));
                }
                _ => {}
            }
        }
        secrets
    }
}
