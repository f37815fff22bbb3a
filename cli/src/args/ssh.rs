//! `keyloan ssh …`, and the options that scripts give `ssh-agent`.

use super::Json;
use clap::{Args, Parser, Subcommand, ValueEnum};
use keyloan_protocol::control::request;
use keyloan_protocol::names::{ItemName, VaultName};
use keyloan_protocol::reference::Reference;
use keyloan_protocol::time_span::TimeSpan;
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Subcommand)]
pub(crate) enum Ssh {
    /// Store a private key's file, or a certificate for a key, in the vault
    Add(Add),
    /// Make a new key that never leaves the vault
    Generate(Generate),
    /// The keys of the vault and those that were added to the agent; also while the vault is locked
    List(Json),
    /// Print the public half of a key
    Export(Export),
    /// Use a key whose private half stays in a linked vault
    #[command(override_usage = LINK_USAGE)]
    Link(Link),
    /// Have a linked vault make a certificate for each login with a key
    Certify(Certify),
    /// Say for which hosts a key is, and how often it is asked for
    Set(Set),
    /// The names of hosts that the vault keeps with their keys
    #[command(subcommand)]
    Hosts(Hosts),
    /// Print the line for the shell's start-up file that lets ssh find the agent
    Env(Env),
    /// Stand in for ssh-agent(1): another socket, with the options that scripts give it
    #[command(override_usage = AGENT_USAGE)]
    Agent(Agent),
}

const LINK_USAGE: &str = "keyloan ssh link [--passphrase REFERENCE] [--public FILE] REFERENCE [NAME]\n       \
                          keyloan ssh link --vault VAULT [ITEM]...";

const AGENT_USAGE: &str = "ssh-agent [-c | -s] [-D | -d] [-a PATH] [-t LIFE] [-E HASH] [-O OPTION] [-P PROVIDERS]\n       \
                           ssh-agent [-a PATH] [-t LIFE] [-E HASH] [-O OPTION] [-P PROVIDERS] CMD [ARG]...\n       \
                           ssh-agent [-c | -s] -k";

/// Acts by its own name: a link called `ssh-agent`.
#[derive(Parser)]
#[command(
    name = "ssh-agent",
    version,
    about = "Stands in for ssh-agent(1): keyloan's agent at another socket",
    override_usage = AGENT_USAGE
)]
pub(crate) struct SshAgent {
    #[command(flatten)]
    pub(crate) agent: Agent,
}

#[derive(Args)]
pub(crate) struct Add {
    /// The private key's file, or a certificate's (NAME-cert.pub)
    pub(crate) file: PathBuf,
    /// What it is called in the vault [default: the file's name]
    #[arg(long, value_parser = ItemName::parse)]
    pub(crate) name: Option<ItemName>,
    /// Instead of the comment in the file
    #[arg(long, value_name = "TEXT")]
    pub(crate) comment: Option<String>,
    /// Leave the file where it is, and do not ask
    #[arg(long)]
    pub(crate) keep: bool,
    /// Remove the file once the vault has the key, and do not ask
    #[arg(long, conflicts_with = "keep")]
    pub(crate) remove_file: bool,
    /// Read the passphrase of the key's file from this descriptor
    #[arg(long, value_name = "N")]
    pub(crate) passphrase_fd: Option<i32>,
}

