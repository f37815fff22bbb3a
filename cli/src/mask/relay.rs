//! Stands between a command and whoever sees what it prints: passes streams, keys, signals, stops and the end
//! on. One thread and one wait, poll(2).

use super::console::{self, Console};
use super::monitor::{self, Letter, Order};
use super::stream::Stream;
use keyloan_platform::pty;
use keyloan_platform::signals::{
    self, Caught, Change, SIGALRM, SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGPROF, SIGQUIT, SIGSTOP, SIGTERM,
    SIGTSTP, SIGTTIN, SIGTTOU, SIGVTALRM, SIGWINCH, Signals,
};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Pid, read, write};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use zeroize::{Zeroize, Zeroizing};

/// What the command left running may go on printing for this long a silence, and then so much.
const SILENCE: Duration = Duration::from_millis(200);
const LEFT: usize = 1024 * 1024;

/// How long the way out may take before a stop.
const BEFORE_STOP: Duration = Duration::from_secs(1);

pub(super) struct Relay {
    pub(super) signals: Signals,
    pub(super) streams: Vec<Stream>,
    pub(super) held: Held,
}

/// How the command is held.
pub(super) enum Held {
    /// A child in our own process group: the terminal's signals reach it as they reach us.
    Child(Pid),
    Session(Box<Session>),
}

/// A session of its own on a pseudo terminal.
pub(super) struct Session {
    pub(super) console: Console,
    pub(super) master: OwnedFd,
    pub(super) orders: UnixStream,
    pub(super) keys: Keys,
    /// The command is to have the terminal whenever this job has it.
    pub(super) wanted: bool,
    /// Others of a pipeline print on the terminal, too.
    pub(super) shared: bool,
    /// The pseudo terminal has the settings that the terminal has for its jobs. In the background those of
    /// the shell's own line editor are seen.
    pub(super) settled: bool,
    /// What last interrupted the command was a key, which means all of this job; a signal that was sent does not.
    pub(super) by_key: bool,
}

/// Typed, and not taken by the command yet.
pub(super) struct Keys {
    bytes: Zeroizing<Vec<u8>>,
    typed: usize,
    passed: usize,
    closed: bool,
}

impl Keys {
    pub(super) fn new() -> Self {
        Self { bytes: Zeroizing::new(vec![0; 4096]), typed: 0, passed: 0, closed: false }
    }
}

impl Relay {
    /// Whether it was a key that came this way and interrupted the command.
    pub(super) fn was_interrupted_by_key(&self) -> bool {
        matches!(&self.held, Held::Session(session) if session.by_key)
    }

    /// Passes everything on until the command has ended; `None` when its monitor is gone.
    pub(super) fn run(&mut self) -> Option<Change> {
        let end = self.until_end();
        self.let_out();
        if let Held::Session(session) = &mut self.held {
            session.console.give_back();
        }
        end
    }

    /// Why a stream could not be written to, where it could not.
    pub(super) fn failures(&self) -> impl Iterator<Item = Errno> {
        self.streams.iter().filter_map(Stream::failed)
    }

    fn until_end(&mut self) -> Option<Change> {
        loop {
            let ready = self.wait(None);
            if ready.signals {
                while let Some(caught) = self.signals.next() {
                    if let Some(end) = self.heard(caught) {
                        return Some(end);
                    }
                }
            }
            if ready.reports {
                let Held::Session(session) = &mut self.held else { continue };
                let mut letter = Letter::default();
                session.orders.read_exact(&mut letter).ok()?;
                match monitor::read_report(letter) {
                    Change::Stopped(signal) => self.stopped(signal),
                    end => return Some(end),
                }
            }
        }
    }

    /// What the command printed before its end, and what those it left running add without a pause.
    fn let_out(&mut self) {
        let mut read = 0;
        let mut until = now() + SILENCE;
        while !self.streams.iter().all(Stream::is_done) {
            let ready = self.wait(Some(until));
            read += ready.read;
            if ready.read > 0 || self.streams.iter().any(Stream::waits) {
                until = now() + SILENCE;
            }
            if now() >= until || read > LEFT {
                self.streams.iter_mut().for_each(Stream::end);
            }
            // Who wants to end us now does not want to wait for a reader that does not read.
            if std::iter::from_fn(|| self.signals.next()).any(asks_to_end) {
                return;
            }
        }
    }

