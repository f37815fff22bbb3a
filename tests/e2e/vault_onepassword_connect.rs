//! 1Password by a Connect server, of which a double stands here, behind TLS with an authority of the test's own.

use keyloan_e2e::onepassword::{Account, Authority, CONNECT_TOKEN, Connect, field, id};
use keyloan_e2e::{Output, Sandbox, approver, eventually};
use serde_json::{Value, json};

fn get(sandbox: &Sandbox, reference: &str) -> Output {
    sandbox.keyloan(&["item", "get", reference]).run()
}

/// An account with an item, as a Connect server shows it.
fn account(sandbox: &Sandbox) -> Account<'_> {
    let mut account = Account::new(sandbox);
    account.set("token", CONNECT_TOKEN);
    let section = json!({"id": "s1", "label": "prod keys"});
    let inside =
        json!({"id": "f1", "type": "CONCEALED", "label": "inside", "value": "in", "section": section});
    let code = json!({"id": "f2", "type": "OTP", "label": "code", "value": "seed", "totp": "123456"});
    account.item(0, "gcp", &[field("key", "s3cret"), field("empty", ""), inside, code]);
    account
}

/// The server, linked with its authority.
fn linked(sandbox: &Sandbox) -> Connect<'_> {
    let authority = Authority::new(sandbox);
    authority.sign("server", "IP:127.0.0.1", false);
    let connect = Connect::start(sandbox, Some("server"));
    connect.link(Some(&authority.ca()), CONNECT_TOKEN).ok();
    connect
}

#[test]
fn names_are_looked_up_and_each_item_is_one_request_on_one_connection() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let mut account = account(&sandbox);
    let fields: Vec<Value> = (0..20).map(|at| field(&format!("f {at}"), &format!("v{at}"))).collect();
    let item = account.item(0, "many", &fields);
    let connect = linked(&sandbox);
    let lines =
        (0..20).map(|at| format!("V{at} = \"team://Work/many/f {at}\"\n")).collect::<Vec<_>>().concat();
    sandbox.write("project/.keyloan.toml", format!("[env]\n{lines}G = \"team://Work/gcp/key\"\n"));
    sandbox.keyloan(&["trust"]).run().ok();
    let lent = sandbox.with_secrets(&["--", "sh", "-c", "echo $V0 $V19 $G"]).run().ok();
    assert_eq!(lent.text(), "v0 v19 s3cret\n");
    let (work, gcp) = (id(1), account.state["vaults"][0]["items"][0]["id"].as_str().unwrap().to_owned());
    assert_eq!(
        connect.requests(),
        [
            "connection",
            "GET /v1/vaults?filter=name%20eq%20%22Work%22",
            &format!("GET /v1/vaults/{work}/items?filter=title%20eq%20%22gcp%22"),
            &format!("GET /v1/vaults/{work}/items/{gcp}"),
            &format!("GET /v1/vaults/{work}/items?filter=title%20eq%20%22many%22"),
            &format!("GET /v1/vaults/{work}/items/{item}"),
        ]
    );
    connect.forget();
    assert_eq!(get(&sandbox, &format!("team://{work}/{item}/f 3")).ok().text(), "v3");
    assert_eq!(connect.requests(), ["connection", &format!("GET /v1/vaults/{work}/items/{item}")]);
}

