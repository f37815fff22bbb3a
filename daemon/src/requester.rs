//! Who asks: what the kernel says of the process at the other end, and what it says of itself. The two are
//! never mixed: facts are *verified* or *seen*, the rest is *claimed*.

use crate::clock;
use keyloan_platform::peer::Peer;
use keyloan_platform::process::{self, StatFile};
use keyloan_protocol::secret::SecretBytes;
use sha2::{Digest, Sha256};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// Parents shown; a chain is rarely longer than terminal, shell, tool, helper.
const CHAIN: usize = 6;

/// Looking at `/proc` costs as much as a signature; who makes thousands a second is looked at fifty times.
const MOMENT: Duration = Duration::from_millis(20);

pub(crate) struct Requester {
    pub(crate) peer: Rc<Peer>,
    stat: Rc<StatFile>,
    /// The requester's program file and its parent's; `None` where the kernel did not say.
    pub(crate) programs: [Option<PathBuf>; 2],
    /// The program that connected, where it is another now.
    was: Option<PathBuf>,
    /// When that was, since boot.
    looked: Duration,
    parent: i32,
    pub(crate) cwd: Option<PathBuf>,
    /// The controlling terminal's device number, 0 for none.
    pub(crate) terminal: u64,
    /// Paths mean the same to the requester and to us.
    pub(crate) shares_our_mounts: bool,
    pub(crate) claimed: Claimed,
}

/// The process that started the requester, while it is its parent.
pub(crate) struct Parent {
    pub(crate) pid: i32,
    pub(crate) started: u64,
    pub(crate) program: Option<PathBuf>,
    pub(crate) pidfd: OwnedFd,
}

/// What the client sent of itself.
#[derive(Default)]
pub(crate) struct Claimed {
    pub(crate) program: Option<PathBuf>,
    /// Each argument followed by a NUL. May hold a token, so it is kept as a secret.
    pub(crate) argv: Option<SecretBytes>,
    pub(crate) clean_env: bool,
}

impl Requester {
    /// Reads `/proc` and then asks the pidfd: what was read is the connected process's only if that still
    /// lives (threats: pid reuse).
    pub(crate) fn observe(peer: Rc<Peer>) -> Option<Self> {
        let stat = StatFile::open(peer.pid)?;
        Self::look(peer, Rc::new(stat))
    }

    fn look(peer: Rc<Peer>, stat: Rc<StatFile>) -> Option<Self> {
        let first = stat.read()?;
        let requester = Self {
            programs: [process::exe(peer.pid), process::exe(first.parent)],
            was: None,
            looked: clock::since_boot(),
            parent: first.parent,
            cwd: process::cwd(peer.pid),
            terminal: first.terminal,
            shares_our_mounts: process::shares_our_mounts(peer.pid),
            claimed: Claimed::default(),
            peer,
            stat,
        };
        requester.peer.is_alive().then_some(requester)
    }

    /// Looks again, where a connection stays: its process may have become another program, or have ended. For a record
    /// alone what was seen a moment ago will do; whether it lives is always looked at.
    pub(crate) fn look_again_for_record(&mut self) -> bool {
        if clock::since_boot().saturating_sub(self.looked) < MOMENT {
            return self.peer.is_alive();
        }
        self.look_again()
    }

    pub(crate) fn look_again(&mut self) -> bool {
        let Some(mut seen) = Self::look(Rc::clone(&self.peer), Rc::clone(&self.stat)) else { return false };
        let first = self.was.take().or_else(|| self.programs[0].take());
        seen.was = first.filter(|first| seen.programs[0].as_ref() != Some(first));
        *self = seen;
        true
    }

    /// Who started the requester, by a descriptor that stays that process's. A parent that ends is replaced at once, so
    /// one that is the parent before and after the descriptor is opened is the process it names.
    pub(crate) fn started_by(&self) -> Option<Parent> {
        let pid = self.stat.read()?.parent;
        // The first process, and one of another pid namespace (0), started nothing that could be lent to.
        let pidfd = (pid > 1).then(|| process::pidfd(pid).ok())??;
        let started = process::stat(pid)?.started;
        let program = process::exe(pid);
        (self.stat.read()?.parent == pid && self.peer.is_alive()).then_some(Parent {
            pid,
            started,
            program,
            pidfd,
        })
    }

    /// The program that connected, where the requester has become another since.
    pub(crate) fn became_another(&self) -> Option<&Path> {
        self.was.as_deref()
    }

    /// Program files from the requester upwards, further than the log needs. Empty once it has ended, since
    /// the parents seen would be another's.
    pub(crate) fn chain(&self) -> Vec<Option<PathBuf>> {
        let mut programs = self.programs.to_vec();
        let mut parent = self.parent;
        while programs.len() < CHAIN {
            let Some(stat) = process::stat(parent) else { break };
            parent = stat.parent;
            if parent <= 1 {
                break;
            }
            programs.push(process::exe(parent));
        }
        if self.peer.is_alive() { programs } else { Vec::new() }
    }

    /// The directory as the requester's own file system shows it, where that is ours too.
    pub(crate) fn seen_directory(&self) -> Option<&Path> {
        self.cwd.as_deref().filter(|_| self.shares_our_mounts)
    }

    pub(crate) fn program(&self) -> String {
        match &self.programs[0] {
            Some(program) => program.display().to_string(),
            None => "an unreadable program".to_owned(),
        }
    }

    pub(crate) fn terminal_name(&self) -> Option<String> {
        let path = keyloan_platform::terminal::path_of_device(self.terminal)?;
        Some(path.display().to_string().trim_start_matches("/dev/").to_owned())
    }

    /// The claimed command line, for people: arguments with white space quoted, long ones by head and tail
    /// with their length and hash.
    pub(crate) fn shown_command(&self) -> Option<String> {
        const WHOLE: usize = 600;
        let argv = self.claimed.argv.as_ref()?.expose();
        let arguments = argv.strip_suffix(b"\0").unwrap_or(argv).split(|byte| *byte == 0);
        let mut shown = String::new();
        for argument in arguments.take(4096) {
            let text = String::from_utf8_lossy(argument);
            let plain = !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c == '\'');
            let quote = if plain { "" } else { "'" };
            shown.extend([quote, &text, quote, " "]);
        }
        let shown = keyloan_protocol::names::escaped(shown.trim_end(), usize::MAX);
        if shown.chars().count() <= WHOLE {
            return Some(shown);
        }
        let hash = data_encoding::HEXLOWER.encode(&Sha256::digest(argv)[..8]);
        let short = keyloan_protocol::names::escaped(&shown, WHOLE);
        Some(format!("{short} ({} bytes, sha256 {hash}…)", argv.len()))
    }
}
