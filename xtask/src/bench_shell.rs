//! `cargo xtask bench shell`: what keyloan costs before each prompt, in bash, zsh and fish, beside what direnv and mise
//! cost there, on the same machine in the same minute; what the start-up file costs once, by the documented line, which
//! starts keyloan, as a shell that has just started meets it, and by reading a file that was written before; and what
//! completion of an item costs at a press of Tab, with the start of keyloan. Each shell measures itself, with a loan out
//! and with nothing changed.

use crate::Failure;
use crate::bench::prepare;
use crate::process::{find, quoted, text, works};
use crate::release;
use crate::throwaway::{Home, quietly};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Microseconds a prompt.
const TARGET: f64 = 50.0;
/// Microseconds for the line in the start-up file, with the program that it starts.
const START: f64 = 2000.0;
/// Microseconds for live names.
const COMPLETE: f64 = 30_000.0;

const HOOKS: u32 = 20_000;
const PEERS: u32 = 200;
const STARTS: u32 = 50;
/// Shells that are started to read the line once each.
const SHELLS_STARTED: usize = 200;
const ROUNDS: usize = 5;

/// From npm, which has it for every system.
const MISE: &str = "@jdxcode/mise@2026.9.15";

struct Shell {
    name: &'static str,
    arguments: &'static [&'static str],
    /// Says how many microseconds one of NUMBER runs of LINE takes.
    timed: &'static str,
    load: &'static str,
    /// The name of direnv's function, and of mise's.
    peers: [&'static str; 2],
}

const SHELLS: [Shell; 3] = [
    Shell {
        name: "bash",
        arguments: &["--norc", "-c"],
        timed: "begin=${EPOCHREALTIME/./}; for ((n = 0; n < NUMBER; n++)); do LINE; done; \
                echo \"$(( (${EPOCHREALTIME/./} - begin) * 1000 / NUMBER ))\"\n",
        load: "eval \"$(HOOK)\"\n",
        peers: ["_direnv_hook", "_mise_hook"],
    },
    Shell {
        name: "zsh",
        arguments: &["-f", "-c"],
        timed: "zmodload zsh/datetime; begin=${EPOCHREALTIME/./}; for ((n = 0; n < NUMBER; n++)); do LINE; done; \
                end=${EPOCHREALTIME/./}; echo \"$(( (${end[1,16]} - ${begin[1,16]}) * 1000 / NUMBER ))\"\n",
        load: "eval \"$(HOOK)\"\n",
        peers: ["_direnv_hook", "_mise_hook"],
    },
    Shell {
        name: "fish",
        arguments: &["--no-config", "-c"],
        timed: "set begin (date +%s%N); for n in (seq NUMBER); LINE; end; \
                math -s0 \"(\" (date +%s%N) - $begin \") / NUMBER\"\n",
        load: "HOOK | source\n",
        peers: ["__direnv_export_eval", "__mise_env_eval"],
    },
];

/// The least microseconds of all rounds, since what is more is the machine's other work; of the line the median.
struct Times {
    shell: &'static str,
    keyloan: f64,
    /// With a loan that ends with a directory.
    leaving: f64,
    direnv: Option<f64>,
    mise: Option<f64>,
    /// From a file.
    start: f64,
    /// By the documented line.
    line: f64,
    complete: f64,
}

pub(crate) fn run(arguments: &[&str]) -> Result<(), Failure> {
    let file = match arguments {
        [] => None,
        ["--json", file] => Some(*file),
        _ => return Err(Failure::Usage("`bench shell` takes `--json FILE`".to_owned())),
    };
    let programs = release::build()?;
    let (_, target) = release::directories()?;
    let mise = mise(&target);
    if find("direnv").is_none() {
        println!("direnv is not there (apt-get install direnv): measured without it");
    }
    let home = Home::new(&programs)?;
    prepare(&home)?;
    let manifest = "[env]\nA = { value = \"a\" }\nTOKEN = \"local://pypi/token\"\n\
                    [sets.leaving.env]\nB = { value = \"b\" }\n[sets.leaving.shell]\nuntil-leaving = true\n";
    fs::write(home.project().join(".keyloan.toml"), manifest).context("cannot write .keyloan.toml")?;
    quietly(home.command("keyloan").arg("trust"))?;
    fs::write(home.project().join(".envrc"), "export FOO=bar\n").context("cannot write .envrc")?;
    fs::write(home.project().join("mise.toml"), "[env]\nFOO = \"bar\"\n")
        .context("cannot write mise.toml")?;
    let mut all = Vec::new();
    for shell in &SHELLS {
        println!("measuring in {}, {ROUNDS} rounds", shell.name);
        all.push(shell.measure(&home, mise.as_deref())?);
    }
    home.close()?;
    let met = all.iter().all(|times| {
        times.keyloan < TARGET && times.leaving < TARGET && times.line < START && times.complete < COMPLETE
    });
    print_table(&all);
    println!("{}", if met { "met" } else { "MISSED" });
    let report = json!({
        "benchmark": "shell",
        "rounds": ROUNDS,
        "target_us": TARGET,
        "start_target_us": START,
        "complete_target_us": COMPLETE,
        "met": met,
        "shells": all.iter().map(Times::json).collect::<Vec<_>>(),
    });
    let report = format!("{report:#}\n");
    match file {
        Some(file) => fs::write(file, report).with_context(|| format!("cannot write {file}"))?,
        None => print!("\n{report}"),
    }
    if met { Ok(()) } else { Err(Failure::Status(1)) }
}

