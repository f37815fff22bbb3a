//! Every command with its help: the one definition that help, completions and man pages come from.

pub(crate) mod item;
pub(crate) mod ssh;
pub(crate) mod vault;

use clap::{Args, Parser, Subcommand, ValueEnum};
use keyloan_protocol::names::{PlainName, SetName, VarName};
use keyloan_protocol::time_span::TimeSpan;
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Parser)]
#[command(
    name = "keyloan",
    version,
    about = "Lends credentials from your vault to one command at a time, after a yes",
    after_help = "Exit status: 0 ok, 1 not found, 2 usage, 3 daemon unreachable, 4 locked, 5 denied by policy,\n\
                  6 declined or timed out, 7 vault failed, 70 a fault of keyloan's own."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Acts by its own name: `with-secrets`.
#[derive(Parser)]
#[command(
    name = "with-secrets",
    version,
    about = "Lends this directory's credentials to one command, and becomes that command",
    after_help = "Ends with the command's own status; 125 when keyloan failed before running it, 126 when it\n\
                  cannot be executed, 127 when it is not found."
)]
pub(crate) struct WithSecrets {
    #[command(flatten)]
    pub(crate) run: Run,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make the local vault: a passphrase, a PIN for approvals, and a phrase
    Init(Init),
    /// Open the vault
    Unlock(Unlock),
    /// Answer on this terminal what keyloan asks, until it is left
    Approve(Passphrase),
    /// Close the vault
    Lock,
    /// What is running, and how well it is protected
    Status(Json),
    /// Change the passphrase
    Passwd(Passwd),
    /// Change the PIN for approvals
    Pin(Pin),
    /// Change the phrase by which you know keyloan's own questions
    Phrase(NewPhrase),
    /// Write the whole vault into one encrypted file
    Backup(Backup),
    /// Make the vault anew from a backup
    Restore(Restore),
    /// Encrypt the whole vault anew, to a new identity
    Rekey(Passwd),
    /// Print a key that opens the vault when the passphrase is lost
    RecoveryKey(Passphrase),
    /// Bring in what another machine's copy of the vault has
    Merge {
        /// The other copy's directory
        directory: PathBuf,
    },
    /// Further keys that open the vault's files
    #[command(subcommand)]
    Recipient(Recipient),
    /// The items of the vault
    #[command(subcommand)]
    Item(item::Item),
    /// Vaults that you have elsewhere, and keyloan reads
    #[command(subcommand)]
    Vault(vault::Vault),
    /// Keys for ssh: the vault's, and the agent that offers them
    #[command(subcommand)]
    Ssh(ssh::Ssh),
    /// Lend credentials to one command (also: with-secrets)
    Run(Run),
    /// What is lent at the moment
    Loans(Json),
    /// End a loan, and say who still holds what was lent
    Recall(Recall),
    /// Grants: yeses that cover more than one request
    Grants(Json),
    /// End a grant
    Revoke(Revoke),
    /// Let a .keyloan.toml be used, as it is now
    Trust(PathArgument),
    /// Let a .keyloan.toml be used no longer
    Untrust(PathArgument),
    /// The rules: what needs which approval
    #[command(subcommand)]
    Policy(Policy),
    /// What was asked, approved, lent and ended
    Log(Log),
    /// The daemon that holds the keys
    Daemon(Daemon),
    /// Print what a shell needs for opvars, unopvars and completion: eval it in its start-up file
    Shell(Shell),
    /// Print the completions of a shell alone
    Completions(Shell),
    /// Print a manual page, or the names of all
    Man {
        /// keyloan, keyloan-item, keyloan-item-set, with-secrets, …
        page: Option<String>,
    },
    /// What opvars calls: lends to the shell that calls it
    #[command(hide = true)]
    ShellLend(ShellLend),
    /// What completion calls: candidates for the last of these words
    #[command(hide = true)]
    Complete {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
}

#[derive(Args)]
#[expect(clippy::struct_field_names, reason = "an option is named after its field")]
pub(crate) struct Init {
    /// Read the passphrase from this descriptor
    #[arg(long, value_name = "N")]
    pub(crate) passphrase_fd: Option<i32>,
    /// Read the PIN from this descriptor
    #[arg(long, value_name = "N")]
    pub(crate) pin_fd: Option<i32>,
    /// Read the phrase that keyloan's own questions show from this descriptor
    #[arg(long, value_name = "N")]
    pub(crate) phrase_fd: Option<i32>,
}

#[derive(Args)]
pub(crate) struct Unlock {
    /// Ask on this desktop, and tell this terminal when another one is asked, from now on
    #[arg(long)]
    pub(crate) here: bool,
    /// Type the passphrase in a window
    #[arg(long, conflicts_with = "passphrase_fd")]
    pub(crate) desktop: bool,
    /// Open it with the key that the desktop's keyring keeps (keyloan recipient keyring)
    #[arg(long, conflicts_with_all = ["here", "desktop", "passphrase_fd", "accept_rollback"])]
    pub(crate) keyring: bool,
    /// Open a vault that is older than its log remembers
    #[arg(long)]
    pub(crate) accept_rollback: bool,
    #[command(flatten)]
    pub(crate) passphrase: Passphrase,
}

#[derive(Args)]
pub(crate) struct Passphrase {
    /// Read the passphrase from this descriptor
    #[arg(long, value_name = "N")]
    pub(crate) passphrase_fd: Option<i32>,
}

#[derive(Args)]
pub(crate) struct Passwd {
    #[command(flatten)]
    pub(crate) passphrase: Passphrase,
    /// Read the new passphrase from this descriptor
    #[arg(long, value_name = "N")]
    pub(crate) new_passphrase_fd: Option<i32>,
}

#[derive(Args)]
pub(crate) struct Backup {
    /// A new file
    pub(crate) file: PathBuf,
    /// Encrypt to this key (age1…, ssh-ed25519 …, ssh-rsa …) and not by a passphrase
    #[arg(short, long = "recipient", value_name = "KEY")]
    pub(crate) recipients: Vec<String>,
    #[command(flatten)]
    pub(crate) passphrase: Passphrase,
    /// Read the backup's passphrase from this descriptor
    #[arg(long = "backup-passphrase-fd", value_name = "N", conflicts_with = "recipients")]
    pub(crate) own_passphrase_fd: Option<i32>,
}

#[derive(Args)]
pub(crate) struct Restore {
    /// The backup; - for a backup on standard input that age has opened already
    pub(crate) file: PathBuf,
    /// Open it with this identity file: age's own, or an ssh private key
    #[arg(short, long, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
    /// Give the vault a new passphrase; else it keeps the one it had
    #[arg(long)]
    pub(crate) new_passphrase: bool,
    /// Read the backup's passphrase from this descriptor
    #[arg(long, value_name = "N", conflicts_with = "identity")]
    pub(crate) backup_passphrase_fd: Option<i32>,
    /// Read the new passphrase from this descriptor
    #[arg(long, value_name = "N", requires = "new_passphrase")]
    pub(crate) new_passphrase_fd: Option<i32>,
}

#[derive(Args)]
pub(crate) struct Pin {
    #[command(flatten)]
    pub(crate) passphrase: Passphrase,
    /// Read the new PIN from this descriptor
    #[arg(long, value_name = "N")]
    pub(crate) pin_fd: Option<i32>,
}

#[derive(Args)]
pub(crate) struct NewPhrase {
    /// Questions show none any more
    #[arg(long, conflicts_with = "phrase_fd")]
    pub(crate) remove: bool,
    #[command(flatten)]
    pub(crate) passphrase: Passphrase,
    /// Read the new phrase from this descriptor
    #[arg(long, value_name = "N")]
    pub(crate) phrase_fd: Option<i32>,
}

#[derive(Args)]
pub(crate) struct Json {
    /// For programs
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
pub(crate) enum Recipient {
    /// Let a further key open the vault's files
    Add {
        /// A name for it
        #[arg(value_parser = PlainName::parse)]
        name: PlainName,
        /// age1…, or a line of an ssh public key (ssh-ed25519 …, ssh-rsa …)
        recipient: String,
        #[command(flatten)]
        passphrase: Passphrase,
    },
    /// Let the desktop's keyring open the vault: every program of yours that can ask it then can, too
    Keyring(Passphrase),
    /// The further keys
    List(Json),
    /// Take a further key away
    Rm {
        #[arg(value_parser = PlainName::parse)]
        name: PlainName,
        #[command(flatten)]
        passphrase: Passphrase,
    },
}

#[derive(Args, Default)]
#[expect(clippy::struct_field_names, reason = "--dry-run is what every tool calls it")]
pub(crate) struct Run {
    /// A set of .keyloan.toml, or an item with a 'vars' field; several are merged, later ones win
    #[arg(short, long = "set", value_name = "SET", value_parser = SetName::parse)]
    pub(crate) sets: Vec<SetName>,
    /// Lend only this variable
    #[arg(long, value_name = "NAME", value_parser = VarName::parse)]
    pub(crate) only: Vec<VarName>,
    /// Say what would be lent, from where and why; lend nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Drop variables of the environment that steer what runs or where it talks
    #[arg(long)]
    pub(crate) clean_env: bool,
    /// End the loan after this time (90s, 30m, 8h), if not before
    #[arg(long = "for", value_name = "TIME", value_parser = TimeSpan::parse)]
    pub(crate) time: Option<TimeSpan>,
    /// Hide lent values of 8 bytes or more in what the command prints
    #[arg(long)]
    pub(crate) mask: bool,
    /// With --dry-run: for programs
    #[arg(long, requires = "dry_run")]
    pub(crate) json: bool,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, value_name = "CMD")]
    #[arg(required_unless_present = "dry_run")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Args)]
pub(crate) struct Revoke {
    /// The grant's number, from keyloan grants
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub(crate) id: Option<u64>,
    /// Every grant
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Args)]
pub(crate) struct Recall {
    /// The loan's number, from keyloan loans
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub(crate) id: Option<u64>,
    /// Every loan
    #[arg(long)]
    pub(crate) all: bool,
    /// End the holder's process group too, and whatever else holds what was lent
    #[arg(long)]
    pub(crate) kill: bool,
}

