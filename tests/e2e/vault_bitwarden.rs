//! Bitwarden as a linked vault: a real `bw`, signed in to a double of its server (`tests/doubles/bitwarden.js`).

use keyloan_e2e::bitwarden::{Bitwarden, MASTER, runs};
use keyloan_e2e::sandbox::Output;
use keyloan_e2e::sshd::Ssh;
use keyloan_e2e::{PASSPHRASE, Sandbox, approver, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

const BESIDE: &str = env!("CARGO_TARGET_TMPDIR");
const WORK: &str = "11111111-1111-4111-8111-111111111111";
const HOME: &str = "22222222-2222-4222-8222-222222222222";
const LINES: &str = "33333333-3333-4333-8333-333333333333";
const PRIVATE: &str =
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaA==\n-----END OPENSSH PRIVATE KEY-----\n";

fn get(sandbox: &Sandbox, reference: &str) -> Output {
    sandbox.keyloan(&["item", "get", reference]).run()
}

fn set(sandbox: &Sandbox, reference: &str, value: impl AsRef<[u8]>) -> Output {
    sandbox.keyloan(&["item", "set", reference]).stdin(value).run()
}

fn state(sandbox: &Sandbox, name: &str) -> String {
    let tested = sandbox.keyloan(&["vault", "test", name, "--json"]).run();
    let tested: Value = serde_json::from_slice(&tested.stdout).unwrap();
    tested[0]["state"].as_str().unwrap().to_owned()
}

fn folders() -> Value {
    json!([{ "id": WORK, "name": "Work" }, { "id": HOME, "name": "Home" }])
}

fn login(name: &str, password: &str) -> Value {
    json!({ "type": 1, "name": name, "login": { "username": "me", "password": password } })
}

/// A vault of this many logins.
fn numbered(many: usize) -> Value {
    (0..many).map(|number| login(&format!("item {number}"), &format!("value-{number}"))).collect()
}

#[test]
fn what_a_real_bw_keeps_is_read_and_listed() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let items = json!([
        { "type": 1, "name": "web/it's \"ü\" パス", "notes": "line 1\nline 2",
          "login": { "username": "me", "password": "p $(id) \"ö\"", "totp": "JBSWY3DPEHPK3PXP" },
          "fields": [{ "name": "api key/x", "value": "tok", "type": 1 }, { "name": "empty", "value": "" }] },
        { "type": 1, "name": "git", "folderId": WORK, "login": { "username": "w", "password": "1" } },
        { "type": 1, "name": "git", "folderId": HOME, "login": { "username": "h", "password": "2" } },
        { "type": 1, "name": "two\nlines", "id": LINES, "login": { "password": "3" } },
        { "type": 2, "name": "~/project", "notes": "# mine\nA=1\nB='2 3'\n" },
        { "type": 2, "name": "plain", "notes": "QUJDREVGR0g=" },
        { "type": 5, "name": "deploy", "sshKey": { "privateKey": PRIVATE, "publicKey": "ssh-ed25519 AAAA",
          "keyFingerprint": "SHA256:x" } },
    ]);
    let bitwarden = Bitwarden::start(&sandbox, BESIDE, &items, &folders());
    assert!(bitwarden.link("bw", "app", Some(MASTER), &[]).ok().stderr.contains("and it answers"));
    for (reference, value) in [
        ("bw://web/it's \"ü\" パス/password", "p $(id) \"ö\""),
        ("bw://web/it's \"ü\" パス/username", "me"),
        ("bw://web/it's \"ü\" パス/totp", "JBSWY3DPEHPK3PXP"),
        ("bw://web/it's \"ü\" パス/notes", "line 1\nline 2"),
        ("bw://web/it's \"ü\" パス/api key%2Fx", "tok"),
        ("bw://web/it's \"ü\" パス/empty", ""),
        ("bw://Work/git/password", "1"),
        ("bw://Home/git/password", "2"),
        (&format!("bw://{LINES}/password"), "3"),
        ("bw://deploy/privateKey", PRIVATE),
        ("bw://deploy/publicKey", "ssh-ed25519 AAAA"),
    ] {
        assert_eq!(get(&sandbox, reference).ok().text(), value, "{reference}");
    }
    let several = get(&sandbox, "bw://git/password").refused(1, "more than one thing");
    assert!(several.stderr.contains("Work/git") && several.stderr.contains("Home/git"), "{}", several.stderr);
    get(&sandbox, "bw://nowhere/password").refused(1, "there is no item 'nowhere'");
    get(&sandbox, "bw://deploy/password").refused(1, "there is no field 'password'");
    get(&sandbox, "bw://plain/vars").refused(1, "there is no field 'vars'");
    let listed = sandbox.keyloan(&["item", "list", "--vault", "bw", "--references"]).run().ok().text();
    for reference in
        ["bw://Work/git/password\n", "bw://web/it's \"ü\" パス/api key%2Fx\n", "bw://~/project/vars\n"]
    {
        assert!(listed.contains(reference), "{reference}: {listed}");
    }
    assert!(listed.contains(LINES) && !listed.contains("tok"), "{listed}");
    sandbox.write("project/.keyloan.toml", "[env]\nP = \"bw://Home/git/password\"\n");
    sandbox.keyloan(&["trust"]).run().ok();
    assert_eq!(sandbox.with_secrets(&["--", "sh", "-c", "echo $P"]).run().ok().text(), "2\n");
}

