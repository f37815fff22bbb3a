//! Copies from one vault to another, the names of a linked vault's items, and one-time passwords whose key lies there.

use crate::vault_keepass::{self, PASSWORD};
use keyloan_e2e::approver::{self, questions};
use keyloan_e2e::pass::Store;
use keyloan_e2e::sandbox::Output;
use keyloan_e2e::{PASSPHRASE, PIN, Sandbox, terminal::Terminal};
use std::fs;

fn keyloan(sandbox: &Sandbox, line: &[&str]) -> Output {
    sandbox.keyloan(line).run()
}

fn copy(sandbox: &Sandbox, from: &str, to: &str) -> Output {
    keyloan(sandbox, &["item", "copy", from, to])
}

fn value(sandbox: &Sandbox, reference: &str) -> String {
    keyloan(sandbox, &["item", "get", reference]).ok().text()
}

/// A `command` vault whose program, a double, writes each run down and then does this.
fn link(sandbox: &Sandbox, script: &str, more: &[&str]) {
    let runs = sandbox.path("run/runs");
    let text = format!("#!/bin/sh\necho \"$*\" >>{}\n{script}\n", runs.display());
    let setting = format!("program={}", sandbox.write_program("home/vault-program", text).display());
    let add = ["vault", "add", "any", "--kind", "command", &setting, "--passphrase-fd", "3"];
    sandbox.keyed(PASSPHRASE, &[&add[..], more].concat()).run().ok();
}

fn runs(sandbox: &Sandbox) -> usize {
    fs::read_to_string(sandbox.path("run/runs")).unwrap_or_default().lines().count()
}

#[test]
fn one_yes_that_names_both_ends_copies_between_three_kinds_of_vault() {
    let sandbox = Sandbox::with_vault();
    let asked = sandbox.path("run/asked");
    sandbox.set_approver(approver::keeping(&asked));
    let store = Store::new(&sandbox);
    store.insert("web/pypi", "pypi-tok\n");
    store.link();
    let database = vault_keepass::made(&sandbox);
    vault_keepass::add(&sandbox, &database, PASSWORD, &[]).ok();

    let copied = copy(&sandbox, "pass://web/pypi/password", "local://pypi/token").ok();
    assert_eq!(copied.stderr, "keyloan: copied: pass://web/pypi/password to local://pypi/token\n");
    let all = questions(&asked);
    assert_eq!(all.len(), 1);
    all[0].says("copies", "pass://web/pypi/password", "asked");
    all[0].says("to", "local://pypi/token", "verified");
    assert_eq!(value(&sandbox, "local://pypi/token"), "pypi-tok");

    copy(&sandbox, "local://pypi/token", "keys://Work/copied/password").ok();
    let shown = ["show", "-s", "-a", "Password", database.to_str().unwrap(), "Work/copied"];
    assert_eq!(vault_keepass::keepassxc(&sandbox, &shown, PASSWORD).ok().text(), "pypi-tok\n");
    copy(&sandbox, "pass://web/pypi/password", "keys://pypi/from pass").ok();
    assert_eq!(value(&sandbox, "keys://pypi/from pass"), "pypi-tok");
    copy(&sandbox, "local://pypi/token", "pass://web/new/password").refused(7, "does not write");

    let changed = sandbox.events("item_changed");
    let names: Vec<&str> = changed.iter().map(|event| event["item"].as_str().unwrap()).collect();
    assert_eq!(names, ["pypi", "keys://Work/copied", "keys://pypi"]);
    assert!(changed.iter().all(|event| event["action"] == "copied"));
    assert!(!fs::read_to_string(sandbox.log()).unwrap().contains("pypi-tok"));
}

