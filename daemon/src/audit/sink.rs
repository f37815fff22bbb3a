//! Writes the log. Invariants: a record is appended whole or not at all; each carries the chain value over
//! all before it, keyed from the vault while that is open; after a failure that could not be undone nothing
//! more is accepted.

use super::backwards::backwards;
use super::event::Event;
use crate::clock;
use crate::vault::local::keys::{Digest, mac};
use data_encoding::HEXLOWER;
use keyloan_platform::private_file::{Directory, FileError};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use tokio::sync::watch;

const NAME: &str = "audit.jsonl";

/// The longest record. Names are bounded, so a longer line is none of ours.
pub(crate) const RECORD: usize = 1024 * 1024;

/// Room for the chain value that ends a record.
const CHAIN: usize = 128;

#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error("{0}")]
    File(#[from] FileError),
    #[error("{}: {cause}", path.display())]
    Write { path: PathBuf, cause: io::Error },
    #[error("{}: an earlier write failed and could not be undone", .0.display())]
    Broken(PathBuf),
    #[error("{}: its last record is none of keyloan's", .0.display())]
    Foreign(PathBuf),
    #[error("{}: it was removed or replaced while in use; begin anew with: keyloan daemon stop", .0.display())]
    Replaced(PathBuf),
    #[error("{}: another program wrote to it; look at it with: keyloan log --verify", .0.display())]
    Altered(PathBuf),
}

/// When a record must be on disk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durable {
    /// Before anything follows from it: whenever a human was asked.
    Now,
    /// Within a second: under an allow rule.
    Soon,
}

pub(crate) struct Sink {
    directory: Directory,
    file: File,
    path: PathBuf,
    sequence: u64,
    chain: Digest,
    /// The vault's counter of changes as last seen, carried by every record.
    counter: u64,
    /// The first record written without the key, since the last with it.
    unkeyed_from: Option<u64>,
    length: u64,
    broken: bool,
    unsynced: bool,
    written: watch::Sender<u64>,
}

/// The frame of every record; the event's own fields follow.
#[derive(Serialize)]
struct Line<'a> {
    seq: u64,
    time: &'a str,
    counter: u64,
    keyed: bool,
    #[serde(flatten)]
    event: &'a Event,
}

/// What is read back of a record.
#[derive(Deserialize)]
pub(crate) struct Head {
    pub(crate) seq: u64,
    #[serde(default)]
    pub(crate) counter: u64,
    pub(crate) keyed: bool,
    pub(crate) chain: String,
}

impl Sink {
    pub(crate) fn open(directory: Directory) -> Result<Self, LogError> {
        let path = directory.path().join(NAME);
        let mut file = directory.append(NAME)?;
        let failed = |cause| LogError::Write { path: path.clone(), cause };
        let whole = file.seek(SeekFrom::End(0)).map_err(failed)?;
        let (length, last) = last_record(&mut file, whole).map_err(failed)?;
        let mut sink = Self {
            directory,
            file,
            sequence: 0,
            chain: [0; 32],
            counter: 0,
            unkeyed_from: None,
            length,
            broken: false,
            unsynced: false,
            written: watch::Sender::new(length),
            path,
        };
        if let Some(last) = last {
            let foreign = || LogError::Foreign(sink.path.clone());
            let head: Head = serde_json::from_slice(&last).map_err(|_| foreign())?;
            let chain = HEXLOWER.decode(head.chain.as_bytes()).map_err(|_| foreign())?;
            sink.chain = chain.try_into().map_err(|_| foreign())?;
            sink.sequence = head.seq;
            sink.counter = head.counter;
            sink.unkeyed_from = sink.first_unkeyed()?;
        }
        if whole > length {
            let failed = |cause| LogError::Write { path: sink.path.clone(), cause };
            sink.file.set_len(length).map_err(failed)?;
            sink.append(&Event::Repaired { bytes: whole - length }, Durable::Now, None)?;
        }
        Ok(sink)
    }

