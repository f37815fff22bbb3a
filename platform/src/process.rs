//! This process's own protection, and what `/proc` says of others.

use crate::sys;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;
use zeroize::Zeroizing;

/// No core dump, no tracing and no reading of `/proc/PID` by the same user from here on.
pub fn make_undumpable() -> io::Result<()> {
    sys::make_undumpable()
}

/// False inside a user namespace, whose owner may trace us however undumpable we are.
pub fn in_first_user_namespace() -> bool {
    sys::in_first_user_namespace()
}

/// Lifts the soft limit on descriptors to the hard one, so that a thousand clients can connect.
pub fn raise_descriptor_limit() -> io::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(())
}

/// The most memory that this process can have from here on; what wants more ends it.
pub fn limit_memory(most: u64) -> io::Result<()> {
    use nix::sys::resource::{Resource, setrlimit};
    Ok(setrlimit(Resource::RLIMIT_AS, most, most)?)
}

/// Makes a write beyond the limit on file sizes an error, as on a full disk, and no death by SIGXFSZ: any
/// program of the user may set that limit (`prlimit`(2)).
pub fn bear_file_size_limit() -> io::Result<()> {
    use nix::sys::signal::{SigHandler, Signal, signal};
    #[expect(unsafe_code, reason = "ignoring a signal runs no code of ours")]
    // SAFETY: as the reason says.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }?;
    Ok(())
}

pub fn effective_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

pub fn uid_of(user: &str) -> Option<u32> {
    nix::unistd::User::from_name(user).ok().flatten().map(|user| user.uid.as_raw())
}

/// `user@host`, as far as they are known: what an ssh key's comment is by default.
pub fn user_at_host() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten().map(|user| user.name);
    let host = nix::sys::utsname::uname().ok();
    let host = host.as_ref().and_then(|names| names.nodename().to_str());
    format!("{}@{}", user.unwrap_or_else(|| effective_uid().to_string()), host.unwrap_or("localhost"))
}

/// Where an open descriptor is now.
pub fn path_of(descriptor: BorrowedFd<'_>) -> io::Result<PathBuf> {
    sys::path_of(descriptor)
}

/// The parts of `/proc/PID/stat` that keyloan uses, `proc_pid_stat`(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// It has ended and its parent has not asked how, or its first thread has.
    pub is_zombie: bool,
    pub parent: i32,
    pub group: i32,
    /// The process that leads the session: a shell that a person types into, a terminal's first program.
    pub session: i32,
    /// The controlling terminal's device number, 0 for none.
    pub terminal: u64,
    /// The process group in that terminal's foreground, -1 for none.
    pub foreground: i32,
    /// Clock ticks after boot.
    pub started: u64,
}

