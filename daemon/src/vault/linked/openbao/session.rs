//! Signing in: with a token that the local vault keeps, with an AppRole, or with a token that a file holds. A token that
//! was got by a login is in this process alone, and is revoked when the local vault is locked.

use super::api::{self, Api, Talk};
use super::paths::encoded;
use crate::clock;
use crate::patience;
use crate::vault::linked::{Call, Fault};
use hyper::Method;
use keyloan_protocol::limits;
use keyloan_protocol::secret::SecretBytes;
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::timeout;

pub(super) const TOKEN: &str = "token";
pub(super) const SECRET_ID: &str = "secret-id";
pub(super) const WRAPPED: &str = "wrapped-secret-id";

/// The longest token; those of batches are long.
const LONGEST: u64 = 16 * 1024;

/// What a login may take, also after whoever wanted it has gone.
const LOGIN: Duration = Duration::from_secs(60);

pub(super) enum SignIn {
    Token,
    Role {
        id: String,
        mount: String,
    },
    /// Read anew for each request: whoever keeps it there renews it, too.
    File(PathBuf),
}

pub(super) struct Session {
    pub(super) how: SignIn,
    held: Arc<Mutex<Option<Held>>>,
    /// The local vault was locked: what is signed in for now ends with what it was for.
    over: Cell<bool>,
}

struct Held {
    token: Arc<SecretBytes>,
    since: Duration,
    /// Nothing for one that lasts for ever, or of which nothing is known.
    lasts: Duration,
    renewable: bool,
}

impl Held {
    /// Two thirds of its time are over.
    fn is_mostly_used(&self) -> bool {
        !self.lasts.is_zero() && clock::since_boot().saturating_sub(self.since) * 3 >= self.lasts * 2
    }
}

/// A token for some requests.
pub(super) struct Token {
    pub(super) value: Arc<SecretBytes>,
    /// One that a new login could put in its place.
    pub(super) is_old: bool,
}

#[derive(Deserialize)]
struct Auth {
    client_token: String,
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
}

#[derive(Deserialize)]
struct About {
    #[serde(default)]
    ttl: u64,
    #[serde(default)]
    creation_ttl: u64,
    #[serde(default)]
    renewable: bool,
}

#[derive(Serialize)]
struct Login<'a> {
    role_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_id: Option<&'a str>,
}

impl Session {
    pub(super) fn new(how: SignIn) -> Self {
        Self { how, held: Arc::default(), over: Cell::new(false) }
    }

    pub(super) async fn token(
        self: &Rc<Self>,
        api: &Rc<Api>,
        talk: &mut Talk,
        call: &Call,
    ) -> Result<Token, Fault> {
        if let SignIn::File(path) = &self.how {
            let path = path.clone();
            let shown = path.display().to_string();
            let late = || Err(Fault::Unreachable(format!("the file system of {shown} does not answer")));
            let value = patience::look(move || in_file(&path)).await.unwrap_or_else(late)?;
            return Ok(Token { value: Arc::new(value), is_old: false });
        }
        let may_sign_in = matches!(self.how, SignIn::Role { .. });
        // One login for all who wait.
        let mut held = Arc::clone(&self.held).lock_owned().await;
        let mut is_old = held.is_some();
        if let Some(now) = held.as_mut()
            && now.is_mostly_used()
        {
            match renewed(talk, now).await {
                Ok(Some(lasts)) => (now.since, now.lasts) = (clock::since_boot(), lasts),
                // What it lent ends with the old one, at the time that the server has set for that.
                Ok(None) if may_sign_in => (*held, is_old) = (None, false),
                // A third of its time is left, and the server says when it is over.
                Ok(None) | Err(_) => {}
            }
        }
        if held.is_none() {
            held = self.signed_in(api, talk, call, held).await?;
        }
        let now = held.as_ref().ok_or_else(over)?;
        Ok(Token { value: Arc::clone(&now.token), is_old: is_old && may_sign_in })
    }

    async fn signed_in(
        self: &Rc<Self>,
        api: &Rc<Api>,
        talk: &mut Talk,
        call: &Call,
        mut held: OwnedMutexGuard<Option<Held>>,
    ) -> Result<OwnedMutexGuard<Option<Held>>, Fault> {
        let SignIn::Role { id, mount } = &self.how else {
            let token = call.secrets.expose(TOKEN).ok_or(Fault::SignedOut)?;
            *held = Some(about(talk, SecretBytes::copy_of(token.expose())).await?);
            return Ok(held);
        };
        let secret = call.secrets.expose(SECRET_ID).map(|secret| str::from_utf8(secret.expose())).transpose();
        let json = api::json(&Login { role_id: id, secret_id: secret.map_err(|_| Fault::SignedOut)? })?;
        let path = format!("auth/{}/login", encoded(mount));
        let (session, mut talk, is_over) = (Rc::clone(self), api.talk(), self.is_over());
        // Whoever asked may be gone before the answer comes, and a token that nobody knows of is never revoked. Nobody
        // begins another login before this one is over.
        let login = tokio::task::spawn_local(async move {
            let late = |_| Err(Fault::Unreachable("the server did not answer in time".to_owned()));
            *held = Some(timeout(LOGIN, login(&mut talk, &path, json)).await.unwrap_or_else(late)?);
            // The end did not wait for this. Who signs in after it, to end a lease, sees to that.
            if session.is_over() && !is_over {
                let _ = session.revoke(&mut talk, held.take()).await;
            }
            Ok(held)
        });
        login.await.map_err(|_| api::garbage())?
    }