#[test]
fn what_is_there_already_stays_without_replace() {
    let sandbox = Sandbox::with_token(b"old");
    sandbox.policies(&["grants=", "deadline=1m"]);
    let asked = sandbox.path("run/asked");
    link(&sandbox, "echo new", &[]);
    let database = vault_keepass::made(&sandbox);
    vault_keepass::add(&sandbox, &database, PASSWORD, &[]).ok();
    sandbox.set_approver(approver::keeping(&asked));

    let refused = copy(&sandbox, "any://a/b", "local://pypi/token").refused(2, "holds a value already");
    assert!(refused.stderr.contains("hint: --replace overwrites it"), "{}", refused.stderr);
    assert!(questions(&asked).is_empty() && runs(&sandbox) == 0, "nobody was asked, and no vault");
    copy(&sandbox, "any://a/b", "keys://pypi/password").refused(2, "holds a value already");
    assert_eq!(runs(&sandbox), 0, "what is to be copied was not read");
    assert_eq!(sandbox.events("failed").len(), 1);
    assert_eq!(value(&sandbox, "local://pypi/token"), "old");
    assert_eq!(value(&sandbox, "keys://pypi/password"), "tök \"1\"");

    fs::remove_file(&asked).unwrap();
    keyloan(&sandbox, &["item", "copy", "--replace", "any://a/b", "local://pypi/token"]).ok();
    keyloan(&sandbox, &["item", "copy", "--replace", "any://a/b", "keys://pypi/password"]).ok();
    keyloan(&sandbox, &["item", "copy", "--replace", "any://a/b", "local://fresh/x"]).ok();
    let all = questions(&asked);
    all[0].says("to", "local://pypi/token, in the place of what is there", "verified");
    all[1].says("to", "keys://pypi/password, in the place of what is there", "asked");
    all[2].says("to", "local://fresh/x", "verified");
    for reference in ["local://pypi/token", "keys://pypi/password", "local://fresh/x"] {
        assert_eq!(value(&sandbox, reference), "new");
    }
}

#[test]
fn reading_and_writing_are_both_judged_and_the_record_comes_before_the_value() {
    let sandbox = Sandbox::with_token(b"tok");
    let (log, seen) = (sandbox.log(), sandbox.path("run/seen"));
    link(&sandbox, &format!("cp {} {}\necho new", log.display(), seen.display()), &[]);
    for rule in ["item.read[item=any://a]=deny", "item.write[item=x]=deny"] {
        sandbox.policy(rule);
        copy(&sandbox, "any://a/b", "local://x/y").refused(5, "forbids");
        sandbox.policy(&format!("{}=", rule.rsplit_once('=').unwrap().0));
    }
    sandbox.set_approver(approver::DENY);
    copy(&sandbox, "any://a/b", "local://x/y").refused(6, "declined");
    // Allowed by itself, neither is enough for both.
    sandbox.policies(&["item.read[item=any://a]=allow"]);
    copy(&sandbox, "any://a/b", "local://x/y").refused(6, "declined");
    assert_eq!(runs(&sandbox), 0);
    sandbox.policies(&["item.write[item=x]=allow"]);
    copy(&sandbox, "any://a/b", "local://x/y").ok();
    let before = fs::read_to_string(&seen).unwrap();
    let last = before.lines().last().unwrap();
    assert!(last.contains("\"approved\"") && last.contains("any://a/b to local://x/y"), "{last}");
    assert_eq!(sandbox.events("item_changed").iter().filter(|event| event["action"] == "copied").count(), 1);
}

#[test]
fn a_copy_that_cannot_be_says_why_and_changes_nothing() {
    let sandbox = Sandbox::with_token(b"tok");
    link(&sandbox, "[ \"$1\" != none ] || exit 9\n[ \"$1\" = empty ] || echo x", &["missing=9"]);
    for (from, to, status, said) in [
        ("any://none/b", "local://x/y", 1, "there is no item 'none'"),
        ("any://empty/b", "local://x/y", 7, "printed nothing"),
        ("local://none/b", "local://x/y", 1, "there is no item 'none'"),
        ("local://pypi/none", "local://x/y", 1, "there is no field 'none'"),
        ("else://a/b", "local://x/y", 1, "there is no vault 'else'"),
        ("any://a/b", "else://x/y", 1, "there is no vault 'else'"),
        ("any://a/b", "any://a/b", 2, "to where it is"),
        ("pypi", "local://x/y", 2, "VAULT://ITEM/FIELD"),
        ("any://a/b", "local://x", 2, "VAULT://ITEM/FIELD"),
    ] {
        copy(&sandbox, from, to).refused(status, said);
    }
    keyloan(&sandbox, &["item", "show", "x"]).refused(1, "there is no item 'x'");
    // An ssh key's limits stay readable.
    keyloan(&sandbox, &["ssh", "generate", "key"]).ok();
    copy(&sandbox, "any://a/b", "local://key/hosts").refused(2, "are public");
}

