//! Signals as records to be read in turn, for a process that stands between a command and whoever signals it;
//! and signals sent on, by their numbers, for the real-time ones have no names.
#![expect(unsafe_code, reason = "handlers and dispositions have no safe interface")]

pub use nix::libc::{
    SIGALRM, SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGPROF, SIGQUIT, SIGSTOP, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU,
    SIGUSR1, SIGVTALRM, SIGWINCH,
};

use crate::sys;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc::{self, c_int, c_void, pid_t, siginfo_t};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::Pid;
use std::io::{self, PipeReader, PipeWriter};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// Where the handler writes: the pipe of the [`Signals`] that was made last.
static RECORDS: AtomicI32 = AtomicI32::new(-1);
static CONTINUED: AtomicU32 = AtomicU32::new(0);

/// What nobody can catch (signal(7)); what a fault of this process's own raises, which would be raised again for
/// ever; SIGPIPE, which Rust turns into an error; and what tells of children, stops and the terminal.
const NOT_FOR_OTHERS: [c_int; 15] = [
    libc::SIGKILL,
    SIGSTOP,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGSEGV,
    libc::SIGSYS,
    libc::SIGPIPE,
    SIGCHLD,
    SIGCONT,
    SIGTSTP,
    SIGTTIN,
    SIGTTOU,
    SIGWINCH,
];

/// The signals that somebody may send to a process and mean the command for which it stands, and `more`.
pub fn for_others(more: &[i32]) -> Vec<i32> {
    let all = (1..32).chain(sys::real_time_signals());
    all.filter(|signal| !NOT_FOR_OTHERS.contains(signal)).chain(more.iter().copied()).collect()
}

/// A signal that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caught {
    pub signal: i32,
    /// A process sent it, not the terminal or another part of the kernel.
    pub sent: bool,
}

/// Catches signals for as long as it lives.
pub struct Signals {
    reader: PipeReader,
    _writer: PipeWriter,
    before: Vec<(c_int, libc::sigaction)>,
}

extern "C" fn record(signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    let errno = Errno::last_raw();
    if signal == SIGCONT {
        CONTINUED.fetch_add(1, Ordering::Relaxed);
    }
    // sigaction(2): codes of the kernel are positive on Linux, those of kill(2) and its like are not.
    // SAFETY: with SA_SIGINFO the kernel passes a valid record.
    let sent = !cfg!(target_os = "linux") || unsafe { (*info).si_code } <= 0;
    let record = [u8::try_from(signal).unwrap_or(0), u8::from(sent)];
    // SAFETY: write(2) may be called in a handler and reads two bytes of ours. The pipe does not block; when it
    // is full, thousands of records wait already.
    unsafe { libc::write(RECORDS.load(Ordering::Relaxed), record.as_ptr().cast(), record.len()) };
    Errno::set_raw(errno);
}

impl Signals {
    /// Signals that this process was told to ignore stay ignored, but for those that tell of a change.
    pub fn catch(signals: &[i32]) -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        for end in [reader.as_fd(), writer.as_fd()] {
            fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        RECORDS.store(writer.as_raw_fd(), Ordering::Relaxed);
        let mut caught = Self { reader, _writer: writer, before: Vec::with_capacity(signals.len()) };
        let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = record;
        for &signal in signals {
            let before = change(signal, handler as libc::sighandler_t, libc::SA_SIGINFO)?;
            if before.sa_sigaction == libc::SIG_IGN && ![SIGCHLD, SIGWINCH, SIGCONT].contains(&signal) {
                put_back(signal, &before);
            } else {
                caught.before.push((signal, before));
            }
        }
        Ok(caught)
    }

    /// The next signal, where one came.
    pub fn next(&self) -> Option<Caught> {
        let mut record = [0; 2];
        match nix::unistd::read(&self.reader, &mut record) {
            Ok(2) => Some(Caught { signal: record[0].into(), sent: record[1] == 1 }),
            _ => None,
        }
    }

    /// The dispositions as they were found: what a command is to find, too.
    pub fn restore(&self) {
        for (signal, before) in &self.before {
            put_back(*signal, before);
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.restore();
    }
}

/// Without `SA_RESTART`: a write that waits for its reader is to be interrupted.
fn change(signal: c_int, handler: libc::sighandler_t, flags: c_int) -> io::Result<libc::sigaction> {
    // SAFETY: zeroes are a valid sigaction: the default disposition with an empty mask.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    // SAFETY: as above.
    let mut before: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: the handler is `record`, which is safe to run at any moment, or no code at all.
    match unsafe { libc::sigaction(signal, &raw const action, &raw mut before) } {
        0 => Ok(before),
        _ => Err(io::Error::last_os_error()),
    }
}

fn put_back(signal: c_int, before: &libc::sigaction) {
    // SAFETY: the disposition was in force in this process before.
    unsafe { libc::sigaction(signal, before, null_mut()) };
}

/// All signals blocked, until this is dropped.
pub struct Blocked(SigSet);

pub fn block_all() -> io::Result<Blocked> {
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
    Ok(Blocked(before))
}

/// For a process that watches another: whatever mask it was started with, it has to hear.
pub fn unblock_all() -> io::Result<()> {
    Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?)
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // It cannot fail: the mask was in force before.
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.0), None);
    }
}

