//! Items as `op item get` and a Connect server write them in JSON, and the field that a reference means. What is parsed
//! holds values: it is freed to an allocator that wipes.

use super::{Form, Place};
use crate::vault::linked::{Fault, Read};
use keyloan_protocol::secret::SecretBytes;
use serde::Deserialize;

/// An item of a list, which has no values.
#[derive(Deserialize)]
pub(super) struct Summary {
    pub(super) id: String,
    pub(super) title: String,
    #[serde(default)]
    pub(super) vault: Vault,
}

#[derive(Deserialize, Default)]
pub(super) struct Vault {
    pub(super) id: String,
    #[serde(default)]
    pub(super) name: String,
}

#[derive(Deserialize)]
pub(super) struct Item {
    pub(super) id: String,
    pub(super) title: String,
    sections: Option<Vec<Section>>,
    fields: Option<Vec<Field>>,
}

#[derive(Deserialize)]
pub(super) struct Section {
    pub(super) id: String,
    label: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Field {
    pub(super) id: String,
    label: Option<String>,
    /// Absent where it is empty.
    value: Option<String>,
    section: Option<Section>,
    totp: Option<String>,
    ssh_formats: Option<SshFormats>,
}

#[derive(Deserialize)]
struct SshFormats {
    openssh: Option<Formatted>,
}

#[derive(Deserialize)]
struct Formatted {
    value: Option<String>,
}

impl Item {
    /// A search finds items by more than their names (`op` by a site's domain), so what came is looked at.
    pub(super) fn is(&self, name: &str) -> bool {
        self.title == name || self.id == name
    }

    /// The section of that name.
    pub(super) fn section(&self, name: &str) -> Option<&Section> {
        let mut sections = self.sections.iter().flatten();
        sections.find(|section| section.label.as_deref() == Some(name) || section.id == name)
    }

    /// The field that is meant: of several, the one that lies in no section.
    pub(super) fn field(&self, place: &Place) -> Result<&Field, Fault> {
        let named = |field: &&Field| field.label.as_deref() == Some(&place.field) || field.id == place.field;
        let within = |field: &&Field| match (&place.section, &field.section) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(name), Some(section)) => section.id == *name || self.label(section) == Some(name),
        };
        let found: Vec<&Field> = self.fields.iter().flatten().filter(named).filter(within).collect();
        let outside: Vec<&Field> = found.iter().copied().filter(|field| field.section.is_none()).collect();
        match (&found[..], &outside[..]) {
            ([], _) => Err(place.no_field()),
            ([one], _) | (_, [one]) => Ok(one),
            _ => {
                let candidate = |field: &&Field| {
                    let section = field.section.as_ref().map(|section| section.id.as_str());
                    format!("{}/{}/{}/{}", place.vault, place.item, section.unwrap_or_default(), field.id)
                };
                let what = format!("{}/{}/{}", place.vault, place.item, place.field);
                Err(Fault::Ambiguous { what, candidates: found.iter().map(candidate).collect() })
            }
        }
    }

    /// The label of a field's section, which Connect writes with the item alone.
    fn label<'a>(&'a self, section: &'a Section) -> Option<&'a str> {
        let of_item =
            || self.sections.iter().flatten().find(|other| other.id == section.id)?.label.as_deref();
        section.label.as_deref().or_else(of_item)
    }

    pub(super) fn read(&self, place: &Place) -> Read {
        let field = self.field(place)?;
        let ssh = || field.ssh_formats.as_ref()?.openssh.as_ref()?.value.as_ref();
        let value = match place.form {
            Form::Value => return Ok(field.value()),
            Form::OneTimeCode => field.totp.as_ref(),
            Form::OpenSsh => ssh(),
        };
        value.map(|value| SecretBytes::copy_of(value.as_bytes())).ok_or_else(|| place.no_field())
    }
}

impl Field {
    pub(super) fn value(&self) -> SecretBytes {
        SecretBytes::copy_of(self.value.as_deref().unwrap_or_default().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(section: Option<&str>, field: &str, form: Form) -> Result<String, Fault> {
        let item: Item = serde_json::from_str(
            r#"{"id": "i", "title": "t", "sections": [{"id": "s1", "label": "One"}, {"id": "s2"}], "fields": [
                {"id": "f1", "label": "pw", "value": "outside"},
                {"id": "f2", "label": "pw", "value": "in one", "section": {"id": "s1"}},
                {"id": "f3", "label": "user", "value": "1", "section": {"id": "s1"}},
                {"id": "f4", "label": "user", "value": "2", "section": {"id": "s2", "label": "Two"}},
                {"id": "f5", "label": "empty"},
                {"id": "f6", "label": "code", "value": "seed", "totp": "123456"}]}"#,
        )
        .unwrap();
        let (section, field) = (section.map(str::to_owned), field.to_owned());
        let place = Place { vault: "v".to_owned(), item: "t".to_owned(), section, field, form };
        item.read(&place).map(|value| String::from_utf8(value.expose().to_vec()).unwrap())
    }

    #[test]
    fn a_field_is_found_by_label_or_id_and_by_its_section_where_one_is_named() {
        assert_eq!(read(None, "pw", Form::Value).unwrap(), "outside");
        assert_eq!(read(Some("One"), "pw", Form::Value).unwrap(), "in one");
        assert_eq!(read(Some("s1"), "f2", Form::Value).unwrap(), "in one");
        assert_eq!(read(Some("Two"), "user", Form::Value).unwrap(), "2");
        assert_eq!(read(None, "empty", Form::Value).unwrap(), "");
        assert_eq!(read(None, "code", Form::OneTimeCode).unwrap(), "123456");
    }

    #[test]
    fn a_field_that_is_missing_or_more_than_one_is_named() {
        let Fault::Ambiguous { candidates, .. } = read(None, "user", Form::Value).unwrap_err() else {
            panic!("user is in two sections")
        };
        assert_eq!(candidates, ["v/t/s1/f3", "v/t/s2/f4"]);
        for (section, field, form) in [
            (None, "nothing", Form::Value),
            (Some("Two"), "pw", Form::Value),
            (Some("Three"), "user", Form::Value),
            (None, "pw", Form::OneTimeCode),
            (None, "pw", Form::OpenSsh),
        ] {
            assert_eq!(read(section, field, form).unwrap_err().key(), "not_found");
        }
    }
}
