//! `bw serve`, kept: one process for one directory of `bw`'s, started when it is first needed, unlocked with the master
//! password, and ended with the link's vault, when nobody has used it for some minutes, or with the daemon.
//!
//! `bw serve` asks nobody who they are, so a socket with a path would be an open vault to every program of the user. It
//! is spoken to over a pair of sockets instead, one of which is its standard input, and it listens nowhere.
//!
//! One request at a time, of one process: `bw`'s file of data does not survive two. Whoever asked and went away does not
//! take the process along; what was asked for ends by itself, within its time.

use super::super::http::{Ask, Connection};
use super::super::pinned::Pinned;
use super::Fault;
use super::process::{Process, lost, started};
use super::said;
use crate::clock;
use crate::vault::linked::certificates::Ca;
use hyper::Method;
use keyloan_protocol::secret::SecretBytes;
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use zeroize::Zeroizing;

/// `bw` is a large script, and machines are slow.
const START: Duration = Duration::from_secs(30);
/// Deriving a key takes what the account's settings say.
const UNLOCK: Duration = Duration::from_secs(20);
const ANSWER: Duration = Duration::from_secs(20);
/// For what the server has that is new. Without it there is what was there before.
const SYNC: Duration = Duration::from_secs(10);
/// No question may take longer in all.
pub(super) const PATIENCE: Duration = Duration::from_secs(85);

/// How old what is read may be.
const FRESH: Duration = Duration::from_secs(5 * 60);

/// Some milliseconds, on a machine that has nothing else to do.
const SETTLING: Duration = Duration::from_secs(2);

/// All items of a large vault, with their values.
const MOST: usize = 32 * 1024 * 1024;
/// Every other answer.
const SHORT: usize = 4 * 1024 * 1024;

/// What makes an item.
pub(super) const CREATE: &str = "/object/item";

thread_local! {
    /// By directory: two links may be one account, and a link is tried before it takes another's place.
    static KEPT: RefCell<HashMap<PathBuf, Weak<Serve>>> = RefCell::default();
}

/// All that it is started with.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct How {
    pub(super) program: Pinned,
    pub(super) appdata: PathBuf,
    pub(super) ca: Option<Ca>,
    /// How long it is kept unused.
    pub(super) idle: Duration,
}

pub(super) struct Serve {
    how: How,
    errands: mpsc::Sender<Errand>,
    keeper: JoinHandle<()>,
    ended: Cell<bool>,
    synced: Rc<Cell<Option<Duration>>>,
}

/// A request, and where its answer goes.
struct Errand {
    request: Request,
    password: Option<SecretBytes>,
    answer: oneshot::Sender<Result<Value, Fault>>,
}

pub(super) struct Request {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) json: Option<SecretBytes>,
    /// What the server has now is wanted, or no answer.
    pub(super) synced: bool,
    /// Of a process that has just begun.
    pub(super) anew: bool,
}

impl Drop for Serve {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Serve {
    /// The one of this directory. One that was started otherwise is ended.
    pub(super) fn of(how: How) -> Rc<Self> {
        KEPT.with_borrow_mut(|kept| {
            kept.retain(|_, serve| serve.strong_count() > 0);
            let known = kept.get(&how.appdata).and_then(Weak::upgrade);
            if let Some(known) = known {
                if known.how == how && !known.has_ended() {
                    return known;
                }
                known.ended.set(true);
                known.keeper.abort();
            }
            let (errands, received) = mpsc::channel(64);
            let synced = Rc::default();
            let keeper = tokio::task::spawn_local(keep(how.clone(), Rc::clone(&synced), received));
            let serve = Rc::new(Self { how: how.clone(), errands, keeper, ended: Cell::new(false), synced });
            kept.insert(how.appdata, Rc::downgrade(&serve));
            serve
        })
    }

    /// Whether what it lists may still be what it had before it was synchronised: `bw` answers before its own state has
    /// come round, and keeps what it lists meanwhile. A new process has only what is in its file.
    pub(super) fn is_settling(&self) -> bool {
        self.synced.get().is_some_and(|at| clock::since_boot().saturating_sub(at) < SETTLING)
    }

    /// Another one took its place.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.get() || self.keeper.is_finished()
    }

