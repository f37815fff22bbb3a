//! What a yes gave to which programs before, as the log has it. Read once after an unlock, off the event loop and in
//! pieces, and kept up to date as records are written. A record counts by its own chain value under the vault's key
//! and by nothing else: what any program of the user can write, adopted or not, makes no first time look like another.
//! What is cut away, replaced or not kept here makes more first times, never fewer.

use super::event::Event;
use super::sink::{LogError, Reader};
use super::verify::{chain_value_of, is_keyed};
use crate::journal::{self, Level};
use crate::vault::local::keys::Digest;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use zeroize::Zeroizing;

/// Pairs kept, some megabytes at most; what comes after them is a first time again and again.
const MOST: usize = 1 << 16;

/// What was given, in the record that says so. Only what a yes was asked for is: a rule gives to whoever comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Given {
    /// Program files. All of them together are "this program".
    pub(crate) to: Vec<String>,
    /// Fields and keys.
    pub(crate) what: Vec<String>,
}

impl Given {
    /// All of the programs showed themselves.
    pub(crate) fn is_known(&self) -> bool {
        !self.to.is_empty()
    }
}

/// What is known of the past.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// The log is not read yet.
    Unknown,
    /// Of what was asked about, what was never given.
    Never(Vec<String>),
}

/// The pairs of programs and what they were given, as hashes under a key of this process: nobody can look for two
/// that share one.
#[derive(Clone, Default)]
struct Pairs {
    hasher: RandomState,
    seen: HashSet<u64>,
}

impl Pairs {
    fn hash(&self, to: &[String], what: &str) -> u64 {
        self.hasher.hash_one((to, what))
    }

    fn add(&mut self, given: &Given) {
        for what in &given.what {
            if self.seen.len() < MOST {
                self.seen.insert(self.hash(&given.to, what));
            }
        }
    }
}

#[derive(Default)]
struct State {
    pairs: Pairs,
    is_read: bool,
    /// Ends the reading that goes on.
    over: Arc<AtomicBool>,
}

/// Empty while the vault is locked.
#[derive(Default)]
pub(crate) struct History(Rc<RefCell<State>>);

impl History {
    /// Reads the log up to `end`. What is written from now on is to be noted.
    pub(crate) fn read(&self, reader: Reader, end: u64, key: Zeroizing<Vec<u8>>) {
        self.forget();
        let (pairs, over) = {
            let state = self.0.borrow();
            (state.pairs.clone(), Arc::clone(&state.over))
        };
        let state = Rc::clone(&self.0);
        tokio::task::spawn_local(async move {
            let ends = Arc::clone(&over);
            let read = tokio::task::spawn_blocking(move || past(reader, end, &key, pairs, &ends)).await;
            if over.load(Ordering::Relaxed) {
                return;
            }
            let mut state = state.borrow_mut();
            if let Ok(pairs) = read {
                state.pairs.seen.extend(pairs.seen);
            }
            state.is_read = true;
        });
    }

    /// The vault is locked.
    pub(crate) fn forget(&self) {
        let mut state = self.0.borrow_mut();
        state.over.store(true, Ordering::Relaxed);
        *state = State::default();
    }

    /// A record was written.
    pub(crate) fn note(&self, event: &Event) {
        if let Event::Lent { given: Some(given), .. }
        | Event::Signed { given: Some(given), .. }
        | Event::CertificateMade { given: Some(given), .. }
        | Event::Released { given: Some(given), .. } = event
        {
            self.0.borrow_mut().pairs.add(given);
        }
    }

    pub(crate) fn before(&self, given: &Given) -> Before {
        let state = self.0.borrow();
        let is_new = |what: &&String| !state.pairs.seen.contains(&state.pairs.hash(&given.to, what));
        let never: Vec<String> = given.what.iter().filter(is_new).cloned().collect();
        // What was found already was given, whatever is still to be read.
        if never.is_empty() || state.is_read { Before::Never(never) } else { Before::Unknown }
    }
}

/// What stands in the records of a log that carry a chain value of the key.
fn past(mut reader: Reader, end: u64, key: &[u8], mut pairs: Pairs, over: &AtomicBool) -> Pairs {
    let read = read_past(&mut reader, end, key, &mut pairs, over);
    if let Err(error) = read {
        // What cannot be read was not given: more first times, and `keyloan log --verify` says why.
        journal::say(Level::Warning, &format!("what was given before is not all known: {error}"));
    }
    pairs
}

