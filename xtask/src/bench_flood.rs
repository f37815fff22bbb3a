//! `cargo xtask bench flood`: a minute of requests without end from one place, while a terminal answers
//! (`keyloan approve`) and denies each question that comes up. Counted is how many came up and waited, measured what the
//! daemon's memory grew to, how soon the others were refused, and how long a request from another terminal waits.

use crate::Failure;
use crate::bench::prepare;
use crate::release;
use crate::throwaway::{Handed, Home, quietly};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const SECONDS: u64 = 60;
/// More than may wait, so that there are always some that are refused.
const CLIENTS: usize = 64;
const HONEST: usize = 5;
/// MiB, while no PIN is being checked: that takes 19 for its moment.
const MEMORY: f64 = 14.0;
/// Longer than keys to a new question do not count.
const READING: Duration = Duration::from_millis(400);

const REQUEST: &[u8] = br#"{"version":1,"body":{"item_get":{"item":"pypi","field":"token"}}}"#;
const FLOODS: &str = "keyloan: give out a value";
const HONESTS: &str = "keyloan: lend ";

pub(crate) fn run(arguments: &[&str]) -> Result<(), Failure> {
    let (seconds, file) = parse(arguments)?;
    let programs = release::build()?;
    let home = Home::new(&programs)?;
    prepare(&home)?;
    let key = reopen(&home)?;
    let board = Board::open(&home, &key)?;
    let before = memory(&home, "VmHWM:")?;
    println!("flooding for {seconds} seconds on {CLIENTS} connections");
    let flood = Flood::start(&home.root().join("run/keyloan/control.sock"));
    let mut most = 0;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(seconds) {
        most = most.max(status(&home)?["pending"].as_u64().context("no count")?);
        if board.asks(FLOODS) {
            thread::sleep(READING);
            board.press("d")?;
        }
        thread::sleep(Duration::from_millis(100));
    }
    let peak = memory(&home, "VmHWM:")?;
    let came_up = log(&home)?.iter().filter(|event| event["approver"] == "it was declined").count();
    let mut waits = Vec::new();
    for _ in 0..HONEST {
        waits.push(honest(&home, &board)?);
    }
    let mut refusals = flood.end()?;
    let checked = memory(&home, "VmHWM:")?;
    drop(board);
    home.close()?;
    if refusals.is_empty() {
        return Err(anyhow::anyhow!("nothing was refused").into());
    }
    refusals.sort_unstable();
    waits.sort_unstable();
    let at = |percent: usize| refusals[(refusals.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    let met = peak <= MEMORY && most <= 17;
    let longest = waits.last().copied().unwrap_or_default().as_secs_f64();
    println!();
    for (what, value) in [
        ("questions that came up, one at a time", came_up.to_string()),
        ("most that stood and waited at once (<= 17)", most.to_string()),
        ("refused", refusals.len().to_string()),
        ("refused within, median", format!("{:.2} ms", at(50))),
        ("refused within, 99 of 100", format!("{:.2} ms", at(99))),
        ("memory of the daemon before", format!("{before:.1} MiB")),
        ("memory of the daemon at most (<= 14 MiB)", format!("{peak:.1} MiB")),
        ("the same with PINs checked besides", format!("{checked:.1} MiB")),
        ("longest wait of another terminal's question", format!("{longest:.2} s")),
    ] {
        println!("{what:<48}{value:>14}");
    }
    println!("{:<48}{:>14}", "", if met { "met" } else { "MISSED" });
    let report = json!({
        "benchmark": "flood",
        "seconds": seconds,
        "came_up": came_up,
        "most_at_once": most,
        "refused": refusals.len(),
        "refusal_ms": { "p50": at(50), "p99": at(99) },
        "peak_mib": { "before": before, "flood": peak, "with_pin_checks": checked, "target": MEMORY },
        "honest_wait_s": waits.iter().map(Duration::as_secs_f64).collect::<Vec<_>>(),
        "met": met,
    });
    if let Some(file) = file {
        fs::write(file, format!("{report:#}\n")).with_context(|| format!("cannot write {file}"))?;
    }
    if met { Ok(()) } else { Err(Failure::Status(1)) }
}

fn parse<'a>(arguments: &[&'a str]) -> Result<(u64, Option<&'a str>), Failure> {
    let usage = || Failure::Usage("`bench flood` takes `--seconds N` and `--json FILE`".to_owned());
    let (mut seconds, mut file) = (SECONDS, None);
    for pair in arguments.chunks(2) {
        match pair {
            ["--seconds", number] => seconds = number.parse().map_err(|_| usage())?,
            ["--json", path] => file = Some(*path),
            _ => return Err(usage()),
        }
    }
    Ok((seconds, file))
}

