//! Which `.keyloan.toml` may be used: pinned to path and content. The content is kept, so that a change can
//! be shown as a difference.

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use similar::{ChangeTag, TextDiff};
use std::collections::BTreeMap;

#[derive(Default, Serialize, Deserialize)]
pub(crate) struct TrustList {
    files: BTreeMap<String, Trusted>,
}

#[derive(Serialize, Deserialize)]
struct Trusted {
    sha256: String,
    content: String,
}

/// What the list says of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Trusted,
    Changed,
    Unknown,
}

impl TrustList {
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub(crate) fn standing(&self, path: &str, content: &str) -> Standing {
        match self.files.get(path) {
            None => Standing::Unknown,
            Some(trusted) if trusted.sha256 == sha256(content) && trusted.content == content => {
                Standing::Trusted
            }
            Some(_) => Standing::Changed,
        }
    }

    pub(crate) fn add(&mut self, path: &str, content: &str) {
        let trusted = Trusted { sha256: sha256(content), content: content.to_owned() };
        self.files.insert(path.to_owned(), trusted);
    }

    pub(crate) fn remove(&mut self, path: &str) -> bool {
        self.files.remove(path).is_some()
    }

    /// The lines that a yes would change, `+` and `-` before them; the whole file where it is new.
    pub(crate) fn difference(&self, path: &str, content: &str) -> Vec<String> {
        let old = self.files.get(path).map_or("", |trusted| trusted.content.as_str());
        TextDiff::from_lines(old, content)
            .iter_all_changes()
            .filter_map(|change| {
                let mark = match change.tag() {
                    ChangeTag::Insert => '+',
                    ChangeTag::Delete => '-',
                    ChangeTag::Equal => return None,
                };
                Some(format!("{mark} {}", change.value().trim_end_matches('\n')))
            })
            .collect()
    }
}

pub(crate) fn sha256(content: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_is_for_one_path_with_one_content() {
        let mut list = TrustList::default();
        list.add("/p/.keyloan.toml", "[env]\nA = \"local://a/b\"\n");
        let list = TrustList::read(&list.bytes()).unwrap();
        assert_eq!(list.standing("/p/.keyloan.toml", "[env]\nA = \"local://a/b\"\n"), Standing::Trusted);
        assert_eq!(list.standing("/p/.keyloan.toml", "[env]\n"), Standing::Changed);
        assert_eq!(list.standing("/q/.keyloan.toml", "[env]\nA = \"local://a/b\"\n"), Standing::Unknown);
    }

    #[test]
    fn the_difference_is_what_a_yes_would_change() {
        let mut list = TrustList::default();
        assert_eq!(list.difference("/p", "a\nb\n"), ["+ a", "+ b"]);
        list.add("/p", "a\nb\n");
        assert_eq!(list.difference("/p", "a\nc\n"), ["- b", "+ c"]);
    }
}
