//! Where questions go and passphrases are typed. That is fixed by whoever proved the passphrase last; a
//! request that proves nothing moves nothing.

use super::{Broker, Client, Refusal};
use crate::approval::flood::Asker;
use crate::approval::notification::{Announced, Notifier};
use crate::approval::pinentry::Desktop;
use crate::approval::place::{Place, Wanted};
use crate::approval::question::{Certainty, Question};
use crate::approval::queue::Turn;
use crate::approval::terminal::{Screen, Typed};
use crate::approval::{DEADLINE, No};
use crate::audit::event::Event;
use crate::audit::sink::Durable;
use crate::clock::timeout;
use crate::journal::{self, Level};
use crate::requester::{Requester, TerminalSession};
use crate::vault::local::identity;
use keyloan_platform::process;
use keyloan_protocol::control::Message;
use keyloan_protocol::control::response::Reply;
use keyloan_protocol::limits;
use keyloan_protocol::secret::SecretBytes;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Tries at a passphrase or a PIN within one request.
const TRIES: u32 = 3;

/// The place of whoever proved the passphrase last.
#[derive(Default)]
pub(super) struct Surface {
    /// Questions on other terminals are announced on this one.
    terminal: Option<TerminalSession>,
    desktop: Option<Desktop>,
    /// `approver.pinentry` of the policy when it was last open: a locked vault asks with the same.
    pub(super) pinentry: Option<PathBuf>,
}

impl Broker {
    pub(super) fn move_surface(&self, requester: &Requester, desktop: Option<Desktop>) {
        let mut surface = self.surface.borrow_mut();
        surface.terminal = requester.terminal_session();
        surface.desktop = desktop;
    }

    /// The desktop for questions, with the pinentry that the policy names.
    pub(super) fn desktop(&self) -> Option<Desktop> {
        self.surface.borrow().desktop.clone().map(|desktop| self.with_chosen_pinentry(desktop))
    }

    fn with_chosen_pinentry(&self, mut desktop: Desktop) -> Desktop {
        let kept = || self.surface.borrow().pinentry.clone();
        desktop.program = self.with_policy(|policy| policy.pinentry.clone()).unwrap_or_else(|_| kept());
        desktop
    }

    pub(super) fn asker(&self, requester: &Requester) -> Asker {
        Asker { origin: requester.origin(), is_home: requester.is_on(self.surface.borrow().terminal) }
    }

    /// The terminal of the last unlock while that session lasts, else 0: its number is soon that of another terminal,
    /// which any program may open, and that would be told in its place.
    fn unlocked_on(&self) -> u64 {
        let is_the_same = |(terminal, (leader, started)): &TerminalSession| {
            process::stat(*leader).is_some_and(|stat| stat.started == *started && stat.terminal == *terminal)
        };
        self.surface.borrow().terminal.filter(is_the_same).map_or(0, |(terminal, _)| terminal)
    }

    /// Tells whoever should know that a question stands: the requester's terminal of a window elsewhere, the
    /// terminal of the last unlock of one on another terminal, and its desktop of both.
    pub(super) fn tell(&self, client: &Client, place: &Place, title: &str) -> Option<Announced> {
        match place {
            Place::Window(window) => {
                let on = "a window on your desktop".to_owned();
                // Room is for four replies and this is the first; a client that is gone needs none.
                let _ = client.replies.try_send(Message::new(Reply::Waiting { on }));
                self.notify(format!("in a window on {}: {title}", window.name))
            }
            Place::Askpass(askpass) => {
                let on = askpass.name();
                let _ = client.replies.try_send(Message::new(Reply::Waiting { on: on.clone() }));
                self.notify(format!("in {on}: {title}"))
            }
            Place::Board(board) => {
                let on = format!("keyloan approve on {}", board.terminal);
                let _ = client.replies.try_send(Message::new(Reply::Waiting { on: on.clone() }));
                self.notify(format!("{on}: {title}"))
            }
            Place::Terminal(_) => {
                let terminal = client.requester.terminal_name()?;
                let on = format!("on {terminal}: {title}");
                self.announce(&terminal, &format!("asking {on}")).then(|| self.notify(on)).flatten()
            }
        }
    }