    /// Gives the log another name, which is returned.
    pub(crate) fn put_aside(directory: &Directory, now: &str) -> Result<String, LogError> {
        let aside = format!("audit-until-{}.jsonl", now.replace(':', ""));
        let failed = |cause| LogError::Write { path: directory.path().join(NAME), cause };
        nix::fcntl::renameat(directory.descriptor(), NAME, directory.descriptor(), aside.as_str())
            .map_err(|error| failed(error.into()))?;
        directory.sync()?;
        Ok(aside)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn works(&self) -> bool {
        !self.broken && self.check().is_ok()
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(crate) fn chain(&self) -> String {
        HEXLOWER.encode(&self.chain)
    }

    /// The highest counter the log has seen of the vault, 0 for none.
    pub(crate) fn remembered(&self) -> u64 {
        self.counter
    }

    /// Vouches for what was written without the key.
    pub(crate) fn adopt(&mut self, key: &[u8]) -> Result<(), LogError> {
        let Some(from) = self.unkeyed_from else { return Ok(()) };
        self.append(&Event::Adopted { from, to: self.sequence }, Durable::Soon, Some(key))?;
        self.unkeyed_from = None;
        Ok(())
    }

    /// The chain value that a record carries; `None` where the log has no such record.
    pub(crate) fn chain_at(&self, sequence: u64) -> Result<Option<String>, LogError> {
        let mut found = None;
        self.look_back(|head| {
            if head.seq == sequence {
                found = Some(head.chain);
                return false;
            }
            head.seq > sequence
        })?;
        Ok(found)
    }

    /// The first of the records at the end that were written without the key.
    fn first_unkeyed(&self) -> Result<Option<u64>, LogError> {
        let mut first = None;
        self.look_back(|head| {
            if !head.keyed {
                first = Some(head.seq);
            }
            !head.keyed
        })?;
        Ok(first)
    }

    /// Shows the records from the last one back. What is none of keyloan's is `verify`'s to find.
    fn look_back(&self, mut look: impl FnMut(Head) -> bool) -> Result<(), LogError> {
        backwards(&self.file, self.length, |line| serde_json::from_slice(line).map_or(true, &mut look))
            .map_err(|cause| LogError::Write { path: self.path.clone(), cause })
    }

    /// Makes sure that all of it is on disk.
    pub(crate) fn sync(&mut self) -> Result<(), LogError> {
        self.file.sync_data().map_err(|cause| {
            self.distrust();
            LogError::Write { path: self.path.clone(), cause }
        })
    }

    /// A new vault begins to count anew.
    pub(crate) fn set_counter(&mut self, counter: u64) {
        self.counter = counter;
    }

    pub(crate) fn saw_counter(&mut self, counter: u64) {
        self.counter = self.counter.max(counter);
    }

    /// Appends a record, keyed where the vault's key is at hand.
    pub(crate) fn append(
        &mut self,
        event: &Event,
        durable: Durable,
        key: Option<&[u8]>,
    ) -> Result<(), LogError> {
        self.append_all(&[event], durable, key)
    }

    /// Appends records in one write: all of them or none.
    pub(crate) fn append_all(
        &mut self,
        events: &[&Event],
        durable: Durable,
        key: Option<&[u8]>,
    ) -> Result<(), LogError> {
        if self.broken {
            return Err(LogError::Broken(self.path.clone()));
        }
        self.check()?;
        let failed = |path: &Path, cause| LogError::Write { path: path.to_owned(), cause };
        let time = clock::now();
        let (mut bytes, mut chain, mut sequence) = (Vec::with_capacity(1024), self.chain, self.sequence);
        for event in events {
            sequence += 1;
            let line =
                Line { seq: sequence, time: &time, counter: self.counter, keyed: key.is_some(), event };
            let body = serde_json::to_vec(&line).map_err(|error| failed(&self.path, error.into()))?;
            // What could not be read back must not be written.
            if body.len() > RECORD - CHAIN {
                return Err(failed(&self.path, io::ErrorKind::FileTooLarge.into()));
            }
            chain = chain_value(key, &chain, &body);
            bytes.extend_from_slice(body.strip_suffix(b"}").unwrap_or(&body));
            bytes.extend_from_slice(format!(",\"chain\":\"{}\"}}\n", HEXLOWER.encode(&chain)).as_bytes());
        }
        let written = self.file.write_all(&bytes).and_then(|()| match durable {
            Durable::Now => self.file.sync_data(),
            Durable::Soon => Ok(()),
        });
        if let Err(cause) = written {
            // Part of the record may be there. Where it cannot be taken away again, the next would follow a
            // torn line, so none is taken.
            self.broken = self.file.set_len(self.length).is_err();
            return Err(failed(&self.path, cause));
        }
        self.unsynced = durable == Durable::Soon;
        self.length += bytes.len() as u64;
        if key.is_none() {
            self.unkeyed_from = self.unkeyed_from.or(Some(self.sequence + 1));
        }
        self.sequence = sequence;
        self.chain = chain;
        self.written.send_replace(self.length);
        Ok(())
    }

    /// A descriptor to sync elsewhere, where something waits for it.
    pub(crate) fn unsynced(&mut self) -> Option<File> {
        let file = if self.unsynced { self.file.try_clone().ok() } else { None };
        self.unsynced &= file.is_none();
        file
    }

    /// After a failed sync nobody knows what is on disk, and a second one may say that all is well
    /// (fsync(2)): nothing more is accepted.
    pub(crate) fn distrust(&mut self) {
        self.broken = true;
    }

    /// The file is the one that was opened, and nobody else has written to it.
    fn check(&self) -> Result<(), LogError> {
        if self.length_in_place()? == self.length {
            Ok(())
        } else {
            Err(LogError::Altered(self.path.clone()))
        }
    }

    /// Whoever replaces the file takes the log away without touching a record of it.
    fn length_in_place(&self) -> Result<u64, LogError> {
        let found = self.directory.length_in_place(NAME, &self.file);
        found.ok_or_else(|| LogError::Replaced(self.path.clone()))
    }

    /// Another descriptor of the log and the news of its length.
    pub(crate) fn reader(&self) -> Result<(Reader, watch::Receiver<u64>), LogError> {
        self.length_in_place()?;
        let failed = |cause| LogError::Write { path: self.path.clone(), cause };
        let file = self.file.try_clone().map_err(failed)?;
        Ok((Reader { file, at: 0, path: self.path.clone() }, self.written.subscribe()))
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// What is there now, whoever wrote it: for a check of the log that must not refuse to look at it.
    pub(crate) fn length_on_disk(&self) -> u64 {
        self.file.metadata().map_or(self.length, |found| found.len())
    }
}

/// Reads whole lines up to a length, from the beginning, a bounded piece at a time.
pub(crate) struct Reader {
    file: File,
    at: u64,
    path: PathBuf,
}

impl Reader {
    const PIECE: usize = 256 * 1024;

    /// The next lines before `end`; empty when there are none.
    pub(crate) fn lines(&mut self, end: u64) -> Result<Vec<u8>, LogError> {
        use std::os::unix::fs::FileExt;
        let failed = |path: &Path, cause| LogError::Write { path: path.to_owned(), cause };
        let left = usize::try_from(end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        if left == 0 {
            return Ok(Vec::new());
        }
        let mut piece = vec![0; left.min(Self::PIECE)];
        loop {
            let read = self.file.read_at(&mut piece, self.at).map_err(|error| failed(&self.path, error))?;
            let cut = read < piece.len();
            piece.truncate(read);
            if let Some(last) = piece.iter().rposition(|byte| *byte == b'\n') {
                piece.truncate(last + 1);
                self.at += piece.len() as u64;
                return Ok(piece);
            }
            // Up to `end` there were whole lines; where there are none now, the file is another than it was.
            if cut || piece.len() >= left {
                return Err(LogError::Altered(self.path.clone()));
            }
            if piece.len() > RECORD {
                return Err(LogError::Foreign(self.path.clone()));
            }
            let longer = (piece.len() * 2).min(left);
            piece.resize(longer, 0);
        }
    }
}

/// The value a record's chain field must hold.
pub(crate) fn chain_value(key: Option<&[u8]>, previous: &Digest, body: &[u8]) -> Digest {
    match key {
        Some(key) => mac(key, &[b"keyloan audit v1", previous, body]),
        None => Sha256::new()
            .chain_update(b"keyloan audit unkeyed v1")
            .chain_update(previous)
            .chain_update(body)
            .finalize()
            .into(),
    }
}

/// Where the last whole record ends, and that record.
fn last_record(file: &mut File, whole: u64) -> io::Result<(u64, Option<Vec<u8>>)> {
    let window = whole.min(2 * RECORD as u64);
    file.seek(SeekFrom::Start(whole - window))?;
    let mut bytes = Vec::new();
    file.take(window).read_to_end(&mut bytes)?;
    let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else { return Ok((whole - window, None)) };
    let start = bytes[..end].iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    Ok((whole - window + end as u64 + 1, Some(bytes[start..end].to_vec())))
}
