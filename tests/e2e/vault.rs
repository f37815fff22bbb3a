//! The local vault: what is stored comes back, and only to who may have it.

use keyloan_e2e::{PASSPHRASE, Sandbox, approver};

#[test]
fn values_of_one_byte_to_a_megabyte_in_any_bytes_come_back() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let mut megabyte = Vec::new();
    while megabyte.len() < 1024 * 1024 {
        megabyte
            .extend_from_slice(&(megabyte.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    }
    let values: [&[u8]; 5] = [b"x", b"\0", b"two\nlines\n", "gr\u{fc}n \u{1f511}".as_bytes(), &megabyte];
    for (number, value) in values.iter().enumerate() {
        let item = format!("\u{e4}pfel/\u{30d1}\u{30b9} {number}");
        sandbox.keyloan(&["item", "set", &item, "value"]).stdin(value).run().ok();
        assert!(sandbox.keyloan(&["item", "get", &item, "value"]).run().ok().stdout == *value, "{item}");
    }
    let too_long =
        sandbox.keyloan(&["item", "set", "x", "value"]).stdin([&megabyte[..], b"x"].concat()).run();
    too_long.refused(2, "at most 1 MiB");
    sandbox.keyloan(&["item", "set", "x", "value"]).run().refused(2, "standard input is empty");
}

#[test]
fn items_are_listed_shown_renamed_and_removed() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    sandbox.keyloan(&["item", "set", "pypi", "token"]).stdin("tok").run().ok();
    sandbox.keyloan(&["item", "set", "--public", "pypi", "user"]).stdin("__token__").run().ok();
    assert_eq!(sandbox.keyloan(&["item", "list"]).run().ok().text(), "pypi  (token, user)\n");
    let shown = sandbox.keyloan(&["item", "show", "pypi"]).run().ok().text();
    assert!(
        shown.contains("local://pypi/token  3 bytes, secret")
            && shown.contains("local://pypi/user  = __token__")
    );
    sandbox.keyloan(&["item", "mv", "pypi", "pypi-coverage"]).run().ok();
    sandbox.keyloan(&["item", "get", "pypi", "token"]).run().refused(1, "there is no item 'pypi'");
    assert_eq!(sandbox.keyloan(&["item", "get", "pypi-coverage", "token"]).run().ok().text(), "tok");
    sandbox.keyloan(&["item", "rm", "pypi-coverage", "token"]).run().ok();
    sandbox.keyloan(&["item", "get", "pypi-coverage", "token"]).run().refused(1, "there is no field 'token");
    sandbox.keyloan(&["item", "rm", "pypi-coverage"]).run().ok();
    assert_eq!(sandbox.keyloan(&["item", "list"]).run().ok().text(), "");
    let actions: Vec<String> = sandbox
        .events("item_changed")
        .iter()
        .map(|event| event["action"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(actions, ["stored", "stored", "renamed", "removed", "removed"]);
}

#[test]
fn more_changes_than_the_journal_holds_survive_a_restart() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    sandbox.policy("item.write=allow");
    for number in 0..150 {
        let value = format!("value {number}");
        sandbox.keyloan(&["item", "set", &format!("item {}", number % 70), "v"]).stdin(&value).run().ok();
    }
    let journal = std::fs::read_dir(sandbox.vault().join("journal")).unwrap().count();
    assert!(journal <= 64, "{journal} changes beside the snapshot");
    sandbox.stop();
    sandbox.unlock().ok();
    assert_eq!(sandbox.status()["items"], 70);
    assert_eq!(sandbox.keyloan(&["item", "get", "item 9", "v"]).run().ok().text(), "value 149");
    // One file an item, and the four that keyloan seals for itself: no old revision is left.
    let files = std::fs::read_dir(sandbox.vault().join("items")).unwrap().count();
    assert_eq!(files, 74);
    let verified = sandbox.keyloan(&["log", "--verify"]).run().ok().text();
    assert!(verified.contains("unchanged (with the vault's key)"), "{verified}");
}

#[test]
fn a_locked_vault_gives_nothing_and_the_right_passphrase_opens_it() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.keyloan(&["lock"]).run().ok();
    assert_eq!(sandbox.status()["vault"], "locked");
    sandbox.keyloan(&["item", "get", "pypi", "token"]).run().refused(4, "the vault is locked");
    sandbox.with_secrets(&["--", "true"]).run().refused(125, "the vault is locked");
    let wrong = sandbox.keyed("not it", &["unlock", "--passphrase-fd", "3"]).run();
    wrong.refused(6, "the passphrase was not the right one");
    assert_eq!(sandbox.events("unlock_failed").len(), 1);
    sandbox.unlock().ok();
    assert_eq!(sandbox.keyloan(&["item", "get", "pypi", "token"]).run().ok().text(), "tok");
}