#[test]
fn a_real_bw_reads_what_keyloan_wrote_and_all_else_of_the_item_stays() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let items = json!([
        { "type": 1, "name": "web", "notes": "n", "folderId": WORK,
          "login": { "username": "me", "password": "old", "totp": "JBSWY3DPEHPK3PXP" },
          "fields": [{ "name": "a", "value": "1" }] },
        { "type": 5, "name": "deploy", "sshKey": { "privateKey": PRIVATE, "publicKey": "x", "keyFingerprint": "y" } },
    ]);
    let bitwarden = Bitwarden::start(&sandbox, BESIDE, &items, &folders());
    bitwarden.link("bw", "app", Some(MASTER), &[]).ok();
    set(&sandbox, "bw://web/password", "new \"ü\"\nline").ok();
    set(&sandbox, "bw://web/token", "hidden").ok();
    set(&sandbox, "bw://fresh/password", "made").ok();
    assert_eq!(get(&sandbox, "bw://fresh/password").ok().text(), "made");
    set(&sandbox, "bw://deploy/privateKey", "x").refused(7, "keyloan changes no 'privateKey'");
    set(&sandbox, "bw://web/password", b"\xff").refused(7, "Bitwarden keeps text");
    sandbox.set_approver(approver::DENY);
    set(&sandbox, "bw://web/password", "newer").refused(6, "it was declined");
    sandbox.set_approver(approver::ALLOW);
    // Another installation, which has only what the server has.
    bitwarden.sign_in("other");
    let session = bitwarden.bw("other", &["unlock", MASTER, "--raw"]).ok().text();
    let other = |arguments: &[&str]| {
        bitwarden.bw("other", &[arguments, &["--session", session.trim()]].concat()).ok().text()
    };
    let item = || -> Value { serde_json::from_str(&other(&["get", "item", "web"])).unwrap() };
    let mut found = item();
    assert_eq!(found["login"]["password"], "new \"ü\"\nline");
    assert_eq!(found["passwordHistory"][0]["password"], "old");
    assert_eq!((&found["login"]["totp"], &found["notes"]), (&json!("JBSWY3DPEHPK3PXP"), &json!("n")));
    assert_eq!(found["folderId"], WORK);
    let fields: Vec<&Value> =
        found["fields"].as_array().unwrap().iter().map(|field| &field["value"]).collect();
    assert_eq!(fields, ["1", "hidden"]);
    // What was changed elsewhere meanwhile is not undone by the next value.
    found["notes"] = "changed elsewhere".into();
    let changed = data_encoding::BASE64.encode(found.to_string().as_bytes());
    other(&["edit", "item", found["id"].as_str().unwrap(), &changed]);
    set(&sandbox, "bw://web/password", "newest").ok();
    other(&["sync"]);
    let found = item();
    assert_eq!(
        (&found["notes"], &found["login"]["password"]),
        (&json!("changed elsewhere"), &json!("newest"))
    );
}

#[test]
fn signed_out_locked_wrong_password_and_ready_are_told_apart() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let bitwarden = Bitwarden::signed_out(&sandbox, BESIDE, &numbered(1), &json!([]));
    let added = bitwarden.link("bw", "app", None, &[]).ok();
    assert!(added.stderr.contains("it is not signed in"), "{}", added.stderr);
    assert_eq!(state(&sandbox, "bw"), "signed_out");
    let refused = get(&sandbox, "bw://item 0/password").refused(7, "not signed in");
    assert!(refused.stderr.contains("/home/bw login"), "{}", refused.stderr);
    bitwarden.sign_in("app");
    assert_eq!(state(&sandbox, "bw"), "locked");
    let refused = get(&sandbox, "bw://item 0/password").refused(7, "was not given its master password");
    assert!(refused.stderr.contains("keyloan vault add --replace bw"), "{}", refused.stderr);
    let wrong = bitwarden.link("bw", "app", Some("wr\u{f6}ng"), &["--replace"]);
    wrong.refused(7, "is not the one that keyloan has");
    assert_eq!(state(&sandbox, "bw"), "locked");
    bitwarden.link("bw", "app", Some(MASTER), &["--replace"]).ok();
    assert_eq!(state(&sandbox, "bw"), "ready");
    assert_eq!(get(&sandbox, "bw://item 0/password").ok().text(), "value-0");
    // A wrong password is one too while another has the process open.
    let wrong = bitwarden.link("bw", "app", Some("wrong"), &["--replace"]);
    wrong.refused(7, "is not the one that keyloan has");
    assert_eq!(get(&sandbox, "bw://item 0/password").ok().text(), "value-0");
}

