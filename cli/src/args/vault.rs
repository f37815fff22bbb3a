//! `keyloan vault`.

use super::{Json, Passphrase};
use clap::{Args, Subcommand};
use keyloan_protocol::names::VaultName;

#[derive(Subcommand)]
pub(crate) enum Vault {
    /// The vaults that references can name
    List(Json),
    /// Link a vault that you have elsewhere; what is not given is asked for
    Add(Add),
    /// Link a vault no longer; what is in it stays
    Remove {
        #[arg(value_parser = VaultName::parse)]
        name: VaultName,
        #[command(flatten)]
        passphrase: Passphrase,
    },
    /// How vaults are, without reading from them
    Test {
        /// Some of them [default: all]
        #[arg(value_parser = VaultName::parse)]
        names: Vec<VaultName>,
        #[command(flatten)]
        format: Json,
    },
}

#[derive(Args)]
pub(crate) struct Add {
    /// The name that stands in references: `NAME://ITEM/FIELD`
    #[arg(value_parser = VaultName::parse)]
    pub(crate) name: VaultName,
    /// The kind of vault [default: its name]
    #[arg(long)]
    pub(crate) kind: Option<String>,
    /// What the kind has to know, such as store=~/.password-store
    #[arg(value_name = "KEY=VALUE", value_parser = setting)]
    pub(crate) settings: Vec<(String, String)>,
    /// Read a secret that the kind has to know from this descriptor
    #[arg(long, value_name = "KEY=N", value_parser = setting)]
    pub(crate) secret_fd: Vec<(String, String)>,
    /// Search its titles for directories (~/coverage)
    #[arg(long, conflicts_with = "no_search")]
    pub(crate) search: bool,
    /// Do not
    #[arg(long)]
    pub(crate) no_search: bool,
    /// Change what is given of a vault that is linked already, and take its program as it is now
    #[arg(long)]
    pub(crate) replace: bool,
    #[command(flatten)]
    pub(crate) passphrase: Passphrase,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let split = text.split_once('=').filter(|(key, _)| !key.is_empty());
    let (key, value) = split.ok_or("KEY=VALUE is wanted")?;
    Ok((key.to_owned(), value.to_owned()))
}
