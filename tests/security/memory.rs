//! Rows 1, 4 and 5: the daemon's memory.

use crate::attack;
use keyloan_e2e::programs::needed;
use keyloan_e2e::{Sandbox, approver, wire};
use std::process::{Child, Command};

/// Finds a marked secret in another process, by every way Linux offers. Prints the ways that worked.
pub(crate) const READER: &str = r#"
import ctypes, os, sys
pid, secret = int(sys.argv[1]), sys.argv[2].encode()
libc = ctypes.CDLL(None, use_errno=True)
def scan():
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as mem:
        for line in maps:
            span, mode = line.split()[:2]
            if not mode.startswith("rw"): continue
            start, end = (int(x, 16) for x in span.split("-"))
            try:
                mem.seek(start); found = mem.read(end - start)
                # As most programs keep it, and as Qt does.
                if secret in found or secret.decode().encode("utf-16-le") in found: return True
            except (OSError, ValueError, OverflowError): pass
    return False
def ptrace():
    worked = libc.ptrace(16, pid, 0, 0) == 0
    if worked: os.waitpid(pid, 0); libc.ptrace(17, pid, 0, 0)
    return worked
def pidfd():
    fd = libc.syscall(434, pid, 0)
    return libc.syscall(438, fd, 0, 0) >= 0
ways = {"mem": scan, "environ": lambda: len(open(f"/proc/{pid}/environ").read()) >= 0,
        "fd": lambda: len(os.listdir(f"/proc/{pid}/fd")) > 0, "ptrace": ptrace, "pidfd_getfd": pidfd}
for name, way in ways.items():
    try:
        if way(): print(name)
    except OSError: pass
"#;

const SECRET: &str = "a-passphrase-in-memory-5c81";

fn ways(sandbox: &Sandbox, pid: u32) -> Vec<String> {
    let read = attack(sandbox, READER, &[&pid.to_string(), SECRET]).ok();
    read.text().lines().map(str::to_owned).collect()
}

/// A process of the same user that keeps a secret as most programs do.
fn victim(sandbox: &Sandbox) -> Child {
    let program =
        "import sys\nsecret='a-passphrase-'+'in-memory-5c81'\nprint('ready', flush=True)\nsys.stdin.read()";
    let mut child = sandbox.command(needed("python3"), &["-c", program]).start();
    let mut line = [0; 6];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
    child
}

/// Whether root finds the secret in the daemon, as it does in an undefended process.
fn root_finds_it_in_the_daemon(sandbox: &Sandbox) -> bool {
    let look = |pid: u32| {
        let mut reader = Command::new(needed("python3"));
        let out = reader.args(["-c", READER, &pid.to_string(), SECRET]).output().unwrap();
        String::from_utf8(out.stdout).unwrap()
    };
    let mut undefended = victim(sandbox);
    assert!(look(undefended.id()).contains("mem\n"), "root finds the secret of an undefended process");
    undefended.kill().unwrap();
    undefended.wait().unwrap();
    let found = look(u32::try_from(sandbox.daemon().unwrap()).unwrap());
    assert!(found.contains("environ\n"), "root can look into the daemon");
    found.contains("mem\n")
}

#[test]
fn another_program_of_the_user_reads_nothing_of_the_daemon() {
    let sandbox = Sandbox::with_token(SECRET.as_bytes());
    let mut undefended = victim(&sandbox);
    assert_eq!(ways(&sandbox, undefended.id()), ["mem", "environ", "fd", "ptrace", "pidfd_getfd"]);
    undefended.kill().unwrap();
    undefended.wait().unwrap();
    let daemon = u32::try_from(sandbox.daemon().unwrap()).unwrap();
    assert_eq!(ways(&sandbox, daemon), [""; 0]);
    // Not from a user namespace of the attacker's own either.
    let arguments = ["-Ur", "python3", "-c", READER, &daemon.to_string(), SECRET];
    let inside = sandbox.command(needed("unshare"), &arguments).run().ok();
    assert_eq!(inside.text(), "");
}

#[test]
fn the_daemon_leaves_no_core() {
    let sandbox = Sandbox::with_token(b"tok");
    let flags = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status
            .lines()
            .find_map(|line| line.strip_prefix("CoreDumping:").map(str::trim).map(str::to_owned))
            .unwrap()
    };
    let daemon = u32::try_from(sandbox.daemon().unwrap()).unwrap();
    assert_eq!(flags(daemon), "0");
    // The kernel gives /proc/PID of an undumpable process to root: that is what refuses a dump.
    let owner = |pid: u32| {
        std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(format!("/proc/{pid}/mem")).unwrap())
    };
    let mut undefended = victim(&sandbox);
    let user = keyloan_e2e::sandbox::user()
        .map_or_else(|| nix::unistd::Uid::current().as_raw(), |(uid, _)| uid.as_raw());
    assert_eq!((owner(undefended.id()), owner(daemon)), (user, 0));
    undefended.kill().unwrap();
    undefended.wait().unwrap();
}

