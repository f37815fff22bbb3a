//! Lines that a shell evaluates. What stands in them is quoted for that shell, and what no quoting makes safe is
//! refused.

use crate::args::ssh::Shell;
use crate::exit::Failure;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The kind of a person's shell, by the name of its program.
pub(super) fn of_person(shell: Option<&OsStr>) -> Shell {
    let name = shell.and_then(|shell| Path::new(shell).file_name()).unwrap_or_default().as_bytes();
    match name {
        b"fish" => Shell::Fish,
        // As ssh-agent(1) tells it.
        name if name.ends_with(b"csh") => Shell::Csh,
        _ => Shell::Sh,
    }
}

pub(super) struct Lines {
    act: &'static str,
    shell: Shell,
    bytes: Vec<u8>,
}

impl Lines {
    pub(super) fn new(act: &'static str, shell: Shell) -> Self {
        Self { act, shell, bytes: Vec::new() }
    }

    pub(super) fn set(mut self, name: &str, value: &OsStr) -> Result<Self, Failure> {
        let value = quoted(self.shell, value.as_bytes())
            .ok_or_else(|| Failure::usage(self.act, "the path holds a control character"))?;
        let (before, after) = match self.shell {
            Shell::Sh => (format!("{name}="), format!("; export {name};\n")),
            Shell::Csh => (format!("setenv {name} "), ";\n".to_owned()),
            Shell::Fish => (format!("set -gx {name} "), ";\n".to_owned()),
        };
        self.bytes.extend_from_slice(before.as_bytes());
        self.bytes.extend_from_slice(&value);
        self.bytes.extend_from_slice(after.as_bytes());
        Ok(self)
    }

    pub(super) fn unset(mut self, name: &str) -> Self {
        let line = match self.shell {
            Shell::Sh => format!("unset {name};\n"),
            Shell::Csh => format!("unsetenv {name};\n"),
            Shell::Fish => format!("set -e {name};\n"),
        };
        self.bytes.extend_from_slice(line.as_bytes());
        self
    }

    /// A line that says something which needs no quotes.
    pub(super) fn echo(mut self, text: &str) -> Self {
        self.bytes.extend_from_slice(format!("echo {text};\n").as_bytes());
        self
    }

    pub(super) fn bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Plain words stay as they are: scripts take these lines apart.
fn quoted(shell: Shell, word: &[u8]) -> Option<Vec<u8>> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+:,@%".contains(byte);
    if !word.is_empty() && word.iter().all(plain) {
        return Some(word.to_vec());
    }
    if word.iter().any(u8::is_ascii_control) {
        return None;
    }
    let mut quoted = vec![b'\''];
    for byte in word {
        match (shell, byte) {
            (Shell::Sh | Shell::Csh, b'\'') => quoted.extend_from_slice(br"'\''"),
            // The history of csh looks into quotes.
            (Shell::Csh, b'!') => quoted.extend_from_slice(br"\!"),
            (Shell::Fish, b'\'' | b'\\') => quoted.extend_from_slice(&[b'\\', *byte]),
            (_, byte) => quoted.push(*byte),
        }
    }
    quoted.push(b'\'');
    Some(quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(shell: Shell, value: &str) -> Option<String> {
        let lines = Lines::new("test", shell).set("A", OsStr::new(value)).ok()?;
        String::from_utf8(lines.bytes()).ok()
    }

    #[test]
    fn a_path_that_a_shell_would_read_as_more_is_quoted_for_that_shell() {
        let odd = r"/a b/$(c)!'\";
        assert_eq!(line(Shell::Sh, "/run/a.sock").unwrap(), "A=/run/a.sock; export A;\n");
        assert_eq!(line(Shell::Csh, "/run/a.sock").unwrap(), "setenv A /run/a.sock;\n");
        assert_eq!(line(Shell::Fish, "/run/a.sock").unwrap(), "set -gx A /run/a.sock;\n");
        assert_eq!(line(Shell::Sh, odd).unwrap(), "A='/a b/$(c)!'\\''\\'; export A;\n");
        assert_eq!(line(Shell::Csh, odd).unwrap(), "setenv A '/a b/$(c)\\!'\\''\\';\n");
        assert_eq!(line(Shell::Fish, odd).unwrap(), "set -gx A '/a b/$(c)!\\'\\\\';\n");
        assert_eq!(line(Shell::Sh, "/a\nb"), None);
    }

    #[test]
    fn the_shell_is_told_by_its_name() {
        for (path, shell) in [
            (None, Shell::Sh),
            (Some("/bin/bash"), Shell::Sh),
            (Some("/usr/bin/tcsh"), Shell::Csh),
            (Some("/bin/csh"), Shell::Csh),
            (Some("/usr/bin/fish"), Shell::Fish),
        ] {
            assert_eq!(of_person(path.map(OsStr::new)), shell, "{path:?}");
        }
    }
}
