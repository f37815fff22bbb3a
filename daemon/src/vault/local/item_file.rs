//! The plaintext of one item file: a line that says what it is, a line of JSON without any value, then the
//! values one after another. Made so that `age -d FILE | tail -n +3` gives a value back without keyloan,
//! and so that no parser walks over a secret.

use keyloan_protocol::limits;
use keyloan_protocol::names::FieldName;
use keyloan_protocol::secret::SecretBytes;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

const MAGIC: &[u8] = b"keyloan-item 1\n";

/// Fields of one item (a count).
pub(crate) const FIELDS: usize = 64;

/// The longest item file: every field at its longest would pass a frame, so an item is kept below one.
pub(crate) const MOST: usize = limits::FRAME;

/// An item as its file holds it.
pub(crate) struct Item {
    pub(crate) title: String,
    /// The day from which the credential is of no use, `2027-01-31`.
    pub(crate) expires: Option<String>,
    pub(crate) fields: Vec<Field>,
}

pub(crate) struct Field {
    pub(crate) name: FieldName,
    pub(crate) public: bool,
    pub(crate) value: SecretBytes,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ItemFileError {
    #[error("an item file does not have the form of one")]
    Form,
    #[error("an item has more than {FIELDS} fields")]
    TooManyFields,
    #[error("an item is longer than {MOST} bytes")]
    TooLong,
}

#[derive(Serialize, Deserialize)]
struct Header {
    title: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
    fields: Vec<FieldHeader>,
}

#[derive(Serialize, Deserialize)]
struct FieldHeader {
    name: FieldName,
    length: usize,
    public: bool,
}

pub(crate) fn encode(
    title: &str,
    expires: Option<&str>,
    fields: &[Field],
) -> Result<Zeroizing<Vec<u8>>, ItemFileError> {
    if fields.len() > FIELDS {
        return Err(ItemFileError::TooManyFields);
    }
    let named = fields.iter().map(|field| FieldHeader {
        name: field.name.clone(),
        length: field.value.len(),
        public: field.public,
    });
    let header =
        Header { title: title.to_owned(), expires: expires.map(str::to_owned), fields: named.collect() };
    let header = serde_json::to_vec(&header).map_err(|_| ItemFileError::Form)?;
    let length: usize = fields.iter().map(|field| field.value.len()).sum();
    let whole = MAGIC.len() + header.len() + 1 + length;
    // Room for what age adds.
    if whole > MOST - 8192 {
        return Err(ItemFileError::TooLong);
    }
    let mut text = Zeroizing::new(Vec::with_capacity(whole));
    text.extend_from_slice(MAGIC);
    text.extend_from_slice(&header);
    text.push(b'\n');
    for field in fields {
        text.extend_from_slice(field.value.expose());
    }
    Ok(text)
}

/// Reads an item's plaintext.
pub(crate) fn decode(text: &[u8]) -> Result<Item, ItemFileError> {
    let rest = text.strip_prefix(MAGIC).ok_or(ItemFileError::Form)?;
    let end = rest.iter().position(|byte| *byte == b'\n').ok_or(ItemFileError::Form)?;
    let header: Header = serde_json::from_slice(&rest[..end]).map_err(|_| ItemFileError::Form)?;
    let mut values = &rest[end + 1..];
    let mut fields = Vec::with_capacity(header.fields.len());
    for field in header.fields {
        let (value, after) = values.split_at_checked(field.length).ok_or(ItemFileError::Form)?;
        fields.push(Field { name: field.name, public: field.public, value: SecretBytes::copy_of(value) });
        values = after;
    }
    if values.is_empty() {
        Ok(Item { title: header.title, expires: header.expires, fields })
    } else {
        Err(ItemFileError::Form)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, value: &[u8]) -> Field {
        let name = FieldName::parse(name).unwrap();
        Field { name, public: false, value: SecretBytes::copy_of(value) }
    }

    #[test]
    fn values_of_any_bytes_come_back() {
        let text = encode("pypi", None, &[field("token", b"to\nk\0\xff"), field("empty", b"")]).unwrap();
        let Item { title, expires, fields } = decode(&text).unwrap();
        assert_eq!((title.as_str(), expires), ("pypi", None));
        assert_eq!(fields[0].value.expose(), b"to\nk\0\xff");
        assert!(fields[1].value.is_empty());
    }

    #[test]
    fn one_value_is_what_follows_the_second_line() {
        let text = encode("pypi", None, &[field("token", b"tok")]).unwrap();
        let third = text.splitn(3, |byte| *byte == b'\n').nth(2).unwrap();
        assert_eq!(third, b"tok");
    }

    #[test]
    fn a_cut_or_lengthened_text_is_refused() {
        let text = encode("pypi", None, &[field("token", b"tok")]).unwrap();
        for cut in 0..text.len() {
            assert!(decode(&text[..cut]).is_err(), "{cut}");
        }
        let mut longer = text.to_vec();
        longer.push(b'x');
        assert!(decode(&longer).is_err());
    }
}
