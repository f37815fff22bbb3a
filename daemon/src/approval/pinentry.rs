//! Asking in a window: a stock pinentry, started on the desktop of whoever proved the passphrase. It holds
//! the PIN while it is typed, and runs undumpable for that; only the daemon judges what was typed.

use super::No;
use super::assuan::{self, Answer, Assuan, AssuanError};
use super::child::{self, Group};
use super::place::Wanted;
use super::question::Question;
use crate::clock;
use keyloan_protocol::control::request::DESKTOP;
use keyloan_protocol::names::escaped;
use keyloan_protocol::secret::SecretBytes;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::Child;
use tokio::time::timeout;

/// Tried in this order. GTK 2 and 3 load whatever modules the owner of an X selection names (XSETTINGS, `Gtk/Modules`),
/// which any program on the display may be; Qt does not. gnome3 is the last: its window is another program's, which
/// is found over the session bus, where any program of the user may take its place. Never plain `pinentry`, which
/// may be one for terminals.
const PROGRAMS: [&str; 5] = [
    "/usr/bin/pinentry-qt",
    "/usr/bin/pinentry-qt5",
    "/usr/bin/pinentry-gtk-2",
    "/usr/bin/pinentry-gtk",
    GNOME3,
];
const GNOME3: &str = "/usr/bin/pinentry-gnome3";

/// The longest value of a desktop's variable.
const VALUE: usize = 4096;
/// A pinentry that has not greeted by then is not there.
const START: Duration = Duration::from_secs(5);
/// An answer within this time of the question was not given to it: the window itself takes half of that to come up.
const SETTLE: Duration = Duration::from_millis(600);

/// Codes of gpg-error.h: a button, Escape or a closed window.
const CANCELED: [u32; 3] = [99, 114, 198];

#[derive(Debug, thiserror::Error)]
pub(crate) enum WindowError {
    #[error(transparent)]
    Assuan(#[from] AssuanError),
    #[error("its window failed (error {0})")]
    Code(u32),
}

/// Where windows open.
#[derive(Clone)]
pub(crate) struct Desktop {
    variables: Vec<(&'static str, OsString)>,
    /// For people: the display.
    pub(crate) name: String,
    /// The pinentry that the policy names; without it the first that is there.
    pub(crate) program: Option<PathBuf>,
}

impl Desktop {
    /// From the values that came with a request; `None` where they name no display.
    pub(crate) fn from_values(mut take: impl FnMut(&str) -> Option<SecretBytes>) -> Option<Self> {
        let mut variables = Vec::new();
        for (name, variable) in DESKTOP {
            let Some(value) = take(name) else { continue };
            let value = value.expose();
            if !value.is_empty() && value.len() <= VALUE && !value.contains(&0) {
                variables.push((variable, OsString::from_vec(value.to_vec())));
            }
        }
        let display = variables.iter().find(|(name, _)| matches!(*name, "DISPLAY" | "WAYLAND_DISPLAY"));
        let name = format!("display {}", escaped(&display?.1.to_string_lossy(), 60));
        Some(Self { variables, name, program: None })
    }

    /// The pinentries that may be started here.
    pub(crate) fn programs(&self) -> impl Iterator<Item = &Path> {
        let known = if self.program.is_some() { &[][..] } else { &PROGRAMS[..] };
        let known = known.iter().filter(|program| **program != GNOME3 || self.has_bus());
        self.program.as_deref().into_iter().chain(known.map(Path::new)).filter(|path| child::is_roots(path))
    }

    /// Whether a session bus may be there. Whoever asks may name a directory on a mount that does not answer, so
    /// nobody looks; a pinentry that finds no bus turns to a terminal and counts as absent.
    pub(super) fn has_bus(&self) -> bool {
        self.variables.iter().any(|(name, _)| matches!(*name, "DBUS_SESSION_BUS_ADDRESS" | "XDG_RUNTIME_DIR"))
    }

    /// What a program finds the desktop by, and says nothing in another language by. Qt 5 looks for an X server unless
    /// it is told not to, and ends where there is none.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&'static str, OsString)> {
        let language = ("LANG", OsString::from("C.UTF-8"));
        let has_x = self.variables.iter().any(|(name, _)| *name == "DISPLAY");
        let platform = (!has_x).then(|| ("QT_QPA_PLATFORM", OsString::from("wayland")));
        self.variables.iter().cloned().chain([language]).chain(platform)
    }

    /// Starts the first pinentry that can show a window; `None` where none can, so that another way is tried.
    pub(crate) async fn open(&self) -> Option<Window> {
        for program in self.programs() {
            if let Ok(Ok(window)) = timeout(START, Window::start(program, self)).await {
                return Some(window);
            }
        }
        None
    }
}

/// A pinentry that can show windows. It ends with this.
pub(crate) struct Window {
    assuan: Assuan,
    settle: Duration,
    _group: Group,
    _child: Option<Child>,
    /// For people: the display.
    pub(crate) name: String,
    /// The window is another program's, found over the session bus.
    pub(super) passes_on: bool,
}

impl Window {
    async fn start(program: &Path, desktop: &Desktop) -> Result<Self, AssuanError> {
        let (child, ours) = child::start_guarded(program, desktop.variables())?;
        let mut window = Self {
            assuan: Assuan::new(ours),
            settle: SETTLE,
            _group: Group(child.id()),
            _child: Some(child),
            name: desktop.name.clone(),
            passes_on: false,
        };
        window.greet().await?;
        Ok(window)
    }

