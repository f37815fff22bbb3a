//! What `op` says when it fails: always status 1, nothing on standard output, and one line
//! `[ERROR] YYYY/MM/DD HH:MM:SS MESSAGE` on standard error. Messages quote names and could quote values, so they are
//! looked at and never passed on.

use super::{Place, is_id};
use crate::vault::linked::Fault;
use crate::vault::linked::runner::Ended;

/// The longest message that is looked at.
const MOST: usize = 64 * 1024;

/// What it means for those places, which it was asked for with one process.
pub(super) fn fault(ended: &Ended, places: &[&Place]) -> Fault {
    let errors = ended.errors.expose();
    let text = String::from_utf8_lossy(&errors[..errors.len().min(MOST)]);
    let strange =
        || Fault::Broken(format!("op ended with status {} and a message of another kind", ended.status));
    let Some(message) = text.split("[ERROR] ").nth(1) else { return strange() };
    let bare = unquoted(message);
    of_item(message, &bare, places).or_else(|| of_account(&bare)).unwrap_or_else(strange)
}

/// The first line of a message without the names in it, which could read like anything.
fn unquoted(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let line = line.split('"').step_by(2).collect::<Vec<_>>().concat();
    let mut parts = line.split("'op://");
    let first = parts.next().unwrap_or_default().to_owned();
    let behind = |part: &str| part.split_once('\'').map(|(_, rest)| rest.to_owned()).unwrap_or_default();
    parts.fold(first, |line, part| line + &behind(part))
}

fn of_account(message: &str) -> Option<Fault> {
    let says = |words: &[&str]| words.iter().any(|words| message.contains(words));
    let refused = |cause: &str| Some(Fault::Refused(cause.to_owned()));
    let unreachable = |cause: &str| Some(Fault::Unreachable(cause.to_owned()));
    if says(&["Too many requests", "rate-limited"]) {
        return Some(Fault::RateLimited { until: "within an hour".to_owned() });
    }
    if says(&["You are not currently signed in", "session expired", "No accounts configured"]) {
        return Some(Fault::SignedOut);
    }
    if says(&["authorization prompt dismissed"]) {
        return refused("the question of the 1Password app was dismissed");
    }
    if says(&["authorization timeout"]) {
        return refused("nobody answered the question of the 1Password app");
    }
    if says(&["(403) Forbidden"]) {
        return refused("1Password forbids it to this account");
    }
    if says(&["(401) Unauthorized"]) {
        return refused("1Password does not take the token of this service account");
    }
    if says(&["found no account"]) {
        return refused("op has no such account");
    }
    if says(&["connecting to desktop app", "1Password desktop app"]) {
        return unreachable("the 1Password app does not answer");
    }
    if says(&["dial tcp", "no such host"]) {
        return unreachable("1Password's servers cannot be reached");
    }
    None
}

