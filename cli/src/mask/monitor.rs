//! The leader of the command's session. It makes the pseudo terminal the session's own, starts the command in a
//! process group of its own, so that it can be stopped and continued, and tells the relay what becomes of it.
//! When the relay is gone the terminal is, and the command hears SIGHUP, as from any terminal that goes.

use super::command::{Command, Standard};
use crate::output;
use keyloan_platform::descriptors;
use keyloan_platform::pty;
use keyloan_platform::signals::{
    self, Blocked, Change, SIGCHLD, SIGCONT, SIGHUP, SIGTSTP, SIGTTIN, SIGTTOU, Signals,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Pid, getpgid, getpgrp, setpgid, setsid, tcsetpgrp};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// What the relay asks of the monitor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// A signal for the command alone.
    Signal(i32),
    /// A signal for its process group, as from the terminal.
    SignalGroup(i32),
    /// Goes on, with the terminal or without.
    Continue { foreground: bool },
}

/// One order or report is two bytes, which a socket never parts.
pub(super) type Letter = [u8; 2];

impl Order {
    pub(super) fn letter(self) -> Letter {
        match self {
            Self::Signal(signal) => [b's', number(signal)],
            Self::SignalGroup(signal) => [b'g', number(signal)],
            Self::Continue { foreground } => [b'c', foreground.into()],
        }
    }

    fn read(letter: Letter) -> Self {
        match letter {
            [b's', signal] => Self::Signal(signal.into()),
            [b'g', signal] => Self::SignalGroup(signal.into()),
            [_, foreground] => Self::Continue { foreground: foreground == 1 },
        }
    }
}

pub(super) fn report(change: Change) -> Letter {
    match change {
        Change::Exited(status) => [b'e', status],
        Change::Killed(signal) => [b'k', number(signal)],
        Change::Stopped(signal) => [b't', number(signal)],
    }
}

pub(super) fn read_report(letter: Letter) -> Change {
    match letter {
        [b'e', status] => Change::Exited(status),
        [b'k', signal] => Change::Killed(signal.into()),
        [_, signal] => Change::Stopped(signal.into()),
    }
}

fn number(signal: i32) -> u8 {
    u8::try_from(signal).unwrap_or(0)
}

struct Monitor {
    command: Pid,
    terminal: OwnedFd,
    relay: UnixStream,
    signals: Signals,
}

/// In the child that the relay forked, with all signals blocked and the dispositions as keyloan found them.
pub(super) fn run(
    command: Command,
    standard: Standard,
    terminal: OwnedFd,
    relay: UnixStream,
    begin: (bool, Blocked),
) -> ! {
    match start(command, standard, terminal, relay, begin) {
        Ok(mut monitor) => monitor.watch(),
        Err(error) => output::note(&format!("cannot start the command: {error}")),
    }
    pty::end(0)
}

fn start(
    command: Command,
    standard: Standard,
    terminal: OwnedFd,
    relay: UnixStream,
    (foreground, blocked): (bool, Blocked),
) -> io::Result<Monitor> {
    setsid()?;
    pty::make_controlling(terminal.as_fd())?;
    // Who signals every process of this name has reached the relay, which passes it on.
    let signals = Signals::catch(&signals::for_others(&[SIGCHLD, SIGTSTP, SIGTTIN, SIGTTOU]))?;
    let Some(child) = pty::fork()? else {
        let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
        if foreground {
            // SIGTTOU is blocked, so that this does not stop us.
            let _ = tcsetpgrp(&terminal, getpgrp());
        }
        signals.restore();
        if !foreground {
            // A shell's command substitution ignores it; then reading the terminal would fail and not ask for it.
            let _ = signals::heed(SIGTTIN);
        }
        command.run(&standard, blocked);
    };
    // Whichever of the two comes first.
    let _ = setpgid(child, child);
    command.wipe();
    // Only the command is to keep the ends that it writes to, and what was inherited for it.
    drop((standard, blocked));
    descriptors::close_inheritable()?;
    signals::unblock_all()?;
    Ok(Monitor { command: child, terminal, relay, signals })
}

impl Monitor {
    fn watch(&mut self) {
        loop {
            let mut wanted = [
                PollFd::new(self.relay.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            // An interrupted wait is a signal's record.
            let _ = poll(&mut wanted, PollTimeout::NONE);
            let ready = |at: usize| wanted[at].any().unwrap_or(false);
            let (letter, signal) = (ready(0), ready(1));
            if signal {
                while self.signals.next().is_some() {}
            }
            while let Ok(Some(change)) = signals::changed(self.command) {
                if self.tell(change) {
                    return;
                }
            }
            if letter && !self.obey() {
                self.hang_up();
                return;
            }
        }
    }

    /// Gives whether that was the end.
    fn tell(&mut self, change: Change) -> bool {
        let ended = !matches!(change, Change::Stopped(_));
        if ended {
            // What the command left running in its group does not lose the terminal with this session's leader.
            self.give_foreground(getpgrp());
        }
        // A relay that is gone is noticed by the next read.
        let _ = self.relay.write_all(&report(change));
        ended
    }

    /// Gives whether the relay is there.
    fn obey(&mut self) -> bool {
        let mut letter = Letter::default();
        if self.relay.read_exact(&mut letter).is_err() {
            return false;
        }
        match Order::read(letter) {
            Order::Signal(signal) => signals::send(self.command, signal),
            Order::SignalGroup(signal) => signals::send_to_group(self.group(), signal),
            Order::Continue { foreground } => {
                self.give_foreground(if foreground { self.group() } else { getpgrp() });
                signals::send_to_group(self.group(), SIGCONT);
            }
        }
        true
    }

    fn hang_up(&self) {
        signals::send_to_group(self.group(), SIGHUP);
        signals::send_to_group(self.group(), SIGCONT);
    }

    fn group(&self) -> Pid {
        getpgid(Some(self.command)).unwrap_or(self.command)
    }

    fn give_foreground(&self, group: Pid) {
        // From the background this would stop us; a terminal or group that is gone needs nothing.
        let Ok(_blocked) = signals::block_all() else { return };
        let _ = tcsetpgrp(&self.terminal, group);
    }
}
