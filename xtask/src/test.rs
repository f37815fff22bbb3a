//! `cargo xtask test`: what the tests need, the release programs once, then every test against them.

use crate::process::{cargo, status};
use crate::{Failure, release, requirements};

/// Arguments go to `cargo test` as they are.
pub(crate) fn run(arguments: &[&str]) -> Result<(), Failure> {
    requirements::install_for_tests()?;
    let programs = release::build()?;
    let mut tests = cargo();
    tests.current_dir(&programs.workspace).args(["test", "--workspace"]).args(arguments);
    tests.env("KEYLOAN_BIN_DIR", &programs.directory);
    let ended = status(&mut tests)?;
    // A signal leaves no status of its own.
    let code = ended.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    if ended.success() { Ok(()) } else { Err(Failure::Status(code)) }
}
