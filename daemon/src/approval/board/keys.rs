//! The enrolled terminal itself: drawn by the daemon, and its keys read by it. Nothing is allowed by a single key or
//! by Enter, since any program of the user can push those in: a yes is the PIN, typed for the question that stands,
//! after all of that was shown.

use super::frame::View;
use super::{Answer, Board, Seat};
use crate::approval::No;
use crate::approval::terminal::{HiddenLine, SETTLE, Screen, Typed, in_front};
use crate::requester::Requester;
use keyloan_protocol::limits;
use std::io;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use zeroize::Zeroizing;

/// It is drawn anew at least this often: time runs on, the terminal's size changes, and what another program wrote
/// over it goes.
const REDRAW: Duration = Duration::from_secs(1);

const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";

/// Serves the terminal until it is left or taken away, and says why.
pub(crate) async fn serve(
    seat: &mut Seat,
    screen: &Screen,
    requester: &Requester,
    head: &dyn Fn() -> String,
) -> Result<String, No> {
    let board = std::rc::Rc::clone(&seat.board);
    let _shown = Shown::on(screen);
    let mut keys = Keys::new(&board, screen);
    tokio::select! {
        why = &mut seat.left => Ok(why.unwrap_or_default()),
        ended = keys.run(requester, head) => ended,
    }
}

/// The other screen of the terminal, until dropped: what stood on it before comes back.
struct Shown<'a>(&'a Screen);

impl<'a> Shown<'a> {
    fn on(screen: &'a Screen) -> Self {
        screen.write_now(ENTER);
        Self(screen)
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.0.write_now(LEAVE);
    }
}

/// The keys of a terminal that begin with Escape send letters behind it; an arrow to the left ends in `D`.
enum Escape {
    No,
    Begun,
    Sequence,
}

struct Keys<'a> {
    board: &'a Board,
    screen: &'a Screen,
    escape: Escape,
    /// The question on the screen, and since when; 0 for none.
    shown: u64,
    since: Instant,
    is_new: bool,
    page: usize,
    pages: usize,
    read_to_its_end: bool,
    pin: Option<HiddenLine>,
    remark: &'static str,
}

impl<'a> Keys<'a> {
    fn new(board: &'a Board, screen: &'a Screen) -> Self {
        let since = Instant::now();
        Self {
            board,
            screen,
            escape: Escape::No,
            shown: 0,
            since,
            is_new: false,
            page: 0,
            pages: 1,
            read_to_its_end: false,
            pin: None,
            remark: "",
        }
    }

    async fn run(&mut self, requester: &Requester, head: &dyn Fn() -> String) -> Result<String, No> {
        let mut changed = self.board.changed.subscribe();
        let mut typed = Zeroizing::new([0_u8; 64]);
        loop {
            // Whoever is put into the background has no more claim on what is typed there.
            in_front(requester)?;
            // A terminal may be stopped (Ctrl-S); what it does not take it has not shown.
            if let Ok(drawn) = timeout(REDRAW, self.draw(&head())).await {
                drawn.map_err(No::Terminal)?;
            }
            let read = tokio::select! {
                read = self.screen.read(typed.as_mut()) => read.map_err(No::Terminal)?,
                _ = changed.changed() => 0,
                () = sleep(REDRAW) => 0,
            };
            for byte in &typed[..read] {
                if self.key(*byte) {
                    return Ok("left".to_owned());
                }
            }
        }
    }

    /// Takes a key; true for one that leaves.
    fn key(&mut self, byte: u8) -> bool {
        match (&self.escape, byte) {
            (_, 0x1b) => {
                self.escape = Escape::Begun;
                self.pin = None;
            }
            (Escape::Begun, b'[' | b'O') => self.escape = Escape::Sequence,
            (Escape::Sequence, 0x20..=0x3f) => {}
            (Escape::Begun | Escape::Sequence, _) => self.escape = Escape::No,
            (Escape::No, byte) if self.pin.is_some() => self.type_pin(byte),
            (Escape::No, b'q' | 0x03 | 0x04) => return true,
            (Escape::No, byte) => self.command(byte),
        }
        false
    }

