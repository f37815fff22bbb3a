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
    let certainty = |name: &str| {
        let lines = questions[0].0["lines"].as_array().unwrap().iter();
        let of = lines.filter(|line| line["text"].as_str().unwrap().starts_with(name));
        of.map(|line| line["certainty"].as_str().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(
        (certainty("PYPI "), certainty("KEY "), certainty("OWN ")),
        (vec!["asked"], vec!["asked"], vec!["verified"])
    );
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

/// A store whose gpg is a script of the test's, which may well call the real one.
fn with_gpg<'a>(sandbox: &'a Sandbox, script: &str) -> Store<'a> {
    let store = Store::new(sandbox);
    let gpg = sandbox.write_program("home/gpg", format!("#!/bin/sh\n{script}\n"));
    let setting = format!("gpg={}", gpg.display());
    let arguments = ["vault", "add", "pass", &setting, "--passphrase-fd", "3"];
    sandbox.keyed(keyloan_e2e::PASSPHRASE, &arguments).run().ok();
    store
}

#[test]
fn twenty_references_cost_one_process_a_file() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let count = sandbox.path("run/count");
    let script = format!("echo \"$*\" >>{}; exec /usr/bin/gpg \"$@\"", count.display());
    let store = with_gpg(&sandbox, &script);
    let fields = (0..20).map(|at| format!("f{at}: v{at}\n")).collect::<Vec<_>>().concat();
    store.insert("one", format!("pw\n{fields}"));
    store.insert("two", "pw\n");
    std::fs::remove_file(&count).unwrap();
    let lines = (0..20).map(|at| format!("V{at} = \"pass://one/f{at}\"\n")).collect::<Vec<_>>().concat();
    sandbox.write("project/.keyloan.toml", format!("[env]\n{lines}TWO = \"pass://two/password\"\n"));
    sandbox.keyloan(&["trust"]).run().ok();
    let lent = sandbox.with_secrets(&["--", "sh", "-c", "echo $V0 $V19 $TWO"]).run().ok();
    assert_eq!(lent.text(), "v0 v19 pw\n");
    assert_eq!(std::fs::read_to_string(&count).unwrap().lines().count(), 2);
}

#[test]
fn a_gpg_that_fails_in_every_way_is_told_apart() {
    let ready = "case \"$*\" in *list-secret-keys*) exec /usr/bin/gpg \"$@\";; esac";
    for (fails, said) in [
        ("echo garbage", "gpg cannot make sense of 'web'"),
        ("echo s3cret; kill -9 $$", "died of signal 9"),
        ("head -c 1000000000 /dev/zero", "printed more than"),
        ("echo '[GNUPG:] DECRYPTION_OKAY' >&2; echo x; exit 1", "gpg cannot make sense of 'web'"),
        ("echo '[GNUPG:] ENC_TO 1 1 0' >&2; echo '[GNUPG:] NO_SECKEY 1' >&2; exit 2", "no secret key"),
    ] {
        let sandbox = Sandbox::with_approver(approver::ALLOW);
        let store = with_gpg(&sandbox, &format!("{ready}\n{fails}"));
        store.insert("web", "pw\n");
        let refused = sandbox.keyloan(&["item", "get", "pass://web/password"]).run().refused(7, said);
        assert!(!refused.stderr.contains("s3cret"), "{}", refused.stderr);
    }
}

#[test]
fn a_store_that_is_none_and_a_file_that_is_none_are_told_apart() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let add =
        || sandbox.keyed(keyloan_e2e::PASSPHRASE, &["vault", "add", "pass", "--passphrase-fd", "3"]).run();
    add().refused(7, "is no password store");
    let store = Store::new(&sandbox);
    sandbox.write("home/.password-store/.gpg-id", "somebody@example.org\n");
    add().refused(7, "no secret key for somebody@example.org");
    store.pass(&["init", "keyloan@example.org"]).run().ok();
    add().ok();
    let silent = sandbox.write_program("home/silent", "#!/bin/sh\n");
    let other = format!("gpg={}", silent.display());
    let other = ["vault", "add", "other", "--kind", "pass", &other, "--passphrase-fd", "3"];
    sandbox.keyed(keyloan_e2e::PASSPHRASE, &other).run().refused(7, "is not the gpg that it should be");
    sandbox.write("home/.password-store/broken.gpg", "not encrypted");
    sandbox.make_directory("home/.password-store/directory.gpg");
    sandbox.command("/usr/bin/mkfifo", &["../home/.password-store/pipe.gpg"]).run().ok();
    let get = |item: &str| sandbox.keyloan(&["item", "get", &format!("pass://{item}/password")]).run();
    get("broken").refused(7, "gpg cannot make sense of 'broken'");
    get("directory").refused(7, "no regular file");
    get("pipe").refused(7, "no regular file");
}

#[test]
fn an_item_titled_with_a_directory_lends_its_variables_from_a_password_store() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let store = lending(&sandbox);
    store.insert("~/coverage", "# coverage\nTOKEN=a=b\nLD_PRELOAD=/tmp/x.so\nOTHER=2\n");
    store.insert("staging", "\nSTAGE=1\nOTHER=3\n");
    let directory = sandbox.make_directory("home/coverage");
    let below = sandbox.make_directory("home/coverage/src");
    let asked = sandbox.path("run/asked");
    sandbox.set_approver(approver::keeping(&asked));
    let line = "echo \"$TOKEN|$OTHER|$LD_PRELOAD|$STAGE\"";
    let lent = sandbox.with_secrets(&["--", "sh", "-c", line]).within(&below).run().ok();
    assert_eq!(lent.text(), "a=b|2||\n");
    assert!(lent.stderr.contains("LD_PRELOAD of pass://~/coverage/vars is not lent"), "{}", lent.stderr);
    let question = &approver::questions(&asked)[0];
    assert_eq!(question.title(), "lend 1 whole set to a command");
    question.says("lends", "every variable of pass://~/coverage/vars, as that vault has them", "asked");
    assert_eq!(sandbox.events("lent")[0]["names"], serde_json::json!(["TOKEN", "OTHER"]));
    // Named sets, later ones win, and one variable of them.
    let sets = ["-s", "~/coverage", "-s", "staging", "--"];
    let both = sandbox.with_secrets(&[&sets[..], &["sh", "-c", line]].concat()).run().ok();
    assert_eq!(both.text(), "a=b|3||1\n");
    let only = ["-s", "staging", "--only", "STAGE", "--", "sh", "-c", line];
    assert_eq!(sandbox.with_secrets(&only).run().ok().text(), "|||1\n");
    let none = ["-s", "staging", "--only", "NOTHING", "--", "true"];
    sandbox.with_secrets(&none).run().refused(125, "no set that was asked for has NOTHING");
    // An item of the local vault is nearer than one of the same title elsewhere.
    sandbox.keyloan(&["item", "set", "~/coverage", "vars"]).stdin("TOKEN=local\n").run().ok();
    let lent = sandbox.with_secrets(&["--", "sh", "-c", line]).within(&directory).run().ok();
    assert_eq!(lent.text(), "local|||\n");
}
