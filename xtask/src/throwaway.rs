//! A home to be thrown away: a private directory with its own HOME, XDG directories, passphrase, PIN and
//! token, used by a daemon of its own. Whatever becomes of this process, the daemon is stopped and the
//! directory removed.

use crate::process::shown;
use crate::release::Programs;
use anyhow::{Context, Result, bail};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use std::fs::{self, DirBuilder};
use std::io::{PipeReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Waits until nobody holds the other end of its input any more, which is so when this process has ended in
/// any way; hence it ignores the signals that end this process.
const JANITOR: &str = r#"
trap '' HUP INT TERM
cat >/dev/null
timeout 10 "$1" daemon stop >/dev/null 2>&1
# The daemon says that it stops before its last write.
for _ in 1 2 3 4 5 6 7 8 9 10; do
    rm -rf -- "$2" 2>/dev/null && exit
    sleep 0.2
done
"#;

/// The directories of a home, by the variable that names each.
const DIRECTORIES: &[(&str, &str)] = &[
    ("HOME", "home"),
    ("XDG_CONFIG_HOME", "config"),
    ("XDG_DATA_HOME", "data"),
    ("XDG_STATE_HOME", "state"),
    ("XDG_RUNTIME_DIR", "run"),
];

pub(crate) struct Home {
    root: PathBuf,
    programs: PathBuf,
    janitor: Child,
    /// Random, made up for this home: nobody is asked for a secret of his own.
    pub(crate) passphrase: String,
    pub(crate) pin: String,
    pub(crate) token: String,
}

impl Home {
    pub(crate) fn new(programs: &Programs) -> Result<Self> {
        let base = std::env::temp_dir().canonicalize().context("cannot find the temporary directory")?;
        let root = base.join(format!("keyloan-{}", &random()?[..12]));
        let private = |path: &Path| {
            let made = DirBuilder::new().mode(0o700).create(path);
            made.with_context(|| format!("cannot make {}", path.display()))
        };
        private(&root)?;
        let janitor = janitor(&root, &programs.path("keyloan"))?;
        for (_, directory) in DIRECTORIES {
            private(&root.join(directory))?;
        }
        let home = Self {
            root,
            programs: programs.directory.clone(),
            janitor,
            passphrase: random()?,
            pin: random()?.bytes().take(8).map(|byte| char::from(b'0' + byte % 10)).collect(),
            token: format!("pypi-demo-{}", random()?),
        };
        private(&home.project())?;
        Ok(home)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The directory that has a `.keyloan.toml`.
    pub(crate) fn project(&self) -> PathBuf {
        self.root.join("home").join("project")
    }

    /// The set that is used without a name, and more sets.
    pub(crate) fn write_manifest(&self, more: &str) -> Result<()> {
        let set =
            "[env]\nTWINE_USERNAME = { value = \"__token__\" }\nTWINE_PASSWORD = \"local://pypi/token\"\n";
        let text = format!("{set}{more}");
        let path = self.project().join(".keyloan.toml");
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// A program in the project's directory, with the environment of this home and nothing else but what a
    /// terminal needs. A name without a slash is looked for among keyloan's programs first.
    pub(crate) fn command(&self, program: &str) -> Command {
        let own = self.programs.join(program);
        let mut command = Command::new(if own.exists() { own } else { program.into() });
        command.current_dir(self.project()).env_clear();
        for (name, directory) in DIRECTORIES {
            command.env(name, self.root.join(directory));
        }
        for name in ["TERM", "LANG", "SHELL"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        let mut path = self.programs.clone().into_os_string();
        if let Some(rest) = std::env::var_os("PATH") {
            path.push(":");
            path.push(rest);
        }
        command.env("PATH", path);
        command
    }

    /// Removes everything; fails if anything is left.
    pub(crate) fn close(mut self) -> Result<()> {
        // Dropping the pipe's end is the janitor's sign.
        drop(self.janitor.stdin.take());
        self.janitor.wait().context("cannot wait for the removal of the throwaway home")?;
        if self.root.exists() {
            bail!("{} could not be removed", self.root.display());
        }
        Ok(())
    }

    pub(crate) fn holds_token(&self, bytes: &[u8]) -> bool {
        bytes.windows(self.token.len()).any(|window| window == self.token.as_bytes())
    }
}

/// In a process group of its own, so that Ctrl-C does not reach it.
fn janitor(root: &Path, keyloan: &Path) -> Result<Child> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", JANITOR, "janitor"]).arg(keyloan).arg(root);
    for (name, directory) in DIRECTORIES {
        command.env(name, root.join(directory));
    }
    let command = command.stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
    command.spawn().context("cannot start /bin/sh")
}

/// A value that a program reads from a descriptor. It is never in argv, the environment or a file.
pub(crate) struct Handed(PipeReader);

impl Handed {
    /// At most a page, which a pipe takes without a reader.
    pub(crate) fn new(value: &str) -> Result<Self> {
        let (reader, mut writer) = std::io::pipe().context("cannot make a pipe")?;
        writer.write_all(value.as_bytes())?;
        // Every program that is started before this is dropped inherits it: start just the one.
        fcntl(&reader, FcntlArg::F_SETFD(FdFlag::empty())).context("cannot hand over a pipe")?;
        Ok(Self(reader))
    }

    pub(crate) fn number(&self) -> String {
        self.0.as_raw_fd().to_string()
    }
}

/// 32 hexadecimal digits.
fn random() -> Result<String> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("/dev/urandom")?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

/// Runs to the end without a word, unless it fails: then the error holds what it said.
pub(crate) fn quietly(command: &mut Command) -> Result<()> {
    let line = shown(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
