//! The ssh keys of a database: attachments in OpenSSH's format. Where `KeeAgent.settings`, which `KeeAgent` and KeePassXC
//! keep with an entry, names one of its attachments or says that none is to be used, that is so. An encrypted key has the
//! entry's password, as it does for those programs. What is in the clear of a key is enough to offer it.

use super::super::SshKey;
use super::database::{Opened, standard};
use crate::signing::key_file;
use crate::signing::public_line::public_line;
use keyloan_protocol::limits;
use keyloan_protocol::names::{FieldName, ItemName};
use keyloan_protocol::ssh_agent::algorithm::KeyType;
use std::collections::HashMap;

const SETTINGS: &str = "KeeAgent.settings";
const PASSWORD: &str = "password";

impl Opened {
    pub(super) fn ssh_keys(&self) -> Vec<SshKey> {
        let paths = self.paths();
        let mut named: HashMap<&str, usize> = HashMap::new();
        for (path, _) in &paths {
            *named.entry(path).or_default() += 1;
        }
        let mut keys: Vec<SshKey> = Vec::new();
        // What a reference cannot name for certain is not offered.
        'items: for (path, id) in paths.iter().filter(|(path, _)| named.get(path.as_str()) == Some(&1)) {
            let (Ok(item), Some(entry)) = (ItemName::parse(path), self.database.entry(*id)) else { continue };
            // A text field of the same name is what `read` gives.
            let is_read = |name: &str| entry.get(name).or_else(|| entry.get(standard(name))).is_none();
            let settings = entry.attachment_by_name(SETTINGS);
            let settings = settings.map(|settings| Settings::read(settings.data.get())).unwrap_or_default();
            for (name, attachment) in
                entry.attachments_named().filter(|(name, _)| is_read(name) && settings.permit(name))
            {
                // One more than are taken shows that there are more.
                if keys.len() > limits::SSH_KEYS {
                    break 'items;
                }
                let Ok((public, is_encrypted)) = key_file::public_half(attachment.data.get()) else {
                    continue;
                };
                // A certificate is no key, and what only stands for one in a token signs nothing here.
                if public.certificate().is_some()
                    || matches!(public.key_type(), KeyType::SkEd25519 | KeyType::SkEcdsa)
                {
                    continue;
                }
                let Ok(field) = FieldName::parse(name) else { continue };
                keys.push(SshKey {
                    item: item.clone(),
                    field,
                    passphrase: FieldName::parse(PASSWORD).ok().filter(|_| is_encrypted),
                    public: public_line(&public, path.as_bytes()),
                });
            }
        }
        keys.sort_unstable_by(|a, b| (&a.item, &a.field).cmp(&(&b.item, &b.field)));
        keys
    }
}

/// What `KeeAgent.settings` says.
#[derive(Default, Debug, PartialEq, Eq)]
struct Settings {
    forbidden: bool,
    attachment: Option<String>,
}

impl Settings {
    /// XML, in UTF-16 since `KeeAgent` reads nothing else. What is missing in it says nothing.
    fn read(bytes: &[u8]) -> Self {
        let text = text(bytes);
        let is_attached = element(&text, "SelectedType").is_some_and(|kind| kind == "attachment");
        Self {
            forbidden: element(&text, "AllowUseOfSshKey").is_some_and(|allowed| allowed == "false"),
            attachment: element(&text, "AttachmentName").filter(|name| is_attached && !name.is_empty()),
        }
    }

    fn permit(&self, name: &str) -> bool {
        !self.forbidden && self.attachment.as_deref().is_none_or(|only| only == name)
    }
}

fn text(bytes: &[u8]) -> String {
    let wide = |rest: &[u8], unit: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = rest.as_chunks().0.iter().map(|pair| unit(*pair)).collect();
        String::from_utf16_lossy(&units)
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes),
        [b'<', 0, ..] => wide(bytes, u16::from_le_bytes),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// The text of the first element of that name.
fn element(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (inner, _) = rest.split_once(&format!("</{name}>"))?;
    let plain =
        inner.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'");
    Some(plain.replace("&amp;", "&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const XML: &str = "<?xml version=\"1.0\" encoding=\"utf-16\"?><EntrySettings>\
        <AllowUseOfSshKey>true</AllowUseOfSshKey><Location><SelectedType>attachment</SelectedType>\
        <AttachmentName>id &amp;amp; rsa</AttachmentName></Location></EntrySettings>";

    #[test]
    fn settings_name_the_attachment_in_whatever_encoding_they_are() {
        let wide = |unit: fn(u16) -> [u8; 2], mark: &[u8]| {
            [mark, &XML.encode_utf16().flat_map(unit).collect::<Vec<_>>()].concat()
        };
        for bytes in [
            XML.as_bytes().to_vec(),
            wide(u16::to_le_bytes, b"\xff\xfe"),
            wide(u16::to_be_bytes, b"\xfe\xff"),
            wide(u16::to_le_bytes, b""),
        ] {
            let settings = Settings::read(&bytes);
            assert!(settings.permit("id &amp; rsa") && !settings.permit("id_rsa"), "{settings:?}");
        }
    }

    #[test]
    fn settings_that_name_none_permit_all_and_those_that_forbid_permit_none() {
        for text in [String::new(), XML.replace(">attachment<", ">file<"), "\u{0}<Allow".to_owned()] {
            assert!(Settings::read(text.as_bytes()).permit("id_rsa"), "{text}");
        }
        assert!(!Settings::read(XML.replace("true", "false").as_bytes()).permit("id &amp; rsa"));
    }
}
