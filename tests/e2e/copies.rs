//! Copies of the whole vault: what is in them comes back, and nobody else can open them.

use keyloan_e2e::programs::needed;
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{Output, PASSPHRASE, Sandbox, approver};
use std::path::Path;

const OTHER: &str = "another passphrase";

fn filled() -> Sandbox {
    let sandbox = Sandbox::with_token(b"tok-of-the-backup");
    sandbox.policy("item.write=allow");
    sandbox.policy("item.read=allow");
    sandbox.keyloan(&["item", "set", "blob", "bytes"]).stdin([0, 255, 10].repeat(50_000)).run().ok();
    sandbox
}

/// `keyloan` with the vault's passphrase on descriptor 3, the PIN on 4 and another passphrase on 5.
fn keyed(sandbox: &Sandbox, passphrase: &str, other: &str, arguments: &[&str]) -> Output {
    let other = sandbox.write("other", other).display().to_string();
    let line = format!("exec 5<{other}; exec \"$@\"");
    let program = keyloan_e2e::programs::bin().join("keyloan").display().to_string();
    let mut all = vec!["-c", &line, "sh", &program];
    all.extend(arguments);
    let passphrase = sandbox.write("passphrase", passphrase).display().to_string();
    let outer = format!("exec 3<{passphrase}; exec sh \"$@\"");
    let mut whole = vec!["-c", outer.as_str(), "sh"];
    whole.extend(all);
    sandbox.command(needed("sh"), &whole).run()
}

fn backup(sandbox: &Sandbox, file: &str, more: &[&str]) -> Output {
    let arguments = [&["backup", file, "--passphrase-fd", "3"], more].concat();
    keyed(sandbox, PASSPHRASE, OTHER, &arguments)
}

fn value(sandbox: &Sandbox, item: &str, field: &str) -> Vec<u8> {
    sandbox.keyloan(&["item", "get", item, field]).run().ok().stdout
}

/// An empty machine with a copy of a file from another one.
fn empty_with(file: &Path) -> (Sandbox, String) {
    let sandbox = Sandbox::empty();
    let copy = sandbox.write("project/backup.age", std::fs::read(file).unwrap());
    (sandbox, copy.display().to_string())
}

#[test]
fn a_restored_backup_gives_back_everything_on_an_empty_machine() {
    let sandbox = filled();
    let file = sandbox.path("project/b.age");
    let made = backup(&sandbox, file.to_str().unwrap(), &["--backup-passphrase-fd", "5"]).ok();
    assert!(made.stderr.contains("2 items, the policy and the trusted files"), "{}", made.stderr);
    let raw = std::fs::read(&file).unwrap();
    assert!(raw.starts_with(b"age-encryption.org/v1\n-> scrypt "));
    assert!(!raw.windows(8).any(|window| window == b"tok-of-t"));
    backup(&sandbox, file.to_str().unwrap(), &["--backup-passphrase-fd", "5"]).refused(2, "exists");

    let (empty, copy) = empty_with(&file);
    let restore =
        |passphrase| keyed(&empty, "", passphrase, &["restore", &copy, "--backup-passphrase-fd", "5"]);
    restore("not it").refused(7, "was not made for this vault");
    assert!(!empty.vault().exists());
    restore(OTHER).ok();
    assert_eq!(value(&empty, "pypi", "token"), b"tok-of-the-backup");
    assert_eq!(value(&empty, "blob", "bytes"), value(&sandbox, "blob", "bytes"));
    let policy = |sandbox: &Sandbox| sandbox.keyloan(&["policy", "show"]).run().ok().text();
    assert_eq!(policy(&empty), policy(&sandbox));
    empty.stop();
    empty.unlock().ok();
    empty.keyloan(&["log", "--verify"]).run().ok();
    assert_eq!(empty.status()["warnings"].to_string(), "[]");
    assert_eq!(empty.events("restored")[0]["items"], 2);
    restore(OTHER).refused(7, "is there already");
}

