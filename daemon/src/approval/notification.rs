//! A word on the desktop of the last unlock that a question stands somewhere. It announces and never approves: any
//! program of the user can forge a click, so it has no action, and nobody hears what becomes of it. One question at
//! most is shown, and a flood of questions makes no flood of these. Without the program or a bus there is none.

use super::child::{self, Group};
use super::pinentry::Desktop;
use crate::clock;
use keyloan_protocol::names::escaped;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{Mutex, oneshot};
use tokio::time::{sleep, timeout};

/// The stock one, of libnotify 0.8 or later: older ones cannot take a notification back.
const PROGRAM: &str = "/usr/bin/notify-send";
/// Who answers at once needs none.
const PATIENCE: Duration = Duration::from_secs(1);
/// From one to the next.
const BETWEEN: Duration = Duration::from_secs(5);
/// From one refusal that is told to the next, and how long it is told.
const BETWEEN_REFUSALS: Duration = Duration::from_secs(60);
const REFUSAL: Duration = Duration::from_secs(10);
/// How long it is told that a terminal answers.
const ENROLMENT: Duration = Duration::from_secs(60);
/// The program takes its notification back within this time.
const CLOSING: Duration = Duration::from_secs(1);
/// The longest that a question stands.
const LONGEST: Duration = Duration::from_secs(600);
/// Characters that a notification has room for.
const ROOM: usize = 300;

/// When the last one was shown, since boot. Locked while one is.
#[derive(Default)]
pub(crate) struct Notifier(Rc<Mutex<Option<Duration>>>);

/// A question that is announced until this is dropped.
pub(crate) struct Announced(#[expect(dead_code, reason = "its end is what is heard")] oneshot::Sender<()>);

impl Notifier {
    /// Says that a question stands, once it has stood for a moment.
    pub(crate) fn announce(&self, desktop: Desktop, text: String) -> Announced {
        let (stands, mut over) = oneshot::channel();
        let last = Rc::clone(&self.0);
        tokio::task::spawn_local(async move {
            let turn = async {
                sleep(PATIENCE).await;
                let last = last.lock().await;
                sleep(left(*last, BETWEEN)).await;
                last
            };
            let mut last = tokio::select! {
                biased;
                _ = &mut over => return,
                last = turn => last,
            };
            *last = Some(clock::since_boot());
            show(&desktop, "keyloan: a question waits", &text, LONGEST, over).await;
        });
        Announced(stands)
    }

    /// Says that a rule refused something, unless that would be too much.
    pub(crate) fn mention(&self, desktop: Desktop, text: String) {
        let last = Rc::clone(&self.0);
        tokio::task::spawn_local(async move {
            let Ok(mut last) = last.try_lock() else { return };
            if left(*last, BETWEEN_REFUSALS) > Duration::ZERO {
                return;
            }
            *last = Some(clock::since_boot());
            show(&desktop, "keyloan: a rule refused a request", &text, REFUSAL, sleep(REFUSAL)).await;
        });
    }

    /// Says that a terminal answers from now on. It waits for none that is shown, or whoever asks something would keep
    /// it back; the passphrase that was proved for it makes no flood.
    pub(crate) fn tell_enrolment(desktop: Desktop, text: String) {
        tokio::task::spawn_local(async move {
            show(&desktop, "keyloan: a terminal answers", &text, ENROLMENT, sleep(ENROLMENT)).await;
        });
    }
}

fn left(last: Option<Duration>, between: Duration) -> Duration {
    last.map_or(Duration::ZERO, |last| between.saturating_sub(clock::since_boot().saturating_sub(last)))
}

/// Shows a notification until `over`.
async fn show(desktop: &Desktop, title: &str, text: &str, time: Duration, over: impl Future) {
    let program = Path::new(PROGRAM);
    if !desktop.has_bus() || !child::is_roots(program) {
        return;
    }
    let time = format!("--expire-time={}", time.as_millis());
    let arguments = ["--wait", "--app-name=keyloan", &time, "--", title, &body(text)].map(OsString::from);
    let Ok((mut child, _channel)) = child::start(program, &arguments, desktop.variables()) else { return };
    let _group = Group(child.id());
    over.await;
    // On SIGINT it takes the notification back. One that has ended is not waited for yet, so the pid is still its own.
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
        let _ = timeout(CLOSING, child.wait()).await;
    }
}

/// Notifications are read as HTML, and notify-send reads what follows a backslash as C does.
fn body(text: &str) -> String {
    let text = escaped(text, ROOM);
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\\', "\\\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_is_taken_for_markup() {
        assert_eq!(body("<a href=x>&amp;\\033[2J\u{1b}"), "&lt;a href=x&gt;&amp;amp;\\\\033[2J\\\\u{1b}");
    }
}
