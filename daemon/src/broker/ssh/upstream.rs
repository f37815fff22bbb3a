//! Other agents behind this one: gpg-agent, a hardware key's, OpenSSH's. Their keys are listed with ours, and what
//! they sign goes our way first. What a client says of its session is passed on, so that they know as much as we do.

use super::{AgentConnection, Broker};
use crate::signing;
use crate::signing::public_line::public_line;
use keyloan_platform::process;
use keyloan_protocol::control::request::Confirm;
use keyloan_protocol::control::response::{KeySource, SshKey};
use keyloan_protocol::ssh_agent::frame::{self, PREFIX};
use keyloan_protocol::ssh_agent::key::PublicKey;
use keyloan_protocol::ssh_agent::message::{Identity, Reply, Request, Sign};
use keyloan_protocol::ssh_agent::session_bind::{Extension, SessionBind};
use keyloan_protocol::ssh_agent::signature::Signature;
use keyloan_protocol::ssh_agent::wire::Malformed;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use zeroize::Zeroizing;

/// An agent that does not list its keys by then has none.
const LIST: Duration = Duration::from_secs(2);
/// It may ask a human itself, or want a touch.
const SIGN: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamFault {
    #[error("it cannot be reached: {0}")]
    Io(#[from] io::Error),
    #[error("it is this one, or another user's")]
    Foreign,
    #[error("its answer has no form: {0}")]
    Malformed(#[from] Malformed),
    #[error("its answer has no form: {0}")]
    Frame(#[from] frame::FrameError),
    #[error("it refused, or answered something else")]
    Refused,
    #[error("its signature is wrong")]
    Signature,
    #[error("it did not answer in time")]
    Slow,
}

/// The other agents, as one connection to us sees them.
#[derive(Default)]
pub(super) struct Upstreams {
    binds: Vec<SessionBind>,
    agents: Vec<Agent>,
    /// Which agent offered which key.
    offered: Vec<(Vec<u8>, PathBuf)>,
}

struct Agent {
    path: PathBuf,
    stream: UnixStream,
    /// How many of the binds it has been told.
    told: usize,
}

/// As many as an agent takes.
const BINDS: usize = 16;

impl Upstreams {
    pub(super) fn passes_on(&mut self, bind: &SessionBind) {
        if self.binds.len() < BINDS {
            self.binds.push(bind.clone());
        }
    }

    async fn ask(
        &mut self,
        path: &Path,
        request: Request,
        patience: Duration,
    ) -> Result<Reply, UpstreamFault> {
        let agent = self.take(path);
        let (agent, reply) = ask(path, agent, &self.binds, &request, patience).await;
        self.agents.extend(agent);
        reply
    }

    fn take(&mut self, path: &Path) -> Option<Agent> {
        let at = self.agents.iter().position(|agent| agent.path == path)?;
        Some(self.agents.swap_remove(at))
    }

    /// All are asked at once, so that silent ones keep nobody waiting longer than one would.
    async fn list(&mut self, paths: &[PathBuf]) -> Vec<Identity> {
        let mut asked = JoinSet::new();
        for (at, path) in paths.iter().enumerate() {
            let (agent, path, binds) = (self.take(path), path.clone(), self.binds.clone());
            asked.spawn_local(async move { (at, ask(&path, agent, &binds, &Request::List, LIST).await) });
        }
        let mut listed: Vec<_> = asked.join_all().await;
        listed.sort_by_key(|(at, _)| *at);
        let mut all = Vec::new();
        self.offered.clear();
        for (path, (_, (agent, reply))) in paths.iter().zip(listed) {
            self.agents.extend(agent);
            if let Ok(Reply::Identities(identities)) = reply {
                self.offered.extend(identities.iter().map(|identity| (identity.blob.clone(), path.clone())));
                all.extend(identities);
            }
        }
        all
    }

    /// The agent that offers a key.
    pub(super) async fn holder(&mut self, paths: &[PathBuf], blob: &[u8]) -> Option<PathBuf> {
        if paths.is_empty() {
            return None;
        }
        let offered =
            |held: &Self| held.offered.iter().find(|(key, _)| key == blob).map(|(_, path)| path.clone());
        if let Some(path) = offered(self) {
            return Some(path);
        }
        self.list(paths).await;
        offered(self)
    }

    pub(super) async fn sign(&mut self, path: &Path, sign: Sign) -> Result<Vec<u8>, UpstreamFault> {
        let (key, data) = (sign.key.clone(), sign.data.clone());
        match self.ask(path, Request::Sign(sign), SIGN).await? {
            Reply::Signature(signature) if is_right(&key, &data, &signature) => Ok(signature),
            Reply::Signature(_) => Err(UpstreamFault::Signature),
            _ => Err(UpstreamFault::Refused),
        }
    }
}

/// Asks one agent, which is connected to and told of the session first where that was not done yet. It comes back
/// unless half a reply may be on its way.
async fn ask(
    path: &Path,
    mut agent: Option<Agent>,
    binds: &[SessionBind],
    request: &Request,
    patience: Duration,
) -> (Option<Agent>, Result<Reply, UpstreamFault>) {
    let asked = async {
        let agent = match &mut agent {
            Some(agent) => agent,
            none => none.insert(Agent::connect(path).await?),
        };
        while let Some(bind) = binds.get(agent.told) {
            agent.told += 1;
            let bind = Request::Extension(Extension::SessionBind(bind.clone()));
            // An agent that knows no sessions refuses, and serves all the same.
            agent.ask(&bind).await?;
        }
        agent.ask(request).await
    };
    let reply = timeout(patience, asked).await.unwrap_or(Err(UpstreamFault::Slow));
    (agent.filter(|_| reply.is_ok()), reply)
}

fn is_right(key: &PublicKey, data: &[u8], signature: &[u8]) -> bool {
    Signature::parse(signature).is_ok_and(|signature| signing::verify(key, data, &signature))
}

impl Agent {
    async fn connect(path: &Path) -> Result<Self, UpstreamFault> {
        let stream = UnixStream::connect(path).await?;
        let peer = stream.peer_cred()?;
        let own = i32::try_from(std::process::id()).ok();
        if peer.uid() != process::effective_uid() || peer.pid() == own {
            return Err(UpstreamFault::Foreign);
        }
        Ok(Self { path: path.to_owned(), stream, told: 0 })
    }

    async fn ask(&mut self, request: &Request) -> Result<Reply, UpstreamFault> {
        self.stream.write_all(&request.encode()?).await?;
        let mut prefix = [0; PREFIX];
        self.stream.read_exact(&mut prefix).await?;
        let mut message = Zeroizing::new(vec![0; frame::length(prefix)?]);
        self.stream.read_exact(&mut message).await?;
        Ok(Reply::parse(&message)?)
    }
}

impl AgentConnection {
    /// The agents behind were not told of a bind that was not taken, and would take the connection for a local one. And
    /// where this daemon is its own upstream, by way of another's socket, it would ask itself without end.
    pub(super) fn sees_upstream(&self) -> bool {
        let own = i32::try_from(std::process::id()).ok();
        !self.binding.is_failed() && Some(self.client.requester.peer.pid) != own
    }
}

impl Broker {
    /// The sockets that the policy names, or named when the vault was last open.
    pub(super) fn upstream_paths(&self) -> Vec<PathBuf> {
        if let Ok(paths) = self.with_policy(|policy| policy.upstream.clone()) {
            self.ssh.ring.borrow_mut().upstream = paths;
        }
        self.ssh.ring.borrow().upstream.clone()
    }

    pub(super) async fn upstream_identities(&self, connection: &mut AgentConnection) -> Vec<Identity> {
        if !connection.sees_upstream() {
            return Vec::new();
        }
        let paths = self.upstream_paths();
        connection.upstream.list(&paths).await
    }

    /// Keys of types that are not known here are left out: nothing could be said of them.
    pub(super) async fn upstream_summaries(&self) -> Vec<SshKey> {
        let identities = Upstreams::default().list(&self.upstream_paths()).await;
        let summary = |identity: &Identity| {
            let key = identity.key().ok()?;
            Some(SshKey {
                item: None,
                from: KeySource::Upstream,
                public: public_line(&key, &identity.comment),
                certificate: None,
                fingerprint: signing::fingerprint(&key),
                bits: key.bits(),
                hosts: Vec::new(),
                confirm: Confirm::Session,
                expires: None,
                private_in: None,
                certified_by: None,
            })
        };
        identities.iter().filter_map(summary).collect()
    }
}
