//! A server of OpenBao as a linked vault: signing in, reading, writing. The server is a double.

use keyloan_e2e::openbao::{OpenBao, Tls};
use keyloan_e2e::sandbox::Output;
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{PASSPHRASE, Sandbox, approver};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::Duration;

const ROOT: &[(&str, &str)] = &[("token", "root-token")];
const ROLE: &[(&str, &str)] = &[("secret-id", "sid-1")];

fn get(sandbox: &Sandbox, reference: &str) -> Output {
    sandbox.keyloan(&["item", "get", reference]).run()
}

/// How many requests had a path that begins so.
fn count(bao: &OpenBao, path: &str) -> usize {
    bao.requests(path).len()
}

#[test]
fn values_of_both_versions_of_kv_are_read_as_they_are() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let bao = OpenBao::start(&sandbox);
    let added = bao.link(&["mounts=old apps/kv"], ROOT).ok();
    assert!(added.stderr.contains("added: team, and it answers"), "{}", added.stderr);
    for (reference, value) in [
        ("team://ci/pypi/token", "tok"),
        ("team://ci/pypi/n", "12345678901234567890123"),
        ("team://ci/pypi/empty", ""),
        ("team://ü \"x\"?/it's #1/päss%2Fword", "zwei\nlines"),
        ("team://old/ci/pypi/token", "from v1"),
        ("team://old/ci/pypi/port", "22"),
        ("team://apps/kv/web/key", "other mount"),
    ] {
        assert_eq!(get(&sandbox, reference).ok().text(), value, "{reference}");
    }
    for (reference, status, said) in [
        ("team://ci/nothing/x", 1, "there is no item 'ci/nothing'"),
        ("team://ci/pypi/x", 1, "there is no field 'x'"),
        ("team://ci/pypi/none", 1, "there is no field 'none'"),
        ("team://gone/a", 1, "the newest version of 'gone' was deleted"),
        ("team://old/none/a", 1, "there is no item 'old/none'"),
        ("team://denied/x/a", 7, "denied/x: permission denied"),
        ("team://ci/../denied/x/a", 7, "is no path there"),
        ("team://ci//pypi/token", 7, "is no path there"),
    ] {
        get(&sandbox, reference).refused(status, said);
    }
    assert_eq!(count(&bao, "secret/data/ci/.."), 0);
    let listed = sandbox.keyloan(&["item", "list", "--vault", "team"]).run().ok().text();
    for item in ["ci/pypi", "ci/deep/er", "old/ci/pypi", "apps/kv/web", "ü \"x\"?/it's #1"] {
        assert!(listed.lines().any(|line| line.contains(item)), "{item} is not in {listed}");
    }
}

#[test]
fn twenty_fields_of_an_item_cost_one_request_and_several_items_one_connection() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let bao = OpenBao::start(&sandbox);
    bao.link(&[], ROOT).ok();
    let mut manifest = "[env]\nTOKEN = \"team://ci/pypi/token\"\nA = \"team://ci/deep/er/a\"\n".to_owned();
    for n in 0..20 {
        let _ = writeln!(manifest, "V{n:02} = \"team://big/f{n:02}\"");
    }
    sandbox.write("project/.keyloan.toml", manifest);
    sandbox.keyloan(&["trust"]).run().ok();
    let said = sandbox.with_secrets(&["--", "sh", "-c", "echo $V00 $V19 $TOKEN $A"]).run().ok().text();
    assert_eq!(said, "v0 v19 tok 1\n");
    let read = bao.requests("secret/data/");
    assert_eq!(read.len(), 3, "{read:?}");
    assert!(read.iter().all(|one| one["peer"] == read[0]["peer"]), "{read:?}");
}

