//! Certificates that a linked vault makes for one login. The vault is a double: a script of the kind `command` that signs
//! with `ssh-keygen` as an authority does, and lies where a test wants it to. The servers are real, and trust the
//! authority alone (`TrustedUserCAKeys`).

use keyloan_e2e::agent::{Client, Host, login};
use keyloan_e2e::openbao::OpenBao;
use keyloan_e2e::sandbox::Output;
use keyloan_e2e::sshd::{Server, Ssh};
use keyloan_e2e::{PASSPHRASE, Sandbox, approver};
use keyloan_protocol::ssh_agent::message::SignFlags;
use std::fs;

const HOST: &str = "prod.example.org";
const OTHER: &str = "other.example.org";
const TITLE: &str = "log in with a certificate made for this login";

struct Team<'a> {
    ssh: Ssh<'a>,
    user: String,
}

impl<'a> Team<'a> {
    /// The key `work`, and the vault `team` that certifies what it is asked to.
    fn of(sandbox: &'a Sandbox, policy: &[&str]) -> Self {
        let ssh = Ssh::asked(sandbox, policy);
        ssh.key("work", &["ed25519"]);
        ssh.store("work", &[]);
        for authority in ["authority", "stranger", "another"] {
            ssh.key(authority, &["ed25519"]);
        }
        let user = sandbox.command("/usr/bin/id", &["-un"]).run().ok().text().trim().to_owned();
        let script = format!(
            "#!/bin/sh\nset -e\nd=$(mktemp -d)\ntrap 'rm -r $d' EXIT\ncat >$d/key.pub\ncp $d/key.pub {0}/asked.pub\n\
             echo \"$1 ${{2:--}} $3\" >>{0}/runs\nCA=authority; N=${{2:-{user}}}; V=-1m:+${{3}}s; MORE=\n\
             [ ! -e {0}/lies ] || . {0}/lies\n\
             ssh-keygen -q -s {0}/$CA -I made ${{N:+-n}} $N -V $V $MORE $d/key.pub\ncat $d/key-cert.pub\n",
            ssh.path("").display().to_string().trim_end_matches('/'),
        );
        let program = sandbox.write_program("home/authority", script);
        let setting = format!("program={}", program.display());
        let template = "certificate=[\"{role}\",\"{principals}\",\"{seconds}\"]";
        let add = ["vault", "add", "team", "--kind", "command", &setting, template, "--passphrase-fd", "3"];
        sandbox.keyed(PASSPHRASE, &add).run().ok();
        Self { ssh, user }
    }

    fn certify(&self, arguments: &[&str]) -> Output {
        let first = ["ssh", "certify", "work", "--vault", "team", "--role", "dev", "--hosts", HOST];
        self.ssh.sandbox.keyloan(&[&first[..], arguments].concat()).run()
    }

    /// With the authority that is given, so that the vault is not asked.
    fn certified(&self, more: &[&str]) {
        let authority = self.ssh.path("authority.pub").display().to_string();
        self.certify(&[&["--authority", &authority], more].concat()).ok();
    }

    /// Trusts the authority, and admits no key but these.
    fn server(&self, name: &str, admitted: &[String]) -> Server {
        self.ssh.key(&format!("host-{name}"), &["ed25519"]);
        let line = format!("{name} {}\n", self.ssh.public(&format!("host-{name}")));
        self.ssh.append("home/.ssh/known_hosts", &line);
        let trusted = format!("TrustedUserCAKeys {}", self.ssh.path("authority.pub").display());
        self.ssh.server_with(name, admitted, &trusted)
    }

