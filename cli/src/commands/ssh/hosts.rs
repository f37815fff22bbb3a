//! `keyloan ssh hosts list|pin|unpin`.

use crate::args::Json;
use crate::args::ssh::Hosts;
use crate::client;
use crate::exit::Failure;
use crate::output;
use keyloan_protocol::control::Message;
use keyloan_protocol::control::request::Request;
use keyloan_protocol::control::response::{Reply, SshPin};
use keyloan_protocol::names::escaped;

pub(super) fn hosts(hosts: Hosts) -> Result<(), Failure> {
    match hosts {
        Hosts::List(format) => list(&format),
        Hosts::Pin { host, key, authority } => {
            let request = Request::SshPin { host, key, authority };
            client::tell("keep a host's name with its key", &Message::new(request))
        }
        Hosts::Unpin { host } => client::tell("forget a host", &Message::new(Request::SshUnpin { host })),
    }
}

fn list(format: &Json) -> Result<(), Failure> {
    let act = "list the hosts";
    let reply = client::ask(act, &Message::new(Request::SshHosts))?;
    let Reply::SshHosts { pins } = reply.body else { return Err(client::unexpected(act)) };
    if format.json {
        return output::json(&pins);
    }
    if pins.is_empty() {
        output::note("no host is pinned; pin one that known_hosts has: keyloan ssh hosts pin HOST");
    }
    pins.iter().try_for_each(|pin| output::line(&shown(pin)))
}

/// `github.com  ssh-ed25519 SHA256:…`
fn shown(pin: &SshPin) -> String {
    let name = pin.key.split(' ').next().unwrap_or_default();
    let whose = if pin.authority { ", which certifies its keys" } else { "" };
    escaped(&format!("{}  {name} {}{whose}", pin.host, pin.fingerprint), 600)
}
