//! A database is opened in a process of its own: this program, started anew for one request. Whoever writes the file
//! chooses what its key takes and what it unpacks to, and the parser panics on some of it; that ends the child and
//! nothing else. A request that goes away ends it too, in the midst of a derivation.
//!
//! The child is a copy of this program that nobody may read, and so undumpable from its first instruction. What it
//! opens the file with, and what it finds there, goes over a socket, which nobody else can open.

use super::super::{Fault, Listed, SshKey};
use super::database::{Key, Opened};
use super::tries::Attempt;
use keyloan_platform::process::limit_memory;
use keyloan_platform::program::{Group, set_apart};
use keyloan_platform::sealed::own_program;
use keyloan_protocol::limits;
use keyloan_protocol::reference::Reference;
use keyloan_protocol::secret::SecretBytes;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// What keyloand is started with for this.
pub(crate) const ARGUMENT: &str = "open-keepass";

/// All the memory of the child: what a key may take to derive, and as much to unpack and read what it opens.
const MEMORY: u64 = 2 * super::header::MEMORY;
const DEADLINE: Duration = Duration::from_secs(50);
/// The longest list of names that is taken from it, and one that is read on the loop which serves everybody.
const NAMES: usize = 8 * 1024 * 1024;
const AT_ONCE: usize = 64 * 1024;
/// The longest database that is written.
const WRITTEN: usize = 128 * 1024 * 1024;

#[derive(Serialize, Deserialize)]
pub(super) enum Act {
    Open,
    List,
    SshKeys,
    Read(Vec<Reference>),
    Write(Reference),
}

/// Followed by the bytes of the database, the password, the key file and the value to be written, as far as they are
/// there.
#[derive(Serialize, Deserialize)]
struct Order {
    act: Act,
    lengths: [Option<usize>; 4],
}

/// What was done once the database was open; followed by the bytes whose lengths it holds.
#[derive(Serialize, Deserialize)]
enum Done {
    Opened,
    Listed(Vec<Listed>),
    SshKeys(Vec<SshKey>),
    Read(Vec<Result<usize, Fault>>),
    Written(usize),
    Not(Fault),
}

/// The same with the bytes themselves.
pub(super) enum Said {
    Opened,
    Listed(Vec<Listed>),
    SshKeys(Vec<SshKey>),
    Read(Vec<Result<SecretBytes, Fault>>),
    Written(SecretBytes),
    Not(Fault),
}

/// Has a child do this. A fault is one of opening it.
pub(super) async fn ask(
    act: Act,
    database: &[u8],
    key: &Key,
    value: Option<&SecretBytes>,
    attempt: &Attempt<'_>,
) -> Result<Said, Fault> {
    let most = if matches!(act, Act::Write(_)) { WRITTEN } else { limits::FRAME };
    let broken = |error: io::Error| Fault::Broken(format!("no process to open it can be had: {error}"));
    let (child, mut stream) = start().map_err(broken)?;
    let _group = Group(child.id());
    let mut running = Running { child, attempt, is_over: false };
    let parts = [
        Some(database),
        key.password.as_ref().map(SecretBytes::expose),
        key.keyfile.as_ref().map(SecretBytes::expose),
        value.map(SecretBytes::expose),
    ];
    let order = Order { act, lengths: parts.map(|part| part.map(<[u8]>::len)) };
    let order = serde_json::to_vec(&order).map_err(|error| broken(error.into()))?;
    let doing = async {
        stream.write_u32_le(u32::try_from(order.len()).unwrap_or(u32::MAX)).await?;
        stream.write_all(&order).await?;
        for part in parts.into_iter().flatten() {
            stream.write_all(part).await?;
        }
        said(&mut stream, most).await
    };
    let done = timeout(DEADLINE, doing).await;
    running.is_over = true;
    match done {
        Ok(Ok(said)) => said,
        // Not waited for: it may be writing what nobody reads, and is ended with this.
        Ok(Err(_)) => {
            Err(Fault::Broken("its file is damaged, or there is more in it than keyloan unpacks".to_owned()))
        }
        Err(_) => Err(Fault::Refused(format!("it takes longer than {} s to open", DEADLINE.as_secs()))),
    }
}

/// A child. Where whoever asked leaves before it has ended, nobody has been told anything, and it is no failure.
struct Running<'a> {
    child: tokio::process::Child,
    attempt: &'a Attempt<'a>,
    is_over: bool,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.is_over && matches!(self.child.try_wait(), Ok(None)) {
            self.attempt.take_back();
        }
    }
}

