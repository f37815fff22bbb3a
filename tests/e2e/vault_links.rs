//! Which vaults are linked, and who may say so.

use keyloan_e2e::pass::Store;
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{PASSPHRASE, PIN, Sandbox, approver};
use serde_json::Value;

fn keyed(sandbox: &Sandbox, arguments: &[&str]) -> keyloan_e2e::Output {
    sandbox.keyed(PASSPHRASE, &[arguments, &["--passphrase-fd", "3"]].concat()).run()
}

fn program(sandbox: &Sandbox, name: &str, says: &str) -> String {
    let program = sandbox.write_program(&format!("home/{name}"), format!("#!/bin/sh\necho {says}\n"));
    format!("program={}", program.display())
}

#[test]
fn the_built_in_vault_is_neither_removed_nor_shadowed() {
    let sandbox = Sandbox::with_token(b"tok");
    let any = program(&sandbox, "any", "evil");
    keyed(&sandbox, &["vault", "remove", "local"]).refused(2, "stays");
    keyed(&sandbox, &["vault", "add", "local", "--kind", "command", &any]).refused(2, "built-in");
    keyed(&sandbox, &["vault", "add", "op", "--kind", "command", &any]).refused(2, "1Password's");
    keyed(&sandbox, &["vault", "add", "LOCAL", "--kind", "command", &any]).refused(2, "lower-case");
    assert_eq!(sandbox.with_secrets(&["--", "printenv", "TWINE_PASSWORD"]).run().ok().text(), "tok\n");
}

#[test]
fn links_change_with_the_passphrase_alone() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let any = program(&sandbox, "any", "one");
    let add = ["vault", "add", "any", "--kind", "command", &any];
    sandbox.keyed("wrong", &[&add[..], &["--passphrase-fd", "3"]].concat()).run().refused(6, "passphrase");
    sandbox.keyloan(&add).run().refused(6, "");
    keyed(&sandbox, &add).ok();
    keyed(&sandbox, &add).refused(2, "already");
    sandbox
        .keyed("wrong", &["vault", "remove", "any", "--passphrase-fd", "3"])
        .run()
        .refused(6, "passphrase");
    assert_eq!(sandbox.keyloan(&["item", "get", "any://a/b"]).run().ok().text(), "one");
    keyed(&sandbox, &["vault", "remove", "any"]).ok();
    sandbox.keyloan(&["item", "get", "any://a/b"]).run().refused(1, "there is no vault 'any'");
    keyed(&sandbox, &["vault", "remove", "any"]).refused(1, "there is no vault 'any'");
    let actions: Vec<String> =
        sandbox.events("vault_changed").iter().map(|event| event["action"].to_string()).collect();
    assert_eq!(actions, ["\"added\"", "\"removed\""]);
}

#[test]
fn several_vaults_of_one_kind_have_names_and_survive_the_daemon() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let (one, two) = (program(&sandbox, "one", "1"), program(&sandbox, "two", "2"));
    keyed(&sandbox, &["vault", "add", "one", "--kind", "command", &one]).ok();
    keyed(&sandbox, &["vault", "add", "two", "--kind", "command", &two, "--search"]).ok();
    sandbox.stop();
    sandbox.unlock().ok();
    assert_eq!(sandbox.keyloan(&["item", "get", "one://a/b"]).run().ok().text(), "1");
    assert_eq!(sandbox.keyloan(&["item", "get", "two://a/b"]).run().ok().text(), "2");
    let listed = sandbox.keyloan(&["vault", "list", "--json"]).run().ok();
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let names: Vec<&Value> = listed.as_array().unwrap().iter().map(|vault| &vault["name"]).collect();
    assert_eq!(names, ["local", "one", "two"]);
    assert_eq!((&listed[1]["searched"], &listed[2]["searched"]), (&Value::Bool(false), &Value::Bool(true)));
    assert!(listed[1]["programs"][0]["sha256"].as_str().unwrap().len() == 64);
    // A vault that is encrypted anew keeps its links.
    keyed(&sandbox, &["rekey", "--new-passphrase-fd", "4"]).ok();
    assert_eq!(sandbox.keyloan(&["item", "get", "two://a/b"]).run().ok().text(), "2");
    sandbox.keyloan(&["lock"]).run().ok();
    sandbox.keyloan(&["item", "get", "one://a/b"]).run().refused(4, "locked");
}

#[test]
fn what_a_kind_does_not_know_or_misses_is_named() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    for (arguments, status, said) in [
        (&["vault", "add", "x", "--kind", "nowhere"][..], 2, "there is no kind of vault 'nowhere'"),
        (&["vault", "add", "x", "--kind", "keepass"], 2, "keepass needs database="),
        (&["vault", "add", "x", "--kind", "pass", "stor=/x"], 2, "no setting 'stor' (it has: store"),
        (&["vault", "add", "x", "--kind", "keepass", "database=/x", "password=y"], 2, "is a secret"),
        (&["vault", "add", "x", "--kind", "pass", "--replace"], 1, "there is no vault 'x'"),
        (&["vault", "add", "x", "--kind", "pass", "store"], 2, "KEY=VALUE"),
        (&["vault", "test", "x"], 1, "there is no vault 'x' (there is: local)"),
    ] {
        let run = if arguments[1] == "test" {
            sandbox.keyloan(arguments).run()
        } else {
            keyed(&sandbox, arguments)
        };
        run.refused(status, said);
    }
}

