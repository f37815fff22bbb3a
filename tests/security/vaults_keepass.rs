//! A KeePass database that somebody else wrote: it ends no daemon, keeps none busy and guesses no password.

use keyloan_e2e::keepass::{PASSWORD, entry, keepassxc, link, made};
use keyloan_e2e::sandbox::{Output, finished};
use keyloan_e2e::{Sandbox, approver, eventually};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

fn linked(inside: &str) -> (Sandbox, PathBuf) {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let database = made(&sandbox, "keys.kdbx", inside, PASSWORD, &[]);
    link(&sandbox, &database, PASSWORD, &[]).ok();
    (sandbox, database)
}

fn test(sandbox: &Sandbox) -> Output {
    sandbox.keyloan(&["vault", "test", "keys"]).run()
}

fn get(sandbox: &Sandbox, reference: &str) -> Output {
    sandbox.keyloan(&["item", "get", reference]).run()
}

#[test]
fn a_file_with_a_short_field_in_its_header_ends_no_daemon() {
    let (sandbox, database) = linked("");
    let whole = fs::read(&database).unwrap();
    let pid = sandbox.daemon().unwrap();
    // The compression's number is no byte long: such a file of 22 bytes was enough.
    let compression = b"\x03\x04\0\0\0\x01\0\0\0";
    let at =
        whole.windows(9).position(|nine| nine == compression || nine == b"\x03\x04\0\0\0\0\0\0\0").unwrap();
    let short = [&whole[..at], b"\x03\0\0\0\0", &whole[at + 9..]].concat();
    sandbox.write("home/keys.kdbx", short);
    let said = test(&sandbox).text();
    assert!(said.contains("keys  broken: its file is damaged"), "{said}");
    // KDBX 3: rounds.
    let three = b"\x03\xd9\xa2\x9a\x67\xfb\x4b\xb5\x00\x00\x03\x00\x06\x01\x00\x01\x00\x00\x00";
    sandbox.write("home/keys.kdbx", three);
    assert_ne!(test(&sandbox).status, 0);
    sandbox.write("home/keys.kdbx", whole);
    test(&sandbox).ok();
    assert_eq!(sandbox.daemon(), Some(pid));
}

#[test]
fn groups_in_groups_without_end_and_what_unpacks_to_a_gigabyte_end_no_daemon() {
    let (sandbox, _) = linked("");
    let pid = sandbox.daemon().unwrap();
    let group = |at: usize| format!("<Group><UUID>{at:021}Q==</UUID><Name>g</Name>");
    let deep = (0..3000).map(group).collect::<Vec<_>>().concat() + &"</Group>".repeat(3000);
    let notes = format!("<String><Key>Notes</Key><Value>{}</Value></String>", "a".repeat(200_000_000));
    let long = entry("long", "x").replace("</Entry>", &(notes + "</Entry>"));
    for inside in [deep, long] {
        made(&sandbox, "keys.kdbx", &inside, PASSWORD, &[]);
        sandbox.keyloan(&["item", "list", "--vault", "keys"]).run();
        assert_eq!(sandbox.daemon(), Some(pid));
        assert!(sandbox.keyloan(&["vault", "list"]).run().ok().text().contains("keys"));
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 400_000, "{peak} kB");
}

#[test]
fn a_derivation_ends_with_whoever_wanted_it() {
    let (sandbox, database) = linked("");
    let fast = fs::read(&database).unwrap();
    made(&sandbox, "keys.kdbx", "", PASSWORD, &["-t", "2500"]);
    let asked: Vec<_> = (0..3).map(|_| sandbox.keyloan(&["vault", "test", "keys"]).start()).collect();
    let pid = sandbox.daemon().unwrap();
    let before = ticks(pid);
    eventually("the key is being derived", || ticks(pid) > before + 20);
    // The child's memory holds the password, and no program of the user may look at it.
    for child in children(pid) {
        let owner = fs::metadata(format!("/proc/{child}/environ")).map_or(0, |found| found.uid());
        assert_eq!(owner, 0, "it can be traced");
    }
    for mut asked in asked {
        asked.kill().unwrap();
        asked.wait().unwrap();
    }
    let at_the_end = ticks(pid);
    eventually("nothing derives a key any more", || {
        let before = ticks(pid);
        std::thread::sleep(std::time::Duration::from_millis(300));
        children(pid).is_empty() && ticks(pid) == before
    });
    let after = ticks(pid) - at_the_end.min(ticks(pid));
    assert!(after < 100, "{after} ticks were computed for nobody");
    sandbox.write("home/keys.kdbx", fast);
    test(&sandbox).ok();
}