async fn said(stream: &mut UnixStream, most: usize) -> io::Result<Result<Said, Fault>> {
    let length = stream.read_u32_le().await? as usize;
    if length > NAMES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut header = vec![0; length];
    stream.read_exact(&mut header).await?;
    let parse = move || serde_json::from_slice::<Result<Done, Fault>>(&header);
    let done = if length > AT_ONCE { tokio::task::spawn_blocking(parse).await? } else { parse() }?;
    let mut left = most;
    Ok(match done {
        Err(fault) => Err(fault),
        Ok(Done::Opened) => Ok(Said::Opened),
        Ok(Done::Listed(listed)) => Ok(Said::Listed(listed)),
        Ok(Done::SshKeys(keys)) => Ok(Said::SshKeys(keys)),
        Ok(Done::Not(fault)) => Ok(Said::Not(fault)),
        Ok(Done::Written(length)) => Ok(Said::Written(bytes(stream, length, &mut left).await?)),
        Ok(Done::Read(lengths)) => {
            let mut read = Vec::with_capacity(lengths.len());
            for length in lengths {
                read.push(match length {
                    Ok(length) => Ok(bytes(stream, length, &mut left).await?),
                    Err(fault) => Err(fault),
                });
            }
            Ok(Said::Read(read))
        }
    })
}

async fn bytes(stream: &mut UnixStream, length: usize, left: &mut usize) -> io::Result<SecretBytes> {
    *left = left.checked_sub(length).ok_or(io::ErrorKind::InvalidData)?;
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    Ok(SecretBytes::new(bytes))
}

#[expect(clippy::disallowed_methods, reason = "the spawner of what opens databases")]
fn start() -> io::Result<(tokio::process::Child, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    let theirs = theirs.into_std()?;
    theirs.set_nonblocking(false)?;
    let theirs = OwnedFd::from(theirs);
    let mut command = std::process::Command::new(own_program()?);
    // Each thread of a derivation would have a heap of its own, and that much less of the memory.
    command.arg(ARGUMENT).env_clear().env("MALLOC_ARENA_MAX", "1").current_dir("/");
    command.stdin(Stdio::from(theirs.try_clone()?)).stdout(Stdio::from(theirs)).stderr(Stdio::null());
    set_apart(&mut command);
    Ok((tokio::process::Command::from(command).kill_on_drop(true).spawn()?, ours))
}

/// The child: does what its standard input says.
pub(crate) fn serve() -> io::Result<()> {
    limit_memory(MEMORY)?;
    let mut socket = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let order: Order =
        serde_json::from_slice(part(&mut socket, u32::from_le_bytes(length) as usize)?.expose())?;
    let mut parts = [None, None, None, None];
    for (place, length) in parts.iter_mut().zip(order.lengths) {
        *place = length.map(|length| part(&mut socket, length)).transpose()?;
    }
    let [database, password, keyfile, value] = parts;
    let database = database.ok_or(io::ErrorKind::InvalidData)?;
    let key = Key { password, keyfile };
    let (done, values) = match done(order.act, database.expose(), key, value) {
        Ok((done, values)) => (Ok(done), values),
        Err(fault) => (Err(fault), Vec::new()),
    };
    let header = serde_json::to_vec(&done)?;
    socket.write_all(&u32::try_from(header.len()).unwrap_or(u32::MAX).to_le_bytes())?;
    socket.write_all(&header)?;
    values.iter().try_for_each(|value| socket.write_all(value.expose()))
}

fn part(from: &mut File, length: usize) -> io::Result<SecretBytes> {
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    Ok(SecretBytes::new(bytes))
}

fn done(
    act: Act,
    database: &[u8],
    key: Key,
    value: Option<SecretBytes>,
) -> Result<(Done, Vec<SecretBytes>), Fault> {
    let again = key.copy();
    let opened = Opened::read(database, key)?;
    Ok(match act {
        Act::Open => (Done::Opened, Vec::new()),
        Act::List => (Done::Listed(opened.list()), Vec::new()),
        Act::SshKeys => (Done::SshKeys(opened.ssh_keys()), Vec::new()),
        Act::Read(wanted) => {
            let (mut lengths, mut values) = (Vec::with_capacity(wanted.len()), Vec::new());
            let (paths, mut left) = (opened.paths(), limits::FRAME);
            for reference in &wanted {
                lengths.push(opened.field_among(&paths, reference).and_then(|value| {
                    let length = value.len();
                    left = left.checked_sub(length).filter(|_| length <= limits::FIELD_VALUE).ok_or_else(
                        || {
                            Fault::Refused(format!(
                                "{reference} has {length} bytes; a value has at most 1 MiB, and all 8"
                            ))
                        },
                    )?;
                    values.push(value);
                    Ok(length)
                }));
            }
            (Done::Read(lengths), values)
        }
        Act::Write(at) => {
            let value = value.unwrap_or_else(|| SecretBytes::new(Vec::new()));
            match opened.with_field(&at, &value, database, again) {
                Ok(new) => (Done::Written(new.len()), vec![SecretBytes::new(new)]),
                Err(fault) => (Done::Not(fault), Vec::new()),
            }
        }
    })
}
