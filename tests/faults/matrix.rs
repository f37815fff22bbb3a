//! The fault matrix: every operation that changes something, with a fault at every fsync, rename, write, unlink
//! and open that the daemon makes for it: killed there, or told that the disk is full or broken, or that
//! descriptors or memory have run out. After each, the vault opens with the old state or the new one, what was
//! reported done is done, the log verifies, and nothing was lent without its record.

use keyloan_e2e::programs::needed;
use keyloan_e2e::{Output, PASSPHRASE, Sandbox, eventually};
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// Calls of one kind, whatever the system's name for them.
const CALLS: [&str; 5] = [
    "fsync,fdatasync,syncfs",
    "rename,renameat,renameat2",
    "write,pwrite64,writev",
    "unlink,unlinkat,rmdir",
    "openat",
];

/// What happens there. A full disk stays full; the others pass.
const FAULTS: [(&str, bool); 5] = [
    ("signal=KILL", false),
    ("error=ENOSPC", true),
    ("error=EIO", false),
    ("error=EMFILE", false),
    ("error=ENOMEM", false),
];

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum State {
    Old,
    New,
}

struct Operation {
    name: &'static str,
    /// A sandbox as it is before; its daemon does not run.
    before: fn() -> Sandbox,
    /// Whether the vault must be open for it.
    opens: bool,
    run: fn(&Sandbox) -> Output,
    /// What an open vault says afterwards.
    state: fn(&Sandbox) -> State,
}

/// A vault that opens without a key derivation, by its recovery key, so that thousands of runs are affordable.
fn template() -> &'static (Sandbox, String) {
    static TEMPLATE: OnceLock<(Sandbox, String)> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let sandbox = Sandbox::with_token(b"old");
        sandbox.policy("item.write=allow");
        sandbox.policy("item.read=allow");
        sandbox.policy("trust=allow");
        sandbox.write("project/Second", "[env]\nA = \"local://pypi/token\"\n");
        let page = sandbox.keyed(PASSPHRASE, &["recovery-key", "--passphrase-fd", "3"]).run().ok().text();
        let lines = page.lines().skip_while(|line| !line.trim_start().starts_with("AGE-S"));
        let key: String = lines.take_while(|line| !line.is_empty()).collect();
        let key: String = key.split_whitespace().collect();
        let file = sandbox.path("project/backup").display().to_string();
        let recipient = sandbox.path("home/age").display().to_string();
        sandbox.command("/usr/bin/age-keygen", &["-o", &recipient]).run().ok();
        let public = sandbox.command("/usr/bin/age-keygen", &["-y", &recipient]).run().ok().text();
        sandbox.keyed(PASSPHRASE, &["backup", &file, "--passphrase-fd", "3", "-r", public.trim()]).run().ok();
        sandbox.stop();
        // The same vault on another machine, with two further items.
        let other = sandbox.copy();
        other.keyloan(&["daemon", "start"]).run().ok();
        other.keyed(&key, &["unlock", "--passphrase-fd", "3"]).run().ok();
        for item in ["changed one", "changed two"] {
            other.keyloan(&["item", "set", item, "v"]).stdin("x").run().ok();
        }
        other.stop();
        let changed = sandbox.path("home/changed");
        assert!(Command::new("cp").arg("-a").arg(other.vault()).arg(changed).status().unwrap().success());
        (sandbox, key)
    })
}

fn key() -> &'static str {
    &template().1
}

fn with_vault() -> Sandbox {
    let sandbox = template().0.copy();
    // Trust is for a path, and this one is another.
    sandbox.keyloan(&["daemon", "start"]).run().ok();
    unlock(&sandbox).ok();
    sandbox.keyloan(&["trust"]).run().ok();
    sandbox.stop();
    sandbox
}

fn without_vault() -> Sandbox {
    let sandbox = Sandbox::empty();
    for name in ["project/backup", "home/age"] {
        sandbox.write(name, std::fs::read(template().0.path(name)).unwrap());
    }
    sandbox
}

fn unlock(sandbox: &Sandbox) -> Output {
    sandbox.keyed(key(), &["unlock", "--passphrase-fd", "3"]).run()
}

fn token(sandbox: &Sandbox) -> String {
    sandbox.keyloan(&["item", "get", "pypi", "token"]).run().ok().text()
}

