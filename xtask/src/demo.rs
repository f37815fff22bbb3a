//! `cargo xtask demo`: the main use of keyloan, step by step, in a throwaway home. Each step says why it is
//! taken, shows the command line that runs and checks what came of it; any surprise ends the demo with 1.
//!
//! On a terminal the person is asked for real. Elsewhere nobody could answer, so an approver program does.

mod shells;
mod terminal;

use crate::Failure;
use crate::process::shown;
use crate::release;
use crate::throwaway::{Handed, Home};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What no tier prevents, whatever `keyloan status` says of this installation.
const NOT_PREVENTED: &[&str] = &[
    "while the command runs, code of your user can read what was lent from /proc/PID/environ",
    "such code can trace your shell, your editor and your terminal, and read and push keys there",
    "such code can imitate any prompt, and change PATH, your dotfiles or the program that you lend to",
    "what a command has read it can keep and pass on: lend only to a command that you would hand it to",
];

/// How long a daemon may take to notice that a process ended, or to end itself.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn run() -> Result<(), Failure> {
    let programs = release::build()?;
    let home = Home::new(&programs)?;
    let attended = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let demo = Demo { home, attended };
    println!("\nThe home of this demo is {}; it is removed at the end.", demo.home.root().display());
    if attended {
        println!(
            "This is a terminal: keyloan asks you for real, for a passphrase and a PIN of this demo alone."
        );
    } else {
        println!("This is no terminal: nobody can be asked, so an approver program says yes, and later no.");
    }
    demo.make_vault()?;
    demo.store()?;
    demo.lend()?;
    demo.lend_to_shells()?;
    demo.show_who_has_it()?;
    demo.tell_what_is_left_over()?;
    demo.show_log()?;
    demo.end()?;
    println!("\nThe demo went as it should.");
    Ok(())
}

struct Demo {
    home: Home,
    attended: bool,
}

/// A step's standard output and status. Its standard error went to the terminal.
struct Outcome {
    line: String,
    stdout: Vec<u8>,
    status: Option<i32>,
}

impl Outcome {
    fn ended_with(self, expected: i32) -> Result<Self> {
        match self.status {
            Some(status) if status == expected => Ok(self),
            Some(status) => bail!("`{}` ended with {status}, not {expected}", self.line),
            None => bail!("`{}` was ended by a signal", self.line),
        }
    }

    fn printed(self, expected: &[u8]) -> Result<Self> {
        ensure!(self.stdout == expected, "`{}` did not print what it should have", self.line);
        Ok(self)
    }
}

fn announce(why: &str, line: &str) {
    println!("\n# {why}\n$ {line}");
}

impl Demo {
    /// A `keyloan` command of plain words.
    fn keyloan(&self, words: &str) -> Command {
        let mut command = self.home.command("keyloan");
        command.args(words.split(' '));
        command
    }

    fn with_secrets(&self, command: &[&str]) -> Command {
        let mut lend = self.home.command("with-secrets");
        lend.arg("--").args(command);
        lend
    }

