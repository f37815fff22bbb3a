//! Rows 25 to 27: files, crashes, a full disk.

use keyloan_e2e::programs::{bin, needed};
use keyloan_e2e::{PASSPHRASE, Sandbox, approver, eventually};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

/// Starts the daemon under strace, which kills it at the Nth call of a kind.
fn daemon_killed_at(sandbox: &Sandbox, call: &str, at: u32) -> std::process::Child {
    let inject = format!("inject={call}:signal=KILL:when={at}");
    let trace = format!("trace={call}");
    let mut command = Command::new(needed("strace"));
    command
        .args(["-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject])
        .arg(bin().join("keyloand"))
        .arg("run");
    let mut command = sandbox.prepared(command).into_command();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Whether the daemon was killed. Nothing else makes a request fail here, so after a failure its end, which
/// strace passes on a moment later, is waited for.
fn was_killed(daemon: &mut std::process::Child, succeeded: bool) -> bool {
    if !succeeded {
        eventually("the killed daemon is gone", || daemon.try_wait().unwrap().is_some());
    }
    daemon.try_wait().unwrap().is_some()
}

const CALLS: [&str; 4] =
    ["fsync,fdatasync", "renameat,renameat2,rename", "unlinkat,unlink", "write,pwrite64"];

#[test]
fn a_daemon_killed_at_any_step_of_storing_leaves_the_old_value_or_the_new() {
    let template = Sandbox::with_approver(approver::ALLOW);
    template.policy("item.write=allow");
    template.policy("item.read=allow");
    template.keyloan(&["item", "set", "pypi", "token"]).stdin("old").run().ok();
    template.stop();
    let (mut killed, mut old, mut new) = (0, 0, 0);
    for call in CALLS {
        for at in 1..40 {
            let sandbox = template.copy();
            let mut daemon = daemon_killed_at(&sandbox, call, at);
            eventually("the daemon listens or is dead", || {
                sandbox.socket().exists() || daemon.try_wait().unwrap().is_some()
            });
            let unlocked = sandbox.unlock().status == 0;
            let stored =
                unlocked && sandbox.keyloan(&["item", "set", "pypi", "token"]).stdin("new").run().status == 0;
            let dead = was_killed(&mut daemon, stored);
            if !dead {
                sandbox.stop();
            }
            let _ = daemon.wait();
            // Whatever happened, the vault opens, the log verifies, and the value is one of the two.
            sandbox.unlock().ok();
            let value = sandbox.keyloan(&["item", "get", "pypi", "token"]).run().ok().text();
            assert!(value == "new" || (value == "old" && !stored), "{call} {at}: {value}");
            if value == "new" {
                new += 1;
            } else {
                old += 1;
            }
            sandbox.keyloan(&["log", "--verify"]).run().ok();
            if dead {
                killed += 1;
            } else if stored {
                break;
            }
        }
    }
    assert!(
        killed >= 12 && old > 0 && new > 0,
        "{killed} kills, {old} times the old value, {new} times the new"
    );
}

#[test]
fn a_daemon_killed_at_any_step_of_init_leaves_no_vault_or_a_whole_one() {
    let (mut killed, mut absent, mut whole) = (0, 0, 0);
    for (call, step) in [("fsync,fdatasync", 3), ("renameat,renameat2,rename", 1), ("mkdirat,mkdir", 1)] {
        for at in (1..60).step_by(step) {
            let sandbox = Sandbox::empty();
            let mut daemon = daemon_killed_at(&sandbox, call, at);
            eventually("the daemon listens or is dead", || {
                sandbox.socket().exists() || daemon.try_wait().unwrap().is_some()
            });
            let made = sandbox.init().status == 0;
            let dead = was_killed(&mut daemon, made);
            if !dead {
                sandbox.stop();
            }
            let _ = daemon.wait();
            sandbox.keyloan(&["daemon", "start"]).run().ok();
            if sandbox.status()["vault"] == "absent" {
                assert!(!made);
                sandbox.init().ok();
                absent += 1;
            } else {
                sandbox.unlock().ok();
                whole += 1;
            }
            sandbox.keyloan(&["log", "--verify"]).run().ok();
            if dead {
                killed += 1;
            } else if made {
                break;
            }
        }
    }
    assert!(
        killed >= 8 && absent > 0 && whole > 0,
        "{killed} kills, {absent} times none, {whole} times whole"
    );
}

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
