//! Where an item lies: the engine that it belongs to, and its path in a request. Each item has one name, since rules
//! and grants go by names.

use crate::vault::linked::Fault;
use keyloan_protocol::names::escaped;

/// What the server keeps for itself. A path below `auth` would read out the very token.
const ITS_OWN: &[&str] = &["sys", "auth", "identity", "cubbyhole"];

/// The engines that references reach into.
#[derive(Debug)]
pub(super) struct Mounts {
    /// Where an item lies that begins with no other's name.
    pub(super) main: String,
    others: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place<'a> {
    pub(super) mount: &'a str,
    /// Within the engine, as it was written.
    pub(super) path: &'a str,
}

impl Mounts {
    pub(super) fn parse(main: &str, others: &str) -> Result<Self, Fault> {
        let main = mount(main)?;
        let mut others = others.split_whitespace().map(mount).collect::<Result<Vec<_>, _>>()?;
        if others.contains(&main) {
            return Err(Fault::Broken(format!(
                "mounts names '{main}' again, and its items would have two names"
            )));
        }
        // An engine may be mounted below another's name.
        others.sort_by_key(|other| std::cmp::Reverse(other.len()));
        Ok(Self { main, others })
    }

    pub(super) fn place<'a>(&'a self, item: &'a str) -> Result<Place<'a>, Fault> {
        if !is_path(item) {
            return Err(Fault::Refused(format!("'{}' is no path there", escaped(item, 300))));
        }
        let below = |mount: &'a String| Some((mount, item.strip_prefix(mount.as_str())?.strip_prefix('/')?));
        let (mount, path) = self.others.iter().find_map(below).unwrap_or((&self.main, item));
        Ok(Place { mount, path })
    }

    /// The name of an item of an engine.
    pub(super) fn item(&self, mount: &str, path: &str) -> Option<String> {
        let item = if mount == self.main { path.to_owned() } else { format!("{mount}/{path}") };
        // What cannot be asked for is not there: its name begins with that of another engine.
        self.place(&item).is_ok_and(|place| place == Place { mount, path }).then_some(item)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.main).chain(&self.others).map(String::as_str)
    }
}

/// The name of an engine as people write it, with or without a slash behind it.
pub(super) fn mount(text: &str) -> Result<String, Fault> {
    let text = text.strip_suffix('/').unwrap_or(text);
    let first = text.split('/').next().unwrap_or_default();
    if !is_path(text) || ITS_OWN.contains(&first) {
        return Err(Fault::Broken(format!("'{}' is no engine for secrets", escaped(text, 300))));
    }
    Ok(text.to_owned())
}

/// A server takes `a/../b` and `a//b` for other names of something else.
fn is_path(text: &str) -> bool {
    text.split('/').all(|segment| !matches!(segment, "" | "." | ".."))
}

/// A path for a request: RFC 3986, all but the unreserved characters and the slash encoded.
pub(super) fn encoded(path: &str) -> String {
    use std::fmt::Write;
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                encoded.push(char::from(byte));
            }
            // Writing to a string never fails.
            byte => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(item: &str) -> Option<(String, String)> {
        let mounts = Mounts::parse("secret/", "database kv/old kv").unwrap();
        mounts.place(item).ok().map(|place| (place.mount.to_owned(), place.path.to_owned()))
    }

    #[test]
    fn an_item_lies_in_the_engine_that_it_begins_with_and_else_in_the_main_one() {
        let found = |item| place(item).unwrap();
        let at = |mount: &str, path: &str| (mount.to_owned(), path.to_owned());
        assert_eq!(found("ci/pypi"), at("secret", "ci/pypi"));
        assert_eq!(found("database/creds/app"), at("database", "creds/app"));
        assert_eq!(found("databases/creds"), at("secret", "databases/creds"));
        assert_eq!(found("database"), at("secret", "database"));
        assert_eq!(found("kv/old/a"), at("kv/old", "a"));
        assert_eq!(found("kv/new"), at("kv", "new"));
    }

    #[test]
    fn what_a_server_would_take_for_another_path_is_none() {
        for bad in ["a//b", "../sys/seal", "a/./b", "/a", "a/", "..", "database/../secret/x"] {
            assert_eq!(place(bad), None, "{bad}");
        }
        for bad in ["sys", "auth/token", "a//b", "identity/", "../x"] {
            assert!(
                Mounts::parse(bad, "").is_err() && Mounts::parse("x", &format!("y {bad}")).is_err(),
                "{bad}"
            );
        }
        assert!(Mounts::parse("secret", "secret/").is_err(), "two names for one item");
    }

    #[test]
    fn a_name_is_one_path_whatever_it_holds() {
        assert_eq!(encoded("~/a b/ü?x=1#%2F"), "~/a%20b/%C3%BC%3Fx%3D1%23%252F");
    }
}
