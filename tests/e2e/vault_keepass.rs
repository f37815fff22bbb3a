//! KeePass databases as linked vaults: made and read back by the real `keepassxc-cli`.

pub(crate) use keyloan_e2e::keepass::{PASSWORD, keepassxc, link as add};

use keyloan_e2e::keepass::entry;
use keyloan_e2e::programs::{bin, needed};
use keyloan_e2e::sandbox::{Output, Running};
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{PASSPHRASE, Sandbox, approver, eventually};
use std::path::PathBuf;
use std::process::Stdio;

pub(crate) fn made(sandbox: &Sandbox) -> PathBuf {
    let group = |name: &str, uuid: &str, password: &str| {
        format!("<Group><UUID>{uuid}</UUID><Name>{name}</Name>{}</Group>", entry("twice", password))
    };
    let groups = group("Internet", "AAAAAAAAAAAAAAAAAAAAAg==", "one")
        + &group("Work", "AAAAAAAAAAAAAAAAAAAAAw==", "two");
    keyloan_e2e::keepass::made(sandbox, "keys.kdbx", &groups, PASSWORD, &[])
}

fn get(sandbox: &Sandbox, reference: &str) -> Output {
    sandbox.keyloan(&["item", "get", reference]).run()
}

#[test]
fn what_keepassxc_wrote_is_read() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let database = made(&sandbox);
    let file = sandbox.write("home/key.bin", b"\x00\xff binary \n");
    let import = ["attachment-import", database.to_str().unwrap(), "pypi", "key.bin", file.to_str().unwrap()];
    keepassxc(&sandbox, &import, PASSWORD).ok();
    add(&sandbox, &database, PASSWORD, &[]).ok();
    assert_eq!(get(&sandbox, "keys://pypi/password").ok().text(), "tök \"1\"");
    assert_eq!(get(&sandbox, "keys://pypi/username").ok().text(), "__token__");
    assert_eq!(get(&sandbox, "keys://pypi/key.bin").ok().stdout, b"\x00\xff binary \n");
    assert_eq!(get(&sandbox, "keys://pypi/empty").ok().text(), "");
    assert_eq!(get(&sandbox, "keys://Work/twice/password").ok().text(), "two");
    get(&sandbox, "keys://pypi/nothing").refused(1, "there is no field 'nothing'");
    get(&sandbox, "keys://nothing/x").refused(1, "there is no item 'nothing'");
    let titled = get(&sandbox, "keys://twice/password").refused(1, "there is no item 'twice'");
    assert!(titled.stderr.contains("Internet/twice") && titled.stderr.contains("Work/twice"));
    let listed = sandbox.keyloan(&["item", "list", "--vault", "keys", "--references"]).run().ok().text();
    assert!(listed.contains("keys://Internet/twice/password\n"), "{listed}");
}

#[test]
fn keepassxc_reads_what_keyloan_wrote_and_nothing_else_has_changed() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let database = made(&sandbox);
    add(&sandbox, &database, PASSWORD, &[]).ok();
    for (reference, value) in [
        ("keys://pypi/password", "new & <better>"),
        ("keys://Work/fresh ü/password", "a\nb"),
        ("keys://pypi/api key", "x"),
    ] {
        sandbox.keyloan(&["item", "set", reference]).stdin(value).run().ok();
    }
    let path = database.to_str().unwrap();
    let show = |entry: &str, attribute: &str| {
        keepassxc(&sandbox, &["show", "-s", "-a", attribute, path, entry], PASSWORD).ok().text()
    };
    assert_eq!(show("pypi", "Password"), "new & <better>\n");
    assert_eq!(show("Work/fresh ü", "Password"), "a\nb\n");
    assert_eq!(show("pypi", "api key"), "x\n");
    assert_eq!(show("pypi", "UserName"), "__token__\n");
    assert_eq!(show("Internet/twice", "Password"), "one\n");
    let exported = keepassxc(&sandbox, &["export", path], PASSWORD).ok().text();
    for kept in ["<Key>a</Key>", "tök &quot;1&quot;"] {
        assert!(exported.contains(kept), "{kept} (custom data, and the password that was) stays: {exported}");
    }
    assert_eq!(get(&sandbox, "keys://pypi/password").ok().text(), "new & <better>");
}