#[test]
fn a_field_is_written_and_the_others_stay_as_they_were() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let bao = OpenBao::start(&sandbox);
    bao.link(&["mounts=old database"], ROOT).ok();
    let set = |reference: &str, value: &[u8]| sandbox.keyloan(&["item", "set", reference]).stdin(value).run();
    set("team://ci/pypi/token", b"new \"1\"\n").ok();
    set("team://fresh/ü/password", b"x").ok();
    set("team://gone/b", b"2").ok();
    set("team://old/ci/pypi/token", b"newer").ok();
    assert_eq!(get(&sandbox, "team://ci/pypi/token").ok().text(), "new \"1\"\n");
    assert_eq!(get(&sandbox, "team://ci/pypi/n").ok().text(), "12345678901234567890123");
    assert_eq!(get(&sandbox, "team://gone/b").ok().text(), "2");
    get(&sandbox, "team://gone/a").refused(1, "no field");
    assert_eq!(get(&sandbox, "team://old/ci/pypi/port").ok().text(), "22");
    let written = bao.requests("secret/data/ci/pypi");
    let written = written.iter().find(|request| request["method"] == "POST").unwrap();
    assert_eq!(written["body"]["options"]["cas"], 1);
    // Somebody else was faster.
    let said = json!({"errors": ["check-and-set parameter did not match the current version"]});
    let posted =
        |bao: &OpenBao| bao.requests("secret/data/").iter().filter(|r| r["method"] == "POST").count();
    let before = posted(&bao);
    set("team://ci/pypi/token", b"\xff").refused(7, "UTF-8");
    set("team://database/creds/app/password", b"x").refused(7, "is not written");
    set("team://denied/x/a", b"x").refused(7, "permission denied");
    assert_eq!(posted(&bao), before);
    bao.mode(&json!({"only": "secret/data/ci/pypi", "method": "POST", "status": 400, "body": said}));
    set("team://ci/pypi/token", b"late").refused(7, "somebody else changed 'ci/pypi'");
    bao.answers_again();
    assert_eq!(get(&sandbox, "team://ci/pypi/token").ok().text(), "new \"1\"\n");
}

#[test]
fn a_role_signs_in_once_and_its_token_ends_with_the_lock() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let bao = OpenBao::start(&sandbox);
    bao.link(&["role-id=role-1"], ROLE).ok();
    keyloan_e2e::eventually("the token of the try is revoked", || bao.live("tokens") == ["root-token"]);
    let before = count(&bao, "auth/approle/login");
    for _ in 0..3 {
        assert_eq!(get(&sandbox, "team://ci/pypi/token").ok().text(), "tok");
    }
    assert_eq!(count(&bao, "auth/approle/login"), before + 1);
    assert_eq!(bao.live("tokens").len(), 2);
    sandbox.keyloan(&["lock"]).run().ok();
    keyloan_e2e::eventually("the token is revoked", || bao.live("tokens") == ["root-token"]);
    let kept = sandbox.keyloan(&["vault", "list"]).run();
    assert!(!kept.text().contains("sid-1"));
    sandbox.unlock().ok();
    assert_eq!(get(&sandbox, "team://ci/pypi/token").ok().text(), "tok");
    bao.link(&["role-id=role-1", "--replace"], &[("secret-id", "wrong")]).refused(7, "not signed in");
    assert_eq!(get(&sandbox, "team://ci/pypi/token").ok().text(), "tok", "the link is as it was");
}

#[test]
fn tokens_are_renewed_while_they_are_used_and_got_anew_where_that_is_not_enough() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let settings = json!({"ttl": 3, "renewals": 1, "tokens": ["mine"]});
    let bao = OpenBao::started(&sandbox, "bao", Tls::Good, &settings);
    let read = || assert_eq!(get(&sandbox, "team://ci/pypi/token").ok().text(), "tok");
    // Longer than two thirds of its time.
    let wait = || std::thread::sleep(Duration::from_millis(2200));
    bao.link(&[], &[("token", "mine")]).ok();
    read();
    wait();
    read();
    assert!(count(&bao, "auth/token/renew-self") > 0);
    assert_eq!(count(&bao, "auth/token/revoke-self"), 0, "keyloan did not make it");
    bao.link(&["role-id=role-1", "--replace"], ROLE).ok();
    read();
    let (logins, renewals) = (count(&bao, "auth/approle/login"), count(&bao, "auth/token/renew-self"));
    for _ in 0..2 {
        wait();
        read();
    }
    assert!(count(&bao, "auth/token/renew-self") > renewals);
    assert!(count(&bao, "auth/approle/login") > logins, "it is renewed once, and then not for long");
}

#[test]
fn a_token_that_cannot_be_renewed_just_now_is_used_as_it_is() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let bao = OpenBao::started(&sandbox, "bao", Tls::Good, &json!({"ttl": 3, "tokens": ["mine"]}));
    bao.link(&[], &[("token", "mine")]).ok();
    assert_eq!(get(&sandbox, "team://ci/pypi/token").ok().text(), "tok");
    std::thread::sleep(Duration::from_millis(2200));
    bao.mode(&json!({"only": "auth/token/renew-self", "status": 500}));
    assert_eq!(get(&sandbox, "team://ci/pypi/token").ok().text(), "tok");
    assert!(count(&bao, "auth/token/renew-self") > 0);
}

