//! Everything that a server of OpenBao, or what stands in its place, can do wrong. The server is a double.

use keyloan_e2e::openbao::{self, OpenBao, Tls};
use keyloan_e2e::sandbox::Output;
use keyloan_e2e::{Sandbox, approver};
use serde_json::{Value, json};

const ROOT: &[(&str, &str)] = &[("token", "root-token")];

fn get(sandbox: &Sandbox) -> Output {
    sandbox.keyloan(&["item", "get", "team://ci/pypi/token"]).run()
}

fn state(sandbox: &Sandbox) -> Value {
    let tested = sandbox.keyloan(&["vault", "test", "team", "--json"]).run();
    let tested: Value = serde_json::from_slice(&tested.stdout).unwrap();
    tested[0]["state"].clone()
}

#[test]
fn answers_of_every_kind_are_told_apart_and_none_is_quoted() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let bao = OpenBao::start(&sandbox);
    bao.link(&["kv=2"], ROOT).ok();
    assert_eq!(state(&sandbox), "ready");
    let error = |status: u16, said: &str| json!({"status": status, "body": {"errors": [said]}});
    let mut limited = error(429, "request path \"s3cret\": rate limit quota exceeded");
    limited["headers"] = json!({"Retry-After": "7"});
    let mut wordy = limited.clone();
    wordy["headers"] = json!({"Retry-After": "never, s3cret"});
    let mut elsewhere = error(307, "s3cret");
    elsewhere["headers"] = json!({"Location": "https://elsewhere.example/v1/secret/data/ci/pypi"});
    for (mode, said, key) in [
        (error(403, "permission denied s3cret"), "not signed in", "signed_out"),
        (error(400, "s3cret"), "bad request", "refused"),
        (error(404, "no handler for route \"s3cret\""), "nothing of that kind", "refused"),
        (error(503, "Vault is sealed"), "locked: the server is sealed", "locked"),
        (error(500, "s3cret"), "the server failed (status 500)", "broken"),
        (error(502, "s3cret"), "nothing is behind the address", "unreachable"),
        (error(473, "s3cret"), "stands by", "unreachable"),
        (limited, "asked too often; it answers again in 7 s", "rate_limited"),
        (wordy, "asked too often; it answers again later", "rate_limited"),
        (elsewhere, "sends to another one, which keyloan does not follow", "refused"),
        (json!({"behave": "garbage"}), "no OpenBao and no Vault", "broken"),
        (json!({"status": 200, "body": {"data": "s3cret"}}), "no OpenBao and no Vault", "broken"),
        (json!({"status": 200, "body": ["s3cret"]}), "no OpenBao and no Vault", "broken"),
        (json!({"behave": "long"}), "is longer than", "broken"),
        (json!({"behave": "endless"}), "is longer than", "broken"),
        (json!({"behave": "cut"}), "the connection broke", "unreachable"),
    ] {
        bao.mode(&mode);
        let refused = get(&sandbox).refused(7, said);
        assert!(!refused.stderr.contains("s3cret") && refused.stdout.is_empty(), "{}", refused.stderr);
        assert_eq!(state(&sandbox), key, "{mode}");
        bao.answers_again();
        assert_eq!(get(&sandbox).ok().text(), "tok");
    }
    let log = std::fs::read_to_string(sandbox.log()).unwrap();
    assert!(!log.contains("s3cret"));
    let pid = sandbox.daemon().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 300_000, "{peak} kB");
}

#[test]
fn a_time_without_end_ends_nothing_here() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let bao = OpenBao::start(&sandbox);
    bao.link(&[], ROOT).ok();
    let daemon = sandbox.daemon();
    let auth = json!({"client_token": "x", "lease_duration": u64::MAX, "renewable": true});
    for about in [
        json!({"creation_ttl": u64::MAX, "ttl": u64::MAX, "renewable": true}),
        json!({"creation_ttl": u64::MAX, "ttl": 1, "renewable": true}),
    ] {
        bao.mode(&json!({"only": "auth/token/", "status": 200, "body": {"data": about, "auth": auth}}));
        for _ in 0..3 {
            assert_eq!(state(&sandbox), "ready");
        }
        sandbox.keyloan(&["lock"]).run().ok();
        sandbox.unlock().ok();
    }
    assert_eq!(sandbox.daemon(), daemon, "it is the same process");
}

