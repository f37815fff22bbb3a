//! What completion calls at each press of Tab: candidates for the last of the given words, one a line: `=NAME` with what
//! it is behind a tab, or `files`, `directories` or `command N`. They come from the definitions of the command line and the
//! names that the daemon has. It asks nobody, says nothing of what goes wrong, and gives up soon, since somebody waits at a
//! prompt.

use crate::args::{Arguments, ShellLend, WithSecrets};
use crate::client::Connection;
use crate::commands::run::{here, searched, with_directories};
use crate::exit::Failure;
use crate::output;
use clap::{Arg, ArgAction, Command, CommandFactory};
use keyloan_protocol::control::Message;
use keyloan_protocol::control::request::Request;
use keyloan_protocol::control::response::{ItemFields, Names, Reply};
use keyloan_protocol::names::{FieldName, ItemName, SetName, VaultName, escaped};
use keyloan_protocol::reference::Reference;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::time::Duration;

const ACT: &str = "complete";

/// Nobody waits longer for names.
const PATIENCE: Duration = Duration::from_millis(25);

enum Candidate {
    /// With what it is.
    Name(String, String),
    /// The rest is completed by the shell's own means; the number is the first word of another command line.
    Files,
    Directories,
    Command(usize),
}

pub(crate) fn complete(words: &[OsString]) -> Result<(), Failure> {
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let Some((program, words)) = words.split_first() else { return Ok(()) };
    let Some((last, before)) = words.split_last() else { return Ok(()) };
    let Some(place) = Place::after(program, before) else { return Ok(()) };
    let mut lines = String::new();
    for candidate in place.candidates(last) {
        match candidate {
            Candidate::Name(name, about) if about.is_empty() => lines.extend(["=", &name]),
            Candidate::Name(name, about) => lines.extend(["=", &name, "\t", &escaped(&about, 100)]),
            Candidate::Files => lines.push_str("files"),
            Candidate::Directories => lines.push_str("directories"),
            Candidate::Command(at) => lines.extend(["command ", &at.to_string()]),
        }
        lines.push('\n');
    }
    output::bytes(lines.as_bytes())
}

/// Where on a command line the last word stands.
struct Place {
    command: Command,
    /// The subcommands so far, without the program.
    path: Vec<String>,
    /// An option whose value it is.
    of: Option<Arg>,
    /// Arguments of the command before it that belong to no option.
    arguments: Vec<String>,
    only_arguments: bool,
    /// The place of the word at which another command line begins.
    foreign: Option<usize>,
    /// Words before it, the program too.
    count: usize,
}

impl Place {
    fn after(program: &str, words: &[String]) -> Option<Self> {
        let program = program.rsplit('/').next().unwrap_or_default();
        let mut command = match program {
            "keyloan" => Arguments::command(),
            "with-secrets" => WithSecrets::command(),
            "opvars" => ShellLend::command(),
            _ => return None,
        };
        command.build();
        let mut place = Self {
            command,
            path: Vec::new(),
            of: None,
            arguments: Vec::new(),
            only_arguments: false,
            foreign: None,
            count: words.len() + 1,
        };
        for (at, word) in words.iter().enumerate() {
            place.pass(at + 1, word);
        }
        Some(place)
    }

    fn pass(&mut self, at: usize, word: &str) {
        if self.foreign.is_some() || self.of.take().is_some() {
            return;
        }
        if !self.only_arguments && word == "--" {
            self.only_arguments = true;
        } else if !self.only_arguments && word.len() > 1 && word.starts_with('-') {
            self.of = self.waits_for_value(word);
        } else if let Some(part) = self.subcommand(word) {
            self.path.push(part.get_name().to_owned());
            self.command = part;
        } else {
            if self.argument().is_some_and(Arg::is_trailing_var_arg_set) {
                self.foreign = Some(at);
            }
            self.arguments.push(word.to_owned());
        }
    }

    fn subcommand(&self, word: &str) -> Option<Command> {
        let found = self.command.find_subcommand(word)?;
        (self.arguments.is_empty() && !self.only_arguments).then(|| found.clone())
    }

    /// The option whose value is the next word.
    fn waits_for_value(&self, word: &str) -> Option<Arg> {
        let takes = |arg: &&Arg| matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
        if let Some(long) = word.strip_prefix("--") {
            let is_it = |arg: &&Arg| arg.get_long() == Some(long);
            return self.command.get_arguments().find(is_it).filter(takes).cloned();
        }
        let mut letters = word.chars().skip(1);
        while let Some(letter) = letters.next() {
            let option = self.command.get_arguments().find(|arg| arg.get_short() == Some(letter))?;
            if takes(&option) {
                return letters.next().is_none().then(|| option.clone());
            }
        }
        None
    }

    /// The argument that the next word without an option is.
    fn argument(&self) -> Option<&Arg> {
        let positionals: Vec<&Arg> = self.command.get_positionals().collect();
        let several = |arg: &&&Arg| matches!(arg.get_action(), ArgAction::Append);
        positionals.get(self.arguments.len()).or_else(|| positionals.last().filter(several)).copied()
    }

