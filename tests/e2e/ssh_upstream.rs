//! Other agents behind keyloan's: OpenSSH's here. Their keys are offered with keyloan's, behind the same questions.

use keyloan_e2e::agent::hex;
use keyloan_e2e::sshd::{Server, Ssh};
use keyloan_e2e::{Running, Sandbox, eventually};
use keyloan_protocol::ssh_agent::message::{Identity, Reply};

const HOST: &str = "git.example.org";

/// OpenSSH's agent with the key `behind`, behind keyloan's with the key `work` in the vault.
fn one_behind<'a>(sandbox: &'a Sandbox, policy: &[&str]) -> (Ssh<'a>, Running, String) {
    let ssh = Ssh::of(sandbox);
    let (agent, plain) = ssh.plain_agent();
    let upstream = format!("ssh.upstream={plain}");
    ssh.answered_by(keyloan_e2e::approver::keeping(&ssh.kept()), &[&[upstream.as_str()], policy].concat());
    ssh.key("work", &["ed25519"]);
    ssh.store("work", &[]);
    let key = ssh.key("behind", &["ecdsa"]);
    ssh.client_of(&plain, "ssh-add", &["-q", &key]).run().ok();
    (ssh, agent, plain)
}

fn listed(ssh: &Ssh<'_>) -> Vec<String> {
    let text = ssh.add(&["-L"]).text();
    text.lines().filter_map(|line| line.split(' ').nth(2)).map(str::to_owned).collect()
}

fn admits(ssh: &Ssh<'_>, name: &str) -> Server {
    ssh.server(name, &[ssh.public("behind")])
}

#[test]
fn keys_behind_are_listed_last_and_each_login_is_asked() {
    let sandbox = Sandbox::with_vault();
    let (ssh, _agent, plain) = one_behind(&sandbox, &[]);
    assert_eq!(listed(&ssh), ["work", "behind"]);
    // What is in both is listed once.
    ssh.add(&["-q", &ssh.path("behind").display().to_string()]).ok();
    assert_eq!(listed(&ssh), ["work", "behind"]);
    ssh.add(&["-D"]).ok();
    assert_eq!(listed(&ssh), ["work", "behind"]);
    let server = admits(&ssh, HOST);
    ssh.ssh(&[HOST, "true"]).ok();
    let [question] = &ssh.questions()[..] else { panic!("{:?}", ssh.questions()) };
    assert!(question.line("to").unwrap().0.ends_with(&format!("@{HOST}")));
    question.says("key", &format!("of the agent at {plain}"), "claimed");
    question.says("key is", &format!("ecdsa-sha2-nistp256 {}", ssh.fingerprint("behind")), "verified");
    assert_eq!((server.accepted(), sandbox.events("signed").len()), (1, 1));
    sandbox.policy("ssh.login=deny");
    ssh.ssh(&[HOST, "true"]).refused(255, "Permission denied");
    sandbox.policy("ssh.login=allow");
    ssh.ssh(&[HOST, "true"]).ok();
    assert_eq!((server.accepted(), ssh.questions().len()), (2, 1));
    // Only keyloan's own are locked by it; behind it nothing is added.
    let theirs = ssh.client_of(&plain, "ssh-add", &["-L"]).run().ok().text();
    assert_eq!(theirs.lines().count(), 1);
}

#[test]
fn what_is_signed_behind_is_understood_first() {
    let sandbox = Sandbox::with_vault();
    let (ssh, _agent, plain) = one_behind(&sandbox, &["ssh.signature=allow"]);
    let public = format!("{}.pub", ssh.path("behind").display());
    ssh.client_of(&plain, "ssh-add", &["-T", &public]).run().ok();
    ssh.add(&["-T", &public]).refused(1, "Agent signature failed");
    std::fs::remove_file(ssh.path("behind")).unwrap();
    let sign = ssh.client("ssh-keygen", &["-q", "-Y", "sign", "-f", &public, "-n", "file"]).stdin("text");
    assert!(sign.run().ok().text().contains("BEGIN SSH SIGNATURE"));
    assert!(ssh.questions().is_empty());
}