#[test]
fn a_backup_for_recipients_is_opened_by_their_keys_alone() {
    let sandbox = filled();
    let key = sandbox.path("home/key").display().to_string();
    sandbox.command(needed("ssh-keygen"), &["-q", "-t", "ed25519", "-N", "", "-f", &key]).run().ok();
    let public = std::fs::read_to_string(format!("{key}.pub")).unwrap();
    let age_key = sandbox.path("home/age").display().to_string();
    sandbox.command("/usr/bin/age-keygen", &["-o", &age_key]).run().ok();
    let recipient = sandbox.command("/usr/bin/age-keygen", &["-y", &age_key]).run().ok().text();
    let file = sandbox.path("project/b.age");
    backup(&sandbox, file.to_str().unwrap(), &["-r", public.trim(), "-r", recipient.trim()]).ok();
    let named = sandbox.events("backed_up")[0]["recipients"].to_string();
    assert!(named.contains("ssh-ed25519 SHA256:") && named.contains(recipient.trim()), "{named}");
    for identity in [&key, &age_key] {
        let (empty, copy) = empty_with(&file);
        let identity = empty.write("home/identity", std::fs::read(identity).unwrap());
        let restore = ["restore", &copy, "--identity", identity.to_str().unwrap()];
        empty.keyloan(&restore).run().ok();
        assert_eq!(value(&empty, "pypi", "token"), b"tok-of-the-backup");
    }
    let (empty, copy) = empty_with(&file);
    let stranger = empty.path("home/stranger").display().to_string();
    empty.command("/usr/bin/age-keygen", &["-o", &stranger]).run().ok();
    empty
        .keyloan(&["restore", &copy, "--identity", &stranger])
        .run()
        .refused(7, "was not made for this vault");
    // The stock program opens it, and what comes out is an archive like any other.
    let line = format!("age -d -i {age_key} {} | tar -tvf -", file.display());
    let listed = sandbox.command(needed("sh"), &["-c", &line]).run().ok().text();
    assert!(listed.contains(" identity.txt\n") && listed.contains(" vault/index.age\n"), "{listed}");
    let line = format!("age -d -i age <{copy} >plain && exec keyloan restore - <plain");
    empty.write("project/age", std::fs::read(&age_key).unwrap());
    empty.command(needed("sh"), &["-c", &line]).run().ok();
    assert_eq!(value(&empty, "pypi", "token"), b"tok-of-the-backup");
}

#[test]
fn a_restored_vault_can_get_a_new_passphrase() {
    let sandbox = filled();
    let file = sandbox.path("project/b.age");
    backup(&sandbox, file.to_str().unwrap(), &["--backup-passphrase-fd", "5"]).ok();
    let (empty, copy) = empty_with(&file);
    let arguments =
        ["restore", &copy, "--backup-passphrase-fd", "5", "--new-passphrase", "--new-passphrase-fd", "3"];
    keyed(&empty, "a third one", OTHER, &arguments).ok();
    empty.stop();
    empty.unlock().refused(6, "not the right one");
    empty.keyed("a third one", &["unlock", "--passphrase-fd", "3"]).run().ok();
    assert_eq!(value(&empty, "pypi", "token"), b"tok-of-the-backup");
}

#[test]
fn a_damaged_or_foreign_backup_restores_nothing() {
    let sandbox = filled();
    let file = sandbox.path("project/b.age");
    backup(&sandbox, file.to_str().unwrap(), &["--backup-passphrase-fd", "5"]).ok();
    let whole = std::fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let empty = Sandbox::empty();
    for damaged in [&whole[..whole.len() / 2], &flipped, b"", b"age-encryption.org/v1\n", b"hello"] {
        let copy = empty.write("project/bad", damaged).display().to_string();
        let refused = keyed(&empty, "", OTHER, &["restore", &copy, "--backup-passphrase-fd", "5"]);
        assert_eq!(refused.status, 7, "{}", refused.stderr);
        assert!(!empty.vault().exists());
    }
    // Archives that are none of keyloan's: another name, a path that leads out, a link.
    let make =
        "mkdir -p x/vault && cd x && echo a >README && ln -sf /etc/passwd identity.txt && tar cf ../t \"$@\"";
    for names in [vec!["README"], vec!["README", "identity.txt"], vec!["identity.txt"]] {
        let all = [&["-c", make, "sh"], names.as_slice()].concat();
        empty.command(needed("sh"), &all).run().ok();
        let line = "exec keyloan restore - <t";
        let refused = empty.command(needed("sh"), &["-c", line]).run();
        refused.refused(7, "it is not a backup that keyloan made");
        assert!(!empty.vault().exists());
    }
    let good = empty.write("project/good", &whole).display().to_string();
    keyed(&empty, "", OTHER, &["restore", &good, "--backup-passphrase-fd", "5"]).ok();
}