#[test]
fn the_passphrase_and_the_pin_are_changed_by_who_knows_the_passphrase() {
    let sandbox = Sandbox::with_vault();
    let new = sandbox.write("new", "another passphrase").display().to_string();
    let change = |old: &str| {
        let line = format!("exec 5<{new}; exec keyloan passwd --passphrase-fd 3 --new-passphrase-fd 5");
        let old = sandbox.write("old", old).display().to_string();
        sandbox.command("/bin/sh", &["-c", &format!("exec 3<{old}; {line}")]).run()
    };
    change("not it").refused(6, "not the right one");
    change(PASSPHRASE).ok();
    sandbox.keyloan(&["lock"]).run().ok();
    sandbox.unlock().refused(6, "not the right one");
    sandbox.keyed("another passphrase", &["unlock", "--passphrase-fd", "3"]).run().ok();
    let pin = ["pin", "--passphrase-fd", "3", "--pin-fd", "4"];
    sandbox.keyed(PASSPHRASE, &pin).run().refused(6, "not the right one");
    sandbox.keyed("another passphrase", &pin).run().ok();
    assert_eq!((sandbox.events("passphrase_changed").len(), sandbox.events("pin_changed").len()), (1, 1));
}

#[test]
fn the_policy_is_changed_by_who_knows_the_passphrase_and_whole_or_not_at_all() {
    let sandbox = Sandbox::with_vault();
    let set = |passphrase: &str, settings: &[&str]| {
        let all = [&["policy", "set"], settings, &["--passphrase-fd", "3"]].concat();
        sandbox.keyed(passphrase, &all).run()
    };
    set("not it", &["env=allow"]).refused(6, "not the right one");
    set(PASSPHRASE, &["env=allow", "item.raed=deny"]).refused(2, "item.read?");
    assert!(sandbox.keyloan(&["policy", "show"]).run().ok().text().starts_with("env=ask\n"));
    set(PASSPHRASE, &["env=deny", "item.read=allow", "lock.idle=30m"]).ok();
    let shown = sandbox.keyloan(&["policy", "show"]).run().ok().text();
    assert_eq!(
        shown,
        "env=deny\nfile=ask\nitem.read=allow\nitem.write=ask\nssh.login=ask\nssh.signature=ask\n\
         ssh.other=deny\nkey.add=ask\ntrust=ask\napprover=ask\nlock.idle=30m\ndeadline=1m\ngrants=command\n"
    );
    sandbox.stop();
    sandbox.unlock().ok();
    assert_eq!(sandbox.keyloan(&["policy", "show"]).run().ok().text(), shown);
}

#[test]
fn a_denied_kind_is_denied_whoever_asks() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.policy("item.read=deny");
    sandbox
        .keyloan(&["item", "get", "pypi", "token"])
        .run()
        .refused(5, "the policy forbids it (item.read=deny)");
    assert_eq!(sandbox.events("decided").last().unwrap()["decision"], "denied");
}

#[test]
fn the_plain_configuration_file_may_shorten_the_idle_time_and_nothing_else() {
    let sandbox = Sandbox::with_vault();
    sandbox.stop();
    sandbox.make_directory("home/.config");
    sandbox.make_directory("home/.config/keyloan");
    sandbox.write("home/.config/keyloan/config.toml", "[lock]\nidle = \"7d\"\n");
    std::fs::set_permissions(
        sandbox.path("home/.config/keyloan/config.toml"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    sandbox.unlock().ok();
    assert!(sandbox.status()["locks_in_seconds"].as_u64().unwrap() <= 8 * 3600);
    sandbox.stop();
    sandbox.write("home/.config/keyloan/config.toml", "[lock]\nidle = \"5m\"\n");
    sandbox.unlock().ok();
    assert!(sandbox.status()["locks_in_seconds"].as_u64().unwrap() <= 300);
    sandbox.stop();
    sandbox.write("home/.config/keyloan/config.toml", "[policy]\nenv = \"allow\"\n");
    sandbox.unlock().refused(3, "unknown key 'policy' (known: lock)");
}

#[test]
fn a_vault_that_nobody_uses_locks_itself() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.policy("lock.idle=1m");
    assert!(sandbox.status()["locks_in_seconds"].as_u64().unwrap() <= 60);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(80);
    // Looking at the status is no use of the vault.
    while sandbox.status()["vault"] != "locked" {
        assert!(std::time::Instant::now() < deadline, "it never locked itself");
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    assert_eq!(sandbox.events("locked").last().unwrap()["why"], "idle");
    sandbox.with_secrets(&["--", "true"]).run().refused(125, "the vault is locked");
}

#[test]
fn a_vault_of_more_names_than_one_reply_holds_is_listed_whole() {
    let sandbox = Sandbox::with_vault();
    sandbox.policy("item.write=allow");
    let long = "n".repeat(240);
    for number in 0..1500 {
        sandbox.keyloan(&["item", "set", &format!("{number:04} {long}"), &long]).stdin("v").run().ok();
    }
    let listed = sandbox.keyloan(&["item", "list"]).run().ok().text();
    assert!(listed.len() > 700_000 && listed.lines().count() == 1500, "{} bytes", listed.len());
    assert!(listed.lines().last().unwrap().starts_with("1499 nnn"));
}

#[test]
fn the_question_says_that_a_value_will_be_public() {
    let sandbox = Sandbox::with_vault();
    let kept = sandbox.path("project/question");
    sandbox.set_approver(approver::recording(&kept));
    for (arguments, said) in [
        (vec!["item", "set", "pypi", "token"], false),
        (vec!["item", "set", "--public", "pypi", "user"], true),
    ] {
        sandbox.keyloan(&arguments).stdin("value").run().ok();
        let question = std::fs::read_to_string(&kept).unwrap();
        assert_eq!(question.contains("any program of yours will be shown the value"), said, "{question}");
    }
}