/// Which of the places a message is about.
fn of_item(message: &str, bare: &str, places: &[&Place]) -> Option<Fault> {
    let line = message.lines().next().unwrap_or_default();
    let which = |says: &dyn Fn(&Place) -> bool| {
        let found = places.iter().find(|place| says(place));
        // Where all are of one item there is no doubt.
        let first = places.first()?;
        let same = places.iter().all(|place| place.item == first.item && place.vault == first.vault);
        found.or(same.then_some(first)).copied()
    };
    if bare.contains("isn't a vault in this account") {
        return which(&|place| line.contains(&format!("\"{}\" isn't a vault", place.vault)))
            .map(Place::no_item);
    }
    if bare.contains("isn't an item") {
        let (in_vault, anywhere) = (
            |place: &Place| {
                line.contains(&format!("\"{}\" isn't an item in the \"{}\" vault", place.item, place.vault))
            },
            |place: &Place| line.contains(&format!("\"{}\" isn't an item", place.item)),
        );
        let found = places.iter().find(|place| in_vault(place)).copied();
        return found.or_else(|| which(&anywhere)).map(Place::no_item);
    }
    if bare.contains("does not have a field") {
        let says = |place: &Place| {
            line.contains(&format!(
                "item '{}/{}' does not have a field '{}'",
                place.vault, place.item, place.field
            ))
        };
        let exact = places.iter().find(|place| says(place)).copied();
        // It may write a section in its own way; there is no doubt where one field of that item was wanted.
        let of_item = |place: &&&Place| line.contains(&format!("'{}/{}'", place.vault, place.item));
        let of_item: Vec<&&Place> = places.iter().filter(of_item).collect();
        let only = if let [one] = of_item[..] { Some(*one) } else { None };
        return exact.or(only).map(Place::no_field);
    }
    if bare.contains("More than one item matches") {
        let place = which(&|place| line.contains(&format!("matches \"{}\"", place.item)))?;
        let ids =
            message.lines().filter_map(|line| line.trim().strip_prefix("* for the item ")?.rsplit_once(": "));
        let ids = ids.map(|(_, id)| id).filter(|id| is_id(id));
        let candidates = ids.map(|id| format!("{}/{id}", place.vault)).collect();
        return Some(Fault::Ambiguous { what: format!("{}/{}", place.vault, place.item), candidates });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::Form;
    use super::*;
    use keyloan_protocol::secret::SecretBytes;

    fn place(vault: &str, item: &str, field: &str) -> Place {
        let (vault, item, field) = (vault.to_owned(), item.to_owned(), field.to_owned());
        Place { vault, item, section: None, field, form: Form::Value }
    }

    fn said(message: &str, places: &[&Place]) -> Fault {
        let errors = SecretBytes::new(format!("[ERROR] 2024/05/06 07:08:09 {message}\n").into_bytes());
        fault(&Ended { status: 1, output: SecretBytes::new(Vec::new()), errors }, places)
    }

    #[test]
    fn the_reference_that_is_wrong_is_found_among_many() {
        let (one, two) = (place("Work", "gcp", "key"), place("Home", "gcp", "other"));
        let both = [&one, &two];
        let missing = said(
            "\"gcp\" isn't an item in the \"Home\" vault. Specify the item with its UUID, name, or domain.",
            &both,
        );
        assert_eq!(missing, Fault::NoItem("Home/gcp".to_owned()));
        let field = said("item 'Home/gcp' does not have a field 'other'", &both);
        assert_eq!(field, two.no_field());
        let sectioned = said("item 'Home/gcp' does not have a field 'prod.other'", &both);
        assert_eq!(sectioned, two.no_field());
        let vault =
            said("\"Home\" isn't a vault in this account. Specify the vault with its ID or name.", &both);
        assert_eq!(vault, Fault::NoItem("Home/gcp".to_owned()));
        let ids = format!(
            "\n\t* for the item \"gcp\" in vault Home: {}\n\t* for the item \"gcp\" in vault Home: s3cret",
            "a".repeat(26)
        );
        let text =
            format!("More than one item matches \"gcp\". Try again and specify the item by its ID:{ids}");
        let Fault::Ambiguous { candidates, .. } = said(&text, &[&two]) else { panic!("ambiguous") };
        assert_eq!(candidates, [format!("Home/{}", "a".repeat(26))]);
    }

    #[test]
    fn a_name_does_not_pass_for_a_message() {
        let odd = place("Work", "Too many requests", "key");
        let missing = said("\"Too many requests\" isn't an item in the \"Work\" vault. Specify …", &[&odd]);
        assert_eq!(missing.key(), "not_found");
        assert_eq!(said("You know \"session expired\"", &[&odd]).key(), "broken");
    }

    #[test]
    fn what_is_behind_another_message_is_found() {
        let one = place("Work", "gcp", "key");
        let text = "could not read secret 'op://Work/gcp/key': error initializing client: You are not currently signed in. Please run `op signin --help` for instructions";
        assert_eq!(said(text, &[&one]), Fault::SignedOut);
    }
}
