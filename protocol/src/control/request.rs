//! What a client may ask. Values that travel in the tail are named at each request.

use crate::names::{FieldName, ItemName, PlainName, SetName, VarName, VaultName};
use crate::reference::Reference;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The values in the tail that say where windows can be opened, each with the variable it comes from.
pub const DESKTOP: [(&str, &str); 5] = [
    ("display", "DISPLAY"),
    ("wayland_display", "WAYLAND_DISPLAY"),
    ("xauthority", "XAUTHORITY"),
    ("bus", "DBUS_SESSION_BUS_ADDRESS"),
    ("runtime_dir", "XDG_RUNTIME_DIR"),
];

/// A request. Where a passphrase or a PIN is wanted and not in the tail, the daemon asks for it on the
/// requester's own terminal.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    Status,
    /// Tail: `passphrase`, `pin`, `phrase` (or none), and those of [`DESKTOP`] that are set.
    Init,
    /// Tail: `passphrase`, and those of [`DESKTOP`] that are set. Whoever proves the passphrase says with
    /// these where questions go from then on.
    Unlock {
        /// Moves that place although the vault is open already.
        #[serde(default)]
        here: bool,
        /// Asks for the passphrase in a window, also where there is a terminal.
        #[serde(default)]
        desktop: bool,
        /// Opens a vault that is older than the log remembers.
        #[serde(default)]
        accept_rollback: bool,
        /// With the key that the desktop's keyring keeps.
        #[serde(default)]
        keyring: bool,
    },
    Lock,
    /// Questions are answered on the requester's terminal, for as long as the connection stays. Tail: `passphrase`.
    Approve,
    /// Tail: `passphrase` (the one in force), `new`.
    Passwd,
    /// Tail: `passphrase`, `pin` (the new one).
    Pin,
    /// What genuine questions show. Tail: `passphrase`, `phrase` (the new one).
    Phrase {
        #[serde(default)]
        remove: bool,
    },
    /// Tail: `passphrase`.
    RecipientAdd {
        name: PlainName,
        recipient: String,
    },
    RecipientList,
    /// Tail: `passphrase`.
    RecipientKeyring,
    /// Tail: `passphrase`.
    RecipientRemove {
        name: PlainName,
    },
    /// Tail: `value`, else it is asked for.
    ItemSet {
        item: ItemName,
        field: FieldName,
        #[serde(default)]
        public: bool,
        /// A linked vault; without one the local vault.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vault: Option<VaultName>,
    },
    /// A new value that nobody sees, of so many characters.
    ItemGenerate {
        item: ItemName,
        field: FieldName,
        alphabet: Alphabet,
        length: usize,
    },
    /// The one-time password of now.
    ItemTotp {
        item: ItemName,
        field: FieldName,
        /// A linked vault; without one the local vault.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vault: Option<VaultName>,
    },
    /// The day (`2027-01-31`) from which an item is of no use, or none.
    ItemExpires {
        item: ItemName,
        day: Option<String>,
    },
    ItemGet {
        item: ItemName,
        field: FieldName,
        /// A linked vault; without one the local vault.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vault: Option<VaultName>,
    },
    ItemList,
    ItemShow {
        item: ItemName,
        /// A linked vault; without one the local vault.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vault: Option<VaultName>,
    },
    ItemRemove {
        item: ItemName,
        field: Option<FieldName>,
    },
    ItemMove {
        from: ItemName,
        to: ItemName,
    },
    Lend(Lend),
    /// Links a vault that people have elsewhere. Tail: `passphrase`, and `secret.KEY` for each secret that is given.
    VaultAdd {
        name: VaultName,
        /// Of [`crate::vault_kinds::KINDS`]; without one that of the link that is replaced.
        kind: Option<String>,
        #[serde(default)]
        settings: BTreeMap<String, String>,
        /// Whether its titles are searched for directories; else as the kind has it.
        searched: Option<bool>,
        /// Changes what is given of a link that is there.
        #[serde(default)]
        replace: bool,
    },
    VaultList,
    /// Tail: `passphrase`.
    VaultRemove {
        name: VaultName,
    },
    /// How they are, or all of them.
    VaultTest {
        #[serde(default)]
        names: Vec<VaultName>,
    },
    /// The names of a linked vault's items.
    VaultItems {
        name: VaultName,
    },
    Loans,
    /// Yeses that cover further requests.
    Grants,
    /// Ends one of them, or all.
    Revoke {
        grant: Option<u64>,
    },
    /// Ends one loan, or all. `kill` ends the holder's process group too.
    Recall {
        loan: Option<u64>,
        #[serde(default)]
        kill: bool,
    },
    /// Descriptor: the opened `.keyloan.toml`.
    Trust,
    /// Tail: `path`.
    Untrust,
    /// Descriptor: the file to write. Tail: `passphrase`, `new` (the backup's, without recipients).
    Backup {
        recipients: Vec<String>,
    },
    /// Descriptor: the file to read. Tail: `passphrase` or `identity` (an identity file's text), `new` (a new
    /// passphrase for the vault). With `plain` it is a tar archive.
    Restore {
        #[serde(default)]
        plain: bool,
        /// Give the vault another passphrase.
        #[serde(default)]
        new_passphrase: bool,
    },
    /// Tail: `passphrase`, `new`.
    Rekey,
    /// Tail: `passphrase`.
    RecoveryKey,
    /// Tail: `path`, of another copy of the vault's directory.
    Merge,
    PolicyShow,
    /// What the policy would say to such a request: `KIND[CONDITION,…]`, as a rule has it.
    PolicyExplain {
        request: String,
    },
    /// Tail: `passphrase`, where a rule is loosened. `KEY=VALUE` each.
    PolicySet {
        settings: Vec<String>,
    },
    Log {
        #[serde(default)]
        follow: bool,
        #[serde(default)]
        verify: bool,
        /// With the command lines, after an approval: they are sealed, since people put tokens there.
        #[serde(default)]
        commands: bool,
    },
    /// Stores an ssh key. Descriptors: the private key's file, and the certificate's if there is one; or a
    /// certificate's alone, for a key that the vault holds. Tail: `passphrase` (the key file's), else it is asked for.
    SshAdd {
        item: ItemName,
        /// Instead of the one in the file.
        comment: Option<String>,
    },
    /// A new ssh key that never leaves the vault.
    SshGenerate {
        item: ItemName,
        key: NewKey,
        comment: String,
    },
    /// Makes an item of an ssh key whose private half stays in a linked vault.
    SshLink {
        item: ItemName,
        key: Reference,
        passphrase: Option<Reference>,
        /// The line of its public half; without one the key is read once.
        public: Option<String>,
    },
    /// The same for the keys of these items, or all that the vault offers.
    SshLinkVault {
        vault: VaultName,
        items: Vec<ItemName>,
    },
    /// A linked vault makes a certificate for each login with a key at certain hosts; without one, no more.
    SshCertify {
        item: ItemName,
        by: Option<CertifiedBy>,
    },
    /// Changes what is given.
    SshSet {
        item: ItemName,
        hosts: Option<Vec<String>>,
        confirm: Option<Confirm>,
        comment: Option<String>,
    },
    /// The keys that the agent offers: public halves, also while the vault is locked.
    SshKeys,
    SshHosts,
    /// Keeps a host's name with its key. Without a key, with those that `known_hosts` has for it.
    SshPin {
        host: String,
        /// A line of a public key, `ssh-ed25519 AAAA…`.
        key: Option<String>,
        /// The key certifies the host's, and is not the host's own.
        #[serde(default)]
        authority: bool,
    },
    SshUnpin {
        host: String,
    },
    /// Serves another agent socket for as long as the requester lives. Descriptor: the listening socket; before it
    /// any that the daemon is to keep open for as long as it serves.
    SshServe {
        /// Seconds after which keys added through it are forgotten, unless they say otherwise.
        lifetime: Option<u32>,
    },
    Stop,
    /// Credentials for the shell that started the requester: as [`Request::Lend`], without `program` and `argv`.
    LendShell(Lend),
    /// A value from one vault to another, or within one.
    ItemCopy {
        from: Reference,
        to: Reference,
        /// What is there already is overwritten.
        #[serde(default)]
        replace: bool,
    },
    /// Every field of an item, as far as its vault lists them, into the local vault.
    ItemCopyWhole {
        from: (VaultName, ItemName),
        to: (VaultName, ItemName),
        #[serde(default)]
        replace: bool,
    },
    /// Names for completion. Descriptor and `directory` as for [`Request::Lend`]. Nobody is asked: of a locked vault
    /// there are none.
    Names {
        manifest_at: Option<usize>,
    },
}

