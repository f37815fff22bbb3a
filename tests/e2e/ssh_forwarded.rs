//! Agents that are forwarded by `ssh -A`, keys for certain hosts and destinations. Where OpenSSH's agent has the
//! same, it does the same.

use keyloan_e2e::Sandbox;
use keyloan_e2e::sshd::{Server, Ssh};

const HOP: &str = "hop.example.org";
const INNER: &str = "inner.example.org";

/// Two servers that admit the key `work`.
fn two_servers(ssh: &Ssh<'_>) -> (Server, Server) {
    ssh.key("work", &["ed25519"]);
    (ssh.server(HOP, &[ssh.public("work")]), ssh.server(INNER, &[ssh.public("work")]))
}

/// `ssh -F config HOST` as it is typed on the hop.
fn there(ssh: &Ssh<'_>, words: &str) -> String {
    format!("ssh -F {} {words}", ssh.path("config").display())
}

#[test]
fn what_another_host_forwards_is_asked_even_where_a_rule_allows_logins() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &["ssh.login=allow", "ssh.signature=allow"]);
    let (_hop, inner) = two_servers(&ssh);
    ssh.store("work", &[]);
    assert!(ssh.questions().is_empty());
    let line = there(&ssh, &format!("{INNER} echo in"));
    assert_eq!(ssh.ssh(&["-A", HOP, &line]).ok().text(), "in\n");
    let [question] = &ssh.questions()[..] else { panic!("{:?}", ssh.questions()) };
    assert!(question.line("to").unwrap().0.ends_with(&format!("@{INNER}")), "{question:?}");
    question.says(
        "host key",
        &format!("ssh-ed25519 {}", ssh.fingerprint(&format!("host-{INNER}"))),
        "verified",
    );
    question.says("forwarded", &format!("from {HOP}, and so asked for by anybody there"), "known_hosts");
    question.says(
        "from key",
        &format!("ssh-ed25519 {}", ssh.fingerprint(&format!("host-{HOP}"))),
        "verified",
    );
    let decided = sandbox.events("decided").pop().unwrap();
    assert_eq!(decided["rule"], "what another host forwards is always asked");
    assert_eq!(inner.accepted(), 1);
    // Files too.
    sandbox.write("project/file", "text");
    let sign = format!(
        "ssh-keygen -q -Y sign -f {} -n file {}",
        ssh.path("work.pub").display(),
        sandbox.path("project/file").display()
    );
    ssh.ssh(&["-A", HOP, &sign]).ok();
    let question = ssh.questions().pop().unwrap();
    assert_eq!((question.title(), ssh.questions().len()), ("sign a file with an ssh key", 2));
    question.says("forwarded", &format!("from {HOP}, and so asked for by anybody there"), "known_hosts");
    // At home the same rule still decides.
    std::fs::remove_file(sandbox.path("project/file.sig")).unwrap();
    ssh.client("sh", &["-c", &sign]).run().ok();
    assert_eq!(ssh.questions().len(), 2);
}

#[test]
fn every_hop_of_a_long_way_is_named() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &["ssh.login=allow"]);
    let (_hop, _inner) = two_servers(&ssh);
    let last = ssh.server("last.example.org", &[ssh.public("work")]);
    ssh.store("work", &[]);
    let second = there(&ssh, "last.example.org true");
    ssh.ssh(&["-A", HOP, &there(&ssh, &format!("-A {INNER} {second}"))]).ok();
    let asked = ssh.questions();
    assert_eq!((asked.len(), last.accepted()), (2, 1));
    let lines = asked[1].0["lines"].as_array().unwrap();
    let forwarded: Vec<_> = lines.iter().filter(|line| line["label"] == "forwarded").collect();
    assert_eq!(forwarded.len(), 2, "{lines:?}");
    assert!(forwarded[0]["text"].as_str().unwrap().starts_with(&format!("from {HOP}")));
    assert!(forwarded[1]["text"].as_str().unwrap().starts_with(&format!("from {INNER}")));
}

#[test]
fn a_key_for_a_host_comes_first_there_and_is_shown_to_no_other() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &["ssh.login=allow"]);
    for name in ["a", "b", "c", "d", "e", "other", "zz"] {
        ssh.key(name, &["ed25519"]);
    }
    for name in ["a", "b", "c", "d", "e"] {
        ssh.store(name, &[]);
    }
    ssh.store("other", &[("hosts", "elsewhere.example.org")]);
    ssh.store("zz", &[("hosts", "*.example.net strict.example.org")]);
    let strict = |name: &str| {
        ssh.key(&format!("host-{name}"), &["ed25519"]);
        let line = format!("{name} {}\n", ssh.public(&format!("host-{name}")));
        ssh.append("home/.ssh/known_hosts", &line);
        ssh.server_with(name, &[ssh.public("zz")], "MaxAuthTries 3")
    };
    let (server, another) = (strict("strict.example.org"), strict("another.example.org"));
    let (_agent, plain) = ssh.plain_agent();
    for name in ["a", "b", "c", "d", "e", "other", "zz"] {
        let key = ssh.path(name).display().to_string();
        ssh.client_of(&plain, "ssh-add", &["-q", &key]).run().ok();
    }
    let refused = ssh.client_of(&plain, "ssh", &[&server.name, "true"]).run();
    refused.refused(255, "Too many authentication failures");
    ssh.ssh(&[&server.name, "true"]).ok();
    assert_eq!((server.accepted(), ssh.questions().len()), (1, 0));
    assert!(!server.log().contains(&ssh.fingerprint("other")));
    // Another host learns nothing of it. Its five other keys are too many there.
    let tried = ssh.ssh(&["-oLogLevel=DEBUG1", &another.name, "true"]);
    assert_eq!((tried.status, another.accepted()), (255, 0));
    assert!(tried.stderr.contains(&ssh.fingerprint("a")), "{}", tried.stderr);
    assert!(!tried.stderr.contains(&ssh.fingerprint("zz")), "{}", tried.stderr);
    // Whoever asks for it by name all the same is refused.
    let named = format!("-oIdentityFile={}.pub", ssh.path("zz").display());
    ssh.ssh(&["-oIdentitiesOnly=yes", &named, &another.name, "true"]).refused(255, "Permission denied");
    // A person who lists sees them all.
    assert_eq!(ssh.add(&["-l"]).ok().text().lines().count(), 7);
}