#[test]
fn a_key_for_destinations_behind_goes_where_it_would_go_without_keyloan() {
    let sandbox = Sandbox::with_vault();
    let (ssh, _agent, plain) = one_behind(&sandbox, &["ssh.login=allow"]);
    let [hop, inner, third] = ["hop.example.org", "inner.example.org", "third.example.org"];
    ssh.key("door", &["ed25519"]);
    let both = [ssh.public("door"), ssh.public("behind")];
    let _servers = [ssh.server(hop, &both), admits(&ssh, inner), admits(&ssh, third)];
    let (hosts, key) = (ssh.known_hosts().display().to_string(), ssh.path("behind").display().to_string());
    let onward = format!("{hop}>{inner}");
    let add = ["-q", "-H", &hosts, "-h", hop, "-h", &onward, &key];
    ssh.client_of(&plain, "ssh-add", &add).run().ok();
    let door = format!("-oIdentityFile={}", ssh.path("door").display());
    let by_door = ["-oIdentitiesOnly=yes", &door, "-A", hop];
    let inside = |host: &str| format!("ssh -F {} {host} true", ssh.path("config").display());
    let reaches = |socket: &str| {
        let logs_in = |arguments: &[&str]| ssh.client_of(socket, "ssh", arguments).run().status == 0;
        [
            logs_in(&[hop, "true"]),
            logs_in(&[inner, "true"]),
            logs_in(&[third, "true"]),
            logs_in(&[&by_door[..], &[&inside(inner)]].concat()),
            logs_in(&[&by_door[..], &[&inside(third)]].concat()),
            logs_in(&[&by_door[..], &[&inside(hop)]].concat()),
        ]
    };
    let expected = [true, false, false, true, false, false];
    assert_eq!(reaches(&plain), expected);
    assert_eq!(reaches(&ssh.socket()), expected);
    let asked = ssh.questions();
    assert!(asked.len() == 1 && asked[0].line("forwarded").is_some(), "{asked:?}");
}

#[test]
fn an_agent_behind_that_is_gone_silent_or_keyloan_itself_hides_no_other_key() {
    let sandbox = Sandbox::with_vault();
    let (ssh, mut agent, plain) = one_behind(&sandbox, &["ssh.login=allow"]);
    let server = admits(&ssh, HOST);
    agent.end();
    assert_eq!(listed(&ssh), ["work"]);
    ssh.ssh(&[HOST, "true"]).refused(255, "Permission denied");
    let (_again, _) = ssh.plain_agent_at(&plain);
    ssh.client_of(&plain, "ssh-add", &["-q", &ssh.path("behind").display().to_string()]).run().ok();
    assert_eq!(listed(&ssh), ["work", "behind"]);
    ssh.ssh(&[HOST, "true"]).ok();
    assert_eq!(server.accepted(), 1);
    // One that takes connections and never answers, one that answers nonsense, one that lists a key and goes.
    let double = "import socket,sys\n\
        s=socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); held=[]\n\
        while True:\n\x20c,_=s.accept(); held.append(c)\n\x20if sys.argv[2]: c.recv(4096); c.sendall(bytes.fromhex(sys.argv[2]))\n";
    let mut doubles = Vec::new();
    let mut paths = vec![ssh.socket(), sandbox.path("run/nobody").display().to_string()];
    for (at, reply) in
        ["", "ffffffff00", "000000060c7fffffff00", "00000000", "0000000105"].into_iter().enumerate()
    {
        let path = sandbox.path(&format!("run/double-{at}")).display().to_string();
        let program = sandbox.command("/usr/bin/python3", &["-c", double, &path, reply]);
        doubles.push(Running(program.start()));
        eventually("the double listens", || std::path::Path::new(&path).exists());
        paths.push(path);
    }
    paths.push(plain);
    sandbox.policy(&format!("ssh.upstream={}", paths.join(",")));
    assert_eq!(listed(&ssh), ["work", "behind"]);
    ssh.ssh(&[HOST, "true"]).ok();
    assert_eq!(server.accepted(), 2);
    assert_eq!(sandbox.status()["vault"], "unlocked");
}

