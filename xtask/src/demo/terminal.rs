//! A shell as a person has it: with a terminal of its own and a prompt, typed into by the demo and, where keyloan asks in
//! it and somebody is there, by that person.

use super::PATIENCE;
use crate::throwaway::Home;
use anyhow::{Context, Result, ensure};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Stdio};
use std::time::Instant;

const SIZE: Winsize = Winsize { ws_row: 40, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };

pub(super) struct Shell {
    pub(super) name: &'static str,
    terminal: File,
    process: Child,
    /// What stands before the cursor.
    prompt: String,
}

impl Shell {
    /// Its prompt must end with its name and `> `.
    pub(super) fn open(home: &Home, name: &'static str) -> Result<Self> {
        let pty = openpty(&SIZE, None).context("cannot open a pseudo terminal")?;
        for end in [&pty.master, &pty.slave] {
            // Whoever else has it keeps the shell from noticing that its terminal is gone.
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        }
        let end = || Ok::<_, io::Error>(Stdio::from(OwnedFd::try_clone(&pty.slave)?));
        let mut command = home.command("setsid");
        // No colours, and no line that is drawn anew: what it shows can be read in a log.
        command.args(["--ctty", name, "-i"]).env("TERM", "dumb");
        let process = command.stdin(end()?).stdout(end()?).stderr(end()?).spawn();
        let process = process.with_context(|| format!("cannot start {name} by setsid"))?;
        let mut shell = Self { name, terminal: File::from(pty.master), process, prompt: String::new() };
        shell.until_prompt(|_| false, false)?;
        Ok(shell)
    }

    /// Types a line and prints what the shell shows until its next prompt, which must hold what is expected. With
    /// `answered` the person at the demo's own terminal types, too.
    pub(super) fn run(&mut self, line: &str, answered: bool, expected: &str) -> Result<()> {
        let before = self.prompt.clone();
        if answered {
            print!("{before}");
            io::stdout().flush()?;
        }
        self.terminal.write_all(format!("{line}\r").as_bytes())?;
        let shown = self.until_prompt(|shown| shown.contains(&b'\n'), answered)?;
        let shown = plain(&[before.as_bytes(), &shown].concat());
        if answered {
            // The new prompt is printed with the next line.
            print!("\r{:1$}\r", "", self.prompt.len());
            io::stdout().flush()?;
        } else {
            for line in &shown[..shown.len() - 1] {
                println!("{line}");
            }
        }
        let found = shown[1..].iter().any(|line| line == expected);
        ensure!(found, "{} did not show '{expected}' after `{line}`", self.name);
        Ok(())
    }

    fn until_prompt(&mut self, begun: impl Fn(&[u8]) -> bool, answered: bool) -> Result<Vec<u8>> {
        let _raw = if answered { Some(Raw::new()?) } else { None };
        let prompt = format!("{}> ", self.name);
        let mut shown = Vec::new();
        let start = Instant::now();
        loop {
            let last = plain(&shown).pop().unwrap_or_default();
            if last.ends_with(&prompt) && (begun(&shown) || self.prompt.is_empty()) {
                self.prompt = last;
                return Ok(shown);
            }
            ensure!(answered || start.elapsed() < PATIENCE, "{} showed no prompt: {last}", self.name);
            let (screen, keys) = self.ready(answered)?;
            let mut bytes = [0; 4096];
            if screen {
                let count = self.terminal.read(&mut bytes).unwrap_or_default();
                ensure!(count > 0, "{} ended", self.name);
                shown.extend_from_slice(&bytes[..count]);
                if answered {
                    io::stdout().write_all(&bytes[..count])?;
                    io::stdout().flush()?;
                }
            }
            if keys {
                let count = nix::unistd::read(io::stdin(), &mut bytes)?;
                ensure!(count > 0, "the terminal is gone");
                self.terminal.write_all(&bytes[..count])?;
                bytes.fill(0);
            }
        }
    }

    /// Whether the shell shows something, and whether the person has typed something.
    fn ready(&self, answered: bool) -> Result<(bool, bool)> {
        let stdin = io::stdin();
        let mut all = vec![PollFd::new(self.terminal.as_fd(), PollFlags::POLLIN)];
        if answered {
            all.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        poll(&mut all, PollTimeout::from(100_u8))?;
        let any = |at: usize| all.get(at).and_then(PollFd::any).unwrap_or(false);
        Ok((any(0), any(1)))
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // Both fail where it has ended already, which is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Keys go on as they come; whatever ends this, the terminal is as before.
struct Raw(Termios);

impl Raw {
    fn new() -> Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(io::stdin(), SetArg::TCSADRAIN, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.0);
    }
}

/// The lines as they stand on the screen in the end: without escape sequences, and without what was written over.
fn plain(shown: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(shown);
    let mut lines = Vec::new();
    for line in text.split('\n') {
        let mut seen = String::new();
        let mut rest = line.chars();
        while let Some(letter) = rest.next() {
            match letter {
                '\u{1b}' => {
                    // ESC [ parameters letter, which is all that a terminal without abilities is sent.
                    rest.next();
                    rest.by_ref().find(char::is_ascii_alphabetic);
                }
                _ => seen.push(letter),
            }
        }
        let seen = seen.trim_end_matches('\r');
        lines.push(seen.rsplit('\r').next().unwrap_or_default().to_owned());
    }
    lines
}