/// Sends a signal to one process.
pub fn send(process: Pid, signal: i32) {
    if process.as_raw() > 0 {
        kill(process.as_raw(), signal);
    }
}

/// Sends a signal to a process group.
pub fn send_to_group(group: Pid, signal: i32) {
    if group.as_raw() > 1 {
        kill(-group.as_raw(), signal);
    }
}

fn kill(target: pid_t, signal: i32) {
    // SAFETY: takes integers only. A process that is gone is no fault.
    unsafe { libc::kill(target, signal) };
}

/// Stops this process as the signal stops one that does not catch it, `with_group` after sending it to all of its
/// process group. Gives whether it was stopped and continued: the kernel stops nobody whom no shell could continue
/// (POSIX XBD 3.257, orphaned process groups).
pub fn stop_by(signal: i32, with_group: bool) -> io::Result<bool> {
    let before = CONTINUED.load(Ordering::Relaxed);
    let target = if with_group { 0 } else { std::process::id().cast_signed() };
    if signal == SIGSTOP {
        kill(target, signal);
    } else {
        let disposition = change(signal, libc::SIG_DFL, 0)?;
        kill(target, signal);
        put_back(signal, &disposition);
    }
    Ok(CONTINUED.load(Ordering::Relaxed) != before)
}

/// The default disposition, whatever this process was started with.
pub fn heed(signal: i32) -> io::Result<()> {
    change(signal, libc::SIG_DFL, 0).map(drop)
}

/// Ends this process as the signal ends one that does not catch it, `with_group` after sending it to all of its
/// process group. Returns only where it ends none.
pub fn die_by(signal: i32, with_group: bool) {
    // SIGKILL's disposition cannot be changed, and need not be.
    let _ = heed(signal);
    let mut only = MaybeUninit::zeroed();
    // SAFETY: sigemptyset fills the set that the others take; all take valid pointers or none.
    unsafe {
        libc::sigemptyset(only.as_mut_ptr());
        libc::sigaddset(only.as_mut_ptr(), signal);
        libc::sigprocmask(libc::SIG_UNBLOCK, only.as_ptr(), null_mut());
    }
    kill(if with_group { 0 } else { std::process::id().cast_signed() }, signal);
}

/// What became of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Exited(u8),
    Killed(i32),
    Stopped(i32),
}

/// What became of a child since it was last asked for, if anything; does not wait.
pub fn changed(child: Pid) -> io::Result<Option<Change>> {
    let mut status = 0;
    // SAFETY: writes one int into `status`.
    match unsafe { libc::waitpid(child.as_raw(), &raw mut status, libc::WNOHANG | libc::WUNTRACED) } {
        0 => Ok(None),
        -1 => Err(io::Error::last_os_error()),
        _ if libc::WIFSTOPPED(status) => Ok(Some(Change::Stopped(libc::WSTOPSIG(status)))),
        _ if libc::WIFSIGNALED(status) => Ok(Some(Change::Killed(libc::WTERMSIG(status)))),
        _ => Ok(Some(Change::Exited(u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(u8::MAX)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::libc::SIGUSR2;

    #[test]
    fn a_signal_is_recorded_with_its_origin_and_the_disposition_put_back() {
        let disposition = || change_nothing(SIGUSR2).sa_sigaction;
        let before = disposition();
        let signals = Signals::catch(&[SIGUSR2]).unwrap();
        send(Pid::this(), SIGUSR2);
        // Another thread of the test program may be the one that the kernel interrupts.
        let caught = std::iter::repeat_with(|| signals.next()).flatten().next().unwrap();
        assert_eq!(caught, Caught { signal: SIGUSR2, sent: true });
        assert_eq!(signals.next(), None);
        drop(signals);
        assert_eq!(disposition(), before);
    }

    fn change_nothing(signal: c_int) -> libc::sigaction {
        // SAFETY: zeroes are a valid sigaction, and a null pointer changes nothing.
        unsafe {
            let mut found = MaybeUninit::zeroed().assume_init();
            libc::sigaction(signal, std::ptr::null(), &raw mut found);
            found
        }
    }
}