#[test]
fn people_are_shown_the_keys_behind_and_that_they_are_another_agents() {
    let sandbox = Sandbox::with_vault();
    let (ssh, mut agent, _) = one_behind(&sandbox, &[]);
    let is_listed = || {
        let lines = sandbox.keyloan(&["ssh", "list"]).run().ok().text();
        let [work, behind] = ["work", "behind"].map(|name| ssh.fingerprint(name));
        let expected = [
            format!("work  ssh-ed25519 256 {work} work"),
            format!("(another agent's)  ecdsa-sha2-nistp256 256 {behind} behind"),
        ];
        assert_eq!(lines.lines().collect::<Vec<_>>(), expected);
        let keys = sandbox.ssh_keys();
        let sources: Vec<_> = keys.iter().map(|key| key["from"].as_str().unwrap()).collect();
        assert_eq!(sources, ["vault", "upstream"]);
        assert_eq!(
            (&keys[1]["item"], keys[1]["public"].as_str().unwrap()),
            (&serde_json::Value::Null, &*ssh.public("behind"))
        );
    };
    is_listed();
    sandbox.keyloan(&["lock"]).run().ok();
    is_listed();
    agent.end();
    assert_eq!(sandbox.ssh_keys().len(), 1, "one that is gone holds none");
}

/// Two agents, each of which lists its one key when the other was asked, too.
const TWINS: &str = r"
import socket, sys
asked = []
for path in sys.argv[1:3]:
    s = socket.socket(socket.AF_UNIX); s.bind(path); s.listen(); asked.append(s)
while True:
    clients = [s.accept()[0] for s in asked]
    for c in clients: c.recv(5, socket.MSG_WAITALL)
    for c, reply in zip(clients, sys.argv[3:5]): c.sendall(bytes.fromhex(reply))
    held = clients
";

#[test]
fn agents_behind_are_asked_at_once_and_listed_in_their_order() {
    let sandbox = Sandbox::with_vault();
    let (ssh, _agent, plain) = one_behind(&sandbox, &[]);
    let paths = ["first", "second"].map(|name| sandbox.path(&format!("run/{name}")).display().to_string());
    let replies = ["first", "second"].map(|name| {
        ssh.key(name, &["ed25519"]);
        let identity = Identity { blob: ssh.public_blob(name), comment: name.as_bytes().to_vec() };
        hex(&Reply::Identities(vec![identity]).encode().unwrap())
    });
    let arguments = ["-c", TWINS, &paths[0], &paths[1], &replies[0], &replies[1]];
    let _twins = Running(sandbox.command("/usr/bin/python3", &arguments).start());
    eventually("they listen", || paths.iter().all(|path| std::path::Path::new(path).exists()));
    sandbox.policy(&format!("ssh.upstream={},{plain},{}", paths[1], paths[0]));
    for _ in 0..3 {
        assert_eq!(listed(&ssh), ["work", "second", "behind", "first"]);
    }
}

#[test]
fn keys_behind_are_listed_and_wait_while_the_vault_is_locked() {
    let sandbox = Sandbox::with_vault();
    let (ssh, _agent, _) = one_behind(&sandbox, &["ssh.login=allow"]);
    let server = admits(&ssh, HOST);
    sandbox.keyloan(&["lock"]).run().ok();
    assert_eq!(listed(&ssh), ["work", "behind"]);
    let waiting = ssh.client("ssh", &[HOST, "true"]).start();
    eventually("the client wants its signature", || server.log().contains("Postponed publickey"));
    assert_eq!(server.accepted(), 0);
    sandbox.unlock().ok();
    keyloan_e2e::sandbox::finished(waiting).ok();
    assert_eq!(server.accepted(), 1);
}
