//! 1Password, in one of two ways that the link chooses: by its program `op`, or by a Connect server. References are
//! 1Password's own, `VAULT/ITEM/[SECTION/]FIELD`; an item that is titled with a directory (`~/coverage`), or named
//! without a vault, lies in the vault for such items.
//!
//! An item has several names, its title and its id among them, and this module goes by the one that is written.

mod cli;
mod connect;
mod item;
mod said;
mod template;

use super::links::Link;
use super::{Fault, LinkedVault, Listed};
use keyloan_protocol::names::ItemName;
use keyloan_protocol::reference::Reference;
use std::collections::BTreeSet;
use std::rc::Rc;

/// The setting that names the vault for items titled with a directory.
const SETS: &str = "vault";

pub(super) fn open(link: &Link) -> Result<Rc<dyn LinkedVault>, Fault> {
    if link.setting("address").is_some() {
        return Ok(Rc::new(connect::Connect::open(link)?));
    }
    Ok(Rc::new(cli::Cli::open(link)?))
}

/// Where a value is, in 1Password's words: each a name or an id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Place {
    vault: String,
    item: String,
    section: Option<String>,
    field: String,
    form: Form,
}

/// What of a field is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Form {
    #[default]
    Value,
    OneTimeCode,
    OpenSsh,
}

impl Form {
    const fn query(self) -> &'static str {
        match self {
            Self::Value => "",
            Self::OneTimeCode => "?attribute=otp",
            Self::OpenSsh => "?ssh-format=openssh",
        }
    }
}

impl Place {
    /// `sets` is the vault of items that are titled with a directory, or named without a vault.
    fn of(reference: &Reference, sets: &str) -> Result<Self, Fault> {
        let item = reference.item.as_str();
        let (field, form) = form(reference.field.as_str())?;
        let place = |vault: &str, item: &str, section: Option<&str>| {
            let section = section.map(str::to_owned);
            Ok(Self {
                vault: vault.to_owned(),
                item: item.to_owned(),
                section,
                field: field.to_owned(),
                form,
            })
        };
        if is_set(item) {
            return place(sets, item, None);
        }
        match item.split('/').collect::<Vec<_>>()[..] {
            [vault, item] if ![vault, item].contains(&"") => place(vault, item, None),
            [vault, item, section] if ![vault, item, section].contains(&"") => {
                place(vault, item, Some(section))
            }
            _ => Err(Fault::no_item(reference)),
        }
    }

    /// As a secret reference, where its names can be written in one: "alphanumeric characters, -, _, . and the
    /// whitespace character" (1Password's "Secret reference syntax"). None of these means anything in a template.
    fn plain(&self) -> Option<String> {
        let segments = [Some(&self.vault), Some(&self.item), self.section.as_ref(), Some(&self.field)];
        let segments: Vec<&str> = segments.into_iter().flatten().map(String::as_str).collect();
        let fits = |name: &&str| {
            let of_the_set = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ' ');
            !name.is_empty() && name.trim().len() == name.len() && name.chars().all(of_the_set)
        };
        segments.iter().all(fits).then(|| format!("op://{}{}", segments.join("/"), self.form.query()))
    }

    fn no_item(&self) -> Fault {
        Fault::NoItem(format!("{}/{}", self.vault, self.item))
    }

    fn no_field(&self) -> Fault {
        let section = self.section.as_ref().map(|section| format!("/{section}")).unwrap_or_default();
        let field = format!("{}{}", self.field, self.form.query());
        Fault::NoField { item: format!("{}/{}{section}", self.vault, self.item), field }
    }
}

/// An item named without its vault: by a directory's path, or by a title without a slash.
fn is_set(item: &str) -> bool {
    item.starts_with("~/") || item.starts_with('/') || !item.contains('/')
}

fn form(field: &str) -> Result<(&str, Form), Fault> {
    match field.rsplit_once('?') {
        Some((field, "attribute=otp")) => Ok((field, Form::OneTimeCode)),
        Some((field, "ssh-format=openssh")) => Ok((field, Form::OpenSsh)),
        Some((_, query)) if query.starts_with("attribute=") || query.starts_with("ssh-format=") => {
            Err(Fault::Unable("of a field there are ?attribute=otp and ?ssh-format=openssh".to_owned()))
        }
        _ => Ok((field, Form::Value)),
    }
}

/// Of a code that changes all the time nothing is kept.
fn lasts(at: &Reference) -> bool {
    !matches!(form(at.field.as_str()), Ok((_, Form::OneTimeCode)))
}

/// 1Password's ids, which it sends and takes everywhere: `^[\da-z]{26}$`.
fn is_id(text: &str) -> bool {
    text.len() == 26 && text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
}

/// The items of the vault for sets, each title once: what two items share is found to be ambiguous when it is read.
fn listed(items: Vec<item::Summary>, sets: &str) -> Vec<Listed> {
    let name =
        |item: item::Summary| if is_set(&item.title) { item.title } else { format!("{sets}/{}", item.id) };
    let names: BTreeSet<String> = items.into_iter().map(name).collect();
    let names = names.iter().filter_map(|name| ItemName::parse(name).ok());
    names.map(|item| Listed { item, fields: Vec::new() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Result<Place, Fault> {
        let (item, field) = text.rsplit_once('/').unwrap();
        let reference = Reference {
            vault: keyloan_protocol::names::VaultName::parse("op").unwrap(),
            item: ItemName::parse(item).unwrap(),
            field: keyloan_protocol::names::FieldName::parse(field).unwrap(),
        };
        Place::of(&reference, "Sets")
    }

    #[test]
    fn names_that_fit_are_written_as_1password_writes_them() {
        for (text, plain) in [
            ("Work/gcp/key.json", "op://Work/gcp/key.json"),
            ("My Vault/a b/s-1/x_y", "op://My Vault/a b/s-1/x_y"),
            ("Work/gh/code?attribute=otp", "op://Work/gh/code?attribute=otp"),
            ("Work/k/private key?ssh-format=openssh", "op://Work/k/private key?ssh-format=openssh"),
            ("staging/vars", "op://Sets/staging/vars"),
        ] {
            assert_eq!(place(text).unwrap().plain().as_deref(), Some(plain));
        }
    }

    #[test]
    fn nothing_that_means_something_in_a_template_gets_into_one() {
        for odd in
            ["~/coverage/vars", "/srv/x/vars", "Work/a}}{{ b/c", "Work/$HOME/c", "Work/\"a\"/c", "Work/ü/c"]
        {
            assert_eq!(place(odd).unwrap().plain(), None, "{odd}");
        }
        assert_eq!(place("Work/a/c?attribute=otp }}").unwrap_err().key(), "unable");
        assert_eq!(place("Work/ a/c").unwrap().plain(), None, "a template drops white space there");
        assert_eq!(place("Work/a/c?x").unwrap().plain(), None);
    }

    #[test]
    fn a_directory_is_the_title_of_a_set_and_other_slashes_are_1passwords() {
        let set = place("~/src/a/b/c/vars").unwrap();
        assert_eq!((set.vault.as_str(), set.item.as_str()), ("Sets", "~/src/a/b/c"));
        let field = place("Work/gcp/prod/key").unwrap();
        assert_eq!(field.section.as_deref(), Some("prod"));
        for bad in ["a/b/c/d/e", "a//b", "Work//x/y", "a/b//c"] {
            assert!(place(bad).is_err(), "{bad}");
        }
    }
}
