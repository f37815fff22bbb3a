//! What varies from run to run and from machine to machine, made steady: a question's lines are put together again,
//! changed, and broken as they were broken.

use keyloan_e2e::Sandbox;
use keyloan_e2e::programs::bin;

pub(crate) const COLUMNS: usize = 80;
/// How a place breaks lines that are too long for it.
pub(crate) struct Edge {
    pub(crate) columns: usize,
    pub(crate) goes_on: &'static str,
}

pub(crate) const TERMINAL: Edge = Edge { columns: COLUMNS, goes_on: "          ⋮ " };
/// The last column stays free.
pub(crate) const BOARD: Edge = Edge { columns: COLUMNS - 1, ..TERMINAL };
pub(crate) const WINDOW: Edge = Edge { columns: 60, goes_on: "      " };

/// The text of a question with steady names, numbers and paths.
pub(crate) fn steady(sandbox: &Sandbox, edge: &Edge, shown: &str) -> String {
    let lines = joined(edge, shown);
    let again: Vec<String> = lines.iter().map(|line| broken(edge, line)).collect();
    assert_eq!(
        trimmed(&again.join("\n")),
        trimmed(shown),
        "it is broken as keyloan breaks it, and put together as it was"
    );
    let lines: Vec<String> = lines.iter().map(|line| broken(edge, &steady_line(sandbox, line))).collect();
    trimmed(&lines.join("\n"))
}

fn trimmed(text: &str) -> String {
    let lines: Vec<&str> = text.trim_matches('\n').lines().map(str::trim_end).collect();
    lines.join("\n")
}

fn width(text: &str) -> usize {
    text.chars().map(|c| if c.is_ascii() { 1 } else { 2 }).sum()
}

/// The lines of a question as they were before they were broken at a terminal's edge. The space that a line was broken
/// at stands at its end, if there was room for it.
fn joined(edge: &Edge, shown: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut before = "";
    for line in shown.lines() {
        assert!(width(line.trim_end()) <= edge.columns, "{line}");
        match (line.strip_prefix(edge.goes_on), lines.last_mut()) {
            (Some(rest), Some(last)) => {
                let begins = before.rfind(' ').map_or(0, |space| width(&before[..=space]));
                let is_certainty = rest.starts_with('(') && rest.trim_end().ends_with(')');
                if is_certainty {
                    last.truncate(last.trim_end().len());
                    last.push_str("  ");
                } else if !before.ends_with(' ') && begins > edge.columns / 2 {
                    last.push(' ');
                }
                last.push_str(rest);
            }
            _ => lines.push(line.to_owned()),
        }
        before = line;
    }
    lines
}

/// As keyloan breaks it.
fn broken(edge: &Edge, line: &str) -> String {
    let (mut text, mut column) = (String::new(), 0);
    for word in line.split_inclusive(' ') {
        let mut fits = column + width(word.trim_end()) <= edge.columns;
        for c in word.chars() {
            let wide = if c.is_ascii() { 1 } else { 2 };
            let full = column + wide > edge.columns;
            if full && c == ' ' {
                continue;
            }
            if full || !fits && column > edge.columns / 2 {
                text.extend(["\n", edge.goes_on]);
                column = width(edge.goes_on);
            }
            fits = true;
            text.push(c);
            column += wide;
        }
    }
    text
}

pub(crate) fn steady_line(sandbox: &Sandbox, line: &str) -> String {
    let path = |name: &str| sandbox.path(name).display().to_string();
    let root = path("");
    let mut line = line
        .replace(&bin().display().to_string(), "/usr/local/bin")
        .replace(&path("project"), "/home/me/project")
        .replace(&path("home"), "/home/me")
        .replace(root.trim_end_matches('/'), "/home/me");
    // Where a tmux comes from is another thing on every machine.
    if let Some(at) = line.find("/usr/bin/tmux ← ") {
        let end = line.rfind("  (").filter(|end| *end > at).unwrap_or(line.len());
        line.replace_range(at + "/usr/bin/tmux".len()..end, "");
    }
    let user = sandbox.command("/usr/bin/id", &["-un"]).run().ok().text();
    line = line.replace(&format!("{}@", user.trim()), "me@");
    let digit = |c: char| c.is_ascii_digit();
    let hex = |c: char| c.is_ascii_hexdigit();
    for (before, is_of, instead) in [
        ("(pid ", &digit as &dyn Fn(char) -> bool, "4711"),
        ("pts/", &digit, "3"),
        ("-P ", &digit, "22"),
        ("git_signing_buffer_tmp", &|c| c.is_ascii_alphanumeric(), "Zb3A4s"),
        ("/usr/bin/python3", &|c| c.is_ascii_digit() || c == '.', ""),
        ("display :", &digit, "0"),
        ("SHA-256 ", &hex, "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"),
        ("SHA256:", &|c| c.is_ascii_alphanumeric() || "+/".contains(c), FINGERPRINT),
        (
            "age1",
            &|c| c.is_ascii_alphanumeric(),
            "ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p",
        ),
    ] {
        line = replaced(&line, before, is_of, instead);
    }
    if let Some(at) = line.find("SHA-512 ") {
        let rest = line.split_off(at + "SHA-512 ".len());
        line.extend([&"0c".repeat(64), rest.trim_start_matches(hex)]);
    }
    line
}

const FINGERPRINT: &str = "uNiVztksCsDhcc0u9e8BgrJXVGLDjPSYSaYYLZt8mfI";

/// What follows `before` and is of that kind, replaced.
fn replaced(line: &str, before: &str, is_of: &dyn Fn(char) -> bool, instead: &str) -> String {
    let mut text = String::new();
    for (at, piece) in line.split(before).enumerate() {
        let rest = piece.trim_start_matches(is_of);
        match at {
            0 => text.push_str(piece),
            _ if rest.len() == piece.len() => text.extend([before, piece]),
            _ => text.extend([before, instead, rest]),
        }
    }
    text
}