/// How certificates for an ssh key are made.
#[derive(Debug, Serialize, Deserialize)]
pub struct CertifiedBy {
    pub vault: VaultName,
    pub role: String,
    pub hosts: Vec<String>,
    /// None for those of the role.
    pub principals: Vec<String>,
    pub seconds: u64,
    /// The line of the key that signs them; without one it is learned from the vault.
    pub authority: Option<String>,
}

/// The kind of a new ssh key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NewKey {
    Ed25519,
    Nistp256,
    Nistp384,
    Nistp521,
    /// The bits of its modulus.
    Rsa(u32),
}

/// Whether a yes to a signature covers further ones.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confirm {
    /// Every signature is asked for, whatever the policy allows.
    Always,
    /// One yes covers the signatures of one ssh session.
    #[default]
    Session,
}

/// What a generated value is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alphabet {
    /// Letters, digits and signs, without look-alikes.
    Password,
    /// Letters, digits, `-` and `_`, as in URLs.
    Token,
    Hex,
    Digits,
}

/// Credentials for one command.
///
/// Tail: `directory` for each directory searched, nearest first; `program` (the resolved path);
/// `argv` (each argument followed by a NUL). Descriptor: the opened `.keyloan.toml`, if one was found.
#[derive(Serialize, Deserialize)]
pub struct Lend {
    #[serde(default)]
    pub sets: Vec<SetName>,
    #[serde(default)]
    pub only: Vec<VarName>,
    /// Which of the directories holds the passed `.keyloan.toml`.
    pub manifest_at: Option<usize>,
    #[serde(default)]
    pub dry_run: bool,
    /// The client says that it will drop steering variables.
    #[serde(default)]
    pub clean_env: bool,
    /// The loan ends after this many seconds, if not before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}
