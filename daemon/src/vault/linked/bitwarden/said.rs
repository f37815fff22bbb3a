//! What `bw` says when it does not do what it is asked for, as a fault. Its own words go no further.

use super::Fault;

/// Of an answer with `success: false`.
pub(super) fn in_answer(message: &str) -> Fault {
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if says(&["not logged in", "No active account", "invalid_grant", "logged out"]) {
        Fault::SignedOut
    } else if says(&["Vault is locked"]) {
        Fault::Locked("it was locked meanwhile".to_owned())
    } else if says(&["Rate limit", "Too many requests", "too many requests"]) {
        Fault::RateLimited { until: "later".to_owned() }
    } else if says(&["Not found"]) {
        Fault::Refused("it was removed meanwhile".to_owned())
    } else if says(&["out of date"]) {
        Fault::Refused("the item was changed meanwhile; nothing was written, try again".to_owned())
    } else if says(&["permission", "policy"]) {
        Fault::Refused("the organisation that it belongs to does not allow that".to_owned())
    } else if says(&["fetch failed", "ECONNREFUSED", "ENOTFOUND", "certificate", "FetchError", "ETIMEDOUT"]) {
        Fault::Unreachable("bw does not reach its server, or does not trust its certificate".to_owned())
    } else {
        Fault::Refused("bw does not do that, for a reason that keyloan does not know".to_owned())
    }
}

/// Of a process that ended instead of serving.
pub(super) fn at_the_end(text: &[u8]) -> Option<Fault> {
    let text = String::from_utf8_lossy(text);
    let says = |words: &str| text.contains(words);
    if says("You are not logged in.") {
        Some(Fault::SignedOut)
    } else if says("node: No such file or directory")
        || says("node': No such file")
        || says("node’: No such file")
    {
        Some(Fault::Broken(
            "bw is a script for node, and there is none in /usr/local/bin or /usr/bin".to_owned(),
        ))
    } else if says("fd+connected") || says("unknown command") {
        Some(Fault::Broken("this bw is too old for keyloan, or is another program".to_owned()))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_bw_says_is_told_apart() {
        for (message, key) in [
            ("You are not logged in.", "signed_out"),
            ("Vault is locked.", "locked"),
            ("Rate limit exceeded. Try again later.", "rate_limited"),
            ("Syncing failed: Rate limit exceeded. Try again later.", "rate_limited"),
            ("request to https://x failed, reason: connect ECONNREFUSED 127.0.0.1:1", "unreachable"),
            ("You do not have permission to edit this item", "refused"),
            ("s3cret", "refused"),
        ] {
            let fault = in_answer(message);
            assert_eq!(fault.key(), key, "{message}");
            assert!(!fault.to_string().contains("s3cret"));
        }
        assert_eq!(at_the_end(b"\x1b[31mYou are not logged in.\x1b[39m"), Some(Fault::SignedOut));
        assert_eq!(at_the_end(b"s3cret"), None);
    }
}
