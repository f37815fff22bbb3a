//! What a linked vault makes for a loan, an account in a database, ends with the loan. Whoever holds [`Leases`] keeps
//! them; dropped for whatever reason, they are on their way to their end, which takes the vault's own time and goes on
//! after the local vault is locked, with what it takes to be let in for that.

use super::Broker;
use super::linked::{Asked, in_time};
use crate::audit::event::Event;
use crate::audit::sink::Durable;
use crate::journal::{self, Level};
use crate::vault::linked::{Call, Fault, Lease, LinkedVault};
use keyloan_protocol::names::VaultName;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Before each attempt; a server may be started anew meanwhile.
const PAUSES: [Duration; 4] =
    [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(20)];

/// What a vault may take to be signed out of.
const SIGN_OUT: Duration = Duration::from_secs(10);

/// What the daemon's own end waits for all this.
const STOP: Duration = Duration::from_secs(5);

/// Leases that are out, and those that are about to end.
#[derive(Default)]
pub(super) struct Ends {
    out: RefCell<HashMap<u64, Leases>>,
    due: RefCell<Vec<Due>>,
    /// What is being ended, by a number of its own.
    ending: RefCell<BTreeMap<u64, Ended>>,
    some: Notify,
    none: Notify,
}

enum Due {
    Lease { vault: Rc<dyn LinkedVault>, call: Rc<Call>, lease: Rc<Lease>, about: Ended },
    SignOut(Rc<dyn LinkedVault>),
}

/// For the log.
#[derive(Clone)]
struct Ended {
    /// Without one it was never lent.
    loan: Option<u64>,
    vault: VaultName,
    item: String,
}

/// What one request was given by vaults.
pub(super) struct Leases {
    ends: Rc<Ends>,
    loan: Option<u64>,
    of: Vec<(VaultName, Rc<dyn LinkedVault>, Rc<Call>)>,
}

impl Leases {
    pub(super) fn none(ends: &Rc<Ends>) -> Self {
        Self { ends: Rc::clone(ends), loan: None, of: Vec::new() }
    }

    /// Whatever the vault makes for this call belongs here.
    pub(super) fn watch(&mut self, asked: &Asked) {
        self.of.push((asked.name.clone(), Rc::clone(&asked.vault), Rc::clone(&asked.call)));
    }

    /// The vault that lent something, if one did.
    pub(super) fn first(&self) -> Option<&VaultName> {
        let lent = self.of.iter().find(|(.., call)| !call.leases.borrow().is_empty());
        lent.map(|(name, ..)| name)
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        for (name, vault, call) in self.of.drain(..) {
            let leases = call.leases.take();
            for lease in leases {
                let about = Ended { loan: self.loan, vault: name.clone(), item: lease.item.to_string() };
                let (vault, call) = (Rc::clone(&vault), Rc::clone(&call));
                self.ends.push(Due::Lease { vault, call, lease, about });
            }
        }
    }
}

/// A vault that is signed out of when this is dropped.
pub(super) struct Tried(Rc<Ends>, Rc<dyn LinkedVault>);

impl Drop for Tried {
    fn drop(&mut self) {
        self.0.sign_out(Rc::clone(&self.1));
    }
}

impl Ends {
    /// They end with the loan.
    pub(super) fn hold(&self, loan: u64, mut leases: Leases) {
        // The secrets of other vaults' links, which came with the request, are not to lie in memory as long.
        leases.of.retain(|(.., call)| !call.leases.borrow().is_empty());
        if !leases.of.is_empty() {
            leases.loan = Some(loan);
            self.out.borrow_mut().insert(loan, leases);
        }
    }

    pub(super) fn end(&self, loan: u64) {
        let ended = self.out.borrow_mut().remove(&loan);
        drop(ended);
    }

    /// A vault's link changes: what it lent is ended by what it was, loan or not.
    pub(super) fn end_of(self: &Rc<Self>, vault: &VaultName) {
        let mut ended = Vec::new();
        self.out.borrow_mut().retain(|loan, leases| {
            let of = leases.of.extract_if(.., |(name, ..)| name == vault).collect();
            ended.push(Leases { ends: Rc::clone(self), loan: Some(*loan), of });
            !leases.of.is_empty()
        });
        drop(ended);
    }

