//! Row 21: what happens while somebody is asked counts when the answer comes. OpenSSH's agent is no victim for most of
//! this: while it asks (`ssh-add -c`) it does nothing else, so nothing happens meanwhile.

use crate::ssh::{HERE, both};
use keyloan_e2e::agent::{Client, FAILURE, Host, SUCCESS, adding, encoded, framed, hex, locking, login};
use keyloan_e2e::programs::needed;
use keyloan_e2e::sshd::Ssh;
use keyloan_e2e::{Running, Sandbox, approver, eventually};
use keyloan_protocol::ssh_agent::key::PublicKey;
use keyloan_protocol::ssh_agent::session_bind::SessionBind;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

/// The agents of `both`, keyloan's with an approver that allows once the file is there, and a session with a host that
/// has a name.
struct Asking<'a> {
    ssh: Ssh<'a>,
    key: PublicKey,
    bind: SessionBind,
    go: PathBuf,
    plain: String,
    _agent: Running,
}

fn asking(sandbox: &Sandbox) -> Asking<'_> {
    let (ssh, agent, [plain, _]) = both(sandbox, &[]);
    let bind = Host::new(&ssh, &plain, "host").session(HERE, false);
    ssh.append("home/.ssh/known_hosts", &format!("git.example.org {}\n", ssh.public("host")));
    let go = sandbox.path("run/go");
    ssh.answered_by(approver::patient(&go), &[]);
    let key = ssh.public_key("work");
    Asking { ssh, key, bind, go, plain, _agent: agent }
}

impl Asking<'_> {
    fn sandbox(&self) -> &Sandbox {
        self.ssh.sandbox
    }

    fn pending(&self) -> u64 {
        self.sandbox().status()["pending"].as_u64().unwrap()
    }

    fn login(&self) -> Vec<u8> {
        login(HERE, "git", &self.key, Some(&self.bind.host_key))
    }

    /// Asks for a login, does something while the question stands, says yes, and gives the reply.
    fn reply_after(&self, meanwhile: impl FnOnce()) -> Vec<u8> {
        let _ = std::fs::remove_file(&self.go);
        let mut client = self.ssh.agent();
        assert!(client.bind(&self.bind));
        client.ask_to_sign(&self.key, &self.login());
        eventually("the question stands", || self.pending() == 1);
        meanwhile();
        assert_eq!(self.pending(), 1, "the question stands still");
        std::fs::write(&self.go, "").unwrap();
        client.reply().unwrap()
    }

    /// A question ends with the vault, before anybody says yes.
    #[track_caller]
    fn ends_with_the_vault(&self) {
        let _ = std::fs::remove_file(&self.go);
        let signed = self.sandbox().events("signed").len();
        let mut client = self.ssh.agent();
        assert!(client.bind(&self.bind));
        client.ask_to_sign(&self.key, &self.login());
        eventually("the question stands", || self.pending() == 1);
        self.sandbox().keyloan(&["lock"]).run().ok();
        assert_eq!(client.reply().unwrap(), FAILURE);
        assert_eq!((self.pending(), self.sandbox().events("signed").len()), (0, signed));
        let decided = self.sandbox().events("decided").pop().unwrap();
        assert_eq!(decided["decision"], "declined");
        assert!(decided["approver"].as_str().unwrap().contains("was locked"), "{decided}");
        self.sandbox().unlock().ok();
    }

    /// The same; no signature may come of it, and the log says so.
    #[track_caller]
    fn comes_to_nothing(&self, what: &str, meanwhile: impl FnOnce()) {
        let count = |kind: &str| self.sandbox().events(kind).len();
        let (signed, failed) = (count("signed"), count("failed"));
        assert_eq!(self.reply_after(meanwhile), FAILURE, "{what}");
        assert_eq!((count("signed"), count("failed")), (signed, failed + 1), "{what}");
        let decided = self.sandbox().events("decided").pop().unwrap();
        assert_eq!(decided["decision"], "approved", "{what}");
    }
}

