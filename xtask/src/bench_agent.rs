//! `cargo xtask bench agent`: what the ssh agent costs beside OpenSSH's, measured in turns, in one run, so that only
//! the ratio counts. Both hold the same keys and are asked for the same by the same client: logins in sessions that
//! are bound to a host as ssh binds them, signatures over files, lists.

mod agents;
mod client;

use crate::Failure;
use crate::bench::prepare;
use crate::release;
use crate::throwaway::Home;
use agents::{Agent, make_key, set_policy, status, store_key};
use anyhow::{Context, Result, bail};
use client::{Connection, Key, Request, Session};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

const ROUNDS: usize = 21;
/// Connections beside one alone.
const SEVERAL: usize = 8;
const CLIENTS: usize = 1000;
const LISTS: usize = 1000;
const PENDING: usize = 20;

/// What is measured of each type: how `ssh-keygen` makes one, signatures of a round, and how many times better than
/// OpenSSH's agent keyloan's is to be.
const TYPES: [(&str, &[&str], usize, f64); 4] = [
    ("ed25519", &["-t", "ed25519"], 300, 4.0),
    ("P-256", &["-t", "ecdsa", "-b", "256"], 300, 4.0),
    ("RSA-2048", &["-t", "rsa", "-b", "2048"], 160, 2.0),
    ("RSA-4096", &["-t", "rsa", "-b", "4096"], 40, 2.0),
];

const HANGS: &str = "#!/bin/sh\nexec sleep 1000\n";

struct Row {
    what: String,
    unit: &'static str,
    keyloan: f64,
    openssh: Option<f64>,
    target: Target,
}

#[derive(Clone, Copy)]
enum Target {
    /// So many times less than OpenSSH's agent.
    Less(f64),
    /// So many times more.
    More(f64),
    AtMost(f64),
    None,
}

impl Row {
    fn compared(what: String, unit: &'static str, [keyloan, openssh]: [f64; 2], target: Target) -> Self {
        Self { what, unit, keyloan, openssh: Some(openssh), target }
    }

    /// How many times better than OpenSSH's agent.
    fn ratio(&self) -> Option<f64> {
        let openssh = self.openssh?;
        Some(if let Target::More(_) = self.target { self.keyloan / openssh } else { openssh / self.keyloan })
    }

    fn is_met(&self) -> Option<bool> {
        match self.target {
            Target::Less(times) | Target::More(times) => Some(self.ratio()? >= times),
            Target::AtMost(most) => Some(self.keyloan <= most),
            Target::None => None,
        }
    }
}

pub(crate) fn run(arguments: &[&str]) -> Result<(), Failure> {
    let file = match arguments {
        [] => None,
        ["--json", file] => Some(*file),
        _ => return Err(Failure::Usage("`bench agent` takes `--json FILE`".to_owned())),
    };
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let programs = release::build()?;
    let home = Home::new(&programs)?;
    prepare(&home)?;
    set_policy(&home, &["ssh.login=allow", "ssh.signature=allow", "key.add=allow"])?;
    let agents = [Agent::keyloan(&home)?, Agent::openssh(&home)?];
    let rows = measure(&home, &agents)?;
    drop(agents);
    home.close()?;
    report(&rows, file)?;
    Ok(())
}

fn measure(home: &Home, agents: &[Agent; 2]) -> Result<Vec<Row>> {
    let [keyloan, openssh] = agents;
    let host = make_key(home, "host", &["-t", "ed25519"])?;
    openssh.add(home, &[host])?;
    let mut own = Connection::open(&openssh.socket)?;
    let session = Session::signed_by(&mut own, "host")?;
    own.ask(&Request::remove_all())?;
    let files: Vec<PathBuf> =
        TYPES.iter().map(|(name, kind, ..)| make_key(home, name, kind)).collect::<Result<_>>()?;
    let mut rows = Vec::new();
    for agent in agents {
        agent.add(home, &files)?;
    }
    println!("measuring signatures by keys that were added");
    signatures(agents, &session, &mut rows, &[(Key::login, "login, added")])?;
    Connection::open(&keyloan.socket)?.ask(&Request::remove_all())?;
    for file in &files {
        store_key(home, file)?;
    }
    println!("measuring signatures by keys of the vault");
    signatures(agents, &session, &mut rows, &[(Key::login, "login"), (|key, _| key.document(), "document")])?;
    let mut held = files.len();
    for keys in [100, 1000] {
        println!("adding keys until there are {keys}");
        let more = (held..keys).map(|number| make_key(home, &format!("key-{number:04}"), TYPES[0].1));
        let more: Vec<PathBuf> = more.collect::<Result<_>>()?;
        more.iter().try_for_each(|file| store_key(home, file))?;
        openssh.add(home, &more)?;
        held = keys;
        lists(agents, keys, &mut rows)?;
        if keys == 100 {
            let resident = [keyloan.resident()?, openssh.resident()?];
            let what = format!("resident memory, {keys} keys");
            rows.push(Row::compared(what, "MiB", resident, Target::AtMost(14.0)));
            clients(agents, &mut rows)?;
        }
    }
    rows.push(behind_prompts(home, keyloan, &session)?);
    Ok(rows)
}