#[derive(Args)]
pub(crate) struct PathArgument {
    /// The file, or its directory [default: the nearest .keyloan.toml]
    pub(crate) path: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(crate) enum Policy {
    /// Print the rules
    Show,
    /// What would be said to a request, by which rule, without making it
    Explain {
        /// What would be asked for: a kind, with what is known of it, such as 'ssh.login[item=work,host=github.com]'
        request: String,
        #[command(flatten)]
        format: Json,
    },
    /// Change rules; where that loosens any, the passphrase is asked for
    Set {
        /// A rule, such as env=ask or 'ssh.login[item=work,host=github.com]=allow 20/1h': ask, ask-pin, allow,
        /// allow N/TIME, deny, or nothing to remove it; or grants, deadline, lock.idle, loan.time, ssh.upstream,
        /// approver.command, approver.askpass, approver.pinentry, approver.order
        #[arg(required = true, value_name = "KEY=VALUE")]
        settings: Vec<String>,
        #[command(flatten)]
        passphrase: Passphrase,
    },
}

#[derive(Args)]
pub(crate) struct Log {
    /// Go on as the log grows
    #[arg(long, conflicts_with = "verify")]
    pub(crate) follow: bool,
    /// The records as they are stored
    #[arg(long)]
    pub(crate) json: bool,
    /// Check that no record was changed or removed
    #[arg(long)]
    pub(crate) verify: bool,
    /// With the command lines, after an approval
    #[arg(long, conflicts_with = "verify")]
    pub(crate) commands: bool,
}

#[derive(Args)]
pub(crate) struct Daemon {
    pub(crate) action: DaemonAction,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum DaemonAction {
    /// Start it, if it does not run
    Start,
    /// Lock the vault and end it
    Stop,
    /// Run it in the foreground
    Run,
}

#[derive(Args)]
pub(crate) struct Shell {
    pub(crate) shell: ShellName,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum ShellName {
    Bash,
    Zsh,
    Fish,
}

/// What `opvars` takes.
#[derive(Parser)]
#[command(
    name = "opvars",
    about = "Lends this directory's credentials to this shell, until unopvars, a time, or keyloan lock"
)]
pub(crate) struct ShellLend {
    /// Lend only this variable
    #[arg(long, value_name = "NAME", value_parser = VarName::parse)]
    pub(crate) only: Vec<VarName>,
    /// End the loan after this time (90s, 30m, 8h), if not before [default: what the set says, or 15m]
    #[arg(long = "for", value_name = "TIME", value_parser = TimeSpan::parse)]
    pub(crate) time: Option<TimeSpan>,
    /// Sets of .keyloan.toml, or items with a 'vars' field [default: this directory's own]
    #[arg(value_name = "SET", value_parser = SetName::parse)]
    pub(crate) sets: Vec<SetName>,
}
