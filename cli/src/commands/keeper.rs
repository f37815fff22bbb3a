//! What opens, closes and re-keys the vault.

use crate::args::{Init, NewPhrase, Passwd, Pin, Unlock};
use crate::client::{self, Connection};
use crate::environment;
use crate::exit::Failure;
use crate::output;
use keyloan_protocol::control::Message;
use keyloan_protocol::control::request::Request;
use keyloan_protocol::secret::SecretBytes;
use std::os::unix::ffi::OsStringExt;

pub(crate) fn init(init: &Init) -> Result<(), Failure> {
    let act = "make a vault";
    let message = with_desktop(Message::new(Request::Init));
    let message = client::with_secret(act, message, "passphrase", init.passphrase_fd)?;
    let message = client::with_secret(act, message, "pin", init.pin_fd)?;
    let message = client::with_secret(act, message, "phrase", init.phrase_fd)?;
    client::tell(act, &message)?;
    output::note("store a first value: keyloan item set ITEM FIELD");
    Ok(())
}

pub(crate) fn unlock(unlock: &Unlock) -> Result<(), Failure> {
    let act = "unlock the vault";
    let request = Request::Unlock {
        here: unlock.here,
        desktop: unlock.desktop,
        accept_rollback: unlock.accept_rollback,
        keyring: unlock.keyring,
    };
    let message = with_desktop(Message::new(request));
    let message = client::with_secret(act, message, "passphrase", unlock.passphrase.passphrase_fd)?;
    client::tell(act, &message)
}

/// Tells where windows can be opened, for questions from now on.
fn with_desktop(message: Message<Request>) -> Message<Request> {
    environment::desktop()
        .fold(message, |message, (name, value)| message.with(name, SecretBytes::new(value.into_vec())))
}

pub(crate) fn lock() -> Result<(), Failure> {
    let act = "lock the vault";
    let Some(mut connection) = Connection::existing(act)? else {
        output::note("no daemon runs, so nothing is unlocked");
        return Ok(());
    };
    connection.send(&Message::new(Request::Lock), &[])?;
    let reply = connection.reply()?;
    client::notes(act, reply)
}

pub(crate) fn passwd(passwd: &Passwd) -> Result<(), Failure> {
    change_passphrase("change the passphrase", Request::Passwd, passwd)
}

/// What `passwd` and `rekey` have in common: the passphrase of now, and the one from then on.
pub(super) fn change_passphrase(act: &str, request: Request, passwd: &Passwd) -> Result<(), Failure> {
    let message = Message::new(request);
    let message = client::with_secret(act, message, "passphrase", passwd.passphrase.passphrase_fd)?;
    let message = client::with_secret(act, message, "new", passwd.new_passphrase_fd)?;
    client::tell(act, &message)
}

pub(crate) fn pin(pin: &Pin) -> Result<(), Failure> {
    let act = "change the PIN";
    let message = Message::new(Request::Pin);
    let message = client::with_secret(act, message, "passphrase", pin.passphrase.passphrase_fd)?;
    let message = client::with_secret(act, message, "pin", pin.pin_fd)?;
    client::tell(act, &message)
}

pub(crate) fn phrase(phrase: &NewPhrase) -> Result<(), Failure> {
    let act = "change the phrase";
    let message = Message::new(Request::Phrase { remove: phrase.remove });
    let message = client::with_secret(act, message, "passphrase", phrase.passphrase.passphrase_fd)?;
    let message = client::with_secret(act, message, "phrase", phrase.phrase_fd)?;
    client::tell(act, &message)
}
