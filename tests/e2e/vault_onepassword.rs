//! 1Password by its program `op`, of which a double stands here: there is no 1Password without an account.

use keyloan_e2e::onepassword::{Account, SERVICE_TOKEN, field, id};
use keyloan_e2e::shell::BASH;
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{Output, Sandbox, approver};
use serde_json::{Value, json};

fn get(sandbox: &Sandbox, reference: &str) -> Output {
    sandbox.keyloan(&["item", "get", reference]).run()
}

fn manifest(sandbox: &Sandbox, text: &str) {
    sandbox.write("project/.keyloan.toml", text);
    sandbox.keyloan(&["trust"]).run().ok();
}

/// The words that `op` was called with, without options.
fn commands(account: &Account<'_>) -> Vec<String> {
    let words = |call: &Value| {
        let words = call["argv"].as_array().unwrap().iter().map(|word| word.as_str().unwrap());
        words.filter(|word| !word.starts_with("--")).collect::<Vec<_>>().join(" ")
    };
    account.calls().iter().map(words).collect()
}

#[test]
fn no_one_time_code_is_kept() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let mut account = Account::new(&sandbox);
    let code = json!({"id": "f2", "type": "OTP", "label": "code", "value": "seed", "totp": "123456"});
    account.item(0, "gcp", &[field("key", "1"), code]);
    account.link(&[]).ok();
    sandbox.policy("vault.cache[vault=op]=10m");
    for (reference, runs) in [("op://Work/gcp/key", 1), ("op://Work/gcp/code?attribute=otp", 2)] {
        account.forget();
        get(&sandbox, reference).ok();
        get(&sandbox, reference).ok();
        assert_eq!(account.calls().len(), runs, "{reference}");
    }
}

#[test]
fn twenty_references_cost_one_process_of_op() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let mut account = Account::new(&sandbox);
    for at in 0..10 {
        account.item(
            0,
            &format!("item {at}"),
            &[field("user", &format!("u{at}")), field("pw", &format!("p{at}"))],
        );
    }
    account.link(&[]).ok();
    let line =
        |at: usize| format!("U{at} = \"op://Work/item {at}/user\"\nP{at} = \"op://Work/item {at}/pw\"\n");
    manifest(&sandbox, &format!("[env]\n{}", (0..10).map(line).collect::<String>()));
    let lent = sandbox.with_secrets(&["--", "sh", "-c", "echo $U0 $P0 $U9 $P9"]).run().ok();
    assert_eq!(lent.text(), "u0 p0 u9 p9\n");
    assert_eq!(commands(&account), ["inject"]);
    assert_eq!(account.calls()[0]["stdin"], "pipe");
}

#[test]
fn values_come_apart_to_the_byte_whatever_is_in_them() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let mut account = Account::new(&sandbox);
    let odd = "\n{{ op://Work/other/pw }}\nop://Work/other/pw $HOME <0:1> \"'\\ \u{1f511}\r\n\n";
    account.item(0, "odd", &[field("pw", odd), field("empty", "")]);
    account.item(0, "other", &[field("pw", "other")]);
    account.item(0, "binary", &[json!({"id": "b", "label": "b", "type": "CONCEALED", "bytes": "ff00fe0a"})]);
    account.link(&[]).ok();
    for line_end in [false, true] {
        account.set("line end", line_end);
        assert_eq!(get(&sandbox, "op://Work/odd/pw").ok().text(), odd);
        assert_eq!(get(&sandbox, "op://Work/odd/empty").ok().stdout, b"");
        assert_eq!(get(&sandbox, "op://Work/binary/b").ok().stdout, b"\xff\0\xfe\n");
    }
    manifest(
        &sandbox,
        "[env]\nA = \"op://Work/odd/pw\"\nB = \"op://Work/odd/empty\"\nC = \"op://Work/other/pw\"\n",
    );
    let lent = sandbox.with_secrets(&["--", "sh", "-c", "printf '%s|%s|%s' \"$A\" \"$B\" \"$C\""]).run().ok();
    assert_eq!(lent.text(), format!("{odd}||other"));
}