/// What a process and its children have computed for, in clock ticks.
fn ticks(pid: i32) -> u64 {
    let of = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        fields.get(11).and_then(|user| user.parse::<u64>().ok()).unwrap_or(0)
    };
    of(pid) + children(pid).into_iter().map(of).sum::<u64>()
}

fn children(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let of = |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).unwrap_or_default();
    let all = tasks.map(of).collect::<Vec<_>>().concat();
    all.split_whitespace().map(|child| child.parse().unwrap()).collect()
}

#[test]
fn a_database_of_a_guesser_with_a_cheaper_derivation_than_the_linked_one_is_not_tried() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let database = made(&sandbox, "keys.kdbx", "", PASSWORD, &["-t", "100"]);
    link(&sandbox, &database, PASSWORD, &[]).ok();
    // The guesser's own, whose key takes next to no time: right or wrong, nobody hears.
    let guess = |password: &str| {
        made(&sandbox, "keys.kdbx", "", password, &[]);
        test(&sandbox).text()
    };
    let (right, wrong) = (guess(PASSWORD), guess("wrong\n"));
    assert!(right.contains("keys  refused: its key takes less to derive than when it was linked"), "{right}");
    assert_eq!(right, wrong);
    // Whoever knows the passphrase may say that this is right.
    made(&sandbox, "keys.kdbx", "", PASSWORD, &[]);
    link(&sandbox, &database, PASSWORD, &["--replace"]).ok();
    test(&sandbox).ok();
}

#[test]
fn wrong_passwords_are_answered_for_a_while_and_then_ever_more_seldom() {
    let (sandbox, database) = linked("");
    let whole = fs::read(&database).unwrap();
    for guess in 0..5 {
        made(&sandbox, "keys.kdbx", "", &format!("guess {guess}\n"), &[]);
        let said = test(&sandbox).text();
        assert!(said.contains("is not the right one"), "{said}");
    }
    // The right one in between does not take the count back.
    sandbox.write("home/keys.kdbx", &whole);
    let said = test(&sandbox).text();
    assert!(said.contains("it could not be opened too often"), "{said}");
    // Whoever knows the passphrase need not wait.
    sandbox.keyloan(&["lock"]).run().ok();
    sandbox.unlock().ok();
    test(&sandbox).ok();
}

#[test]
fn writes_at_once_are_all_made() {
    let (sandbox, database) = linked("");
    let setting: Vec<_> = (0..3).map(|at| set(&sandbox, at)).collect();
    for child in setting {
        let out = finished(child);
        assert_eq!(out.status, 0, "{}", out.stderr);
    }
    let show = ["show", "-s", "-a", "Password", database.to_str().unwrap()];
    for at in 0..3 {
        let item = format!("item {at}");
        let shown = keepassxc(&sandbox, &[&show[..], &[&item]].concat(), PASSWORD).ok().text();
        assert_eq!(shown, format!("value {at}\n"));
    }
}

fn set(sandbox: &Sandbox, at: usize) -> std::process::Child {
    let item = format!("keys://item {at}/password");
    sandbox.keyloan(&["item", "set", &item]).stdin(format!("value {at}")).start()
}

#[test]
fn nothing_is_written_for_a_requester_that_is_gone() {
    let (sandbox, database) = linked("");
    made(&sandbox, "keys.kdbx", "", PASSWORD, &["-t", "500"]);
    let before = fs::read(&database).unwrap();
    let pid = sandbox.daemon().unwrap();
    let computed = ticks(pid);
    let so_far = sandbox.events("approved").len();
    let mut child = set(&sandbox, 9);
    eventually("it is approved", || sandbox.events("approved").len() > so_far);
    eventually("the key is being derived", || ticks(pid) > computed + 20);
    child.kill().unwrap();
    child.wait().unwrap();
    // Waits for whatever still goes on.
    test(&sandbox).ok();
    assert!(fs::read(&database).unwrap() == before, "it was written for nobody");
}

#[test]
fn a_rule_for_an_item_cannot_be_passed_by_with_another_name_of_it() {
    let group = "<Group><UUID>AAAAAAAAAAAAAAAAAAAAAg==</UUID><Name>Internet</Name>";
    let (sandbox, _) = linked(&format!("{group}{}</Group>", entry("bank", "s3cret")));
    sandbox.policies(&["item.read[item=keys://*]=allow", "item.read[item=keys://Internet/bank]=deny"]);
    get(&sandbox, "keys://Internet/bank/password").refused(5, "the policy forbids it");
    let refused = get(&sandbox, "keys://bank/password").refused(1, "there is no item 'bank'");
    assert!(refused.stderr.contains("Internet/bank"), "{}", refused.stderr);
}