#[test]
fn on_a_terminal_the_few_questions_of_a_kind_are_asked() {
    let sandbox = Sandbox::with_vault();
    let store = Store::new(&sandbox);
    store.insert("web", "tok\n");
    // Of a vault that had that name before.
    sandbox.policy("env[item=pass://old]=deny");
    let terminal = Terminal::open(&sandbox);
    terminal.run("keyloan vault add pass");
    terminal.expect("directory of the password store [~/.password-store]:");
    terminal.press("Enter");
    terminal.expect("gpg [/usr/bin/gpg]:");
    terminal.press("Enter");
    terminal.expect("another home for gpg [none]:");
    terminal.press("Enter");
    let screen = terminal.expect("link a vault");
    for shown in ["store", ".password-store", "/usr/bin/gpg", "env[item=pass://old]=deny"] {
        assert!(screen.contains(shown), "{screen}");
    }
    terminal.expect("assphrase");
    terminal.type_text(PASSPHRASE);
    terminal.press("Enter");
    terminal.expect("added: pass, and it answers");
    terminal.run("keyloan item get pass://web/password");
    terminal.expect("PIN to allow");
    terminal.type_text(PIN);
    terminal.press("Enter");
    terminal.expect("tok");
}

#[test]
fn a_rule_for_an_item_of_the_local_vault_allows_nothing_elsewhere() {
    let sandbox = Sandbox::with_approver(approver::DENY);
    let any = program(&sandbox, "any", "elsewhere");
    keyed(&sandbox, &["vault", "add", "any", "--kind", "command", &any]).ok();
    sandbox.policy("item.read[item=pypi]=allow");
    sandbox.keyloan(&["item", "get", "any://pypi/token"]).run().refused(6, "declined");
    sandbox.policy("item.read[item=any://pypi]=allow");
    assert_eq!(sandbox.keyloan(&["item", "get", "any://pypi/token"]).run().ok().text(), "elsewhere");
}

#[test]
fn an_unlinked_vault_gives_out_nothing_that_it_was_asked_for_before() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let (go, began) = (sandbox.path("run/go"), sandbox.path("run/began"));
    let script = format!(
        "#!/bin/sh\ntouch {}\nwhile [ ! -e {} ]; do sleep 0.05; done\necho late\n",
        began.display(),
        go.display()
    );
    let slow = sandbox.write_program("home/slow", script);
    let setting = format!("program={}", slow.display());
    keyed(&sandbox, &["vault", "add", "slow", "--kind", "command", &setting]).ok();
    for end in [&["lock"][..], &["vault", "remove", "slow"]] {
        let asked = sandbox.keyloan(&["item", "get", "slow://a/b"]).start();
        keyloan_e2e::eventually("the vault is asked", || began.exists());
        if end == ["lock"] {
            sandbox.keyloan(end).run().ok();
        } else {
            keyed(&sandbox, end).ok();
        }
        sandbox.write("run/go", "");
        let given = keyloan_e2e::sandbox::finished(asked);
        assert!(given.status != 0 && given.stdout.is_empty(), "{given:?}");
        sandbox.unlock().ok();
        std::fs::remove_file(&go).unwrap();
        std::fs::remove_file(&began).unwrap();
    }
    assert!(sandbox.events("released").is_empty());
}

#[test]
fn a_rule_for_the_beginnings_of_local_titles_allows_nothing_elsewhere() {
    let sandbox = Sandbox::with_approver(approver::DENY);
    let any = program(&sandbox, "any", "elsewhere");
    keyed(&sandbox, &["vault", "add", "any", "--kind", "command", &any]).ok();
    sandbox.policies(&["item.read[item=a*]=allow", "item.read[item=any:*]=allow"]);
    sandbox.keyloan(&["item", "get", "any://pypi/token"]).run().refused(6, "declined");
    sandbox.policies(&["item.read[item=any://p*]=allow 1/1h", "item.read[item=any:*]=ask-pin"]);
    assert_eq!(sandbox.keyloan(&["item", "get", "any://pypi/token"]).run().ok().text(), "elsewhere");
}

#[test]
fn a_local_item_does_not_get_the_name_of_one_elsewhere() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let any = program(&sandbox, "any", "elsewhere");
    keyed(&sandbox, &["vault", "add", "any", "--kind", "command", &any]).ok();
    sandbox.keyloan(&["item", "set", "prod", "token"]).stdin("prod's").run().ok();
    sandbox.policy("item.read[item=any://pypi]=allow");
    for arguments in [
        &["item", "mv", "prod", "any://pypi"][..],
        &["item", "generate", "any://pypi", "token"],
        &["ssh", "generate", "any://pypi"],
    ] {
        sandbox.keyloan(arguments).run().refused(2, "holds no '://'");
    }
    for reference in ["local://any://pypi/token", "local://x://y/z"] {
        sandbox.keyloan(&["item", "set", reference]).stdin("x").run().refused(2, "holds no '://'");
    }
    sandbox.set_approver(approver::DENY);
    sandbox.keyloan(&["item", "get", "local://any://pypi/token"]).run().refused(2, "holds no '://'");
    assert!(sandbox.events("released").is_empty());
}

#[test]
fn a_rule_names_a_vault_by_its_own_name() {
    let sandbox = Sandbox::with_approver(approver::DENY);
    for (rule, status, said) in [
        ("item.read[item=local://pypi]=deny", 2, "by its title alone"),
        ("item.read[item=op://Work/*]=deny", 1, "there is no vault 'op'"),
    ] {
        keyed(&sandbox, &["policy", "set", rule]).refused(status, said);
    }
    sandbox.policy("item.read[item=later://pypi]=deny");
}
