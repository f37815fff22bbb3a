//! `keyloan man`: manual pages, made from the definitions that `--help` is made from.

use crate::args::{Arguments, ShellLend, WithSecrets};
use crate::exit::Failure;
use crate::output;
use clap::{Command, CommandFactory};
use keyloan_protocol::control::error_kind::ErrorKind;
use keyloan_protocol::names::quoted;

const ACT: &str = "print a manual page";

pub(crate) fn man(page: Option<&str>) -> Result<(), Failure> {
    let pages = pages();
    let Some(wanted) = page else {
        return pages.iter().try_for_each(|page| output::line(page.get_name()));
    };
    let wanted = wanted.replace(' ', "-");
    let page = pages.into_iter().find(|page| page.get_name() == wanted).ok_or_else(|| {
        let cause = format!("there is no page {}", quoted(&wanted));
        Failure::new(ErrorKind::NotFound, ACT, cause).hint("keyloan man")
    })?;
    let mut text = Vec::new();
    // No date and no version of a build: the same sources give the same pages.
    let made = clap_mangen::Man::new(page).manual("keyloan").source("keyloan").render(&mut text);
    made.map_err(|error| Failure::new(ErrorKind::Bug, ACT, error))?;
    output::bytes(&text)
}

/// Every command that is shown, by the words that are typed with `-` between them.
fn pages() -> Vec<Command> {
    let mut pages = Vec::new();
    let mut whole = Arguments::command().disable_help_subcommand(true);
    whole.build();
    add(&mut pages, &whole, "keyloan");
    pages.extend([WithSecrets::command(), ShellLend::command()]);
    pages
}

fn add(pages: &mut Vec<Command>, command: &Command, name: &str) {
    pages.push(command.clone().name(name.to_owned()).bin_name(name.replace('-', " ")));
    for part in command.get_subcommands().filter(|part| !part.is_hide_set()) {
        add(pages, part, &format!("{name}-{}", part.get_name()));
    }
}
