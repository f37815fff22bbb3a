//! Accounts that a server of OpenBao makes for one loan: they end with it. The server is a double.

use keyloan_e2e::openbao::{OpenBao, Tls};
use keyloan_e2e::{Sandbox, approver, eventually};
use serde_json::json;

const ROOT: &[(&str, &str)] = &[("token", "root-token")];

const MANIFEST: &str = "[env]\nDB_USER = \"team://database/creds/app/username\"\n\
    DB_PASSWORD = \"team://database/creds/app/password\"\n";

fn manifest(sandbox: &Sandbox, text: &str) {
    sandbox.write("project/.keyloan.toml", text);
    sandbox.keyloan(&["trust"]).run().ok();
}

/// A loan that lasts until it is ended, and the double with its one live lease.
fn lent(sandbox: &Sandbox, bao: &OpenBao, more: &[&str]) -> keyloan_e2e::Running {
    let arguments = [more, &["--", "sleep", "1000"]].concat();
    let running = keyloan_e2e::Running(sandbox.with_secrets(&arguments).start());
    eventually("it is lent", || sandbox.events("lent").len() == 1);
    assert_eq!(bao.live("leases").len(), 1);
    running
}

fn is_ended(sandbox: &Sandbox, bao: &OpenBao) {
    eventually("the lease ends", || bao.live("leases").is_empty());
    eventually("that is in the log", || !sandbox.events("lease_ended").is_empty());
    let ended = &sandbox.events("lease_ended")[0];
    assert_eq!(ended["vault"], "team");
    assert_eq!(ended["item"], "database/creds/app");
    assert_eq!(ended["loan"], sandbox.events("lent")[0]["loan"]);
    let log = std::fs::read_to_string(sandbox.log()).unwrap();
    assert!(!log.contains("pw-"));
}

#[test]
fn name_and_password_belong_together_and_end_with_the_command() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let bao = OpenBao::start(&sandbox);
    bao.link(&["mounts=database"], ROOT).ok();
    manifest(&sandbox, MANIFEST);
    let shown = sandbox.with_secrets(&["--", "sh", "-c", "echo $DB_USER $DB_PASSWORD"]).run().ok().text();
    assert!(shown.starts_with("v-app-") && shown.contains(" pw-"), "{shown}");
    assert_eq!(bao.requests("database/creds/app").len(), 1);
    is_ended(&sandbox, &bao);
    sandbox.with_secrets(&["--", "true"]).run().ok();
    assert_eq!(bao.requests("database/creds/app").len(), 2, "each loan has its own");
    eventually("the second one ends", || bao.live("leases").is_empty());
}

#[test]
fn it_ends_at_recall() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let bao = OpenBao::start(&sandbox);
    bao.link(&["mounts=database"], ROOT).ok();
    manifest(&sandbox, MANIFEST);
    let _running = lent(&sandbox, &bao, &[]);
    sandbox.keyloan(&["recall", "1"]).run().ok();
    is_ended(&sandbox, &bao);
}

#[test]
fn it_ends_when_the_vault_is_locked_and_with_it_the_sign_in() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let bao = OpenBao::start(&sandbox);
    bao.link(&["mounts=database", "role-id=role-1"], &[("secret-id", "sid-1")]).ok();
    manifest(&sandbox, MANIFEST);
    let _running = lent(&sandbox, &bao, &[]);
    sandbox.keyloan(&["lock"]).run().ok();
    is_ended(&sandbox, &bao);
    eventually("the token ends", || bao.live("tokens") == ["root-token"]);
    let order: Vec<_> = bao.requests("").iter().map(|one| one["path"].as_str().unwrap().to_owned()).collect();
    let revoked = order.iter().position(|path| path == "sys/leases/revoke").unwrap();
    assert!(order[revoked..].contains(&"auth/token/revoke-self".to_owned()), "{order:?}");
}

#[test]
fn it_ends_at_its_time_with_the_daemon_and_with_the_link() {
    for end in ["time", "stop", "unlink"] {
        let sandbox = Sandbox::with_approver(approver::ALLOW);
        let bao = OpenBao::start(&sandbox);
        bao.link(&["mounts=database"], ROOT).ok();
        manifest(&sandbox, MANIFEST);
        let _running = lent(&sandbox, &bao, if end == "time" { &["--for", "2s"] } else { &[] });
        match end {
            "stop" => sandbox.stop(),
            "unlink" => {
                let arguments = ["vault", "remove", "team", "--passphrase-fd", "3"];
                sandbox.keyed(keyloan_e2e::PASSPHRASE, &arguments).run().ok();
            }
            _ => {}
        }
        is_ended(&sandbox, &bao);
    }
}

#[test]
fn what_came_to_nothing_ends_at_once() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let bao = OpenBao::start(&sandbox);
    bao.link(&["mounts=database"], ROOT).ok();
    manifest(&sandbox, &format!("{MANIFEST}OTHER = \"team://nothing/x\"\n"));
    sandbox.with_secrets(&["--", "true"]).run().refused(125, "there is no item 'nothing'");
    assert_eq!(bao.requests("database/creds/app").len(), 1);
    eventually("it ends", || bao.live("leases").is_empty());
    eventually("that is in the log", || sandbox.events("lease_ended").len() == 1);
    assert!(sandbox.events("lease_ended")[0].get("loan").is_none() && sandbox.events("lent").is_empty());
}

