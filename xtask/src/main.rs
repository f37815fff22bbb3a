//! `cargo xtask`: builds, shows, tests, measures and installs keyloan.
//!
//! It knows the programs from outside only, as their users do: it imports no crate of the workspace.

#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a build tool: it prints, starts programs, reads the environment and takes the time"
)]

mod bench;
mod bench_agent;
mod bench_flood;
mod bench_mask;
mod bench_shell;
mod bench_vault;
mod demo;
mod fuzz;
mod install;
mod process;
mod release;
mod requirements;
mod test;
mod throwaway;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  demo                          show keyloan at work in a throwaway home: on a terminal it asks for real,
                                elsewhere (cargo xtask demo </dev/null) an approver program answers
  test [-- ARGS]                install what the tests need, build the release programs, run
                                `cargo test --workspace ARGS` against them
  bench lend [--rounds N] [--json FILE]
                                measure `with-secrets -- true` against `env FOO=bar true`
  bench vault [--json FILE]     measure what ten thousand items cost beside ten, and many commands at once
  bench mask [--json FILE]      measure how fast output passes `with-secrets --mask`, beside `cat`
  bench agent [--json FILE]     measure the ssh agent beside OpenSSH's `ssh-agent`
  bench flood [--seconds N] [--json FILE]
                                measure what a minute of requests without end does to the daemon and to others
  bench shell [--json FILE]     measure the check before each prompt of bash, zsh and fish, beside those of
                                direnv and mise
  fuzz [--seconds N] [--target T] [--asan]
                                give the parsers bytes that a fuzzer makes up, for N seconds in all targets
                                together, at least one in each (default 10); --asan wants a
                                nightly toolchain
  install [--prefix DIR]        put the release programs and their links into DIR/bin (default ~/.local)
  requirements                  install what the tests and the checks of .ci/run need
";

/// Why a command did not succeed: it was called wrongly, it ended with a status of its own, or it failed.
pub(crate) enum Failure {
    Usage(String),
    Status(u8),
    Error(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> =
        match std::env::args_os().skip(1).map(std::ffi::OsString::into_string).collect() {
            Ok(arguments) => arguments,
            Err(argument) => return ended(Failure::Usage(format!("{} is not UTF-8", argument.display()))),
        };
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        ["demo"] => demo::run(),
        ["test"] => test::run(&[]),
        ["test", "--", rest @ ..] => test::run(rest),
        ["bench", "lend", rest @ ..] => bench::run(rest),
        ["bench", "vault", rest @ ..] => bench_vault::run(rest),
        ["bench", "mask", rest @ ..] => bench_mask::run(rest),
        ["bench", "agent", rest @ ..] => bench_agent::run(rest),
        ["bench", "flood", rest @ ..] => bench_flood::run(rest),
        ["bench", "shell", rest @ ..] => bench_shell::run(rest),
        ["fuzz", rest @ ..] => fuzz::run(rest),
        ["install", rest @ ..] => install::run(rest),
        ["requirements"] => requirements::install_all(),
        ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(())
        }
        [] => Err(Failure::Usage("no command was given".to_owned())),
        other => Err(Failure::Usage(format!("there is no command `{}`", other.join(" ")))),
    };
    result.map_or_else(ended, |()| ExitCode::SUCCESS)
}

fn ended(failure: Failure) -> ExitCode {
    match failure {
        Failure::Usage(why) => {
            eprint!("xtask: {why}\n\n{USAGE}");
            ExitCode::from(2)
        }
        Failure::Status(status) => ExitCode::from(status),
        Failure::Error(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
