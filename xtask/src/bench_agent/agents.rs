//! The two agents that are measured: keyloan's daemon, and `ssh-agent`, with what the system says of each.

use crate::process::shown;
use crate::throwaway::{Handed, Home, quietly};
use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

pub(super) struct Agent {
    pub(super) socket: PathBuf,
    pid: i32,
    clock: ClockId,
    /// `ssh-agent` ends with the program that it was started for: some seconds after its pipe from here is closed.
    _child: Option<Child>,
}

impl Agent {
    fn at(socket: PathBuf, pid: i32, child: Option<Child>) -> Result<Self> {
        let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid)).context("an agent has no clock")?;
        Ok(Self { socket, pid, clock, _child: child })
    }

    pub(super) fn keyloan(home: &Home) -> Result<Self> {
        let pid = i32::try_from(status(home)?["pid"].as_u64().context("no daemon runs")?)?;
        Self::at(home.root().join("run/keyloan/agent.sock"), pid, None)
    }

    pub(super) fn openssh(home: &Home) -> Result<Self> {
        let socket = home.root().join("openssh.sock");
        let mut command = home.command("ssh-agent");
        command.arg("-a").arg(&socket).args(["sh", "-c", "echo $SSH_AGENT_PID; exec cat"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start `{}`", shown(&command)))?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no pipe")?).read_line(&mut line)?;
        let pid = line.trim().parse().context("`ssh-agent` said no pid")?;
        Self::at(socket, pid, Some(child))
    }

    /// What all of its threads used, those that ended too, to the nanosecond (`clock_getcpuclockid`(3)).
    pub(super) fn used(&self) -> Result<Duration> {
        Ok(clock_gettime(self.clock).context("an agent ended")?.into())
    }

    /// Its resident memory in MiB.
    pub(super) fn resident(&self) -> Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kibibytes: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(kibibytes / 1024.0)
    }

    pub(super) fn add(&self, home: &Home, files: &[PathBuf]) -> Result<()> {
        // A command line holds only so much.
        for files in files.chunks(100) {
            quietly(home.command("ssh-add").env("SSH_AUTH_SOCK", &self.socket).args(files))?;
        }
        Ok(())
    }
}

pub(super) fn status(home: &Home) -> Result<Value> {
    let status = home.command("keyloan").args(["status", "--json"]).output()?;
    serde_json::from_slice(&status.stdout).context("`keyloan status` told nothing")
}

pub(super) fn set_policy(home: &Home, settings: &[&str]) -> Result<()> {
    let passphrase = Handed::new(&home.passphrase)?;
    let mut set = home.command("keyloan");
    quietly(set.args(["policy", "set"]).args(settings).args(["--passphrase-fd", &passphrase.number()]))
}

/// A key in a file, whose comment is the file's name.
pub(super) fn make_key(home: &Home, name: &str, kind: &[&str]) -> Result<PathBuf> {
    let file = home.root().join(name);
    quietly(home.command("ssh-keygen").args(["-q", "-N", "", "-C", name]).args(kind).arg("-f").arg(&file))?;
    Ok(file)
}

/// Puts a key into the vault.
pub(super) fn store_key(home: &Home, file: &Path) -> Result<()> {
    quietly(home.command("keyloan").args(["ssh", "add", "--keep"]).arg(file))
}
