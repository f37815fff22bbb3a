//! A real terminal: tmux, as the sandbox's user, typed into by `send-keys` and read by `capture-pane`.

use crate::programs::needed;
use crate::sandbox::{Output, Sandbox};
use std::sync::atomic::{AtomicU32, Ordering};

pub struct Terminal<'a> {
    sandbox: &'a Sandbox,
    socket: String,
}

impl<'a> Terminal<'a> {
    /// A shell in the sandbox's `project` directory.
    pub fn open(sandbox: &'a Sandbox) -> Self {
        // Else a shell stands between, or not, as /bin/sh happens to be.
        Self::open_with(sandbox, "exec env PS1='ready> ' bash --norc -i")
    }

    /// A command line in the sandbox's `project` directory that comes to show `ready>`.
    pub fn open_with(sandbox: &'a Sandbox, line: &str) -> Self {
        // A server that is ending would take another one's place.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tmux-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        Self::started(sandbox, &name, (150, 50), line)
    }

    /// Another one beside it, of its own name and size.
    pub fn sized(sandbox: &'a Sandbox, name: &str, columns: usize, rows: usize) -> Self {
        Self::started(sandbox, name, (columns, rows), "exec env PS1='ready> ' bash --norc -i")
    }

    fn started(sandbox: &'a Sandbox, name: &str, (columns, rows): (usize, usize), line: &str) -> Self {
        let socket = sandbox.path("run").join(name).display().to_string();
        let terminal = Self { sandbox, socket };
        let (columns, rows) = (columns.to_string(), rows.to_string());
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", &columns, "-y", &rows, line]).ok();
        terminal.expect("ready>");
        terminal
    }

    pub fn tmux(&self, arguments: &[&str]) -> Output {
        let mut all = vec!["-S", self.socket.as_str()];
        all.extend(arguments);
        self.sandbox.command(needed("tmux"), &all).env("TERM", "screen").run()
    }

    /// Types text, as a person would.
    pub fn type_text(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]).ok();
    }

    pub fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]).ok();
    }

    /// Clears the screen and runs a command line.
    pub fn run(&self, line: &str) {
        self.tmux(&["send-keys", "-R"]).ok();
        self.type_text(line);
        self.press("Enter");
    }

    pub fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-J"]).ok().text()
    }

    /// Waits until the screen shows a text; gives the screen.
    #[track_caller]
    pub fn expect(&self, text: &str) -> String {
        let mut screen = String::new();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while std::time::Instant::now() < deadline {
            screen = self.screen();
            if screen.contains(text) {
                return screen;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("'{text}' never came up; the screen shows:\n{}", screen.trim_end());
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]);
    }
}