#[test]
fn a_token_that_the_server_forgot_is_got_anew_by_a_role() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let bao = OpenBao::start(&sandbox);
    bao.link(&["role-id=role-1"], ROLE).ok();
    assert_eq!(get(&sandbox, "team://ci/pypi/token").ok().text(), "tok");
    get(&sandbox, "team://denied/x/a").refused(7, "permission denied");
    let logins = count(&bao, "auth/approle/login");
    let port = bao.port();
    drop(bao);
    std::fs::remove_file(sandbox.path("bao/port")).unwrap();
    // It has forgotten all tokens.
    let bao = OpenBao::started(&sandbox, "bao", Tls::Good, &json!({"port": port}));
    assert_eq!(get(&sandbox, "team://ci/pypi/token").ok().text(), "tok");
    assert_eq!(count(&bao, "auth/approle/login"), logins + 1, "a policy's no is not taken for that");
}

#[test]
fn a_login_whose_asker_went_away_is_known_and_ends_with_the_lock() {
    for is_locked_before in [false, true] {
        let sandbox = Sandbox::with_approver(approver::ALLOW);
        let bao = OpenBao::start(&sandbox);
        bao.link(&["role-id=role-1"], ROLE).ok();
        keyloan_e2e::eventually("the token of the try is revoked", || bao.live("tokens") == ["root-token"]);
        let logins = count(&bao, "auth/approle/login") + 1;
        bao.mode(&json!({"only": "auth/approle/login", "behave": "wait"}));
        for _ in 0..3 {
            let test = sandbox.keyloan(&["vault", "test", "team"]).start();
            keyloan_e2e::eventually("it signs in", || count(&bao, "auth/approle/login") == logins);
            keyloan_e2e::Running(test).end();
            sandbox.keyloan(&["status"]).run().ok();
        }
        assert_eq!(bao.live("tokens").len(), 2, "one login for all");
        if is_locked_before {
            sandbox.keyloan(&["lock"]).run().ok();
        }
        bao.answers_again();
        sandbox.keyloan(&["lock"]).run().ok();
        keyloan_e2e::eventually("the token ends", || bao.live("tokens") == ["root-token"]);
    }
}

#[test]
fn the_login_of_a_link_that_was_given_up_ends() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let bao = OpenBao::start(&sandbox);
    bao.mode(&json!({"only": "auth/approle/login", "behave": "wait"}));
    let linking = bao.linking(&["role-id=role-1"], ROLE).start();
    keyloan_e2e::eventually("it signs in", || count(&bao, "auth/approle/login") == 1);
    keyloan_e2e::Running(linking).end();
    sandbox.keyloan(&["status"]).run().ok();
    assert_eq!(bao.live("tokens").len(), 2);
    bao.answers_again();
    keyloan_e2e::eventually("the token ends", || bao.live("tokens") == ["root-token"]);
}

#[test]
fn a_token_file_is_read_anew_each_time() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let bao = OpenBao::start(&sandbox);
    let file = sandbox.write("home/token", "old-token\n");
    let setting = format!("token-file={}", file.display());
    bao.link(&[&setting], &[]);
    let refused = get(&sandbox, "team://ci/pypi/token").refused(7, "not signed in");
    assert!(refused.stderr.contains("home/token holds no token that is good"), "{}", refused.stderr);
    sandbox.write("home/token", "root-token\n");
    assert_eq!(get(&sandbox, "team://ci/pypi/token").ok().text(), "tok");
    std::fs::remove_file(&file).unwrap();
    get(&sandbox, "team://ci/pypi/token").refused(7, "not signed in");
    sandbox.write("home/token", "two words\n");
    get(&sandbox, "team://ci/pypi/token").refused(7, "is no token");
    sandbox.keyloan(&["lock"]).run().ok();
    assert_eq!(count(&bao, "auth/token/revoke-self"), 0, "it belongs to whoever wrote the file");
}

#[test]
fn a_wrapped_secret_id_is_unwrapped_once_and_a_used_one_is_told() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let bao = OpenBao::start(&sandbox);
    let role = "role-id=role-1";
    bao.link(&[role], &[("wrapped-secret-id", "wrap-forged")]).refused(7, "was not made for a secret id");
    assert_eq!(count(&bao, "sys/wrapping/unwrap"), 0);
    bao.link(&[role], &[("wrapped-secret-id", "wrap-1")]).ok();
    assert_eq!(get(&sandbox, "team://ci/pypi/token").ok().text(), "tok");
    let listed = sandbox.keyloan(&["vault", "list"]).run().ok().text();
    assert!(listed.contains("secret-id is kept") && !listed.contains("wrapped"), "{listed}");
    let again = bao.link(&[role, "--replace"], &[("wrapped-secret-id", "wrap-1")]);
    again.refused(7, "somebody who took it");
    sandbox.stop();
    sandbox.unlock().ok();
    assert_eq!(get(&sandbox, "team://ci/pypi/token").ok().text(), "tok", "the link is as it was");
}

