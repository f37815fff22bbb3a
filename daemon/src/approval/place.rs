//! Where a secret is typed: the requester's own terminal, the enrolled one, or a window on the desktop of whoever
//! unlocked. The one way to each, for PINs and passphrases alike.

use super::No;
use super::askpass::Askpass;
use super::board::OnBoard;
use super::pinentry::{Desktop, Window};
use super::question::Question;
use super::terminal::{Screen, Typed};
use crate::requester::Requester;
use keyloan_protocol::secret::SecretBytes;
use std::time::Duration;
use tokio::time::timeout;

/// What is to be typed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Pin,
    Passphrase,
}

impl Wanted {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pin => "PIN",
            Self::Passphrase => "Passphrase",
        }
    }

    /// The label of the button that says yes.
    pub(super) fn button(self) -> &'static str {
        match self {
            Self::Pin => "Allow",
            Self::Passphrase => "Unlock",
        }
    }

    fn prompt(self) -> &'static str {
        match self {
            Self::Pin => "  PIN to allow, Enter alone to decline: ",
            Self::Passphrase => "  Passphrase, Enter alone to decline: ",
        }
    }

    fn wrong(self) -> &'static str {
        match self {
            Self::Pin => "That is not the PIN.",
            Self::Passphrase => "That is not the passphrase.",
        }
    }
}

pub(crate) enum Place {
    /// For PINs alone.
    Board(OnBoard),
    Terminal(Screen),
    Window(Window),
    /// For PINs alone.
    Askpass(Askpass),
}

impl Place {
    /// A window on that desktop, or else the requester's terminal.
    pub(crate) async fn find(desktop: Option<&Desktop>, requester: &Requester) -> Result<Self, No> {
        let Some(desktop) = desktop else { return Screen::of(requester).map(Self::Terminal) };
        if let Some(window) = desktop.open().await {
            return Ok(Self::Window(window));
        }
        match Screen::of(requester) {
            Err(No::Unaskable) => Err(No::Windowless(desktop.name.clone())),
            screen => screen.map(Self::Terminal),
        }
    }

    /// Whether no program can take the place of what shows the question there, or read its arguments.
    pub(super) fn keeps_to_itself(&self) -> bool {
        match self {
            Self::Board(_) | Self::Terminal(_) => true,
            Self::Window(window) => !window.passes_on,
            Self::Askpass(_) => false,
        }
    }

    pub(crate) async fn show(&mut self, question: &Question, wanted: Wanted) -> Result<(), No> {
        match self {
            Self::Board(board) => board.show(question),
            Self::Window(window) => window.show(question, wanted).await,
            Self::Askpass(askpass) => askpass.show(question),
            Self::Terminal(screen) => {
                screen.write(&question.text(screen.columns())).await.map_err(No::Terminal)?;
                screen.settle().await.map_err(No::Terminal)
            }
        }
    }

    /// What was typed; nothing at all declines.
    pub(crate) async fn typed(&mut self, wanted: Wanted) -> Result<SecretBytes, No> {
        match self {
            Self::Board(board) => board.typed().await,
            Self::Window(window) => window.typed().await,
            Self::Askpass(askpass) => askpass.typed().await,
            Self::Terminal(screen) => match screen.read_line(wanted.prompt()).await.map_err(No::Terminal)? {
                Typed::Line(line) if !line.is_empty() => Ok(line),
                _ => Err(No::Declined),
            },
        }
    }

    pub(crate) async fn was_wrong(&mut self, wanted: Wanted) -> Result<(), No> {
        match self {
            Self::Board(board) => {
                board.say(wanted.wrong());
                Ok(())
            }
            Self::Window(window) => window.say(wanted.wrong()).await,
            Self::Askpass(askpass) => {
                askpass.say(wanted.wrong());
                Ok(())
            }
            Self::Terminal(screen) => {
                screen.write(&format!("  {}\n", wanted.wrong())).await.map_err(No::Terminal)
            }
        }
    }

    /// Leaves the place after a question that nobody answered.
    pub(crate) async fn abandon(self) {
        if let Self::Terminal(screen) = self {
            // The terminal may be stopped; its last line is not worth a wait.
            let _ = timeout(Duration::from_secs(1), screen.write("\n")).await;
        }
    }

    /// For the log: "PIN on pts/3", "PIN in a window on display :0".
    pub(crate) fn name(&self, requester: &Requester) -> String {
        match self {
            Self::Board(board) => format!("on {} (keyloan approve)", board.terminal),
            Self::Window(window) => format!("in a window on {}", window.name),
            Self::Askpass(askpass) => format!("in {}", askpass.name()),
            Self::Terminal(_) => format!("on {}", requester.terminal_name().unwrap_or_default()),
        }
    }
}