#[test]
fn values_of_a_connect_server_are_read_and_what_is_missing_is_named() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let mut account = account(&sandbox);
    account.item(0, "it's \"ü\" \\ & #%", &[field("x/y", "odd\n\u{1f511}\r\n")]);
    account.item(0, "gcp two", &[field("key", "other")]);
    let twice = [account.item(0, "twice", &[]), account.item(0, "twice", &[])];
    account.item(1, "~/coverage", &[field("vars", "A=1\n")]);
    let hidden = json!({"id": id(3), "name": "Hidden", "hidden": true, "items": []});
    account.state["vaults"].as_array_mut().unwrap().push(hidden);
    account.save();
    let _connect = linked(&sandbox);
    for (reference, value) in [
        // The one vault of the kind is also `op`.
        ("op://Work/gcp/key", "s3cret"),
        ("team://Work/gcp/empty", ""),
        ("team://Work/gcp/prod keys/inside", "in"),
        ("team://Work/gcp/code?attribute=otp", "123456"),
        ("team://Work/it's \"ü\" \\ & #%/x%2Fy", "odd\n\u{1f511}\r\n"),
        ("team://~/coverage/vars", "A=1\n"),
    ] {
        assert_eq!(get(&sandbox, reference).ok().text(), value, "{reference}");
    }
    for (reference, said) in [
        ("team://Wor/gcp/key", "there is no item 'Wor/gcp'"),
        ("team://Work/gc/key", "there is no item 'Work/gc'"),
        ("team://Work/gcp/nothing", "there is no field 'nothing' in item 'Work/gcp'"),
        ("team://Work/\" or title eq \"gcp/key", "there is no item"),
        ("team://Work/twice/key", "'Work/twice' is more than one thing there"),
    ] {
        get(&sandbox, reference).refused(1, said);
    }
    let ambiguous = get(&sandbox, "team://Work/twice/key").stderr;
    assert!(twice.iter().all(|id| ambiguous.contains(&format!("Work/{id}"))), "{ambiguous}");
    get(&sandbox, &format!("team://{}/gcp/key", id(3))).refused(7, "not for that vault");
    get(&sandbox, &format!("team://{}/gcp/key", id(4))).refused(1, "there is no item");
    let directory = sandbox.make_directory("home/coverage");
    let lent = sandbox.with_secrets(&["--", "printenv", "A"]).within(&directory).run().ok();
    assert_eq!(lent.text(), "1\n");
    let listed = sandbox.keyloan(&["item", "list", "--vault", "team"]).run().ok();
    assert_eq!(listed.text(), "~/coverage\n");
    // It goes between the look for its id and the reading.
    account.set("gone", account.state["vaults"][0]["items"][0]["id"].clone());
    get(&sandbox, "team://Work/gcp/key").refused(1, "there is no item 'Work/gcp'");
}

#[test]
fn a_field_is_stored_without_touching_the_others_and_read_back() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let mut account = account(&sandbox);
    let connect = linked(&sandbox);
    let set = |reference: &str, value: &[u8]| sandbox.keyloan(&["item", "set", reference]).stdin(value).run();
    set("team://Work/gcp/key", "new\n\"ü\"".as_bytes()).ok();
    set("team://Work/gcp/empty", b"full").ok();
    set("team://Work/gcp/added", b"1").ok();
    set("team://Work/gcp/prod keys/also", b"2").ok();
    for (reference, value) in [
        ("team://Work/gcp/key", "new\n\"ü\""),
        ("team://Work/gcp/empty", "full"),
        ("team://Work/gcp/added", "1"),
        ("team://Work/gcp/prod keys/also", "2"),
        ("team://Work/gcp/inside", "in"),
        ("team://Work/gcp/code?attribute=otp", "123456"),
    ] {
        assert_eq!(get(&sandbox, reference).ok().text(), value, "{reference}");
    }
    assert_eq!(sandbox.events("item_changed").len(), 4);
    set("team://Work/gcp/key", b"\xff").refused(7, "not UTF-8");
    set("team://Work/nothing/key", b"1").refused(1, "there is no item 'Work/nothing'");
    set("team://Work/gcp/no section/key", b"1").refused(1, "there is no field");
    set("team://Work/gcp/code?attribute=otp", b"1").refused(7, "only the value of a field");
    connect.forget();
    account.state =
        serde_json::from_slice(&std::fs::read(sandbox.path("home/op-double/state.json")).unwrap()).unwrap();
    account.set("forgets", true);
    set("team://Work/gcp/key", b"lost").refused(7, "did not keep the value");
    account.set("read only", true);
    set("team://Work/gcp/key", b"1").refused(7, "token is not for that");
    assert!(connect.requests().iter().all(|request| !request.contains("lost")));
    assert_eq!(sandbox.events("item_changed").len(), 4);
}

