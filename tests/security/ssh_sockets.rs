//! Row 21: sockets that a program of the user hands to the daemon, stand-ins for an `ssh-agent`, and the lock of an
//! agent. OpenSSH's agent takes no sockets, so there is no victim for those.

use crate::ssh::both;
use keyloan_e2e::agent::{Client, FAILURE, SUCCESS, adding, document, framed, hex, locking};
use keyloan_e2e::programs::needed;
use keyloan_e2e::sshd::Ssh;
use keyloan_e2e::{Running, Sandbox, eventually, wire};
use keyloan_protocol::ssh_agent::message::{Request, SignFlags};
use keyloan_protocol::version;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::ChildStdout;

/// Hands sockets over, each as a line on standard input says, and tells what the daemon said of it.
const GIVER: &str = r"
import fcntl, os, socket, sys
control, frame, place = sys.argv[1], bytes.fromhex(sys.argv[2]), sys.argv[3]
kept = []
def listening(kind, name):
    s = socket.socket(socket.AF_UNIX, kind); s.bind(name); s.listen(); s.setblocking(False); return s
def made(what):
    name = f'{place}/{len(kept)}.sock'
    if what == 'stream': return listening(socket.SOCK_STREAM, name)
    if what == 'seqpacket': return listening(socket.SOCK_SEQPACKET, name)
    if what == 'pair':
        pair = socket.socketpair(); kept.append(pair[1]); return pair[0]
    if what == 'tcp':
        s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); return s
    if what == 'bound':
        s = socket.socket(socket.AF_UNIX); s.bind(name); return s
    return open(f'{place}/{what}')
for line in sys.stdin:
    line = line.strip()
    if line == 'steal':
        # Blocking for all who share it; what the daemon is told of is gone when it comes.
        victim = kept[-1]; name = victim.getsockname()
        flags = fcntl.fcntl(victim, fcntl.F_GETFL); fcntl.fcntl(victim, fcntl.F_SETFL, flags & ~os.O_NONBLOCK)
        thief = socket.socket(fileno=os.dup(victim.fileno()))
        thief.settimeout(None)
        import select, threading
        def steal():
            while True: thief.accept()
        threading.Thread(target=steal, daemon=True).start()
        for _ in range(500):
            with socket.socket(socket.AF_UNIX) as s: s.connect(name)
        print('stolen', flush=True)
        continue
    given = made(line); kept.append(given)
    c = socket.socket(socket.AF_UNIX); c.settimeout(30); c.connect(control)
    socket.send_fds(c, [frame], [given.fileno()])
    out = b''
    while True:
        piece = c.recv(65536)
        if not piece: break
        out += piece
    print(out[8:].decode(), flush=True)
";

struct Giver {
    child: Running,
    said: Lines<BufReader<ChildStdout>>,
}

impl Giver {
    fn of(sandbox: &Sandbox, name: &str) -> Self {
        let place = sandbox.make_directory(&format!("run/{name}")).display().to_string();
        sandbox.write(&format!("run/{name}/file"), "");
        let header =
            format!(r#"{{"version":{},"body":{{"ssh_serve":{{"lifetime":null}}}}}}"#, version::CONTROL);
        let frame = hex(&wire::frame(&header, b""));
        let control = sandbox.socket().display().to_string();
        let mut child = sandbox.command(needed("python3"), &["-c", GIVER, &control, &frame, &place]).start();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child: Running(child), said }
    }

    /// Gives a socket of a kind, and what the daemon says.
    fn gives(&mut self, what: &str) -> String {
        writeln!(self.child.0.stdin.as_mut().unwrap(), "{what}").unwrap();
        self.said.next().unwrap().unwrap()
    }
}

