//! A real keyring of a desktop without one: a session bus of its own, gnome-keyring on it, and `secret-tool` as the other
//! side.

use crate::desktop::started;
use crate::programs::needed;
use crate::sandbox::{Output, Run, Running, Sandbox};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Stdio};

/// Nothing is started by it that a test did not start.
const BUS: &str = r#"<busconfig><type>session</type><listen>unix:path=SOCKET</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy>
</busconfig>"#;

const PASSWORD: &str = "the keyring's password";

const ROOT: &str = "/org/freedesktop/secrets";
pub const LOGIN: &str = "/org/freedesktop/secrets/collection/login";

/// Stores standard input, whatever bytes that are, without encryption on its way: `secret-tool` cannot.
const PLAIN: &str = r#"
import sys
from gi.repository import Gio, GLib
bus = Gio.DBusConnection.new_for_address_sync(sys.argv[1], Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT
    | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION)
def call(path, interface, member, body):
    return bus.call_sync("org.freedesktop.secrets", path, "org.freedesktop.Secret." + interface, member, body, None, 0, -1)
_, session = call("/org/freedesktop/secrets", "Service", "OpenSession", GLib.Variant("(sv)", ("plain", GLib.Variant("s", ""))))
item = "org.freedesktop.Secret.Item."
properties = {item + "Label": GLib.Variant("s", sys.argv[2]), item + "Attributes": GLib.Variant("a{ss}", {"plain": sys.argv[2]})}
value = GLib.Variant.new_from_bytes(GLib.VariantType("ay"), GLib.Bytes(sys.stdin.buffer.read()), True)
body = GLib.Variant.new_tuple(GLib.Variant("a{sv}", properties),
    GLib.Variant.new_tuple(GLib.Variant("o", session), GLib.Variant("ay", b""), value, GLib.Variant("s", "text/plain")),
    GLib.Variant("b", False))
made, _ = call("/org/freedesktop/secrets/collection/login", "Collection", "CreateItem", body)
assert made != "/"
"#;

pub struct Keyring<'a> {
    sandbox: &'a Sandbox,
    bus: Running,
    service: Option<Running>,
}

/// All that goes over the bus, byte for byte.
pub struct Heard<'a> {
    keyring: &'a Keyring<'a>,
    file: PathBuf,
    _monitor: Running,
}

impl<'a> Keyring<'a> {
    /// Open, as after a login.
    pub fn open(sandbox: &'a Sandbox) -> Self {
        let mut keyring = Self::absent(sandbox);
        keyring.start();
        keyring
    }

    /// A session bus, and nobody on it who keeps anything.
    pub fn absent(sandbox: &'a Sandbox) -> Self {
        let socket = sandbox.path("run/bus");
        let config = sandbox.write("run/bus.conf", BUS.replace("SOCKET", socket.to_str().unwrap()));
        let config = format!("--config-file={}", config.display());
        let run = sandbox.command(needed("dbus-daemon"), &[&config, "--nofork", "--print-address=1"]);
        Self { sandbox, bus: Running(started(run).0), service: None }
    }

    /// Starts the service with the password, which opens the keyring or makes it.
    pub fn start(&mut self) {
        let arguments = ["--unlock", "--components=secrets", "--foreground"];
        let mut command =
            self.on(self.sandbox.command(needed("gnome-keyring-daemon"), &arguments)).into_command();
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut service = command.spawn().unwrap();
        service.stdin.take().unwrap().write_all(PASSWORD.as_bytes()).unwrap();
        self.service = Some(Running(service));
        crate::eventually("the keyring is open", || {
            let alias = self.call(ROOT, "org.freedesktop.Secret.Service", "ReadAlias", &["s", "default"]);
            alias.text().contains(LOGIN) && self.is_locked().text().trim() == "b false"
        });
    }

    /// Ends the service; what it keeps stays in its files.
    pub fn end(&mut self) {
        self.service = None;
    }

    pub fn service(&self) -> &Child {
        &self.service.as_ref().unwrap().0
    }

    pub fn socket(&self) -> PathBuf {
        self.sandbox.path("run/bus")
    }

