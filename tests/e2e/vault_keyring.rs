//! The keyring of a desktop as a linked vault: a real gnome-keyring, with `secret-tool` as the other side.

use keyloan_e2e::keyring::{Keyring, LOGIN};
use keyloan_e2e::sandbox::Output;
use keyloan_e2e::{PASSPHRASE, Running, Sandbox, approver, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn get(sandbox: &Sandbox, reference: &str) -> Output {
    sandbox.keyloan(&["item", "get", reference]).run()
}

fn set(sandbox: &Sandbox, reference: &str, value: impl AsRef<[u8]>) -> Output {
    sandbox.keyloan(&["item", "set", reference]).stdin(value).run()
}

fn state(sandbox: &Sandbox) -> String {
    let tested = sandbox.keyloan(&["vault", "test", "keyring", "--json"]).run();
    let tested: serde_json::Value = serde_json::from_slice(&tested.stdout).unwrap();
    tested[0]["state"].as_str().unwrap().to_owned()
}

#[test]
fn what_secret_tool_stored_is_read_by_label_and_by_attributes() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let keyring = Keyring::open(&sandbox);
    keyring.store("Password for 'me' on 'pypi'", &["service", "pypi", "username", "me"], "tök \"1\"");
    keyring.store("git/é 🔑", &["server", "https://example.org/x?a=b&c", "user", "m"], "line 1\nline 2\n");
    keyring.store("?odd", &["n", "a\nb"], "odd");
    keyring.store("two\nlines", &["two", "lines"], "2");
    assert!(keyring.link(&[]).ok().stderr.contains("and it answers"));
    assert_eq!(get(&sandbox, "keyring://Password for 'me' on 'pypi'/password").ok().text(), "tök \"1\"");
    assert_eq!(get(&sandbox, "keyring://?service=pypi&username=me/password").ok().text(), "tök \"1\"");
    assert_eq!(get(&sandbox, "keyring://?username=me/service").ok().text(), "pypi");
    assert_eq!(get(&sandbox, "keyring://git/é 🔑/password").ok().text(), "line 1\nline 2\n");
    let by_server = "keyring://?server=https://example.org/x?a=b%26c/password";
    assert_eq!(get(&sandbox, by_server).ok().text(), "line 1\nline 2\n");
    assert_eq!(get(&sandbox, "keyring://?n=a%0Ab/password").ok().text(), "odd");
    get(&sandbox, "keyring://git/é 🔑/nothing").refused(1, "there is no field 'nothing'");
    get(&sandbox, "keyring://nowhere/password").refused(1, "there is no item 'nowhere'");
    get(&sandbox, "keyring://?service=nowhere/password").refused(1, "there is no item");
    get(&sandbox, "keyring://?service/password").refused(7, "is no list of attributes");
    get(&sandbox, "keyring://?/password").refused(7, "is no list of attributes");
    let listed = sandbox.keyloan(&["item", "list", "--vault", "keyring", "--references"]).run().ok().text();
    for reference in [
        "keyring://Password for 'me' on 'pypi'/password\n",
        "keyring://Password for 'me' on 'pypi'/username\n",
        "keyring://git/é 🔑/password\n",
        "keyring://?n=a%0Ab/password\n",
        "keyring://?two=lines/password\n",
    ] {
        assert!(listed.contains(reference), "{reference}: {listed}");
    }
}

#[test]
fn secret_tool_reads_what_keyloan_wrote() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let keyring = Keyring::open(&sandbox);
    keyring.store("GitHub", &["service", "github", "username", "me"], "old");
    keyring.link(&[]).ok();
    let lookup =
        |attributes: &[&str]| keyring.secret_tool(&[&["lookup"][..], attributes].concat()).run().ok().text();
    set(&sandbox, "keyring://GitHub/password", "new & <better>").ok();
    assert_eq!(lookup(&["service", "github"]), "new & <better>");
    set(&sandbox, "keyring://?service=npm&username=it's me/password", "a\nb").ok();
    assert_eq!(lookup(&["service", "npm", "username", "it's me"]), "a\nb");
    set(&sandbox, "keyring://fresh/ü \"x\"/password", "1").ok();
    set(&sandbox, "keyring://fresh/other/password", "2").ok();
    assert_eq!(lookup(&["keyloan", "password", "item", "fresh/ü \"x\""]), "1");
    assert_eq!(get(&sandbox, "keyring://fresh/ü \"x\"/password").ok().text(), "1");
    assert_eq!(get(&sandbox, "keyring://fresh/other/password").ok().text(), "2");
    let found = keyring.secret_tool(&["search", "--all", "service", "github"]).run().ok();
    assert_eq!(found.text().matches("label = GitHub").count(), 1, "{}", found.text());
    set(&sandbox, "keyring://GitHub/username", "you").refused(7, "can be read by every program");
    set(&sandbox, "keyring://GitHub/vars", "A=1").refused(1, "there is no field 'vars'");
    sandbox.set_approver(approver::DENY);
    set(&sandbox, "keyring://GitHub/password", "newer").refused(6, "it was declined");
    assert_eq!(lookup(&["service", "github"]), "new & <better>");
}

