//! `keyloan approve`: holds a terminal in its foreground while the daemon asks there. No question, PIN or answer ever
//! comes by here.

use crate::args::Passphrase;
use crate::client::{self, Connection};
use crate::exit::Failure;
use crate::output;
use keyloan_platform::process;
use keyloan_protocol::control::Message;
use keyloan_protocol::control::error_kind::ErrorKind;
use keyloan_protocol::control::request::Request;
use keyloan_protocol::control::response::Reply;

pub(crate) fn approve(passphrase: &Passphrase) -> Result<(), Failure> {
    let act = "answer questions here";
    let message =
        client::with_secret(act, Message::new(Request::Approve), "passphrase", passphrase.passphrase_fd)?;
    let mut connection = Connection::open(act)?;
    connection.send(&message, &[])?;
    drop(message);
    let reply = connection.reply()?;
    let Reply::Enrolled = reply.body else { return Err(client::unexpected(act)) };
    // Not before: the question for the passphrase shows which program asks, and the daemon could not read it.
    process::make_undumpable().map_err(|error| Failure::new(ErrorKind::Bug, act, error))?;
    let ended = connection.reply();
    if ended.is_err() && output::is_terminal() {
        // A daemon that was killed could not put the terminal's own screen back.
        output::bytes(b"\x1b[?1049l")?;
    }
    client::notes(act, ended?)
}
