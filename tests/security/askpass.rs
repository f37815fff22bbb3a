//! Row 16a for askpass programs. The victim runs Debian's as ssh does: a pipe for what is typed, and a process that any
//! program of the same user can read.

use crate::attack;
use keyloan_e2e::desktop::Desktop;
use keyloan_e2e::programs::needed;
use keyloan_e2e::sandbox::finished;
use keyloan_e2e::{PASSPHRASE, PIN, Sandbox, eventually};

const GNOME: &str = "/usr/lib/openssh/gnome-ssh-askpass";

const VICTIM: &str = r#"
import subprocess, sys
p = subprocess.Popen([sys.argv[1], "the PIN?"], stdout=subprocess.PIPE)
open("victim", "w").write(f"{p.pid}\n")
print(p.stdout.readline().decode(), end="", flush=True)
p.kill()
"#;

/// What reads a PIN out of the memory of whoever holds it, and what takes the place of whoever types it.
const ATTACKS: [(&str, &str); 3] = [
    ("written", "import sys\nopen(f'/proc/{sys.argv[1]}/fd/1', 'w').write('evil\\n')\nprint('written')"),
    ("opened", "import sys\nopen(f'/proc/{sys.argv[1]}/mem', 'rb').close()\nprint('opened')"),
    (
        "taken",
        "import ctypes, os, sys\npid = os.pidfd_open(int(sys.argv[1]))\n\
         fd = ctypes.CDLL(None, use_errno=True).syscall(438, pid, 1, 0)\n\
         print('taken' if fd >= 0 else os.strerror(ctypes.get_errno()))",
    ),
];

fn askpass_window(desktop: &Desktop<'_>) {
    eventually("the askpass program's window opens", || {
        desktop.xdotool(&["search", "--onlyvisible", "--name", "^OpenSSH"]).status == 0
    });
    std::thread::sleep(std::time::Duration::from_millis(700));
}

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::with_token(b"tok");
    let askpass = format!("approver.askpass={GNOME}");
    sandbox.policies(&["approver.command=", "approver.order=askpass", &askpass]);
    sandbox
}

fn asked_on(desktop: &Desktop<'_>, sandbox: &Sandbox) {
    sandbox.keyloan(&["lock"]).run().ok();
    desktop.on(sandbox.keyed(PASSPHRASE, &["unlock", "--passphrase-fd", "3"])).run().ok();
}

#[test]
fn an_askpass_program_can_neither_be_answered_nor_read_by_others() {
    let sandbox = sandbox();
    let desktop = Desktop::open(&sandbox);
    let victim = desktop.on(sandbox.command(needed("python3"), &["-c", VICTIM, GNOME])).start();
    askpass_window(&desktop);
    let pid = std::fs::read_to_string(sandbox.path("project/victim")).unwrap();
    for (done, program) in ATTACKS.iter().rev() {
        assert_eq!(attack(&sandbox, program, &[pid.trim()]).text().trim(), *done);
    }
    assert_eq!(finished(victim).ok().text(), "evil\n", "nobody typed that");

    asked_on(&desktop, &sandbox);
    let asking = sandbox.with_secrets(&["--", "printenv", "TWINE_PASSWORD"]).start();
    askpass_window(&desktop);
    let daemon = sandbox.daemon().unwrap().to_string();
    // Not the notification that a question stands.
    let sealed = ["-P", &daemon, "-f", "^/proc/self/fd/"];
    let pid = sandbox.command(needed("pgrep"), &sealed).run().ok().text();
    for (done, program) in ATTACKS {
        let tried = attack(&sandbox, program, &[pid.trim()]);
        let said = tried.text() + &tried.stderr;
        assert!(
            said.contains("Permission denied") || said.contains("Operation not permitted"),
            "{done}: {said}"
        );
    }
    desktop.answer(PIN);
    assert_eq!(finished(asking).ok().text(), "tok\n");
}

/// A script cannot be kept from being traced, but its output is a socket all the same.
#[test]
fn an_answer_cannot_be_written_into_the_output_of_an_askpass_script() {
    let sandbox = sandbox();
    let script = "#!/bin/sh\nexec /bin/sleep 1000\n";
    let program = sandbox.write_program("project/askpass", script);
    let victim = sandbox.command(needed("python3"), &["-c", VICTIM, program.to_str().unwrap()]).start();
    let mut pid = String::new();
    eventually("the victim asks", || {
        pid = std::fs::read_to_string(sandbox.path("project/victim")).unwrap_or_default();
        pid.ends_with('\n')
    });
    let (_, writer) = ATTACKS[0];
    assert_eq!(attack(&sandbox, writer, &[pid.trim()]).text(), "written\n");
    assert_eq!(finished(victim).ok().text(), "evil\n");

    sandbox.policy(&format!("approver.askpass={}", program.display()));
    let desktop = Desktop::open(&sandbox);
    asked_on(&desktop, &sandbox);
    let mut asking = sandbox.with_secrets(&["--", "true"]).start();
    let daemon = sandbox.daemon().unwrap().to_string();
    let mut pid = String::new();
    eventually("the program runs", || {
        pid = sandbox.command(needed("pgrep"), &["-x", "-P", &daemon, "sleep"]).run().text();
        !pid.is_empty()
    });
    let tried = attack(&sandbox, writer, &[pid.trim()]);
    assert!(tried.stderr.contains("No such device or address"), "{}{}", tried.text(), tried.stderr);
    // Nothing was answered by that: the question stands, until its requester goes away and takes the program along.
    assert_eq!(sandbox.status()["pending"], 1);
    asking.kill().unwrap();
    asking.wait().unwrap();
    eventually("it ends", || !std::path::Path::new("/proc").join(pid.trim()).exists());
    assert!(sandbox.events("lent").is_empty());
}
