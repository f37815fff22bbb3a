//! Reads the log again and checks that each record follows the one before. What it cannot show: records
//! that were never written, and a log and a vault put back together.

use super::sink::{Head, LogError, Reader, chain_value};
use crate::vault::local::index::Anchor;
use crate::vault::local::keys::Digest;
use data_encoding::HEXLOWER;
use keyloan_protocol::control::response::Verified;
use serde::Deserialize;
use subtle::ConstantTimeEq;

/// Findings shown; a log that is wrong throughout says so soon enough.
const MOST: usize = 20;

/// Checks the records up to `end`. Without the key only the order of records is checked, not their author.
pub(crate) fn verify(
    mut reader: Reader,
    end: u64,
    key: Option<&[u8]>,
    anchor: Option<&Anchor>,
) -> Result<Verified, LogError> {
    let mut check = Check {
        previous: [0; 32],
        records: 0,
        anchored: anchor.is_none(),
        unkeyed_from: None,
        findings: Vec::new(),
    };
    'log: loop {
        let lines = match reader.lines(end) {
            Err(LogError::Altered(_)) => {
                check.findings.push("it ends within a record: another program wrote to it".to_owned());
                break;
            }
            lines => lines?,
        };
        if lines.is_empty() {
            break;
        }
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            check.record(line, key, anchor);
            if check.findings.len() >= MOST {
                break 'log;
            }
        }
    }
    if let (false, Some(anchor)) = (check.anchored || check.findings.len() >= MOST, anchor) {
        let cut = format!(
            "the vault remembers record {} as it was; it is not in the log: the log was cut or put back",
            anchor.sequence
        );
        check.findings.push(cut);
    }
    Ok(Verified { records: check.records, keyed: key.is_some(), findings: check.findings })
}

struct Check {
    previous: Digest,
    records: u64,
    anchored: bool,
    /// The first of the records without the key that none has vouched for yet.
    unkeyed_from: Option<u64>,
    findings: Vec<String>,
}

/// What records say that bear on the log itself.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Told {
    Adopted {
        from: u64,
        to: u64,
    },
    Mismatched {
        expected: u64,
    },
    #[serde(other)]
    Other,
}

impl Check {
    fn record(&mut self, line: &[u8], key: Option<&[u8]>, anchor: Option<&Anchor>) {
        self.records += 1;
        let number = self.records;
        let Some((head, body, chain)) = split(line) else {
            self.findings.push(format!("line {number} is no record of keyloan's"));
            return;
        };
        if head.seq != number {
            self.findings.push(format!("line {number} holds record {}: records are missing", head.seq));
            self.records = head.seq;
        }
        let expected = match (head.keyed, key) {
            (true, Some(key)) => Some(chain_value(Some(key), &self.previous, &body)),
            (true, None) => None,
            (false, _) => Some(chain_value(None, &self.previous, &body)),
        };
        if expected.is_some_and(|expected| !bool::from(expected.ct_eq(&chain))) {
            self.findings.push(format!("record {} was changed, or the record before it", head.seq));
        }
        if anchor.is_some_and(|anchor| anchor.sequence == head.seq && anchor.chain == head.chain) {
            self.anchored = true;
        }
        self.told(line, &head);
        self.previous = chain;
    }

    /// Records without the key are anybody's until the first record with it vouches for all of them.
    fn told(&mut self, line: &[u8], head: &Head) {
        let told = serde_json::from_slice(line).unwrap_or(Told::Other);
        if let Told::Mismatched { expected } = told {
            self.findings.push(format!(
                "record {} says that the log before it was not what the vault remembered (record {expected})",
                head.seq
            ));
        }
        if !head.keyed {
            self.unkeyed_from = self.unkeyed_from.or(Some(head.seq));
            return;
        }
        let Some(first) = self.unkeyed_from.take() else { return };
        let last = head.seq.saturating_sub(1);
        if !matches!(told, Told::Adopted { from, to } if from <= first && to >= last) {
            self.findings.push(format!("nothing vouches for the records {first} to {last}"));
        }
    }
}

/// The value in a record's chain field, which is there whatever else is.
pub(super) fn chain_value_of(line: &[u8]) -> Option<Digest> {
    let chain = line.strip_suffix(b"\"}")?;
    let start = chain.len().checked_sub(64)?;
    HEXLOWER.decode(&chain[start..]).ok()?.try_into().ok()
}