#[test]
fn sections_codes_ids_and_openssh_keys_are_read_as_1password_writes_them() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let mut account = Account::new(&sandbox);
    let section = json!({"id": "s1", "label": "prod keys"});
    let inside =
        json!({"id": "f1", "type": "CONCEALED", "label": "key.json", "value": "inside", "section": section});
    let code =
        json!({"id": "f2", "type": "OTP", "label": "one-time password", "value": "seed", "totp": "123456"});
    let ssh = json!({"id": "private_key", "type": "SSHKEY", "label": "private key", "value": "-----BEGIN PRIVATE KEY-----\r\n",
                     "ssh_formats": {"openssh": {"value": "-----BEGIN OPENSSH PRIVATE KEY-----\n"}}});
    let item = account.item(0, "gcp", &[inside, code, ssh]);
    account.link(&[]).ok();
    for (reference, value) in [
        ("op://Work/gcp/prod keys/key.json".to_owned(), "inside"),
        ("op://work/GCP/key.json".to_owned(), "inside"),
        (format!("op://{}/{item}/key.json", id(1)), "inside"),
        ("op://Work/gcp/one-time password?attribute=otp".to_owned(), "123456"),
        ("op://Work/gcp/private key?ssh-format=openssh".to_owned(), "-----BEGIN OPENSSH PRIVATE KEY-----\n"),
        ("op://Work/gcp/private key".to_owned(), "-----BEGIN PRIVATE KEY-----\r\n"),
    ] {
        assert_eq!(get(&sandbox, &reference).ok().text(), value, "{reference}");
    }
    get(&sandbox, "op://Work/gcp/key.json?attribute=type")
        .refused(7, "?attribute=otp and ?ssh-format=openssh");
    get(&sandbox, "op://gcp/key.json").refused(2, "op://VAULT/ITEM/FIELD");
}

#[test]
fn names_that_no_reference_of_1passwords_can_hold_are_read_by_another_way() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let mut account = Account::new(&sandbox);
    let section = json!({"id": "s1", "label": "prod: \"é\""});
    let inside = json!({"id": "f1", "type": "STRING", "label": "a}}b", "value": "2", "section": section});
    account.item(0, "it's {{ $HOME }} ü", &[field("x/y", "1"), inside]);
    account.item(0, "-rf", &[field("pw", "3")]);
    account.link(&[]).ok();
    let odd =
        [("op://Work/it's {{ $HOME }} ü/x%2Fy", "1"), ("op://Work/it's {{ $HOME }} ü/prod: \"é\"/a}}b", "2")];
    for (reference, value) in odd {
        assert_eq!(get(&sandbox, reference).ok().text(), value);
    }
    assert_eq!(get(&sandbox, "op://Work/-rf/pw").ok().text(), "3");
    // Both fields of one item, and a plain one: one process for all plain ones, one for each other item.
    account.forget();
    let [one, two] = odd.map(|(reference, _)| reference);
    manifest(&sandbox, &format!("[env]\nA = '''{one}'''\nB = '''{two}'''\nC = 'op://Work/-rf/pw'\n"));
    assert_eq!(sandbox.with_secrets(&["--", "sh", "-c", "echo $A$B$C"]).run().ok().text(), "123\n");
    assert_eq!(commands(&account), ["inject", "item get it's {{ $HOME }} ü"]);
    get(&sandbox, "op://Work/it's {{ $HOME }} ü/nothing").refused(1, "there is no field 'nothing'");
    get(&sandbox, "op://Wörk/a/b").refused(1, "there is no item 'Wörk/a'");
    get(&sandbox, "op://Work/ä/b").refused(1, "there is no item 'Work/ä'");
    // `op` finds items by the domain of a site, too.
    account.state["vaults"][0]["items"][1]["domains"] = json!(["exämple.org"]);
    account.save();
    get(&sandbox, "op://Work/exämple.org/pw").refused(1, "there is no item 'Work/exämple.org'");
}