#[test]
fn a_backup_wants_the_passphrase_and_says_for_whom_it_is() {
    let sandbox = filled();
    let file = sandbox.path("project/b.age").display().to_string();
    let refused = keyed(&sandbox, "not it", OTHER, &["backup", &file, "--passphrase-fd", "3"]);
    refused.refused(6, "not the right one");
    assert!(!Path::new(&file).exists());
    assert_eq!(std::fs::read_dir(sandbox.path("project")).unwrap().count(), 1, "nothing half-made is left");
    let terminal = Terminal::open(&sandbox);
    let key = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    terminal.run(&format!("keyloan backup {file} -r {key}; echo ended $?"));
    terminal.expect("back up the whole vault");
    terminal.expect(&format!("opens to  {key}"));
    terminal.expect("Passphrase, Enter alone to decline:");
    terminal.press("Enter");
    terminal.expect("ended 6");
}

#[test]
fn a_rekeyed_vault_has_everything_and_no_longer_opens_with_the_old_identity() {
    let sandbox = filled();
    let key = sandbox.path("home/key").display().to_string();
    sandbox.command(needed("ssh-keygen"), &["-q", "-t", "ed25519", "-N", "", "-f", &key]).run().ok();
    let public = std::fs::read_to_string(format!("{key}.pub")).unwrap();
    let add = ["recipient", "add", "laptop", public.trim(), "--passphrase-fd", "3"];
    sandbox.keyed(PASSPHRASE, &add).run().ok();
    let laptop = sandbox.vault().join("identity/laptop.age").display().to_string();
    let identity =
        |sandbox: &Sandbox| sandbox.command(needed("age"), &["-d", "-i", &key, &laptop]).run().ok().text();
    let before = identity(&sandbox);
    keyed(&sandbox, PASSPHRASE, OTHER, &["rekey", "--passphrase-fd", "3", "--new-passphrase-fd", "5"]).ok();
    assert_ne!(identity(&sandbox), before, "the recipient opens the new one");
    assert_eq!(value(&sandbox, "pypi", "token"), b"tok-of-the-backup");
    let old = sandbox.write("home/old", before).display().to_string();
    for item in std::fs::read_dir(sandbox.vault().join("items")).unwrap() {
        let item = item.unwrap().path().display().to_string();
        sandbox.command(needed("age"), &["-d", "-i", &old, &item]).run().refused(1, "no identity matched");
    }
    assert!(!sandbox.vault().with_extension("making").exists(), "the old vault is gone");
    sandbox.stop();
    sandbox.unlock().refused(6, "not the right one");
    sandbox.keyed(OTHER, &["unlock", "--passphrase-fd", "3"]).run().ok();
    sandbox.with_secrets(&["--", "true"]).run().ok();
    sandbox.keyloan(&["log", "--verify"]).run().ok();
}

#[test]
fn the_recovery_key_opens_the_vault_when_the_passphrase_is_lost() {
    let sandbox = filled();
    let page = sandbox.keyed(PASSPHRASE, &["recovery-key", "--passphrase-fd", "3"]).run().ok().text();
    let line = page.lines().find(|line| line.trim_start().starts_with("AGE-S")).unwrap();
    let key: Vec<&str> = page
        .lines()
        .skip_while(|other| *other != line)
        .take_while(|line| !line.is_empty())
        .map(str::trim)
        .collect();
    let key = key.join(" ").to_lowercase();
    sandbox.stop();
    sandbox.keyed(&key, &["unlock", "--passphrase-fd", "3"]).run().ok();
    keyed(&sandbox, &key, OTHER, &["passwd", "--passphrase-fd", "3", "--new-passphrase-fd", "5"]).ok();
    sandbox.stop();
    sandbox.keyed(OTHER, &["unlock", "--passphrase-fd", "3"]).run().ok();
    assert_eq!(value(&sandbox, "pypi", "token"), b"tok-of-the-backup");
    // A second one makes the first useless; a mistyped one is told.
    sandbox.keyed(OTHER, &["recovery-key", "--passphrase-fd", "3"]).run().ok();
    sandbox.stop();
    sandbox.keyed(&key, &["unlock", "--passphrase-fd", "3"]).run().refused(6, "not the right one");
}