/// `keyloan` with the recovery key on descriptor 3 and a new passphrase on 5.
fn keyed(sandbox: &Sandbox, line: &str) -> Output {
    let new = sandbox.write("new", "another passphrase");
    let passphrase = sandbox.write("passphrase", key());
    let line = format!("exec 3<{} 5<{}; exec keyloan {line}", passphrase.display(), new.display());
    sandbox.command(needed("sh"), &["-c", &line]).run()
}

fn passphrase_file(sandbox: &Sandbox) -> State {
    let file = |sandbox: &Sandbox| std::fs::read(sandbox.vault().join("identity/passphrase.age")).unwrap();
    if file(sandbox) == file(&template().0) { State::Old } else { State::New }
}

const OPERATIONS: [Operation; 11] = [
    Operation {
        name: "init",
        before: Sandbox::empty,
        opens: false,
        run: Sandbox::init,
        state: |sandbox| if sandbox.status()["vault"] == "absent" { State::Old } else { State::New },
    },
    Operation {
        name: "item set",
        before: with_vault,
        opens: true,
        run: |sandbox| sandbox.keyloan(&["item", "set", "pypi", "token"]).stdin("new").run(),
        state: |sandbox| match token(sandbox).as_str() {
            "old" => State::Old,
            "new" => State::New,
            other => panic!("a mixture: {other}"),
        },
    },
    Operation {
        name: "rekey",
        before: with_vault,
        opens: true,
        run: |sandbox| keyed(sandbox, "rekey --passphrase-fd 3 --new-passphrase-fd 5"),
        state: |sandbox| {
            assert_eq!(token(sandbox), "old", "re-keying changes no value");
            assert!(!sandbox.vault().with_extension("making").exists(), "nothing of the other is left");
            passphrase_file(sandbox)
        },
    },
    Operation {
        name: "restore",
        before: without_vault,
        opens: false,
        run: |sandbox| {
            let [file, identity] = ["project/backup", "home/age"].map(|name| sandbox.path(name));
            let arguments = ["restore", file.to_str().unwrap(), "--identity", identity.to_str().unwrap()];
            sandbox.keyloan(&arguments).run()
        },
        state: |sandbox| {
            if sandbox.status()["vault"] == "absent" {
                return State::Old;
            }
            assert_eq!(token(sandbox), "old", "a restored vault is whole");
            State::New
        },
    },
    Operation {
        name: "trust",
        before: with_vault,
        opens: true,
        run: |sandbox| {
            std::fs::rename(sandbox.path("project/Second"), sandbox.path("project/.keyloan.toml")).unwrap();
            sandbox.keyloan(&["trust"]).run()
        },
        state: |sandbox| {
            let lent = sandbox.with_secrets(&["--", "printenv", "A"]).run();
            if lent.status == 0 {
                return State::New;
            }
            lent.refused(125, "was changed after it was trusted");
            State::Old
        },
    },
    Operation {
        name: "policy set",
        before: with_vault,
        opens: true,
        run: |sandbox| {
            sandbox
                .keyed(key(), &["policy", "set", "file=deny", "lock.idle=2h", "--passphrase-fd", "3"])
                .run()
        },
        state: |sandbox| {
            let policy = sandbox.keyloan(&["policy", "show"]).run().ok().text();
            match (policy.contains("file=deny"), policy.contains("lock.idle=2h")) {
                (false, false) => State::Old,
                (true, true) => State::New,
                other => panic!("a mixture: {other:?}"),
            }
        },
    },
    Operation {
        name: "item rm",
        before: with_vault,
        opens: true,
        run: |sandbox| sandbox.keyloan(&["item", "rm", "pypi"]).run(),
        state: |sandbox| match sandbox.keyloan(&["item", "get", "pypi", "token"]).run().status {
            0 => State::Old,
            1 => State::New,
            other => panic!("neither there nor gone: {other}"),
        },
    },
    Operation {
        name: "passwd",
        before: with_vault,
        opens: true,
        run: |sandbox| {
            let line = "passwd --passphrase-fd 3 --new-passphrase-fd 5";
            keyed(sandbox, line)
        },
        state: |sandbox| passphrase_file(sandbox),
    },
    Operation {
        name: "recovery-key",
        before: with_vault,
        opens: true,
        run: |sandbox| sandbox.keyed(key(), &["recovery-key", "--passphrase-fd", "3"]).run(),
        state: |sandbox| {
            let file =
                |sandbox: &Sandbox| std::fs::read(sandbox.vault().join("identity/recovery.age")).unwrap();
            if file(sandbox) != file(&template().0) {
                return State::New;
            }
            sandbox.keyloan(&["lock"]).run().ok();
            assert!(unlock(sandbox).status == 0, "the page that was printed before opens it");
            State::Old
        },
    },
    Operation {
        name: "merge",
        before: with_vault,
        opens: true,
        run: |sandbox| {
            let copy = sandbox.path("project/copy");
            let copied =
                Command::new("cp").arg("-a").arg(template().0.path("home/changed")).arg(&copy).status();
            assert!(copied.unwrap().success());
            sandbox.keyloan(&["merge", copy.to_str().unwrap()]).run()
        },
        state: |sandbox| {
            let there = |item: &str| sandbox.keyloan(&["item", "get", item, "v"]).run().status == 0;
            match (there("changed one"), there("changed two")) {
                (true, true) => State::New,
                // An item at a time; the next merge does the rest.
                _ => State::Old,
            }
        },
    },
    Operation {
        name: "with-secrets",
        before: with_vault,
        opens: true,
        run: |sandbox| sandbox.with_secrets(&["--", "sh", "-c", "printf %s \"$TWINE_PASSWORD\" >lent"]).run(),
        state: |sandbox| match std::fs::read_to_string(sandbox.path("project/lent")) {
            Ok(text) => {
                assert_eq!(text, "old", "what was lent is whole");
                assert_eq!(sandbox.events("lent").len(), 1, "no loan without its record");
                assert_eq!(sandbox.events("approved").len() - template_approvals(), 1);
                State::New
            }
            Err(_) => State::Old,
        },
    },
];