#[test]
fn what_is_no_loan_gets_no_account_and_gets_what_has_no_end() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let bao = OpenBao::start(&sandbox);
    bao.link(&["mounts=database"], ROOT).ok();
    let refused = sandbox.keyloan(&["item", "get", "team://database/creds/app/password"]).run();
    let refused = refused.refused(7, "ends with the loan, and this is none");
    assert!(refused.stderr.contains("with-secrets") && refused.stdout.is_empty());
    eventually("it ends", || bao.live("leases").is_empty());
    let fixed = sandbox.keyloan(&["item", "get", "team://database/static-creds/app/password"]).run().ok();
    assert_eq!(fixed.text(), "static password");
}

#[test]
fn what_is_made_while_a_copy_looks_for_a_free_place_ends_at_once() {
    let sandbox = Sandbox::with_token(b"tok");
    let bao = OpenBao::start(&sandbox);
    bao.link(&["mounts=database"], ROOT).ok();
    let copy = ["item", "copy", "local://pypi/token", "team://database/creds/app/password"];
    let refused = sandbox.keyloan(&copy).run().refused(7, "is made anew each time");
    assert!(!refused.stderr.contains("--replace"), "{}", refused.stderr);
    eventually("it ends", || bao.live("leases").is_empty());
    eventually("that is in the log", || sandbox.events("lease_ended").len() == 1);
}

#[test]
fn it_is_tried_again_while_the_server_does_not_answer() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let bao = OpenBao::start(&sandbox);
    bao.link(&["mounts=database"], ROOT).ok();
    manifest(&sandbox, MANIFEST);
    let mut running = lent(&sandbox, &bao, &[]);
    bao.mode(&json!({"status": 503, "body": {"errors": ["Vault is sealed"]}}));
    running.end();
    eventually("it is tried", || !bao.requests("sys/leases/revoke").is_empty());
    assert!(sandbox.events("lease_left").is_empty());
    bao.answers_again();
    is_ended(&sandbox, &bao);
}

#[test]
fn what_the_server_does_not_let_it_end_is_written_down() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let bao = OpenBao::started(&sandbox, "bao", Tls::Good, &json!({"revoke": "denied"}));
    bao.link(&["mounts=database"], ROOT).ok();
    manifest(&sandbox, MANIFEST);
    sandbox.with_secrets(&["--", "true"]).run().ok();
    eventually("it is written down", || sandbox.events("lease_left").len() == 1);
    let left = &sandbox.events("lease_left")[0];
    assert_eq!(left["item"], "database/creds/app");
    assert!(left["cause"].as_str().unwrap().contains("sys/leases/revoke: permission denied"), "{left}");
}

/// A request for an account that the server does not answer, and whose asker is gone.
fn asked_in_vain(sandbox: &Sandbox, bao: &OpenBao, behave: &str) {
    bao.mode(&json!({"only": "database/creds/", "behave": behave}));
    let mut asking = keyloan_e2e::Running(sandbox.with_secrets(&["--", "true"]).start());
    eventually("it is asked for", || bao.requests("database/creds/").len() == 1);
    asking.end();
    sandbox.keyloan(&["status"]).run().ok();
    assert_eq!(bao.live("leases").len(), 1);
}

#[test]
fn what_is_made_after_its_asker_went_away_ends_too() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let bao = OpenBao::start(&sandbox);
    bao.link(&["mounts=database"], ROOT).ok();
    manifest(&sandbox, MANIFEST);
    asked_in_vain(&sandbox, &bao, "wait");
    bao.answers_again();
    eventually("it ends", || bao.live("leases").is_empty());
    eventually("that is in the log", || sandbox.events("lease_ended").len() == 1);
    assert!(sandbox.events("lent").is_empty());
}

#[test]
fn what_may_have_been_made_is_written_down_and_what_was_not_is_not() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let bao = OpenBao::start(&sandbox);
    bao.link(&["mounts=database"], ROOT).ok();
    manifest(&sandbox, MANIFEST);
    let at = |behave: &str| json!({"only": "database/creds/", "behave": behave});
    let denied = json!({"only": "database/creds/", "status": 400, "body": {"errors": ["no"]}});
    let gateway = json!({"only": "database/creds/", "status": 504});
    for (mode, left) in [(denied, 0), (at("cut"), 1), (at("garbage"), 2), (at("long"), 3), (gateway, 4)] {
        bao.mode(&mode);
        sandbox.with_secrets(&["--", "true"]).run().refused(125, "");
        eventually("it is written down", || sandbox.events("lease_left").len() == left);
    }
    for left in sandbox.events("lease_left") {
        assert_eq!(left["item"], "database/creds/app");
        assert!(left["cause"].as_str().unwrap().contains("whether it was made is not known"), "{left}");
    }
    assert!(sandbox.events("lease_ended").is_empty());
}

#[test]
fn what_is_still_asked_for_when_the_daemon_stops_is_written_down() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let bao = OpenBao::start(&sandbox);
    bao.link(&["mounts=database"], ROOT).ok();
    manifest(&sandbox, MANIFEST);
    asked_in_vain(&sandbox, &bao, "hang");
    sandbox.stop();
    let left = sandbox.events("lease_left");
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0]["item"], "database/creds/app");
}
