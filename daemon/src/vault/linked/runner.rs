//! Running a vault's program: by its pinned path, in an environment of the kind's own making, without a terminal, in a
//! session of its own, for a time. What it prints is read into buffers that are wiped, up to a limit. It ends with
//! whatever wanted it, and so does all that it started.
//!
//! Its output goes over pipes, since some programs take no socket there. A program of the same user could open such a
//! pipe, and could as well trace whoever holds it.

use super::Fault;
use super::pinned::Pinned;
use keyloan_platform::program::{Group, set_apart};
use keyloan_protocol::secret::SecretBytes;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use zeroize::Zeroizing;

/// Where programs that a vault's program starts are looked for: root's directories.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The most that is read of what it says besides; what is kept of that is for the kind to look at, never to show.
const ERRORS: usize = 256 * 1024;

/// The same of a program that stays.
const BEGINNING: usize = 16 * 1024;

/// For a program that has closed its end of everything to be gone.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Read at once.
const PIECE: usize = 64 * 1024;

/// What is to be run.
pub(super) struct Order<'a> {
    pub(super) program: &'a Pinned,
    pub(super) arguments: Vec<OsString>,
    /// All that the environment holds besides `HOME`, `PATH`, `LANG` and `PYTHONNOUSERSITE`.
    pub(super) variables: Vec<(&'a str, OsString)>,
    /// Its standard input; without one `/dev/null`.
    pub(super) input: Option<&'a SecretBytes>,
    /// The longest output.
    pub(super) most: usize,
    pub(super) deadline: Duration,
}

/// How it ended.
pub(super) struct Ended {
    /// The status it ended with.
    pub(super) status: i32,
    pub(super) output: SecretBytes,
    pub(super) errors: SecretBytes,
}

impl Order<'_> {
    /// Runs it to its end. A status other than 0 is no fault yet: the kind knows what it means.
    pub(super) async fn run(self) -> Result<Ended, Fault> {
        self.program.check().await?;
        let path = self.program.path.display().to_string();
        let broken = |cause: String| Fault::Broken(format!("{path} {cause}"));
        let mut child = self.start().map_err(|error| broken(format!("cannot be started: {error}")))?;
        let _group = Group(child.id());
        let (Some(output), Some(errors)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(broken("has no output".to_owned()));
        };
        let input = child.stdin.take();
        let spoken = async {
            let spoken =
                tokio::try_join!(feed(input, self.input), whole(output, self.most), whole(errors, ERRORS));
            let ((), output, errors) = spoken.map_err(|cause| match cause {
                Unread::TooMuch(most) => broken(format!("printed more than {} KiB", most / 1024)),
                Unread::Io(error) => broken(format!("cannot be heard: {error}")),
            })?;
            let status = child.wait().await.map_err(|error| broken(format!("is lost: {error}")))?;
            match (status.code(), status.signal()) {
                (Some(status), _) => Ok(Ended { status, output, errors }),
                (None, signal) => Err(broken(format!("died of signal {}", signal.unwrap_or_default()))),
            }
        };
        let late =
            || Fault::Unreachable(format!("{path} did not answer within {} s", self.deadline.as_secs()));
        timeout(self.deadline, spoken).await.unwrap_or_else(|_| Err(late()))
    }

    fn start(&self) -> io::Result<Child> {
        let mut command = self.command();
        command.stdin(if self.input.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        tokio::process::Command::from(command).kill_on_drop(true).spawn()
    }

    #[expect(clippy::disallowed_methods, reason = "the spawner of vault programs")]
    fn command(&self) -> std::process::Command {
        let mut command = std::process::Command::new(&self.program.path);
        command.args(&self.arguments).env_clear().env("PATH", PATH).env("LANG", "C.UTF-8");
        // What a script of Python's loads from the user's own packages is nobody's pin.
        command.env("PYTHONNOUSERSITE", "1");
        if let Some(home) = &self.program.home {
            command.env("HOME", home);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value))).current_dir("/");
        set_apart(&mut command);
        command
    }

    /// Starts it to stay, with this as its standard input. What it says on standard output goes nowhere.
    pub(super) async fn keep(self, input: OwnedFd) -> Result<Kept, Fault> {
        self.program.check().await?;
        let mut command = self.command();
        command.stdin(Stdio::from(input)).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = tokio::process::Command::from(command).kill_on_drop(true).spawn();
        let path = self.program.path.display();
        let mut child = child.map_err(|error| Fault::Broken(format!("{path} cannot be started: {error}")))?;
        let group = Group(child.id());
        let errors = child.stderr.take();
        let said = tokio::task::spawn_local(async move {
            match errors {
                Some(errors) => beginning(errors).await,
                None => SecretBytes::copy_of(b""),
            }
        });
        Ok(Kept { child, said, _group: group })
    }
}

