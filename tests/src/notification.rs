//! Notifications of a desktop: a real server of them, and what every program of the user sees of it on the session bus.

use crate::desktop::Desktop;
use crate::programs::needed;
use crate::sandbox::{Output, Running, Sandbox};
use std::path::PathBuf;
use std::process::Stdio;

pub struct Notifications<'a> {
    sandbox: &'a Sandbox,
    desktop: &'a Desktop<'a>,
    heard: PathBuf,
    _server: Running,
    _monitor: Running,
}

/// One as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    pub title: String,
    pub body: String,
    /// What a click may say.
    pub actions: Vec<String>,
}

impl<'a> Notifications<'a> {
    pub fn serve(sandbox: &'a Sandbox, desktop: &'a Desktop<'a>) -> Self {
        let start = |program: &str, arguments: &[&str], output: Stdio| {
            let mut command = desktop.on(sandbox.command(needed(program), arguments)).into_command();
            Running(command.stdin(Stdio::null()).stdout(output).stderr(Stdio::null()).spawn().unwrap())
        };
        let heard = sandbox.write("run/notifications", "");
        let file = std::fs::OpenOptions::new().append(true).open(&heard).unwrap();
        let address = format!("--address={}", desktop.bus());
        let listen = [&address, "--match=member='Notify'", "--json=short", "monitor"];
        let monitor = start("busctl", &listen, Stdio::from(file));
        let server = start("dunst", &[], Stdio::null());
        let notifications = Self { sandbox, desktop, heard, _server: server, _monitor: monitor };
        crate::eventually("the server of notifications answers", || {
            notifications.dunst(&["count"]).status == 0
        });
        // What is heard at all is known once something was.
        let heard = || !notifications.heard().is_empty();
        crate::eventually("the monitor listens", || {
            let first = ["--expire-time=1", "--", "first", ""];
            desktop.on(sandbox.command(needed("notify-send"), &first)).run().status == 0 && heard()
        });
        crate::eventually("they are gone", || notifications.shown() == 0);
        notifications
    }

    /// Tells the server something, as any program of the user may.
    pub fn dunst(&self, arguments: &[&str]) -> Output {
        self.desktop.on(self.sandbox.command(needed("dunstctl"), arguments)).run()
    }

    /// How many are on the screen.
    pub fn shown(&self) -> usize {
        self.dunst(&["count", "displayed"]).ok().text().trim().parse().unwrap()
    }

    fn heard(&self) -> Vec<Notification> {
        let text = std::fs::read_to_string(&self.heard).unwrap();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let calls = whole.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        calls
            .filter(|call| call["type"] == "method_call")
            .map(|call| {
                let data = &call["payload"]["data"];
                let text = |at: usize| data[at].as_str().unwrap().to_owned();
                let actions =
                    data[5].as_array().unwrap().iter().map(|action| action.as_str().unwrap().to_owned());
                Notification { title: text(3), body: text(4), actions: actions.collect() }
            })
            .collect()
    }

    /// Those that keyloan sent.
    pub fn sent(&self) -> Vec<Notification> {
        self.heard().into_iter().filter(|one| one.title.starts_with("keyloan:")).collect()
    }
}
