//! `cargo xtask bench vault`: what the size of the vault costs. A vault of ten items and one of ten thousand are
//! measured in turns, in one run, so that only the ratio counts; and many commands at once and in a row, each of
//! which must end as it would without keyloan.

use crate::Failure;
use crate::bench::{Times, prepare};
use crate::process::shown;
use crate::release::{self, Programs};
use crate::throwaway::{Handed, Home, quietly};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SMALL: usize = 10;
const LARGE: usize = 10_000;
/// Writes measured on each vault; the memory is looked at after them.
const WRITES: usize = 1000;
const UNLOCKS: usize = 15;
const LENDS: usize = 300;
const AT_ONCE: usize = 100;
const IN_A_ROW: usize = 10_000;

struct Measured {
    what: &'static str,
    value: f64,
    unit: &'static str,
    target: f64,
}

impl Measured {
    fn is_met(&self) -> bool {
        self.value <= self.target
    }
}

pub(crate) fn run(arguments: &[&str]) -> Result<(), Failure> {
    let file = match arguments {
        [] => None,
        ["--json", file] => Some(*file),
        _ => return Err(Failure::Usage("`bench vault` takes `--json FILE`".to_owned())),
    };
    let programs = release::build()?;
    let vaults = [Vault::filled(&programs, SMALL)?, Vault::filled(&programs, LARGE)?];
    let mut measured = unlocks(&vaults[1])?;
    measured.extend(writes(&vaults)?);
    measured.push(memory(&vaults[1])?);
    measured.extend(lends(&vaults)?);
    println!("\nstarting {AT_ONCE} commands at once, {IN_A_ROW} in a row");
    let wrong = at_once(&vaults[1])? + in_a_row(&vaults[1])?;
    measured.push(Measured { what: "exit statuses that were wrong", value: wrong, unit: "", target: 0.0 });
    for vault in vaults {
        vault.home.close()?;
    }
    report(&measured, file)?;
    if measured.iter().all(Measured::is_met) { Ok(()) } else { Err(Failure::Status(1)) }
}

struct Vault {
    home: Home,
    /// Opens the vault without a key derivation.
    key: String,
}

impl Vault {
    fn filled(programs: &Programs, items: usize) -> Result<Self> {
        println!("filling a vault with {items} items");
        let home = Home::new(programs)?;
        prepare(&home)?;
        let passphrase = Handed::new(&home.passphrase)?;
        let page = home
            .command("keyloan")
            .args(["recovery-key", "--passphrase-fd", &passphrase.number()])
            .output()?;
        drop(passphrase);
        let page = String::from_utf8(page.stdout)?;
        let lines = page.lines().skip_while(|line| !line.trim_start().starts_with("AGE-S"));
        let key = lines.take_while(|line| !line.is_empty()).collect::<String>();
        let vault = Self { home, key };
        // One is there already, for lending.
        for item in 1..items {
            vault.set(item)?;
        }
        Ok(vault)
    }

    fn set(&self, item: usize) -> Result<()> {
        let mut set = self.home.command("keyloan");
        set.args(["item", "set", &format!("registry/{item:05}"), "token"]);
        let mut child = set.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        child.stdin.take().context("no pipe")?.write_all(self.home.token.as_bytes())?;
        if !child.wait()?.success() {
            bail!("`{}` failed", shown(&set));
        }
        Ok(())
    }

    fn unlock(&self) -> Result<()> {
        let key = Handed::new(&self.key)?;
        quietly(self.home.command("keyloan").args(["unlock", "--passphrase-fd", &key.number()]))
    }

    /// The daemon's resident memory in MiB, as `status` names its pid.
    fn resident(&self) -> Result<f64> {
        let status = self.home.command("keyloan").args(["status", "--json"]).output()?;
        let status: Value = serde_json::from_slice(&status.stdout)?;
        let pid = status["pid"].as_u64().context("no daemon runs")?;
        let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kibibytes: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(kibibytes / 1024.0)
    }