    /// Writes one line to the terminal of the last unlock about what happens on another; whether there is another.
    pub(super) fn announce(&self, about: &str, line: &str) -> bool {
        let surface = self.unlocked_on();
        let name = keyloan_platform::terminal::path_of_device(surface);
        if name.is_some_and(|name| name == Path::new("/dev").join(about)) {
            return false;
        }
        if let Ok(terminal) = keyloan_platform::terminal::open(surface, process::effective_uid()) {
            let line = format!("\r\nkeyloan: {line}\r\n");
            // Non-blocking: a stopped terminal misses the line and nothing waits for it.
            let _ = nix::unistd::write(&terminal, line.as_bytes());
        }
        true
    }

    /// Says on the desktop of the last unlock, where there is one, that something waits for its human.
    pub(super) fn notify(&self, text: String) -> Option<Announced> {
        Some(self.notifier.announce(self.desktop()?, text))
    }

    /// Says there that a rule refused something.
    pub(super) fn mention_refusal(&self, title: &str, rule: &str) {
        if let Some(desktop) = self.desktop() {
            self.notifier.mention(desktop, format!("{title} ({rule})"));
        }
    }

    /// Says there that a terminal answers from now on.
    pub(super) fn mention_enrolment(&self, line: &str) {
        if let Some(desktop) = self.desktop() {
            Notifier::tell_enrolment(desktop, line.to_owned());
        }
    }

    /// The vault's identity, by a passphrase that was handed over, or is typed: on the terminal that the
    /// request comes from, else in a window on a desktop.
    pub(super) async fn proved_identity(
        &self,
        client: &Client,
        given: Option<SecretBytes>,
        question: Question,
        desktop: Option<&Desktop>,
        in_window: bool,
    ) -> Result<Zeroizing<String>, Refusal> {
        let wrapped = self.vault.borrow_mut().wrapped_identity()?;
        if let Some(passphrase) = given {
            return self.unwrap_identity(client, wrapped, &passphrase).await;
        }
        let asker = self.asker(&client.requester);
        if !in_window {
            let turn = self.queue.to_type(asker).await?;
            if let Ok(mut terminal) = Place::find(None, &client.requester).await {
                return self.unwrap_typed(client, &mut terminal, wrapped, question, turn).await;
            }
        }
        let turn = self.queue.turn(asker, true).await?;
        let desktop = desktop.map(|desktop| self.with_chosen_pinentry(desktop.clone()));
        let mut place = Place::find(desktop.as_ref(), &client.requester).await?;
        self.unwrap_typed(client, &mut place, wrapped, question, turn).await
    }

    pub(super) async fn unwrap_typed(
        &self,
        client: &Client,
        place: &mut Place,
        wrapped: Vec<u8>,
        mut question: Question,
        _turn: Turn<'_>,
    ) -> Result<Zeroizing<String>, Refusal> {
        if let Some(command) = client.requester.shown_command() {
            question.line("command", &command, Certainty::Claimed);
        }
        question.asked_by(&client.requester);
        if let Some(cause) = question.unshowable() {
            return Err(No::Unshowable(cause).into());
        }
        // A window comes up before whoever sits there, whoever asked for it.
        let mut standing = match place {
            Place::Window(_) => Some(self.queue.stands(self.asker(&client.requester), true)?),
            Place::Terminal(_) | Place::Board(_) | Place::Askpass(_) => None,
        };
        let _announced = self.tell(client, place, &question.title);
        let is_own = matches!(place, Place::Terminal(_)) && self.asker(&client.requester).is_home;
        // Never in a window: which desktop that opens on may be what the request says, before the passphrase proves it.
        let question = question.with_phrase(self.phrase().filter(|_| is_own));
        let asked = async {
            place.show(&question, Wanted::Passphrase).await?;
            for _ in 0..TRIES {
                let typed = place.typed(Wanted::Passphrase).await?;
                match self.unwrap_identity(client, wrapped.clone(), &typed).await {
                    Err(Refusal::WrongPassphrase) => {}
                    other => return other,
                }
                place.was_wrong(Wanted::Passphrase).await?;
            }
            Err(Refusal::WrongPassphrase)
        };
        let typed = timeout(DEADLINE, asked).await.unwrap_or(Err(No::TimedOut(DEADLINE).into()));
        if let (Some(standing), Ok(_)) = (&mut standing, &typed) {
            standing.yes();
        }
        typed
    }