#[test]
fn what_is_taken_away_while_somebody_is_asked_does_not_sign_after_the_yes() {
    let sandbox = Sandbox::with_vault();
    let asking = asking(&sandbox);
    let ssh = &asking.ssh;
    let file = ssh.path("work").display().to_string();
    let add = |flags: &[&str]| drop(ssh.add(&[flags, &["-q", &file]].concat()).ok());
    // The key is there, and the yes is one.
    assert_eq!(asking.reply_after(|| {})[0], 14);
    asking.comes_to_nothing("ssh-add -D", || drop(ssh.add(&["-D"]).ok()));
    add(&[]);
    asking.comes_to_nothing("ssh-add -d", || drop(ssh.add(&["-d", &file]).ok()));
    add(&[]);
    asking.comes_to_nothing("SIGUSR1", || {
        kill(Pid::from_raw(sandbox.daemon().unwrap()), Signal::SIGUSR1).unwrap();
        eventually("the key goes", || ssh.agent().list().is_empty());
    });
    add(&["-t", "2"]);
    asking.comes_to_nothing("ssh-add -t", || {
        eventually("its time is over", || ssh.agent().list().is_empty());
    });
    add(&[]);
    asking.comes_to_nothing("removed and added again", || {
        ssh.add(&["-d", &file]).ok();
        // The yes was to the other one: this one may be for other destinations, say.
        let add = adding(&ssh.private_fields("work"), "another");
        assert_eq!(ssh.agent().ask(&add).as_deref(), Some(SUCCESS));
    });
    asking.ends_with_the_vault();
    asking.comes_to_nothing("ssh-add -x", || {
        ssh.agent().ask(&locking(22, "word")).unwrap();
        assert!(ssh.agent().list().is_empty());
    });
    ssh.agent().ask(&locking(23, "word")).unwrap();
    assert_eq!(asking.reply_after(|| {})[0], 14);
}

#[test]
fn what_is_taken_from_the_vault_while_somebody_is_asked_does_not_sign_after_the_yes() {
    let sandbox = Sandbox::with_vault();
    let asking = asking(&sandbox);
    let ssh = &asking.ssh;
    ssh.add(&["-D"]).ok();
    sandbox.policy("item.write=allow");
    ssh.store("work", &[]);
    assert_eq!(asking.reply_after(|| {})[0], 14);
    asking.ends_with_the_vault();
    asking.comes_to_nothing("for another host", || {
        let set = sandbox.keyloan(&["item", "set", "--public", "work", "hosts"]);
        set.stdin("elsewhere.example.org").run().ok();
    });
    sandbox.keyloan(&["item", "rm", "work", "hosts"]).run().ok();
    assert_eq!(asking.reply_after(|| {})[0], 14);
    asking.comes_to_nothing("renamed", || {
        sandbox.keyloan(&["item", "mv", "work", "other"]).run().ok();
    });
    asking.comes_to_nothing("removed", || drop(sandbox.keyloan(&["item", "rm", "other"]).run().ok()));
}

#[test]
fn a_key_is_not_added_to_an_agent_that_was_locked_while_somebody_was_asked() {
    let sandbox = Sandbox::with_vault();
    let asking = asking(&sandbox);
    let ssh = &asking.ssh;
    ssh.answered_by(approver::patient(&asking.go), &["key.add=ask"]);
    ssh.add(&["-D"]).ok();
    let add = framed(&adding(&ssh.private_fields("work"), "work"));
    let reply_after = |meanwhile: &dyn Fn()| {
        let _ = std::fs::remove_file(&asking.go);
        let mut client = ssh.agent();
        assert!(client.send(&add));
        eventually("the question stands", || asking.pending() == 1);
        meanwhile();
        std::fs::write(&asking.go, "").unwrap();
        client.reply().unwrap()
    };
    assert_eq!(reply_after(&|| drop(sandbox.keyloan(&["lock"]).run().ok())), FAILURE);
    sandbox.unlock().ok();
    assert_eq!(reply_after(&|| drop(ssh.agent().ask(&locking(22, "word")))), FAILURE);
    ssh.agent().ask(&locking(23, "word")).unwrap();
    assert!(ssh.agent().list().is_empty());
    // The question of the other one ended with the vault.
    assert_eq!(sandbox.events("failed").len(), 1);
    assert_eq!(reply_after(&|| {}), SUCCESS);
}