#[test]
fn empty_binary_and_long_values_come_back_as_they_are() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let mut keyring = Keyring::open(&sandbox);
    keyring.store("empty", &["name", "empty"], "");
    keyring.link(&[]).ok();
    assert_eq!(get(&sandbox, "keyring://empty/password").ok().stdout, b"");
    let long = vec![0xf7; 1 << 20];
    for (name, value) in [("binary", b"\x00\xff\n\x80\n".to_vec()), ("long", long.clone())] {
        set(&sandbox, &format!("keyring://{name}/password"), &value).ok();
        // What was stored lasts, and is what was given.
        keyring.end();
        keyring.start();
        assert!(get(&sandbox, &format!("keyring://{name}/password")).ok().stdout == value, "{name}");
    }
    keyring.store_plain("too long", &[&long[..], b"x"].concat());
    get(&sandbox, "keyring://too long/password").refused(7, "at most 1 MiB");
}

#[test]
fn a_label_of_several_items_is_ambiguous_and_the_error_names_each() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let keyring = Keyring::open(&sandbox);
    keyring.store("GitHub", &["service", "github", "username", "me"], "mine");
    keyring.store("GitHub", &["service", "github", "username", "work"], "theirs");
    keyring.link(&[]).ok();
    let several = ["?service=github&username=me", "?service=github&username=work"];
    for ambiguous in ["keyring://GitHub/password", "keyring://?service=github/password"] {
        for refused in [get(&sandbox, ambiguous), set(&sandbox, ambiguous, "x")] {
            let refused = refused.refused(1, "more than one thing");
            assert!(several.iter().all(|name| refused.stderr.contains(name)), "{}", refused.stderr);
        }
    }
    let listed = sandbox.keyloan(&["item", "list", "--vault", "keyring"]).run().ok();
    assert_eq!(listed.text(), format!("{}\n{}\n", several[0], several[1]));
    assert_eq!(get(&sandbox, "keyring://?service=github&username=work/password").ok().text(), "theirs");
}

#[test]
fn a_locked_keyring_is_told_and_the_desktops_own_question_never_comes() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let mut keyring = Keyring::open(&sandbox);
    keyring.store("web", &["name", "web"], "tok");
    keyring.link(&[]).ok();
    keyring.lock();
    let heard = keyring.listen();
    assert_eq!(state(&sandbox), "locked");
    for reference in ["keyring://web/password", "keyring://?name=web/password"] {
        get(&sandbox, reference).refused(7, "locked");
        let hinted = set(&sandbox, reference, "x").refused(7, "locked");
        assert!(hinted.stderr.contains("hint: open the keyring on your desktop"), "{}", hinted.stderr);
    }
    sandbox.keyloan(&["item", "list", "--vault", "keyring"]).run().refused(7, "locked");
    assert!(keyring.link(&["--replace"]).ok().stderr.contains("it is locked"));
    heard.settle("end-of-test");
    assert!(heard.times("ReadAlias") > 0);
    for never in ["Unlock", "Prompt", "CreateCollection"] {
        assert_eq!(heard.times(never), 0, "{never}");
    }
    drop(heard);
    keyring.end();
    keyring.start();
    assert_eq!(get(&sandbox, "keyring://web/password").ok().text(), "tok");
}

#[test]
fn a_missing_service_a_missing_bus_and_a_missing_collection_are_told_apart() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let mut keyring = Keyring::absent(&sandbox);
    keyring.link(&[]).refused(7, "no program keeps a keyring on the session bus");
    keyring.start();
    keyring.link(&["collection=nowhere"]).refused(7, "there is no keyring 'nowhere'");
    keyring.link(&["collection=login"]).ok();
    keyring.store("web", &["name", "web"], "tok");
    assert_eq!(get(&sandbox, "keyring://web/password").ok().text(), "tok");
    keyring.end();
    get(&sandbox, "keyring://web/password").refused(7, "no program keeps a keyring on the session bus");
    assert_eq!(state(&sandbox), "unreachable");
    keyring.end_bus();
    get(&sandbox, "keyring://web/password").refused(7, "there is no session bus at");
    std::fs::remove_file(keyring.socket()).unwrap();
    get(&sandbox, "keyring://web/password").refused(7, "there is no session bus at");
}

#[test]
fn a_keyring_that_hangs_keeps_nothing_else_waiting_and_is_let_go() {
    let sandbox = Sandbox::with_token(b"own");
    let keyring = Keyring::open(&sandbox);
    keyring.store("web", &["name", "web"], "tok");
    keyring.link(&[]).ok();
    let service = Pid::from_raw(keyring.service().id().try_into().unwrap());
    kill(service, Signal::SIGSTOP).unwrap();
    let daemon = sandbox.daemon().unwrap();
    let mut hanging = Running(sandbox.keyloan(&["item", "get", "keyring://web/password"]).start());
    eventually("the keyring is asked", || keyring.connections_of(daemon) == 1);
    let own = sandbox.keyloan(&["item", "get", "local://pypi/token"]).run().ok();
    assert_eq!(own.text(), "own");
    // Who goes away takes the question with it.
    hanging.end();
    eventually("the daemon has left the bus", || keyring.connections_of(daemon) == 0);
    get(&sandbox, "keyring://web/password").refused(7, "it did not answer in time");
    assert_eq!(keyring.connections_of(daemon), 0);
    kill(service, Signal::SIGCONT).unwrap();
    assert_eq!(get(&sandbox, "keyring://web/password").ok().text(), "tok");
}

