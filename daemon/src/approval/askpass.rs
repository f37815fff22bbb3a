//! Asking by a program in the way of `SSH_ASKPASS`: it gets the whole question as its one argument and prints what
//! was typed. A sealed copy of the bytes that were hashed runs, which no other program of the user can trace where it
//! is a binary; only the daemon judges what was typed. Its argument can be read by every user of the machine, as any.

use super::No;
use super::assuan;
use super::child::Group;
use super::pinentry::Desktop;
use super::program::{self, ProgramError};
use super::question::Question;
use super::terminal::SETTLE;
use crate::clock;
use crate::policy::rule::ApproverProgram;
use keyloan_protocol::limits;
use keyloan_protocol::secret::SecretBytes;
use std::ffi::OsString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use zeroize::Zeroizing;

/// A program that asks on the desktop of the last unlock.
pub(crate) struct Askpass {
    program: ApproverProgram,
    desktop: Desktop,
    text: String,
    remark: &'static str,
}

impl Askpass {
    pub(super) fn new(program: ApproverProgram, desktop: Desktop) -> Self {
        Self { program, desktop, text: String::new(), remark: "" }
    }

    /// The question is asked with [`Self::typed`]. There is one page, and none to turn.
    pub(super) fn show(&mut self, question: &Question) -> Result<(), No> {
        let mut pages = question.pages(assuan::room("SETDESC") * 2, str::len);
        match (pages.pop(), pages.is_empty()) {
            (Some(page), true) => self.text = page,
            _ => {
                return Err(No::Unshowable(
                    "it is longer than the one page of an askpass program".to_owned(),
                ));
            }
        }
        Ok(())
    }

    /// What was typed; without anything it is a no. What is typed before a person can have read the question does not
    /// count: it is asked once more, and then it is a no.
    pub(super) async fn typed(&self) -> Result<SecretBytes, No> {
        for _ in 0..2 {
            let shown = clock::since_boot();
            let typed = self.ask().await.map_err(|cause| No::Askpass { path: self.path(), cause })?;
            if clock::since_boot().saturating_sub(shown) >= SETTLE {
                return typed.filter(|typed| !typed.is_empty()).ok_or(No::Declined);
            }
        }
        Err(No::Declined)
    }

    /// Said when it asks again.
    pub(super) fn say(&mut self, remark: &'static str) {
        self.remark = remark;
    }

    /// For people: "a window of /usr/bin/ssh-askpass on display :0".
    pub(crate) fn name(&self) -> String {
        format!("a window of {} on {}", self.path(), self.desktop.name)
    }

    fn path(&self) -> String {
        self.program.path.display().to_string()
    }

    async fn ask(&self) -> Result<Option<SecretBytes>, ProgramError> {
        let between = if self.remark.is_empty() { "" } else { "\n\n" };
        let text = format!("{}{between}{}\n\nPIN to allow, nothing to decline:", self.text, self.remark);
        let arguments = [OsString::from(text)];
        let started = program::started(&self.program, &arguments, self.desktop.variables()).await;
        let (mut child, mut channel) = started?;
        let _group = Group(child.id());
        let _ = channel.shutdown().await;
        let printed = printed(&mut channel).await?;
        // However it ended: what it printed is an answer only where it says so itself.
        let is_answer = child.wait().await.is_ok_and(|status| status.success());
        Ok(is_answer.then_some(printed))
    }
}

/// The first line of what is printed, as ssh takes it.
async fn printed(channel: &mut UnixStream) -> Result<SecretBytes, ProgramError> {
    // Made once at its full size: growing would leave copies behind.
    let mut held = Zeroizing::new(vec![0; limits::PASSPHRASE + 2]);
    let mut filled = 0;
    loop {
        match channel.read(&mut held[filled..]).await {
            Ok(0) if filled == held.len() => return Err(ProgramError::Long),
            Ok(0) => break,
            Ok(read) => filled += read,
            // What ends the answer of a program that left its input unread, unix(7).
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => return Err(ProgramError::Read(error)),
        }
    }
    let line = held[..filled].split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    Ok(SecretBytes::copy_of(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn printing(said: &[u8]) -> Result<SecretBytes, ProgramError> {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(said).await.unwrap();
        drop(theirs);
        printed(&mut ours).await
    }

    #[tokio::test]
    async fn what_is_typed_is_the_first_line() {
        for said in [b"4711\n".as_slice(), b"4711", b"4711\r\nmore\n", b"4711\n\n"] {
            assert_eq!(printing(said).await.unwrap().expose(), b"4711");
        }
        assert!(printing(b"\n4711\n").await.unwrap().is_empty());
        assert!(printing(b"").await.unwrap().is_empty());
        assert!(printing(&[b'1'; limits::PASSPHRASE]).await.is_ok());
        assert!(matches!(printing(&[b'1'; limits::PASSPHRASE + 2]).await, Err(ProgramError::Long)));
    }
}
