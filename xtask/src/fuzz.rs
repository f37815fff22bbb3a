//! `cargo xtask fuzz`: gives the parsers bytes that a fuzzer makes up. A target is a file in `tests/fuzz/src/bin`.
//!
//! The instruments are the compiler's own, so the toolchain of the workspace is enough; `AddressSanitizer` wants a
//! nightly one. What is found interesting is kept in `target/fuzz/corpus` and is where the next run goes on.

use crate::process::{cargo, quoted, shown, succeed};
use crate::{Failure, release};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Of all targets together, unless said otherwise: what every run of the tests can spare. The fuzzer counts whole
/// seconds and one more, so that a second for each target takes twice as long.
const SECONDS: u64 = 10;

/// The sizes that coverage grows up to in minutes; what is longer is cut by the caps of the protocol, which have
/// their own tests.
const LONGEST_INPUT: &str = "-max_len=16384";

/// Megabytes. The parsers keep less than a few times their input, so what comes near this grows without a bound.
const MEMORY: u64 = 512;

/// A sanitizer's own memory.
const MEMORY_WITH_ASAN: u64 = 2048;

/// One input that takes longer, in seconds, is a fault too.
const SLOWEST_INPUT: &str = "-timeout=10";

const INSTRUMENTS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

struct Options<'a> {
    seconds: u64,
    target: Option<&'a str>,
    asan: bool,
}

/// Where things lie.
struct Places {
    /// The fuzzers' own workspace.
    fuzz: PathBuf,
    vectors: PathBuf,
    /// `target/fuzz`.
    work: PathBuf,
    programs: PathBuf,
}

/// What a target did.
struct Ran {
    runs: u64,
    seconds: u64,
    /// Edges of the program that some input reached.
    coverage: u64,
    inputs: usize,
}

pub(crate) fn run(arguments: &[&str]) -> Result<(), Failure> {
    let options = parse(arguments)?;
    let (workspace, target) = release::directories()?;
    let host = release::host()?;
    let work = target.join("fuzz");
    let build = work.join(if options.asan { "asan" } else { "build" });
    let places = Places {
        fuzz: workspace.join("tests/fuzz"),
        vectors: workspace.join("protocol/vectors"),
        programs: build.join(&host).join("release"),
        work,
    };
    let mut targets = places.targets()?;
    if let Some(only) = options.target {
        if !targets.iter().any(|name| name == only) {
            return Err(Failure::Usage(format!(
                "there is no target `{only}`; there are {}",
                targets.join(", ")
            )));
        }
        targets.retain(|name| name == only);
    }
    succeed(&mut build_command(&places, &build, &host, options.asan))?;
    seed_ssh(&places)?;
    let each = (options.seconds / targets.len() as u64).max(1);
    println!("\n{:<18}{:>12}{:>10}{:>10}{:>10}", "target", "runs", "runs/s", "coverage", "inputs");
    for name in &targets {
        let ran = fuzz(&places, name, each, options.asan)?;
        println!(
            "{name:<18}{:>12}{:>10}{:>10}{:>10}",
            ran.runs,
            ran.runs / ran.seconds.max(1),
            ran.coverage,
            ran.inputs
        );
    }
    Ok(())
}

fn parse<'a>(arguments: &[&'a str]) -> Result<Options<'a>, Failure> {
    let mut options = Options { seconds: SECONDS, target: None, asan: false };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match *argument {
            "--asan" => options.asan = true,
            "--target" => options.target = rest.next().copied(),
            "--seconds" => {
                let seconds = rest.next().and_then(|number| number.parse().ok()).filter(|number| *number > 0);
                options.seconds =
                    seconds.ok_or_else(|| Failure::Usage("`--seconds` takes a number above 0".to_owned()))?;
            }
            _ => {
                let takes = "`fuzz` takes `--seconds N`, `--target T` and `--asan`";
                return Err(Failure::Usage(takes.to_owned()));
            }
        }
    }
    Ok(options)
}

impl Places {
    /// The names of all targets, in order.
    fn targets(&self) -> Result<Vec<String>> {
        let mut names: Vec<String> = files(&self.fuzz.join("src/bin"), "rs")?
            .iter()
            .filter_map(|file| Some(file.file_stem()?.to_str()?.to_owned()))
            .collect();
        names.sort();
        if names.is_empty() {
            bail!("there is no target in {}", self.fuzz.display());
        }
        Ok(names)
    }

    /// Where a target begins.
    fn seeds(&self, name: &str) -> PathBuf {
        match name {
            "control" => self.vectors.clone(),
            _ if name.starts_with("ssh_") => self.work.join("seeds/ssh"),
            _ => self.fuzz.join("seeds").join(name),
        }
    }
}

/// The target is named even where it is the host, so that build scripts and macros are built without instruments.
fn build_command(places: &Places, build: &Path, host: &str, asan: bool) -> Command {
    let mut command = cargo();
    let mut flags = INSTRUMENTS.join(" ");
    if asan {
        // Cargo is another program in each toolchain; only rustup finds the nightly one's.
        command = Command::new("rustup");
        command.args(["run", "nightly", "cargo"]);
        flags.push_str(" -Zsanitizer=address");
        // Those of the toolchain that started this program.
        for variable in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN"] {
            command.env_remove(variable);
        }
    }
    command.current_dir(&places.fuzz).args(["build", "--locked", "--release", "--target", host]);
    command.arg("--target-dir").arg(build).env("RUSTFLAGS", flags);
    command
}

