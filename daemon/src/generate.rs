//! Passwords and tokens that nobody has to think up.

use keyloan_protocol::control::request::Alphabet;
use keyloan_protocol::secret::SecretBytes;
use zeroize::Zeroizing;

fn characters(alphabet: Alphabet) -> &'static [u8] {
    match alphabet {
        // Without what is quoted differently by shells, and without what looks alike.
        Alphabet::Password => b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789-_.+=@%/:,",
        Alphabet::Token => b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
        Alphabet::Hex => b"0123456789abcdef",
        Alphabet::Digits => b"0123456789",
    }
}

/// `length` characters, each as likely as every other; `None` without random numbers from the system.
pub(crate) fn value(alphabet: Alphabet, length: usize) -> Option<SecretBytes> {
    let characters = characters(alphabet);
    // Bytes above the last whole multiple would make the first characters likelier.
    let most = 256 / characters.len() * characters.len();
    let mut value = Zeroizing::new(Vec::with_capacity(length));
    let mut random = Zeroizing::new([0; 64]);
    while value.len() < length {
        getrandom::fill(random.as_mut()).ok()?;
        let wanted = length - value.len();
        let usable = random.iter().map(|byte| usize::from(*byte)).filter(|byte| *byte < most);
        value.extend(usable.map(|byte| characters[byte % characters.len()]).take(wanted));
    }
    Some(SecretBytes::copy_of(&value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_comes_about_equally_often() {
        for alphabet in [Alphabet::Password, Alphabet::Token, Alphabet::Hex, Alphabet::Digits] {
            let set = characters(alphabet);
            let each = 2000;
            let value = value(alphabet, set.len() * each).unwrap();
            let mut counts = [0_usize; 256];
            value.expose().iter().for_each(|byte| counts[usize::from(*byte)] += 1);
            for character in set {
                let count = counts[usize::from(*character)];
                // Eight standard deviations: never by chance, always with a biased choice.
                assert!(count.abs_diff(each) < 8 * 45, "{}: {count}", char::from(*character));
            }
        }
    }
}