#[test]
fn what_is_no_listening_stream_socket_of_this_machine_is_not_served() {
    let sandbox = Sandbox::with_vault();
    let mut giver = Giver::of(&sandbox, "given");
    for what in ["pair", "tcp", "seqpacket", "bound", "file"] {
        let said = giver.gives(what);
        assert!(said.contains("the socket is none that listens"), "{what}: {said}");
    }
    assert!(giver.gives("stream").contains("the socket is served"));
    let socket = sandbox.path("run/given/6.sock").display().to_string();
    assert!(Client::connect(&sandbox, &socket).list().is_empty());
}

#[test]
fn a_handed_over_socket_that_is_made_to_block_holds_up_nobody() {
    let sandbox = Sandbox::with_vault();
    let (ssh, _agent, _) = both(&sandbox, &[]);
    let mut giver = Giver::of(&sandbox, "given");
    assert!(giver.gives("stream").contains("the socket is served"));
    for _ in 0..5 {
        assert_eq!(giver.gives("steal"), "stolen");
        assert_eq!(sandbox.status()["vault"], "unlocked");
        assert_eq!(ssh.agent().list().len(), 1);
    }
    // Others are served, and so is this one by whoever of the two accepts first.
    assert!(giver.gives("stream").contains("the socket is served"));
    let second = sandbox.path("run/given/1.sock").display().to_string();
    assert!(Client::connect(&sandbox, &second).list().is_empty());
    giver.child.end();
    for number in 0..2 {
        let socket = sandbox.path(&format!("run/given/{number}.sock")).display().to_string();
        let is_gone = || ssh.client_of(&socket, "ssh-add", &["-l"]).run().status == 2;
        eventually("nobody serves it", is_gone);
    }
}

#[test]
fn so_many_sockets_are_served_and_no_more() {
    let sandbox = Sandbox::with_vault();
    let (mut giver, mut another) = (Giver::of(&sandbox, "given"), Giver::of(&sandbox, "another"));
    for number in 0..64 {
        let said = giver.gives("stream");
        assert!(said.contains("the socket is served"), "{number}: {said}");
    }
    for giver in [&mut giver, &mut another] {
        let said = giver.gives("stream");
        assert!(said.contains("64 sockets are served already"), "{said}");
    }
    let last = sandbox.path("run/given/63.sock").display().to_string();
    assert!(Client::connect(&sandbox, &last).list().is_empty());
    giver.child.end();
    eventually("there is room again", || another.gives("stream").contains("the socket is served"));
}

/// `keyloan ssh agent`: its socket and pid.
fn stand_in(sandbox: &Sandbox) -> (String, Pid) {
    let printed = sandbox.keyloan(&["ssh", "agent", "-s"]).run().ok().text();
    let part = |name: &str| printed.split(name).nth(1).unwrap().split(';').next().unwrap().to_owned();
    (part("SSH_AUTH_SOCK="), Pid::from_raw(part("SSH_AGENT_PID=").parse().unwrap()))
}

/// A key of the name `gift` that is added there.
fn add_gift(ssh: &Ssh<'_>, socket: &str) {
    ssh.key("gift", &["ed25519"]);
    let add = adding(&ssh.private_fields("gift"), "gift");
    assert_eq!(Client::connect(ssh.sandbox, socket).ask(&add).as_deref(), Some(SUCCESS));
}

#[test]
fn with_the_process_of_a_stand_in_go_its_connections_and_its_keys() {
    let sandbox = Sandbox::with_vault();
    let (ssh, _agent, _) = both(&sandbox, &["ssh.login=allow", "ssh.signature=allow"]);
    let (socket, pid) = stand_in(&sandbox);
    add_gift(&ssh, &socket);
    let key = ssh.public_key("gift");
    let data = document("file", &[7; 64]);
    let mut client = Client::connect(&sandbox, &socket);
    assert!(client.sign(&key, &data, SignFlags::NONE).is_some());
    assert_eq!(sandbox.ssh_keys().len(), 2, "one of them at the daemon's own socket");
    kill(pid, Signal::SIGKILL).unwrap();
    eventually("its keys go", || sandbox.ssh_keys().len() == 1);
    assert!(client.sign(&key, &data, SignFlags::NONE).is_none());
    assert!(client.request(&Request::List).is_none());
    assert_eq!(ssh.agent().list().len(), 1);
}