    /// Waits once and moves what can be moved.
    fn wait(&mut self, until: Option<Instant>) -> Ready {
        let mut wanted = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        let mut places = Vec::with_capacity(self.streams.len());
        for (at, stream) in self.streams.iter().enumerate() {
            if let Some(want) = stream.wants() {
                places.push((at, wanted.len()));
                wanted.push(want);
            }
        }
        let (mut reports, mut keys) = (None, None);
        if let Held::Session(session) = &self.held {
            reports = Some(wanted.len());
            wanted.push(PollFd::new(session.orders.as_fd(), PollFlags::POLLIN));
            if let Some(want) = session.wants() {
                keys = Some(wanted.len());
                wanted.push(want);
            }
        }
        let due = self.streams.iter().filter_map(Stream::due).chain(until).min();
        let timeout = due.map_or(PollTimeout::NONE, |due| {
            let left = due.saturating_duration_since(now());
            // Rounded up: waking before the time would only mean to wait again.
            PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX)
        });
        // An interrupted wait is a signal's record, which the next wait finds.
        if poll(&mut wanted, timeout).is_err() {
            return Ready::default();
        }
        let has = |at: usize| wanted[at].any().unwrap_or(false);
        let mut ready = Ready {
            signals: has(0),
            reports: reports.is_some_and(has),
            keys: keys.is_some_and(has),
            read: 0,
        };
        let places: Vec<usize> =
            places.into_iter().filter(|(_, place)| has(*place)).map(|(at, _)| at).collect();
        let now = now();
        for (at, stream) in self.streams.iter_mut().enumerate() {
            if places.contains(&at) {
                ready.read += stream.go_on(now);
            } else if stream.due().is_some_and(|due| due <= now) {
                stream.pause();
            }
        }
        if let Held::Session(session) = &mut self.held
            && ready.keys
        {
            session.pass_keys();
        }
        ready
    }

    /// Gives the command's end, where the signal tells of it.
    fn heard(&mut self, caught: Caught) -> Option<Change> {
        match &mut self.held {
            Held::Child(child) => {
                if caught.signal == SIGCHLD {
                    return ended_or_stopped(*child);
                }
                // What the terminal sends reached the command as well.
                if caught.sent || is_timers(caught.signal) {
                    signals::send(*child, caught.signal);
                }
            }
            Held::Session(session) => match caught.signal {
                SIGCHLD => {}
                SIGWINCH => pty::copy_size(session.console.descriptor(), session.master.as_fd()),
                SIGCONT => session.came_back(),
                signal if caught.sent => {
                    session.by_key = false;
                    session.order(Order::Signal(signal));
                }
                SIGHUP | SIGINT | SIGQUIT | SIGTSTP => session.order(Order::SignalGroup(caught.signal)),
                signal if is_timers(signal) => session.order(Order::Signal(signal)),
                // The kernel means this process: a limit that it reached.
                _ => {}
            },
        }
        None
    }

    /// The command stopped: either it wants the terminal, which it can have, or this job stops with it.
    fn stopped(&mut self, signal: i32) {
        let wants_terminal = signal == SIGTTIN || signal == SIGTTOU;
        let Held::Session(session) = &mut self.held else { return };
        session.wanted |= wants_terminal;
        if wants_terminal && session.console.in_foreground() {
            session.resume();
            return;
        }
        // What it drew last (an editor leaves its screen) is on the terminal before the shell is.
        let until = now() + BEFORE_STOP;
        let mut last = false;
        while now() < until {
            if self.wait(Some(now())).read > 0 || self.streams.iter().any(Stream::waits) {
                continue;
            }
            if last {
                break;
            }
            last = true;
            self.streams.iter_mut().for_each(Stream::pause);
        }
        let Held::Session(session) = &mut self.held else { return };
        session.console.give_back();
        let continued = signals::stop_by(signal, signal != SIGSTOP).unwrap_or(false);
        if wants_terminal && !continued && !session.console.in_foreground() {
            // No shell could ever give it the terminal; reading it again would go on for ever.
            session.order(Order::SignalGroup(SIGHUP));
        }
        pty::copy_size(session.console.descriptor(), session.master.as_fd());
        session.resume();
    }
}

#[derive(Default)]
struct Ready {
    signals: bool,
    reports: bool,
    keys: bool,
    /// Bytes.
    read: usize,
}

impl Session {
    fn order(&mut self, order: Order) {
        // A monitor that is gone is noticed where its reports are read.
        let _ = self.orders.write_all(&order.letter());
    }

    /// This job was continued, perhaps after a stop that nobody announced, perhaps into the foreground.
    fn came_back(&mut self) {
        pty::copy_size(self.console.descriptor(), self.master.as_fd());
        self.resume();
    }

    fn resume(&mut self) {
        if self.wanted {
            self.console.take(self.shared);
        }
        let foreground = self.console.is_taken();
        if foreground && !self.settled {
            self.settled = self.console.settle(self.master.as_fd());
        }
        self.order(Order::Continue { foreground });
    }

    fn wants(&self) -> Option<PollFd<'_>> {
        if self.keys.passed < self.keys.typed {
            return Some(PollFd::new(self.master.as_fd(), PollFlags::POLLOUT));
        }
        let listens = self.console.is_taken() && !self.keys.closed;
        listens.then(|| PollFd::new(self.console.descriptor(), PollFlags::POLLIN))
    }

    fn pass_keys(&mut self) {
        let keys = &mut self.keys;
        if keys.passed < keys.typed {
            let next = &keys.bytes[keys.passed..keys.typed];
            self.by_key |= console::interrupt(self.master.as_fd(), next);
            match write(&self.master, next) {
                Ok(length) => keys.passed += length,
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(_) => keys.passed = keys.typed,
            }
            if keys.passed == keys.typed {
                keys.bytes[..keys.typed].zeroize();
            }
            return;
        }
        match read(self.console.descriptor(), &mut keys.bytes) {
            Ok(length @ 1..) => (keys.typed, keys.passed) = (length, 0),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // The terminal is gone; SIGHUP says so to whom it concerns.
            Ok(_) | Err(_) => keys.closed = true,
        }
    }
}

/// Sent by the kernel, and meant for the command: we have no timers of our own, but keep those that were set before
/// the exec that made us (execve(2), setitimer(2)); a fork has none.
fn is_timers(signal: i32) -> bool {
    matches!(signal, SIGALRM | SIGVTALRM | SIGPROF)
}

fn asks_to_end(caught: Caught) -> bool {
    matches!(caught.signal, SIGHUP | SIGINT | SIGQUIT | SIGTERM)
}

/// The end of a child in our own group. When it alone is stopped, we stop as it would have without us.
fn ended_or_stopped(child: Pid) -> Option<Change> {
    loop {
        match signals::changed(child).ok()?? {
            Change::Stopped(signal) => {
                // In an orphaned group only SIGSTOP stops anybody.
                if !signals::stop_by(signal, false).unwrap_or(false) {
                    let _ = signals::stop_by(SIGSTOP, false);
                }
                signals::send(child, SIGCONT);
            }
            end => return Some(end),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "silence is measured, not the time of day")]
fn now() -> Instant {
    Instant::now()
}
