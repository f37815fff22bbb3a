//! Row 7: a process that connects and ends, and whose pid is then that of a program with a good name. Within a pid
//! namespace of the attacker's the next pid can be said (`ns_last_pid`), so it need not be waited for; daemon and
//! victim are in there, too.

use keyloan_e2e::programs::needed;
use keyloan_e2e::{Sandbox, wire};

/// Starts a server, connects to it as a process that ends, gives the pid of that to another, and lets this one speak
/// over the same connection. Prints what comes back. `late` holds the server up until the connecting process is gone.
const REUSED: &str = r#"
import os, signal, socket, subprocess, sys, time
path, frame, other, late, *server = sys.argv[1:]
if os.path.exists(path): os.unlink(path)
serving = subprocess.Popen(server, stdout=subprocess.DEVNULL)
while True:
    t = socket.socket(socket.AF_UNIX)
    try: t.connect(path); break
    except OSError: t.close(); time.sleep(0.01)
t.close()
s = socket.socket(socket.AF_UNIX); s.settimeout(20); s.set_inheritable(True)
if late == "late": serving.send_signal(signal.SIGSTOP)
first = os.fork()
if first == 0: s.connect(path); os._exit(0)
if late != "late":
    # Connections are accepted in their order: when this one is answered, so is that one.
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
    t = socket.socket(socket.AF_UNIX); t.connect(path); t.sendall(bytes.fromhex(other)); assert t.recv(1); t.close()
os.waitpid(first, 0)
while True:
    with open("/proc/sys/kernel/ns_last_pid", "w") as last: last.write(str(first - 1))
    second = os.fork()
    if second == first: break
    if second == 0:
        if os.getpid() != first: os._exit(0)
        try: s.sendall(bytes.fromhex(frame))
        except OSError: pass
        os.execv("/usr/bin/sleep", ["sleep", "1000"])
    os.waitpid(second, 0)
# Not before it is the program of the good name.
while os.readlink(f"/proc/{first}/exe") != "/usr/bin/sleep": time.sleep(0.01)
if late == "late": serving.send_signal(signal.SIGCONT)
try: print(s.recv(65536).decode("latin1"))
except OSError as error: print()
os.kill(second, 9); serving.kill()
"#;

/// A server that looks who connected, as most do: by the pid.
const NAIVE: &str = r#"
import os, socket, struct, sys, threading, time
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()
def serve(c):
    pid = struct.unpack("3i", c.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    if not c.recv(4096): return
    time.sleep(0.5)
    try: c.sendall(b"the secret, for " + os.readlink(f"/proc/{pid}/exe").encode())
    except OSError: c.sendall(b"nothing, for nobody")
while True: threading.Thread(target=serve, args=(s.accept()[0],)).start()
"#;

fn reused(sandbox: &Sandbox, socket: &str, late: &str, server: &[&str]) -> String {
    let frame = data_encoding::HEXLOWER.encode(&wire::frame(r#"{"version":1,"body":"status"}"#, b""));
    let inside = ["-Uc", "--keep-caps", "-pf", "--mount-proc", "/usr/bin/python3", "-c", REUSED];
    let all = [&inside[..], &[socket, &frame, &frame, late], server].concat();
    sandbox.command(needed("unshare"), &all).run().ok().text()
}

#[test]
fn a_program_that_has_the_pid_of_whoever_connected_is_not_taken_for_it() {
    let sandbox = Sandbox::with_vault();
    let naive = sandbox.path("run/naive").display().to_string();
    let python = needed("python3").display().to_string();
    for late in ["soon", "late"] {
        let said = reused(&sandbox, &naive, late, &[&python, "-c", NAIVE, &naive]);
        assert_eq!(said, "the secret, for /usr/bin/sleep\n", "the victim takes it for what it is not");
    }
    sandbox.stop();
    let socket = sandbox.socket().display().to_string();
    let daemon = keyloan_e2e::programs::bin().join("keyloand").display().to_string();
    for late in ["soon", "late"] {
        let said = reused(&sandbox, &socket, late, &[&daemon, "run"]);
        // Either its end was noticed before anything was said, or what was said is another's.
        assert!(said.trim().is_empty() || said.contains("another process than the connection"), "{said}");
    }
    // What it would have been told.
    sandbox.unlock().ok();
    let status = wire::exchange(&sandbox, &wire::frame(r#"{"version":1,"body":"status"}"#, b""));
    assert!(String::from_utf8_lossy(&status).contains("daemon_version"));
}