    pub(super) async fn unwrap_identity(
        &self,
        client: &Client,
        wrapped: Vec<u8>,
        passphrase: &SecretBytes,
    ) -> Result<Zeroizing<String>, Refusal> {
        let unwrapped = if let Some(unwrapped) = self.unwrap_by_recovery_key(passphrase) {
            unwrapped
        } else {
            let passphrase = identity::passphrase(passphrase)?;
            self.derive(move || Ok(identity::unwrap(&wrapped, &passphrase)?)).await
        };
        if matches!(unwrapped, Err(Refusal::WrongPassphrase)) {
            journal::say(Level::Warning, "a passphrase was wrong");
            self.record(&Event::UnlockFailed { by: self.who(&client.requester) }, Durable::Now)?;
        }
        unwrapped
    }

    /// A new passphrase or PIN: handed over, or typed twice on the requester's terminal.
    pub(super) async fn new_secret(
        &self,
        client: &Client,
        given: Option<SecretBytes>,
        what: &str,
        shortest: usize,
    ) -> Result<SecretBytes, Refusal> {
        let too_short = Refusal::Input(if shortest > 1 {
            "a PIN has at least 4 characters"
        } else {
            "a passphrase is empty"
        });
        if let Some(given) = given {
            return if given.len() < shortest { Err(too_short) } else { Ok(given) };
        }
        let _turn = self.queue.to_type(self.asker(&client.requester)).await?;
        let screen = Screen::of(&client.requester)?;
        let asked = async {
            screen.settle().await.map_err(No::Terminal)?;
            for _ in 0..TRIES {
                let first = read_line(&screen, &format!("keyloan: {what}: ")).await?;
                if first.len() < shortest {
                    screen.write("  That is too short.\n").await.map_err(No::Terminal)?;
                    continue;
                }
                let second = read_line(&screen, "keyloan: the same again: ").await?;
                if first.expose() == second.expose() {
                    return Ok(first);
                }
                screen.write("  The two differ.\n").await.map_err(No::Terminal)?;
            }
            Err(No::Declined.into())
        };
        timeout(DEADLINE, asked).await.unwrap_or(Err(No::TimedOut(DEADLINE).into()))
    }

    /// A value, typed unseen on the requester's terminal.
    pub(super) async fn typed_value(&self, client: &Client, what: &str) -> Result<SecretBytes, Refusal> {
        let typed = self.typed_or_nothing(client, what, "not shown").await?;
        typed.ok_or_else(|| No::Declined.into())
    }

    /// The same, where nothing is an answer, too; `note` says what it means.
    pub(super) async fn typed_or_nothing(
        &self,
        client: &Client,
        what: &str,
        note: &'static str,
    ) -> Result<Option<SecretBytes>, Refusal> {
        let _turn = self.queue.to_type(self.asker(&client.requester)).await?;
        let screen = Screen::of(&client.requester)?;
        let asked = async {
            screen.settle().await.map_err(No::Terminal)?;
            let what = keyloan_protocol::names::escaped(what, 300);
            let prompt = format!("keyloan: {what} ({note}): ");
            match screen.read_line_of(&prompt, limits::FIELD_VALUE).await.map_err(No::Terminal)? {
                Typed::Line(line) => Ok(Some(line).filter(|line| !line.is_empty())),
                Typed::Cancelled => Err(No::Declined.into()),
            }
        };
        timeout(DEADLINE, asked).await.unwrap_or(Err(No::TimedOut(DEADLINE).into()))
    }
}

/// A line that is not empty; an empty one declines.
async fn read_line(screen: &Screen, prompt: &str) -> Result<SecretBytes, Refusal> {
    match screen.read_line(prompt).await.map_err(No::Terminal)? {
        Typed::Line(line) if !line.is_empty() => Ok(line),
        _ => Err(No::Declined.into()),
    }
}