/// Two machines with the same vault.
fn two_machines() -> (Sandbox, Sandbox) {
    let one = filled();
    one.keyloan(&["item", "set", "shared", "v"]).stdin("first").run().ok();
    one.keyloan(&["item", "set", "doomed", "v"]).stdin("x").run().ok();
    one.stop();
    let other = one.copy();
    for sandbox in [&one, &other] {
        // The copy has another path, and so another approver; rules decide here.
        sandbox.unlock().ok();
    }
    (one, other)
}

/// Brings the other's vault directory to this machine and merges it.
fn merge(into: &Sandbox, from: &Sandbox) -> Output {
    let place = into.path("synced");
    let _ = std::fs::remove_dir_all(&place);
    let from = from.vault().display().to_string();
    let status = std::process::Command::new("cp").args(["-a", &from]).arg(&place).status().unwrap();
    assert!(status.success());
    into.keyloan(&["merge", place.to_str().unwrap()]).run()
}

fn set(sandbox: &Sandbox, item: &str, value: &str) {
    sandbox.keyloan(&["item", "set", item, "v"]).stdin(value).run().ok();
}

fn titles(sandbox: &Sandbox) -> Vec<String> {
    let listed = sandbox.keyloan(&["item", "list"]).run().ok().text();
    listed.lines().map(|line| line.split("  (").next().unwrap().to_owned()).collect()
}

#[test]
fn two_machines_copies_are_merged_and_nothing_new_is_lost() {
    let (one, other) = two_machines();
    assert!(merge(&one, &other).ok().stderr.contains("nothing new is there"));
    set(&one, "here", "h");
    set(&other, "there", "t");
    set(&other, "shared", "second");
    one.keyloan(&["item", "rm", "doomed"]).run().ok();
    let merged = merge(&one, &other).ok();
    assert!(merged.stderr.contains("merged: 1 added, 1 updated, 0 conflicts"), "{}", merged.stderr);
    assert_eq!(titles(&one), ["blob", "here", "pypi", "shared", "there"], "what was removed stays removed");
    assert_eq!(value(&one, "shared", "v"), b"second");
    assert!(merge(&one, &other).ok().stderr.contains("nothing new is there"));
    // And the other way round, so that both have the same.
    merge(&other, &one).ok();
    assert_eq!(value(&other, "here", "v"), b"h");
    one.stop();
    one.unlock().ok();
    one.keyloan(&["log", "--verify"]).run().ok();
}

#[test]
fn what_both_sides_changed_is_kept_twice_and_told() {
    let (one, other) = two_machines();
    set(&one, "shared", "of one");
    set(&other, "shared", "of the other");
    set(&one, "same title", "1");
    set(&other, "same title", "2");
    one.keyloan(&["item", "rm", "doomed"]).run().ok();
    set(&other, "doomed", "changed there");
    let merged = merge(&one, &other).ok();
    assert!(merged.stderr.contains("'shared' was changed on both sides"), "{}", merged.stderr);
    assert!(merged.stderr.contains("'doomed' was removed on one side"), "{}", merged.stderr);
    assert_eq!(value(&one, "shared", "v"), b"of one");
    assert_eq!(value(&one, "doomed", "v"), b"changed there");
    let all = titles(&one);
    let kept: Vec<&String> = all.iter().filter(|title| title.contains(" (merged 20")).collect();
    assert_eq!(kept.len(), 2, "{all:?}");
    assert_eq!(value(&one, kept[0], "v"), b"2");
    assert_eq!(value(&one, kept[1], "v"), b"of the other");
    assert!(merge(&one, &other).ok().stderr.contains("nothing new is there"), "not a second time");
}

#[test]
fn an_older_copy_of_the_vault_brings_nothing_back() {
    let (one, other) = two_machines();
    set(&one, "shared", "rotated");
    one.keyloan(&["item", "rm", "doomed"]).run().ok();
    other.keyed(PASSPHRASE, &["policy", "set", "env=allow", "--passphrase-fd", "3"]).run().ok();
    assert!(merge(&one, &other).ok().stderr.contains("nothing new is there"));
    assert_eq!(value(&one, "shared", "v"), b"rotated");
    assert!(!titles(&one).contains(&"doomed".to_owned()));
    assert!(one.keyloan(&["policy", "show"]).run().ok().text().contains("env=ask"), "no policy is taken");
    let stranger = Sandbox::empty();
    stranger.init().ok();
    merge(&one, &stranger).refused(7, "was not made for this vault");
    // Put in the vault's own place, an older copy is still noticed.
    one.stop();
    std::fs::remove_dir_all(one.vault()).unwrap();
    let from = other.vault().display().to_string();
    assert!(
        std::process::Command::new("cp").args(["-a", &from]).arg(one.vault()).status().unwrap().success()
    );
    one.unlock().refused(7, "the vault is older than its log");
}

