//! `keyloan completions SHELL`.

use crate::args::{Arguments, Completions};
use crate::exit::Failure;
use crate::output;
use clap::CommandFactory;

pub(crate) fn completions(completions: &Completions) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(completions.shell, &mut Arguments::command(), "keyloan", &mut text);
    output::bytes(&text)
}