/// Reads `/proc/PID/stat`. The program's name in it may hold spaces and parentheses, so fields are
/// counted from the last `)` (CVE-2017-1000367).
pub fn parse_stat(stat: &[u8]) -> Option<Stat> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = str::from_utf8(stat.get(end + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // Field 3 (state) is the first here.
    let terminal: i64 = fields.get(4)?.parse().ok()?;
    Some(Stat {
        is_zombie: matches!(*fields.first()?, "Z" | "X"),
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        // The kernel prints a 32-bit device number as a signed one.
        terminal: u64::from(u32::try_from(terminal & 0xffff_ffff).ok()?),
        foreground: fields.get(5)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

/// `/proc/PID/stat`, kept open. It is one process's as long as that lives and nobody's afterwards, whoever gets the pid
/// then; and reading it again costs half of what opening it costs too.
#[derive(Debug)]
pub struct StatFile(fs::File);

impl StatFile {
    pub fn open(pid: i32) -> Option<Self> {
        fs::File::open(format!("/proc/{pid}/stat")).ok().map(Self)
    }

    /// As it is now.
    pub fn read(&self) -> Option<Stat> {
        // One read: the kernel gives the line whole, and it is always shorter than this.
        let mut line = [0; 1024];
        let length = self.0.read_at(&mut line, 0).ok()?;
        parse_stat(&line[..length])
    }
}

pub fn stat(pid: i32) -> Option<Stat> {
    StatFile::open(pid)?.read()
}

/// The program file of a process; `None` where the kernel does not say (another user, a kernel thread).
pub fn exe(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

pub fn cwd(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/cwd")).ok()
}

/// `KIND:[NUMBER]`, namespaces(7). Looking at what the link leads to costs twice as much and gives the same number.
fn namespace(who: &str, kind: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{who}/ns/{kind}")).ok()
}

/// Whether a process sees the same mounts as this one; a path means the same file only then.
pub fn shares_our_mounts(pid: i32) -> bool {
    static OURS: OnceLock<Option<PathBuf>> = OnceLock::new();
    let ours = OURS.get_or_init(|| namespace("self", "mnt"));
    ours.is_some() && *ours == namespace(&pid.to_string(), "mnt")
}

/// The namespaces of a process that are others than this one's, of those in which it may be somebody else or see
/// something else; none where the kernel does not say.
pub fn other_namespaces(pid: i32) -> Vec<&'static str> {
    let pid = pid.to_string();
    let kinds = [("user", "user"), ("pid", "pid"), ("mnt", "mount")];
    let others = kinds.into_iter().filter(|(kind, _)| {
        namespace(&pid, kind).is_some_and(|theirs| namespace("self", kind) != Some(theirs))
    });
    others.map(|(_, name)| name).collect()
}

/// The most of an environment that is read. A program is started with less (6 MiB, execve(2)), but a process
/// may say afterwards that its environment is anywhere and of any length (`PR_SET_MM`, prctl(2)).
const ENVIRONMENT: usize = 8 * 1024 * 1024;

/// What a program was started with. Values lent stand there, so it is read into one buffer that is wiped.
struct Environment(Zeroizing<Vec<u8>>);

impl Environment {
    fn new() -> Self {
        Self(Zeroizing::new(vec![0; ENVIRONMENT + 1]))
    }

    /// `None` where it cannot be read or is too long.
    fn read(&mut self, pid: i32) -> Option<&[u8]> {
        let mut file = fs::File::open(format!("/proc/{pid}/environ")).ok()?;
        let mut length = 0;
        while length < self.0.len() {
            match file.read(&mut self.0[length..]).ok()? {
                0 => return Some(&self.0[..length]),
                more => length += more,
            }
        }
        None
    }
}

/// The names in a process's environment as it was when its program started; `None` where that cannot be read
/// or is too long.
pub fn environment_names(pid: i32) -> Option<Vec<OsString>> {
    let mut held = Environment::new();
    let names = held
        .read(pid)?
        .split(|byte| *byte == 0)
        .filter_map(|entry| entry.split(|byte| *byte == b'=').next())
        .filter(|name| !name.is_empty())
        .map(|name| OsString::from_vec(name.to_vec()))
        .collect();
    Some(names)
}

/// Shows the environment that each process was started with, as far as the kernel lets this user read it,
/// without holding more than one at a time.
pub fn environments(mut look: impl FnMut(i32, &[u8])) {
    let mut held = Environment::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(environment) = held.read(pid) {
            look(pid, environment);
        }
    }
}

/// What a process says that it was started with, each argument followed by a NUL; `None` where that cannot be read or
/// is longer than 64 KiB. It can change it, and have the reader wait for ever.
pub fn command_line(pid: i32) -> Option<Vec<u8>> {
    const MOST: u64 = 64 * 1024;
    let mut line = Vec::new();
    fs::File::open(format!("/proc/{pid}/cmdline")).ok()?.take(MOST + 1).read_to_end(&mut line).ok()?;
    (!line.is_empty() && line.len() as u64 <= MOST).then_some(line)
}

/// A descriptor that is readable once this process has ended, whatever it becomes until then.
pub fn own_pidfd() -> io::Result<std::os::fd::OwnedFd> {
    pidfd(std::process::id().cast_signed())
}

/// The same of any process that is there.
pub fn pidfd(pid: i32) -> io::Result<std::os::fd::OwnedFd> {
    sys::pidfd(pid)
}

/// Waits until the process of a pidfd has ended.
pub fn wait_for_end(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    loop {
        match poll(&mut [PollFd::new(pidfd, PollFlags::POLLIN)], PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            other => return Ok(other.map(drop)?),
        }
    }
}

/// Whether the process of a pidfd ends within this time, which begins anew with a signal.
pub fn ends_within(pidfd: BorrowedFd<'_>, time: Duration) -> bool {
    let time = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
    loop {
        match poll(&mut [PollFd::new(pidfd, PollFlags::POLLIN)], time) {
            Err(Errno::EINTR) => {}
            ended => return ended.is_ok_and(|ended| ended > 0),
        }
    }
}

/// Leaves the caller's session, directory and descriptors (but the first three) behind: for a program that
/// stays after the one that started it, and that must keep no pipe of it open.
pub fn detach() -> io::Result<()> {
    sys::close_inherited()?;
    nix::unistd::setsid()?;
    nix::unistd::chdir("/")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAIL: &str = "S 41 42 43 34819 44 4194304 1 0 0 0 1 2 0 0 20 0 1 0 987654 5 6";

    #[test]
    fn a_program_named_like_the_rest_of_the_line_is_parsed() {
        for name in ["sh", "a) R 1 1 1 0", ") (", "x y"] {
            let stat = parse_stat(format!("40 ({name}) {TAIL}").as_bytes()).unwrap();
            assert_eq!(
                stat,
                Stat {
                    is_zombie: false,
                    parent: 41,
                    group: 42,
                    session: 43,
                    terminal: 34819,
                    foreground: 44,
                    started: 987_654
                }
            );
        }
    }

    #[test]
    fn a_short_or_foreign_line_is_none() {
        for bad in ["", "40 sh S 1", "40 (sh) S 1 2", "40 (sh)"] {
            assert_eq!(parse_stat(bad.as_bytes()), None);
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_is_seen_as_it_is() {
        let pid = i32::try_from(std::process::id()).unwrap();
        assert_eq!(exe(pid), std::env::current_exe().ok());
        assert_eq!(stat(pid).unwrap().parent, nix::unistd::getppid().as_raw());
        assert!(shares_our_mounts(pid));
        assert!(other_namespaces(pid).is_empty());
    }
}
