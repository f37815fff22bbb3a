//! Rows 13 and 16a on Wayland: why a click is no answer there either. The victim shows buttons without a PIN.

use crate::attack;
use keyloan_e2e::programs::needed;
use keyloan_e2e::sandbox::finished;
use keyloan_e2e::wayland::Wayland;
use keyloan_e2e::{PASSPHRASE, PIN, Sandbox, eventually};
use std::process::Child;

/// As X names keys.
const RETURN: &str = "ff0d";
const ESCAPE: &str = "ff1b";

const VICTIM: &str = r#"
import os, subprocess
p = subprocess.Popen(["/usr/bin/pinentry-qt"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"QT_QPA_PLATFORM": "wayland"})
p.stdout.readline()
for line in ("SETTITLE keyloan", "SETOK _Allow", "SETCANCEL Deny", "CONFIRM"):
    p.stdin.write(line.encode() + b"\n"); p.stdin.flush()
    answer = p.stdout.readline().decode().strip()
print(answer, flush=True)
p.kill()
"#;

/// Presses Alt-A, and keys by their X names' numbers, in a session of remote control, which nobody is asked for.
const REMOTE: &str = r#"
import sys, time
from gi.repository import Gio, GLib
bus, name = Gio.bus_get_sync(Gio.BusType.SESSION), "org.gnome.Mutter.RemoteDesktop"
def call(path, interface, method, *what):
    return bus.call_sync(name, path, interface, method, *what or (None,), None, 0, -1, None)
session = call("/org/gnome/Mutter/RemoteDesktop", name, "CreateSession")[0]
call(session, name + ".Session", "Start")
time.sleep(1)
def press(key, down):
    call(session, name + ".Session", "NotifyKeyboardKeysym", GLib.Variant("(ub)", (key, down)))
    time.sleep(0.1)
for key, down in ((0xffe9, True), (0x61, True), (0x61, False), (0xffe9, False)):
    press(key, down)
for key in sys.argv[1:]:
    press(int(key, 16), True), press(int(key, 16), False)
print("pressed")
"#;

/// A vault with a token, unlocked on this desktop.
fn asked_on(desktop: &Wayland<'_>, sandbox: &Sandbox) {
    sandbox.policies(&["approver.command=", "approver.pinentry=/usr/bin/pinentry-qt"]);
    sandbox.keyloan(&["lock"]).run().ok();
    desktop.on(sandbox.keyed(PASSPHRASE, &["unlock", "--passphrase-fd", "3"])).run().ok();
}

fn victim(desktop: &Wayland<'_>, sandbox: &Sandbox) -> Child {
    desktop.on(sandbox.command(needed("python3"), &["-c", VICTIM])).start()
}

fn lend(sandbox: &Sandbox) -> Child {
    sandbox.with_secrets(&["--", "printenv", "TWINE_PASSWORD"]).start()
}

/// Whatever was pressed, the question ended without a yes; what still stands after a wrong PIN is closed.
fn declined(sandbox: &Sandbox, asking: Child, escape: impl Fn()) {
    eventually("it is closed", || {
        let stands = sandbox.status()["pending"] != 0;
        if stands {
            escape();
        }
        !stands
    });
    let ended = finished(asking);
    assert_eq!(ended.status, 125, "{}", ended.stderr);
    assert!(sandbox.events("lent").is_empty());
}

#[test]
fn a_virtual_keyboard_does_not_allow() {
    let sandbox = Sandbox::with_token(b"tok");
    let desktop = Wayland::sway(&sandbox);
    let press = || desktop.wtype(&["-M", "alt", "a", "-m", "alt"]);
    let asked = victim(&desktop, &sandbox);
    desktop.window("keyloan");
    press();
    assert_eq!(finished(asked).ok().text(), "OK\n", "a button is pressed by anybody");
    desktop.no_window("keyloan");

    asked_on(&desktop, &sandbox);
    let asking = lend(&sandbox);
    desktop.window("keyloan");
    press();
    desktop.wtype(&["-k", "Return"]);
    declined(&sandbox, asking, || desktop.wtype(&["-k", "Escape"]));
    let asking = lend(&sandbox);
    desktop.window("keyloan");
    desktop.wtype(&[PIN, "-k", "Return"]);
    assert_eq!(finished(asking).ok().text(), "tok\n");
}

/// What a compositor tells its clients of does not say whether a click can be forged: GNOME's tells of no virtual
/// input, and takes it over the session bus from any program of the user.
#[test]
fn remote_control_over_the_session_bus_does_not_allow() {
    let sandbox = Sandbox::with_token(b"tok");
    let desktop = Wayland::mutter(&sandbox);
    let press = |keys: &[&str]| {
        let arguments = [&["-c", REMOTE], keys].concat();
        desktop.on(sandbox.command(needed("python3"), &arguments)).run().ok();
    };
    let mut asked = victim(&desktop, &sandbox);
    // Nothing says when its window has the keys; before that they go to nobody.
    eventually("it is answered", || {
        press(&[]);
        asked.try_wait().unwrap().is_some()
    });
    assert_eq!(finished(asked).ok().text(), "OK\n", "a button is pressed by anybody");

    asked_on(&desktop, &sandbox);
    let asking = lend(&sandbox);
    eventually("the window opens", || sandbox.status()["pending"] == 1);
    press(&[RETURN]);
    declined(&sandbox, asking, || press(&[RETURN, ESCAPE]));
}

/// Nor does who listens where the compositor should: the socket lies in a directory of the user's.
#[test]
fn a_compositor_put_in_place_of_the_users_does_not_allow() {
    let sandbox = Sandbox::with_token(b"tok");
    let users = Wayland::sway(&sandbox);
    asked_on(&users, &sandbox);
    // The daemon's socket is elsewhere; the attacker moves the compositor's away and starts one.
    let swap = "import os, sys\nfor name in ('wayland-1', 'wayland-1.lock', 'sway'):\n    os.rename(f'{sys.argv[1]}/{name}', \
                f'{sys.argv[1]}/old-{name}')\nprint('moved')";
    let run = sandbox.path("run");
    assert_eq!(attack(&sandbox, swap, &[run.to_str().unwrap()]).text(), "moved\n");
    let evils = Wayland::sway(&sandbox);
    let asked = victim(&users, &sandbox);
    evils.window("keyloan");
    evils.wtype(&["-M", "alt", "a", "-m", "alt"]);
    assert_eq!(finished(asked).ok().text(), "OK\n", "the victim asked the attacker's compositor");
    evils.no_window("keyloan");

    let asking = lend(&sandbox);
    evils.window("keyloan");
    evils.wtype(&["-M", "alt", "a", "-m", "alt", "-k", "Return"]);
    declined(&sandbox, asking, || evils.wtype(&["-k", "Escape"]));
}
