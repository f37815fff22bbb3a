//! `cargo xtask bench lend`: what lending costs, beside what `env(1)` costs on the same machine in the same
//! minute. Only the ratio means anything elsewhere.

use crate::Failure;
use crate::release::{self, Programs};
use crate::throwaway::{Handed, Home, quietly};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Lending costs no more than `env(1)`: the ratio of the medians.
const TARGET: f64 = 1.0;

const WARM_UP: usize = 50;
const ROUNDS: usize = 400;

struct Options<'a> {
    rounds: usize,
    json: Option<&'a str>,
}

pub(crate) fn run(arguments: &[&str]) -> Result<(), Failure> {
    let options = parse(arguments)?;
    let programs = release::build()?;
    let home = Home::new(&programs)?;
    prepare(&home)?;
    let [mut lent, mut plain] = measure(&home, &programs, options.rounds)?;
    home.close()?;
    let (lent, plain) = (Times::of(&mut lent), Times::of(&mut plain));
    let median = ratio(lent.median, plain.median);
    let minimum = ratio(lent.minimum, plain.minimum);
    let met = median <= TARGET;
    print_table(&lent, &plain, median, minimum);
    report(&options, &lent, &plain, &[median, minimum])?;
    if met { Ok(()) } else { Err(Failure::Status(1)) }
}

fn parse<'a>(arguments: &[&'a str]) -> Result<Options<'a>, Failure> {
    let mut options = Options { rounds: ROUNDS, json: None };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match (*argument, rest.next()) {
            ("--json", Some(file)) => options.json = Some(file),
            ("--rounds", Some(number)) => {
                let rounds = number.parse().ok().filter(|rounds| *rounds > 0);
                options.rounds =
                    rounds.ok_or_else(|| Failure::Usage(format!("{number} is no number of rounds")))?;
            }
            _ => return Err(Failure::Usage("`bench lend` takes `--rounds N` and `--json FILE`".to_owned())),
        }
    }
    Ok(options)
}

/// A warm daemon that lends by rule, and proof that it does: a path that fails is fast and worth nothing.
pub(crate) fn prepare(home: &Home) -> Result<()> {
    let passphrase = Handed::new(&home.passphrase)?;
    let pin = Handed::new(&home.pin)?;
    let mut init = home.command("keyloan");
    quietly(init.args(["init", "--passphrase-fd", &passphrase.number(), "--pin-fd", &pin.number()]))?;
    drop((passphrase, pin));
    let passphrase = Handed::new(&home.passphrase)?;
    let mut policy = home.command("keyloan");
    policy.args(["policy", "set", "env=allow", "item.write=allow", "trust=allow", "--passphrase-fd"]);
    quietly(policy.arg(passphrase.number()))?;
    drop(passphrase);
    let mut store = home.command("keyloan");
    store.args(["item", "set", "pypi", "token"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut store = store.spawn().context("cannot start `keyloan item set`")?;
    // Taken out, and so closed when it is written: the end of the value.
    store.stdin.take().context("no pipe")?.write_all(home.token.as_bytes())?;
    let stored = store.wait_with_output()?;
    if !stored.status.success() {
        bail!("`keyloan item set` failed: {}", String::from_utf8_lossy(&stored.stderr));
    }
    home.write_manifest("")?;
    quietly(home.command("keyloan").arg("trust"))?;
    let lent = home.command("with-secrets").args(["--", "printenv", "TWINE_PASSWORD"]).output()?;
    if lent.stdout.trim_ascii() != home.token.as_bytes() {
        bail!("`with-secrets` did not lend: {}", String::from_utf8_lossy(&lent.stderr));
    }
    Ok(())
}

/// Wall times of both, taken in turns, so that whatever else the machine does falls on both.
fn measure(home: &Home, programs: &Programs, rounds: usize) -> Result<[Vec<Duration>; 2]> {
    let quiet = |mut command: Command| {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        command
    };
    let mut lent = home.command("with-secrets");
    lent.args(["--", "true"]);
    let mut plain = home.command("env");
    plain.args(["FOO=bar", "true"]);
    let mut commands = [quiet(lent), quiet(plain)];
    // The caller's own PATH: the directory that the throwaway home puts first would be one look-up more.
    if let Some(path) = std::env::var_os("PATH") {
        for command in &mut commands {
            command.env("PATH", &path);
        }
    }
    println!("measuring {} in {rounds} rounds", programs.path("with-secrets").display());
    let mut times = [Vec::with_capacity(rounds), Vec::with_capacity(rounds)];
    for round in 0..WARM_UP + rounds {
        // Who goes first changes with each round: the second finds warmer caches.
        for turn in 0..2 {
            let which = (round + turn) % 2;
            let start = Instant::now();
            let status = commands[which].status();
            let taken = start.elapsed();
            if !status.is_ok_and(|status| status.success()) {
                bail!("round {round}: `{}` failed", crate::process::shown(&commands[which]));
            }
            if round >= WARM_UP {
                times[which].push(taken);
            }
        }
    }
    Ok(times)
}

pub(crate) struct Times {
    /// Microseconds.
    pub(crate) median: f64,
    minimum: f64,
}

impl Times {
    pub(crate) fn of(times: &mut [Duration]) -> Self {
        times.sort_unstable();
        let microseconds = |index: usize| times[index].as_secs_f64() * 1e6;
        let middle = times.len() / 2;
        let median = if times.len() % 2 == 1 {
            microseconds(middle)
        } else {
            f64::midpoint(microseconds(middle - 1), microseconds(middle))
        };
        Self { median, minimum: microseconds(0) }
    }

    fn json(&self, command: &str) -> Value {
        let tenths = |value: f64| (value * 10.0).round() / 10.0;
        json!({ "command": command, "median_us": tenths(self.median), "minimum_us": tenths(self.minimum) })
    }
}

const LENT: &str = "with-secrets -- true";
const PLAIN: &str = "env FOO=bar true";

fn ratio(lent: f64, plain: f64) -> f64 {
    lent / plain
}

fn print_table(lent: &Times, plain: &Times, median: f64, minimum: f64) {
    println!("\n{:<24}{:>12}{:>12}", "", "median", "minimum");
    for (name, times) in [(LENT, lent), (PLAIN, plain)] {
        println!("{name:<24}{:>9.0} µs{:>9.0} µs", times.median, times.minimum);
    }
    println!("{:<24}{median:>12.3}{minimum:>12.3}", "ratio");
    println!("{:<24}{:>12}{:>12}", "target", format!("<= {TARGET:.3}"), "-");
    println!("{:<24}{:>12}", "", if median <= TARGET { "met" } else { "MISSED" });
}

fn report(options: &Options<'_>, lent: &Times, plain: &Times, ratios: &[f64; 2]) -> Result<()> {
    let [median, minimum] = ratios;
    let report = json!({
        "benchmark": "lend",
        "rounds": options.rounds,
        "times": [lent.json(LENT), plain.json(PLAIN)],
        "ratios": [
            { "of": "median", "ratio": median, "target": TARGET, "met": *median <= TARGET },
            { "of": "minimum", "ratio": minimum, "target": null, "met": null },
        ],
    });
    let text = format!("{report:#}\n");
    if let Some(file) = options.json {
        return fs::write(file, text).with_context(|| format!("cannot write {file}"));
    }
    print!("\n{text}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_of_times_lies_between_the_middle_two() {
        let mut times = [4, 1, 3, 2].map(Duration::from_micros);
        let times = Times::of(&mut times);
        assert!((times.median - 2.5).abs() < 1e-6 && (times.minimum - 1.0).abs() < 1e-6);
    }
}
