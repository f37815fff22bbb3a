//! A password store as a linked vault: made by the real `pass`, read by way of the real gpg.

use keyloan_e2e::pass::Store;
use keyloan_e2e::{Sandbox, approver};

const MANIFEST: &str = "[env]\nPYPI = \"pass://web/pypi/password\"\nUSER_NAME = \"pass://web/pypi/user\"\n\
                        OWN = \"local://pypi/token\"\n[files]\nKEY = \"pass://keys/it's ü/all\"\n";

fn lending(sandbox: &Sandbox) -> Store<'_> {
    let store = Store::new(sandbox);
    store.insert("web/pypi", "pypi-tok\nuser: me\n");
    store.insert("keys/it's ü", "line 1\nline 2\n");
    store.link();
    sandbox.write("project/.keyloan.toml", MANIFEST);
    sandbox.keyloan(&["item", "set", "pypi", "token"]).stdin("own").run().ok();
    sandbox.keyloan(&["trust"]).run().ok();
    store
}

#[test]
fn one_yes_lends_from_a_password_store_and_the_local_vault_and_names_both() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let _store = lending(&sandbox);
    let asked = sandbox.path("run/asked");
    sandbox.set_approver(approver::keeping(&asked));
    let line = "echo $PYPI $USER_NAME $OWN; cat $KEY";
    let lent = sandbox.with_secrets(&["--", "sh", "-c", line]).run().ok();
    assert_eq!(lent.text(), "pypi-tok me own\nline 1\nline 2\n");
    let questions = approver::questions(&asked);
    assert_eq!(questions.len(), 1);
    let shown = questions[0].0.to_string();
    for reference in ["pass://web/pypi/password", "pass://keys/it's ü/all", "local://pypi/token"] {
        assert!(shown.contains(reference), "{shown}");
    }
    assert_eq!(sandbox.events("lent").len(), 1);
}

#[test]
fn values_are_read_behind_a_yes_and_names_without_one() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let _store = lending(&sandbox);
    let listed = sandbox.keyloan(&["item", "list", "--vault", "pass"]).run().ok();
    assert_eq!(listed.text(), "keys/it's ü\nweb/pypi\n");
    let listed = sandbox.keyloan(&["item", "list", "--vault", "pass", "--references"]).run().ok();
    assert!(listed.text().contains("pass://web/pypi/password\n"), "{}", listed.text());
    assert_eq!(sandbox.keyloan(&["item", "get", "pass://web/pypi/user"]).run().ok().text(), "me");
    sandbox.set_approver(approver::DENY);
    sandbox.keyloan(&["item", "get", "pass://web/pypi/user"]).run().refused(6, "it was declined");
    assert_eq!(sandbox.events("released").len(), 1);
}

#[test]
fn what_is_missing_is_named() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let _store = lending(&sandbox);
    for (reference, status, said) in [
        ("pass://web/nowhere/password", 1, "there is no item 'web/nowhere'"),
        ("pass://web/pypi/nothing", 1, "there is no field 'nothing' in item 'web/pypi'"),
        ("pass://../../etc/x/password", 1, "there is no item '../../etc/x'"),
        ("nowhere://a/b", 1, "there is no vault 'nowhere' (there is: local, pass)"),
        ("op://Work/a/b", 1, "there is no vault 'op'"),
    ] {
        sandbox.keyloan(&["item", "get", reference]).run().refused(status, said);
    }
}

#[test]
fn a_store_whose_key_is_locked_says_so_and_how_to_go_on() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let store = lending(&sandbox);
    store.lock();
    let refused = sandbox.keyloan(&["item", "get", "pass://web/pypi/user"]).run();
    let refused = refused.refused(7, "locked");
    assert!(refused.stderr.contains("hint: "), "{}", refused.stderr);
    store.unlock();
    sandbox.keyloan(&["item", "get", "pass://web/pypi/user"]).run().ok();
}

#[test]
fn the_callers_environment_is_not_believed() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let _store = lending(&sandbox);
    sandbox.stop();
    let evil = sandbox.make_directory("run/evil");
    let started = |run: keyloan_e2e::sandbox::Run| {
        run.env("GNUPGHOME", &evil).env("PASSWORD_STORE_DIR", &evil).env("PATH", &evil)
    };
    // The daemon is started by the first of these.
    started(sandbox.keyed(keyloan_e2e::PASSPHRASE, &["unlock", "--passphrase-fd", "3"])).run().ok();
    let given = started(sandbox.keyloan(&["item", "get", "pass://web/pypi/user"])).run().ok();
    assert_eq!(given.text(), "me");
}