#[test]
fn what_is_missing_or_ambiguous_is_named() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let mut account = Account::new(&sandbox);
    account.item(0, "gcp", &[field("key", "1")]);
    let twice = [account.item(0, "twice", &[field("key", "1")]), account.item(0, "twice", &[])];
    account.item(1, "~/twice", &[field("vars", "A=1")]);
    account.item(1, "~/twice", &[field("vars", "A=2")]);
    account.link(&[]).ok();
    get(&sandbox, "op://Nowhere/gcp/key").refused(1, "there is no item 'Nowhere/gcp'");
    get(&sandbox, "op://Work/nothing/key").refused(1, "there is no item 'Work/nothing'");
    get(&sandbox, "op://Work/gcp/other").refused(1, "there is no field 'other' in item 'Work/gcp'");
    let ambiguous =
        get(&sandbox, "op://Work/twice/key").refused(1, "'Work/twice' is more than one thing there");
    for id in twice {
        assert!(ambiguous.stderr.contains(&format!("Work/{id}")), "{}", ambiguous.stderr);
        assert_eq!(get(&sandbox, &format!("op://Work/{id}/key")).status, i32::from(id.starts_with("66")));
    }
    let directory = sandbox.make_directory("home/twice");
    let two = sandbox.with_secrets(&["--", "true"]).within(&directory).run();
    two.refused(125, "'Environment variables/~/twice' is more than one thing there");
    // Of many, the one that is wrong.
    manifest(
        &sandbox,
        "[env]\nA = \"op://Work/gcp/key\"\nB = \"op://Work/gone/key\"\nC = \"op://Work/gcp/key\"\n",
    );
    sandbox.with_secrets(&["--", "true"]).run().refused(125, "there is no item 'Work/gone'");
    assert!(sandbox.events("lent").is_empty());
}

#[test]
fn opvars_in_a_directory_works_by_the_convention_that_its_users_know() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let mut account = Account::new(&sandbox);
    account.item(1, "~/coverage", &[field("vars", "TWINE_USERNAME=__token__\nTWINE_PASSWORD=pypi-a b*c=\n")]);
    account.item(1, "staging", &[field("vars", "STAGE=1\n")]);
    account.item(1, "other", &[field("password", "x")]);
    account.link(&[]).ok();
    sandbox.make_directory("home/coverage");
    let terminal = BASH.opened(&sandbox);
    let told = |line: &str| {
        terminal.run(&format!("{line}; echo en''ded $?."));
        terminal.expect("\nended ")
    };
    let shown = told("cd ~/coverage; opvars");
    assert!(
        shown.contains("\nset: TWINE_PASSWORD TWINE_USERNAME\n") && shown.contains("ended 0."),
        "{shown}"
    );
    assert!(told("clear; printenv TWINE_PASSWORD").contains("pypi-a b*c=\n"));
    assert!(told("clear; opvars staging").contains("\nstill set: TWINE_PASSWORD TWINE_USERNAME\n"));
    assert!(told("clear; cd /; unopvars").contains("removed: STAGE TWINE_PASSWORD TWINE_USERNAME\n"));
    assert!(told("clear; opvars ~/coverage").contains("set: TWINE_PASSWORD TWINE_USERNAME\n"));
    drop::<Terminal<'_>>(terminal);
    // And the author's `withop NAME CMD`.
    let line = ["-s", "~/coverage", "--", "sh", "-c", "echo $TWINE_USERNAME"];
    account.forget();
    assert_eq!(sandbox.with_secrets(&line).run().ok().text(), "__token__\n");
    assert_eq!(commands(&account), ["item list", "item get ~/coverage"]);
}

#[test]
fn the_question_names_the_set_and_nothing_is_read_before_the_yes() {
    let sandbox = Sandbox::with_approver(approver::DENY);
    let mut account = Account::new(&sandbox);
    account.item(1, "~/coverage", &[field("vars", "A=1\n")]);
    account.link(&[]).ok();
    let directory = sandbox.make_directory("home/coverage");
    sandbox.with_secrets(&["--", "true"]).within(&directory).run().refused(125, "it was declined");
    assert_eq!(commands(&account), ["item list"]);
    let asked = sandbox.path("run/asked");
    sandbox.set_approver(approver::keeping(&asked));
    sandbox.with_secrets(&["--", "true"]).within(&directory).run().ok();
    approver::questions(&asked)[0].says(
        "lends",
        "every variable of op://~/coverage/vars, as that vault has them",
        "asked",
    );
}

#[test]
fn titles_are_listed_and_nobody_has_to_have_a_vault_for_them() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let mut account = Account::new(&sandbox);
    account.item(1, "~/coverage", &[field("vars", "A=1\n")]);
    account.item(1, "staging", &[field("vars", "A=1\n")]);
    let slash = account.item(1, "a/b", &[field("vars", "A=slash\n")]);
    account.link(&[]).ok();
    let listed = sandbox.keyloan(&["item", "list", "--vault", "op"]).run().ok().text();
    assert_eq!(listed, format!("Environment variables/{slash}\nstaging\n~/coverage\n"));
    assert_eq!(get(&sandbox, &format!("op://Environment variables/{slash}/vars")).ok().text(), "A=slash\n");
    account.state["vaults"].as_array_mut().unwrap().pop();
    account.save();
    assert_eq!(sandbox.keyloan(&["item", "list", "--vault", "op"]).run().ok().text(), "");
    sandbox.with_secrets(&["--", "true"]).run().refused(125, "nothing is set for this directory");
}