#[test]
fn a_wrapped_secret_id_that_was_unwrapped_for_nothing_is_told() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let bao = OpenBao::start(&sandbox);
    let wrapped = &[("wrapped-secret-id", "wrap-1")];
    bao.link(&["role-id=typo"], wrapped).refused(7, "not signed in; the wrapping token is used up by that");
    bao.link(&["role-id=role-1"], wrapped).refused(7, "if not by a 'vault add' of yours");
    assert_eq!(bao.live("tokens"), ["root-token"]);
}

#[test]
fn every_request_names_the_namespace() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let bao = OpenBao::started(&sandbox, "bao", Tls::Good, &json!({"namespace": "team/ci"}));
    bao.link(&["role-id=role-1", "namespace=team/ci"], ROLE).ok();
    assert_eq!(get(&sandbox, "team://ci/pypi/token").ok().text(), "tok");
    let requests = bao.requests("");
    assert!(requests.iter().all(|request| request["namespace"] == "team/ci"), "{requests:?}");
    let other = bao.link(&["role-id=role-1", "namespace=team/other", "--replace"], ROLE);
    other.refused(7, "not signed in");
}

#[test]
fn nothing_of_the_callers_environment_is_believed() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let bao = OpenBao::start(&sandbox);
    let evil = OpenBao::started(&sandbox, "evil", Tls::None, &json!({}));
    bao.link(&[], ROOT).ok();
    sandbox.stop();
    let poisoned = |run: keyloan_e2e::sandbox::Run| {
        ["VAULT_ADDR", "BAO_ADDR", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"]
            .into_iter()
            .fold(run, |run, name| run.env(name, evil.address()))
            .env("VAULT_TOKEN", "evil-token")
            .env("VAULT_NAMESPACE", "evil")
            .env("VAULT_SKIP_VERIFY", "1")
            .env("SSL_CERT_FILE", "/dev/null")
    };
    poisoned(sandbox.keyed(PASSPHRASE, &["unlock", "--passphrase-fd", "3"])).run().ok();
    let read = poisoned(sandbox.keyloan(&["item", "get", "team://ci/pypi/token"])).run().ok();
    assert_eq!(read.text(), "tok");
    assert!(evil.requests("").is_empty());
    let with_evil = |request: &Value| request["token"] == "evil-token" || !request["namespace"].is_null();
    assert!(!bao.requests("").iter().any(with_evil));
}

#[test]
fn what_cannot_be_meant_is_refused_when_it_is_linked() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let bao = OpenBao::start(&sandbox);
    for (settings, said) in [
        (&["kv=3"][..], "kv takes 1 or 2"),
        (&["mount=auth"], "is no engine"),
        (&["mounts=secret"], "two names"),
        (&["role-id=role-1", "token-file=/x"], "two ways to sign in"),
    ] {
        bao.link(settings, ROOT).refused(7, said);
    }
    bao.link(&["mounts=nowhere", "kv=2"], ROOT).ok();
    get(&sandbox, "team://nowhere/a/b").refused(7, "there is no engine 'nowhere'");
    assert_eq!(get(&sandbox, "team://ci/pypi/token").ok().text(), "tok");
}

#[test]
fn on_a_terminal_only_what_most_links_need_is_asked() {
    let sandbox = Sandbox::with_vault();
    let bao = OpenBao::start(&sandbox);
    let terminal = Terminal::open(&sandbox);
    terminal.run("keyloan vault add team --kind openbao");
    let ca = sandbox.path("ca.pem").display().to_string();
    for (asked, typed) in [
        ("address of the server (https://…):", bao.address().as_str()),
        ("file with the certificate that signs the server's [none]:", &ca),
        ("engine that the items lie in [secret]:", ""),
        ("role id of an AppRole, nothing for a token [none]:", ""),
        ("assphrase", PASSPHRASE),
        ("token of team", "root-token"),
        ("secret id of the AppRole of team", ""),
    ] {
        terminal.expect(asked);
        if !typed.is_empty() {
            terminal.type_text(typed);
        }
        terminal.press("Enter");
    }
    let screen = terminal.expect("added: team, and it answers");
    assert!(!screen.contains("root-token"), "{screen}");
}
