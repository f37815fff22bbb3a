//! Rows 25 to 27: files, crashes, a full disk.

use keyloan_e2e::programs::needed;
use keyloan_e2e::{PASSPHRASE, Sandbox, approver};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

#[test]
fn a_full_disk_loses_nothing() {
    assert!(keyloan_e2e::sandbox::user().is_some(), "this test mounts a file system: run the tests as root");
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    sandbox.policy("item.write=allow");
    sandbox.policy("item.read=allow");
    sandbox.keyloan(&["item", "set", "pypi", "token"]).stdin("old").run().ok();
    sandbox.stop();
    let small = sandbox.path("small");
    std::fs::create_dir(&small).unwrap();
    let (uid, gid) = keyloan_e2e::sandbox::user().unwrap();
    let options = format!("size=600k,mode=0700,uid={uid},gid={gid}");
    let mount = |arguments: &[&str]| {
        assert!(Command::new(needed("mount")).args(arguments).status().unwrap().success());
    };
    mount(&["-t", "tmpfs", "-o", &options, "tmpfs", small.to_str().unwrap()]);
    let share = sandbox.path("home/.local/share");
    let moved = Command::new(needed("cp")).arg("-a").arg(share.join("keyloan")).arg(&small).status().unwrap();
    assert!(moved.success());
    let run = |arguments: &[&str], value: &[u8]| {
        sandbox.keyloan(arguments).env("XDG_DATA_HOME", &small).stdin(value).run()
    };
    run(&["daemon", "start"], b"").ok();
    sandbox.unlock().ok();
    let big = vec![b'x'; 900 * 1024];
    run(&["item", "set", "pypi", "token"], &big).refused(7, "No space left on device");
    assert_eq!(run(&["item", "get", "pypi", "token"], b"").ok().text(), "old");
    run(&["item", "set", "pypi", "token"], b"new").ok();
    sandbox.stop();
    run(&["daemon", "start"], b"").ok();
    sandbox.unlock().ok();
    assert_eq!(run(&["item", "get", "pypi", "token"], b"").ok().text(), "new");
    sandbox.stop();
    assert!(Command::new(needed("umount")).arg(&small).status().unwrap().success());
}

#[test]
fn two_daemons_never_share_a_vault() {
    let sandbox = Sandbox::with_token(b"tok");
    let (other, state) = (sandbox.make_directory("run/other"), sandbox.make_directory("state"));
    let second = |arguments: &[&str]| {
        sandbox.keyloan(arguments).env("XDG_RUNTIME_DIR", &other).env("XDG_STATE_HOME", &state)
    };
    second(&["daemon", "start"]).run().ok();
    // Removing any lock file does not help: the lock is on the directory itself.
    for entry in std::fs::read_dir(sandbox.vault()).unwrap() {
        assert!(!entry.unwrap().file_name().to_string_lossy().contains("lock"));
    }
    let passphrase = sandbox.write("passphrase", PASSPHRASE).display().to_string();
    let line = format!("exec 3<{passphrase}; exec keyloan unlock --passphrase-fd 3");
    let refused = sandbox
        .command("/bin/sh", &["-c", &line])
        .env("XDG_RUNTIME_DIR", &other)
        .env("XDG_STATE_HOME", &state)
        .run();
    refused.refused(7, "is in use by another keyloan daemon");
    second(&["daemon", "stop"]).run().ok();
    sandbox.with_secrets(&["--", "true"]).run().ok();
}

#[test]
fn two_daemons_never_write_one_log() {
    let sandbox = Sandbox::with_token(b"tok");
    let other = sandbox.make_directory("run/other");
    let second = sandbox.keyloan(&["daemon", "start"]).env("XDG_RUNTIME_DIR", &other).run();
    second.refused(3, "is in use by another keyloan daemon");
    assert!(!other.join("keyloan/control.sock").exists());
    sandbox.with_secrets(&["--", "true"]).run().ok();
    sandbox.keyloan(&["log", "--verify"]).run().ok();
}

#[test]
fn links_owners_and_modes_in_the_vault_are_looked_at() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.stop();
    let vault = sandbox.vault();
    let open =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    for name in ["", "items", "identity", "journal"] {
        let path = if name.is_empty() { vault.clone() } else { vault.join(name) };
        open(&path, 0o755);
        sandbox.unlock().refused(7, "is open to others (mode 0755)");
        open(&path, 0o700);
    }
    for name in ["index.age", "identity/passphrase.age"] {
        open(&vault.join(name), 0o644);
        sandbox.unlock().refused(7, "is open to others (mode 0644)");
        open(&vault.join(name), 0o600);
        let aside = sandbox.path("aside");
        std::fs::rename(vault.join(name), &aside).unwrap();
        symlink(&aside, vault.join(name)).unwrap();
        sandbox.unlock().refused(7, "is a symbolic link");
        std::fs::remove_file(vault.join(name)).unwrap();
        std::fs::rename(&aside, vault.join(name)).unwrap();
    }
    if keyloan_e2e::sandbox::user().is_some() {
        let index = vault.join("index.age");
        let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&index).unwrap());
        std::os::unix::fs::chown(&index, Some(0), None).unwrap();
        open(&index, 0o644);
        sandbox.unlock().refused(7, "belongs to user 0");
        std::os::unix::fs::chown(&index, Some(owner), None).unwrap();
        open(&index, 0o600);
    }
    sandbox.unlock().ok();
    sandbox.with_secrets(&["--", "true"]).run().ok();
}