/// What OpenSSH's programs said, and every string in it: a key in a request is where the fuzzing of keys begins.
fn seed_ssh(places: &Places) -> Result<()> {
    let mut seeds = BTreeSet::new();
    for file in files(&places.vectors.join("ssh_agent"), "bin")? {
        let frame = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        // Without the length; and without the message's number.
        seeds.extend([4, 5].iter().filter_map(|&from| frame.get(from..)).map(<[u8]>::to_vec));
        seeds.extend((5..frame.len()).filter_map(|at| string_at(&frame, at)).map(<[u8]>::to_vec));
    }
    let directory = places.seeds("ssh_");
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    for (number, seed) in seeds.iter().enumerate() {
        let file = directory.join(number.to_string());
        fs::write(&file, seed).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// The string whose length stands there, if one does; of a few bytes there is nothing to learn.
fn string_at(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let (length, rest) = bytes.get(at..)?.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    rest.get(..length).filter(|string| string.len() > 16)
}

fn files(directory: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    Ok(paths.into_iter().filter(|path| path.extension() == Some(OsStr::new(extension))).collect())
}

/// Runs one target. What it says goes to a file; of a crash its end is shown, and how to have it again.
fn fuzz(places: &Places, name: &str, seconds: u64, asan: bool) -> Result<Ran> {
    let corpus = places.work.join("corpus").join(name);
    let crashes = places.work.join("crashes");
    for directory in [&corpus, &crashes] {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let log = places.work.join(format!("{name}.log"));
    let out = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = Command::new(places.programs.join(name));
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-rss_limit_mb={}", if asan { MEMORY_WITH_ASAN } else { MEMORY }));
    command.args([LONGEST_INPUT, SLOWEST_INPUT, "-print_final_stats=1", "-verbosity=1"]);
    // A file each, so that a second crash does not hide the first.
    command.arg(format!("-artifact_prefix={}/{name}-", crashes.display()));
    command.args([&corpus, &places.seeds(name)]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(out);
    let status = command.status().with_context(|| format!("cannot start `{}`", shown(&command)))?;
    let said = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    if !status.success() {
        bail!("{name}: {status}\n{}", crash(&said, &places.programs.join(name), &log));
    }
    let runs = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let runs = runs.and_then(|number| number.trim().parse().ok());
    // The last line of its kind is the newest.
    let coverage = said.lines().rev().find_map(|line| after(line, " cov: "));
    let (Some(runs), Some(coverage)) = (runs, coverage) else {
        bail!("{name} did not say what it did; see {}", log.display());
    };
    let taken = said.lines().rev().find_map(|line| after(line, " in ").filter(|_| line.starts_with("Done ")));
    let ran =
        Ran { runs, coverage, seconds: taken.unwrap_or(seconds), inputs: fs::read_dir(&corpus)?.count() };
    // Without instruments it would only guess, and nobody would notice.
    if ran.coverage == 0 || ran.runs == 0 {
        bail!("{name} was built without instruments, or did not run; see {}", log.display());
    }
    Ok(ran)
}

/// The number behind a word.
fn after(line: &str, word: &str) -> Option<u64> {
    let rest = line.split_once(word)?.1;
    rest.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

/// What a person needs to know of a crash.
fn crash(said: &str, program: &Path, log: &Path) -> String {
    let why = said.lines().filter(|line| {
        line.contains("panicked at")
            || line.starts_with("==")
            || line.starts_with("SUMMARY")
            || line.contains("left:")
            || line.contains("right:")
    });
    let mut lines: Vec<String> = why.take(8).map(|line| format!("  {line}")).collect();
    let reproducer =
        said.lines().find_map(|line| line.split_once("Test unit written to ").map(|(_, file)| file));
    lines.push(format!("  all of it: {}", log.display()));
    if let Some(file) = reproducer {
        let again = [program.as_os_str(), OsStr::new(file)].map(quoted).join(" ");
        lines.push(format!("to have it again:\n  {again}"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strings_of_a_message_are_found_where_their_lengths_stand() {
        let long = [b"\0\0\0\x14".as_slice(), &[7; 20]].concat();
        assert_eq!(string_at(&[b"x".as_slice(), &long].concat(), 1), Some([7; 20].as_slice()));
        assert_eq!(string_at(&long[..20], 0), None);
        assert_eq!(string_at(b"\0\0\0\x02ab", 0), None);
    }

    #[test]
    fn numbers_are_read_from_what_a_fuzzer_says() {
        let line = "#524288\tpulse  cov: 812 ft: 2101 corp: 310/41Kb lim: 4096 exec/s: 174762 rss: 48Mb";
        assert_eq!(after(line, " cov: "), Some(812));
        assert_eq!(after("Done 73110 runs in 2 second(s)", " in "), Some(2));
        assert_eq!(after("Done", " in "), None);
    }
}
