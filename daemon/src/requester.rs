//! Who asks: what the kernel says of the process at the other end, and what it says of itself. The two are
//! never mixed: facts are *verified* or *seen*, the rest is *claimed*.

use crate::clock;
use keyloan_platform::peer::Peer;
use keyloan_platform::process::{self, Stat, StatFile};
use keyloan_protocol::secret::SecretBytes;
use sha2::{Digest, Sha256};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// Parents shown; a chain is rarely longer than terminal, shell, tool, helper.
const CHAIN: usize = 6;
/// Looks at a requester that changes meanwhile.
const LOOKS: u32 = 3;
/// Ancestors that a grant may have been given to, or that a rule may be about.
const LINEAGE: usize = 64;

/// Looking at `/proc` costs as much as a signature; who makes thousands a second is looked at fifty times.
const MOMENT: Duration = Duration::from_millis(20);

/// A place that requests come from, for fairness between them: the session of a terminal, or one place for all that have
/// none, since a process leaves its session as it likes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    #[default]
    Nowhere,
    /// As [`Requester::terminal_session`] has it.
    Terminal(u64, (i32, u64)),
}

pub(crate) struct Requester {
    pub(crate) peer: Rc<Peer>,
    stat: Rc<StatFile>,
    /// The requester's program file and its parent's; `None` where the kernel did not say.
    pub(crate) programs: [Option<PathBuf>; 2],
    /// The program that connected, where it is another now.
    was: Option<PathBuf>,
    /// When that was, since boot.
    looked: Duration,
    pub(crate) cwd: Option<PathBuf>,
    /// The controlling terminal's device number, 0 for none.
    pub(crate) terminal: u64,
    /// Paths mean the same to the requester and to us.
    pub(crate) shares_our_mounts: bool,
    pub(crate) claimed: Claimed,
    /// What another host asks comes by way of it: it may read its terminal, and send there what is typed.
    pub(crate) serves_another_host: bool,
}

/// What a question says of a requester.
pub(crate) struct Settled {
    pub(crate) facts: Facts,
    /// The same was seen twice, around the question whether the requester lives.
    pub(crate) is_steady: bool,
    /// The program that connected, where it is another now.
    pub(crate) was: Option<String>,
    /// The directory that it asked from, where it has left that.
    pub(crate) left: Option<PathBuf>,
}

#[derive(PartialEq, Eq)]
pub(crate) struct Facts {
    /// When the requester was started, and its ancestors as far as they are shown.
    started: Vec<u64>,
    exe: Option<PathBuf>,
    /// Program files from the requester upwards, for people.
    pub(crate) chain: Vec<String>,
    cwd: Option<PathBuf>,
    /// Its namespaces that are not ours.
    pub(crate) apart: Vec<&'static str>,
}

impl Settled {
    /// What makes the requester look like another than it is.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(was) = &self.was {
            warnings.push(format!("it was {was} when it connected"));
        }
        if let Some(left) = &self.left {
            warnings.push(format!("it was in {} when it asked", left.display()));
        }
        if !self.is_steady {
            warnings.push("it is changing while it is looked at; what is said of it may be wrong".to_owned());
        }
        if !self.facts.apart.is_empty() {
            let apart = self.facts.apart.join(", ");
            warnings.push(format!("it runs in a container of its own (other namespaces: {apart})"));
        }
        warnings
    }
}