/// Whether whoever had the key wrote this record behind one with that chain value.
pub(super) fn is_keyed(line: &[u8], previous: &Digest, key: &[u8]) -> bool {
    let is_ours = |(head, body, chain): (Head, Vec<u8>, Digest)| {
        head.keyed && bool::from(chain_value(Some(key), previous, &body).ct_eq(&chain))
    };
    split(line).is_some_and(is_ours)
}

/// The head of a record, the body its chain value covers, and that value.
fn split(line: &[u8]) -> Option<(Head, Vec<u8>, Digest)> {
    const MARK: &[u8] = b",\"chain\":\"";
    let head: Head = serde_json::from_slice(line).ok()?;
    let chain: Digest = HEXLOWER.decode(head.chain.as_bytes()).ok()?.try_into().ok()?;
    let mark = line.len().checked_sub(MARK.len() + 64 + 2)?;
    line[mark..].strip_prefix(MARK)?;
    let mut body = line[..mark].to_vec();
    body.push(b'}');
    Some((head, body, chain))
}

#[cfg(test)]
mod tests {
    use super::super::event::Event;
    use super::super::sink::{Durable, Sink};
    use super::*;
    use keyloan_platform::private_file::Directory;
    use std::fs::{self, OpenOptions};
    use std::io::Write;
    use std::path::{Path, PathBuf};

    const KEY: &[u8] = &[9; 32];