#[derive(Args)]
pub(crate) struct Generate {
    #[arg(value_parser = ItemName::parse)]
    pub(crate) name: ItemName,
    #[arg(long = "type", value_enum, default_value = "ed25519", value_name = "TYPE")]
    pub(crate) key: KeyType,
    /// For whoever reads the public half; else USER@HOST
    #[arg(long, value_name = "TEXT")]
    pub(crate) comment: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum KeyType {
    Ed25519,
    #[value(name = "ecdsa-nistp256")]
    Nistp256,
    #[value(name = "ecdsa-nistp384")]
    Nistp384,
    #[value(name = "ecdsa-nistp521")]
    Nistp521,
    #[value(name = "rsa-2048")]
    Rsa2048,
    #[value(name = "rsa-3072")]
    Rsa3072,
    #[value(name = "rsa-4096")]
    Rsa4096,
}

impl From<KeyType> for request::NewKey {
    fn from(key: KeyType) -> Self {
        match key {
            KeyType::Ed25519 => Self::Ed25519,
            KeyType::Nistp256 => Self::Nistp256,
            KeyType::Nistp384 => Self::Nistp384,
            KeyType::Nistp521 => Self::Nistp521,
            KeyType::Rsa2048 => Self::Rsa(2048),
            KeyType::Rsa3072 => Self::Rsa(3072),
            KeyType::Rsa4096 => Self::Rsa(4096),
        }
    }
}

#[derive(Args)]
pub(crate) struct Link {
    /// Where the private key is, and what it is called here [default: the item's name]; with --vault, items there
    #[arg(value_name = "REFERENCE | ITEM", required_unless_present = "vault")]
    pub(crate) words: Vec<String>,
    /// Where its passphrase is, if it is encrypted
    #[arg(long, value_name = "REFERENCE", value_parser = Reference::parse)]
    pub(crate) passphrase: Option<Reference>,
    /// Its public half; else the key is read once
    #[arg(long, value_name = "FILE")]
    pub(crate) public: Option<PathBuf>,
    /// All ssh keys of this vault, or those of some items, by their public halves
    #[arg(long, value_parser = VaultName::parse, conflicts_with_all = ["passphrase", "public"])]
    pub(crate) vault: Option<VaultName>,
}

#[derive(Args)]
pub(crate) struct Certify {
    #[arg(value_parser = ItemName::parse)]
    pub(crate) name: ItemName,
    /// The linked vault that makes them
    #[arg(long, value_parser = VaultName::parse, required_unless_present = "off")]
    pub(crate) vault: Option<VaultName>,
    /// Its own name for what it signs
    #[arg(long, required_unless_present = "off")]
    pub(crate) role: Option<String>,
    /// For logins to these hosts (* and ? are wildcards)
    #[arg(long = "host", alias = "hosts", value_name = "PATTERN", num_args = 1..)]
    #[arg(required_unless_present = "off")]
    pub(crate) hosts: Vec<String>,
    /// The users that a certificate lets in [default: those that the role has]
    #[arg(long = "principal", alias = "principals", value_name = "USER", num_args = 1.., value_delimiter = ',')]
    pub(crate) principals: Vec<String>,
    /// How long a certificate is good for
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = TimeSpan::parse)]
    pub(crate) ttl: TimeSpan,
    /// The public half of the key that signs [default: the one that the vault signs with now]
    #[arg(long, value_name = "FILE")]
    pub(crate) authority: Option<PathBuf>,
    /// Make no more certificates for it
    #[arg(long, conflicts_with_all = ["vault", "role", "hosts", "principals", "authority"])]
    pub(crate) off: bool,
}

#[derive(Args)]
pub(crate) struct Export {
    #[arg(value_parser = ItemName::parse, required_unless_present = "all", conflicts_with = "all")]
    pub(crate) name: Option<ItemName>,
    /// Its certificate
    #[arg(long, conflicts_with = "all")]
    pub(crate) certificate: bool,
    #[arg(
        help = "Into a new file, such as the one that IdentityFile of ~/.ssh/config names",
        short,
        long,
        value_name = "FILE",
        conflicts_with = "all"
    )]
    pub(crate) output: Option<PathBuf>,
    /// Every key of the vault, into a file NAME.pub of this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) all: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Set {
    #[arg(value_parser = ItemName::parse)]
    pub(crate) name: ItemName,
    /// The key is for this host (* and ? are wildcards), and for no others but those named with it
    #[arg(long = "host", value_name = "PATTERN", conflicts_with = "any_host")]
    pub(crate) hosts: Vec<String>,
    /// The key is for every host
    #[arg(long)]
    pub(crate) any_host: bool,
    /// Whether a yes covers the rest of an ssh session
    #[arg(long, value_enum)]
    pub(crate) confirm: Option<Confirm>,
    /// For whoever reads the public half
    #[arg(long, value_name = "TEXT")]
    pub(crate) comment: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Confirm {
    /// Ask for every signature, whatever the policy allows
    Always,
    /// Ask once for each ssh session
    Session,
}

impl From<Confirm> for request::Confirm {
    fn from(confirm: Confirm) -> Self {
        match confirm {
            Confirm::Always => Self::Always,
            Confirm::Session => Self::Session,
        }
    }
}