/// A terminal by its number and the leader of its session, with that one's start.
pub(crate) type TerminalSession = (u64, (i32, u64));

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
            cwd: process::cwd(peer.pid),
            terminal: first.terminal,
            shares_our_mounts: process::shares_our_mounts(peer.pid),
            claimed: Claimed::default(),
            serves_another_host: false,
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
        seen.serves_another_host = self.serves_another_host;
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

    /// What can be said of it to a human. Each fact is a look of its own, between which the process may become another
    /// program or end, and its parents may: so all are looked at again until nothing has changed. Where only a rule
    /// decides, nobody reads this and nobody waits for it. `None` once it has ended.
    pub(crate) fn settled(&self) -> Option<Settled> {
        let (facts, is_steady) = steady(|| self.peer.is_alive().then(|| self.facts())?)?;
        let first = self.was.as_ref().or(self.programs[0].as_ref());
        let was = (first != facts.exe.as_ref()).then(|| shown_program(first.map(PathBuf::as_path)));
        let left = self.seen_directory().filter(|directory| facts.cwd.as_deref() != Some(directory));
        let left = left.map(Path::to_owned);
        self.peer.is_alive().then_some(Settled { facts, is_steady, was, left })
    }

    fn facts(&self) -> Option<Facts> {
        let first = self.stat.read()?;
        let exe = process::exe(self.peer.pid);
        let (mut chain, mut started) = (vec![shown_program(exe.as_deref())], vec![first.started]);
        let mut parent = first.parent;
        while chain.len() < CHAIN && parent > 1 {
            chain.push(shown_program(process::exe(parent).as_deref()));
            let Some(stat) = process::stat(parent) else { break };
            started.push(stat.started);
            parent = stat.parent;
        }
        if chain.len() == 1 {
            // Whoever started it has ended, perhaps so that nobody sees who it was.
            chain.push("nobody who is still there".to_owned());
        }
        let (cwd, apart) = (process::cwd(self.peer.pid), process::other_namespaces(self.peer.pid));
        Some(Facts { started, exe, chain, cwd, apart })
    }

    /// The requester and its ancestors, itself first. Empty once it has ended.
    pub(crate) fn lineage(&self) -> Vec<(i32, Stat)> {
        let mut lineage: Vec<(i32, Stat)> = Vec::new();
        let mut pid = self.peer.pid;
        while pid > 1 && lineage.len() < LINEAGE {
            let Some(stat) = process::stat(pid) else { break };
            // Nobody is younger than their child: the parent ended meanwhile, and another process has its pid.
            if lineage.last().is_some_and(|(_, child)| stat.started > child.started) {
                break;
            }
            lineage.push((pid, stat));
            pid = stat.parent;
        }
        if self.peer.is_alive() { lineage } else { Vec::new() }
    }

    /// Every program that a rule may be about: the requester's, what that was and says it becomes, and its ancestors'.
    /// `None` where one that the requester's session started does not show its own. Above that, sshd and login hide
    /// theirs from everybody.
    pub(crate) fn seen_programs(&self) -> Option<Vec<PathBuf>> {
        let lineage = self.lineage();
        let session = lineage.first().filter(|_| lineage.len() < LINEAGE)?.1.session;
        let mut programs: Vec<PathBuf> = self.was.iter().chain(&self.claimed.program).cloned().collect();
        let mut hides = false;
        for (pid, _) in lineage {
            match process::exe(pid) {
                Some(program) => programs.push(program),
                None if hides => {}
                None => return None,
            }
            hides |= pid == session;
        }
        self.peer.is_alive().then_some(programs)
    }

    /// The programs that, together, are "this program" for whoever remembers what it was given: the one that it says
    /// it becomes, its own, what that was, and the nearest above of another file; or all up to the leader of the
    /// session. `None` where one of them does not show itself.
    pub(crate) fn identity(&self, up_to_leader: bool) -> Option<Vec<PathBuf>> {
        let lineage = self.lineage();
        let session = lineage.first()?.1.session;
        let has_leader = lineage.iter().any(|(pid, _)| *pid == session);
        let mut programs: Vec<PathBuf> = self.claimed.program.iter().chain(&self.was).cloned().collect();
        let above = programs.len();
        for (pid, _) in lineage {
            let found = process::exe(pid);
            // Above a session, and where its leader has gone, may be what hides from everybody.
            if found.is_none() && !has_leader && programs.len() > above {
                break;
            }
            let program = found?;
            if programs.len() == above || programs.last() != Some(&program) {
                programs.push(program);
            }
            if pid == session || !up_to_leader && programs.len() > above + 1 {
                break;
            }
        }
        self.peer.is_alive().then_some(programs)
    }

    /// The controlling terminal, with the leader of its session: a terminal's number is soon another's, a leader's pid
    /// and start are not.
    pub(crate) fn terminal_session(&self) -> Option<TerminalSession> {
        let stat = process::stat(self.peer.pid).filter(|stat| stat.terminal != 0)?;
        let leader = process::stat(stat.session)?;
        let found = (stat.terminal, (stat.session, leader.started));
        (self.peer.is_alive() && leader.terminal == stat.terminal).then_some(found)
    }

    pub(crate) fn origin(&self) -> Origin {
        self.terminal_session()
            .map_or(Origin::Nowhere, |(terminal, leader)| Origin::Terminal(terminal, leader))
    }

    /// Whether it asks from that very terminal.
    pub(crate) fn is_on(&self, terminal: Option<TerminalSession>) -> bool {
        terminal.is_some_and(|(device, _)| device == self.terminal) && self.terminal_session() == terminal
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

/// What is seen twice in a row; else what is seen last, and that it was not.
fn steady<T: PartialEq>(mut look: impl FnMut() -> Option<T>) -> Option<(T, bool)> {
    let mut seen = look()?;
    for _ in 0..LOOKS {
        let again = look()?;
        if again == seen {
            return Some((again, true));
        }
        seen = again;
    }
    Some((seen, false))
}

fn shown_program(program: Option<&Path>) -> String {
    program.map_or_else(|| "AN UNREADABLE PROGRAM".to_owned(), |program| program.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_seen_twice_in_a_row_is_taken_for_what_is() {
        let looked = |seen: &[Option<u8>]| {
            let mut seen = seen.iter();
            steady(|| *seen.next().unwrap())
        };
        assert_eq!(looked(&[Some(1), Some(1)]), Some((1, true)));
        assert_eq!(looked(&[Some(1), Some(2), Some(1), Some(1)]), Some((1, true)));
        assert_eq!(looked(&[Some(1), Some(2), Some(1), Some(2)]), Some((2, false)));
        assert_eq!(looked(&[Some(1), None]), None, "it has ended");
    }
}
