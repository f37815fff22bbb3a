//! The way to the session bus: that of the link, else that of the desktop that the local vault was unlocked from, else
//! the one in the user's own runtime directory. Never what a requester's variables say.
//!
//! An address of D-Bus may name a program to start (`unixexec:`), or a host. Only sockets of this machine are taken, and
//! only where this user listens.

use super::Fault;
use super::metered::Metered;
use crate::patience;
use data_encoding::HEXLOWER;
use keyloan_platform::{peer, process};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zbus::Connection;

const DBUS: &str = "org.freedesktop.DBus";
const ADDRESS: &str = "DBUS_SESSION_BUS_ADDRESS";
const RUNTIME: &str = "XDG_RUNTIME_DIR";
/// In it, as `systemd` has it.
const SOCKET: &str = "bus";

/// The longest line of an authentication.
const LINE: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Path(PathBuf),
    /// In the abstract namespace of Linux, where any user may listen.
    Abstract(Vec<u8>),
}

pub(super) async fn connected(
    setting: Option<&Path>,
    desktop: &[(&'static str, OsString)],
) -> Result<Connection, Fault> {
    let place = place(setting, desktop, process::effective_uid())?;
    let shown = place.shown();
    let absent = |_| Fault::Unreachable(format!("there is no session bus at {shown}"));
    let opened = patience::look(move || open(&place)).await;
    let late = || Err(Fault::Unreachable(format!("the session bus at {shown} does not answer")));
    let socket = opened.map_or_else(late, |opened| match opened {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(Fault::Refused(format!("the session bus at {shown} is another user's")))
        }
        opened => opened.map_err(absent),
    })?;
    let socket = tokio::net::UnixStream::from_std(socket).map_err(absent)?;
    greeted(socket)
        .await
        .map_err(|_| Fault::Unreachable(format!("what listens at {shown} is no session bus")))
}

/// Authenticates and says hello (D-Bus Specification, Authentication Protocol). zbus 5.19 would index past the start of
/// its buffer, and so end the daemon, over a line that is a line end alone.
async fn greeted(mut socket: tokio::net::UnixStream) -> zbus::Result<Connection> {
    let uid = HEXLOWER.encode(process::effective_uid().to_string().as_bytes());
    socket.write_all(format!("\0AUTH EXTERNAL {uid}\r\n").as_bytes()).await?;
    // Byte by byte: what follows the line is not for this.
    let mut line = Vec::with_capacity(LINE);
    while !line.ends_with(b"\n") && line.len() < LINE {
        line.push(socket.read_u8().await?);
    }
    let guid = line.strip_prefix(b"OK ").and_then(|rest| std::str::from_utf8(rest.trim_ascii_end()).ok());
    let guid = guid.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    socket.write_all(b"BEGIN\r\n").await?;
    let bus = zbus::connection::Builder::authenticated_socket(Metered(socket), guid)?.build().await?;
    bus.call_method(Some(DBUS), "/org/freedesktop/DBus", Some(DBUS), "Hello", &()).await?;
    Ok(bus)
}

/// Without waiting for whoever listens to take the connection up.
fn open(place: &Place) -> io::Result<UnixStream> {
    let address = match place {
        Place::Path(path) => UnixAddr::new(path.as_path())?,
        Place::Abstract(name) => UnixAddr::new_abstract(name)?,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &address)?;
    if peer::listener_uid(socket.as_fd())? != process::effective_uid() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(socket.into())
}

fn place(setting: Option<&Path>, desktop: &[(&'static str, OsString)], uid: u32) -> Result<Place, Fault> {
    if let Some(path) = setting {
        return Ok(Place::Path(path.to_owned()));
    }
    let of = |name| desktop.iter().find(|(held, _)| *held == name).map(|(_, value)| value);
    if let Some(address) = of(ADDRESS) {
        let mut several = address.as_bytes().split(|byte| *byte == b';');
        return several.find_map(socket_of).ok_or_else(|| {
            Fault::Unable("the desktop's session bus is not reached by a Unix socket".to_owned())
        });
    }
    let directory = of(RUNTIME).map_or_else(|| PathBuf::from(format!("/run/user/{uid}")), PathBuf::from);
    Ok(Place::Path(directory.join(SOCKET)))
}

/// Of one address: `unix:path=/run/user/1000/bus,guid=…` (D-Bus Specification, Server Addresses).
fn socket_of(address: &[u8]) -> Option<Place> {
    address.strip_prefix(b"unix:")?.split(|byte| *byte == b',').find_map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let value = unescaped(&pair[equals + 1..])?;
        match &pair[..equals] {
            b"path" if value.starts_with(b"/") => Some(Place::Path(OsString::from_vec(value).into())),
            b"abstract" => Some(Place::Abstract(value)),
            _ => None,
        }
    })
}

fn unescaped(text: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        let mut digit = || char::from(*rest.next()?).to_digit(16);
        plain.push(if *byte == b'%' { u8::try_from(digit()? * 16 + digit()?).ok()? } else { *byte });
    }
    Some(plain)
}

impl Place {
    fn shown(&self) -> String {
        match self {
            Self::Path(path) => path.display().to_string(),
            Self::Abstract(name) => format!("@{}", OsStr::from_bytes(name).display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(setting: Option<&str>, desktop: &[(&'static str, &str)]) -> Result<Place, Fault> {
        let desktop: Vec<_> = desktop.iter().map(|(name, value)| (*name, OsString::from(value))).collect();
        place(setting.map(Path::new), &desktop, 1000)
    }

    #[test]
    fn the_links_own_socket_comes_before_the_desktops_and_that_before_the_users() {
        let desktop = [(ADDRESS, "unix:path=/d/bus,guid=00"), (RUNTIME, "/r")];
        let path = |path: &str| Place::Path(PathBuf::from(path));
        assert_eq!(found(Some("/l"), &desktop).unwrap(), path("/l"));
        assert_eq!(found(None, &desktop).unwrap(), path("/d/bus"));
        assert_eq!(found(None, &desktop[1..]).unwrap(), path("/r/bus"));
        assert_eq!(found(None, &[]).unwrap(), path("/run/user/1000/bus"));
    }

    #[test]
    fn an_address_that_is_no_socket_of_this_machine_is_not_followed() {
        for address in [
            "unixexec:path=/bin/sh,argv1=-c",
            "tcp:host=example.org,port=1",
            "autolaunch:",
            "unix:tmpdir=/tmp",
            "unix:path=relative",
            "unix:path=/a%2",
            "",
        ] {
            assert!(matches!(found(None, &[(ADDRESS, address)]), Err(Fault::Unable(_))), "{address}");
        }
        let second = "unixexec:path=/bin/sh;unix:abstract=/tmp/d%2dx,guid=1";
        assert_eq!(found(None, &[(ADDRESS, second)]).unwrap(), Place::Abstract(b"/tmp/d-x".to_vec()));
    }
}
