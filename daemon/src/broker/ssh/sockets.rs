//! Where agents' clients come from: the daemon's own socket, and others that a client of ours listens on and hands
//! over. What is added at one of them stays there.

use super::certify::Certified;
use super::named::Named;
use super::permits::Covered;
use super::upstream::Upstreams;
use super::{AgentRefusal, Broker};
use crate::approval::pin;
use crate::binding::Binding;
use crate::broker::{Client, Refusal};
use crate::readiness;
use crate::requester::Requester;
use crate::socket::Handed;
use keyloan_platform::peer::Peer;
use keyloan_protocol::control::response::Reply;
use keyloan_protocol::secret::SecretBytes;
use keyloan_protocol::ssh_agent::session_bind::SESSION_BIND;
use keyloan_protocol::ssh_agent::wire::Reader;
use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};

/// One socket of the agent, with what its clients did to it.
pub(crate) struct AgentSocket {
    pub(super) id: u64,
    /// For keys that are added without a lifetime of their own.
    pub(super) lifetime: Option<Duration>,
    lock: RefCell<Option<Lock>>,
    /// The daemon's own socket, of another: while that is locked, so are all.
    own: Option<Rc<Self>>,
    /// One try to unlock at a time, so that each waits for the last one's delay.
    trying: Arc<Mutex<()>>,
}

/// `ssh-add -x`: a verifier of the passphrase, and how often another was tried.
struct Lock {
    verifier: Arc<SecretBytes>,
    failures: u32,
}

/// Sockets that stand in for an ssh-agent, each with a thread of its own.
pub(super) const STAND_INS: usize = 64;

/// A wrong passphrase costs this much more each time, up to the hundredth: as OpenSSH's agent has it.
const DELAY: Duration = Duration::from_millis(100);
const FAILURES: u32 = 100;

impl AgentSocket {
    /// The daemon's own.
    pub(crate) fn own() -> Self {
        Self::new(0, None)
    }

    fn new(id: u64, lifetime: Option<Duration>) -> Self {
        Self { id, lifetime, lock: RefCell::default(), own: None, trying: Arc::default() }
    }

    pub(super) fn is_locked(&self) -> bool {
        self.lock.borrow().is_some() || self.own.as_ref().is_some_and(|own| own.is_locked())
    }
}

/// A socket on its way to whoever serves it.
pub(crate) struct Brought {
    pub(crate) listening: Handed,
    pub(crate) socket: Rc<AgentSocket>,
    pub(crate) until: Until,
    /// Open for as long as the socket is served: so whoever brought it hears of the end.
    pub(crate) held: Vec<OwnedFd>,
}

/// The life of a process.
pub(crate) struct Until(OwnedFd);

impl Until {
    pub(crate) async fn ended(self) {
        if let Ok(process) = readiness::watch(self.0) {
            let _ = process.readable().await;
        }
    }
}

/// One client of a socket, and what its connection is bound to.
pub(crate) struct AgentConnection {
    pub(super) client: Client,
    pub(super) at: Rc<AgentSocket>,
    pub(super) binding: Binding,
    pub(super) covered: Option<Covered>,
    pub(super) certified: Certified,
    pub(super) upstream: Upstreams,
    /// The host that the session is bound to.
    pub(super) named: Option<Named>,
    /// The request that was signed last, to be noted where the signature does not arrive.
    pub(super) signed: Option<u64>,
}

impl AgentConnection {
    pub(crate) fn new(requester: Requester, at: Rc<AgentSocket>) -> Self {
        // Nobody listens: the protocol has no word for "wait".
        let (replies, _) = mpsc::channel(1);
        let client = Client { requester, replies };
        Self {
            client,
            at,
            binding: Binding::new(),
            covered: None,
            certified: Certified::default(),
            upstream: Upstreams::default(),
            named: None,
            signed: None,
        }
    }

    /// A message without the form of one. If it was to say what the connection is bound to, ssh goes on as if it had
    /// been understood, and forwards.
    pub(crate) fn note_malformed(&mut self, message: &[u8]) {
        let mut reader = Reader::new(message);
        if reader.u8().is_ok() && reader.string() == Ok(SESSION_BIND.as_bytes()) {
            self.binding.note_failed();
        }
    }