/// Connects, leaves the socket to a child, and asks; the child says what came once its parent is gone.
const LEAVES: &str = r"
import os, socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
asking = os.getpid()
if os.fork() == 0:
    while os.getppid() == asking: pass
    s.settimeout(30)
    try: print(s.recv(4096).hex() or 'closed', flush=True)
    except TimeoutError: print('silence', flush=True)
    except OSError: print('closed', flush=True)
    os._exit(0)
s.sendall(bytes.fromhex(sys.argv[2]))
print('asked', flush=True)
sys.stdin.read()
";

#[test]
fn whoever_holds_the_socket_of_a_client_that_has_ended_gets_no_signature() {
    let sandbox = Sandbox::with_vault();
    let asking = asking(&sandbox);
    let message = encoded(|out| {
        out.u8(13);
        out.string(asking.key.blob());
        out.string(&login(HERE, "git", &asking.key, None));
        out.u32(0);
    });
    let message = hex(&framed(&message));
    let inherited = |socket: &str, wait: &dyn Fn()| {
        let mut client =
            Running(sandbox.command(needed("python3"), &["-c", LEAVES, socket, &message]).start());
        let mut out = BufReader::new(client.0.stdout.take().unwrap()).lines();
        assert_eq!(out.next().unwrap().unwrap(), "asked");
        wait();
        client.end();
        out.next().unwrap().unwrap()
    };
    let victim = inherited(&asking.plain, &|| {});
    assert_eq!(victim.get(8..10), Some("0e"), "the signature comes to another than who asked: {victim}");
    let closed = inherited(&asking.ssh.socket(), &|| {
        eventually("the question stands", || asking.pending() == 1);
    });
    assert_eq!(closed, "closed");
    eventually("the question is gone", || asking.pending() == 0);
    let decided = sandbox.events("decided").pop().unwrap();
    assert_eq!(decided["approver"], "the requester went away");
    std::fs::write(&asking.go, "").unwrap();
    assert!(sandbox.events("signed").is_empty());
}

#[test]
fn a_client_that_sends_more_than_it_may_while_it_asks_is_gone_with_its_question() {
    let sandbox = Sandbox::with_vault();
    let asking = asking(&sandbox);
    let lists = |count: usize| [0, 0, 0, 1, 11].repeat(count);
    // Some requests ahead are served when the question is answered.
    let mut client = asking.ssh.agent();
    client.ask_to_sign(&asking.key, &asking.login());
    eventually("the question stands", || asking.pending() == 1);
    assert!(client.send(&lists(50_000)));
    assert_eq!(asking.pending(), 1);
    std::fs::write(&asking.go, "").unwrap();
    assert_eq!(client.reply().unwrap()[0], 14);
    assert_eq!(client.reply().unwrap()[0], 12);
    drop(client);
    std::fs::remove_file(&asking.go).unwrap();
    let mut client = asking.ssh.agent();
    client.ask_to_sign(&asking.key, &asking.login());
    eventually("the question stands", || asking.pending() == 1);
    let taken = client.send(&lists(120_000));
    eventually("the question is gone", || asking.pending() == 0);
    assert!(!taken || client.reply().is_none());
    assert_eq!(sandbox.events("signed").len(), 1);
    let mut another = Client::connect(&sandbox, &asking.ssh.socket());
    assert_eq!(another.list().len(), 1);
}