/// A program that stays until this is dropped, and then ends with all that it started.
pub(super) struct Kept {
    child: Child,
    said: JoinHandle<SecretBytes>,
    _group: Group,
}

impl Kept {
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// The status that it ended with and the beginning of what it said, where it has ended or does now. Its output is for
    /// the kind to look at, never to show.
    pub(super) async fn ended(mut self) -> Option<(Option<i32>, SecretBytes)> {
        let status = timeout(LAST_WORDS, self.child.wait()).await.ok()?.ok()?;
        let said = timeout(LAST_WORDS, &mut self.said).await.ok()?.ok()?;
        Some((status.code(), said))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.said.abort();
    }
}

/// The first of what is said; the rest is heard, so that nobody waits for a reader, and forgotten.
async fn beginning(mut from: impl AsyncRead + Unpin) -> SecretBytes {
    let mut kept = Zeroizing::new(Vec::with_capacity(BEGINNING));
    let mut piece = Zeroizing::new(vec![0; BEGINNING]);
    while let Ok(read) = from.read(&mut piece).await {
        if read == 0 {
            break;
        }
        let wanted = read.min(BEGINNING - kept.len());
        kept.extend_from_slice(&piece[..wanted]);
    }
    SecretBytes::copy_of(&kept)
}

enum Unread {
    TooMuch(usize),
    Io(io::Error),
}

/// A program may answer without having read; that is no failure.
async fn feed(to: Option<ChildStdin>, input: Option<&SecretBytes>) -> Result<(), Unread> {
    if let (Some(mut to), Some(input)) = (to, input) {
        let _ = to.write_all(input.expose()).await;
        let _ = to.shutdown().await;
    }
    Ok(())
}

/// All that is said, in pieces that are wiped, put together once.
async fn whole(mut from: impl AsyncRead + Unpin, most: usize) -> Result<SecretBytes, Unread> {
    let mut pieces: Vec<Zeroizing<Vec<u8>>> = Vec::new();
    let (mut length, mut filled) = (0, PIECE);
    loop {
        if filled == PIECE {
            pieces.push(Zeroizing::new(vec![0; PIECE]));
            filled = 0;
        }
        let Some(piece) = pieces.last_mut() else { continue };
        match from.read(&mut piece[filled..]).await {
            Ok(0) => break,
            Ok(read) => {
                filled += read;
                length += read;
            }
            Err(error) => return Err(Unread::Io(error)),
        }
        if length > most {
            return Err(Unread::TooMuch(most));
        }
    }
    let mut all = Zeroizing::new(Vec::with_capacity(length));
    for piece in &pieces {
        let open = length - all.len();
        all.extend_from_slice(&piece[..open.min(PIECE)]);
    }
    Ok(SecretBytes::copy_of(&all))
}

/// Several that do not wait for one another.
pub(super) async fn together<T>(doing: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut doing: Vec<_> = doing.into_iter().map(Box::pin).collect();
    let mut done: Vec<Option<T>> = doing.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        let mut waiting = false;
        for (one, place) in doing.iter_mut().zip(&mut done).filter(|(_, place)| place.is_none()) {
            match one.as_mut().poll(context) {
                std::task::Poll::Ready(value) => *place = Some(value),
                std::task::Poll::Pending => waiting = true,
            }
        }
        if waiting { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    done.into_iter().flatten().collect()
}