#[test]
fn a_whole_item_comes_with_every_field_that_its_vault_lists() {
    let sandbox = Sandbox::with_vault();
    let asked = sandbox.path("run/asked");
    sandbox.set_approver(approver::keeping(&asked));
    let database = vault_keepass::made(&sandbox);
    vault_keepass::add(&sandbox, &database, PASSWORD, &[]).ok();
    link(&sandbox, "echo web", &["list=x"]);
    let whole = |from: &str, to: &str| keyloan(&sandbox, &["item", "copy", "--whole", from, to]);
    let copied = whole("keys://pypi", "local://pypi").ok().stderr;
    assert!(copied.contains("copied: keys://pypi/password to local://pypi/password\n"), "{copied}");
    assert!(copied.contains("not copied: keys://pypi/empty: it is empty"), "{copied}");
    assert_eq!(questions(&asked).len(), 1);
    assert_eq!(value(&sandbox, "local://pypi/password"), "tök \"1\"");
    assert_eq!(value(&sandbox, "local://pypi/username"), "__token__");
    keyloan(&sandbox, &["item", "get", "local://pypi/empty"]).refused(1, "no field 'empty'");
    whole("keys://pypi", "local://pypi").refused(2, "holds a value already");
    whole("keys://none", "local://x").refused(1, "there is no item 'none'");
    whole("any://web", "local://x").refused(2, "known only when it is read");
    whole("local://pypi", "keys://x").refused(2, "to the local vault alone");
    whole("local://pypi", "local://again").ok();
    assert_eq!(value(&sandbox, "local://again/title"), "pypi");
}

#[test]
fn a_link_that_is_changed_while_the_value_is_read_gets_nothing() {
    let sandbox = Sandbox::with_token(b"tok");
    let (began, go) = (sandbox.path("run/began"), sandbox.path("run/go"));
    let script =
        format!("touch {}; while [ ! -e {} ]; do sleep 0.05; done; echo late", began.display(), go.display());
    link(&sandbox, &script, &[]);
    let copying = sandbox.keyloan(&["item", "copy", "any://a/b", "local://x/y"]).start();
    keyloan_e2e::eventually("the vault is asked", || began.exists());
    sandbox.keyed(PASSPHRASE, &["vault", "remove", "any", "--passphrase-fd", "3"]).run().ok();
    sandbox.write("run/go", "");
    let ended = keyloan_e2e::sandbox::finished(copying);
    assert!(ended.status != 0, "{ended:?}");
    keyloan(&sandbox, &["item", "show", "x"]).refused(1, "there is no item 'x'");
}

#[test]
fn a_vault_that_was_replaced_while_a_copy_waited_is_neither_asked_nor_heard_again() {
    let sandbox = Sandbox::with_token(b"tok");
    let (go, old_ran) = (sandbox.path("run/go"), sandbox.path("run/old-ran"));
    let secret = |program: &std::path::Path, text: &str, more: &[&str]| {
        let setting = format!("program={}", program.display());
        let add = ["any", "--kind", "command", &setting, "secrets=TOK", "--secret-fd", "TOK=4"];
        keyloan_e2e::linked::add(&sandbox, text, &[&add[..], more].concat()).run().ok();
    };
    let script = format!("#!/bin/sh\necho \"$TOK\" >>{}\necho old\n", old_ran.display());
    secret(&sandbox.write_program("home/v1", script), "tok-one", &[]);
    sandbox.set_approver(approver::patient(&go));
    let requested = || sandbox.events("requested").len();
    let before = requested();
    let first = sandbox.keyloan(&["item", "get", "pypi", "token"]).start();
    keyloan_e2e::eventually("a question stands", || requested() == before + 1);
    let waiting = sandbox.keyloan(&["item", "copy", "local://pypi/token", "any://a/b"]).start();
    keyloan_e2e::eventually("another waits behind it", || requested() == before + 2);
    secret(&sandbox.write_program("home/v2", "#!/bin/sh\necho new\n"), "tok-two", &["--replace"]);
    sandbox.write("run/go", "");
    keyloan_e2e::sandbox::finished(first);
    let copied = keyloan_e2e::sandbox::finished(waiting);
    assert!(copied.status != 0, "{copied:?}");
    assert!(!old_ran.exists(), "it saw {}", fs::read_to_string(&old_ran).unwrap());
    assert_eq!(value(&sandbox, "any://a/b"), "new");
}

