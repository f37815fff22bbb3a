//! Real Wayland desktops without a screen, as the sandbox's user. There is no X server, and no DISPLAY.

use crate::programs::needed;
use crate::sandbox::{Run, Running, Sandbox};
use crate::{desktop, eventually};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

pub struct Wayland<'a> {
    sandbox: &'a Sandbox,
    _server: Running,
    _bus: Option<Running>,
    variables: Vec<(&'static str, OsString)>,
    /// Sway's own, for `swaymsg`.
    control: PathBuf,
}

impl<'a> Wayland<'a> {
    /// Sway, which offers virtual keyboards and pointers to every program.
    pub fn sway(sandbox: &'a Sandbox) -> Self {
        let control = sandbox.path("run/sway");
        let configuration = sandbox.write("run/sway.conf", "xwayland disable\n");
        let arguments = ["-c", configuration.to_str().unwrap()];
        let sway = sandbox.command(needed("sway"), &arguments).env("SWAYSOCK", &control);
        // What wlroots has for a machine without a screen, a keyboard and a graphics card.
        let sway = sway.env("WLR_BACKENDS", "headless").env("WLR_RENDERER", "pixman");
        let server = started(sway.env("WLR_LIBINPUT_NO_DEVICES", "1"));
        // The first that is free, as wl_display_add_socket_auto has it from 1 on.
        let variables = vec![("WAYLAND_DISPLAY", OsString::from("wayland-1"))];
        let desktop = Self { sandbox, _server: server, _bus: None, variables, control };
        eventually("sway answers", || desktop.tree().is_some());
        desktop
    }

    /// Mutter, GNOME's compositor, which offers no virtual input by Wayland, and a session bus.
    pub fn mutter(sandbox: &'a Sandbox) -> Self {
        let bus = sandbox.command(needed("dbus-daemon"), &["--session", "--nofork", "--print-address=1"]);
        let (bus, address) = desktop::started(bus);
        let variables = vec![
            ("WAYLAND_DISPLAY", OsString::from("wayland-gnome")),
            ("DBUS_SESSION_BUS_ADDRESS", address.into()),
        ];
        let arguments = ["--headless", "--wayland", "--no-x11", "--virtual-monitor", "1024x768"];
        let arguments = [&arguments[..], &["--wayland-display", "wayland-gnome"]].concat();
        let mutter = sandbox.command(needed("mutter"), &arguments);
        let mutter = variables[1..].iter().fold(mutter, |run, (name, value)| run.env(name, value));
        let server = started(mutter);
        let desktop =
            Self { sandbox, _server: server, _bus: Some(Running(bus)), variables, control: PathBuf::new() };
        let call =
            ["--user", "introspect", "org.gnome.Mutter.RemoteDesktop", "/org/gnome/Mutter/RemoteDesktop"];
        eventually("mutter answers", || {
            desktop.on(sandbox.command(needed("busctl"), &call)).run().status == 0
                && sandbox.path("run/wayland-gnome").exists()
        });
        desktop
    }

    /// The command as if started from a menu of this desktop.
    pub fn on(&self, run: Run) -> Run {
        self.variables.iter().fold(run, |run, (name, value)| run.env(name, value))
    }

    fn tree(&self) -> Option<String> {
        let run = self.sandbox.command(needed("swaymsg"), &["-t", "get_tree"]).env("SWAYSOCK", &self.control);
        let output = run.run();
        (output.status == 0).then(|| output.text())
    }

    /// Waits, in sway, for a window with that title and for as long as a person needs to see it.
    #[track_caller]
    pub fn window(&self, title: &str) {
        let name = format!("\"name\": \"{title}\"");
        eventually("the window opens", || self.tree().is_some_and(|tree| tree.contains(&name)));
        // What is answered within 300 ms does not count, and that is not what is tested with this.
        std::thread::sleep(Duration::from_millis(700));
    }

    #[track_caller]
    pub fn no_window(&self, title: &str) {
        let name = format!("\"name\": \"{title}\"");
        eventually("the window closes", || self.tree().is_some_and(|tree| !tree.contains(&name)));
    }

    /// Types, in sway, what wtype's arguments say. Its first key goes astray unless the window has the new keyboard.
    pub fn wtype(&self, arguments: &[&str]) {
        let arguments = [&["-s", "300"], arguments].concat();
        self.on(self.sandbox.command(needed("wtype"), &arguments)).run().ok();
    }
}

fn started(run: Run) -> Running {
    let mut command = run.into_command();
    Running(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}