/// Approvals in the log before the operation.
fn template_approvals() -> usize {
    // One further for the trust in `with_vault`.
    template().0.events("approved").len() + 1
}

/// strace on a daemon that runs; ended by its pid, which lets the daemon go on.
struct Tracer {
    child: Child,
    log: std::path::PathBuf,
}

impl Tracer {
    fn attach(sandbox: &Sandbox, calls: &str, inject: &str) -> Self {
        let pid = sandbox.daemon().unwrap();
        let log = sandbox.path("trace");
        let child = Command::new(needed("strace"))
            .args(["-f", "-qq", "-o", log.to_str().unwrap(), "-e", &format!("trace={calls}"), "-e", inject])
            .args(["-p", &pid.to_string()])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("strace has attached (this test needs root)", || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let is_traced = status.lines().any(|line| line == format!("TracerPid:\t{}", child.id()));
            // What it does by itself now and then may have been struck already.
            is_traced || status.is_empty() || status.contains("State:\tZ")
        });
        Self { child, log }
    }

    /// Whether the fault came about.
    fn end(&mut self) -> bool {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        // Now and then it waits for ever for threads of a process that it has killed.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(2);
        while self.child.try_wait().unwrap().is_none() {
            if std::time::Instant::now() > deadline {
                self.child.kill().unwrap();
                self.child.wait().unwrap();
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        log.contains("(INJECTED)") || log.contains("+++ killed by SIGKILL +++")
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One operation with one fault. `None` when the operation makes fewer such calls.
fn strike(
    operation: &Operation,
    sandbox: &Sandbox,
    calls: &str,
    fault: (&str, bool),
    at: usize,
) -> Option<State> {
    let what = format!("{} with {} at {calls} {at}", operation.name, fault.0);
    sandbox.keyloan(&["daemon", "start"]).run().ok();
    if operation.opens {
        unlock(sandbox).ok();
    }
    let pid = sandbox.daemon().unwrap();
    let from_there_on = if fault.1 { "+" } else { "" };
    let inject = format!("inject={calls}:{}:when={at}{from_there_on}", fault.0);
    let mut tracer = Tracer::attach(sandbox, calls, &inject);
    let done = (operation.run)(sandbox);
    let struck = tracer.end();
    // What a daemon that lives on after the fault says that it has stored, it has.
    let lives = sandbox.daemon() == Some(pid) && done.status != 0 && operation.opens;
    let stored = lives && sandbox.keyloan(&["item", "set", "after", "v"]).stdin("after").run().status == 0;
    if lives && !calls.starts_with("unlink") {
        assert!(!sandbox.vault().with_extension("making").exists(), "{what}: half a vault is left");
    }
    if Path::new(&format!("/proc/{pid}")).exists() {
        sandbox.stop();
    }
    sandbox.keyloan(&["daemon", "start"]).run().ok();
    if sandbox.status()["vault"] != "absent" {
        let opened = match operation.name {
            // There is no recovery key of that vault, or it is another now.
            "init" | "recovery-key" => sandbox.unlock(),
            _ => unlock(sandbox),
        };
        assert!(opened.status == 0, "{what}: the vault does not open: {}", opened.stderr);
    }
    if stored {
        let after = sandbox.keyloan(&["item", "get", "after", "v"]).run();
        assert!(after.text() == "after", "{what}: what was stored after it is lost: {}", after.stderr);
    }
    let state = (operation.state)(sandbox);
    assert!(done.status != 0 || state == State::New, "{what}: reported done, and is not");
    assert!(done.status != 0 || done.signal.is_none());
    // A fault that passes leaves a daemon that can put the old key back: nobody was shown the new one.
    if operation.name == "recovery-key" && lives && !fault.1 {
        assert!(
            state == State::Old,
            "{what}: reported failed, and the page that was printed before is of no use"
        );
    }
    let verified = sandbox.keyloan(&["log", "--verify"]).run();
    assert!(verified.status == 0, "{what}: {}{}", verified.text(), verified.stderr);
    // It still works as if nothing had been.
    if operation.name == "item set" {
        sandbox.keyloan(&["item", "set", "further", "v"]).stdin("x").run().ok();
    }
    struck.then_some(state)
}

fn matrix(name: &str) {
    assert!(keyloan_e2e::sandbox::user().is_some(), "run the tests as root: strace attaches to the daemon");
    let operation = OPERATIONS.iter().find(|operation| operation.name == name).unwrap();
    let before = (operation.before)();
    let (mut table, mut all, mut kills) = (String::new(), 0, [0, 0]);
    for calls in CALLS {
        for fault in FAULTS {
            // Opening fails for want of descriptors or memory; the disk shows at the others.
            if calls == "openat" && !matches!(fault.0, "error=EMFILE" | "error=ENOMEM") {
                continue;
            }
            let (mut old, mut new) = (0, 0);
            for at in 1.. {
                let sandbox =
                    if name == "with-secrets" || name == "trust" { with_vault() } else { before.copy() };
                match strike(operation, &sandbox, calls, fault, at) {
                    None => break,
                    Some(State::Old) => old += 1,
                    Some(State::New) => new += 1,
                }
                assert!(at < 200, "there is no end to it");
            }
            all += old + new;
            if fault.0 == "signal=KILL" {
                kills[0] += old;
                kills[1] += new;
            }
            writeln!(table, "{name:<14}{:<14}{calls:<28}{old:>5}{new:>5}", fault.0).unwrap();
        }
    }
    println!(
        "\noperation     fault         at                            old  new\n{table}{name}: {all} faults, nothing lost"
    );
    assert!(all >= 20, "{table}");
    assert!(kills[0] > 0, "some kill comes before the change: {table}");
}

#[test]
fn init_survives_a_fault_anywhere() {
    matrix("init");
}

#[test]
fn item_set_survives_a_fault_anywhere() {
    matrix("item set");
}

#[test]
fn rekey_survives_a_fault_anywhere() {
    matrix("rekey");
}

#[test]
fn restore_survives_a_fault_anywhere() {
    matrix("restore");
}

#[test]
fn trust_survives_a_fault_anywhere() {
    matrix("trust");
}

#[test]
fn policy_set_survives_a_fault_anywhere() {
    matrix("policy set");
}

#[test]
fn item_rm_survives_a_fault_anywhere() {
    matrix("item rm");
}

#[test]
fn passwd_survives_a_fault_anywhere() {
    matrix("passwd");
}

#[test]
fn recovery_key_survives_a_fault_anywhere() {
    matrix("recovery-key");
}

#[test]
fn merge_survives_a_fault_anywhere() {
    matrix("merge");
}

#[test]
fn with_secrets_survives_a_fault_anywhere() {
    matrix("with-secrets");
}

#[test]
fn a_lie_about_a_sync_would_be_noticed() {
    // The matrix can fail: a daemon whose rename is said to be done, and is not, reports what is not so.
    let operation = &OPERATIONS[1];
    let sandbox = (operation.before)();
    sandbox.keyloan(&["daemon", "start"]).run().ok();
    unlock(&sandbox).ok();
    let calls = "rename,renameat,renameat2";
    let mut tracer = Tracer::attach(&sandbox, calls, &format!("inject={calls}:retval=0:when=1"));
    let done = (operation.run)(&sandbox);
    assert!(tracer.end());
    sandbox.stop();
    sandbox.keyloan(&["daemon", "start"]).run().ok();
    let opened = unlock(&sandbox);
    assert!(done.status == 0 && (opened.status != 0 || (operation.state)(&sandbox) == State::Old));
}