    fn command(&self, line: &str) -> Command {
        let mut command = self.home.command("with-secrets");
        command.args(["--", "sh", "-c", line]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

fn milliseconds(microseconds: f64) -> f64 {
    microseconds / 1000.0
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

fn unlocks(vault: &Vault) -> Result<Vec<Measured>> {
    let mut times = Vec::with_capacity(UNLOCKS);
    for _ in 0..UNLOCKS {
        quietly(vault.home.command("keyloan").args(["daemon", "stop"]))?;
        quietly(vault.home.command("keyloan").args(["daemon", "start"]))?;
        times.push(timed(|| vault.unlock())?);
    }
    let value = milliseconds(Times::of(&mut times).median);
    let what = "unlock, 10,000 items, without key derivation";
    Ok(vec![Measured { what, value, unit: "ms", target: 100.0 }])
}

/// Values are replaced in both vaults in turns.
fn writes(vaults: &[Vault; 2]) -> Result<Vec<Measured>> {
    let mut times = [Vec::with_capacity(WRITES), Vec::with_capacity(WRITES)];
    for round in 0..WRITES {
        for turn in 0..2 {
            let which = (round + turn) % 2;
            let item = 1 + round % (SMALL - 1);
            times[which].push(timed(|| vaults[which].set(item))?);
        }
    }
    let [small, large] = times.map(|mut times| Times::of(&mut times).median);
    println!(
        "item set: {:.2} ms with 10 items, {:.2} ms with 10,000",
        milliseconds(small),
        milliseconds(large)
    );
    let what = "item set, 10,000 items against 10";
    Ok(vec![Measured { what, value: large / small, unit: "x", target: 1.5 }])
}

fn memory(vault: &Vault) -> Result<Measured> {
    let what = "resident memory after unlock and 1,000 writes";
    Ok(Measured { what, value: vault.resident()?, unit: "MiB", target: 14.0 })
}

fn lends(vaults: &[Vault; 2]) -> Result<Vec<Measured>> {
    let mut times = [Vec::with_capacity(LENDS), Vec::with_capacity(LENDS)];
    for round in 0..LENDS {
        for turn in 0..2 {
            let which = (round + turn) % 2;
            let mut lend = vaults[which].home.command("with-secrets");
            lend.args(["--only", "TWINE_PASSWORD", "--", "true"]);
            times[which].push(timed(|| quietly(&mut lend))?);
        }
    }
    let [small, large] = times.map(|mut times| Times::of(&mut times).median);
    println!("lending one variable: {small:.0} us with 10 items, {large:.0} us with 10,000");
    let what = "lending one variable, 10,000 items against 10";
    Ok(vec![Measured { what, value: large / small, unit: "x", target: 1.1 }])
}

/// What a command does, and how it must end: by a status or by a signal.
fn ending(number: usize) -> (&'static str, Option<i32>, Option<i32>) {
    match number % 4 {
        0 => ("test -n \"$TWINE_PASSWORD\"", Some(0), None),
        1 => ("exit 7", Some(7), None),
        2 => ("kill -TERM $$", None, Some(15)),
        _ => ("kill -KILL $$", None, Some(9)),
    }
}

fn is_wrong(mut child: Child, number: usize) -> Result<bool> {
    let status = child.wait()?;
    let (_, code, signal) = ending(number);
    Ok((status.code(), status.signal()) != (code, signal))
}

fn at_once(vault: &Vault) -> Result<f64> {
    let started = (0..AT_ONCE).map(|number| vault.command(ending(number).0).spawn());
    let started = started.collect::<std::io::Result<Vec<_>>>()?;
    let mut wrong = 0.0;
    for (number, child) in started.into_iter().enumerate() {
        wrong += f64::from(is_wrong(child, number)?);
    }
    Ok(wrong)
}

fn in_a_row(vault: &Vault) -> Result<f64> {
    let mut wrong = 0.0;
    for number in 0..IN_A_ROW {
        let child = vault.command(ending(number).0).spawn()?;
        wrong += f64::from(is_wrong(child, number)?);
    }
    Ok(wrong)
}

fn report(measured: &[Measured], file: Option<&str>) -> Result<()> {
    println!("\n{:<48}{:>12}{:>14}", "", "median", "target");
    for one in measured {
        let value = format!("{:.2} {}", one.value, one.unit);
        let target = format!("<= {} {}", one.target, one.unit);
        let met = if one.is_met() { "met" } else { "MISSED" };
        println!("{:<48}{value:>12}{target:>14}  {met}", one.what);
    }
    let rows: Vec<Value> = measured
        .iter()
        .map(|one| json!({ "what": one.what, "value": one.value, "unit": one.unit, "target": one.target, "met": one.is_met() }))
        .collect();
    let text = format!("{:#}\n", json!({ "benchmark": "vault", "measured": rows }));
    if let Some(file) = file {
        return fs::write(file, text).with_context(|| format!("cannot write {file}"));
    }
    print!("\n{text}");
    Ok(())
}