    /// What the vault was asked for: role, users, seconds.
    fn runs(&self) -> Vec<String> {
        let text = fs::read_to_string(self.ssh.path("runs")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn lies(&self, text: &str) {
        self.ssh.sandbox.write("ssh/lies", text);
    }

    fn titles(&self) -> Vec<String> {
        self.ssh.questions().iter().map(|question| question.title().to_owned()).collect()
    }

    fn login(&self, host: &str) -> Output {
        self.ssh.ssh(&[host, "echo", "in"])
    }
}

#[test]
fn one_yes_lets_in_with_a_certificate_and_without_one_nobody_gets_in() {
    let sandbox = Sandbox::with_vault();
    let team = Team::of(&sandbox, &[]);
    let server = team.server(HOST, &[]);
    team.login(HOST).refused(255, "Permission denied");
    assert!(team.runs().is_empty() && team.ssh.questions().is_empty());
    team.certified(&["--ttl", "2m", "--principals", &team.user]);
    assert_eq!(team.login(HOST).ok().text(), "in\n");
    let [question] = &team.ssh.questions()[..] else { panic!("{:?}", team.ssh.questions()) };
    assert_eq!(question.title(), TITLE);
    question.says("to", HOST, "known_hosts");
    question.says("made by", "team, role dev", "asked");
    question.says("lets in", &team.user, "asked");
    question.says("valid for", "2m", "asked");
    question.says("key", "work", "verified");
    assert!(question.line("command").unwrap().0.ends_with("echo in"));
    assert_eq!(team.runs(), [format!("dev {} 120", team.user)]);
    let asked = fs::read_to_string(team.ssh.path("asked.pub")).unwrap();
    assert!(team.ssh.public("work").starts_with(asked.trim()), "the public half and no more: {asked}");
    assert!(server.log().contains("ED25519-CERT"), "{}", server.log());
    let (made, signed) = (sandbox.events("certificate_made"), sandbox.events("signed"));
    assert_eq!((made.len(), signed.len(), server.accepted()), (1, 1, 1));
    assert_eq!((&made[0]["by"], &made[0]["id"]), (&"team, role dev".into(), &"made".into()));
    assert_eq!(made[0]["users"], serde_json::json!([team.user]));
    assert!(signed[0]["certificate"].as_str().unwrap().contains(&format!("'made' for {}", team.user)));
    let asked = sandbox.events("approved");
    assert!(asked.iter().any(|event| event["names"][2] == format!("{} at {HOST}", team.user)), "{asked:?}");
    assert_ne!(made[0]["request"], signed[0]["request"], "the signature has a record of its own");
    assert_eq!(signed[0]["permits"], format!("{}@{HOST}", team.user));
    let decided = sandbox.events("decided").pop().unwrap();
    assert_eq!(decided["rule"], "the yes to this ssh session");
    // It is forgotten with the connection.
    team.login(HOST).ok();
    assert_eq!((team.runs().len(), team.ssh.questions().len(), server.accepted()), (2, 2, 2));
    let listed = sandbox.keyloan(&["ssh", "list"]).run().ok().text();
    assert!(listed.contains(&format!("certificates by team, role dev for {HOST}, signed by")), "{listed}");
    sandbox.keyloan(&["ssh", "certify", "work", "--off"]).run().ok();
    team.login(HOST).refused(255, "Permission denied");
    assert_eq!((team.runs().len(), server.accepted()), (2, 2));
}

#[test]
fn a_login_as_somebody_whom_the_question_did_not_name_is_asked_for_by_itself() {
    let sandbox = Sandbox::with_vault();
    let team = Team::of(&sandbox, &[]);
    let (_agent, plain) = team.ssh.plain_agent();
    let mut host = Host::new(&team.ssh, &plain, "host");
    team.ssh.append("home/.ssh/known_hosts", &format!("{HOST} {}\n", team.ssh.public("host")));
    let mut logs_in = |session: &[u8], user: &str| {
        let mut client = team.ssh.agent();
        assert!(client.bind(&host.session(session, false)));
        let key = client.list()[0].key().unwrap();
        assert!(key.certificate().is_some());
        let data = login(session, user, &key, Some(&host_key(&team)));
        assert!(client.sign(&key, &data, SignFlags::NONE).is_some());
        team.ssh.questions()
    };
    // The role says who, and nobody has said yes to root.
    team.certified(&[]);
    team.lies("N=dev,root");
    let asked = logs_in(b"one", "root");
    asked[0].says("lets in", "whomever the role says", "asked");
    asked[0].says("then", "the login with it is asked for by itself", "verified");
    assert_eq!(asked.len(), 2, "{asked:?}");
    asked[1].says("to", &format!("root@{HOST}"), "known_hosts");
    let by = asked[1].line("by").unwrap().0;
    assert!(by.starts_with("certificate 'made' for dev, root until"), "{by}");
    assert_eq!(sandbox.events("certificate_made")[0]["users"], serde_json::json!(["dev", "root"]));
    // Where the person named them, they are in the question, and nobody else is covered by it.
    team.certified(&["--principals", "dev,root"]);
    let asked = logs_in(b"two", "root");
    assert_eq!(asked.len(), 3, "{asked:?}");
    asked[2].says("lets in", "any of dev, root", "asked");
    assert_eq!(logs_in(b"three", "admin").len(), 5);
}

#[test]
fn nobody_is_asked_for_other_hosts_lists_or_what_another_host_forwards() {
    let sandbox = Sandbox::with_vault();
    let team = Team::of(&sandbox, &[]);
    team.certified(&[]);
    let server = team.server(HOST, &[]);
    let other = team.server(OTHER, &[team.ssh.public("work")]);
    team.ssh.add(&["-l"]).ok();
    team.login(OTHER).ok();
    let inner = format!("ssh -F {} {HOST} true", team.ssh.path("config").display());
    team.ssh.ssh(&["-A", OTHER, &inner]).refused(255, "Permission denied");
    team.ssh.ssh(&["-A", OTHER, "ssh-add -l"]).ok();
    assert!(team.titles().iter().all(|title| title != TITLE), "{:?}", team.titles());
    // Nor while the vault is locked.
    team.ssh.answered_by(approver::DENY, &[]);
    sandbox.keyloan(&["lock"]).run().ok();
    assert_eq!(team.ssh.add(&["-l"]).ok().text().lines().count(), 1);
    assert!(team.runs().is_empty());
    assert_eq!((server.accepted(), other.accepted()), (0, 3));
}

#[test]
fn a_no_leaves_the_other_keys() {
    let sandbox = Sandbox::with_vault();
    let team = Team::of(&sandbox, &[]);
    team.certified(&[]);
    let server = team.server(HOST, &[team.ssh.public("work")]);
    let script = format!(
        "#!/bin/sh\nread -r asked\necho \"$asked\" >>{}\ncase $asked in *'{TITLE}'*) d=deny;; *) d=allow;; esac\n\
         echo \"{{\\\"decision\\\":\\\"$d\\\"}}\"\n",
        team.ssh.kept().display()
    );
    team.ssh.answered_by(script, &[]);
    team.login(HOST).ok();
    assert_eq!(team.titles(), [TITLE, "log in with an ssh key"]);
    assert!(team.runs().is_empty() && !server.log().contains("Accepted certificate"));
    assert!(sandbox.events("certificate_made").is_empty());
    // A vault that makes none does the same.
    team.ssh.answered_by(approver::keeping(&team.ssh.kept()), &[]);
    team.lies("exit 1");
    team.login(HOST).ok();
    assert_eq!((team.titles().len(), server.accepted()), (4, 2));
    assert!(sandbox.events("failed").pop().unwrap()["cause"].as_str().unwrap().contains("ended with status"));
}

#[test]
fn what_a_vault_makes_beyond_what_was_agreed_to_is_not_used() {
    let sandbox = Sandbox::with_vault();
    let team = Team::of(&sandbox, &[]);
    team.certified(&["--principals", &team.user]);
    let server = team.server(HOST, &[]);
    let another = team.ssh.path("another.pub").display().to_string();
    for (lie, cause) in [
        ("CA=stranger".to_owned(), "signed by another authority"),
        ("V=-1m:+1h".to_owned(), "valid for longer than was asked for"),
        ("V=always:forever".to_owned(), "valid for longer than was asked for"),
        ("V=+10m:+11m".to_owned(), "not valid now"),
        ("V=-2m:-1m".to_owned(), "not valid now"),
        (format!("cp {another} $d/key.pub"), "for another key"),
        ("N=$N,root".to_owned(), "lets in 'root', which was not asked for"),
        ("MORE='-O force-command=id'".to_owned(), "it wants 'force-command'"),
        ("MORE='-O critical:new@example.org=x'".to_owned(), "it wants 'new@example.org'"),
        ("MORE=-h".to_owned(), "it is for a host"),
        ("cat $d/key.pub; exit".to_owned(), "is no ssh certificate"),
        ("echo garbage; exit".to_owned(), "is no ssh certificate"),
        // Signed by the authority, and one byte of it another's since.
        (
            "ssh-keygen -q -s $(dirname $0)/../ssh/authority -I made -n \"$N\" -V $V $d/key.pub; \
             read t b c <$d/key-cert.pub; echo \"$t $(echo $b | base64 -d | sed s/made/evil/ | base64 -w0)\"; exit"
                .to_owned(),
            "signed by another authority",
        ),
    ] {
        team.lies(&lie);
        team.login(HOST).refused(255, "Permission denied");
        let failed = sandbox.events("failed").pop().unwrap();
        assert!(failed["cause"].as_str().unwrap().contains(cause), "{lie}: {failed}");
    }
    assert_eq!((server.accepted(), sandbox.events("certificate_made").len()), (0, 0));
    assert!(sandbox.events("signed").is_empty());
    team.lies("MORE='-O source-address=127.0.0.0/8'");
    team.login(HOST).ok();
    assert_eq!(server.accepted(), 1);
    assert!(team.runs().iter().all(|run| *run == format!("dev {} 300", team.user)));
}

#[test]
fn the_authority_is_learned_once_and_another_is_not_taken_afterwards() {
    let sandbox = Sandbox::with_vault();
    let team = Team::of(&sandbox, &["key.add=ask"]);
    let server = team.server(HOST, &[]);
    team.lies("N=''");
    team.certify(&[]).refused(2, "it is for any user");
    team.lies("exit 1");
    team.certify(&[]).refused(7, "ended with status 1");
    team.lies("");
    team.certify(&[]).ok();
    let question = team.ssh.questions().pop().unwrap();
    question.says("by", "team, role dev", "verified");
    question.says("for hosts", HOST, "verified");
    assert!(
        sandbox.ssh_keys()[0]["certified_by"].as_str().unwrap().ends_with(&team.ssh.fingerprint("authority"))
    );
    team.login(HOST).ok();
    team.lies("CA=stranger");
    team.login(HOST).refused(255, "Permission denied");
    assert_eq!(server.accepted(), 1);
    for (arguments, said) in [
        (&["--ttl", "2d"][..], "at most 24h"),
        (&["--principals", "-x"], "without ',' and '/'"),
        (&["--role", "a/b"], ""),
    ] {
        assert_eq!(team.certify(arguments).status, 2, "{said}");
    }
    let gone = ["ssh", "certify", "work", "--vault", "gone", "--role", "dev", "--host", HOST];
    sandbox.keyloan(&gone).run().refused(1, "there is no vault 'gone'");
    let local = ["ssh", "certify", "work", "--vault", "local", "--role", "dev", "--host", HOST];
    sandbox.keyloan(&local).run().refused(2, "the local vault makes no certificates");
    let set = sandbox.keyloan(&["item", "set", "--public", "work", "certified_by"]).stdin("{}").run();
    set.refused(2, "keyloan ssh certify");
}

#[test]
fn the_yes_is_to_one_login_in_one_session_and_a_confirmed_key_is_asked_again() {
    let sandbox = Sandbox::with_vault();
    let team = Team::of(&sandbox, &[]);
    team.certified(&["--principals", "git,root"]);
    let (_agent, plain) = team.ssh.plain_agent();
    let mut host = Host::new(&team.ssh, &plain, "host");
    team.ssh.append("home/.ssh/known_hosts", &format!("{HOST} {}\n", team.ssh.public("host")));
    let key = team.ssh.public_key("work");
    let mut client = team.ssh.agent();
    assert!(client.bind(&host.session(b"one", false)));
    let listed = client.list();
    let certificate = listed[0].key().unwrap();
    assert!(certificate.certificate().is_some() && certificate.is_or_certifies(&key) && listed.len() == 2);
    // A second list makes no other.
    assert_eq!(client.list()[0].key().unwrap(), certificate);
    let asked = || team.ssh.questions().len();
    assert_eq!((asked(), team.runs().len()), (1, 1));
    let sign = |client: &mut Client, session: &[u8], user: &str| {
        let data = login(session, user, &certificate, Some(&host_key(&team)));
        client.sign(&certificate, &data, SignFlags::NONE).is_some()
    };
    assert!(!sign(&mut client, b"two", "git"), "another session");
    assert!(sign(&mut client, b"one", "git") && sign(&mut client, b"one", "git"));
    assert_eq!(asked(), 1);
    assert!(sign(&mut client, b"one", "root"));
    assert_eq!(asked(), 2, "another user is another login");
    // The certificate is nothing to any other connection.
    let mut stranger = team.ssh.agent();
    assert!(!sign(&mut stranger, b"one", "git"));
    let mut client = team.ssh.agent();
    team.ssh.sandbox.keyloan(&["ssh", "set", "work", "--confirm", "always"]).run().ok();
    assert!(client.bind(&host.session(b"one", false)));
    let fresh = client.list()[0].key().unwrap();
    let data = login(b"one", "git", &fresh, Some(&host_key(&team)));
    assert!(client.sign(&fresh, &data, SignFlags::NONE).is_some());
    assert_eq!(asked(), 4);
}

fn host_key(team: &Team<'_>) -> keyloan_protocol::ssh_agent::key::PublicKey {
    team.ssh.public_key("host")
}

#[test]
fn rules_decide_on_certificates_as_on_logins() {
    let sandbox = Sandbox::with_vault();
    let team = Team::of(&sandbox, &["trust=allow"]);
    team.certified(&[]);
    let server = team.server(HOST, &[team.ssh.public("work")]);
    sandbox.keyloan(&["ssh", "hosts", "pin", HOST]).run().ok();
    sandbox.policy(&format!("ssh.login[host={HOST}]=allow"));
    team.login(HOST).ok();
    assert!(server.log().contains("ED25519-CERT"));
    assert_eq!((team.ssh.questions().len(), team.runs().len(), server.accepted()), (0, 1, 1));
    sandbox.policy(&format!("ssh.login[host={HOST}]=deny"));
    team.login(HOST).refused(255, "Permission denied");
    assert_eq!((team.runs().len(), server.accepted()), (1, 1));
    // A key that is for other hosts gets no certificate for this one.
    sandbox.policy(&format!("ssh.login[host={HOST}]="));
    sandbox.keyloan(&["ssh", "set", "work", "--host", OTHER]).run().ok();
    team.login(HOST).refused(255, "Permission denied");
    assert_eq!((team.ssh.questions().len(), team.runs().len()), (0, 1));
}

#[test]
fn the_ssh_engine_of_openbao_makes_the_certificate_of_a_login() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &[]);
    ssh.key("work", &["ed25519"]);
    ssh.store("work", &[]);
    let user = sandbox.command("/usr/bin/id", &["-un"]).run().ok().text().trim().to_owned();
    let bao = OpenBao::start(&sandbox);
    bao.link(&[], &[("token", "root-token")]).ok();
    let certify = ["ssh", "certify", "work", "--vault", "team", "--role", "deploy", "--hosts", HOST];
    sandbox.keyloan(&[&certify[..], &["--principals", &user]].concat()).run().ok();
    ssh.key(&format!("host-{HOST}"), &["ed25519"]);
    let line = format!("{HOST} {}\n", ssh.public(&format!("host-{HOST}")));
    ssh.append("home/.ssh/known_hosts", &line);
    // That of the engine, made with its first certificate.
    let trusted = format!("TrustedUserCAKeys {}", sandbox.path("bao/ca.pub").display());
    let server = ssh.server_with(HOST, &[], &trusted);
    let made = || bao.requests("ssh/sign/deploy").len();
    assert_eq!(made(), 1, "its authority was learned");
    assert_eq!(ssh.ssh(&[HOST, "echo", "in"]).ok().text(), "in\n");
    assert!(server.log().contains("ED25519-CERT"), "{}", server.log());
    assert_eq!(made(), 2);
    bao.mode(&serde_json::json!({"status": 403}));
    ssh.ssh(&[HOST, "echo", "in"]).refused(255, "Permission denied");
}
