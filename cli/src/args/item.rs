//! `keyloan item`.

use super::Json;
use clap::{Args, Subcommand, ValueEnum};
use keyloan_protocol::names::{FieldName, ItemName, VaultName};
use keyloan_protocol::reference::{Reference, ReferenceError};

/// Where a value is: of the local vault, or, by a reference, of any.
#[derive(Args)]
pub(crate) struct At {
    /// An item of the local vault, with its field; or a reference, `VAULT://ITEM/FIELD`
    #[arg(value_name = "ITEM")]
    item: String,
    #[arg(value_parser = FieldName::parse)]
    field: Option<FieldName>,
}

impl At {
    pub(crate) fn reference(self) -> Result<Reference, ReferenceError> {
        match self.field {
            Some(field) => Ok(Reference::local(ItemName::parse(&self.item)?, field)),
            None => Reference::parse(&self.item),
        }
    }
}

#[derive(Subcommand)]
pub(crate) enum Item {
    /// Store a value, from standard input or typed unseen
    Set {
        /// Show the value in lists: it is no secret
        #[arg(long)]
        public: bool,
        #[command(flatten)]
        at: At,
    },
    /// Store a new value that nobody has seen
    Generate {
        /// What it is made of
        #[arg(long, value_enum, default_value = "password")]
        kind: Kind,
        /// How many characters [default: 24; token 43, hex 64, digits 6]
        #[arg(long, value_name = "N")]
        length: Option<usize>,
        #[arg(value_parser = ItemName::parse)]
        item: ItemName,
        #[arg(value_parser = FieldName::parse)]
        field: FieldName,
    },
    /// Print the one-time password of now (RFC 6238)
    Totp {
        /// An item of the local vault; or a reference, `VAULT://ITEM/FIELD`
        item: String,
        /// The field with the key, in base32 or as an otpauth:// address [default: totp]
        #[arg(value_parser = FieldName::parse)]
        field: Option<FieldName>,
    },
    /// Note when an item expires; keyloan status reminds of it
    Expires {
        #[arg(value_parser = ItemName::parse)]
        item: ItemName,
        /// A day (2027-01-31), or never
        day: String,
    },
    /// Print a value, exactly as it was stored
    Get {
        #[command(flatten)]
        at: At,
    },
    /// The names of all items
    List {
        #[command(flatten)]
        json: Json,
        /// As references, ready to paste
        #[arg(long)]
        references: bool,
        /// Of this linked vault
        #[arg(long, value_name = "NAME", value_parser = VaultName::parse)]
        vault: Option<VaultName>,
    },
    /// The names of one item's fields
    Show {
        /// An item of the local vault; or of another, `VAULT://ITEM`
        item: String,
        #[command(flatten)]
        json: Json,
    },
    /// Copy a value to another vault
    Copy {
        /// Overwrite what is there
        #[arg(long)]
        replace: bool,
        /// Copy every field of an item into the local vault: `VAULT://ITEM local://ITEM`
        #[arg(long)]
        whole: bool,
        /// A reference, `VAULT://ITEM/FIELD`
        #[arg(value_name = "FROM")]
        source: String,
        #[arg(value_name = "TO")]
        target: String,
    },
    /// Remove an item, or one of its fields
    Rm {
        #[arg(value_parser = ItemName::parse)]
        item: ItemName,
        #[arg(value_parser = FieldName::parse)]
        field: Option<FieldName>,
    },
    /// Give an item another name
    Mv {
        #[arg(value_parser = ItemName::parse)]
        from: ItemName,
        #[arg(value_parser = ItemName::parse)]
        to: ItemName,
    },
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Kind {
    /// Letters, digits and signs, without look-alikes
    Password,
    /// Letters, digits, - and _
    Token,
    Hex,
    Digits,
}