    /// Runs a command, given `input`, and prints what it prints.
    fn step(why: &str, mut command: Command, input: Option<&str>) -> Result<Outcome> {
        let line = shown(&command);
        announce(why, &input.map_or_else(|| line.clone(), |_| format!("printf %s \"$token\" | {line}")));
        let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
        let mut child = command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{line}`"))?;
        if let (Some(input), Some(mut pipe)) = (input, child.stdin.take()) {
            pipe.write_all(input.as_bytes()).with_context(|| format!("`{line}` did not read its input"))?;
        }
        let output = child.wait_with_output()?;
        std::io::stdout().write_all(&output.stdout)?;
        Ok(Outcome { line, stdout: output.stdout, status: output.status.code() })
    }

    /// Runs a command that asks for its own secrets: on the terminal, or from descriptors named by options.
    fn step_with_secrets_of_its_own(
        &self,
        why: &str,
        mut command: Command,
        handed: &[(&str, &str)],
    ) -> Result<()> {
        if self.attended {
            announce(why, &shown(&command));
            ensure!(command.status()?.success(), "`{}` failed", shown(&command));
            return Ok(());
        }
        let pipes = handed
            .iter()
            .map(|(option, value)| Ok((*option, Handed::new(value)?)))
            .collect::<Result<Vec<_>>>()?;
        for (option, pipe) in &pipes {
            command.args([*option, &pipe.number()]);
        }
        Self::step(why, command, None)?.ended_with(0)?;
        Ok(())
    }

    fn make_vault(&self) -> Result<()> {
        let passphrase = ("--passphrase-fd", self.home.passphrase.as_str());
        let pin = ("--pin-fd", self.home.pin.as_str());
        let made_up = if self.attended { "" } else { " (both made up, and handed over on pipes)" };
        self.step_with_secrets_of_its_own(
            &format!("make a vault: a passphrase opens it, a PIN approves{made_up}"),
            self.keyloan("init"),
            &[passphrase, pin],
        )?;
        if self.status()?["vault"] != "unlocked" {
            self.unlock()?;
        }
        if !self.attended {
            self.set_approver(
                "allow",
                "who says yes where nobody can be asked: a program, set with the passphrase",
            )?;
        }
        Ok(())
    }

    fn unlock(&self) -> Result<()> {
        let passphrase = ("--passphrase-fd", self.home.passphrase.as_str());
        self.step_with_secrets_of_its_own("open the vault", self.keyloan("unlock"), &[passphrase])
    }

    /// Writes an approver program that always gives the same answer, and sets it.
    fn set_approver(&self, decision: &str, why: &str) -> Result<()> {
        let path = self.home.root().join(decision);
        let answer = format!(r#"{{"decision":"{decision}","scope":"once"}}"#);
        // Without cat: an approver program runs with an empty environment, so without PATH.
        let script = format!("#!/bin/sh\nwhile read -r line; do :; done\necho '{answer}'\n");
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o700).open(&path)?;
        file.write_all(script.as_bytes())?;
        drop(file);
        let mut command = self.keyloan("policy set");
        command.arg(format!("approver.command={}", path.display()));
        self.step_with_secrets_of_its_own(why, command, &[("--passphrase-fd", &self.home.passphrase)])
    }

    fn store(&self) -> Result<()> {
        let set = self.keyloan("item set pypi token");
        Self::step(
            "store a token; it comes through a pipe and is in no argument",
            set,
            Some(&self.home.token),
        )?
        .ended_with(0)?;
        self.home.write_manifest(shells::DEPLOY)?;
        let mut show = self.home.command("cat");
        show.arg(".keyloan.toml");
        Self::step("this directory's file names the token and does not hold it", show, None)?
            .ended_with(0)?;
        let trust = self.keyloan("trust");
        Self::step("a file counts only after a yes, and only as it is now", trust, None)?.ended_with(0)?;
        Ok(())
    }

    fn lend(&self) -> Result<()> {
        let command = self.with_secrets(&["printenv", "TWINE_PASSWORD"]);
        Self::step("lend it to one command, which prints what it got", command, None)?
            .ended_with(0)?
            .printed(format!("{}\n", self.home.token).as_bytes())?;
        Ok(())
    }

    /// While one command holds the token, nobody beside it has it or gets it.
    fn show_who_has_it(&self) -> Result<()> {
        let mut neighbour =
            Guard(self.home.command("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?);
        let mut holder = self.start_holder()?;
        let loans = Self::step("what is lent at the moment", self.keyloan("loans"), None)?.ended_with(0)?;
        let listed = format!("pid {}", holder.0.id());
        ensure!(String::from_utf8_lossy(&loans.stdout).contains(&listed), "no loan to {listed} is listed");

        let mut shell = self.home.command("sh");
        shell.args(["-c", "printenv TWINE_PASSWORD"]);
        Self::step("the shell beside it has nothing in its environment", shell, None)?
            .ended_with(1)?
            .printed(b"")?;
        println!("nothing there");
        self.search_environments(&holder.0, &neighbour.0)?;
        self.ask_in_vain()?;
        ensure!(holder.0.try_wait()?.is_none(), "the command that holds the token ended too early");
        neighbour.end()?;
        holder.end()?;
        self.wait_for_end_of_loan(&listed)
    }

    /// A command that says what it was lent and then runs until its input ends.
    fn start_holder(&self) -> Result<Guard> {
        let mut command = self.with_secrets(&["sh", "-c", "printenv TWINE_PASSWORD; exec cat"]);
        announce("lend it to a command that goes on running", &format!("{} &", shown(&command)));
        let mut holder = Guard(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
        let mut first = String::new();
        let stdout = holder.0.stdout.take().context("no pipe")?;
        BufReader::new(stdout).read_line(&mut first)?;
        print!("{first}");
        ensure!(first.trim_end() == self.home.token, "the command was not lent the token");
        Ok(holder)
    }

    /// The search that finds the token in the one process must not find it in the other.
    fn search_environments(&self, holder: &Child, neighbour: &Child) -> Result<()> {
        let search = |why: &str, process: &Child| {
            let mut grep = self.home.command("grep");
            grep.args(["-zq", "^TWINE_PASSWORD="]).arg(format!("/proc/{}/environ", process.id()));
            Self::step(why, grep, None).map(|outcome| outcome.status)
        };
        let why = "code of this user looks into the environment of the command that holds it";
        match search(why, holder)? {
            Some(0) => println!("found: nothing here prevents that while the command runs"),
            // What the better tiers are for.
            Some(2) => println!("not readable"),
            _ => bail!("the command that was lent the token does not have it in its environment"),
        }
        let why = "and into that of a process that runs beside it";
        ensure!(
            search(why, neighbour)? == Some(1),
            "a process beside the command has the token, or cannot be read"
        );
        println!("nothing there");
        Ok(())
    }

    fn ask_in_vain(&self) -> Result<()> {
        let why = if self.attended {
            "a process beside it asks for the token: now say NO (Enter alone, without the PIN)"
        } else {
            self.set_approver("deny", "from now on the approver says no")?;
            "a process beside it asks for the token"
        };
        let get = self.keyloan("item get pypi token");
        Self::step(why, get, None)?.ended_with(6)?.printed(b"")?;
        println!("nothing on standard output, and status 6: declined");
        if !self.attended {
            let lend = self.with_secrets(&["printenv", "TWINE_PASSWORD"]);
            Self::step("or to be lent it", lend, None)?.ended_with(125)?.printed(b"")?;
            println!("nothing on standard output, and status 125: the command never ran");
        }
        Ok(())
    }

    fn wait_for_end_of_loan(&self, listed: &str) -> Result<()> {
        let is_lent = || {
            let output = self.keyloan("loans").output()?;
            ensure!(output.status.success(), "`keyloan loans` failed");
            Ok(String::from_utf8_lossy(&output.stdout).contains(listed))
        };
        wait_until("the loan ended with the command", || is_lent().map(|lent| !lent))?;
        Self::step("the command has ended, and so has the loan", self.keyloan("loans"), None)?
            .ended_with(0)?;
        Ok(())
    }

    fn status(&self) -> Result<Value> {
        let output = self.keyloan("status --json").output()?;
        ensure!(output.status.success(), "`keyloan status --json` failed");
        serde_json::from_slice(&output.stdout).context("`keyloan status --json` did not print JSON")
    }

    fn tell_what_is_left_over(&self) -> Result<()> {
        let status = self.keyloan("status");
        Self::step("how well this installation protects", status, None)?.ended_with(0)?;
        let status = self.status()?;
        let tier = status["tier"].as_str().context("`keyloan status --json` names no tier")?;
        println!("\nWhat this installation ({}) does not prevent:", tier.replace('_', " "));
        if tier == "best_effort" {
            println!(
                "  - code of your user can stop or kill the daemon, and race it in the moment that it starts"
            );
        }
        let warnings = status["warnings"].as_array().context("`keyloan status --json` lists no warnings")?;
        for line in warnings.iter().filter_map(Value::as_str).chain(NOT_PREVENTED.iter().copied()) {
            println!("  - {line}");
        }
        Ok(())
    }

    fn show_log(&self) -> Result<()> {
        let log =
            Self::step("what was asked, answered and lent", self.keyloan("log"), None)?.ended_with(0)?;
        ensure!(!log.stdout.is_empty(), "the log is empty");
        ensure!(!self.home.holds_token(&log.stdout), "the log holds the token");
        let verify = self.keyloan("log --verify");
        Self::step("nobody changed it since", verify, None)?.ended_with(0)?;
        Ok(())
    }

    fn end(self) -> Result<()> {
        let root = self.home.root().to_owned();
        let mut search = self.home.command("grep");
        search.args(["-rlF", "-f", "-"]).arg(&root);
        Self::step("look for the token in every file of this home", search, Some(&self.home.token))?
            .ended_with(1)?
            .printed(b"")?;
        println!("in none: the vault's files are encrypted");
        let daemon = self.status()?["pid"].as_u64().context("`keyloan status --json` names no pid")?;
        Self::step("stop the daemon, which locks the vault", self.keyloan("daemon stop"), None)?
            .ended_with(0)?;
        let process = PathBuf::from(format!("/proc/{daemon}"));
        wait_until("the daemon ended", || Ok(!process.exists()))?;
        self.home.close()?;
        println!("\n{} is removed.", root.display());
        Ok(())
    }
}

fn wait_until(what: &str, mut reached: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !reached()? {
        ensure!(start.elapsed() < PATIENCE, "waited {} s in vain until {what}", PATIENCE.as_secs());
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A process that ends when its input does, and is killed if the demo fails before.
struct Guard(Child);

impl Guard {
    fn end(&mut self) -> Result<()> {
        drop(self.0.stdin.take());
        ensure!(self.0.wait()?.success(), "a command that was shown did not end well");
        Ok(())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Both fail where it has ended already, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
