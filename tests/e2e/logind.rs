//! logind: a bus of this test at the system bus's own path, within a mount namespace, and a double of logind on it.

use keyloan_e2e::programs::{bin, needed};
use keyloan_e2e::{PASSPHRASE, Running, Sandbox, eventually};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

const POLICY: &str = r#"<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen>
<auth>EXTERNAL</auth><policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/>
<allow send_type="signal"/><allow send_requested_reply="true" send_type="method_return"/>
<allow send_requested_reply="true" send_type="error"/><allow receive_type="method_call"/>
<allow receive_type="method_return"/><allow receive_type="error"/><allow receive_type="signal"/></policy></busconfig>"#;

/// A double of logind, or of somebody who is not logind but says the same. Each line it reads is a signal to send; it
/// says when its delay lock is taken and when it is let go.
const DOUBLE: &str = r#"
import os, sys, threading
from gi.repository import Gio, GLib
name, uid = sys.argv[1], int(sys.argv[2])
bus = Gio.bus_get_sync(Gio.BusType.SYSTEM)
MANAGER, SESSION = "org.freedesktop.login1.Manager", "org.freedesktop.login1.Session"
def say(text): print(text, flush=True)
def watch(pipe):
    os.read(pipe, 1); os.close(pipe); say("let go")
def called(connection, sender, path, interface, method, arguments, invocation):
    say("inhibit " + " ".join(arguments.unpack()))
    mine, theirs = os.pipe()
    threading.Thread(target=watch, args=(mine,), daemon=True).start()
    held = Gio.UnixFDList.new(); index = held.append(theirs); os.close(theirs)
    invocation.return_value_with_unix_fd_list(GLib.Variant("(h)", (index,)), held)
def user(connection, sender, path, interface, name):
    return GLib.Variant("(uo)", (uid + int(path[-1]), "/org/freedesktop/login1/user/x"))
interfaces = Gio.DBusNodeInfo.new_for_xml("""<node>
<interface name='org.freedesktop.login1.Manager'><method name='Inhibit'><arg type='s' direction='in'/>
<arg type='s' direction='in'/><arg type='s' direction='in'/><arg type='s' direction='in'/>
<arg type='h' direction='out'/></method></interface>
<interface name='org.freedesktop.login1.Session'><property name='User' type='(uo)' access='read'/></interface></node>""").interfaces
bus.register_object("/org/freedesktop/login1", interfaces[0], called, None, None)
for session in "01":
    bus.register_object("/org/freedesktop/login1/session/" + session, interfaces[1], None, user, None)
def send(line):
    to, what, *more = line.split()
    to = None if to == "all" else to
    if what == "sleep":
        bus.emit_signal(to, "/org/freedesktop/login1", MANAGER, "PrepareForSleep", GLib.Variant("(b)", (more[0] == "yes",)))
    elif what == "lock":
        bus.emit_signal(to, "/org/freedesktop/login1/session/" + more[0], SESSION, "Lock", None)
    bus.flush_sync(); say("sent")
def listen():
    for line in sys.stdin: GLib.idle_add(send, line)
    os._exit(0)
if name != "-": Gio.bus_own_name_on_connection(bus, name, 0, lambda *_: say("ready"), lambda *_: say("lost"))
else: say("ready")
threading.Thread(target=listen, daemon=True).start()
GLib.MainLoop().run()
"#;

/// The first process of a mount namespace that has its own system bus, and no other.
const INIT: &str = r#"
set -e
mount -t tmpfs none /run; mkdir /run/dbus; printf '%s' "$1" >/run/bus.conf
exec dbus-daemon --nofork --config-file=/run/bus.conf --print-address=1
"#;

struct Bus<'a> {
    sandbox: &'a Sandbox,
    bus: Running,
}

struct Double {
    _process: Running,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    said: VecDeque<String>,
}

impl<'a> Bus<'a> {
    fn start(sandbox: &'a Sandbox) -> Self {
        assert!(keyloan_e2e::sandbox::user().is_some(), "this test mounts: run the tests as root");
        let mut unshare = Command::new(needed("unshare"));
        unshare.args(["--mount", "sh", "-c", INIT, "sh", POLICY]);
        unshare.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut bus = Running(unshare.spawn().unwrap());
        let mut line = String::new();
        BufReader::new(bus.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("unix:path=/run/dbus/system_bus_socket"), "{line}");
        Self { sandbox, bus }
    }

