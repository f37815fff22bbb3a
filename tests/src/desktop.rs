//! A real desktop: an X server without a screen, with a cookie of its own and a session bus, as the
//! sandbox's user. Keys come by XTEST, which is also how an attacker types.

use crate::programs::needed;
use crate::sandbox::{Output, Run, Sandbox};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

const SCREEN: &str = "1280x900x24";

pub struct Desktop<'a> {
    sandbox: &'a Sandbox,
    server: Child,
    bus: Child,
    variables: Vec<(&'static str, OsString)>,
    pub display: String,
}

/// A window on the screen: what `xdotool` says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub id: String,
    pub width: u32,
    pub height: u32,
    /// Nothing of it lies beyond an edge of the screen.
    pub whole: bool,
}

impl<'a> Desktop<'a> {
    pub fn open(sandbox: &'a Sandbox) -> Self {
        let cookie = cookie();
        let authority = |name: &str, display: &str| {
            let path = sandbox.write(&format!("run/{name}-{}", &cookie[..8]), "");
            let add = ["-q", "-f", path.to_str().unwrap(), "add", display, ".", &cookie];
            sandbox.command(needed("xauth"), &add).run().ok();
            path
        };
        // The server compares the cookie only; its number is not known yet.
        let servers = authority("x-server", ":0");
        let arguments = ["-displayfd", "1", "-auth", servers.to_str().unwrap(), "-nolisten", "tcp"];
        // Without -noreset it begins anew whenever the last client leaves, and loses those who come just then.
        let arguments = [&arguments[..], &["-screen", "0", SCREEN, "-noreset"]].concat();
        let (server, number) = started(sandbox.command(needed("Xvfb"), &arguments));
        let display = format!(":{number}");
        let mut variables: Vec<(&'static str, OsString)> =
            vec![("DISPLAY", display.clone().into()), ("XAUTHORITY", authority("x-client", &display).into())];
        // What the bus starts, as gcr's prompter, finds the display by the bus's own environment.
        let bus = sandbox.command(needed("dbus-daemon"), &["--session", "--nofork", "--print-address=1"]);
        let bus = variables.iter().fold(bus, |bus, (name, value)| bus.env(name, value));
        let (bus, address) = started(bus.env("NO_AT_BRIDGE", "1"));
        variables.push(("DBUS_SESSION_BUS_ADDRESS", address.into()));
        Self { sandbox, server, bus, variables, display }
    }

    /// The command as if started from a menu of this desktop.
    pub fn on(&self, run: Run) -> Run {
        self.variables.iter().fold(run, |run, (name, value)| run.env(name, value))
    }

    /// Where its session bus is.
    pub fn bus(&self) -> String {
        let address = self.variables.iter().find(|(name, _)| *name == "DBUS_SESSION_BUS_ADDRESS");
        address.map(|(_, address)| address.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// The variables of this desktop, to be set in a shell.
    pub fn exports(&self) -> String {
        let set = self.variables.iter().map(|(name, value)| format!(" {name}='{}'", value.to_string_lossy()));
        format!("export{}", set.collect::<String>())
    }

    pub fn xdotool(&self, arguments: &[&str]) -> Output {
        self.on(self.sandbox.command(needed("xdotool"), arguments)).run()
    }

    /// keyloan's window, if there is one.
    pub fn find(&self) -> Option<Seen> {
        let found = self.xdotool(&["search", "--onlyvisible", "--name", "^keyloan$"]);
        let id = found.text().lines().next()?.to_owned();
        let shape = self.xdotool(&["getwindowgeometry", "--shell", &id]).text();
        let number = |name: &str| {
            let line = shape.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.and_then(|text| text.parse::<i64>().ok())
        };
        let (x, y, width, height) = (number("X")?, number("Y")?, number("WIDTH")?, number("HEIGHT")?);
        let whole = x >= 0 && y >= 0 && x + width <= 1280 && y + height <= 900;
        let size = |size: i64| u32::try_from(size).unwrap();
        Some(Seen { id, width: size(width), height: size(height), whole })
    }

    /// Waits for keyloan's window and for as long as a person needs to see it; keys then go to it.
    #[track_caller]
    pub fn window(&self) -> Seen {
        let mut seen = None;
        crate::eventually("keyloan's window opens", || {
            seen = self.find();
            seen.is_some()
        });
        let seen = seen.unwrap();
        self.xdotool(&["mousemove", "--window", &seen.id, "30", "10"]);
        // What is answered within 300 ms does not count, and that is not what is tested with this.
        std::thread::sleep(Duration::from_millis(700));
        self.find().unwrap_or(seen)
    }

    #[track_caller]
    pub fn no_window(&self) {
        crate::eventually("keyloan's window closes", || self.find().is_none());
    }

    /// Types text and Enter into the window, by XTEST.
    pub fn answer(&self, text: &str) {
        if !text.is_empty() {
            self.xdotool(&["type", text]).ok();
        }
        self.press("Return");
    }

    pub fn press(&self, key: &str) {
        self.xdotool(&["key", key]).ok();
    }

    /// Closes a window as its title bar's button does.
    pub fn close(&self, seen: &Seen) {
        self.on(self.sandbox.command(needed("python3"), &["-c", DELETE, &seen.id])).run().ok();
    }

    /// Keeps a picture of a window under `directory`.
    pub fn screenshot(&self, seen: &Seen, directory: &Path, name: &str) -> PathBuf {
        self.picture(&seen.id, directory, name)
    }

    /// One of the whole screen.
    pub fn picture_of_all(&self, directory: &Path, name: &str) -> PathBuf {
        self.picture("root", directory, name)
    }

    fn picture(&self, window: &str, directory: &Path, name: &str) -> PathBuf {
        let inside = self.sandbox.path(&format!("run/{name}.png"));
        self.on(self.sandbox.command(needed("import"), &["-window", window, inside.to_str().unwrap()]))
            .run()
            .ok();
        std::fs::create_dir_all(directory).unwrap();
        let kept = directory.join(format!("{name}.png"));
        std::fs::copy(inside, &kept).unwrap();
        kept
    }

    /// The X server ends, as at a logout.
    pub fn log_out(&mut self) {
        for child in [&mut self.bus, &mut self.server] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Desktop<'_> {
    fn drop(&mut self) {
        self.log_out();
    }
}

/// Sends `WM_DELETE_WINDOW`, ICCCM 4.2.8.1.
const DELETE: &str = r#"
import ctypes, sys
x = ctypes.CDLL("libX11.so.6"); x.XOpenDisplay.restype = ctypes.c_void_p
x.XInternAtom.restype = ctypes.c_ulong
d = ctypes.c_void_p(x.XOpenDisplay(None)); w = ctypes.c_ulong(int(sys.argv[1]))
class Message(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("serial", ctypes.c_ulong), ("sent", ctypes.c_int), ("display", ctypes.c_void_p),
                ("window", ctypes.c_ulong), ("kind", ctypes.c_ulong), ("format", ctypes.c_int),
                ("data", ctypes.c_ulong * 5), ("rest", ctypes.c_ulong * 24)]
m = Message(33, 0, 1, d, w, x.XInternAtom(d, b"WM_PROTOCOLS", 0), 32)
m.data[0] = x.XInternAtom(d, b"WM_DELETE_WINDOW", 0)
assert x.XSendEvent(d, w, 0, 0, ctypes.byref(m)); x.XSync(d, 0)
"#;

/// Starts a server that says on its standard output where it is.
pub fn started(run: Run) -> (Child, String) {
    let mut command = run.into_command();
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
    assert!(!said.trim().is_empty(), "{command:?} did not start");
    (child, said.trim().to_owned())
}

fn cookie() -> String {
    let mut bytes = [0_u8; 16];
    std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