#[test]
fn a_wrong_password_a_missing_file_and_a_damaged_one_are_told_apart() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let database = made(&sandbox);
    add(&sandbox, &sandbox.path("home/none.kdbx"), PASSWORD, &[]).refused(7, "No such file");
    add(&sandbox, &database, PASSWORD, &[]).ok();
    let whole = std::fs::read(&database).unwrap();
    for (content, said) in [
        (b"not a database".to_vec(), "no KeePass database"),
        (whole[..whole.len() / 2].to_vec(), "keys: "),
        (Vec::new(), "no KeePass database"),
    ] {
        sandbox.write("home/keys.kdbx", content);
        get(&sandbox, "keys://pypi/password").refused(7, said);
    }
    sandbox.write("home/keys.kdbx", &whole);
    get(&sandbox, "keys://pypi/password").ok();
    add(&sandbox, &database, "wrong\n", &["--replace"]).refused(7, "is not the right one");
    get(&sandbox, "keys://pypi/password").ok();
    keyloan_e2e::keepass::made(&sandbox, "keys.kdbx", "", "another\n", &[]);
    get(&sandbox, "keys://pypi/password")
        .refused(7, "locked: its password or its key file is not the right one");
    let tested = sandbox.keyloan(&["vault", "test", "keys", "--json"]).run().refused(7, "1 of 1");
    let tested: serde_json::Value = serde_json::from_slice(&tested.stdout).unwrap();
    assert_eq!(tested[0]["state"], "locked");
}

#[test]
fn a_key_file_opens_and_the_older_format_is_read_and_not_written() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let (database, keyfile) = (sandbox.path("home/old.kdbx"), sandbox.path("home/old.key"));
    let (path, key) = (database.to_str().unwrap(), keyfile.to_str().unwrap());
    keepassxc(&sandbox, &["db-create", "--set-key-file", key, "-p", path], &PASSWORD.repeat(2)).ok();
    let entry = ["add", "-k", key, "-p", path, "pypi"];
    keepassxc(&sandbox, &entry, &format!("{PASSWORD}tok\n")).ok();
    let setting = format!("keyfile={key}");
    add(&sandbox, &database, PASSWORD, &[&setting]).ok();
    assert_eq!(get(&sandbox, "keys://pypi/password").ok().text(), "tok");
    let before = std::fs::read(&database).unwrap();
    let refused = sandbox.keyloan(&["item", "set", "keys://pypi/password"]).stdin("x").run();
    refused.refused(7, "KDBX 3");
    assert_eq!(std::fs::read(&database).unwrap(), before);
}

#[test]
fn neither_the_password_nor_the_link_is_in_any_file_of_the_users() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let database = made(&sandbox);
    add(&sandbox, &database, PASSWORD, &[]).ok();
    std::fs::remove_file(sandbox.path("secret-of-a-vault")).unwrap();
    for word in ["the database's password", "keys.kdbx"] {
        let found =
            sandbox.command(needed("grep"), &["-rl", word, sandbox.path("home/.local").to_str().unwrap()]);
        assert_eq!(found.run().text(), "", "{word}");
    }
    let listed = sandbox.keyloan(&["vault", "list"]).run().ok().text();
    assert!(listed.contains("password is kept") && !listed.contains("the database's"), "{listed}");
}

#[test]
fn on_a_terminal_the_password_is_typed_unseen_and_can_be_typed_anew() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let database = made(&sandbox);
    let terminal = Terminal::open(&sandbox);
    let password = PASSWORD.trim_end();
    let typed = |line: &str, asked: &str, password: &str, said: &str| {
        terminal.run(line);
        if line.contains("--kind") {
            terminal.expect("its key file [none]:");
            terminal.press("Enter");
        }
        terminal.expect("assphrase");
        terminal.type_text(PASSPHRASE);
        terminal.press("Enter");
        terminal.expect(asked);
        terminal.type_text(password);
        terminal.press("Enter");
        let screen = terminal.expect(said);
        assert!(password.is_empty() || !screen.contains(password), "{screen}");
    };
    let add = format!("keyloan vault add keys --kind keepass database={}", database.display());
    typed(&add, "nothing for none", "some other password", "is not the right one");
    typed(&add, "nothing for none", password, "added: keys, and it answers");
    typed("keyloan vault add keys --replace", "nothing to keep it", "another", "is not the right one");
    assert_eq!(get(&sandbox, "keys://pypi/password").ok().text(), "tök \"1\"");
    let replace = "keyloan vault add keys --replace";
    typed(replace, "nothing to keep it", password, "changed: keys, and it answers");
    assert_eq!(get(&sandbox, "keys://pypi/password").ok().text(), "tök \"1\"");
    typed("keyloan vault add keys --replace", "nothing to keep it", "", "changed: keys, and it answers");
    assert_eq!(get(&sandbox, "keys://pypi/password").ok().text(), "tök \"1\"");
}