type Ask = (fn(&Key, &Session) -> Request, &'static str);

fn signatures(agents: &[Agent; 2], session: &Session, rows: &mut Vec<Row>, asks: &[Ask]) -> Result<()> {
    for (name, _, count, times) in TYPES {
        let key = Key::of(&mut Connection::open(&agents[1].socket)?, name)?;
        for (ask, what) in asks {
            let request = ask(&key, session);
            same_signature(agents, session, &key, &request)?;
            for connections in [1, SEVERAL] {
                let open = |agent: &Agent| -> Result<Vec<Connection>> {
                    (0..connections).map(|_| Connection::bound(&agent.socket, session)).collect()
                };
                let connected = [open(&agents[0])?, open(&agents[1])?];
                let cost = costs(agents, connected, &request, count)?;
                let at = if connections == 1 { "1 connection" } else { "8 connections" };
                let row = |unit, values, target| {
                    Row::compared(format!("{name} {what}, {at}"), unit, values, target)
                };
                rows.push(row("CPU µs", cost.map(|cost| cost.cpu), Target::Less(times)));
                rows.push(row("a second", cost.map(|cost| cost.rate), Target::More(times)));
            }
        }
    }
    Ok(())
}

/// A signature that is wrong is fast and worth nothing.
fn same_signature(agents: &[Agent; 2], session: &Session, key: &Key, request: &Request) -> Result<()> {
    let sign = |agent: &Agent| Connection::bound(&agent.socket, session)?.ask(request);
    if sign(&agents[0])? != sign(&agents[1])? && key.is_deterministic() {
        bail!("the agents' signatures differ");
    }
    Ok(())
}

/// Of one request.
#[derive(Clone, Copy)]
struct Cost {
    /// Of the agent, in microseconds.
    cpu: f64,
    /// Requests served in a second.
    rate: f64,
}

/// The best of both agents' rounds, which take turns: what else the machine does only adds to a round.
fn costs(
    agents: &[Agent; 2],
    mut connections: [Vec<Connection>; 2],
    request: &Request,
    count: usize,
) -> Result<[Cost; 2]> {
    let mut measured = [Vec::new(), Vec::new()];
    for round in 0..=ROUNDS {
        for turn in 0..2 {
            let which = (round + turn) % 2;
            let cost = cost(&agents[which], &mut connections[which], request, count)?;
            // The first round warms up.
            if round > 0 {
                measured[which].push(cost);
            }
        }
    }
    Ok(measured.map(|costs| Cost {
        cpu: costs.iter().map(|cost| cost.cpu).fold(f64::INFINITY, f64::min),
        rate: costs.iter().map(|cost| cost.rate).fold(0.0, f64::max),
    }))
}

fn cost(agent: &Agent, connections: &mut [Connection], request: &Request, count: usize) -> Result<Cost> {
    let each = count / connections.len();
    let (used, start) = (agent.used()?, Instant::now());
    thread::scope(|scope| {
        let ask = |connection: &mut Connection| (0..each).try_for_each(|_| connection.ask(request).map(drop));
        let asking: Vec<_> =
            connections.iter_mut().map(|connection| scope.spawn(move || ask(connection))).collect();
        asking
            .into_iter()
            .try_for_each(|asked| asked.join().unwrap_or_else(|_| bail!("a client of the agent panicked")))
    })?;
    let (taken, used) = (start.elapsed(), agent.used()?.saturating_sub(used));
    let asked = f64::from(u32::try_from(each * connections.len())?);
    Ok(Cost { cpu: used.as_secs_f64() * 1e6 / asked, rate: asked / taken.as_secs_f64() })
}

fn lists(agents: &[Agent; 2], keys: usize, rows: &mut Vec<Row>) -> Result<()> {
    let mut connections = [Connection::open(&agents[0].socket)?, Connection::open(&agents[1].socket)?];
    for connection in &mut connections {
        let listed = connection.list()?.len();
        if listed != keys {
            bail!("an agent lists {listed} keys of {keys}");
        }
    }
    let cost =
        costs(agents, connections.map(|connection| vec![connection]), &Request::list(), 20_000 / keys)?;
    let row = |unit, values| Row::compared(format!("list of {keys} keys"), unit, values, Target::Less(1.0));
    rows.push(row("CPU µs", cost.map(|cost| cost.cpu)));
    rows.push(row("µs", cost.map(|cost| 1e6 / cost.rate)));
    Ok(())
}

/// So many at once, all of which are served.
fn clients(agents: &[Agent; 2], rows: &mut Vec<Row>) -> Result<()> {
    println!("connecting {CLIENTS} clients");
    let mut added = [0.0; 2];
    for (agent, added) in agents.iter().zip(&mut added) {
        let before = agent.resident()?;
        let connected = (0..CLIENTS).map(|_| Connection::open(&agent.socket));
        let mut connected: Vec<Connection> = connected.collect::<Result<_>>()?;
        for _ in 0..2 {
            connected.iter_mut().try_for_each(|client| client.list().map(drop))?;
        }
        *added = agent.resident()? - before;
    }
    let what = format!("{CLIENTS} clients served, memory added");
    rows.push(Row::compared(what, "MiB", added, Target::None));
    Ok(())
}

/// Lists for one client while the logins of others wait for a human.
fn behind_prompts(home: &Home, keyloan: &Agent, session: &Session) -> Result<Row> {
    println!("listing behind {PENDING} prompts");
    let approver = home.root().join("approver");
    fs::write(&approver, HANGS)?;
    fs::set_permissions(&approver, fs::Permissions::from_mode(0o700))?;
    set_policy(home, &["ssh.login=ask", &format!("approver.command={}", approver.display())])?;
    let mut lister = Connection::open(&keyloan.socket)?;
    let key = Key::of(&mut lister, TYPES[0].0)?;
    let login = key.login(session);
    let mut waiting = Vec::new();
    for _ in 0..PENDING {
        let mut connection = Connection::bound(&keyloan.socket, session)?;
        connection.send(&login)?;
        waiting.push(connection);
    }
    let start = Instant::now();
    while status(home)?["pending"] != PENDING {
        if start.elapsed() > Duration::from_secs(10) {
            bail!("{} of {PENDING} prompts are pending", status(home)?["pending"]);
        }
    }
    let mut times = Vec::with_capacity(LISTS);
    for _ in 0..LISTS {
        let start = Instant::now();
        lister.list()?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let p99 = times.get(LISTS * 99 / 100).context("nothing was measured")?.as_secs_f64() * 1e3;
    drop(waiting);
    let what = format!("p99 of a list of 1000 keys behind {PENDING} prompts");
    Ok(Row { what, unit: "ms", keyloan: p99, openssh: None, target: Target::AtMost(5.0) })
}

fn report(rows: &[Row], file: Option<&str>) -> Result<()> {
    println!("\n{:<48}{:>10}{:>10}{:>10}{:>8}{:>10}", "", "", "keyloan", "OpenSSH", "better", "target");
    for row in rows {
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let openssh = or_dash(row.openssh.map(|value| format!("{value:.1}")));
        let ratio = or_dash(row.ratio().map(|ratio| format!("{ratio:.2} x")));
        let target = match row.target {
            Target::Less(times) | Target::More(times) => format!(">= {times} x"),
            Target::AtMost(most) => format!("<= {most}"),
            Target::None => "-".to_owned(),
        };
        let met = row.is_met().map_or("", |met| if met { "met" } else { "MISSED" });
        let (what, unit, keyloan) = (&row.what, row.unit, row.keyloan);
        println!("{what:<48}{unit:>10}{keyloan:>10.1}{openssh:>10}{ratio:>8}{target:>10}  {met}");
    }
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            let (keyloan, openssh) = (row.keyloan, row.openssh);
            json!({ "what": row.what, "unit": row.unit, "keyloan": keyloan, "openssh": openssh, "ratio": row.ratio(), "met": row.is_met() })
        })
        .collect();
    if let Some(file) = file {
        let text = format!("{:#}\n", json!({ "benchmark": "agent", "measured": rows }));
        return fs::write(file, text).with_context(|| format!("cannot write {file}"));
    }
    Ok(())
}
