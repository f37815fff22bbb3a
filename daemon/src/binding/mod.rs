//! Which session one agent connection serves, and by which hosts it was forwarded, as ssh told by
//! `session-bind@openssh.com` (OpenSSH's PROTOCOL.agent section 1). Only binds whose signature was verified are kept,
//! in their order, and where OpenSSH's agent would refuse one, so does this.

pub(crate) mod destination;

use keyloan_protocol::ssh_agent::key::PublicKey;
use keyloan_protocol::ssh_agent::session_bind::SessionBind;
use keyloan_protocol::ssh_agent::to_be_signed::Login;

/// `AGENT_MAX_SESSION_IDS` of OpenSSH: hops of one connection.
const MOST: usize = 16;
/// `AGENT_MAX_SID_LEN`. The longest hash of a key exchange is half of it.
const SESSION_ID: usize = 128;

/// What one connection is bound to.
#[derive(Default)]
pub(crate) struct Binding {
    binds: Vec<Bound>,
    /// A bind was asked for and not taken: where the connection comes from or leads to, nobody knows any more.
    failed: bool,
    signed: bool,
}

struct Bound {
    host_key: PublicKey,
    session_id: Vec<u8>,
    forwarding: bool,
}

/// Where a login goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Destination<'a> {
    /// To the holder of that key, in that session: verified.
    Bound { host_key: &'a PublicKey },
    /// Nobody can say.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BindFault {
    #[error("the host's signature of the session is wrong")]
    Signature,
    #[error("an earlier one was not taken")]
    Failed,
    #[error("the session's id is too long")]
    SessionId,
    #[error("the connection has signed already")]
    Signed,
    #[error("the connection is bound to its destination already")]
    Final,
    #[error("the session is bound to another host key")]
    OtherKey,
    #[error("it was forwarded by too many hosts")]
    TooMany,
    #[error("the login is for another session than the one the connection is bound to")]
    OtherSession,
    #[error("the login is for another host than the one the connection is bound to")]
    OtherHost,
}

impl Binding {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Takes a bind as OpenSSH's `process_ext_session_bind` does. The caller verified its signature or found it wrong;
    /// of a certificate also that of its authority, and a wrong one counts as a wrong signature. Stricter than OpenSSH,
    /// one that is not proven is the last: ssh forwards a connection whatever became of its bind, and the host at the
    /// other end could else give it a bind of its own, by which it would look as if it came from here.
    pub(crate) fn bind(&mut self, bind: SessionBind, signature_verified: bool) -> Result<(), BindFault> {
        let taken = self.take(bind, signature_verified);
        // The other faults leave the connection where it was bound to before.
        self.failed |= matches!(taken, Err(BindFault::Signature | BindFault::SessionId | BindFault::Signed));
        taken
    }

    fn take(&mut self, bind: SessionBind, signature_verified: bool) -> Result<(), BindFault> {
        if self.failed {
            return Err(BindFault::Failed);
        }
        if bind.session_id.len() > SESSION_ID {
            return Err(BindFault::SessionId);
        }
        if !signature_verified {
            return Err(BindFault::Signature);
        }
        // Stricter than OpenSSH: what was signed before would look as if it had been for this host.
        if self.signed {
            return Err(BindFault::Signed);
        }
        for bound in &self.binds {
            // A connection that logs in somewhere does not come from there.
            if !bound.forwarding {
                return Err(BindFault::Final);
            }
            if bound.session_id == bind.session_id {
                // One session is with one host. The first answer stays, its direction too.
                return if bound.host_key == bind.host_key { Ok(()) } else { Err(BindFault::OtherKey) };
            }
        }
        if self.binds.len() >= MOST {
            return Err(BindFault::TooMany);
        }
        let SessionBind { host_key, session_id, forwarding, .. } = bind;
        self.binds.push(Bound { host_key, session_id, forwarding });
        Ok(())
    }

    /// A bind was asked for that could not be understood, or not be looked at (the agent is locked, say): ssh forwards
    /// the connection all the same, and it must not pass for a local one.
    pub(crate) const fn note_failed(&mut self) {
        self.failed = true;
    }

    /// Something was signed on this connection.
    pub(crate) const fn note_signed(&mut self) {
        self.signed = true;
    }

    /// Whether somebody on another host may be asking. Once it is, it stays.
    pub(crate) fn is_forwarded(&self) -> bool {
        self.binds.iter().any(|bound| bound.forwarding)
    }

    /// A bind was asked for and not taken: where this connection comes from or leads to is not known.
    pub(crate) const fn is_failed(&self) -> bool {
        self.failed
    }

    /// Whether it may come from another host: whoever forwards a connection tells where it comes from first, and a
    /// failed try may have been just that.
    pub(crate) fn may_be_forwarded(&self) -> bool {
        self.is_forwarded() || self.is_failed()
    }

    /// The key of the host that the connection was bound to last, unless a bind was not taken.
    pub(crate) fn last_host(&self) -> Option<&PublicKey> {
        self.binds.last().filter(|_| !self.failed).map(|bound| &bound.host_key)
    }

    /// The keys of the hosts that forwarded the connection, the nearest first.
    pub(crate) fn hops(&self) -> impl Iterator<Item = &PublicKey> {
        self.binds.iter().filter(|bound| bound.forwarding).map(|bound| &bound.host_key)
    }

    /// Where a login goes. One that names another session or another host than the last bind was made for somebody
    /// else: a host that the connection was forwarded by, who wants it to log in as the user elsewhere.
    pub(crate) fn login(&self, login: &Login) -> Result<Destination<'_>, BindFault> {
        let bound = match self.binds.last() {
            Some(bound) if !bound.forwarding && !self.failed => bound,
            _ => return Ok(Destination::Unknown),
        };
        if login.session_id != bound.session_id {
            return Err(BindFault::OtherSession);
        }
        if login.host_key.as_ref().is_some_and(|host_key| *host_key != bound.host_key) {
            return Err(BindFault::OtherHost);
        }
        Ok(Destination::Bound { host_key: &bound.host_key })
    }
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
