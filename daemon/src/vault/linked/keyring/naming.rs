//! How an item of a keyring is named: by its label, which people see and nothing keeps unique, or by attributes, which
//! are what programs look it up by: `?service=pypi&username=me`.

use keyloan_protocol::names::ItemName;
use std::collections::BTreeMap;
use std::fmt::Write;

/// In order, so that one set of them is one text.
pub(super) type Attributes = BTreeMap<String, String>;

/// libsecret's own: which program's items these are.
const SCHEMA: &str = "xdg:schema";

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Named<'a> {
    Label(&'a str),
    Attributes(Attributes),
}

/// `None` where it is neither. `?` alone would be every item.
pub(super) fn parsed(item: &ItemName) -> Option<Named<'_>> {
    let Some(text) = item.as_str().strip_prefix('?') else { return Some(Named::Label(item.as_str())) };
    let mut attributes = Attributes::new();
    for pair in text.split('&') {
        let (key, value) = pair.split_once('=')?;
        let key = unescaped(key).filter(|key| !key.is_empty())?;
        if attributes.insert(key, unescaped(value)?).is_some() {
            return None;
        }
    }
    Some(Named::Attributes(attributes))
}

/// An item by all its attributes; `None` where it has none, or too long ones.
pub(super) fn written(attributes: &Attributes) -> Option<ItemName> {
    let mut text = String::from("?");
    for (key, value) in attributes.iter().filter(|(key, _)| *key != SCHEMA) {
        let and = if text.len() > 1 { "&" } else { "" };
        text.push_str(and);
        escape(key, &mut text);
        text.push('=');
        escape(value, &mut text);
    }
    if let Some(bare) = text.strip_suffix(' ') {
        text = format!("{bare}%20");
    }
    ItemName::parse(&text).ok().filter(|_| text.len() > 1)
}

/// What would end a key or a value, or cannot be in a name.
fn escape(text: &str, into: &mut String) {
    for c in text.chars() {
        if matches!(c, '%' | '&' | '=') || c.is_control() || (c.is_whitespace() && c != ' ') {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                let _ = write!(into, "%{byte:02X}");
            }
        } else {
            into.push(c);
        }
    }
}

fn unescaped(text: &str) -> Option<String> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut digit = || char::from(rest.next()?).to_digit(16);
        plain.push(if byte == b'%' { u8::try_from(digit()? * 16 + digit()?).ok()? } else { byte });
    }
    String::from_utf8(plain).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(pairs: &[(&str, &str)]) -> Attributes {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn attributes_read_as_they_are_written() {
        for pairs in [
            &[("service", "pypi"), ("username", "me")][..],
            &[("a=b&c%", "x=y&z%2F"), ("empty", "")],
            &[("server", "https://é.example/a b\n\t\u{2028}"), ("z", "ends in a space ")],
        ] {
            let named = written(&attributes(pairs)).unwrap();
            assert_eq!(parsed(&named).unwrap(), Named::Attributes(attributes(pairs)), "{named}");
        }
        let with_schema = attributes(&[("xdg:schema", "org.freedesktop.Secret.Generic"), ("k", "v")]);
        assert_eq!(written(&with_schema).unwrap().as_str(), "?k=v");
        assert!(written(&attributes(&[])).is_none());
        assert!(written(&attributes(&[("k", &"v".repeat(300))])).is_none());
    }

    #[test]
    fn what_is_no_list_of_attributes_names_nothing() {
        for bad in ["?", "?a", "?a=1&", "?=1", "?a=1&a=2", "?a=%", "?a=%4", "?a=%ff", "?a=%+1"] {
            assert_eq!(parsed(&ItemName::parse(bad).unwrap()), None, "{bad}");
        }
        assert_eq!(parsed(&ItemName::parse("it's a=b?").unwrap()), Some(Named::Label("it's a=b?")));
    }
}
