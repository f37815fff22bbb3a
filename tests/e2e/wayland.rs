//! Questions in windows on a Wayland desktop without any X server.

use keyloan_e2e::sandbox::finished;
use keyloan_e2e::wayland::Wayland;
use keyloan_e2e::{PASSPHRASE, PIN, Sandbox};

const QT: &str = "/usr/bin/pinentry-qt";

#[test]
fn a_window_opens_on_wayland_and_takes_the_pin() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.policies(&["approver.command=", &format!("approver.pinentry={QT}")]);
    sandbox.keyloan(&["lock"]).run().ok();
    let desktop = Wayland::sway(&sandbox);
    let ask = || sandbox.with_secrets(&["--", "printenv", "TWINE_PASSWORD"]);

    let unlocking = desktop.on(sandbox.keyloan(&["unlock"])).start();
    desktop.window("keyloan");
    desktop.wtype(&[PASSPHRASE, "-k", "Return"]);
    assert!(finished(unlocking).ok().stderr.contains("the vault is unlocked"));
    let questions = sandbox.status()["questions"].as_str().unwrap().to_owned();
    assert!(questions.starts_with(&format!("a window on display wayland-1 ({QT})")), "{questions}");
    desktop.no_window("keyloan");

    let asking = ask().start();
    desktop.window("keyloan");
    desktop.wtype(&[PIN, "-k", "Return"]);
    assert_eq!(finished(asking).ok().text(), "tok\n");
    desktop.no_window("keyloan");

    let asking = ask().start();
    desktop.window("keyloan");
    desktop.wtype(&["-k", "Escape"]);
    finished(asking).refused(125, "it was declined");
    desktop.no_window("keyloan");
}
