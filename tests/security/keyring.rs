//! A keyring that is not one: whoever has the user's session bus, or the name on it, answers what it likes. Both are
//! doubles.

use keyloan_e2e::keyring::Keyring;
use keyloan_e2e::programs::needed;
use keyloan_e2e::{Running, Sandbox, approver, eventually};
use std::process::Stdio;

/// What listens where the session bus should be. It says a line to whoever connects, and then bytes without end.
const BUS: &str = r#"
import os, socket, sys, threading
first, rest = (bytes(word, "latin-1").decode("unicode_escape").encode("latin-1") for word in sys.argv[2:4])
listening = socket.socket(socket.AF_UNIX)
listening.bind(sys.argv[1]); listening.listen()
def serve(other):
    try:
        if first.startswith(b"OK"): other.recv(1000)
        other.sendall(first)
        while rest: other.sendall(rest * 1000)
        other.recv(1000); other.recv(1000)
    except OSError: pass
while True: threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()
"#;

/// What has the keyring's name on a real bus. 33 bytes never decrypt; 32 would once in 256 runs, by chance.
const SERVICE: &str = r#"
import os, sys
from gi.repository import Gio, GLib
mode, ROOT, SECRETS = sys.argv[2], "/org/freedesktop/secrets", "org.freedesktop.Secret."
bus = Gio.DBusConnection.new_for_address_sync(sys.argv[1], Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT
    | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION)
item, session = ROOT + "/collection/x/1", ROOT + "/session/s"
secret = "(o%s)" % session
ANSWERS = {
    "ReadAlias": ("(o)", (ROOT + "/collection/x",)),
    "Get": ("(v)", (GLib.Variant("b", False),)),
    "SearchItems": ("(ao)", ([item],)),
    "GetAll": ("(a{sv})", ({"Label": GLib.Variant("s", "x"), "Attributes": GLib.Variant("a{ss}", {"n": "x"})},)),
    "OpenSession": ("(vo)", (GLib.Variant("ay", [1] if mode == "key" else [2]), session)),
    "GetSecrets": ("(a{o(oayays)})", ({} if mode == "nothing" else
        {item: (session, b"iv" if mode == "vector" else b"v" * 16, b"c" * 33, "text/plain")},)),
}
def answered(connection, message, incoming):
    if not incoming or message.get_message_type() != Gio.DBusMessageType.METHOD_CALL: return message
    member = message.get_member()
    if mode == "error": reply = message.new_method_error_literal("org.example.Odd", "s3cret-of-the-service")
    else:
        if mode == "dies" and member == "GetSecrets": os._exit(0)
        reply = message.new_method_reply()
        types, values = ("(u)", (7,)) if mode == "types" else ANSWERS[member]
        reply.set_body(GLib.Variant(types, values))
    connection.send_message(reply, Gio.DBusSendMessageFlags.NONE)
bus.add_filter(answered)
Gio.bus_own_name_on_connection(bus, "org.freedesktop.secrets", 0, lambda *_: print("ready", flush=True), None)
GLib.MainLoop().run()
"#;

#[test]
fn a_false_keyring_neither_ends_the_daemon_nor_speaks_in_its_messages() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let mut keyring = Keyring::open(&sandbox);
    keyring.link(&[]).ok();
    keyring.end();
    let daemon = sandbox.daemon();
    for (mode, said) in [
        ("types", "what it answers makes no sense"),
        ("key", "what it answers makes no sense"),
        ("vector", "a value does not decrypt"),
        ("value", "a value does not decrypt"),
        ("nothing", "is not given out"),
        ("dies", "it ended while it was asked"),
        ("error", "it answers with an error"),
    ] {
        let double = sandbox.command(needed("python3"), &["-c", SERVICE, &keyring.address(), mode]);
        let _service = Running(keyloan_e2e::desktop::started(double).0);
        let refused = sandbox.keyloan(&["item", "get", "keyring://?n=x/password"]).run();
        let refused = refused.refused(7, said);
        assert!(!refused.stderr.contains("s3cret-of-the-service"), "{}", refused.stderr);
    }
    assert_eq!(sandbox.daemon(), daemon);
    assert!(!std::fs::read_to_string(sandbox.log()).unwrap().contains("s3cret-of-the-service"));
}

#[test]
fn whatever_listens_in_the_place_of_the_session_bus_does_not_end_the_daemon() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let mut keyring = Keyring::open(&sandbox);
    keyring.link(&[]).ok();
    keyring.end();
    keyring.end_bus();
    let daemon = sandbox.daemon();
    let guid = r"OK 0123456789abcdef0123456789abcdef\r\n";
    let no_bus = "is no session bus";
    for (first, rest, said) in [
        // The panic of zbus that the daemon goes around.
        (r"\n", "", no_bus),
        (r"\r\n", "", no_bus),
        (r"OK\r\n", "", no_bus),
        (r"OK x\r\n", "", no_bus),
        (r"OK \xff\r\n", "", no_bus),
        ("", "A", no_bus),
        (guid, r"\n", no_bus),
        (guid, r"\x00", no_bus),
        // Messages of 4 GiB and of 100 MiB, and answers to nothing.
        (guid, r"l\x02\x00\x01\xff\xff\xff\xff\x01\x00\x00\x00\xff\xff\xff\xff", no_bus),
        (guid, r"l\x02\x00\x01\x00\x00\x40\x06\x01\x00\x00\x00\x00\x00\x00\x00", no_bus),
        (guid, r"l\x02\x00\x01\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00", ""),
    ] {
        let _ = std::fs::remove_file(keyring.socket());
        let socket = keyring.socket();
        let arguments = ["-c", BUS, socket.to_str().unwrap(), first, rest];
        let mut command = sandbox.command(needed("python3"), &arguments).into_command();
        let _bus = Running(command.stdin(Stdio::null()).spawn().unwrap());
        eventually("the double listens", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
        let refused = sandbox.keyloan(&["item", "get", "keyring://x/password"]).run();
        refused.refused(7, said);
        assert_eq!(sandbox.daemon(), daemon, "{first} {rest}");
    }
}