#[test]
fn the_names_of_a_linked_item_are_shown_without_a_question() {
    let sandbox = Sandbox::with_approver(approver::DENY);
    let database = vault_keepass::made(&sandbox);
    vault_keepass::add(&sandbox, &database, PASSWORD, &[]).ok();
    link(&sandbox, "echo web", &["list=x"]);
    let shown = keyloan(&sandbox, &["item", "show", "keys://pypi"]).ok().text();
    for line in ["keys://pypi\n", "  keys://pypi/password\n", "  keys://pypi/username\n"] {
        assert!(shown.contains(line), "{shown}");
    }
    assert!(!shown.contains("__token__") && !shown.contains("tök"), "{shown}");
    assert_eq!(keyloan(&sandbox, &["item", "show", "keys://pypi/password"]).ok().text(), shown);
    let json = keyloan(&sandbox, &["item", "show", "--json", "keys://Work/twice"]).ok().text();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["item"], "Work/twice");
    let shown = keyloan(&sandbox, &["item", "show", "any://web"]).ok();
    assert_eq!(shown.text(), "any://web\n");
    assert!(shown.stderr.contains("only when it is read"), "{}", shown.stderr);
    keyloan(&sandbox, &["item", "show", "any://none"]).refused(1, "there is no item 'none'");
    keyloan(&sandbox, &["item", "show", "none://web"]).refused(1, "there is no vault 'none'");
    assert!(
        sandbox.events("requested").iter().all(|event| event["act"] == "set who answers"),
        "nobody was asked"
    );
}

#[test]
fn a_one_time_password_is_computed_from_a_key_in_a_linked_vault() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let store = Store::new(&sandbox);
    let address = "otpauth://totp/x?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&digits=8&period=3600";
    store.insert("web", format!("tok\n{address}\n"));
    store.link();
    keyloan(&sandbox, &["item", "set", "web", "totp"]).refused(2, "empty");
    sandbox.keyloan(&["item", "set", "web", "totp"]).stdin(address).run().ok();
    // The same code as from the same key in the local vault, in the same hour; at its turn once more.
    let codes = || {
        let (linked, local) = (["item", "totp", "pass://web/otpauth"], ["item", "totp", "web"]);
        (keyloan(&sandbox, &linked).ok().text(), keyloan(&sandbox, &local).ok().text())
    };
    let (mut linked, mut local) = codes();
    if linked != local {
        (linked, local) = codes();
    }
    assert_eq!(linked, local);
    assert!(linked.len() == 9 && linked.trim_end().bytes().all(|byte| byte.is_ascii_digit()), "{linked}");
    assert_eq!(keyloan(&sandbox, &["item", "totp", "local://web/totp"]).ok().text().len(), 9);
    let refused =
        keyloan(&sandbox, &["item", "totp", "pass://web/password"]).refused(2, "neither an otpauth");
    assert!(!refused.stderr.contains("tok\n"));
    assert_eq!(sandbox.events("failed").len(), 1);
    keyloan(&sandbox, &["item", "totp", "pass://web/none"]).refused(1, "there is no field");
}

#[test]
fn on_a_terminal_the_question_names_both() {
    let sandbox = Sandbox::with_token(b"tok");
    link(&sandbox, "echo new", &[]);
    sandbox.policy("approver.command=");
    let terminal = Terminal::open(&sandbox);
    terminal.run("keyloan item copy any://a/b local://x/y");
    let screen = terminal.expect("PIN to allow");
    assert!(screen.contains("copies    any://a/b  (asked"), "{screen}");
    assert!(screen.contains("to        local://x/y  (verified)"), "{screen}");
    terminal.type_text(PIN);
    terminal.press("Enter");
    terminal.expect("copied: any://a/b to local://x/y");
}
