//! The commit or tag behind a git signature. `ssh-keygen -Y sign` is given it as a file and sends only its hash to the
//! agent; where that file can still be read and has that hash, what it says is what is being signed. All that is
//! returned is as it stands in the file: it may hold anything but line ends, so it is escaped when it is shown.

use keyloan_protocol::ssh_agent::to_be_signed::DocumentHash;
use sha2::{Digest, Sha256, Sha512};
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A commit is some hundred bytes; beyond this nothing is said of it.
const FILE: u64 = 1024 * 1024;
const PERSON: usize = 1024;

/// What a commit or a tag says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signed {
    pub(crate) kind: Kind,
    /// The author of a commit, the tagger of a tag: `Name <address>`, which anybody can write there.
    pub(crate) person: String,
    /// The first line of the message that is not blank, with which git begins the subject; empty without one.
    pub(crate) subject: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Commit,
    Tag { name: String },
}

/// What `ssh-keygen` with that command line (its arguments, each ended by a NUL) signs: the file is the last argument.
/// Waits for the file system, so it is for `patience::look`.
pub(crate) fn find(cmdline: &[u8], cwd: &Path, hash: &DocumentHash) -> Option<Signed> {
    let mut arguments = cmdline.strip_suffix(b"\0").unwrap_or(cmdline).split(|byte| *byte == 0);
    // The first is the program.
    let file = arguments.nth(1).map(|second| arguments.next_back().unwrap_or(second))?;
    if file.is_empty() || !cwd.is_absolute() {
        return None;
    }
    let bytes = read(&cwd.join(std::ffi::OsStr::from_bytes(file)))?;
    let is_it = match hash {
        DocumentHash::Sha256(hash) => Sha256::digest(&bytes).as_slice() == hash,
        DocumentHash::Sha512(hash) => Sha512::digest(&bytes).as_slice() == hash,
    };
    if is_it { Signed::parse(&bytes) } else { None }
}

/// The nearest directory upwards that is a git repository: a place seen, not what is signed. Waits for the file system.
pub(crate) fn repository(cwd: &Path) -> Option<PathBuf> {
    let mut upwards = cwd.ancestors().filter(|directory| directory.is_absolute());
    upwards.find(|directory| directory.join(".git").symlink_metadata().is_ok()).map(Path::to_owned)
}

/// Neither a pipe that nobody writes to nor a link to somewhere else is waited for or followed.
fn read(path: &Path) -> Option<Vec<u8>> {
    use nix::fcntl::OFlag;
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path).ok()?;
    let found = file.metadata().ok()?;
    if !found.is_file() || found.len() > FILE {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(FILE + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= FILE).then_some(bytes)
}

/// The headers of an object, one after another.
struct Headers<'a> {
    rest: &'a str,
}

impl<'a> Headers<'a> {
    /// The value of the next header, if it has that name.
    fn next(&mut self, name: &str) -> Option<&'a str> {
        let (value, rest) = self.rest.strip_prefix(name)?.strip_prefix(' ')?.split_once('\n')?;
        self.rest = rest;
        Some(value)
    }

    /// The name of an object: SHA-1 or SHA-256 in hexadecimal.
    fn object(&mut self, name: &str) -> Option<&'a str> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
        self.next(name).filter(|value| matches!(value.len(), 40 | 64) && value.bytes().all(is_digit))
    }

    /// `Name <address> seconds zone`.
    fn person(&mut self, name: &str) -> Option<&'a str> {
        let value = self.next(name)?;
        let (person, when) = value.rsplit_once("> ")?;
        let (_, address) = person.split_once('<')?;
        let (seconds, zone) = when.split_once(' ')?;
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let is_zone = zone.strip_prefix(['+', '-']).is_some_and(|zone| zone.len() == 4 && digits(zone));
        let right = !address.contains(['<', '>']) && digits(seconds) && is_zone && value.len() <= PERSON;
        value.get(..person.len().saturating_add(1)).filter(|_| right)
    }
}

impl Signed {
    /// Reads an object as git writes it for signing. What is not UTF-8, or says that it is not, is nothing: it cannot
    /// be shown as what it is.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))?;
        let mut headers = Headers { rest: text };
        let (kind, person) =
            if text.starts_with("tree ") { (Kind::Commit, headers.commit()?) } else { headers.tag()? };
        let subject = headers.rest.split('\n').find(|line| !line.trim_ascii().is_empty()).unwrap_or_default();
        Some(Self { kind, person: person.to_owned(), subject: subject.to_owned() })
    }
}

impl<'a> Headers<'a> {
    /// Reads the headers of a commit and the empty line after them; returns the author.
    fn commit(&mut self) -> Option<&'a str> {
        self.object("tree")?;
        while self.rest.starts_with("parent ") {
            self.object("parent")?;
        }
        let author = self.person("author")?;
        self.person("committer")?;
        loop {
            let (line, rest) = self.rest.split_once('\n')?;
            self.rest = rest;
            if line.is_empty() {
                return Some(author);
            }
            let (name, value) = line.split_once(' ')?;
            // A line that begins with a space goes on with the header before.
            let is_name =
                name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b':'));
            let is_utf8 = || value.eq_ignore_ascii_case("utf-8") || value.eq_ignore_ascii_case("utf8");
            match name {
                "encoding" if !is_utf8() => return None,
                // These come once, before; and what is being signed is not signed yet.
                "tree" | "parent" | "author" | "committer" | "gpgsig" | "gpgsig-sha256" => return None,
                _ if !is_name => return None,
                _ => {}
            }
        }
    }

    fn tag(&mut self) -> Option<(Kind, &'a str)> {
        self.object("object")?;
        self.next("type").filter(|kind| matches!(*kind, "commit" | "tree" | "blob" | "tag"))?;
        let name = self.next("tag").filter(|name| !name.is_empty() && name.len() <= PERSON)?.to_owned();
        let tagger = self.person("tagger")?;
        self.rest = self.rest.strip_prefix('\n')?;
        Some((Kind::Tag { name }, tagger))
    }
}

#[cfg(test)]
mod tests;