/// A daemon that asks, and has derived no key from a passphrase, which takes 128 MiB for its moment; gives the recovery
/// key, which opens the vault without that.
fn reopen(home: &Home) -> Result<String> {
    let passphrase = Handed::new(&home.passphrase)?;
    let mut policy = home.command("keyloan");
    quietly(policy.args(["policy", "set", "env=ask", "--passphrase-fd", &passphrase.number()]))?;
    drop(passphrase);
    let key = recovery_key(home)?;
    quietly(home.command("keyloan").args(["daemon", "stop"]))?;
    quietly(home.command("keyloan").args(["daemon", "start"]))?;
    let handed = Handed::new(&key)?;
    quietly(home.command("keyloan").args(["unlock", "--passphrase-fd", &handed.number()]))?;
    Ok(key)
}

fn recovery_key(home: &Home) -> Result<String> {
    let passphrase = Handed::new(&home.passphrase)?;
    let page =
        home.command("keyloan").args(["recovery-key", "--passphrase-fd", &passphrase.number()]).output()?;
    let page = String::from_utf8(page.stdout)?;
    let lines = page.lines().skip_while(|line| !line.trim_start().starts_with("AGE-S"));
    Ok(lines.take_while(|line| !line.is_empty()).collect())
}

fn status(home: &Home) -> Result<Value> {
    let status = home.command("keyloan").args(["status", "--json"]).output()?;
    Ok(serde_json::from_slice(&status.stdout)?)
}

/// MiB, of `proc_pid_status`(5).
fn memory(home: &Home, what: &str) -> Result<f64> {
    let pid = status(home)?["pid"].as_u64().context("no daemon runs")?;
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(what)).context("the kernel does not say")?;
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kibibytes / 1024.0)
}

