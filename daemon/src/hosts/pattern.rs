//! OpenSSH's patterns (`ssh_config`(5), "PATTERNS"): `*` is any text, `?` one byte, a list holds commas, and `!` before
//! one of them refuses what it matches. Never slower than the product of the two lengths, whatever the pattern.

/// OpenSSH takes no list that holds a longer pattern.
const LONGEST: usize = 1022;

/// What a list says of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listed {
    Yes,
    No,
    /// A negated pattern matches, which no other outweighs.
    Refused,
}

/// Whether the whole text matches; capitals count.
pub(crate) fn matches(text: &str, pattern: &str) -> bool {
    let (text, pattern) = (text.as_bytes(), pattern.as_bytes());
    let (mut at, mut in_pattern) = (0, 0);
    // After the last `*`, and the end of what it stands for so far. An earlier one never has to give way.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match (pattern.get(in_pattern), text.get(at)) {
            (Some(b'*'), _) => {
                in_pattern += 1;
                retry = Some((in_pattern, at));
            }
            (Some(wanted), Some(byte)) if *wanted == b'?' || wanted == byte => {
                in_pattern += 1;
                at += 1;
            }
            (None, None) => return true,
            _ => match retry {
                Some((after, end)) if end < text.len() => {
                    retry = Some((after, end + 1));
                    (in_pattern, at) = (after, end + 1);
                }
                _ => return false,
            },
        }
    }
}

/// What a comma list says of a host. Capitals do not count: names of hosts are the same without (RFC 4343).
pub(crate) fn host_in_list(host: &str, list: &str) -> Listed {
    let host = host.to_ascii_lowercase();
    let mut listed = Listed::No;
    for pattern in list.split(',') {
        let (negated, pattern) = pattern.strip_prefix('!').map_or((false, pattern), |rest| (true, rest));
        if pattern.len() > LONGEST {
            return Listed::No;
        }
        if matches(&host, &pattern.to_ascii_lowercase()) {
            if negated {
                return Listed::Refused;
            }
            listed = Listed::Yes;
        }
    }
    listed
}

/// Whether it stands for more than one text.
pub(crate) fn is_wild(pattern: &str) -> bool {
    pattern.contains(['*', '?'])
}

#[cfg(test)]
mod tests {
    use super::super::tests::Noise;
    use super::*;

    #[test]
    fn stars_and_question_marks_stand_for_text() {
        for (text, pattern, matching) in [
            ("", "", true),
            ("", "*", true),
            ("", "?", false),
            ("a", "", false),
            ("root", "root", true),
            ("root", "Root", false),
            ("root", "ro?t", true),
            ("root", "roo", false),
            ("root", "root?", false),
            ("root", "r*", true),
            ("root", "*t", true),
            ("root", "**o*", true),
            ("root", "*?", true),
            ("root", "?????", false),
            ("a.b.example.com", "*.example.com", true),
            ("example.com", "*.example.com", false),
            ("aab", "*ab", true),
            ("abcabd", "*abd", true),
            ("abcabd", "a*c*d", true),
            ("abcabd", "a*d*c", false),
            ("a*", "a?", true),
        ] {
            assert_eq!(matches(text, pattern), matching, "{text} {pattern}");
        }
    }

    /// The definition, without any cleverness.
    fn plainly(text: &[u8], pattern: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|skipped| plainly(&text[skipped..], rest)),
            Some((wanted, rest)) => text
                .split_first()
                .is_some_and(|(byte, text)| (*wanted == b'?' || wanted == byte) && plainly(text, rest)),
        }
    }

    #[test]
    fn matching_is_what_the_definition_says() {
        let mut noise = Noise(7);
        let mut both = [0; 2];
        for _ in 0..50_000 {
            let mut make = |letters: &[u8], length: usize| -> String {
                (0..noise.below(length)).map(|_| char::from(letters[noise.below(letters.len())])).collect()
            };
            let (text, pattern) = (make(b"ab", 9), make(b"ab*?", 7));
            let matching = matches(&text, &pattern);
            assert_eq!(matching, plainly(text.as_bytes(), pattern.as_bytes()), "{text} {pattern}");
            both[usize::from(matching)] += 1;
        }
        assert!(both[0] > 1000 && both[1] > 1000, "{both:?}");
    }

    #[test]
    fn a_pattern_full_of_stars_is_not_slow() {
        let (text, pattern) = ("a".repeat(1000), "a*".repeat(500) + "b");
        assert!(!matches(&text, &pattern));
    }

    #[test]
    fn a_negated_pattern_refuses_wherever_it_stands() {
        for (host, list, listed) in [
            ("a.example", "a.example", Listed::Yes),
            ("A.Example", "a.eXample", Listed::Yes),
            ("b.example", "a.example,b.*", Listed::Yes),
            ("b.example", "*.example,!b.example", Listed::Refused),
            ("b.example", "!b.example,*.example", Listed::Refused),
            ("c.example", "!b.example", Listed::No),
            ("c.example", "", Listed::No),
            ("[c.example]:2222", "[*.example]:2222", Listed::Yes),
            ("c.example", "[*.example]:2222", Listed::No),
        ] {
            assert_eq!(host_in_list(host, list), listed, "{host} {list}");
        }
        let long = format!("c.example,{}", "c".repeat(1023));
        assert_eq!(host_in_list("c.example", &long), Listed::No);
    }
}