#[test]
fn twenty_references_cost_one_request_of_one_process() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let bitwarden = Bitwarden::start(&sandbox, BESIDE, &numbered(20), &json!([]));
    bitwarden.link("bw", "app", Some(MASTER), &[]).ok();
    let lines: String =
        (0..20).map(|n| format!("V{n} = \"bw://item {n}/password\"\n")).collect::<Vec<_>>().concat();
    sandbox.write("project/.keyloan.toml", format!("[env]\n{lines}"));
    sandbox.keyloan(&["trust"]).run().ok();
    get(&sandbox, "bw://item 7/password").ok();
    let started = bitwarden.started().len();
    let (requests, synced) = (bitwarden.served(""), bitwarden.served("POST /sync"));
    for _ in 0..2 {
        let before = bitwarden.served("GET /list/object/items");
        let lent = sandbox.with_secrets(&["--", "sh", "-c", "echo $V0 $V19"]).run().ok();
        assert_eq!(lent.text(), "value-0 value-19\n");
        assert_eq!(bitwarden.served("GET /list/object/items"), before + 1);
    }
    // Of a process that is open, reading is nothing but that request.
    assert_eq!((bitwarden.served(""), bitwarden.served("POST /sync")), (requests + 2, synced));
    assert_eq!(bitwarden.started().len(), started);
}

#[test]
fn bw_ends_with_the_lock_the_link_its_time_and_the_daemon() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let bitwarden = Bitwarden::start(&sandbox, BESIDE, &numbered(1), &json!([]));
    let last = || *bitwarden.started().last().unwrap();
    let read = || assert_eq!(get(&sandbox, "bw://item 0/password").ok().text(), "value-0");
    bitwarden.link("bw", "app", Some(MASTER), &[]).ok();
    read();
    let open = last();
    assert!(runs(open));
    sandbox.keyloan(&["lock"]).run().ok();
    eventually("it ends with the lock", || !runs(open));
    sandbox.unlock().ok();
    read();
    let open = last();
    kill(Pid::from_raw(open), Signal::SIGKILL).unwrap();
    eventually("it is gone", || !runs(open));
    read();
    assert_ne!(last(), open, "it is started again");
    let open = last();
    kill(Pid::from_raw(sandbox.daemon().unwrap()), Signal::SIGKILL).unwrap();
    eventually("it ends with a daemon that was killed", || !runs(open));
    sandbox.unlock().ok();
    bitwarden.link("bw", "app", Some(MASTER), &["--replace", "minutes=0"]).ok();
    read();
    let open = last();
    eventually("it is kept no longer than the link says", || !runs(open));
    bitwarden.link("bw", "app", Some(MASTER), &["--replace", "minutes=60"]).ok();
    read();
    let open = last();
    assert!(runs(open));
    sandbox.keyed(PASSPHRASE, &["vault", "remove", "bw", "--passphrase-fd", "3"]).run().ok();
    eventually("it ends with the link", || !runs(open));
    bitwarden.link("bw", "app", Some(MASTER), &[]).ok();
    read();
    let open = last();
    sandbox.stop();
    eventually("it ends with the daemon", || !runs(open));
}

