//! What `op inject` is given for many references at once, and how its output is taken apart. Each value stands between
//! two marks that nobody could put into a value: they are made of random numbers for one request.

use data_encoding::HEXLOWER;
use keyloan_protocol::secret::SecretBytes;

pub(super) struct Template {
    references: Vec<String>,
    random: String,
}

impl Template {
    /// Of references whose text means nothing else in a template. None where the system has no random numbers.
    pub(super) fn new(references: Vec<String>) -> Option<Self> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).ok()?;
        Some(Self { references, random: HEXLOWER.encode(&random) })
    }

    /// Neither ends nor begins with what could be taken for a part of a reference.
    fn mark(&self, at: usize) -> String {
        format!("<{}:{at}>", self.random)
    }

    fn enclosed(reference: &str) -> String {
        format!("{{{{ {reference} }}}}")
    }

    pub(super) fn text(&self) -> SecretBytes {
        let mut text = self.mark(0);
        for (at, reference) in self.references.iter().enumerate() {
            text.push_str(&Self::enclosed(reference));
            text.push_str(&self.mark(at + 1));
        }
        SecretBytes::new(text.into_bytes())
    }

    /// The values, in the order of the references. None where the output is anything but this template, filled.
    pub(super) fn values(&self, output: &[u8]) -> Option<Vec<SecretBytes>> {
        if find(output, self.random.as_bytes(), self.references.len() + 2).len() != self.references.len() + 1
        {
            return None;
        }
        let mut rest = output.strip_prefix(self.mark(0).as_bytes())?;
        let mut values = Vec::with_capacity(self.references.len());
        for (at, reference) in self.references.iter().enumerate() {
            let mark = self.mark(at + 1);
            let end = *find(rest, mark.as_bytes(), 1).first()?;
            // A reference that was left as it is was not taken for one.
            if rest[..end] == *Self::enclosed(reference).as_bytes() {
                return None;
            }
            values.push(SecretBytes::copy_of(&rest[..end]));
            rest = &rest[end + mark.len()..];
        }
        matches!(rest, b"" | b"\n").then_some(values)
    }
}

/// The first places of a text, at most so many.
fn find(within: &[u8], text: &[u8], most: usize) -> Vec<usize> {
    within
        .windows(text.len())
        .enumerate()
        .filter(|(_, part)| *part == text)
        .map(|(at, _)| at)
        .take(most)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template() -> Template {
        Template::new(vec!["op://v/a/f".to_owned(), "op://v/b/f".to_owned()]).unwrap()
    }

    fn filled(template: &Template, values: [&[u8]; 2]) -> Vec<u8> {
        let [one, two] = values;
        [template.mark(0).as_bytes(), one, template.mark(1).as_bytes(), two, template.mark(2).as_bytes()]
            .concat()
    }

    fn values(template: &Template, output: &[u8]) -> Option<Vec<Vec<u8>>> {
        let values = template.values(output)?;
        Some(values.iter().map(|value| value.expose().to_vec()).collect())
    }

    #[test]
    fn values_of_any_bytes_come_apart_as_they_are() {
        let template = template();
        let text = template.text();
        assert!(text.expose().starts_with(b"<"));
        let odd: &[u8] = b"\n}}{{ op://v/b/f }}<0:1>\xff\0\r\n";
        for pair in [[odd, b""], [b"", odd], [b"\n", b"\n"], [odd, odd]] {
            let output = filled(&template, pair);
            assert_eq!(values(&template, &output).unwrap(), pair);
            assert_eq!(values(&template, &[&output[..], b"\n"].concat()).unwrap(), pair);
        }
    }

    #[test]
    fn output_that_is_not_the_template_filled_is_no_values() {
        let template = template();
        let good = filled(&template, [b"1", b"2"]);
        let mark = template.mark(1);
        let swapped = [template.mark(0), template.mark(2), mark.clone()].concat();
        for bad in [
            b"".to_vec(),
            b"garbage".to_vec(),
            good[..good.len() - 1].to_vec(),
            [&good[..], b"x"].concat(),
            [&good[..], &good[..]].concat(),
            [b" ", &good[..]].concat(),
            filled(&template, [mark.as_bytes(), b"2"]),
            swapped.into_bytes(),
            template.text().expose().to_vec(),
        ] {
            assert!(values(&template, &bad).is_none(), "{}", String::from_utf8_lossy(&bad));
        }
    }

    #[test]
    fn no_two_requests_have_the_same_marks() {
        assert_ne!(template().mark(0), template().mark(0));
    }
}