#[derive(Subcommand)]
pub(crate) enum Hosts {
    /// The hosts and their keys
    List(Json),
    /// Keep a host's name with its key: a question then calls the name verified
    Pin {
        #[arg(help = "HOST, or [HOST]:PORT")]
        host: String,
        #[arg(
            help = "The line of its public key [default: the keys that known_hosts has for it]",
            long,
            value_name = "LINE"
        )]
        key: Option<String>,
        /// The key is an authority's, which certifies the host's own
        #[arg(long, requires = "key")]
        authority: bool,
    },
    /// Forget a host
    Unpin { host: String },
}

#[derive(Args)]
pub(crate) struct Env {
    /// For this shell [default: by the variable SHELL]
    #[arg(long, value_enum)]
    pub(crate) shell: Option<Shell>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Shell {
    #[value(aliases = ["bash", "zsh", "ksh", "dash"])]
    Sh,
    #[value(alias = "tcsh")]
    Csh,
    Fish,
}

#[derive(Args)]
pub(crate) struct Agent {
    /// Print lines for sh, whatever SHELL says
    #[arg(short = 's', conflicts_with = "csh")]
    pub(crate) sh: bool,
    /// Print lines for csh
    #[arg(short = 'c')]
    pub(crate) csh: bool,
    /// Listen at this path
    #[arg(short = 'a', value_name = "PATH")]
    pub(crate) at: Option<PathBuf>,
    /// Stay in the foreground
    #[arg(short = 'D', conflicts_with = "debug")]
    pub(crate) foreground: bool,
    /// The same
    #[arg(short = 'd')]
    pub(crate) debug: bool,
    #[arg(short = 'k', help = "End the agent whose pid is in SSH_AGENT_PID")]
    pub(crate) kill: bool,
    /// Forget added keys after this time (seconds, or 1h30m) unless they say otherwise
    #[arg(short = 't', value_name = "LIFE", value_parser = life)]
    pub(crate) lifetime: Option<u32>,
    /// Taken and not used: keyloan loads no libraries of tokens
    #[arg(short = 'P', value_name = "PROVIDERS")]
    pub(crate) providers: Option<String>,
    /// Taken and not used: fingerprints are SHA256
    #[arg(short = 'E', value_name = "HASH", ignore_case = true, hide_possible_values = true)]
    #[arg(value_parser = ["md5", "sha1", "sha256", "sha384", "sha512"])]
    pub(crate) hash: Option<String>,
    /// Taken and not used: no-restrict-websafe, allow-remote-pkcs11
    #[arg(short = 'O', value_name = "OPTION", value_parser = ["no-restrict-websafe", "allow-remote-pkcs11"])]
    #[arg(hide_possible_values = true)]
    pub(crate) options: Vec<String>,
    /// A command that finds the agent; when it ends, so does the agent
    #[arg(trailing_var_arg = true, value_name = "CMD")]
    #[arg(conflicts_with_all = ["sh", "csh", "foreground", "debug", "kill"])]
    pub(crate) command: Vec<OsString>,
}

/// TIME FORMATS of `sshd_config`(5): numbers with a unit each, seconds without one, added up.
fn life(text: &str) -> Result<u32, &'static str> {
    const WRONG: &str = "invalid lifetime; a number of seconds, or a time such as 90m or 1h30m";
    let mut sum: u32 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let number: u32 = number.parse().map_err(|_| WRONG)?;
        let mut units = after.chars();
        let unit = match units.next().map(|unit| unit.to_ascii_lowercase()) {
            None | Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86400,
            Some('w') => 7 * 86400,
            Some(_) => return Err(WRONG),
        };
        sum = number.checked_mul(unit).and_then(|time| sum.checked_add(time)).ok_or(WRONG)?;
        rest = units.as_str();
    }
    // OpenSSH's agent takes times up to INT_MAX.
    if text.is_empty() || i32::try_from(sum).is_err() { Err(WRONG) } else { Ok(sum) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_read_as_ssh_reads_them() {
        for (text, seconds) in [("0", 0), ("600", 600), ("10m", 600), ("1H30M", 5400), ("1w2d3h4m5", 788_645)]
        {
            assert_eq!(life(text), Ok(seconds), "{text}");
        }
        for text in ["", "-1", "h", "1x", "1h-5", "1.5h", "99999999999", "2147483648", "9999w", "1 h"] {
            assert!(life(text).is_err(), "{text}");
        }
    }
}