#[test]
fn a_service_accounts_token_is_in_the_environment_of_op_alone() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let mut account = Account::new(&sandbox);
    account.set("needs token", true);
    account.item(0, "gcp", &[field("key", "1")]);
    account.item(1, "~/coverage", &[field("vars", "A=1\n")]);
    account.link_with_token("ops_wrong").refused(7, "does not take the token of this service account");
    account.link_with_token(SERVICE_TOKEN).ok();
    assert_eq!(get(&sandbox, "op://Work/gcp/key").ok().text(), "1");
    let directory = sandbox.make_directory("home/coverage");
    sandbox.with_secrets(&["--", "true"]).within(&directory).run().ok();
    for call in account.calls() {
        let environment: Vec<&str> =
            call["env"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert_eq!(environment, ["HOME", "LANG", "OP_SERVICE_ACCOUNT_TOKEN", "PATH", "PYTHONNOUSERSITE"]);
        assert!(!call["argv"].to_string().contains("ops_"), "{call}");
    }
    let listed = sandbox.keyloan(&["vault", "list", "--json"]).run().ok().text();
    assert!(listed.contains("service-account-token") && !listed.contains(SERVICE_TOKEN), "{listed}");
    let log = std::fs::read_to_string(sandbox.log()).unwrap();
    assert!(!log.contains(SERVICE_TOKEN));
}

#[test]
fn the_account_that_the_link_names_is_used() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let mut account = Account::new(&sandbox);
    account.item(0, "gcp", &[field("key", "1")]);
    account.link(&["account=other.1password.com"]).refused(7, "op has no account 'other.1password.com'");
    account.link(&["account=my.1password.com"]).ok();
    assert_eq!(get(&sandbox, "op://Work/gcp/key").ok().text(), "1");
    let call = account.calls().remove(0);
    assert_eq!(call["argv"], json!(["--account=my.1password.com", "--cache=false", "inject"]));
    account.set("accounts", json!([]));
    get(&sandbox, "op://Work/gcp/key").refused(7, "op has no such account");
}

#[test]
fn op_is_not_written_to() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let mut account = Account::new(&sandbox);
    account.item(0, "gcp", &[field("key", "1")]);
    account.link(&[]).ok();
    let set = sandbox.keyloan(&["item", "set", "op://Work/gcp/key"]).stdin("2").run();
    set.refused(7, "op cannot change one field without risk");
    assert!(account.calls().is_empty());
}

#[test]
fn a_person_is_asked_for_op_where_no_server_is_named_and_for_its_token_unseen() {
    let sandbox = Sandbox::with_vault();
    let mut account = Account::new(&sandbox);
    account.set("needs token", true);
    let terminal = Terminal::open(&sandbox);
    let answer = |asked: &str, text: &str| {
        terminal.expect(asked);
        terminal.type_text(text);
        terminal.press("Enter");
    };
    terminal.run("keyloan vault add op --kind onepassword");
    answer("address of a Connect server, where it is not op [none]:", "");
    answer("certificates that vouch for that server [none]:", "");
    answer("op [/usr/bin/op]:", "~/op");
    answer("the account, where op has several [none]:", "");
    answer("the vault of items titled with a directory [Environment variables]:", "");
    answer("assphrase", keyloan_e2e::PASSPHRASE);
    answer("service account's token (for op without the app) of op", SERVICE_TOKEN);
    answer("Connect server's token of op", "");
    let screen = terminal.expect("added: op, and it answers");
    assert!(!screen.contains(SERVICE_TOKEN), "{screen}");
    terminal.run("clear; keyloan vault add team --kind onepassword");
    answer("address of a Connect server, where it is not op [none]:", "http://127.0.0.1:9");
    answer("certificates that vouch for that server [none]:", "");
    let screen = terminal.expect("the account, where op has several [none]:");
    assert!(!screen.contains("/usr/bin/op"), "{screen}");
}