#[test]
fn nobody_else_can_reach_an_open_bw_and_callers_change_nothing_for_it() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let bitwarden = Bitwarden::start(&sandbox, BESIDE, &numbered(1), &json!([]));
    bitwarden.link("bw", "app", Some(MASTER), &[]).ok();
    sandbox.stop();
    let evil =
        ["BW_SESSION", "BW_CLIENTID", "BITWARDENCLI_DEBUG", "HTTPS_PROXY", "NODE_OPTIONS", "NODE_PATH"];
    let with = |run: keyloan_e2e::sandbox::Run| evil.iter().fold(run, |run, name| run.env(name, "--evil"));
    with(sandbox.keyed(PASSPHRASE, &["unlock", "--passphrase-fd", "3"])).run().ok();
    let read = with(sandbox.keyloan(&["item", "get", "bw://item 0/password"]));
    let read = read.env("BITWARDENCLI_APPDATA_DIR", sandbox.path("other")).run().ok();
    assert_eq!(read.text(), "value-0");
    let environment = std::fs::read_to_string(sandbox.path("run/environment")).unwrap();
    let mut names: Vec<&str> = environment.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    names.retain(|name| !matches!(*name, "PWD" | "PYTHONNOUSERSITE"));
    names.sort_unstable();
    assert_eq!(names, ["BITWARDENCLI_APPDATA_DIR", "HOME", "LANG", "NODE_EXTRA_CA_CERTS", "PATH"]);
    // It listens nowhere: no socket of its is bound to a name or a port.
    let pid = *bitwarden.started().last().unwrap();
    let own: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok()?.to_str().map(str::to_owned))
        .filter_map(|link| Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    assert!(!own.is_empty(), "its own pair of sockets is among them");
    for table in ["unix", "tcp", "tcp6"] {
        let table = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap();
        for line in table.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let is_own = words.iter().any(|word| own.iter().any(|inode| inode == word));
            let is_bound = words.len() == 8 || words.get(3) == Some(&"0A");
            assert!(!(is_own && is_bound), "{line}");
        }
    }
}

#[test]
fn what_was_there_is_read_without_a_server_and_nothing_is_written() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let mut bitwarden = Bitwarden::start(&sandbox, BESIDE, &numbered(1), &json!([]));
    bitwarden.link("bw", "app", Some(MASTER), &[]).ok();
    let read = || assert_eq!(get(&sandbox, "bw://item 0/password").ok().text(), "value-0");
    bitwarden.limit();
    read();
    set(&sandbox, "bw://item 0/password", "new").refused(7, "asked too often");
    bitwarden.end_limit();
    // Another certificate authority than the server's.
    let other = sandbox.path("home/other.pem");
    let make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=other -keyout \"$0.key\" -out \"$0\"";
    sandbox.command("/bin/sh", &["-c".into(), make.into(), other.clone().into_os_string()]).run().ok();
    let ca = format!("ca={}", other.display());
    bitwarden.link("bw", "app", None, &["--replace", &ca]).ok();
    read();
    set(&sandbox, "bw://item 0/password", "new").refused(7, "does not trust its certificate");
    bitwarden.link("bw", "app", None, &["--replace"]).ok();
    let server = Pid::from_raw(bitwarden.server().try_into().unwrap());
    kill(server, Signal::SIGSTOP).unwrap();
    sandbox.keyloan(&["lock"]).run().ok();
    sandbox.unlock().ok();
    read();
    kill(server, Signal::SIGCONT).unwrap();
    bitwarden.end_server();
    read();
    set(&sandbox, "bw://item 0/password", "new").refused(7, "does not reach its server");
    read();
}

#[test]
fn two_links_of_one_account_share_a_process_and_another_account_has_its_own() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let bitwarden = Bitwarden::start(&sandbox, BESIDE, &numbered(1), &json!([]));
    bitwarden.sign_in("other");
    for (name, directory) in [("one", "app"), ("two", "app"), ("three", "other")] {
        bitwarden.link(name, directory, Some(MASTER), &[]).ok();
        assert_eq!(get(&sandbox, &format!("{name}://item 0/password")).ok().text(), "value-0");
    }
    let running = bitwarden.started().into_iter().filter(|pid| runs(*pid)).count();
    assert_eq!(running, 2);
}

#[test]
fn an_ssh_key_that_bitwarden_keeps_logs_in_by_the_agent() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &[]);
    let private = std::fs::read_to_string(ssh.key("deploy", &["ed25519"])).unwrap();
    let public = ssh.public("deploy");
    let key = |name: &str, private: &str, public: &str| {
        json!({ "type": 5, "name": name,
            "sshKey": { "privateKey": private, "publicKey": public, "keyFingerprint": "SHA256:x" } })
    };
    let items = json!([key("deploy", &private, &public), key("empty", "", &public), login("web", "p")]);
    let bitwarden = Bitwarden::start(&sandbox, BESIDE, &items, &json!([]));
    bitwarden.link("bw", "app", Some(MASTER), &[]).ok();
    let linked = sandbox.keyloan(&["ssh", "link", "--vault", "bw"]).run().ok().text();
    assert!(linked.contains("bw://deploy/privateKey") && !linked.contains("empty"), "{linked}");
    let server = ssh.server("git.example.org", &[public]);
    assert_eq!(ssh.ssh(&["git.example.org", "echo", "in"]).ok().text(), "in\n");
    assert_eq!(server.accepted(), 1);
}