    pub(crate) fn peer(&self) -> Rc<Peer> {
        Rc::clone(&self.client.requester.peer)
    }
}

impl Broker {
    /// Takes a listening socket; it is served until the requester ends.
    pub(crate) fn serve_agent_socket(
        &self,
        client: &Client,
        socket: OwnedFd,
        held: Vec<OwnedFd>,
        lifetime: Option<u32>,
    ) -> Result<Reply, Refusal> {
        let until = client.requester.peer.pidfd().and_then(|process| process.try_clone_to_owned().ok());
        let until = Until(until.ok_or(AgentRefusal::Socket)?);
        // Whoever shares a socket can keep its thread for longer than it is served.
        if Arc::strong_count(&self.ssh.stand_ins) > STAND_INS {
            return Err(AgentRefusal::Sockets.into());
        }
        let listening =
            Handed::over(socket, Arc::clone(&self.ssh.stand_ins)).map_err(|_| AgentRefusal::Socket)?;
        let lifetime = lifetime.map(|seconds| Duration::from_secs(seconds.into()));
        let own = Some(Rc::clone(&self.ssh.own));
        let socket = Rc::new(AgentSocket { own, ..AgentSocket::new(self.next_request(), lifetime) });
        // The other end lives as long as the daemon serves.
        self.ssh.bring.send(Brought { listening, socket, until, held }).map_err(|_| Refusal::Task)?;
        Ok(Reply::done("the socket is served"))
    }

    /// The sockets to be served, for the one task that serves them.
    pub(crate) fn agent_sockets_brought(&self) -> Option<mpsc::UnboundedReceiver<Brought>> {
        self.ssh.brought.borrow_mut().take()
    }

    pub(crate) fn own_agent_socket(&self) -> Rc<AgentSocket> {
        Rc::clone(&self.ssh.own)
    }

    pub(crate) fn agent_socket_gone(&self, socket: &AgentSocket) {
        self.ssh.added.borrow_mut().forget_of(socket.id);
    }

    /// Whoever locked the agent or the vault while somebody was asked wants nothing more of it, whatever the answer.
    pub(super) fn not_locked_meanwhile(&self, connection: &AgentConnection) -> Result<(), Refusal> {
        if connection.at.is_locked() {
            return Err(AgentRefusal::Locked.into());
        }
        if self.is_open() { Ok(()) } else { Err(Refusal::Locked) }
    }

    pub(super) async fn lock_agent(
        &self,
        connection: &AgentConnection,
        passphrase: SecretBytes,
    ) -> Result<(), Refusal> {
        // Behind whoever tries to unlock it, and one at a time.
        let _alone = Arc::clone(&connection.at.trying).lock_owned().await;
        let verifier = self.derive(move || pin::verifier(&passphrase).ok_or(Refusal::Task)).await?;
        if connection.at.is_locked() {
            return Err(AgentRefusal::Locked.into());
        }
        *connection.at.lock.borrow_mut() = Some(Lock { verifier: Arc::new(verifier), failures: 0 });
        Ok(())
    }

    pub(super) async fn unlock_agent(
        &self,
        connection: &AgentConnection,
        passphrase: SecretBytes,
    ) -> Result<(), Refusal> {
        let at = &connection.at;
        let alone = Arc::clone(&at.trying).lock_owned().await;
        let verifier = at.lock.borrow().as_ref().map(|lock| Arc::clone(&lock.verifier));
        let verifier = verifier.ok_or(AgentRefusal::NotLocked)?;
        if self.derive(move || Ok(pin::is_right(&passphrase, &verifier))).await? {
            *at.lock.borrow_mut() = None;
            return Ok(());
        }
        let failures = at.lock.borrow_mut().as_mut().map_or(0, |lock| {
            lock.failures = (lock.failures + 1).min(FAILURES);
            lock.failures
        });
        // Whoever hangs up does not get around it.
        let waited = tokio::task::spawn_local(async move {
            tokio::time::sleep(DELAY * failures).await;
            drop(alone);
        });
        let _ = waited.await;
        Err(AgentRefusal::WrongPassphrase.into())
    }
}
