//! `keyloan ssh …`: keys in the vault, and the agent's sockets.

mod add;
pub(crate) mod agent;
mod hosts;
pub(crate) mod keeper;
mod keys;
mod linked;
mod public_file;
mod shell;

use crate::args::ssh::{Env, Ssh};
use crate::client::{self, Connection};
use crate::environment;
use crate::exit::Failure;
use crate::output;
use data_encoding::BASE64;
use keyloan_platform::paths::Paths;
use keyloan_protocol::control::Message;
use keyloan_protocol::control::request::Request;
use keyloan_protocol::control::response::{Reply, SshKey};
use keyloan_protocol::names::escaped;
use keyloan_protocol::ssh_agent::key::PublicKey;
use shell::Lines;

pub(crate) fn ssh(ssh: Ssh) -> Result<(), Failure> {
    match ssh {
        Ssh::Add(add) => add::add(add),
        Ssh::Generate(generate) => keys::generate(generate),
        Ssh::List(format) => keys::list(&format),
        Ssh::Export(export) => keys::export(&export),
        Ssh::Link(link) => linked::link(link),
        Ssh::Certify(certify) => linked::certify(certify),
        Ssh::Set(set) => keys::set(set),
        Ssh::Hosts(hosts) => hosts::hosts(hosts),
        Ssh::Env(env) => env_lines(&env),
        Ssh::Agent(agent) => agent::agent(&agent),
    }
}

/// The line for a start-up file. The daemon runs then, so that its socket is there.
fn env_lines(env: &Env) -> Result<(), Failure> {
    let act = "find the agent's socket";
    Connection::open(act)?;
    let paths = Paths::discover().map_err(Failure::unreachable)?;
    let shell = env.shell.unwrap_or_else(|| shell::of_person(environment::shell().as_deref()));
    let lines = Lines::new(act, shell).set("SSH_AUTH_SOCK", paths.runtime.join("agent.sock").as_os_str())?;
    output::bytes(&lines.bytes())
}

/// The keys that the agent offers; public halves, so nobody is asked.
fn all_keys(act: &str) -> Result<Vec<SshKey>, Failure> {
    keys_in(act, client::ask(act, &Message::new(Request::SshKeys))?)
}

fn keys_in(act: &str, reply: Message<Reply>) -> Result<Vec<SshKey>, Failure> {
    match reply.body {
        Reply::SshKeys { keys } => Ok(keys),
        _ => Err(client::unexpected(act)),
    }
}

/// The key of a line as it stands in a `.pub` file: its type, the key in base64, a comment.
fn key_of_line(line: &str) -> Option<PublicKey> {
    let mut words = line.split_ascii_whitespace();
    let (name, base64) = (words.next()?, words.next()?);
    let key = PublicKey::parse(&BASE64.decode(base64.as_bytes()).ok()?).ok()?;
    (key.name() == name).then_some(key)
}

/// `ssh-ed25519 256 SHA256:… comment`
fn described(key: &SshKey) -> String {
    let mut words = key.public.splitn(3, ' ');
    let name = words.next().unwrap_or_default();
    let comment = words.nth(1).unwrap_or_default();
    escaped(&format!("{name} {} {} {comment}", key.bits, key.fingerprint), 600).trim_end().to_owned()
}
