//! The `known_hosts` files that ssh reads unless told otherwise (`ssh_config`(5), `UserKnownHostsFile` and
//! `GlobalKnownHostsFile`), read again only when they changed. They are on whatever mount somebody chose, so each is
//! looked at with a limit, and one that does not answer names nothing.

use super::known_hosts::{FILE, KnownHosts};
use crate::patience;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) struct Files {
    paths: [PathBuf; 4],
    read: RefCell<HashMap<PathBuf, (Stamp, Arc<KnownHosts>)>>,
}

/// Changes with the content. The last is the time of any change to the file, which nobody can set.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

enum Look {
    Unchanged,
    Read(Stamp, Arc<KnownHosts>),
    Nothing,
    /// There was no answer. What was there before may say that a key is revoked, so it stays.
    Unanswered,
}

impl Files {
    /// Those of the user with that home directory, and of the machine.
    pub(crate) fn new(home: Option<&Path>) -> Self {
        // Relative to nothing, they are nowhere.
        let own = |name: &str| home.map(|home| home.join(".ssh").join(name)).unwrap_or_default();
        let etc = |name: &str| Path::new("/etc/ssh").join(name);
        let [user, machine] = [["known_hosts", "known_hosts2"], ["ssh_known_hosts", "ssh_known_hosts2"]];
        Self {
            paths: [own(user[0]), own(user[1]), etc(machine[0]), etc(machine[1])],
            read: RefCell::default(),
        }
    }

    /// What is in them now, the user's own first.
    pub(crate) async fn look(&self) -> Vec<Arc<KnownHosts>> {
        let [a, b, c, d] = &self.paths;
        let (a, b, c, d) = tokio::join!(self.look_at(a), self.look_at(b), self.look_at(c), self.look_at(d));
        [a, b, c, d].into_iter().flatten().collect()
    }

    async fn look_at(&self, path: &Path) -> Option<Arc<KnownHosts>> {
        let known = self.read.borrow().get(path).map(|(stamp, _)| *stamp);
        let place = path.to_owned();
        let look = patience::look(move || read(&place, known)).await.unwrap_or(Look::Unanswered);
        let mut cache = self.read.borrow_mut();
        match look {
            Look::Unchanged | Look::Unanswered => {}
            Look::Read(stamp, hosts) => {
                cache.insert(path.to_owned(), (stamp, hosts));
            }
            Look::Nothing => {
                cache.remove(path);
            }
        }
        cache.get(path).map(|(_, hosts)| Arc::clone(hosts))
    }
}

/// Links are followed: people keep these files elsewhere. A pipe in the place of one does not hang.
fn read(path: &Path, known: Option<Stamp>) -> Look {
    let flags = nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_NOCTTY;
    let Ok(file) = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path) else {
        return Look::Nothing;
    };
    match file.metadata() {
        Ok(found) if found.is_file() => {
            let stamp = Stamp::of(&found);
            if known == Some(stamp) {
                return Look::Unchanged;
            }
            bytes(file, &found)
                .map_or(Look::Nothing, |bytes| Look::Read(stamp, KnownHosts::parse(&bytes).into()))
        }
        _ => Look::Nothing,
    }
}

fn bytes(file: File, found: &Metadata) -> Option<Vec<u8>> {
    let most = u64::try_from(FILE).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    if found.len() <= most {
        file.take(most.saturating_add(1)).read_to_end(&mut bytes).ok()?;
    }
    (found.len() <= most).then_some(bytes)
}

impl Stamp {
    fn of(found: &Metadata) -> Self {
        Self {
            file: (found.dev(), found.ino()),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the files are the user's own, whoever makes them")]
mod tests {
    use super::super::known_hosts::Naming;
    use super::super::line_of_key;
    use super::super::tests::key;
    use super::*;
    use std::fs;

    /// A home directory with `.ssh` in it, and what looks at it.
    fn home(name: &str) -> (PathBuf, Files, tokio::runtime::Runtime) {
        let home = std::env::temp_dir().join(format!("keyloan-hosts-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&home);
        fs::create_dir_all(home.join(".ssh")).unwrap();
        let mut files = Files::new(Some(&home));
        files.paths[2] = home.join("ssh_known_hosts");
        files.paths[3] = home.join("ssh_known_hosts2");
        (home, files, tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap())
    }

    fn is_named(files: &[Arc<KnownHosts>], number: u8) -> bool {
        files.iter().any(|file| file.names_of(&key(number), &[], 0) != Naming::Unknown)
    }

    #[test]
    fn files_are_read_again_only_when_they_changed() {
        let (home, files, runtime) = home("again");
        let look = || runtime.block_on(files.look());
        assert!(look().is_empty());
        let own = home.join(".ssh/known_hosts");
        fs::write(&own, format!("a {}\n", line_of_key(&key(1)))).unwrap();
        let link = home.join("dotfiles");
        fs::write(&link, format!("b {}\n", line_of_key(&key(2)))).unwrap();
        std::os::unix::fs::symlink(&link, home.join(".ssh/known_hosts2")).unwrap();
        fs::write(home.join("ssh_known_hosts"), format!("c {}\n", line_of_key(&key(3)))).unwrap();
        let (first, second) = (look(), look());
        assert!((1..=3).all(|number| is_named(&first, number)) && !is_named(&first, 4));
        assert_eq!((first.len(), second.len()), (3, 3));
        assert!(first.iter().zip(&second).all(|(first, second)| Arc::ptr_eq(first, second)));
        // Of the same length, under the same name.
        fs::write(home.join("new"), format!("a {}\n", line_of_key(&key(4)))).unwrap();
        fs::rename(home.join("new"), &own).unwrap();
        let third = look();
        assert!(is_named(&third, 4) && !is_named(&third, 1));
        assert!(Arc::ptr_eq(&second[1], &third[1]));
        fs::remove_file(&own).unwrap();
        assert!(!is_named(&look(), 4));
        fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn a_pipe_a_directory_and_a_huge_file_name_nothing() {
        let (home, files, runtime) = home("odd");
        nix::unistd::mkfifo(&home.join(".ssh/known_hosts"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::create_dir(home.join(".ssh/known_hosts2")).unwrap();
        let mut huge = format!("a {}\n", line_of_key(&key(1))).into_bytes();
        huge.resize(FILE + 1, b'#');
        fs::write(home.join("ssh_known_hosts"), &huge).unwrap();
        fs::write(home.join("ssh_known_hosts2"), &huge[..FILE]).unwrap();
        let read = runtime.block_on(files.look());
        assert_eq!((read.len(), is_named(&read, 1)), (1, true));
        fs::remove_dir_all(home).unwrap();
    }
}
