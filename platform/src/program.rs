//! Programs that keyloan starts for itself: whose they are, and how they are kept apart from everything else.
#![expect(unsafe_code, reason = "what a child does between fork and exec")]

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// A file that only root can change, and so can everything on both ways to it: whoever can change one
/// answers in its name.
pub fn is_roots(program: &Path) -> bool {
    let roots = |path: &Path| {
        std::fs::metadata(path).is_ok_and(|found| found.uid() == 0 && found.mode() & 0o022 == 0)
    };
    ways(program, roots)
}

/// The same of a file that is root's or this user's, and that no other user can change. In a directory like `/tmp`
/// others make files, and change none.
pub fn is_nobody_elses(program: &Path) -> bool {
    let own = crate::process::effective_uid();
    ways(program, |path| {
        std::fs::metadata(path).is_ok_and(|found| {
            let sticky = found.is_dir() && found.mode() & 0o1000 != 0;
            (found.uid() == 0 || found.uid() == own) && (sticky || found.mode() & 0o022 == 0)
        })
    })
}

/// Whether this holds on both ways: of the links' directories, and of the file's own.
fn ways(program: &Path, holds: impl Fn(&Path) -> bool) -> bool {
    let Ok(real) = std::fs::canonicalize(program) else { return false };
    program.is_absolute() && real.is_file() && real.ancestors().chain(program.ancestors()).all(holds)
}

/// Has a command start in a session and a process group of its own, without a terminal to be asked on or typed
/// into, without core dumps, and ended by the kernel when whoever starts it is.
pub fn set_apart(command: &mut Command) -> &mut Command {
    #[cfg(target_os = "linux")]
    let parent = nix::unistd::getpid();
    let apart = move || {
        nix::unistd::setsid()?;
        nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0)?;
        #[cfg(target_os = "linux")]
        {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            // It may be gone already.
            if nix::unistd::getppid() != parent {
                return Err(std::io::ErrorKind::BrokenPipe.into());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made, all of them async-signal-safe; nothing is allocated
    // and no lock is taken.
    unsafe { command.pre_exec(apart) }
}

/// A process group, ended when this is dropped.
pub struct Group(pub Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0.and_then(|pid| i32::try_from(pid).ok()) {
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_on_a_way_that_others_can_write_to_is_nobodys() {
        assert!(is_roots(Path::new("/bin/sh")));
        for bad in ["/tmp/sh", "bin/sh", "/usr/bin/../../tmp", "/bin", "/nowhere"] {
            assert!(!is_roots(Path::new(bad)) && !is_nobody_elses(Path::new(bad)), "{bad}");
        }
        let link = std::env::temp_dir().join(format!("keyloan-link-{}", std::process::id()));
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink("/bin/sh", &link).unwrap();
        assert!(!is_roots(&link), "a link to root's file where others write is theirs to turn");
        std::fs::remove_file(&link).unwrap();
    }

    #[test]
    fn a_command_that_is_set_apart_has_a_session_and_a_group_of_its_own() {
        #[expect(clippy::disallowed_methods, reason = "a test of what is done to a command")]
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "cut -d' ' -f1,5,6 /proc/self/stat; ulimit -c; echo $$"]);
        let out = set_apart(&mut command).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(words[1..], [words[4], words[4], "0", words[4]]);
    }
}
