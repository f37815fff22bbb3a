//! logind's word that the machine goes to sleep, or that a session of the user is to be locked: either locks the vault.
//! Believed are the signals of whoever owns logind's name on the system bus, which is where root puts it and not where
//! a variable says. Without that bus or without logind nothing happens.

use crate::broker::Broker;
use keyloan_platform::{peer, process};
use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};
use zbus::export::futures_core::Stream;
use zbus::fdo::DBusProxy;
use zbus::names::{BusName, UniqueName};
use zbus::zvariant::{OwnedFd, OwnedObjectPath, OwnedValue};
use zbus::{Connection, MatchRule, Message, MessageStream};

/// In a directory where only root puts anything.
const BUS: &str = "/run/dbus/system_bus_socket";
/// Users that the bus runs as, where it does not run as root.
const BUS_USERS: [&str; 2] = ["messagebus", "dbus"];

const LOGIND: &str = "org.freedesktop.login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";
const SESSION: &str = "org.freedesktop.login1.Session";
const DBUS: &str = "org.freedesktop.DBus";

/// After a bus that is not there, or that ended.
const AGAIN: Duration = Duration::from_secs(30);
/// For an answer of the bus or of logind. What is not asked for, and anybody may send, fills the queue before it.
const ANSWER: Duration = Duration::from_secs(10);

pub(crate) async fn obey(broker: Rc<Broker>) {
    loop {
        // Whatever was wrong: the next bus may be another.
        let _ = listen(&broker).await;
        sleep(AGAIN).await;
    }
}

async fn listen(broker: &Broker) -> zbus::Result<()> {
    let bus = timeout(ANSWER, connected()).await.map_err(|_| slow())??;
    let mut heard = MessageStream::from(&bus);
    let dbus = DBusProxy::new(&bus).await?;
    let rules = [
        MatchRule::builder().sender(LOGIND)?.interface(MANAGER)?.member("PrepareForSleep")?,
        MatchRule::builder().sender(LOGIND)?.interface(SESSION)?.member("Lock")?,
        MatchRule::builder().sender(DBUS)?.interface(DBUS)?.member("NameOwnerChanged")?.arg(0, LOGIND)?,
    ];
    let owner = async {
        for rule in rules {
            dbus.add_match_rule(rule.build()).await?;
        }
        dbus.get_name_owner(BusName::try_from(LOGIND)?).await.map_err(zbus::Error::from)
    };
    let logind = timeout(ANSWER, owner).await.map_err(|_| slow())??;
    let mut delay = Delay::take(&bus).await;
    while let Some(message) = poll_fn(|context| Pin::new(&mut heard).poll_next(context)).await {
        match said(&message?, &logind) {
            Some(Said::Sleep) => {
                broker.lock("the machine goes to sleep");
                drop(delay.take());
            }
            Some(Said::Awake) => {
                delay = Delay::take(&bus).await;
                broker.tick();
            }
            Some(Said::Lock(session)) if is_ours(&bus, &session).await => {
                broker.lock("the session was locked");
            }
            Some(Said::Gone) => break,
            Some(Said::Lock(_)) | None => {}
        }
    }
    Ok(())
}

fn slow() -> zbus::Error {
    io::Error::from(io::ErrorKind::TimedOut).into()
}

async fn connected() -> zbus::Result<Connection> {
    let socket = UnixStream::connect(BUS).await?;
    let listens = peer::listener_uid(socket.as_fd())?;
    if listens != 0 && !BUS_USERS.iter().any(|user| process::uid_of(user) == Some(listens)) {
        return Err(io::Error::from(io::ErrorKind::PermissionDenied).into());
    }
    zbus::connection::Builder::unix_stream(socket).build().await
}

enum Said {
    Sleep,
    Awake,
    /// The path of a session.
    Lock(String),
    /// Another has logind's name now, or nobody.
    Gone,
}

/// Anybody may send signals to one connection, whatever that asked to hear; the bus says who did.
fn said(message: &Message, logind: &UniqueName<'_>) -> Option<Said> {
    let header = message.header();
    let (sender, member) = (header.sender()?, header.member()?);
    if message.message_type() != zbus::message::Type::Signal {
        return None;
    }
    match (header.interface()?.as_str(), member.as_str()) {
        (MANAGER, "PrepareForSleep") if sender == logind => {
            Some(if message.body().deserialize().ok()? { Said::Sleep } else { Said::Awake })
        }
        (SESSION, "Lock") if sender == logind => Some(Said::Lock(header.path()?.to_string())),
        (DBUS, "NameOwnerChanged") if sender == DBUS => {
            let (name, _, _): (String, String, String) = message.body().deserialize().ok()?;
            (name == LOGIND).then_some(Said::Gone)
        }
        _ => None,
    }
}

/// Whether a session is one of this user. One of which that cannot be found out may be.
async fn is_ours(bus: &Connection, session: &str) -> bool {
    let get = bus.call_method(
        Some(LOGIND),
        session,
        Some("org.freedesktop.DBus.Properties"),
        "Get",
        &(SESSION, "User"),
    );
    let Ok(Ok(answer)) = timeout(ANSWER, get).await else { return true };
    let user = answer.body().deserialize::<OwnedValue>().ok();
    let user = user.and_then(|user| <(u32, OwnedObjectPath)>::try_from(user).ok());
    user.is_none_or(|(uid, _)| uid == process::effective_uid())
}

/// Holds sleep up, for as long as logind allows, until the vault is locked.
struct Delay(#[expect(dead_code, reason = "it holds until it is closed")] OwnedFd);

impl Delay {
    /// `None` where it may not be had; the vault is then locked as the machine goes to sleep, or when it wakes.
    async fn take(bus: &Connection) -> Option<Self> {
        let what = &("sleep", "keyloan", "locks the vault", "delay");
        let inhibit =
            bus.call_method(Some(LOGIND), "/org/freedesktop/login1", Some(MANAGER), "Inhibit", what);
        let answer = timeout(ANSWER, inhibit).await.ok()?.ok()?;
        answer.body().deserialize().ok().map(Self)
    }
}
