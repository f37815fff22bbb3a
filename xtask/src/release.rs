//! The release programs: built, then collected with their links in one directory.
//!
//! The daemon is linked as the host does; the client is linked static, because loading shared libraries
//! would cost a third more than the whole of `env(1)` (`cargo xtask bench lend`).

use crate::process::{cargo, find, status, succeed, text};
use anyhow::{Context, Result, bail};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) const PROGRAMS: &[&str] = &["keyloan", "keyloand"];

/// Each acts by its own name and is a link to `keyloan` beside it.
pub(crate) const LINKS: &[&str] = &["with-secrets"];

/// A directory that holds [`PROGRAMS`] and [`LINKS`].
pub(crate) struct Programs {
    pub(crate) directory: PathBuf,
    pub(crate) workspace: PathBuf,
}

impl Programs {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// Builds everything and collects it in `keyloan/bin` of cargo's target directory.
pub(crate) fn build() -> Result<Programs> {
    let (workspace, target) = directories()?;
    println!("building the release programs");
    succeed(cargo().current_dir(&workspace).args(["build", "--release", "--package", "keyloan-daemon"]))?;
    let client = build_client(&workspace, &target)?;
    let directory = target.join("keyloan").join("bin");
    put(&client, &target.join("release").join("keyloand"), &directory)?;
    Ok(Programs { directory, workspace })
}

/// Puts the programs and links into a directory. Each arrives under another name and is renamed, so that a
/// running program keeps its own file and nobody ever starts half of one.
pub(crate) fn put(client: &Path, daemon: &Path, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    for (program, source) in PROGRAMS.iter().zip([client, daemon]) {
        replace(directory, program, |new| fs::copy(source, new).map(drop))?;
    }
    for link in LINKS {
        replace(directory, link, |new| symlink("keyloan", new))?;
    }
    Ok(())
}

fn replace(directory: &Path, name: &str, make: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<()> {
    let new = directory.join(format!(".{name}.{}", std::process::id()));
    let made = make(&new).and_then(|()| fs::rename(&new, directory.join(name)));
    if made.is_err() {
        // What is left of a failed attempt; that it failed is reported below.
        let _ = fs::remove_file(&new);
    }
    made.with_context(|| format!("cannot write {}", directory.join(name).display()))
}

/// The workspace's root and cargo's target directory, which the environment or a configuration may move.
pub(crate) fn directories() -> Result<(PathBuf, PathBuf)> {
    let mut metadata = cargo();
    metadata.args(["metadata", "--format-version", "1", "--no-deps"]);
    if let Some(own) = std::env::var_os("CARGO_MANIFEST_DIR") {
        metadata.current_dir(own);
    }
    let found: serde_json::Value = serde_json::from_str(&text(&mut metadata)?)?;
    let path =
        |key: &str| found[key].as_str().map(PathBuf::from).with_context(|| format!("cargo names no {key}"));
    Ok((path("workspace_root")?, path("target_directory")?))
}

/// The static client; returns its path.
fn build_client(workspace: &Path, target: &Path) -> Result<PathBuf> {
    let host = host()?;
    let mut build = cargo();
    build.current_dir(workspace).args(["build", "--release", "--package", "keyloan-cli"]);
    if !host.contains("-linux-") {
        println!("the client is linked as this system does: static programs are for Linux");
        succeed(&mut build)?;
        return Ok(target.join("release").join("keyloan"));
    }
    let musl = host.replace("-linux-gnu", "-linux-musl");
    let triple = if have_target(workspace, &musl) {
        musl
    } else {
        println!("{musl} cannot be had: the client is linked static with this system's C library");
        let mut flags = std::env::var_os("RUSTFLAGS").unwrap_or_default();
        flags.push(" -C target-feature=+crt-static");
        build.env("RUSTFLAGS", flags);
        host
    };
    // The target is named even where it is the host: build scripts and macros cannot be linked so.
    succeed(build.args(["--target", &triple]))?;
    Ok(target.join(triple).join("release").join("keyloan"))
}

pub(crate) fn host() -> Result<String> {
    let version = text(rustc().arg("-vV"))?;
    let Some(host) = version.lines().find_map(|line| line.strip_prefix("host: ")) else {
        bail!("`rustc -vV` names no host");
    };
    Ok(host.to_owned())
}

fn rustc() -> Command {
    Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

/// Whether the standard library for a target is there, after `rustup` was asked for it where it was not.
pub(crate) fn have_target(workspace: &Path, triple: &str) -> bool {
    let installed = || {
        let mut print = rustc();
        print.current_dir(workspace).args(["--print", "target-libdir", "--target", triple]);
        text(&mut print).is_ok_and(|directory| Path::new(directory.trim()).is_dir())
    };
    let added = || {
        println!("adding the target {triple}");
        let mut add = Command::new("rustup");
        add.current_dir(workspace).args(["target", "add", triple]);
        find("rustup").is_some() && status(&mut add).is_ok_and(|status| status.success())
    };
    installed() || (added() && installed())
}
