//! keyloan: asks the daemon, and becomes the command that credentials are lent to. Synchronous, linked
//! static, and gone as soon as the command runs, unless it hides what was lent in what the command prints.
#![forbid(unsafe_code)]

mod args;
mod client;
mod commands;
mod environment;
mod exit;
mod files;
mod mask;
mod output;

use args::ssh::SshAgent;
use args::{Arguments, Command, Run, ShellLend, WithSecrets};
use clap::Parser;
use exit::Failure;
use keyloan_platform::wiping::Wiping;
use std::path::Path;
use std::process::ExitCode;

#[global_allocator]
static HEAP: Wiping = Wiping;

fn main() -> ExitCode {
    let called_as = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&called_as).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if name == "with-secrets" {
        // The common form has no options, and then a parser is a tenth of the time that lending takes.
        if std::env::args_os().nth(1).is_some_and(|first| first == "--") && std::env::args_os().len() > 2 {
            let command = std::env::args_os().skip(2).collect();
            return commands::run::run(&Run { command, ..Run::default() });
        }
        return match WithSecrets::try_parse() {
            Ok(with_secrets) => commands::run::run(&with_secrets.run),
            Err(error) => usage(&error, 125),
        };
    }
    if name == files::WATCHER {
        return files::watch(&std::env::args_os().skip(1).collect::<Vec<_>>());
    }
    if name == commands::ssh::keeper::KEEPER {
        return commands::ssh::keeper::run(&std::env::args_os().skip(1).collect::<Vec<_>>());
    }
    if name == "ssh-agent" {
        return match SshAgent::try_parse() {
            Ok(agent) => ended(commands::ssh::agent::agent(&agent.agent)),
            Err(error) => usage(&error, 1),
        };
    }
    // The parts of a command line that go wrong here are a shell's to read, so help goes elsewhere.
    if std::env::args_os().nth(1).is_some_and(|first| first == "shell-lend") {
        let words = std::iter::once("opvars".into()).chain(std::env::args_os().skip(2));
        return match ShellLend::try_parse_from(words) {
            Ok(ask) => commands::shell::lend(&ask),
            Err(error) => commands::shell::usage(&error),
        };
    }
    // Every shell waits for this when it starts, and to build the parser of all commands is half of the wait.
    if let Some(shell) = commands::shell::named(std::env::args_os().skip(1)) {
        return ended(commands::shell::shell(shell));
    }
    match Arguments::try_parse() {
        Ok(Arguments { command: Command::Run(run) }) => commands::run::run(&run),
        Ok(Arguments { command }) => ended(dispatch(command)),
        Err(error) => usage(&error, 2),
    }
}

fn ended(done: Result<(), Failure>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Init(init) => commands::keeper::init(&init),
        Command::Unlock(unlock) => commands::keeper::unlock(&unlock),
        Command::Approve(passphrase) => commands::approve::approve(&passphrase),
        Command::Lock => commands::keeper::lock(),
        Command::Status(status) => commands::status::status(&status),
        Command::Passwd(passwd) => commands::keeper::passwd(&passwd),
        Command::Pin(pin) => commands::keeper::pin(&pin),
        Command::Phrase(phrase) => commands::keeper::phrase(&phrase),
        Command::Backup(backup) => commands::copies::backup(&backup),
        Command::Restore(restore) => commands::copies::restore(&restore),
        Command::Rekey(rekey) => commands::copies::rekey(&rekey),
        Command::RecoveryKey(passphrase) => commands::copies::recovery_key(&passphrase),
        Command::Merge { directory } => commands::copies::merge(&directory),
        Command::Recipient(recipient) => commands::recipient::recipient(recipient),
        Command::Item(item) => commands::item::item(item),
        Command::Vault(vault) => commands::vault::vault(vault),
        Command::Ssh(ssh) => commands::ssh::ssh(ssh),
        // Served before, since these end with statuses of their own.
        Command::Run(_) | Command::ShellLend(_) => Ok(()),
        Command::Loans(loans) => commands::loans::loans(&loans),
        Command::Recall(recall) => commands::loans::recall(&recall),
        Command::Grants(grants) => commands::grants::grants(&grants),
        Command::Revoke(revoke) => commands::grants::revoke(&revoke),
        Command::Trust(trust) => commands::trust::trust(&trust),
        Command::Untrust(untrust) => commands::trust::untrust(&untrust),
        Command::Policy(policy) => commands::policy::policy(policy),
        Command::Log(log) => commands::log::log(&log),
        Command::Daemon(daemon) => commands::daemon::daemon(&daemon),
        Command::Shell(shell) => commands::shell::shell(shell.shell),
        Command::Completions(shell) => commands::shell::completions(shell.shell),
        Command::Man { page } => commands::man::man(page.as_deref()),
        Command::Complete { words } => commands::complete::complete(&words),
    }
}

/// Help goes to standard output with success; a wrong usage to standard error.
fn usage(error: &clap::Error, status: u8) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(status) } else { ExitCode::SUCCESS }
}