    fn candidates(&self, last: &str) -> Vec<Candidate> {
        if let Some(at) = self.foreign {
            return vec![Candidate::Command(at)];
        }
        if let Some(option) = &self.of {
            return beginning(last, self.values(option));
        }
        if !self.only_arguments && last.starts_with('-') {
            return match last.split_once('=') {
                Some((name, value)) => {
                    let option = self
                        .command
                        .get_arguments()
                        .find(|arg| arg.get_long().is_some_and(|long| name.strip_prefix("--") == Some(long)));
                    let values = option.map(|option| self.values(option)).unwrap_or_default();
                    let with_name = |candidate| match candidate {
                        Candidate::Name(found, about) => Candidate::Name(format!("{name}={found}"), about),
                        other => other,
                    };
                    beginning(value, values).into_iter().map(with_name).collect()
                }
                None => beginning(last, self.options()),
            };
        }
        let mut found = Vec::new();
        if self.arguments.is_empty() && !self.only_arguments {
            let shown = self.command.get_subcommands().filter(|part| !part.is_hide_set());
            found.extend(
                shown.map(|part| Candidate::Name(part.get_name().to_owned(), text(part.get_about()))),
            );
        }
        if let Some(argument) = self.argument() {
            if argument.is_trailing_var_arg_set() {
                return vec![Candidate::Command(self.count)];
            }
            found.extend(self.values(argument));
        }
        beginning(last, found)
    }

    fn options(&self) -> Vec<Candidate> {
        let shown = self.command.get_arguments().filter(|arg| !arg.is_positional() && !arg.is_hide_set());
        let names = shown.flat_map(|arg| {
            let long = arg.get_long().map(|long| format!("--{long}"));
            let short = arg.get_short().map(|short| format!("-{short}"));
            long.into_iter().chain(short).map(|name| Candidate::Name(name, text(arg.get_help())))
        });
        names.collect()
    }

    fn values(&self, arg: &Arg) -> Vec<Candidate> {
        let possible = arg.get_possible_values();
        if !possible.is_empty() {
            let shown = possible.iter().filter(|value| !value.is_hide_set());
            return shown
                .map(|value| Candidate::Name(value.get_name().to_owned(), text(value.get_help())))
                .collect();
        }
        let ssh = self.path.first().is_some_and(|first| first == "ssh");
        match arg.get_id().as_str() {
            "sets" => names().sets.into_iter().map(plain).collect(),
            "item" | "from" | "to" => items(),
            "name" if ssh => items(),
            "name" if self.path == ["vault", "remove"] => {
                vaults().filter(|name| name != VaultName::LOCAL).map(plain).collect()
            }
            "source" | "target" => references(),
            "vault" | "names" => vaults().map(plain).collect(),
            "field" => {
                let of = |held: &&ItemFields| self.arguments.first() == Some(&held.item);
                let found = names().items.iter().find(of).map(|held| held.fields.clone());
                found.unwrap_or_default().into_iter().map(plain).collect()
            }
            "id" => {
                let loans = names().loans.into_iter();
                loans.map(|(id, about)| Candidate::Name(id.to_string(), about)).collect()
            }
            "directory" => vec![Candidate::Directories],
            "file" | "path" | "identity" | "socket" => vec![Candidate::Files],
            _ => Vec::new(),
        }
    }
}

fn items() -> Vec<Candidate> {
    names().items.into_iter().map(|held| plain(held.item)).collect()
}

fn vaults() -> impl Iterator<Item = String> {
    names().vaults.into_iter()
}

/// Those of the local vault: others would have to be asked.
fn references() -> Vec<Candidate> {
    let named = |item: &str, field: &str| {
        Some(Reference::local(ItemName::parse(item).ok()?, FieldName::parse(field).ok()?))
    };
    let of = |held: ItemFields| {
        held.fields.iter().filter_map(|field| named(&held.item, field)).collect::<Vec<_>>()
    };
    let all = names().items.into_iter().flat_map(of);
    all.map(|reference| plain(reference.to_string())).collect()
}

fn plain(name: String) -> Candidate {
    Candidate::Name(name, String::new())
}

fn text(help: Option<&clap::builder::StyledStr>) -> String {
    help.map(ToString::to_string).and_then(|help| help.lines().next().map(str::to_owned)).unwrap_or_default()
}

/// Those that the word begins. No name that could act on a terminal is among them: a parsed one has no control
/// characters.
fn beginning(word: &str, all: Vec<Candidate>) -> Vec<Candidate> {
    let fits = |candidate: &Candidate| match candidate {
        Candidate::Name(name, _) => name.starts_with(word) && SetName::parse(name).is_ok(),
        _ => true,
    };
    all.into_iter().filter(fits).collect()
}

/// From a daemon that runs, while its vault is open.
fn names() -> Names {
    asked().unwrap_or_default()
}

fn asked() -> Option<Names> {
    let search = searched(ACT, &here(ACT).ok()?).ok()?;
    let manifest_at = search.file.as_ref().map(|found| found.at);
    let message = with_directories(Message::new(Request::Names { manifest_at }), &search);
    let mut connection = Connection::existing(ACT).ok()??;
    connection.wait_at_most(PATIENCE);
    match &search.file {
        Some(found) => connection.send(&message, &[found.descriptor.as_fd()]).ok()?,
        None => connection.send(&message, &[]).ok()?,
    }
    match connection.reply().ok()?.body {
        Reply::Names(names) => Some(names),
        _ => None,
    }
}
