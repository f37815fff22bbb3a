//! Vault files that are cut, flipped, swapped, put back or another's.

use keyloan_e2e::{Sandbox, approver};
use std::fs;
use std::path::PathBuf;

fn filled() -> Sandbox {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    sandbox.policy("item.write=allow");
    sandbox.policy("item.read=allow");
    for (item, value) in [("a", "value-a"), ("b", "value-b")] {
        sandbox.keyloan(&["item", "set", item, "v"]).stdin(value).run().ok();
    }
    sandbox
}

/// The item file that keyloan complains of when it is changed.
fn file_of(sandbox: &Sandbox, item: &str) -> PathBuf {
    for entry in fs::read_dir(sandbox.vault().join("items")).unwrap() {
        let path = entry.unwrap().path();
        let whole = fs::read(&path).unwrap();
        fs::write(&path, b"").unwrap();
        let broken = sandbox.keyloan(&["item", "get", item, "v"]).run().status != 0;
        fs::write(&path, whole).unwrap();
        if broken {
            return path;
        }
    }
    panic!("item {item} has no file");
}

#[test]
fn a_changed_item_costs_itself_alone_and_is_never_believed() {
    let sandbox = filled();
    let (a, b) = (file_of(&sandbox, "a"), file_of(&sandbox, "b"));
    let (whole_a, whole_b) = (fs::read(&a).unwrap(), fs::read(&b).unwrap());
    let mut flipped = whole_a.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for changed in [&whole_a[..whole_a.len() - 1], &flipped, &whole_b, &[whole_a.as_slice(), b"x"].concat()] {
        fs::write(&a, changed).unwrap();
        sandbox.keyloan(&["item", "get", "a", "v"]).run().refused(7, "is not the one that was written");
        assert_eq!(sandbox.keyloan(&["item", "get", "b", "v"]).run().ok().text(), "value-b");
    }
    fs::remove_file(&a).unwrap();
    sandbox.keyloan(&["item", "get", "a", "v"]).run().refused(7, "is missing");
    put(&a, &whole_a);
    fs::set_permissions(&a, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    sandbox.keyloan(&["item", "get", "a", "v"]).run().refused(7, "is open to others");
    fs::set_permissions(&a, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(sandbox.keyloan(&["item", "get", "a", "v"]).run().ok().text(), "value-a");
}

#[test]
fn an_item_put_back_to_an_older_revision_is_noticed() {
    let sandbox = filled();
    let old = file_of(&sandbox, "a");
    let bytes = fs::read(&old).unwrap();
    sandbox.keyloan(&["item", "set", "a", "v"]).stdin("newer").run().ok();
    let new = file_of(&sandbox, "a");
    assert_ne!(old, new, "a revision is never overwritten");
    fs::write(&new, bytes).unwrap();
    sandbox.keyloan(&["item", "get", "a", "v"]).run().refused(7, "is not the one that was written");
}

#[test]
fn a_damaged_index_or_journal_does_not_open_and_loses_no_item() {
    let sandbox = filled();
    sandbox.stop();
    let items = || fs::read_dir(sandbox.vault().join("items")).unwrap().count();
    let before = items();
    let index = sandbox.vault().join("index.age");
    let journal = || {
        let mut names: Vec<PathBuf> = fs::read_dir(sandbox.vault().join("journal"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        names.sort();
        names
    };
    let whole = fs::read(&index).unwrap();
    for (changed, said) in [(&whole[..whole.len() / 2], "it is damaged"), (b"", "it is damaged")] {
        put(&index, changed);
        sandbox.unlock().refused(7, said);
    }
    let other = Sandbox::empty();
    other.init().ok();
    put(&index, &fs::read(other.vault().join("index.age")).unwrap());
    sandbox.unlock().refused(7, "was not made for this vault");
    put(&index, &whole);
    assert!(journal().len() > 2);
    let (first, middle) = (journal()[0].clone(), journal()[1].clone());
    let bytes = fs::read(&middle).unwrap();
    fs::remove_file(&middle).unwrap();
    sandbox.unlock().refused(7, "one was removed, swapped or put back");
    put(&middle, &fs::read(&first).unwrap());
    sandbox.unlock().refused(7, "one was removed, swapped or put back");
    put(&middle, &bytes);
    let last = journal().pop().unwrap();
    let bytes = fs::read(&last).unwrap();
    fs::remove_file(&last).unwrap();
    sandbox.unlock().refused(7, "the vault is older than its log");
    put(&last, &bytes);
    assert_eq!(items(), before, "no failed attempt removed anything");
    sandbox.unlock().ok();
    assert_eq!(sandbox.keyloan(&["item", "get", "b", "v"]).run().ok().text(), "value-b");
}

#[test]
fn a_vault_moved_away_while_it_is_open_is_closed() {
    let sandbox = filled();
    let aside = sandbox.vault().with_extension("aside");
    fs::rename(sandbox.vault(), &aside).unwrap();
    assert_eq!(sandbox.status()["vault"], "absent");
    sandbox.keyloan(&["item", "get", "a", "v"]).run().refused(1, "there is no vault yet");
    fs::rename(&aside, sandbox.vault()).unwrap();
    sandbox.keyloan(&["item", "get", "a", "v"]).run().refused(4, "the vault is locked");
    sandbox.unlock().ok();
    assert_eq!(sandbox.keyloan(&["item", "get", "a", "v"]).run().ok().text(), "value-a");
}

#[test]
fn the_log_of_a_vault_that_is_gone_is_put_aside() {
    let sandbox = filled();
    sandbox.stop();
    fs::remove_dir_all(sandbox.vault()).unwrap();
    let made = sandbox.init().ok();
    assert!(
        made.stderr.contains("the log of an earlier vault was put aside as audit-until-"),
        "{}",
        made.stderr
    );
    sandbox.keyloan(&["log", "--verify"]).run().ok();
    sandbox.stop();
    sandbox.unlock().ok();
}

#[test]
fn a_journal_longer_than_keyloan_leaves_one_is_not_read_and_what_a_crash_left_is() {
    let sandbox = filled();
    sandbox.stop();
    sandbox.unlock().ok();
    let journal = sandbox.vault().join("journal");
    let files = || {
        let files = fs::read_dir(&journal).unwrap().map(|entry| entry.unwrap().path());
        files.map(|path| (fs::read(&path).unwrap(), path)).collect::<Vec<_>>()
    };
    let set = || sandbox.keyloan(&["item", "set", "a", "v"]).stdin("newer").run().ok();
    while files().len() < 63 {
        set();
    }
    let before = files();
    set();
    assert!(files().is_empty(), "they are in the snapshot");
    for _ in 0..63 {
        set();
    }
    sandbox.stop();
    // As if the daemon had been killed when the snapshot was there and the files were not yet removed.
    for (bytes, path) in &before {
        put(path, bytes);
    }
    // Of other names, and never read: its content could be anything.
    put(&journal.join("00000000000000000001.age.new"), b"half a record");
    put(&journal.join("conflicting copy"), b"of another program");
    sandbox.unlock().ok();
    assert_eq!(files().len(), 1, "what nobody needs is gone, but for what is not keyloan's");
    sandbox.stop();
    for number in 1..=129 {
        put(&journal.join(format!("{number:020}.age")), b"");
    }
    sandbox.unlock().refused(7, "changes; keyloan leaves at most 128 there");
}

#[test]
fn while_the_snapshot_cannot_be_written_no_more_is_than_can_be_read_again() {
    let sandbox = filled();
    // What is written here is never put in the snapshot's place.
    let obstacle = sandbox.vault().join("index.age.new");
    fs::create_dir(&obstacle).unwrap();
    let set = || sandbox.keyloan(&["item", "set", "a", "v"]).stdin("newer").run();
    let files = |of: &str| fs::read_dir(sandbox.vault().join(of)).unwrap().count();
    let refused = std::iter::repeat_with(set).take(300).find(|set| set.status != 0).unwrap();
    refused.refused(7, "index.age.new");
    assert_eq!(files("journal"), 128);
    let items = files("items");
    set().refused(7, "index.age.new");
    assert_eq!(files("items"), items, "what was refused leaves nothing");
    sandbox.stop();
    sandbox.unlock().ok();
    assert_eq!(sandbox.keyloan(&["item", "get", "a", "v"]).run().ok().text(), "newer");
    fs::remove_dir(&obstacle).unwrap();
    set().ok();
    assert_eq!(files("journal"), 1);
}

/// Writes a file as keyloan would have: the user's alone.
fn put(path: &std::path::Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    if let Some((uid, gid)) = keyloan_e2e::sandbox::user() {
        nix::unistd::chown(path, Some(uid), Some(gid)).unwrap();
    }
}