#[test]
fn every_failure_of_a_connect_server_is_told_apart_and_none_is_quoted() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let mut account = account(&sandbox);
    let connect = linked(&sandbox);
    account.set("location", format!("https://127.0.0.1:{}/v1/vaults", connect.port));
    for (mode, said) in [
        ("garbage", "does not answer as a Connect server does"),
        ("dying", "the connection broke"),
        ("flood", "its answer is longer than 8192 KiB"),
        ("elsewhere", "answered with status 302"),
        ("rate limited", "asked too often; it answers again in 30 s"),
        ("in trouble", "in trouble itself (status 503)"),
    ] {
        account.set("mode", mode);
        let refused = get(&sandbox, "team://Work/gcp/key").refused(7, said);
        assert!(!refused.stderr.contains("s3cret") && refused.stdout.is_empty(), "{}", refused.stderr);
    }
    account.set("mode", "");
    account.set("token", "another");
    get(&sandbox, "team://Work/gcp/key").refused(7, "does not take the token");
    let test = sandbox.keyloan(&["vault", "test", "team"]).run().refused(7, "would not answer");
    assert!(test.text().contains("team  refused: "), "{}", test.text());
    account.set("token", CONNECT_TOKEN);
    account.set("mode", "hanging");
    connect.forget();
    let mut child = sandbox.keyloan(&["item", "get", "team://Work/gcp/key"]).start();
    eventually("it is asked", || connect.requests().len() == 2);
    assert!(sandbox.keyloan(&["vault", "test", "local"]).run().ok().text().contains("ready"));
    child.kill().unwrap();
    child.wait().unwrap();
    account.set("mode", "");
    assert!(sandbox.keyloan(&["vault", "test", "team"]).run().ok().text().contains("team  ready"));
    drop(connect);
    get(&sandbox, "team://Work/gcp/key").refused(7, "nobody listens there");
    let log = std::fs::read_to_string(sandbox.log()).unwrap();
    assert!(!log.contains("s3cret") && !log.contains(CONNECT_TOKEN));
    assert!(sandbox.events("released").is_empty());
}

#[test]
fn a_server_that_does_not_prove_who_it_is_gets_no_token() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let _account = account(&sandbox);
    let authority = Authority::new(&sandbox);
    authority.sign("good", "IP:127.0.0.1", false);
    authority.sign("expired", "IP:127.0.0.1", true);
    authority.sign("other", "DNS:connect.example.org", false);
    authority.sign_itself("itself", false);
    authority.sign_itself("authority", true);
    let own = sandbox.path("tls/itself.pem").display().to_string();
    for (certificate, ca, said) in [
        ("expired", authority.ca(), "its certificate has expired"),
        ("other", authority.ca(), "its certificate is for another name"),
        ("itself", authority.ca(), "signed by nobody who is trusted here"),
        ("authority", authority.ca(), "its certificate is not acceptable"),
        ("good", own, "signed by nobody who is trusted here"),
    ] {
        let connect = Connect::start(&sandbox, Some(certificate));
        connect.link(Some(&ca), CONNECT_TOKEN).refused(7, said);
        assert!(connect.requests().iter().all(|request| request == "connection"));
    }
    // Not one that the system trusts either.
    let connect = Connect::start(&sandbox, Some("good"));
    let address = format!("address=https://127.0.0.1:{}", connect.port);
    let words = ["vault", "add", "team", "--kind", "onepassword", &address, "--passphrase-fd", "3"];
    sandbox.keyed(keyloan_e2e::PASSPHRASE, &words).run().refused(7, "has no token");
    let words = [
        "vault",
        "add",
        "team",
        "--kind",
        "onepassword",
        "address=http://connect.example.org",
        "--passphrase-fd",
        "3",
    ];
    sandbox.keyed(keyloan_e2e::PASSPHRASE, &words).run().refused(7, "is not encrypted");
    // In the clear to this machine alone; TLS is spoken to a server that knows none.
    let plain = Connect::start(&sandbox, None);
    plain.link(None, CONNECT_TOKEN).ok();
    assert_eq!(get(&sandbox, "team://Work/gcp/key").ok().text(), "s3cret");
    let words = ["vault", "add", "tls", "--kind", "onepassword"];
    let address = format!("address=https://127.0.0.1:{}", plain.port);
    let words = [&words[..], &[&address, "--passphrase-fd", "3", "--secret-fd", "token=4"]].concat();
    sandbox.keyed(keyloan_e2e::PASSPHRASE, &words).run().refused(7, "does not speak TLS as it should");
}

#[test]
fn the_callers_environment_leads_to_no_other_server() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let _account = account(&sandbox);
    let _connect = linked(&sandbox);
    sandbox.stop();
    let redirected = |run: keyloan_e2e::sandbox::Run| {
        run.env("HTTPS_PROXY", "http://127.0.0.1:9")
            .env("https_proxy", "http://127.0.0.1:9")
            .env("ALL_PROXY", "http://127.0.0.1:9")
            .env("SSL_CERT_FILE", "/evil")
            .env("OP_CONNECT_HOST", "http://127.0.0.1:9")
            .env("OP_CONNECT_TOKEN", "evil")
    };
    redirected(sandbox.keyed(keyloan_e2e::PASSPHRASE, &["unlock", "--passphrase-fd", "3"])).run().ok();
    let given = redirected(sandbox.keyloan(&["item", "get", "team://Work/gcp/key"])).run().ok();
    assert_eq!(given.text(), "s3cret");
}