    pub fn address(&self) -> String {
        format!("unix:path={}", self.socket().display())
    }

    /// The command as a program of that desktop.
    pub fn on(&self, run: Run) -> Run {
        run.env("DBUS_SESSION_BUS_ADDRESS", self.address())
    }

    pub fn secret_tool(&self, arguments: &[&str]) -> Run {
        self.on(self.sandbox.command(needed("secret-tool"), arguments))
    }

    #[track_caller]
    pub fn store(&self, label: &str, attributes: &[&str], value: impl AsRef<[u8]>) {
        let label = format!("--label={label}");
        self.secret_tool(&[&["store", &label][..], attributes].concat()).stdin(value).run().ok();
    }

    #[track_caller]
    pub fn store_plain(&self, label: &str, value: &[u8]) {
        let arguments = ["-c", PLAIN, &self.address(), label];
        self.sandbox.command(needed("python3"), &arguments).stdin(value).run().ok();
    }

    /// What any program may tell the service.
    pub fn call(&self, path: &str, interface: &str, member: &str, arguments: &[&str]) -> Output {
        let address = format!("--address={}", self.address());
        let call = [&address, "call", "org.freedesktop.secrets", path, interface, member];
        self.sandbox.command(needed("busctl"), &[&call[..], arguments].concat()).run()
    }

    fn is_locked(&self) -> Output {
        let address = format!("--address={}", self.address());
        let get = [&address, "get-property", "org.freedesktop.secrets", LOGIN];
        let get = [&get[..], &["org.freedesktop.Secret.Collection", "Locked"]].concat();
        self.sandbox.command(needed("busctl"), &get).run()
    }

    pub fn lock(&self) {
        self.call(ROOT, "org.freedesktop.Secret.Service", "Lock", &["ao", "1", LOGIN]).ok();
        assert_eq!(self.is_locked().text().trim(), "b true");
    }

    /// Ends the bus, and with it everybody's connection.
    pub fn end_bus(&mut self) {
        self.bus.end();
    }

    /// Those on the bus who are this process.
    pub fn connections_of(&self, pid: i32) -> usize {
        let address = format!("--address={}", self.address());
        let list = [&address, "--unique", "--no-legend", "list"];
        let listed = self.sandbox.command(needed("busctl"), &list).run().ok().text();
        let pid = pid.to_string();
        listed.lines().filter(|line| line.split_whitespace().nth(1) == Some(&pid)).count()
    }

    pub fn listen(&'a self) -> Heard<'a> {
        let file = self.sandbox.write("run/heard", "");
        let output = std::fs::OpenOptions::new().append(true).open(&file).unwrap();
        let address = format!("--address={}", self.address());
        let mut command = self.sandbox.command(needed("busctl"), &[&address, "capture"]).into_command();
        command.stdin(Stdio::null()).stdout(output).stderr(Stdio::null());
        let heard = Heard { keyring: self, file, _monitor: Running(command.spawn().unwrap()) };
        crate::eventually("the bus is listened to", || heard.has("begin"));
        heard
    }

    /// Links it under the name `keyring`, by the socket of its bus.
    pub fn link(&self, more: &[&str]) -> Output {
        let bus = format!("bus={}", self.socket().display());
        let add = ["vault", "add", "keyring", "--kind", "keyring", &bus, "--passphrase-fd", "3"];
        self.sandbox.keyed(crate::PASSPHRASE, &[&add[..], more].concat()).run()
    }
}

impl Heard<'_> {
    /// Whether a word that is said now was heard.
    fn has(&self, word: &str) -> bool {
        let alias = ["s", word];
        self.keyring.call(ROOT, "org.freedesktop.Secret.Service", "ReadAlias", &alias);
        self.times(word) > 0
    }

    /// All that was said before this.
    pub fn settle(&self, word: &str) {
        crate::eventually("all is heard", || self.has(word));
    }

    pub fn times(&self, what: &str) -> usize {
        let heard = std::fs::read(&self.file).unwrap();
        heard.windows(what.len()).filter(|part| *part == what.as_bytes()).count()
    }
}
