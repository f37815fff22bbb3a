//! Rows 12 to 16c: the prompt in a window. The victims are stock pinentries, asked as most programs ask.

use crate::attack;
use keyloan_e2e::desktop::Desktop;
use keyloan_e2e::programs::needed;
use keyloan_e2e::sandbox::finished;
use keyloan_e2e::{PASSPHRASE, PIN, Running, Sandbox, wire};
use std::path::{Path, PathBuf};
use std::process::Child;

const GTK: &str = "/usr/bin/pinentry-gtk-2";

/// Puts one question to a pinentry over pipes and prints the answer. Its pid goes to a file.
const VICTIM: &str = r#"
import subprocess, sys
p = subprocess.Popen(["/usr/bin/pinentry-gtk-2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
open("victim", "w").write(f"{p.pid}\n")
p.stdout.readline()
for line in ("SETTITLE keyloan", "SETOK _Allow", sys.argv[1]):
    p.stdin.write(line.encode() + b"\n"); p.stdin.flush()
    answer = []
    while not answer or not answer[-1].startswith(("OK", "ERR")):
        answer.append(p.stdout.readline().decode().strip())
print(answer, flush=True)
p.kill()
"#;

const WRITER: &str = r#"
import sys
with open(f"/proc/{sys.argv[1]}/fd/1", "w") as out: out.write("D 4711\nOK\n")
print("written")
"#;

/// A vault with a token, unlocked on this desktop.
fn asked_on(desktop: &Desktop<'_>, sandbox: &Sandbox) {
    sandbox.keyloan(&["lock"]).run().ok();
    desktop.on(sandbox.keyed(PASSPHRASE, &["unlock", "--passphrase-fd", "3"])).run().ok();
}

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.policy("approver.command=");
    sandbox.policy(&format!("approver.pinentry={GTK}"));
    sandbox
}

fn lend(sandbox: &Sandbox) -> Child {
    sandbox.with_secrets(&["--", "printenv", "TWINE_PASSWORD"]).start()
}

#[test]
fn an_answer_cannot_be_written_into_a_pinentrys_output() {
    let sandbox = sandbox();
    let desktop = Desktop::open(&sandbox);
    let victim = desktop.on(sandbox.command(needed("python3"), &["-c", VICTIM, "GETPIN"])).start();
    desktop.window();
    let pid = std::fs::read_to_string(sandbox.path("project/victim")).unwrap();
    assert_eq!(attack(&sandbox, WRITER, &[pid.trim()]).text(), "written\n");
    assert_eq!(finished(victim).ok().text(), "['D 4711', 'OK']\n");
    desktop.no_window();

    asked_on(&desktop, &sandbox);
    let asking = lend(&sandbox);
    desktop.window();
    let daemon = sandbox.daemon().unwrap().to_string();
    let pid = sandbox.command(needed("pgrep"), &["-P", &daemon]).run().ok().text();
    let written = attack(&sandbox, WRITER, &[pid.trim()]);
    assert!(written.stderr.contains("Permission denied"), "{}{}", written.text(), written.stderr);
    desktop.press("Escape");
    finished(asking).refused(125, "it was declined");
}

#[test]
fn keys_forged_by_another_x_program_do_not_allow() {
    let sandbox = sandbox();
    let desktop = Desktop::open(&sandbox);
    let victim = desktop.on(sandbox.command(needed("python3"), &["-c", VICTIM, "CONFIRM"])).start();
    desktop.window();
    desktop.press("alt+a");
    assert_eq!(finished(victim).ok().text(), "['OK']\n", "a button is pressed by anybody");
    desktop.no_window();

    asked_on(&desktop, &sandbox);
    for keys in
        [vec!["Return"], vec!["Tab", "Return"], vec!["y", "Return", "Escape"], vec!["alt+a", "Return"]]
    {
        let asking = lend(&sandbox);
        desktop.window();
        for key in keys {
            desktop.press(key);
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
        // A window that still stands after a wrong PIN is closed.
        while sandbox.status()["pending"] != 0 {
            desktop.press("Escape");
        }
        assert_ne!(finished(asking).status, 0);
        // A person allows something else, which ends the pause after two noes.
        let asking = lend(&sandbox);
        desktop.window();
        desktop.answer(PIN);
        finished(asking).ok();
    }
    assert_eq!(sandbox.events("lent").len(), 4, "what the person allowed, and nothing else");
}

#[test]
fn a_requester_cannot_bring_the_question_to_a_display_of_its_own() {
    let sandbox = sandbox();
    let users = Desktop::open(&sandbox);
    let evils = Desktop::open(&sandbox);
    // The victim opens its window where whoever asks says.
    let mut victim = evils.on(sandbox.command(needed("python3"), &["-c", VICTIM, "CONFIRM"])).start();
    evils.window();
    evils.press("alt+a");
    victim.wait().unwrap();

    asked_on(&users, &sandbox);
    let questions = || sandbox.status()["questions"].as_str().unwrap().to_owned();
    let users_own = questions();
    assert!(users_own.contains(&format!("display {} ", users.display)), "{users_own}");
    // By its environment.
    let asking = evils.on(sandbox.with_secrets(&["--", "printenv", "TWINE_PASSWORD"])).start();
    users.window();
    assert_eq!(evils.find(), None);
    users.press("Escape");
    finished(asking).refused(125, "it was declined");
    // By values that only `unlock` has, and by `unlock` itself without the right passphrase.
    let display = evils.display.as_bytes();
    let header = format!(
        r#"{{"version":1,"body":{{"lend":{{}}}},"values":[{{"name":"display","length":{}}}]}}"#,
        display.len()
    );
    wire::exchange(&sandbox, &wire::frame(&header, display));
    let unlock = ["unlock", "--here", "--passphrase-fd", "3"];
    evils.on(sandbox.keyed("a guess", &unlock)).run().refused(6, "not the right one");
    let unlocking = evils.on(sandbox.keyloan(&["unlock", "--here"])).start();
    evils.window();
    evils.press("Escape");
    finished(unlocking).refused(6, "it was declined");
    assert_eq!(questions(), users_own);
    // Two noes in a row hold back; the passphrase ends that.
    finished(lend(&sandbox)).refused(125, "it may ask again in");
    sandbox.unlock().ok();
    let asking = lend(&sandbox);
    users.window();
    users.answer(PIN);
    assert_eq!(finished(asking).ok().text(), "tok\n");
}

/// Makes a module of GTK there; gives the file that tells that its code ran.
fn evil_module(sandbox: &Sandbox, module: &Path) -> PathBuf {
    let mark = sandbox.path("project/mark");
    let code = format!(
        "#include <fcntl.h>\n__attribute__((constructor)) static void go(void) \
         {{ open(\"{}\", O_CREAT | O_WRONLY, 0600); }}\nvoid gtk_module_init(int *a, char ***b) {{ (void)a; (void)b; }}\n",
        mark.display()
    );
    let source = sandbox.write("home/evil.c", code);
    let compile = ["-shared", "-fPIC", "-o", module.to_str().unwrap(), source.to_str().unwrap()];
    sandbox.command(needed("cc"), &compile).run().ok();
    mark
}

/// Becomes the display's settings manager (XSETTINGS 0.5) and names a module to all of GTK.
const MANAGER: &str = r#"
import ctypes, struct, sys, time
x = ctypes.CDLL("libX11.so.6"); x.XOpenDisplay.restype = ctypes.c_void_p
x.XInternAtom.restype = x.XDefaultRootWindow.restype = x.XCreateSimpleWindow.restype = ctypes.c_ulong
d = ctypes.c_void_p(x.XOpenDisplay(None)); atom = lambda name: ctypes.c_ulong(x.XInternAtom(d, name, 0))
w = ctypes.c_ulong(x.XCreateSimpleWindow(d, ctypes.c_ulong(x.XDefaultRootWindow(d)), 0, 0, 1, 1, 0, 0, 0))
pad = lambda text: text + bytes(-len(text) % 4)
name, value = b"Gtk/Modules", sys.argv[1].encode()
settings = struct.pack("<B3xII", 0, 1, 1) + struct.pack("<BxH", 1, len(name)) + pad(name) + struct.pack("<II", 1, len(value)) + pad(value)
kind = atom(b"_XSETTINGS_SETTINGS")
x.XChangeProperty(d, w, kind, kind, 8, 0, settings, len(settings))
x.XSetSelectionOwner(d, atom(b"_XSETTINGS_S0"), w, 0); x.XSync(d, 0)
print("ready", flush=True)
time.sleep(1000)
"#;

fn runs_in_the_victim_alone(sandbox: &Sandbox, desktop: &Desktop<'_>, victim: Child, mark: &Path) {
    desktop.window();
    desktop.press("alt+a");
    finished(victim).ok();
    assert!(std::fs::remove_file(mark).is_ok(), "the attacker's code ran where a PIN is typed");
    asked_on(desktop, sandbox);
    let asking = lend(sandbox);
    desktop.window();
    desktop.answer(PIN);
    finished(asking).ok();
    assert!(!mark.exists());
}

#[test]
fn a_pinentry_loads_nothing_that_another_x_program_names() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.policy("approver.command=");
    let desktop = Desktop::open(&sandbox);
    let module = sandbox.path("project/libevil.so");
    let mark = evil_module(&sandbox, &module);
    let manager = ["-c", MANAGER, module.to_str().unwrap()];
    let mut manager = Running(desktop.on(sandbox.command(needed("python3"), &manager)).start());
    std::io::Read::read_exact(manager.0.stdout.as_mut().unwrap(), &mut [0; 6]).unwrap();
    // The victim is a pinentry of GTK, without anything of the home directory.
    let victim = desktop.on(sandbox.command(needed("python3"), &["-c", VICTIM, "CONFIRM"]));
    let victim = victim.env("HOME", "/").start();
    runs_in_the_victim_alone(&sandbox, &desktop, victim, &mark);
}

#[test]
fn a_pinentry_loads_nothing_from_the_home_directory() {
    let sandbox = sandbox();
    let desktop = Desktop::open(&sandbox);
    sandbox.make_directory("home/.gtk-2.0");
    let modules = sandbox.make_directory("home/.gtk-2.0/modules");
    let mark = evil_module(&sandbox, &modules.join("libevil.so"));
    sandbox.write("home/.gtkrc-2.0", "gtk-modules = \"evil\"\n");
    let victim = desktop.on(sandbox.command(needed("python3"), &["-c", VICTIM, "CONFIRM"])).start();
    runs_in_the_victim_alone(&sandbox, &desktop, victim, &mark);
}

#[test]
fn a_pinentry_that_others_can_change_is_never_run() {
    let sandbox = sandbox();
    let mark = sandbox.path("project/mark");
    let evil = sandbox.write_program("project/pinentry", format!("#!/bin/sh\necho >{}\n", mark.display()));
    sandbox.command(&evil, &[""; 0]).run().ok();
    assert!(std::fs::remove_file(&mark).is_ok(), "it is one that would run");
    let set = format!("approver.pinentry={}", evil.display());
    sandbox
        .keyed(PASSPHRASE, &["policy", "set", &set, "--passphrase-fd", "3"])
        .run()
        .refused(2, "not root's alone to change");
    // One for terminals is absent: no window, and no yes.
    sandbox.policy("approver.pinentry=/usr/bin/pinentry-curses");
    let desktop = Desktop::open(&sandbox);
    asked_on(&desktop, &sandbox);
    finished(lend(&sandbox)).refused(125, "no window can be opened");
    assert!(!mark.exists());
}
