//! `cargo xtask install`: the release programs and links into `DIR/bin`.

use crate::process::{quoted, text};
use crate::{Failure, release};
use anyhow::Context;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) fn run(arguments: &[&str]) -> Result<(), Failure> {
    let prefix = match arguments {
        [] => default_prefix()?,
        ["--prefix", directory] if !directory.is_empty() => PathBuf::from(directory),
        [one] if one.strip_prefix("--prefix=").is_some_and(|directory| !directory.is_empty()) => {
            PathBuf::from(&one["--prefix=".len()..])
        }
        _ => return Err(Failure::Usage("`install` takes `--prefix DIR` and nothing else".to_owned())),
    };
    // A relative prefix means this directory, not one that a later shell happens to be in.
    let directory = std::path::absolute(prefix.join("bin"))?;
    let programs = release::build()?;
    release::put(&programs.path("keyloan"), &programs.path("keyloand"), &directory)?;
    for program in release::PROGRAMS {
        println!("installed {}", directory.join(program).display());
    }
    for link in release::LINKS {
        println!("installed {} -> keyloan", directory.join(link).display());
    }
    let pages = install_pages(&prefix.join("share/man/man1"), &directory.join("keyloan"))?;
    println!("installed {pages} manual pages");
    let units = install_units(&prefix.join("share/systemd/user"), &programs.workspace, &directory)?;
    println!("installed {} and keyloan.service beside it", units.display());
    println!(
        "    systemctl --user enable --now keyloan.socket      has systemd start the daemon when it is called"
    );
    println!(
        "a daemon that is running goes on as it was; `keyloan daemon stop` lets the next command start the new one"
    );
    if !on_path(&directory) {
        println!("{} is not in PATH; the line for your shell's start-up file:", directory.display());
        println!("    {}", start_up_line(&directory, std::env::var_os("SHELL").as_deref()));
    }
    Ok(())
}

/// The manual pages, as the installed program prints them; how many there are.
fn install_pages(to: &Path, keyloan: &Path) -> anyhow::Result<usize> {
    let to = std::path::absolute(to)?;
    std::fs::create_dir_all(&to).with_context(|| format!("cannot make {}", to.display()))?;
    let pages = text(Command::new(keyloan).arg("man"))?;
    for page in pages.lines() {
        let content = text(Command::new(keyloan).args(["man", page]))?;
        std::fs::write(to.join(format!("{page}.1")), content)
            .with_context(|| format!("cannot write {page}.1"))?;
    }
    Ok(pages.lines().count())
}

/// The units with the place where the programs are. Gives the socket's.
fn install_units(to: &Path, workspace: &Path, programs: &Path) -> anyhow::Result<PathBuf> {
    let to = std::path::absolute(to)?;
    std::fs::create_dir_all(&to).with_context(|| format!("cannot make {}", to.display()))?;
    for name in ["keyloan.socket", "keyloan.service"] {
        let unit = std::fs::read_to_string(workspace.join("daemon/systemd").join(name))?;
        // A unit takes % for the start of a specifier, and a space for the end of the program's name.
        let place = programs.join("keyloand").display().to_string().replace('%', "%%").replace(' ', "\\x20");
        let unit = unit.replace("%h/.local/bin/keyloand", &place);
        std::fs::write(to.join(name), unit).with_context(|| format!("cannot write {name}"))?;
    }
    Ok(to.join("keyloan.socket"))
}

fn default_prefix() -> anyhow::Result<PathBuf> {
    let home = std::env::home_dir().filter(|home| home.is_absolute());
    Ok(home.context("there is no home directory: say where to with --prefix DIR")?.join(".local"))
}

fn on_path(directory: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|part| real(&part) == real(directory)))
}

fn start_up_line(directory: &Path, shell: Option<&OsStr>) -> String {
    let directory = quoted(directory.as_os_str());
    if shell.map(Path::new).and_then(Path::file_name) == Some(OsStr::new("fish")) {
        format!("fish_add_path {directory}")
    } else {
        format!("export PATH={directory}:\"$PATH\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_up_line_survives_a_hostile_directory_name() {
        let odd = Path::new("/srv/it's $(here)/bin");
        assert_eq!(
            start_up_line(odd, Some(OsStr::new("/bin/bash"))),
            r#"export PATH='/srv/it'\''s $(here)/bin':"$PATH""#
        );
        let plain = Path::new("/opt/keyloan/bin");
        assert_eq!(start_up_line(plain, None), "export PATH=/opt/keyloan/bin:\"$PATH\"");
        assert_eq!(start_up_line(plain, Some(OsStr::new("/usr/bin/fish"))), "fish_add_path /opt/keyloan/bin");
    }
}