    /// However the request ends that was to try it.
    pub(super) fn tried(self: &Rc<Self>, vault: &Rc<dyn LinkedVault>) -> Tried {
        Tried(Rc::clone(self), Rc::clone(vault))
    }

    pub(super) fn sign_out(&self, vault: Rc<dyn LinkedVault>) {
        self.push(Due::SignOut(vault));
    }

    fn push(&self, due: Due) {
        self.due.borrow_mut().push(due);
        self.some.notify_one();
    }

    fn is_idle(&self) -> bool {
        self.due.borrow().is_empty() && self.ending.borrow().is_empty()
    }
}

impl Broker {
    /// Ends what is due, as long as the daemon runs.
    pub(crate) async fn end_leases(self: Rc<Self>) {
        let mut last = 0;
        loop {
            self.leases.some.notified().await;
            let (mut leases, mut others) = (Vec::new(), Vec::new());
            for due in self.leases.due.take() {
                last += 1;
                let about = match &due {
                    Due::Lease { about, .. } => about.clone(),
                    Due::SignOut(_) => Ended { loan: None, vault: VaultName::local(), item: String::new() },
                };
                self.leases.ending.borrow_mut().insert(last, about);
                match due {
                    Due::Lease { .. } => leases.push((last, due)),
                    Due::SignOut(vault) => others.push((last, vault)),
                }
            }
            tokio::task::spawn_local(Rc::clone(&self).end_all(leases, others));
        }
    }

    /// Leases before the sign-in that they are ended with.
    async fn end_all(self: Rc<Self>, leases: Vec<(u64, Due)>, vaults: Vec<(u64, Rc<dyn LinkedVault>)>) {
        let mut ending = JoinSet::new();
        for (id, due) in leases {
            let broker = Rc::clone(&self);
            ending.spawn_local(async move {
                if let Due::Lease { vault, call, lease, about } = due {
                    let ended = revoked(&*vault, &call, &lease).await;
                    if !lease.is_nothing() {
                        broker.lease_ended(&about, ended);
                    }
                }
                broker.is_done(id);
            });
        }
        while ending.join_next().await.is_some() {}
        for (id, vault) in vaults {
            let broker = Rc::clone(&self);
            ending.spawn_local(async move {
                // Best effort: a token ends by itself.
                let _ = timeout(SIGN_OUT, vault.sign_out()).await;
                broker.is_done(id);
            });
        }
        while ending.join_next().await.is_some() {}
    }

    fn is_done(&self, id: u64) {
        self.leases.ending.borrow_mut().remove(&id);
        if self.leases.is_idle() {
            self.leases.none.notify_one();
        }
    }

    fn lease_ended(&self, about: &Ended, ended: Result<(), Fault>) {
        let Ended { loan, vault, item } = about.clone();
        let vault = vault.to_string();
        let event = match ended {
            Ok(()) => Event::LeaseEnded { loan, vault, item },
            Err(fault) => {
                journal::say(Level::Error, &format!("a lease of {vault}://{item} was not ended: {fault}"));
                Event::LeaseLeft { loan, vault, item, cause: fault.to_string() }
            }
        };
        // Nothing depends on its record any more.
        let _ = self.record(&event, Durable::Soon);
    }

    /// Waits, with a limit, and writes down what had to be left.
    pub(super) async fn leases_over(&self) {
        let over = async {
            while !self.leases.is_idle() {
                self.leases.none.notified().await;
            }
        };
        if timeout(STOP, over).await.is_err() {
            let left = self.leases.ending.take();
            for about in left.into_values().filter(|about| !about.item.is_empty()) {
                self.lease_ended(&about, Err(Fault::Unreachable("the daemon stopped before".to_owned())));
            }
        }
    }
}

async fn revoked(vault: &dyn LinkedVault, call: &Call, lease: &Lease) -> Result<(), Fault> {
    let mut last = Ok(());
    for pause in PAUSES {
        sleep(pause).await;
        last = in_time(vault.patience(), vault.revoke(call, lease)).await;
        // What it refuses now it will refuse again.
        if matches!(last, Ok(()) | Err(Fault::Refused(_) | Fault::Unable(_))) {
            break;
        }
    }
    last
}