fn read_past(
    reader: &mut Reader,
    end: u64,
    key: &[u8],
    pairs: &mut Pairs,
    over: &AtomicBool,
) -> Result<(), LogError> {
    let mut before: Option<Digest> = Some([0; 32]);
    while !over.load(Ordering::Relaxed) {
        let lines = reader.lines(end)?;
        if lines.is_empty() {
            break;
        }
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            if let Some(given) = before.and_then(|before| vouched(line, &before, key)) {
                pairs.add(&given);
            }
            before = chain_value_of(line);
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct Told {
    given: Given,
}

fn vouched(line: &[u8], before: &Digest, key: &[u8]) -> Option<Given> {
    const MARK: &[u8] = b",\"given\":{";
    // Most records have none, and a check costs more than a look.
    if !line.windows(MARK.len()).any(|bytes| bytes == MARK) || !is_keyed(line, before, key) {
        return None;
    }
    serde_json::from_slice(line).ok().map(|told: Told| told.given)
}

#[cfg(test)]
mod tests {
    use super::super::sink::{Durable, Sink};
    use super::*;
    use keyloan_platform::private_file::Directory;
    use std::fs;
    use std::io::Write;
    use std::path::{Path, PathBuf};

    const KEY: &[u8] = &[9; 32];

    fn given(to: &str, what: &[&str]) -> Given {
        Given { to: vec![to.to_owned()], what: what.iter().map(|what| (*what).to_owned()).collect() }
    }

    fn released(given: &Given) -> Event {
        Event::Released { request: 1, given: Some(given.clone()) }
    }

    fn scratch(name: &str) -> (PathBuf, Sink) {
        let path = std::env::temp_dir().join(format!("keyloan-given-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        let sink = Sink::open(Directory::open_or_create(&path).unwrap()).unwrap();
        (path, sink)
    }

    fn rewrite(path: &Path, text: &str) {
        let file = fs::OpenOptions::new().write(true).truncate(true).open(path.join("audit.jsonl"));
        file.unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn read(path: &Path) -> History {
        let sink = Sink::open(Directory::open(path).unwrap()).unwrap();
        let history = History::default();
        let pairs = history.0.borrow().pairs.clone();
        let over = AtomicBool::new(false);
        let pairs = past(sink.reader().unwrap().0, sink.length(), KEY, pairs, &over);
        *history.0.borrow_mut() = State { pairs, is_read: true, over: Arc::default() };
        history
    }

    fn never(history: &History, given: &Given) -> Vec<String> {
        match history.before(given) {
            Before::Never(never) => never,
            Before::Unknown => panic!("it is read"),
        }
    }

    #[test]
    fn what_was_given_is_found_again_for_the_same_programs_only() {
        let (path, mut sink) = scratch("again");
        let token = given("/usr/bin/twine", &["pypi/token"]);
        sink.append(&Event::VaultCreated, Durable::Now, None).unwrap();
        sink.append(&released(&token), Durable::Now, Some(KEY)).unwrap();
        let history = read(&path);
        assert_eq!(never(&history, &token), [""; 0]);
        assert_eq!(never(&history, &given("/usr/bin/twine", &["pypi/token", "npm/token"])), ["npm/token"]);
        assert_eq!(never(&history, &given("/tmp/twine", &["pypi/token"])), ["pypi/token"]);
        let two = Given { to: vec!["/usr/bin/twine".into(), "/bin/sh".into()], ..token };
        assert_eq!(never(&history, &two), ["pypi/token"]);
        history.note(&released(&two));
        assert_eq!(never(&history, &two), [""; 0]);
        history.forget();
        assert_eq!(history.before(&two), Before::Unknown);
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn records_that_the_key_does_not_vouch_for_give_nothing() {
        let (path, mut sink) = scratch("forged");
        let (mine, forged) = (given("/usr/bin/twine", &["mine"]), given("/tmp/evil", &["mine"]));
        sink.append(&released(&mine), Durable::Now, Some(KEY)).unwrap();
        // Without the key, with another, and adopted: what a program writes into the file while the vault is locked.
        sink.append(&released(&forged), Durable::Now, None).unwrap();
        sink.append(&released(&forged), Durable::Now, Some(&[8; 32])).unwrap();
        sink.adopt(KEY).unwrap();
        drop(sink);
        let history = read(&path);
        assert_eq!(never(&history, &mine), [""; 0]);
        assert_eq!(never(&history, &forged), ["mine"]);
        // A genuine record with another program in it, and one that only says it is keyed.
        let file = path.join("audit.jsonl");
        let text = fs::read_to_string(&file).unwrap();
        rewrite(
            &path,
            &text.replace("/usr/bin/twine", "/tmp/evil").replace("\"keyed\":false", "\"keyed\":true"),
        );
        let history = read(&path);
        assert_eq!(never(&history, &forged), ["mine"]);
        assert_eq!(never(&history, &mine), ["mine"]);
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_log_that_was_cut_in_the_middle_loses_only_what_was_there() {
        let (path, mut sink) = scratch("cut");
        for what in ["one", "two", "three"] {
            sink.append(&released(&given("/usr/bin/twine", &[what])), Durable::Now, Some(KEY)).unwrap();
        }
        drop(sink);
        let file = path.join("audit.jsonl");
        let text = fs::read_to_string(&file).unwrap();
        let without: Vec<&str> =
            text.lines().enumerate().filter(|(at, _)| *at != 1).map(|(_, line)| line).collect();
        rewrite(&path, &(without.join("\n") + "\n"));
        let all = given("/usr/bin/twine", &["one", "two", "three"]);
        assert_eq!(never(&read(&path), &all), ["two", "three"], "the third hangs on the second");
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn more_pairs_than_are_kept_are_first_times_again() {
        let mut pairs = Pairs::default();
        let many: Vec<String> = (0..MOST + 10).map(|number| number.to_string()).collect();
        pairs.add(&Given { to: Vec::new(), what: many });
        assert_eq!(pairs.seen.len(), MOST);
    }
}