    fn scratch(name: &str) -> (PathBuf, Directory) {
        let path = std::env::temp_dir().join(format!("keyloan-log-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        let directory = Directory::open_or_create(&path).unwrap();
        (path, directory)
    }

    fn again(directory: &Directory) -> Directory {
        Directory::open(directory.path()).unwrap()
    }

    fn written(directory: &Directory) -> Sink {
        let mut sink = Sink::open(again(directory)).unwrap();
        sink.append(&Event::VaultCreated, Durable::Now, None).unwrap();
        sink.set_counter(3);
        sink.adopt(KEY).unwrap();
        for loan in 1..=5 {
            sink.append(&Event::LoanEnded { loan, why: "the process ended" }, Durable::Soon, Some(KEY))
                .unwrap();
        }
        sink
    }

    fn findings(directory: &Directory, anchor: Option<&Anchor>) -> Vec<String> {
        let sink = Sink::open(again(directory)).unwrap();
        verify(sink.reader().unwrap().0, sink.length_on_disk(), Some(KEY), anchor).unwrap().findings
    }

    fn rewrite(path: &Path, change: impl Fn(&mut Vec<String>)) {
        let file = path.join("audit.jsonl");
        let mut lines: Vec<String> = fs::read_to_string(&file).unwrap().lines().map(str::to_owned).collect();
        change(&mut lines);
        let text = lines.join("\n") + "\n";
        OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(&file)
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    }

    #[test]
    fn an_untouched_log_verifies_and_goes_on_after_a_restart() {
        let (path, directory) = scratch("fine");
        let sink = written(&directory);
        let anchor = Anchor { sequence: sink.sequence(), chain: sink.chain() };
        drop(sink);
        let mut sink = Sink::open(again(&directory)).unwrap();
        assert_eq!((sink.sequence(), sink.remembered()), (7, 3));
        sink.append(&Event::DaemonStopped, Durable::Now, None).unwrap();
        assert_eq!(findings(&directory, Some(&anchor)), [""; 0]);
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn an_edited_a_removed_and_a_forged_record_are_found() {
        let (path, directory) = scratch("edited");
        drop(written(&directory));
        rewrite(&path, |lines| lines[3] = lines[3].replace("\"loan\":2", "\"loan\":9"));
        assert!(findings(&directory, None)[0].starts_with("record 4 was changed"));
        fs::remove_dir_all(&path).unwrap();

        let (path, directory) = scratch("removed");
        drop(written(&directory));
        rewrite(&path, |lines| drop(lines.remove(3)));
        assert!(findings(&directory, None)[0].contains("records are missing"));
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn a_log_that_is_wrong_throughout_is_read_until_that_is_clear() {
        let (path, directory) = scratch("throughout");
        drop(written(&directory));
        // More than the reader takes at once, so that the reading and not only one piece of it must end.
        let rubbish = format!("{{\"{}\":1}}", "x".repeat(1000));
        rewrite(&path, |lines| {
            let last = lines.pop().unwrap();
            lines.extend(std::iter::repeat_n(rubbish.clone(), 2000));
            lines.push(last);
        });
        assert_eq!(findings(&directory, None).len(), MOST);
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_cut_log_is_found_by_what_the_vault_remembers() {
        let (path, directory) = scratch("cut");
        let sink = written(&directory);
        let anchor = Anchor { sequence: sink.sequence(), chain: sink.chain() };
        drop(sink);
        rewrite(&path, |lines| lines.truncate(4));
        assert_eq!(findings(&directory, None), [""; 0], "a cut end alone leaves no trace");
        assert!(findings(&directory, Some(&anchor))[0].contains("was cut"));
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn after_restarts_all_that_was_written_without_the_key_is_vouched_for() {
        let (path, directory) = scratch("restarts");
        drop(written(&directory));
        for _ in 0..3 {
            let mut sink = Sink::open(again(&directory)).unwrap();
            sink.append(&Event::DaemonStopped, Durable::Now, None).unwrap();
            sink.append(&Event::DaemonStopped, Durable::Now, None).unwrap();
        }
        assert_eq!(findings(&directory, None), [""; 0], "none has vouched for them, and none had to yet");
        Sink::open(again(&directory)).unwrap().adopt(KEY).unwrap();
        let text = fs::read_to_string(path.join("audit.jsonl")).unwrap();
        assert!(text.lines().last().unwrap().contains("\"from\":8,\"to\":13"), "{text}");
        assert_eq!(findings(&directory, None), [""; 0]);
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn an_adoption_that_failed_is_made_up_for() {
        let (path, directory) = scratch("adoption");
        let mut sink = Sink::open(again(&directory)).unwrap();
        sink.append(&Event::VaultCreated, Durable::Now, None).unwrap();
        let (file, aside) = (path.join("audit.jsonl"), path.join("aside"));
        fs::rename(&file, &aside).unwrap();
        assert!(sink.adopt(KEY).is_err());
        fs::rename(&aside, &file).unwrap();
        sink.adopt(KEY).unwrap();
        assert_eq!((sink.sequence(), findings(&directory, None)), (2, Vec::new()));
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_record_too_long_to_be_read_back_is_not_written() {
        let (path, directory) = scratch("long");
        let mut sink = written(&directory);
        let before = sink.sequence();
        let long = Event::Failed { request: 1, cause: "x".repeat(super::super::sink::RECORD) };
        assert!(sink.append(&long, Durable::Now, Some(KEY)).is_err());
        sink.append(&Event::VaultCreated, Durable::Now, Some(KEY)).unwrap();
        assert_eq!((sink.sequence(), findings(&directory, None)), (before + 1, Vec::new()));
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn records_that_nothing_vouches_for_are_found() {
        let (path, directory) = scratch("unvouched");
        let mut sink = written(&directory);
        sink.append(&Event::DaemonStopped, Durable::Now, None).unwrap();
        sink.append(&Event::VaultCreated, Durable::Now, Some(KEY)).unwrap();
        assert_eq!(findings(&directory, None), ["nothing vouches for the records 8 to 8"]);
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_log_that_gets_shorter_while_it_is_read_ends_the_reading() {
        for kept in [0, 5, 300] {
            let (path, directory) = scratch("shorter");
            let sink = written(&directory);
            OpenOptions::new().write(true).open(path.join("audit.jsonl")).unwrap().set_len(kept).unwrap();
            let found = verify(sink.reader().unwrap().0, sink.length(), Some(KEY), None).unwrap().findings;
            assert!(found.last().unwrap().starts_with("it ends within a record"), "{kept}: {found:?}");
            assert!(!sink.works());
            fs::remove_dir_all(path).unwrap();
        }
    }

    #[test]
    fn a_record_cut_short_by_a_crash_is_removed_and_said() {
        let (path, directory) = scratch("torn");
        drop(written(&directory));
        let mut file = OpenOptions::new().append(true).open(path.join("audit.jsonl")).unwrap();
        file.write_all(b"{\"seq\":8,\"ti").unwrap();
        assert_eq!(findings(&directory, None), [""; 0]);
        let text = fs::read_to_string(path.join("audit.jsonl")).unwrap();
        assert!(text.lines().last().unwrap().contains("\"event\":\"repaired\",\"bytes\":12"));
        fs::remove_dir_all(path).unwrap();
    }
}