/// Whether a key with these destinations logs in to the hop, inside, inside by way of the hop, and back to the hop by
/// way of itself; and how many keys are listed here, and on the hop.
fn reaches(ssh: &Ssh<'_>, socket: &str, destinations: &[&str]) -> (Vec<bool>, Vec<usize>) {
    let add = |arguments: &[&str]| ssh.client_of(socket, "ssh-add", arguments).run();
    add(&["-D"]).ok();
    let (hosts, key) = (ssh.known_hosts().display().to_string(), ssh.path("work").display().to_string());
    let mut arguments = vec!["-q", "-H", &hosts];
    arguments.extend(destinations.iter().flat_map(|destination| ["-h", *destination]));
    add(&[&arguments[..], &[&key]].concat()).ok();
    // The way to the hop is always open: by a key of its own, outside of the agent.
    let door = format!("-oIdentityFile={}", ssh.path("door").display());
    let by_door = ["-oIdentitiesOnly=yes", &door, "-A", HOP];
    let logs_in = |arguments: &[&str]| ssh.client_of(socket, "ssh", arguments).run().status == 0;
    let ways = vec![
        logs_in(&[HOP, "true"]),
        logs_in(&[INNER, "true"]),
        logs_in(&[&by_door[..], &[&there(ssh, &format!("{INNER} true"))]].concat()),
        logs_in(&[&by_door[..], &[&there(ssh, &format!("{HOP} true"))]].concat()),
    ];
    let there =
        ssh.client_of(socket, "ssh", &[&by_door[..], &["ssh-add -l | grep -c SHA256"]].concat()).run();
    let here = add(&["-l"]).text().matches("SHA256").count();
    (ways, vec![here, there.text().trim().parse().unwrap()])
}

#[test]
fn a_key_for_destinations_goes_where_openssh_lets_it_go() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &["ssh.login=allow"]);
    ssh.key("door", &["ed25519"]);
    ssh.key("work", &["ed25519"]);
    let admitted = [ssh.public("door"), ssh.public("work")];
    let _servers = [ssh.server(HOP, &admitted), ssh.server(INNER, &[ssh.public("work")])];
    let (_agent, plain) = ssh.plain_agent();
    let (onward, nobody) = (format!("{HOP}>{INNER}"), format!("nobody@{INNER}"));
    let (wrong, any) = (format!("{HOP}>{nobody}"), format!("*@{INNER}"));
    for (destinations, ways, listed) in [
        (&[][..], [true, true, true, true], [1, 1]),
        (&[HOP], [true, false, false, false], [1, 0]),
        (&[INNER], [false, true, false, false], [1, 0]),
        (&[HOP, &onward], [true, false, true, false], [1, 1]),
        (&[HOP, &wrong], [true, false, false, false], [1, 1]),
        (&[HOP, INNER], [true, true, false, false], [1, 0]),
        (&[&nobody], [false, false, false, false], [1, 0]),
        (&[&any], [false, true, false, false], [1, 0]),
    ] {
        let expected = (ways.to_vec(), listed.to_vec());
        assert_eq!(reaches(&ssh, &plain, destinations), expected, "OpenSSH's agent: {destinations:?}");
        assert_eq!(reaches(&ssh, &ssh.socket(), destinations), expected, "{destinations:?}");
    }
    // What is signed on the way was asked for, since the hop could be anybody.
    let by_way = |question: &keyloan_e2e::approver::Question| question.line("forwarded").is_some();
    assert!(!ssh.questions().is_empty() && ssh.questions().iter().all(by_way));
}

#[test]
fn a_key_for_destinations_signs_no_files() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &["ssh.login=allow", "ssh.signature=allow"]);
    let (_hop, _inner) = two_servers(&ssh);
    let (hosts, key) = (ssh.known_hosts().display().to_string(), ssh.path("work").display().to_string());
    let sign = || {
        let public = format!("{key}.pub");
        ssh.client("ssh-keygen", &["-q", "-Y", "sign", "-f", &public, "-n", "file"]).stdin("text").run()
    };
    std::fs::rename(&key, ssh.path("kept")).unwrap();
    let kept = ssh.path("kept").display().to_string();
    ssh.add(&["-q", &kept]).ok();
    sign().ok();
    ssh.add(&["-q", "-H", &hosts, "-h", HOP, &kept]).ok();
    assert_ne!(sign().status, 0);
    let refused = sandbox.events("agent_refused").pop().unwrap();
    assert!(refused["cause"].as_str().unwrap().contains("certain destinations"), "{refused}");
}
