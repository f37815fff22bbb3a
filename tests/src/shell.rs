//! The real shells, each with a start-up file of its own in the sandbox's home, under a real terminal.

use crate::programs::needed;
use crate::sandbox::{Output, Sandbox};
use crate::terminal::Terminal;
use crate::{approver, eventually};
use std::fs;

pub struct Shell {
    pub name: &'static str,
    /// Where it looks for its start-up file, in the home.
    start_up: &'static str,
    /// What makes its screen steady, and the prompt that is waited for.
    prompt: &'static str,
    /// The one line of the README.
    line: &'static str,
    options: &'static str,
}

pub const BASH: Shell = Shell {
    name: "bash",
    start_up: ".bashrc",
    prompt: "PS1='ready> '\n",
    line: "eval \"$(keyloan shell bash)\"\n",
    options: "-i",
};
/// At the syntax level of macOS's bash.
pub const BASH_3_2: Shell = Shell { line: "BASH_COMPAT=3.2\neval \"$(keyloan shell bash)\"\n", ..BASH };
pub const ZSH: Shell = Shell {
    name: "zsh",
    start_up: ".zshrc",
    prompt: "PS1='ready> '\nunsetopt prompt_sp\n",
    line: "eval \"$(keyloan shell zsh)\"\n",
    options: "-i",
};
pub const FISH: Shell = Shell {
    name: "fish",
    start_up: ".config/fish/config.fish",
    prompt: "function fish_prompt; echo -n 'ready> '; end\nset -g fish_greeting\nset -g fish_autosuggestion_enabled 0\n",
    line: "keyloan shell fish | source\n",
    options: "-i",
};
pub const SHELLS: [Shell; 3] = [BASH, ZSH, FISH];

/// What a value of a set may be, to the byte: all that any shell could take for more than itself.
pub fn odd_value() -> Vec<u8> {
    let mut value = b"a\"b'c $(touch evaluated) `touch evaluated` ${HOME} $HOME * ? [a-z] ~ \\n \\ !! #\n\n\t=a=b; exit; ".to_vec();
    value.extend((1..=255).filter(|byte| *byte != b'\n'));
    // The beginning of a character that never ends, and line ends last.
    value.extend(b"\xe2\x82\n\n");
    value
}

const MANIFEST: &str = r#"[env]
TOKEN = "local://pypi/token"
PLAIN = { value = "plain" }
[sets.odd.env]
ODD = "local://odd/v"
BIG = "local://big/v"
[sets.second.env]
SECOND = "local://second/v"
[sets.again.env]
TOKEN = "local://second/v"
[sets.short.env]
SHORT = "local://pypi/token"
[sets.short.shell]
time = "3s"
[sets.long.env]
LONG = "local://pypi/token"
[sets.long.shell]
time = "4h"
[sets.here.env]
HERE = "local://pypi/token"
[sets.here.shell]
until-leaving = true
[sets.kept.files]
KUBECONFIG = { ref = "local://pypi/token", as = "path" }
[sets.own.env]
HISTFILE = { value = "/tmp/x" }
"#;

/// The value of `TOKEN`, which must come up nowhere that nobody asked for it.
pub const CANARY: &str = "canary-5f1e";

/// A vault with sets for shells, which lends without a question.
pub fn with_sets() -> Sandbox {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    for rule in ["env=allow", "file=allow", "item.write=allow", "trust=allow"] {
        sandbox.policy(rule);
    }
    let big: Vec<u8> = odd_value().into_iter().cycle().take(100 * 1024).collect();
    let items: [(&str, &[u8]); 4] =
        [("pypi token", CANARY.as_bytes()), ("odd v", &odd_value()), ("big v", &big), ("second v", b"zwei")];
    for (item, value) in items {
        let words: Vec<&str> = ["item", "set"].into_iter().chain(item.split(' ')).collect();
        sandbox.keyloan(&words).stdin(value).run().ok();
    }
    sandbox
        .keyloan(&["item", "set", "~/titled", "vars"])
        .stdin("FIRST=one = 1\nOTHER=\"quoted\"\n")
        .run()
        .ok();
    sandbox.write("project/.keyloan.toml", MANIFEST);
    sandbox.keyloan(&["trust"]).run().ok();
    sandbox
}

impl Shell {
    /// Writes its start-up file: `before` the one line, and `after`.
    pub fn set_up(&self, sandbox: &Sandbox, before: &str, after: &str) {
        let at = format!("home/{}", self.start_up);
        if self.start_up.contains('/') {
            for directory in ["home/.config", "home/.config/fish"] {
                sandbox.make_directory(directory);
            }
        }
        sandbox.write(&at, format!("{}{before}\n{}{after}\n", self.prompt, self.line));
    }

    pub fn open<'a>(&self, sandbox: &'a Sandbox) -> Terminal<'a> {
        Terminal::open_with(sandbox, &self.command())
    }

    /// The command line that starts it.
    pub fn command(&self) -> String {
        format!("{} {}", needed(self.name).display(), self.options)
    }

    /// With the usual start-up file.
    pub fn opened<'a>(&self, sandbox: &'a Sandbox) -> Terminal<'a> {
        self.set_up(sandbox, "", "");
        self.open(sandbox)
    }

    /// Runs a script with the integration loaded, without a terminal.
    pub fn script(&self, sandbox: &Sandbox, script: &str) -> Output {
        let script = format!("{}{script}\n", self.line);
        sandbox.command(needed(self.name), &["-c", &script]).run()
    }

    /// Sets a variable that is exported.
    pub fn export(&self, name: &str, value: &str) -> String {
        if self.name == "fish" { format!("set -gx {name} {value}") } else { format!("export {name}={value}") }
    }
}

/// Of loans that are out, how many there are.
pub fn out(sandbox: &Sandbox) -> u64 {
    sandbox.status()["loans"].as_u64().unwrap()
}

/// Markers that say that a loan lasts.
pub fn markers(sandbox: &Sandbox) -> Vec<String> {
    let found = fs::read_dir(sandbox.path("run/keyloan/shells")).into_iter().flatten();
    let names = found.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| !name.contains('.')).collect()
}

/// Waits until no marker is left.
pub fn until_unmarked(sandbox: &Sandbox) {
    eventually("the marker goes", || markers(sandbox).is_empty());
}