#[test]
fn an_agent_that_is_locked_at_the_daemons_socket_is_locked_everywhere() {
    let sandbox = Sandbox::with_vault();
    let (ssh, _agent, _) = both(&sandbox, &["ssh.signature=allow"]);
    ssh.key("stored", &["ed25519"]);
    ssh.store("stored", &[]);
    let (socket, pid) = stand_in(&sandbox);
    let (second, other) = stand_in(&sandbox);
    add_gift(&ssh, &socket);
    let mut client = Client::connect(&sandbox, &socket);
    assert_eq!(client.list().len(), 2);
    assert_eq!(ssh.agent().ask(&locking(22, "word")).as_deref(), Some(SUCCESS));
    assert!(client.list().is_empty());
    for name in ["gift", "stored", "work"] {
        let data = document("file", &[7; 64]);
        assert!(client.sign(&ssh.public_key(name), &data, SignFlags::NONE).is_none());
    }
    // It is unlocked where it was locked.
    for number in [22, 23] {
        assert_eq!(client.ask(&locking(number, "word")).as_deref(), Some(FAILURE));
    }
    assert_eq!(ssh.agent().ask(&locking(23, "word")).as_deref(), Some(SUCCESS));
    assert_eq!(client.list().len(), 2);
    // And a stand-in's lock is its own.
    assert_eq!(client.ask(&locking(22, "word")).as_deref(), Some(SUCCESS));
    assert!(client.list().is_empty());
    assert_eq!(Client::connect(&sandbox, &second).list().len(), 1);
    assert_eq!(ssh.agent().list().len(), 2);
    for pid in [pid, other] {
        kill(pid, Signal::SIGTERM).unwrap();
    }
}

/// OpenSSH's agent sleeps after a wrong passphrase, and serves nobody meanwhile: there is nothing to get around.
#[test]
fn hanging_up_after_a_wrong_passphrase_is_no_way_around_the_wait() {
    let sandbox = Sandbox::with_vault();
    let (ssh, _agent, _) = both(&sandbox, &[]);
    let served = [(); 3].map(|()| stand_in(&sandbox));
    // One that fails as often as the daemon's own socket, and two that only wait for their turn.
    let [mut patient, mut second, mut third] =
        served.each_ref().map(|(socket, _)| Client::connect(&sandbox, socket));
    let mut own = ssh.agent();
    for client in [&mut patient, &mut second, &mut third, &mut own] {
        assert_eq!(client.ask(&locking(22, "word")).as_deref(), Some(SUCCESS));
    }
    for _ in 0..6 {
        for client in [&mut patient, &mut own] {
            assert_eq!(client.ask(&locking(23, "wrong")).as_deref(), Some(FAILURE));
        }
    }
    let wrong = || {
        let refused = sandbox.events("agent_refused");
        refused.iter().filter(|event| event["cause"].to_string().contains("passphrase")).count()
    };
    assert_eq!(wrong(), 12);
    // Passphrases are compared one at a time: when somebody else's that came later was, this one was too.
    let compared = |other: &mut Client| {
        other.list();
        assert_eq!(other.ask(&locking(23, "word")).as_deref(), Some(SUCCESS));
    };
    assert!(patient.send(&framed(&locking(23, "wrong"))));
    compared(&mut second);
    let mut hasty = ssh.agent();
    assert!(hasty.send(&framed(&locking(23, "wrong"))));
    compared(&mut third);
    drop(hasty);
    // The next one, even the right one, has to wait as long as the patient one, who began before.
    assert_eq!(ssh.agent().ask(&locking(23, "word")).as_deref(), Some(SUCCESS));
    assert_eq!(wrong(), 13, "the patient one was answered before");
    assert_eq!(patient.reply().as_deref(), Some(FAILURE));
    for (_, pid) in served {
        kill(pid, Signal::SIGTERM).unwrap();
    }
}