    /// A command of the sandbox's user who sees this bus.
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let (uid, gid) = keyloan_e2e::sandbox::user().unwrap();
        let mut enter = Command::new(needed("nsenter"));
        enter.args([format!("--mount=/proc/{}/ns/mnt", self.bus.0.id()), "setpriv".to_owned()]);
        enter.args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned()]);
        enter.arg(program).args(arguments);
        let mut command = self.sandbox.prepared(enter).into_command();
        command.uid(0).gid(0);
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let done = self.command(program, arguments).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    fn unlock(&self) {
        let passphrase = self.sandbox.write("passphrase", PASSPHRASE).display().to_string();
        let line = format!("exec keyloan unlock --passphrase-fd 3 3<{passphrase}");
        self.run("sh", &["-c", &line]);
        assert!(!self.is_locked());
    }

    fn is_locked(&self) -> bool {
        self.sandbox.status()["vault"] == "locked"
    }

    fn double(&self, name: &str) -> Double {
        let uid = keyloan_e2e::sandbox::user().unwrap().0.to_string();
        let mut command = self.command("/usr/bin/python3", &["-c", DOUBLE, name, &uid]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Running(command.spawn().unwrap());
        let (to, from) = (process.0.stdin.take().unwrap(), process.0.stdout.take().unwrap());
        let mut double = Double { _process: process, to, from: BufReader::new(from), said: VecDeque::new() };
        assert_eq!(double.said(), "ready");
        double
    }
}

impl Double {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn said(&mut self) -> String {
        self.said.pop_front().unwrap_or_else(|| self.line())
    }

    /// Returns when the bus has it. What follows from it may be said before that.
    fn send(&mut self, line: &str) {
        writeln!(self.to, "{line}").unwrap();
        loop {
            match self.line() {
                sent if sent == "sent" => return,
                other => {
                    assert_ne!(other, "", "the double has ended");
                    self.said.push_back(other);
                }
            }
        }
    }
}

/// A vault whose daemon sees the bus of this test.
fn watched(sandbox: &Sandbox) -> (Bus<'_>, Double) {
    sandbox.stop();
    let bus = Bus::start(sandbox);
    let mut logind = bus.double("org.freedesktop.login1");
    bus.run(bin().join("keyloan").to_str().unwrap(), &["daemon", "start"]);
    bus.unlock();
    assert_eq!(logind.said(), "inhibit sleep keyloan locks the vault delay");
    (bus, logind)
}

#[test]
fn the_vault_is_locked_before_the_machine_sleeps() {
    let sandbox = Sandbox::with_vault();
    let (bus, mut logind) = watched(&sandbox);
    logind.send("all sleep yes");
    assert_eq!(logind.said(), "let go");
    assert!(bus.is_locked(), "sleep was held up until it was");
    assert_eq!(sandbox.events("locked").pop().unwrap()["why"], "the machine goes to sleep");
    logind.send("all sleep no");
    assert_eq!(logind.said(), "inhibit sleep keyloan locks the vault delay", "for the next time");
    bus.unlock();
    logind.send("all sleep yes");
    assert_eq!(logind.said(), "let go");
    assert!(bus.is_locked());
}

#[test]
fn the_vault_is_locked_with_a_session_of_the_user_and_with_no_others() {
    let sandbox = Sandbox::with_vault();
    let (bus, mut logind) = watched(&sandbox);
    // The second session is somebody else's; what follows is heard after it.
    logind.send("all lock 1");
    logind.send("all sleep no");
    assert_eq!(logind.said(), "inhibit sleep keyloan locks the vault delay");
    assert_eq!(logind.said(), "let go", "the lock before it");
    assert!(!bus.is_locked());
    logind.send("all lock 0");
    eventually("it locks", || bus.is_locked());
    assert_eq!(sandbox.events("locked").pop().unwrap()["why"], "the session was locked");
}

#[test]
fn what_another_program_says_in_loginds_words_is_not_heard() {
    let sandbox = Sandbox::with_vault();
    let (bus, mut logind) = watched(&sandbox);
    let mut stranger = bus.double("org.example.stranger");
    // To all, which the bus tells only who asked to hear it from this sender; and to each connection by itself.
    for to in ["all".to_owned()].into_iter().chain((0..20).map(|at| format!(":1.{at}"))) {
        stranger.send(&format!("{to} sleep yes"));
        stranger.send(&format!("{to} lock 0"));
    }
    logind.send("all sleep no");
    assert_eq!(logind.said(), "inhibit sleep keyloan locks the vault delay", "all before it was heard");
    assert!(!bus.is_locked());
    logind.send("all sleep yes");
    eventually("logind itself is heard", || bus.is_locked());
}

#[test]
fn without_logind_or_a_bus_nothing_happens_and_nobody_complains() {
    let sandbox = Sandbox::with_vault();
    sandbox.stop();
    let bus = Bus::start(&sandbox);
    bus.run(bin().join("keyloan").to_str().unwrap(), &["daemon", "start"]);
    bus.unlock();
    assert_eq!(sandbox.status()["warnings"], serde_json::json!([]));
    let mut bus = bus;
    bus.bus.end();
    assert!(!bus.is_locked());
    assert_eq!(sandbox.status()["warnings"], serde_json::json!([]));
}