#[test]
fn keys_lie_in_pages_that_even_root_cannot_read_and_values_nowhere_after_use() {
    let sandbox = Sandbox::with_token(SECRET.as_bytes());
    sandbox.with_secrets(&["--", "true"]).run().ok();
    assert_eq!(sandbox.status()["key_memory"], "memfd_secret", "this kernel has memfd_secret");
    if keyloan_e2e::sandbox::user().is_none() {
        // Only root can look into an undumpable process, and so only root can show that nothing is there.
        return assert_eq!(ways(&sandbox, u32::try_from(sandbox.daemon().unwrap()).unwrap()), [""; 0]);
    }
    assert!(!root_finds_it_in_the_daemon(&sandbox), "a lent value is still in the daemon's memory");
}

#[test]
fn a_kept_value_of_a_linked_vault_is_in_no_memory_that_can_be_read() {
    assert!(keyloan_e2e::sandbox::user().is_some(), "only root can look into the daemon: run as root");
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    // The double's own text does not hold it.
    let (count, (one, two)) = (sandbox.path("run/count"), SECRET.split_at(10));
    let text = format!("#!/bin/sh\necho run >>{}\nprintf %s%s {one} {two}\n", count.display());
    let setting = format!("program={}", sandbox.write_program("home/any", text).display());
    let add = ["vault", "add", "any", "--kind", "command", &setting, "--passphrase-fd", "3"];
    sandbox.keyed(keyloan_e2e::PASSPHRASE, &add).run().ok();
    sandbox.policy("vault.cache[vault=any]=10m");
    let get = || sandbox.keyloan(&["item", "get", "any://a/b"]).run().ok().text();
    assert_eq!(get(), SECRET);
    assert!(!root_finds_it_in_the_daemon(&sandbox), "a kept value lies open in the daemon's memory");
    assert_eq!(get(), SECRET);
    assert_eq!(std::fs::read_to_string(&count).unwrap(), "run\n", "it was kept");
}

#[test]
fn a_long_value_that_was_stored_is_not_left_in_freed_memory() {
    assert!(keyloan_e2e::sandbox::user().is_some(), "only root can look into the daemon: run as root");
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    // Long enough that what is freed is not at once used for something else.
    sandbox.keyloan(&["item", "set", "long", "value"]).stdin(SECRET.repeat(1000)).run().ok();
    assert!(!root_finds_it_in_the_daemon(&sandbox), "a stored value is still in the daemon's memory");
}

#[test]
fn without_memory_to_lock_it_works_and_says_so() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.stop();
    let mut limited = sandbox.command("/bin/sh", &["-c", "ulimit -l 0; exec keyloand run"]).start();
    keyloan_e2e::eventually("the daemon listens", || sandbox.socket().exists());
    sandbox.unlock().ok();
    assert_eq!(sandbox.status()["key_memory"], "ordinary memory (could be swapped out)");
    assert_eq!(sandbox.with_secrets(&["--", "printenv", "TWINE_PASSWORD"]).run().ok().text(), "tok\n");
    sandbox.keyloan(&["daemon", "stop"]).run().ok();
    limited.wait().unwrap();
}

/// Asks for a key derivation, again and again, and never waits for its end.
const IMPATIENT: &str = r"
import socket, sys, time
for _ in range(8):
    s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
    s.sendall(bytes.fromhex(sys.argv[2]))
    time.sleep(0.05)
    s.close()
";

#[test]
fn requesters_that_go_away_do_not_leave_many_key_derivations_behind() {
    let sandbox = Sandbox::with_vault();
    sandbox.stop();
    // The most the daemon ever held, in KiB, proc_pid_status(5).
    let peak = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", sandbox.daemon().unwrap())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    sandbox.unlock().ok();
    let one = peak();
    assert!(one > 64 * 1024, "a derivation takes its memory: {one} KiB");
    let header = r#"{"version":1,"body":{"unlock":{}},"values":[{"name":"passphrase","length":5}]}"#;
    let frame = wire::frame(header, b"wrong");
    let frame = frame.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    attack(&sandbox, IMPATIENT, &[&sandbox.socket().display().to_string(), &frame]).ok();
    // Waits for those before it.
    sandbox.unlock().ok();
    let all = peak();
    assert!(all < 2 * one, "{one} KiB for one derivation, {all} KiB for eight");
}