#[test]
fn a_generated_value_is_seen_by_nobody_and_lent_as_any_other() {
    let sandbox = Sandbox::with_token(b"tok");
    let generated = sandbox.keyloan(&["item", "generate", "pypi", "token", "--kind", "hex"]).run().ok();
    assert_eq!(generated.stderr, "keyloan: replaced: local://pypi/token\n");
    let lent = sandbox.with_secrets(&["--", "printenv", "TWINE_PASSWORD"]).run().ok().text();
    assert!(lent.trim().len() == 64 && lent.trim().bytes().all(|byte| byte.is_ascii_hexdigit()), "{lent}");
    sandbox.keyloan(&["item", "generate", "pypi", "token"]).run().ok();
    let other = sandbox.with_secrets(&["--", "printenv", "TWINE_PASSWORD"]).run().ok().text();
    assert!(other.trim().len() == 24 && other != lent);
    sandbox.keyloan(&["item", "generate", "a", "b", "--length", "8"]).run().refused(2, "12 to 1024");
    sandbox.keyloan(&["item", "generate", "a", "b", "--kind", "digits", "--length", "4"]).run().ok();
}

#[test]
fn one_time_passwords_are_those_of_oathtool() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let key = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP";
    for (value, options) in [
        (key.to_owned(), vec!["--totp"]),
        (format!("otpauth://totp/PyPI:me?secret={key}&issuer=PyPI"), vec!["--totp"]),
        (
            format!("otpauth://totp/x?algorithm=SHA256&digits=8&period=60&secret={key}"),
            vec!["--totp=sha256", "-d", "8", "-s", "60"],
        ),
    ] {
        sandbox.keyloan(&["item", "set", "pypi", "totp"]).stdin(value).run().ok();
        let expected = || {
            let all = [options.as_slice(), &["-b", key]].concat();
            sandbox.command(needed("oathtool"), &all).run().ok().text()
        };
        // The code may change between the two; then it is the one before or after.
        let before = expected();
        let code = sandbox.keyloan(&["item", "totp", "pypi"]).run().ok().text();
        assert!([before, expected()].contains(&code), "{code}");
    }
    sandbox.keyloan(&["item", "set", "pypi", "totp"]).stdin("not-a-key-0189").run().ok();
    let refused = sandbox.keyloan(&["item", "totp", "pypi"]).run().refused(2, "nor a key in base32");
    assert!(!refused.stderr.contains("not-a-key"));
}

#[test]
fn status_reminds_of_what_expires() {
    let sandbox = Sandbox::with_token(b"tok");
    let warnings = || sandbox.status()["warnings"].to_string();
    sandbox.keyloan(&["item", "expires", "pypi", "2999-01-31"]).run().ok();
    assert!(!warnings().contains("pypi"));
    assert!(sandbox.keyloan(&["item", "show", "pypi"]).run().ok().text().contains(", expires 2999-01-31"));
    sandbox.keyloan(&["item", "expires", "pypi", "2020-02-29"]).run().ok();
    assert!(warnings().contains("item 'pypi' expired on 2020-02-29"), "{}", warnings());
    // A new value keeps the day, and the day outlives a restart.
    sandbox.keyloan(&["item", "set", "pypi", "token"]).stdin("new").run().ok();
    sandbox.stop();
    sandbox.unlock().ok();
    assert!(warnings().contains("item 'pypi' expired on 2020-02-29"));
    sandbox.keyloan(&["item", "expires", "pypi", "never"]).run().ok();
    assert!(!warnings().contains("pypi"));
    for day in ["tomorrow", "2026-02-30", "2026-2-3"] {
        sandbox.keyloan(&["item", "expires", "pypi", day]).run().refused(2, "a day is written");
    }
}

/// The titles that the kept question names.
fn asked(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap()
}