#[test]
fn an_item_without_the_field_is_no_set() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let database = made(&sandbox);
    add(&sandbox, &database, PASSWORD, &["--search"]).ok();
    sandbox
        .with_secrets(&["-s", "Work/twice", "--", "true"])
        .run()
        .refused(125, "there is no set 'Work/twice'");
    assert!(sandbox.events("decided").is_empty(), "nobody was asked");
    sandbox.keyloan(&["item", "set", "keys://Work/twice/vars"]).stdin("A=1").run().ok();
    let lent = sandbox.with_secrets(&["-s", "Work/twice", "--", "printenv", "A"]).run().ok();
    assert_eq!(lent.text(), "1\n");
}

#[test]
fn an_item_of_more_fields_than_one_reply_holds_is_listed_whole() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let long = "%".repeat(240);
    let field = |at| format!("<String><Key>{at:04}{long}</Key><Value>x</Value></String>");
    let fields = (0..2000).map(field).collect::<Vec<_>>().concat();
    let many = format!("<Entry><String><Key>Title</Key><Value>many</Value></String>{fields}</Entry>");
    let database = keyloan_e2e::keepass::made(&sandbox, "keys.kdbx", &many, PASSWORD, &[]);
    add(&sandbox, &database, PASSWORD, &[]).ok();
    let listed = sandbox.keyloan(&["item", "list", "--vault", "keys", "--references"]).run().ok().text();
    assert_eq!(listed.lines().filter(|line| line.starts_with("keys://many/")).count(), 2005);
    let names = sandbox.keyloan(&["item", "list", "--vault", "keys"]).run().ok().text();
    assert_eq!(names, "many\npypi\n");
}

#[test]
fn a_secret_is_given_once_and_under_its_own_name() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let database = made(&sandbox);
    let twice = add(&sandbox, &database, PASSWORD, &["--secret-fd", "password=5"]);
    twice.refused(2, "given twice");
    let other = add(&sandbox, &database, PASSWORD, &["--secret-fd", "secret.password=5"]);
    other.refused(2, "no secret 'secret.password'");
    add(&sandbox, &database, PASSWORD, &[]).ok();
}

#[test]
fn a_database_that_many_want_opened_and_that_takes_long_keeps_no_other_from_being_read() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let slow = keyloan_e2e::keepass::made(&sandbox, "slow.kdbx", "", PASSWORD, &["-t", "1500"]);
    let quick = made(&sandbox);
    let setting = format!("database={}", slow.display());
    let arguments = ["slow", "--kind", "keepass", &setting, "--secret-fd", "password=5"];
    keyloan_e2e::linked::add(&sandbox, PASSWORD, &arguments).run().ok();
    add(&sandbox, &quick, PASSWORD, &[]).ok();
    let mut flood: Vec<_> = (0..8)
        .map(|_| {
            let mut read = sandbox.keyloan(&["item", "get", "slow://pypi/password"]).into_command();
            read.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            Running(read.spawn().unwrap())
        })
        .collect();
    eventually("all have their yes", || sandbox.events("approved").len() == flood.len());
    get(&sandbox, "keys://pypi/password").ok();
    let waiting = flood.iter_mut().filter_map(|read| read.0.try_wait().unwrap().is_none().then_some(()));
    assert!(waiting.count() > 2, "the other was read before those that came first");
}

#[test]
fn those_who_leave_before_it_is_open_shut_nobody_else_out() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let database = keyloan_e2e::keepass::made(&sandbox, "slow.kdbx", "", PASSWORD, &["-t", "1500"]);
    add(&sandbox, &database, PASSWORD, &[]).ok();
    let leaving = format!("timeout 0.4 {} vault test keys; true", bin().join("keyloan").display());
    for _ in 0..8 {
        sandbox.command("/bin/sh", &["-c", &leaving]).run().ok();
    }
    get(&sandbox, "keys://pypi/password").ok();
}
