//! `cargo xtask bench mask`: how fast output passes `with-secrets --mask`, beside `cat` in its place, in the same
//! minute. Both get the same text, in which nothing is to be hidden, and both are read through a pipe.

use crate::Failure;
use crate::bench::prepare;
use crate::process::shown;
use crate::release;
use crate::throwaway::Home;
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Megabytes a second: more than any program that prints for people makes.
const TARGET: f64 = 200.0;

const SIZE: usize = 512_000_000;
const ROUNDS: usize = 5;

const MASKED: &str = "with-secrets --mask -- cat";
const COPIED: &str = "cat | cat";

pub(crate) fn run(arguments: &[&str]) -> Result<(), Failure> {
    let file = match arguments {
        [] => None,
        ["--json", file] => Some(*file),
        _ => return Err(Failure::Usage("`bench mask` takes `--json FILE`".to_owned())),
    };
    let programs = release::build()?;
    let home = Home::new(&programs)?;
    prepare(&home)?;
    let text = home.root().join("text");
    write_text(&text)?;
    println!("passing {} MB {ROUNDS} times each way", SIZE / 1_000_000);
    let mut best = [0.0_f64; 2];
    for _ in 0..ROUNDS {
        let mut masked = home.command("with-secrets");
        masked.args(["--mask", "--", "cat"]).arg(&text);
        let mut copied = home.command("/bin/sh");
        copied.args(["-c", "cat \"$1\" | cat", "sh"]).arg(&text);
        for (best, mut command) in best.iter_mut().zip([masked, copied]) {
            *best = best.max(speed(&mut command)?);
        }
    }
    home.close()?;
    let [masked, copied] = best;
    let met = masked >= TARGET;
    println!("\n{:<28}{:>14}", "", "best");
    for (name, speed) in [(MASKED, masked), (COPIED, copied)] {
        println!("{name:<28}{speed:>9.0} MB/s");
    }
    println!("{:<28}{:>14}", "target", format!(">= {TARGET:.0} MB/s"));
    println!("{:<28}{:>14}", "", if met { "met" } else { "MISSED" });
    let report = json!({
        "benchmark": "mask",
        "rounds": ROUNDS,
        "bytes": SIZE,
        "speeds": [
            { "command": MASKED, "megabytes_per_second": masked.round(), "target": TARGET, "met": met },
            { "command": COPIED, "megabytes_per_second": copied.round(), "target": null, "met": null },
        ],
    });
    let report = format!("{report:#}\n");
    match file {
        Some(file) => fs::write(file, report).with_context(|| format!("cannot write {file}"))?,
        None => print!("\n{report}"),
    }
    if met { Ok(()) } else { Err(Failure::Status(1)) }
}

/// Lines as a build prints them, no two alike.
fn write_text(path: &Path) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut file = BufWriter::with_capacity(1 << 20, file);
    let (mut written, mut line) = (0, 0_u64);
    while written < SIZE {
        line += 1;
        let hash = line.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let text = format!("[{line:>9}] compiling module {hash:016x} (src/part-{}/lib.rs)\n", hash % 977);
        file.write_all(text.as_bytes())?;
        written += text.len();
    }
    Ok(file.flush()?)
}

/// Megabytes a second that a command prints.
fn speed(command: &mut Command) -> Result<f64> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("cannot start `{}`", shown(command)))?;
    let mut out = child.stdout.take().context("no pipe")?;
    let mut buffer = vec![0; 128 * 1024];
    let mut read = 0_u32;
    loop {
        match out.read(&mut buffer)? {
            0 => break,
            length => read += u32::try_from(length)?,
        }
    }
    let status = child.wait()?;
    let seconds = start.elapsed().as_secs_f64();
    if !status.success() || usize::try_from(read)? < SIZE {
        bail!("`{}` passed {read} bytes: {status}", shown(command));
    }
    Ok(f64::from(read) / 1e6 / seconds)
}