#[test]
fn a_list_without_end_is_given_up_at_once() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let bao = OpenBao::start(&sandbox);
    bao.link(&["kv=2"], ROOT).ok();
    for end in ["", "/"] {
        let before = bao.requests("secret/metadata/").len();
        let keys: Vec<String> = (0..40_000).map(|at| format!("{at}{end}")).collect();
        bao.mode(&json!({"only": "secret/metadata/", "status": 200, "body": {"data": {"keys": keys}}}));
        let listed = sandbox.keyloan(&["item", "list", "--vault", "team"]).run();
        listed.refused(7, "it has more than 20000 items, or 1000 folders");
        assert_eq!(bao.requests("secret/metadata/").len(), before + 1);
    }
}

#[test]
fn answers_that_are_too_much_together_are_not_gathered() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let bao = OpenBao::start(&sandbox);
    bao.link(&["kv=1"], ROOT).ok();
    let large =
        json!({"status": 200, "body": {"data": {"a": "x".repeat(6 * 1024 * 1024)}}, "only": "secret/"});
    let line = |at: usize| format!("V{at} = \"team://large/{at}/a\"\n");
    sandbox.write("project/.keyloan.toml", format!("[env]\n{}", (0..20).map(line).collect::<String>()));
    sandbox.keyloan(&["trust"]).run().ok();
    bao.mode(&large);
    sandbox.with_secrets(&["--", "true"]).run().refused(125, "more than 32 MiB together");
    assert_eq!(bao.requests("secret/large/").len(), 6);
}

#[test]
fn a_server_that_hangs_ends_in_an_error_and_delays_nobody_else() {
    let sandbox = Sandbox::with_token(b"local");
    let bao = OpenBao::start(&sandbox);
    bao.link(&[], ROOT).ok();
    bao.mode(&json!({"behave": "hang"}));
    let hanging = sandbox.keyloan(&["item", "get", "team://ci/pypi/token"]).start();
    keyloan_e2e::eventually("it hangs", || bao.requests("").len() > 1);
    assert_eq!(sandbox.keyloan(&["item", "get", "local://pypi/token"]).run().ok().text(), "local");
    keyloan_e2e::sandbox::finished(hanging).refused(7, "did not answer in time");
}

#[test]
fn a_connection_that_the_server_ends_after_each_answer_is_made_anew() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let bao = OpenBao::start(&sandbox);
    bao.link(&[], ROOT).ok();
    bao.mode(&json!({"close": true, "headers": {"Connection": "close"}}));
    assert_eq!(get(&sandbox).ok().text(), "tok");
}

#[test]
fn a_server_that_cannot_be_trusted_gets_no_token() {
    for (tls, said) in [
        (Tls::Expired, "its certificate has expired"),
        (Tls::OtherName, "its certificate is for another name"),
        (Tls::OtherCa, "signed by nobody who is trusted here"),
    ] {
        let sandbox = Sandbox::with_approver(approver::ALLOW);
        let bao = OpenBao::started(&sandbox, "bao", tls, &json!({}));
        bao.link(&[], ROOT).refused(7, said);
        assert!(bao.requests("").is_empty());
    }
}

#[test]
fn nothing_goes_in_the_clear_but_to_this_machine() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let bao = OpenBao::started(&sandbox, "bao", Tls::None, &json!({}));
    let address = |text: String| vec![format!("address={text}")];
    let port = bao.port();
    let to_tls = openbao::link(&sandbox, &address(format!("https://127.0.0.1:{port}")), ROOT);
    to_tls.refused(7, "does not speak TLS");
    for far in ["http://10.0.0.1:8200", "http://localhost:8200", "http://bao.example"] {
        openbao::link(&sandbox, &address(far.to_owned()), ROOT).refused(7, "is not encrypted");
    }
    let nobody = openbao::link(&sandbox, &address("https://127.0.0.1:1".to_owned()), ROOT);
    nobody.refused(7, "nobody listens there");
    assert!(bao.requests("").is_empty());
    bao.link(&[], ROOT).ok();
    assert_eq!(get(&sandbox).ok().text(), "tok");
}
