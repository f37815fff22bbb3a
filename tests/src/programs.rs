//! Where the programs under test are, and that those the tests use are there.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A directory with `keyloan`, `keyloand` and `with-secrets` that any user may run.
pub fn bin() -> &'static Path {
    static BIN: OnceLock<PathBuf> = OnceLock::new();
    BIN.get_or_init(|| {
        let built = std::env::var_os("KEYLOAN_BIN_DIR").map_or_else(build, PathBuf::from);
        let place = std::env::temp_dir().join(format!("keyloan-bin-{}", std::process::id()));
        remove_left_behind();
        fs::create_dir(&place).unwrap();
        for name in ["keyloan", "keyloand"] {
            let from = built.join(name);
            fs::copy(&from, place.join(name)).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        }
        symlink("keyloan", place.join("with-secrets")).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
        place
    })
}

/// Removes what test processes that have ended left: their copies of the programs and their first vaults.
fn remove_left_behind() {
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let rest = name.strip_prefix("keyloan-bin-").or_else(|| name.strip_prefix("kl-"));
        let Some(pid) = rest.and_then(|rest| rest.split(['-', '.']).next()) else { continue };
        if pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Without `cargo xtask test` the programs are built once, here.
fn build() -> PathBuf {
    let out = Command::new(env!("CARGO"))
        .args(["build", "--message-format=json", "-p", "keyloan-daemon", "-p", "keyloan-cli"])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let messages = String::from_utf8(out.stdout).unwrap();
    let programs = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(PathBuf::from(message.get("executable")?.as_str()?))
    });
    programs.collect::<Vec<_>>().pop().unwrap().parent().unwrap().to_owned()
}

/// The path of a program that a test needs. One that is missing fails the test, it does not skip it.
pub fn needed(name: &str) -> PathBuf {
    let found = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"].iter().map(|dir| Path::new(dir).join(name));
    let found = found.into_iter().find(|path| path.exists());
    found.unwrap_or_else(|| panic!("the program '{name}' is missing; cargo xtask test installs it"))
}