#[test]
fn twenty_references_cost_no_more_calls_than_one_and_values_pass_encrypted() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let keyring = Keyring::open(&sandbox);
    for number in 0..20 {
        let value = format!("plain-value-{number}");
        keyring.store(&format!("item {number}"), &["number", &number.to_string()], value);
    }
    let line = |number| format!("V{number} = \"keyring://item {number}/password\"\n");
    let manifest = format!("[env]\n{}", (0..20).map(line).collect::<String>());
    keyring.link(&[]).ok();
    sandbox.write("project/.keyloan.toml", manifest);
    sandbox.keyloan(&["trust"]).run().ok();
    let heard = keyring.listen();
    let calls = || ["OpenSession", "GetSecrets", "GetAll", "SearchItems"].map(|call| heard.times(call));
    let before = calls();
    get(&sandbox, "keyring://item 7/password").ok();
    heard.settle("after-one");
    let one = calls();
    let lent = sandbox.with_secrets(&["--", "sh", "-c", "echo $V0 $V19"]).run().ok();
    assert_eq!(lent.text(), "plain-value-0 plain-value-19\n");
    heard.settle("after-twenty");
    let twenty = calls();
    for at in 0..one.len() {
        assert_eq!(twenty[at] - one[at], one[at] - before[at], "{twenty:?} {one:?} {before:?}");
    }
    assert_eq!((one[1] - before[1], one[2] - before[2]), (1, 20), "one call for values, one a name");
    assert_eq!(heard.times("plain-value"), 0);
    // The listener does hear values that are not encrypted.
    keyring.store_plain("heard", b"plain-value-heard");
    heard.settle("after-all");
    assert!(heard.times("plain-value-heard") > 0);
}

#[test]
fn an_item_that_says_so_is_a_set_and_no_other_is() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let keyring = Keyring::open(&sandbox);
    keyring.store("~/project", &["keyloan", "vars"], "A=1\nB=two words\n");
    keyring.store("plain", &["name", "plain"], "QUJDREVG==");
    keyring.link(&["--search"]).ok();
    let lent = sandbox.with_secrets(&["-s", "~/project", "--", "sh", "-c", "echo \"$A|$B\""]).run().ok();
    assert_eq!(lent.text(), "1|two words\n");
    sandbox.with_secrets(&["-s", "plain", "--", "true"]).run().refused(125, "");
    assert!(!std::fs::read_to_string(sandbox.log()).unwrap().contains("QUJDREVG"));
    set(&sandbox, "keyring://~/other/vars", "C=3\n").ok();
    let lent = sandbox.with_secrets(&["-s", "~/other", "--", "printenv", "C"]).run().ok();
    assert_eq!(lent.text(), "3\n");
    assert_eq!(
        keyring.secret_tool(&["lookup", "keyloan", "vars", "item", "~/other"]).run().ok().text(),
        "C=3\n"
    );
}

#[test]
fn an_item_that_goes_away_between_list_and_read_is_missed() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let keyring = Keyring::open(&sandbox);
    keyring.store("web", &["name", "web"], "tok");
    keyring.link(&[]).ok();
    let listed = sandbox.keyloan(&["item", "list", "--vault", "keyring"]).run().ok();
    assert_eq!(listed.text(), "web\n");
    keyring.secret_tool(&["clear", "name", "web"]).run().ok();
    get(&sandbox, "keyring://web/password").refused(1, "there is no item 'web'");
    assert!(keyring.call(LOGIN, "org.freedesktop.DBus.Peer", "Ping", &[]).status == 0);
}

#[test]
fn the_bus_is_the_desktops_that_the_vault_was_unlocked_from() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let keyring = Keyring::open(&sandbox);
    keyring.store("web", &["name", "web"], "tok");
    let add = ["vault", "add", "keyring", "--kind", "keyring", "--passphrase-fd", "3"];
    // The requester's own variable says nothing.
    keyring
        .on(sandbox.keyed(PASSPHRASE, &add))
        .env("DISPLAY", ":7")
        .run()
        .refused(7, "there is no session bus at");
    let unlock = sandbox.keyed(PASSPHRASE, &["unlock", "--here", "--passphrase-fd", "3"]);
    keyring.on(unlock).env("DISPLAY", ":7").run().ok();
    sandbox.keyed(PASSPHRASE, &add).run().ok();
    assert_eq!(get(&sandbox, "keyring://web/password").ok().text(), "tok");
    let evil = sandbox.keyloan(&["item", "get", "keyring://web/password"]);
    let evil = evil
        .env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nowhere")
        .env("XDG_RUNTIME_DIR", sandbox.path("run"));
    assert_eq!(evil.run().ok().text(), "tok");
}