/// Its program, fetched once into the target directory; none where npm cannot.
fn mise(target: &Path) -> Option<String> {
    if let Some(found) = find("mise") {
        return Some(found.display().to_string());
    }
    let root = target.join("tools/mise");
    let program = root.join("node_modules/@jdxcode/mise/bin/mise");
    if !program.exists() {
        println!("fetching mise by npm");
        let mut install = Command::new("npm");
        install.args(["install", "--no-fund", "--no-audit", "--prefix"]).arg(&root).arg(MISE);
        if !works(&mut install) {
            println!("npm has no mise for us: measured without it");
            return None;
        }
    }
    program.exists().then(|| program.display().to_string())
}

impl Shell {
    fn measure(&self, home: &Home, mise: Option<&str>) -> Result<Times> {
        let mut times = Times {
            shell: self.name,
            keyloan: f64::INFINITY,
            leaving: f64::INFINITY,
            direnv: None,
            mise: None,
            start: f64::INFINITY,
            line: 0.0,
            complete: f64::INFINITY,
        };
        for _ in 0..ROUNDS {
            let keyloan = self.hook();
            for (set, least) in [("", &mut times.keyloan), ("leaving", &mut times.leaving)] {
                let lines = self.lines("__keyloan_hook", HOOKS);
                *least = least.min(self.say(home, &format!("{keyloan}opvars {set} >/dev/null\n{lines}"))?);
            }
            let complete = "keyloan complete -- keyloan item get p >/dev/null";
            times.complete = times.complete.min(self.say(home, &self.lines(complete, STARTS))?);
            // Without the program that prints it: the text read from a file.
            let own = home.root().join("hook");
            let written = format!("keyloan shell {} >{}\n", self.name, quoted(own.as_os_str()));
            let read = format!("source {}", quoted(own.as_os_str()));
            times.start =
                times.start.min(self.say(home, &format!("{written}{}", self.lines(&read, STARTS)))?);
            if find("direnv").is_some() {
                let load = self.load.replace("HOOK", &format!("direnv hook {}", self.name));
                let script = format!(
                    "direnv allow\n{load}{0} 2>/dev/null\n{1}",
                    self.peers[0],
                    self.lines(self.peers[0], PEERS)
                );
                let took = self.say(home, &script)?;
                times.direnv = Some(times.direnv.map_or(took, |before: f64| before.min(took)));
            }
            if let Some(mise) = mise {
                let program = quoted(mise.as_ref());
                let load = self.load.replace("HOOK", &format!("{program} activate {}", self.name));
                let script = format!(
                    "{program} trust >/dev/null 2>&1\n{load}{0} 2>/dev/null\n{1}",
                    self.peers[1],
                    self.lines(self.peers[1], PEERS)
                );
                let took = self.say(home, &script)?;
                times.mise = Some(times.mise.map_or(took, |before: f64| before.min(took)));
            }
        }
        // fish asks a program for the time.
        let clock = self.median(home, "true")?;
        times.line = self.median(home, self.hook().trim_end())? - clock;
        Ok(times)
    }

    /// The documented line.
    fn hook(&self) -> String {
        self.load.replace("HOOK", &format!("keyloan shell {}", self.name))
    }

    /// Of a line that many shells run, each once.
    fn median(&self, home: &Home, line: &str) -> Result<f64> {
        let script = self.lines(line, 1);
        let mut all = (0..SHELLS_STARTED).map(|_| self.say(home, &script)).collect::<Result<Vec<_>>>()?;
        all.sort_by(f64::total_cmp);
        Ok(all[all.len() / 2])
    }

    fn lines(&self, line: &str, number: u32) -> String {
        self.timed.replace("LINE", line).replace("NUMBER", &number.to_string())
    }

    /// Runs a script whose last line is nanoseconds; microseconds.
    fn say(&self, home: &Home, script: &str) -> Result<f64> {
        let mut command = home.command(self.name);
        command.args(self.arguments).arg(script);
        let said = text(&mut command)?;
        let last = said.lines().next_back().unwrap_or_default();
        let Ok(nanoseconds) = last.trim().parse::<f64>() else { bail!("{} said: {said}", self.name) };
        Ok(nanoseconds / 1000.0)
    }
}

impl Times {
    fn json(&self) -> Value {
        let tenths = |value: f64| (value * 10.0).round() / 10.0;
        json!({
            "shell": self.shell,
            "keyloan_us": tenths(self.keyloan),
            "leaving_us": tenths(self.leaving),
            "direnv_us": self.direnv.map(tenths),
            "mise_us": self.mise.map(tenths),
            "start_us": tenths(self.start),
            "line_us": tenths(self.line),
            "complete_us": tenths(self.complete),
        })
    }
}

fn print_table(all: &[Times]) {
    println!(
        "\n{:<8}{:>12}{:>14}{:>19}{:>19}{:>13}{:>13}{:>13}",
        "", "keyloan", "until-leaving", "direnv", "mise", "from a file", "by the line", "completion"
    );
    for times in all {
        let peer = |took: Option<f64>| {
            took.map_or_else(|| "-".to_owned(), |took| format!("{took:.0} µs ({:.0}×)", took / times.keyloan))
        };
        println!(
            "{:<8}{:>9.1} µs{:>11.1} µs{:>19}{:>19}{:>10.0} µs{:>10.0} µs{:>10.0} µs",
            times.shell,
            times.keyloan,
            times.leaving,
            peer(times.direnv),
            peer(times.mise),
            times.start,
            times.line,
            times.complete
        );
    }
    println!(
        "{:<8}{:>9.0} µs{:>11.0} µs{:>19}{:>19}{:>13}{:>10.0} µs{:>10.0} µs",
        "target", TARGET, TARGET, "-", "-", "-", START, COMPLETE
    );
}