fn log(home: &Home) -> Result<Vec<Value>> {
    let text = fs::read_to_string(home.root().join("state/keyloan/audit.jsonl"))?;
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// A command on a terminal of its own.
fn on_terminal(home: &Home, line: &str) -> Command {
    let mut command = home.command("script");
    command.args(["-q", "-e", "-c", line, "/dev/null"]).env("SHELL", "/bin/sh");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// `keyloan approve`, and what it shows.
struct Board {
    child: Child,
    keys: Mutex<ChildStdin>,
    shown: Arc<Mutex<String>>,
    pin: String,
}

impl Board {
    fn open(home: &Home, key: &str) -> Result<Self> {
        let key = Handed::new(key)?;
        let line = format!("stty rows 50 cols 100; exec keyloan approve --passphrase-fd {}", key.number());
        let mut child = on_terminal(home, &line).spawn().context("cannot start script")?;
        drop(key);
        let keys = Mutex::new(child.stdin.take().context("no pipe")?);
        let mut out = child.stdout.take().context("no pipe")?;
        let shown = Arc::new(Mutex::new(String::new()));
        let board = Self { child, keys, shown: Arc::clone(&shown), pin: home.pin.clone() };
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = out.read(&mut piece) {
                let Ok(mut shown) = shown.lock() else { return };
                shown.push_str(&String::from_utf8_lossy(&piece[..length]));
                // The last picture or two.
                let from = shown.len().saturating_sub(40_000);
                let from = (from..shown.len()).find(|at| shown.is_char_boundary(*at)).unwrap_or(0);
                shown.drain(..from);
            }
        });
        board.expect("nothing is asked here")?;
        Ok(board)
    }

    /// Whether the last picture has that and none of the other states.
    fn asks(&self, what: &str) -> bool {
        let Ok(shown) = self.shown.lock() else { return false };
        let last = |text: &str| shown.rfind(text).map(|at| (at, text.to_owned()));
        let states = [FLOODS, HONESTS, "nothing is asked here", "PIN to allow, Enter alone goes back:"];
        states.into_iter().filter_map(last).max().is_some_and(|(_, text)| text == what)
    }

    fn expect(&self, what: &str) -> Result<()> {
        let start = Instant::now();
        while !self.asks(what) {
            if start.elapsed() > Duration::from_secs(30) {
                bail!("'{what}' never came up");
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn press(&self, keys: &str) -> Result<()> {
        let mut to = self.keys.lock().map_err(|_| anyhow::anyhow!("a thread failed"))?;
        to.write_all(keys.as_bytes())?;
        Ok(to.flush()?)
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        let _ = self.press("q");
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How long it takes until the question of a request from another terminal comes up; it is allowed then.
fn honest(home: &Home, board: &Board) -> Result<Duration> {
    let start = Instant::now();
    let mut asking = on_terminal(home, "exec with-secrets -- true").spawn()?;
    let mut wait = None;
    while asking.try_wait()?.is_none() {
        if board.asks(FLOODS) {
            thread::sleep(READING);
            board.press("d")?;
        } else if board.asks(HONESTS) {
            wait.get_or_insert(start.elapsed());
            thread::sleep(READING);
            board.press("a")?;
            board.expect("PIN to allow, Enter alone goes back:")?;
            board.press(&format!("{}\r", board.pin))?;
            thread::sleep(READING);
        }
        thread::sleep(Duration::from_millis(1));
        if start.elapsed() > Duration::from_secs(90) {
            bail!("another terminal's request never had its turn");
        }
    }
    let status = asking.wait()?;
    if !status.success() {
        bail!("another terminal's request was refused: {status}");
    }
    wait.context("it was allowed without a question")
}

/// Clients that ask again as soon as they are answered.
struct Flood {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Duration>>>,
}

impl Flood {
    fn start(socket: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let one = |_| {
            let (stop, socket) = (Arc::clone(&stop), socket.to_owned());
            thread::spawn(move || {
                let mut refusals = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    refusals.extend(ask(&socket, &stop));
                }
                refusals
            })
        };
        let threads = (0..CLIENTS).map(one).collect();
        Self { stop, threads }
    }

    fn end(self) -> Result<Vec<Duration>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for thread in self.threads {
            all.extend(thread.join().map_err(|_| anyhow::anyhow!("a thread failed"))?);
        }
        Ok(all)
    }
}

/// How soon it was refused unasked; nothing for what waited for its turn.
fn ask(socket: &Path, stop: &AtomicBool) -> Option<Duration> {
    let start = Instant::now();
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(Duration::from_millis(500))).ok()?;
    let length = u32::try_from(REQUEST.len()).ok()?;
    let frame = [&(length + 4).to_be_bytes(), &length.to_be_bytes(), REQUEST].concat();
    stream.write_all(&frame).ok()?;
    let mut reply = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => reply.extend_from_slice(&piece[..length]),
            Err(_) if stop.load(Ordering::Relaxed) => return None,
            Err(_) => {}
        }
    }
    let text = String::from_utf8_lossy(&reply);
    let unasked = text.contains("waiting already") || text.contains("it may ask again");
    (unasked && !text.contains("\"waiting\"")).then(|| start.elapsed())
}