    /// The server does not take this token any more.
    pub(super) async fn forget(&self, token: &Arc<SecretBytes>) {
        let mut held = self.held.lock().await;
        if held.as_ref().is_some_and(|held| Arc::ptr_eq(&held.token, token)) {
            *held = None;
        }
    }

    /// Ends what a login began, and with it all that the server lent for it.
    pub(super) async fn sign_out(&self, talk: &mut Talk) -> Result<(), Fault> {
        self.over.set(true);
        let held = self.held.lock().await.take();
        self.revoke(talk, held).await
    }

    async fn revoke(&self, talk: &mut Talk, held: Option<Held>) -> Result<(), Fault> {
        let (Some(held), SignIn::Role { .. }) = (held, &self.how) else { return Ok(()) };
        let answer = talk.send(Method::POST, "auth/token/revoke-self", Some(&held.token), None).await?;
        if api::is_good(&answer) { Ok(()) } else { Err(api::fault(&answer, "signing out")) }
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.get()
    }

    /// Whoever was let in before the end, and goes on, gets no new login that nobody would end.
    pub(super) fn check(&self) -> Result<(), Fault> {
        match self.how {
            SignIn::Role { .. } if self.is_over() => Err(over()),
            _ => Ok(()),
        }
    }
}

fn over() -> Fault {
    Fault::Locked("it was signed out of meanwhile".to_owned())
}

async fn login(talk: &mut Talk, path: &str, login: SecretBytes) -> Result<Held, Fault> {
    let answer = talk.send(Method::POST, path, None, Some(login)).await?;
    match answer.status {
        // A wrong or used up secret id, and a wrong role id, are a bad request.
        400 | 401 | 403 => return Err(Fault::SignedOut),
        _ if !api::is_good(&answer) => return Err(api::fault(&answer, "signing in")),
        _ => {}
    }
    let auth: Auth = api::part(api::body(&answer)?.auth)?;
    if auth.client_token.is_empty() {
        return Err(Fault::Refused("signing in: the server wants a second factor".to_owned()));
    }
    Ok(Held {
        token: Arc::new(SecretBytes::new(auth.client_token.into_bytes())),
        since: clock::since_boot(),
        lasts: seconds(auth.lease_duration),
        renewable: auth.renewable,
    })
}

/// A token that somebody else made, with what the server says of its time; a token need not be allowed to ask.
async fn about(talk: &mut Talk, token: SecretBytes) -> Result<Held, Fault> {
    let answer = talk.send(Method::GET, "auth/token/lookup-self", Some(&token), None).await?;
    let now = clock::since_boot();
    let mut held = Held { token: Arc::new(token), since: now, lasts: Duration::ZERO, renewable: false };
    match answer.status {
        403 => {}
        _ if !api::is_good(&answer) => return Err(api::fault(&answer, "the token")),
        _ => {
            let about: About = api::part(api::body(&answer)?.data)?;
            let (left, all) = (seconds(about.ttl), seconds(about.creation_ttl));
            held.lasts = all.max(left);
            held.since = now.saturating_sub(held.lasts.saturating_sub(left));
            held.renewable = about.renewable;
        }
    }
    Ok(held)
}

/// How long the token lasts from now on; nothing where it cannot last much longer.
async fn renewed(talk: &mut Talk, held: &Held) -> Result<Option<Duration>, Fault> {
    if !held.renewable {
        return Ok(None);
    }
    let empty = SecretBytes::copy_of(b"{}");
    let answer = talk.send(Method::POST, "auth/token/renew-self", Some(&held.token), Some(empty)).await?;
    if matches!(answer.status, 400 | 403) {
        return Ok(None);
    }
    if !api::is_good(&answer) {
        return Err(api::fault(&answer, "renewing the token"));
    }
    let auth: Auth = api::part(api::body(&answer)?.auth)?;
    let lasts = seconds(auth.lease_duration);
    // Near the longest time that a token may have at all, the server gives less than it was asked for.
    Ok((lasts * 2 >= held.lasts).then_some(lasts))
}

/// A server may say any number, and sums of the largest overflow.
fn seconds(said: u64) -> Duration {
    Duration::from_secs(said.min(limits::SECONDS))
}

fn in_file(path: &Path) -> Result<SecretBytes, Fault> {
    let broken = |cause: &str| Fault::Broken(format!("{}: {cause}", path.display()));
    let nonblocking = nix::fcntl::OFlag::O_NONBLOCK.bits();
    let file = match std::fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Fault::SignedOut),
        opened => opened.map_err(|error| broken(&error.to_string()))?,
    };
    if !file.metadata().is_ok_and(|found| found.is_file()) {
        return Err(broken("it is no regular file"));
    }
    let mut text = zeroize::Zeroizing::new(Vec::with_capacity(usize::try_from(LONGEST).unwrap_or(0) + 1));
    file.take(LONGEST + 1).read_to_end(&mut text).map_err(|error| broken(&error.to_string()))?;
    let token = text.trim_ascii();
    if token.is_empty() {
        return Err(Fault::SignedOut);
    }
    if text.len() as u64 > LONGEST || !token.iter().all(u8::is_ascii_graphic) {
        return Err(broken("what it holds is no token"));
    }
    Ok(SecretBytes::copy_of(token))
}
