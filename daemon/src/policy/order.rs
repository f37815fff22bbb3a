//! In which order ways to ask are tried. A way that is not named is never used.

use super::rule::ApproverProgram;
use std::fmt;
use std::path::PathBuf;

/// A way to put a question to somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The approver program.
    Program,
    /// The terminal of `keyloan approve`.
    Approve,
    /// A pinentry's window on the desktop of the last unlock.
    Window,
    /// The requester's own terminal.
    Terminal,
    /// An askpass program on that desktop.
    Askpass,
}

impl Way {
    const ALL: [Self; 5] = [Self::Program, Self::Approve, Self::Window, Self::Terminal, Self::Askpass];

    fn key(self) -> &'static str {
        match self {
            Self::Program => "program",
            Self::Approve => "approve",
            Self::Window => "window",
            Self::Terminal => "terminal",
            Self::Askpass => "askpass",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order(Vec<Way>);

impl Default for Order {
    fn default() -> Self {
        Self(vec![Way::Program, Way::Approve, Way::Window, Way::Terminal])
    }
}

impl Order {
    /// Words with spaces between, each once; nothing at all is the default.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut ways = Vec::new();
        for word in text.split_whitespace() {
            let way = Way::ALL.into_iter().find(|way| way.key() == word)?;
            if ways.contains(&way) {
                return None;
            }
            ways.push(way);
        }
        Some(if ways.is_empty() { Self::default() } else { Self(ways) })
    }

    pub(crate) fn ways(&self) -> &[Way] {
        &self.0
    }

    /// Whether a question may go to somebody to whom the other order would not have put it. To leave out the last
    /// ways refuses what they would have been asked; to leave out another gives its questions to the next, such as
    /// a terminal that whoever asks has chosen.
    pub(super) fn loosens(&self, before: &Self) -> bool {
        !before.0.starts_with(&self.0)
    }
}

impl fmt::Display for Order {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.0.iter().map(|way| way.key()).collect();
        out.write_str(&words.join(" "))
    }
}

/// Programs of a policy whose hashes stand on lines of their own, while it is read back.
#[derive(Default)]
pub(super) struct Unpinned(Option<(&'static str, PathBuf)>);

impl Unpinned {
    /// A program whose hash must be on the next line.
    pub(super) fn expect(&mut self, hash: &'static str, path: Option<PathBuf>) -> Option<()> {
        if self.0.is_some() {
            return None;
        }
        self.0 = path.map(|path| (hash, path));
        Some(())
    }

    /// The program that this line pins.
    pub(super) fn pin(&mut self, hash: &str, sha256: &str) -> Option<ApproverProgram> {
        let (_, path) = self.0.take().filter(|(expected, _)| *expected == hash)?;
        let is_hash = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hash.then(|| ApproverProgram { path, sha256: sha256.to_owned() })
    }

    /// Without its hash a program would be whatever lies at its path.
    pub(super) fn is_done(&self) -> bool {
        self.0.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_to_leave_out_the_last_ways_tightens() {
        let order = |text| Order::parse(text).unwrap();
        let before = order("");
        assert_eq!(before.to_string(), "program approve window terminal");
        for tighter in ["program approve window", "program", "program approve window terminal", ""] {
            assert!(!order(tighter).loosens(&before), "{tighter}");
        }
        for looser in [
            "program approve window terminal askpass",
            "terminal",
            "approve window terminal",
            "program approve terminal",
            "approve program window terminal",
        ] {
            assert!(order(looser).loosens(&before), "{looser}");
        }
        assert!(before.loosens(&order("program")), "nothing is the default, and that may be more");
        for wrong in ["window window", "Window", "window,terminal", "nobody"] {
            assert_eq!(Order::parse(wrong), None, "{wrong}");
        }
    }
}