    fn type_pin(&mut self, byte: u8) {
        let Some(ended) = self.pin.as_mut().and_then(|pin| pin.take(byte)) else { return };
        self.pin = None;
        match ended {
            Ok(Typed::Line(pin)) if !pin.is_empty() => self.board.answer(self.shown, Answer::Pin(pin)),
            Ok(_) => {}
            Err(_) => self.remark = "That is too long for a PIN.",
        }
    }

    fn command(&mut self, byte: u8) {
        // What is typed so soon after a question came up was not typed as an answer to it.
        let is_settled = !self.is_new && self.since.elapsed() >= SETTLE;
        if matches!(byte, b'a' | b'd' | b'D') && self.shown != 0 && !is_settled {
            return;
        }
        self.remark = "";
        match byte {
            b'a' if self.shown == 0 => {}
            b'a' if !self.read_to_its_end => self.remark = "Read it to its end first: n turns the page.",
            b'a' => self.pin = Some(HiddenLine::of(limits::PASSPHRASE)),
            b'd' => self.board.answer(self.shown, Answer::Deny),
            b'D' => self.board.deny_all(),
            b'n' => self.page = (self.page + 1).min(self.pages - 1),
            b'p' => self.page = self.page.saturating_sub(1),
            _ => {}
        }
    }

    async fn draw(&mut self, head: &str) -> io::Result<()> {
        let (rows, columns) = (self.screen.rows(), self.screen.columns());
        let text = self.look(columns.saturating_sub(1));
        let denied = self.board.denied_for();
        let keys = self.keys(denied > 0, columns);
        let remark = self.remark(denied);
        let frame = {
            let (waiting, happened) = (self.board.waiting.borrow(), self.board.happened.borrow());
            let view = View {
                head,
                question: text.as_deref(),
                waiting: waiting.values().map(String::as_str).collect(),
                happened: happened.iter().map(String::as_str).collect(),
                remark: &remark,
                keys: &keys,
                page: self.page,
            };
            view.frame(rows, columns)
        };
        let Some(frame) = frame else {
            self.pin = None;
            self.read_to_its_end = false;
            return self.screen.write("\x1b[H\x1b[2Jkeyloan: too small").await;
        };
        // Each row is erased before it is written: what another program wrote there goes.
        let rows = frame.rows.join("\r\n\x1b[2K");
        self.screen.write(&format!("\x1b[H\x1b[2K{rows}\x1b[J")).await?;
        (self.page, self.pages) = (frame.page, frame.pages);
        self.read_to_its_end |= text.is_some() && frame.page + 1 == frame.pages;
        if self.is_new {
            (self.since, self.is_new) = (Instant::now(), false);
        }
        Ok(())
    }

    /// The question that stands. Where it is another than the one shown nothing typed so far counts.
    fn look(&mut self, columns: usize) -> Option<String> {
        let standing = self.board.standing.borrow();
        let number = standing.as_ref().map_or(0, |standing| standing.number);
        if number != self.shown {
            self.is_new = true;
            (self.shown, self.page, self.read_to_its_end) = (number, 0, false);
            self.pin = None;
            self.remark = "";
        }
        standing.as_ref().map(|standing| standing.question.text(columns))
    }

    fn remark(&self, denied: u64) -> String {
        let standing = self.board.standing.borrow();
        let said = standing.as_ref().map_or("", |standing| standing.remark);
        match (self.remark, said, denied) {
            ("", "", 0) => String::new(),
            ("", "", denied) => {
                format!(
                    "Everything is denied for another {}:{:02}; keyloan unlock ends that.",
                    denied / 60,
                    denied % 60
                )
            }
            ("", said, _) => said.to_owned(),
            (remark, ..) => remark.to_owned(),
        }
    }

    fn keys(&self, denies: bool, columns: usize) -> String {
        if self.pin.is_some() {
            return "PIN to allow, Enter alone goes back: ".to_owned();
        }
        let mut keys = Vec::new();
        if self.shown != 0 {
            keys.extend(["a allow, with the PIN", "d deny"]);
        }
        if self.shown != 0 && self.pages > 1 {
            keys.push("n, p turn the page");
        }
        if !denies {
            keys.push("D deny all for 5 min");
        }
        keys.push("q leave");
        let whole = keys.join("   ");
        if whole.len() < columns {
            whole
        } else {
            keys.join(" ").replace(", with the PIN", "").replace(" for 5 min", "")
        }
    }
}