    /// A pinentry that finds no display says hello and then turns to a terminal; its flavour tells.
    async fn greet(&mut self) -> Result<(), AssuanError> {
        let Answer::Ok(_) = self.assuan.answer().await? else { return Err(AssuanError::Form) };
        let Answer::Ok(flavor) = self.assuan.command("GETINFO", "flavor").await? else {
            return Err(AssuanError::Form);
        };
        if flavor.is_empty()
            || flavor.expose().contains(&b':')
            || matches!(flavor.expose(), b"curses" | b"tty" | b"emacs")
        {
            return Err(AssuanError::Ended);
        }
        self.passes_on = flavor.expose().starts_with(b"gnome");
        // Never `ttyname`, nor what would let it keep a PIN (`allow-external-password-cache`). Grabbing the
        // keyboard is its default and stays: other X programs then see no keys in the ordinary way.
        self.assuan.command("OPTION", "lc-ctype=C.UTF-8").await?;
        Ok(())
    }

    /// Shows a question whose last page asks for the secret. It appears with [`Self::typed`].
    pub(crate) async fn show(&mut self, question: &Question, wanted: Wanted) -> Result<(), No> {
        let mut pages = question.pages(assuan::room("SETDESC"), assuan::length);
        let last = pages.pop().unwrap_or_default();
        self.set("SETTITLE", "keyloan").await?;
        self.set("SETCANCEL", "Deny").await?;
        // Enter denies on these pages, as is their default; Alt-N turns them.
        self.set("SETOK", "_Next page").await?;
        for page in pages {
            self.set("SETDESC", &page).await?;
            self.asked("CONFIRM").await?;
        }
        self.set("SETPROMPT", wanted.name()).await?;
        self.set("SETOK", wanted.button()).await?;
        self.set("SETDESC", &last).await
    }

    /// What was typed; without anything it is a no.
    pub(crate) async fn typed(&mut self) -> Result<SecretBytes, No> {
        let typed = self.asked("GETPIN").await?;
        if typed.is_empty() { Err(No::Declined) } else { Ok(typed) }
    }

    /// Said in the next window, which shows the same question.
    pub(crate) async fn say(&mut self, text: &str) -> Result<(), No> {
        self.set("SETERROR", text).await
    }

    async fn set(&mut self, command: &str, text: &str) -> Result<(), No> {
        match self.assuan.command(command, text).await.map_err(WindowError::from)? {
            Answer::Ok(_) => Ok(()),
            Answer::Error(code) => Err(WindowError::Code(code).into()),
        }
    }

    /// Shows the window. What is pressed before a person can have read it does not count: it is shown once
    /// more, and then it is a no.
    async fn asked(&mut self, command: &str) -> Result<SecretBytes, No> {
        for _ in 0..2 {
            let shown = clock::since_boot();
            let answer = self.assuan.command(command, "").await.map_err(WindowError::from)?;
            if let Answer::Error(code) = answer
                && !CANCELED.contains(&code)
            {
                return Err(WindowError::Code(code).into());
            }
            if clock::since_boot().saturating_sub(shown) >= self.settle {
                let Answer::Ok(data) = answer else { return Err(No::Declined) };
                return Ok(data);
            }
        }
        Err(No::Declined)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    /// A window whose pinentry has said all this already.
    async fn window(said: &[u8], settle: Duration) -> (Window, UnixStream) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(said).await.unwrap();
        let (assuan, name) = (Assuan::new(ours), String::new());
        (Window { assuan, settle, _group: Group(None), _child: None, name, passes_on: false }, theirs)
    }

    #[tokio::test]
    async fn an_answer_that_comes_too_early_does_not_count() {
        let (mut early, _pinentry) = window(b"D 4711\nOK\nD 4711\nOK\n", Duration::MAX).await;
        assert!(matches!(early.typed().await, Err(No::Declined)));
        let (mut settled, _pinentry) = window(b"D 4711\nOK\n", Duration::ZERO).await;
        assert_eq!(settled.typed().await.unwrap().expose(), b"4711");
    }

    #[tokio::test]
    async fn only_something_typed_and_ok_is_an_answer() {
        for said in [b"OK\n".as_slice(), b"ERR 83886179 cancelled\n", b"D 4711\nERR 83886194 no\n"] {
            let (mut window, _pinentry) = window(said, Duration::ZERO).await;
            assert!(matches!(window.typed().await, Err(No::Declined)), "{}", said.escape_ascii());
        }
        let (mut failed, _pinentry) = window(b"ERR 83886340 no grab\n", Duration::ZERO).await;
        assert!(matches!(failed.typed().await, Err(No::Window(WindowError::Code(260)))));
    }

    #[tokio::test]
    async fn a_pinentry_that_turns_to_a_terminal_is_absent() {
        for flavor in ["gtk2:curses", "gnome3:curses", "qt:curses", "curses", "tty", ""] {
            let said = format!("OK Pleased to meet you\nD {flavor}\nOK\nOK\n");
            let (mut window, _pinentry) = window(said.as_bytes(), SETTLE).await;
            assert!(window.greet().await.is_err(), "{flavor}");
        }
        let (mut window, _pinentry) = window(b"OK Pleased to meet you\nD gtk2\nOK\nOK\n", SETTLE).await;
        assert!(window.greet().await.is_ok());
    }

    #[test]
    fn a_desktop_without_a_display_is_none() {
        let only = |name: &'static str, value: &'static [u8]| {
            Desktop::from_values(move |asked| (asked == name).then(|| SecretBytes::copy_of(value)))
        };
        assert_eq!(only("display", b":7\x1b").unwrap().name, "display :7\\u{1b}");
        assert!(only("wayland_display", b"wayland-0").is_some());
        for none in [only("bus", b"unix:path=/x"), only("display", b""), only("display", b":\0")] {
            assert!(none.is_none());
        }
    }
}