    /// The `data` of an answer.
    pub(super) async fn ask(&self, password: Option<&SecretBytes>, request: Request) -> Result<Value, Fault> {
        let gone = || Fault::Unreachable("bw serve was ended meanwhile".to_owned());
        let (answer, answered) = oneshot::channel();
        let password = password.map(|password| SecretBytes::copy_of(password.expose()));
        self.errands.send(Errand { request, password, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

async fn keep(how: How, synced: Rc<Cell<Option<Duration>>>, mut errands: mpsc::Receiver<Errand>) {
    let mut next = None;
    loop {
        let errand = match next.take() {
            Some(errand) => errand,
            None => match errands.recv().await {
                Some(errand) => errand,
                None => return,
            },
        };
        // Nobody waits for it any more.
        if errand.answer.is_closed() {
            continue;
        }
        next = life(&how, &synced, errand, &mut errands).await;
    }
}

/// One process from its start to its end; an errand that it did not get to.
async fn life(
    how: &How,
    synced: &Cell<Option<Duration>>,
    first: Errand,
    errands: &mut mpsc::Receiver<Errand>,
) -> Option<Errand> {
    let (server, process) = match started(how).await {
        Ok(started) => started,
        Err(fault) => {
            let _ = first.answer.send(Err(fault));
            return None;
        }
    };
    let connection = match server.connect().await {
        Ok(connection) => connection,
        Err(fault) => {
            let _ = first.answer.send(Err(fault));
            return None;
        }
    };
    let mut life = Life { connection, unlocked_with: None };
    let mut errand = first;
    let mut is_used = false;
    let mut ready = life.is_signed_in().await;
    loop {
        let done = match ready {
            Ok(()) => life.run(synced, &errand).await,
            Err(cut) => Err(cut),
        };
        let answer = match done {
            Ok(answer) => answer,
            // What the server has is not to be had now; another process goes by what is there.
            Err(Cut::Sync) if !errand.request.synced => return Some(errand),
            Err(Cut::Sync) => {
                let fault = Fault::Unreachable("bw's server does not answer".to_owned());
                let _ = errand.answer.send(Err(fault));
                return None;
            }
            Err(Cut::Useless(fault)) => {
                let _ = errand.answer.send(Err(fault));
                return None;
            }
            // It ended while nobody used it, and that is noticed only now.
            Err(Cut::Lost(_)) if is_used && errand.request.method == Method::GET => return Some(errand),
            Err(Cut::Lost(fault)) => {
                let fault = lost(process, fault).await;
                let _ = errand.answer.send(Err(fault));
                return None;
            }
        };
        let ends = matches!(answer, Err(Fault::Locked(_) | Fault::SignedOut | Fault::Broken(_)));
        // What it lists after it wrote may be what was.
        let has_written = errand.request.method == Method::PUT || errand.request.path == CREATE;
        let _ = errand.answer.send(answer);
        let next = if ends || has_written { None } else { next(how.idle, errands).await };
        let Some(mut next) = next else { return end(life, process, None).await };
        is_used = true;
        if next.request.anew {
            next.request.anew = false;
            return end(life, process, Some(next)).await;
        }
        if life.connection.is_over() || process.has_ended() {
            return Some(next);
        }
        (errand, ready) = (next, Ok(()));
    }
}

/// One that nobody waits for any more is not begun.
async fn next(idle: Duration, errands: &mut mpsc::Receiver<Errand>) -> Option<Errand> {
    loop {
        let next = timeout(idle, errands.recv()).await.ok()??;
        if !next.answer.is_closed() {
            return Some(next);
        }
    }
}

/// It ends by itself when nobody can ask it any more, and has written its file then.
async fn end(life: Life, process: Process, next: Option<Errand>) -> Option<Errand> {
    drop(life);
    if let Some(kept) = process.kept.into_inner() {
        let _ = kept.ended().await;
    }
    next
}

/// Why the process is of no more use.
enum Cut {
    Sync,
    Useless(Fault),
    /// The connection broke; how the process ended says more.
    Lost(Fault),
}

struct Life {
    connection: Connection,
    /// A wrong password is to be noticed, whoever unlocked it before.
    unlocked_with: Option<SecretBytes>,
}

impl Life {
    /// Whether it runs at all, and for an account.
    async fn is_signed_in(&mut self) -> Result<(), Cut> {
        let status = self.send(START, Method::GET, "/status", None, SHORT).await?;
        match status.as_ref().map(|status| status["template"]["status"].as_str()) {
            Ok(Some("locked" | "unlocked")) => Ok(()),
            Ok(Some("unauthenticated")) | Err(Fault::SignedOut) => Err(Cut::Useless(Fault::SignedOut)),
            _ => Err(Cut::Useless(garbage())),
        }
    }

    async fn run(
        &mut self,
        synced: &Cell<Option<Duration>>,
        errand: &Errand,
    ) -> Result<Result<Value, Fault>, Cut> {
        let Some(password) = &errand.password else {
            return Ok(Err(Fault::Locked("keyloan was not given its master password".to_owned())));
        };
        let is_same = |known: &SecretBytes| known.expose() == password.expose();
        if !self.unlocked_with.as_ref().is_some_and(is_same) {
            self.unlocked_with = None;
            if let Err(fault) = self.unlock(password).await? {
                return Ok(Err(fault));
            }
            self.unlocked_with = Some(SecretBytes::copy_of(password.expose()));
        }
        let is_fresh =
            synced.get().is_some_and(|at: Duration| clock::since_boot().saturating_sub(at) < FRESH);
        if errand.request.synced || !is_fresh {
            synced.set(Some(clock::since_boot()));
            let sync = self.send(SYNC, Method::POST, "/sync", None, SHORT).await.map_err(|_| Cut::Sync)?;
            synced.set(Some(clock::since_boot()));
            match sync {
                Err(Fault::SignedOut) => return Ok(Err(Fault::SignedOut)),
                Err(fault) if errand.request.synced => return Ok(Err(fault)),
                _ => {}
            }
        }
        let Request { method, path, json, .. } = &errand.request;
        let json = json.as_ref().map(|json| SecretBytes::copy_of(json.expose()));
        self.send(ANSWER, method.clone(), path, json, MOST).await
    }

    async fn unlock(&mut self, password: &SecretBytes) -> Result<Result<(), Fault>, Cut> {
        let Ok(password) = str::from_utf8(password.expose()) else {
            return Ok(Err(Fault::Locked("its master password is no text".to_owned())));
        };
        // Each byte is at most six when it is written down.
        let mut json = Zeroizing::new(Vec::with_capacity(password.len() * 6 + 32));
        json.extend_from_slice(b"{\"password\":");
        if serde_json::to_writer(&mut *json, password).is_err() {
            return Ok(Err(garbage()));
        }
        json.push(b'}');
        let json = SecretBytes::copy_of(&json);
        let unlocked = self.send(UNLOCK, Method::POST, "/unlock", Some(json), SHORT).await?;
        Ok(match unlocked {
            Ok(_) => Ok(()),
            Err(fault @ (Fault::SignedOut | Fault::RateLimited { .. } | Fault::Broken(_))) => Err(fault),
            Err(_) => Err(Fault::Locked("its master password is not the one that keyloan has".to_owned())),
        })
    }

    /// The `data` of the answer, or what its message means.
    async fn send(
        &mut self,
        within: Duration,
        method: Method,
        path: &str,
        json: Option<SecretBytes>,
        most: usize,
    ) -> Result<Result<Value, Fault>, Cut> {
        let sent = self.connection.send(Ask { method, path, headers: &[], json, most });
        let late = |_| Fault::Unreachable(format!("bw did not answer within {} s", within.as_secs()));
        let answer =
            timeout(within, sent).await.map_err(|over| Cut::Useless(late(over)))?.map_err(Cut::Lost)?;
        let mut body: Value = match serde_json::from_slice(answer.body.expose()) {
            Ok(body) => body,
            Err(_) => return Ok(Err(garbage())),
        };
        Ok(match (answer.status, body["success"].as_bool()) {
            (200, Some(true)) => Ok(body["data"].take()),
            (400, Some(false)) => Err(said::in_answer(body["message"].as_str().unwrap_or_default())),
            _ => Err(garbage()),
        })
    }
}

fn garbage() -> Fault {
    Fault::Broken("it does not answer as bw serve does".to_owned())
}