#[test]
fn a_merge_says_what_it_brings_back_and_gives_no_title_twice() {
    let (one, other) = two_machines();
    let today = one.command(needed("date"), &["-u", "+%F"]).run().ok().text();
    let taken = format!("shared (merged {})", today.trim());
    set(&other, &taken, "there already");
    set(&one, "shared", "of one");
    set(&other, "shared", "of the other");
    one.keyloan(&["item", "rm", "doomed"]).run().ok();
    set(&other, "doomed", "changed there");
    one.policy("item.write=ask");
    let kept = one.path("project/question");
    one.set_approver(approver::recording(&kept));
    merge(&one, &other).ok();
    let question = asked(&kept);
    for part in ["brings back", "doomed", &taken, &format!("shared (merged {}, 2)", today.trim())] {
        assert!(question.contains(part), "'{part}' is not in: {question}");
    }
    let all = titles(&one);
    let mut once = all.clone();
    once.dedup();
    assert_eq!(all, once);
    assert_eq!(value(&one, &taken, "v"), b"there already");
}

#[test]
fn a_key_of_another_copy_is_under_the_rules_for_keys() {
    let (one, other) = two_machines();
    other.policies(&["key.add=allow", "item.write=allow"]);
    one.policies(&["item.write=allow", "key.add=deny"]);
    let add = |sandbox: &Sandbox, item: &str| {
        sandbox.keyloan(&["item", "set", item, "hosts"]).stdin("git.example.org").run()
    };
    add(&one, "shared").refused(5, "key.add=deny");
    set(&other, "plain", "no key");
    merge(&one, &other).ok();
    add(&other, "work").ok();
    add(&other, "shared").ok();
    merge(&one, &other).refused(5, "key.add=deny");
    one.policy("key.add=allow");
    merge(&one, &other).ok();
    one.policies(&["key.add=allow", "key.add[item=shared]=deny"]);
    // What it is called there changes nothing, nor does that it is none there.
    other.keyloan(&["item", "rm", "shared", "hosts"]).run().ok();
    merge(&one, &other).refused(5, "key.add[item=shared]=deny");
}

#[test]
fn a_merge_does_only_what_was_shown() {
    let (one, other) = two_machines();
    set(&other, "shared", "of the other");
    one.policy("item.write=ask");
    let go = one.path("project/go");
    let waits = format!(
        "#!/bin/sh\ncat >/dev/null\nwhile [ ! -e {} ]; do sleep 0.02; done\necho '{{\"decision\":\"allow\"}}'\n",
        go.display()
    );
    one.set_approver(waits);
    let first = one.keyloan(&["item", "set", "shared", "v"]).stdin("newer here").start();
    keyloan_e2e::eventually("it is asked", || one.status()["pending"] == 1);
    let place = one.path("synced");
    let from = other.vault().display().to_string();
    assert!(std::process::Command::new("cp").args(["-a", &from]).arg(&place).status().unwrap().success());
    let second = one.keyloan(&["merge", place.to_str().unwrap()]).start();
    keyloan_e2e::eventually("both are asked", || one.status()["pending"] == 2);
    one.write("project/go", "");
    keyloan_e2e::sandbox::finished(first).ok();
    keyloan_e2e::sandbox::finished(second).refused(7, "the vault was changed meanwhile");
    assert_eq!(value(&one, "shared", "v"), b"newer here");
}

#[test]
fn a_passphrase_changed_while_the_vault_is_rekeyed_opens_it_all_the_same() {
    for _ in 0..3 {
        let sandbox = filled();
        let [old, first, second] = [("old", PASSPHRASE), ("first", "first one"), ("second", "second one")]
            .map(|(name, text)| sandbox.write(name, text).display().to_string());
        let line = format!(
            "keyloan rekey --passphrase-fd 3 --new-passphrase-fd 4 3<{old} 4<{first} & \
             keyloan passwd --passphrase-fd 3 --new-passphrase-fd 4 3<{old} 4<{second}; wait"
        );
        sandbox.command(needed("sh"), &["-c", &line]).run();
        sandbox.stop();
        let opens =
            |passphrase| sandbox.keyed(passphrase, &["unlock", "--passphrase-fd", "3"]).run().status == 0;
        assert!(opens("first one") || opens("second one"), "neither of the new passphrases opens it");
        assert_eq!(value(&sandbox, "pypi", "token"), b"tok-of-the-backup");
    }
}
