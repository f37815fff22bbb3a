//! Rows 18 to 20: what was approved is what happens.

use keyloan_e2e::programs::{bin, needed};
use keyloan_e2e::{Sandbox, approver};
use std::process::Command;

const SHOW: [&str; 3] = ["--", "printenv", "TWINE_PASSWORD"];

#[test]
fn a_file_edited_after_trust_needs_trust_again_and_shows_the_difference() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.with_secrets(&SHOW).run().ok();
    let path = sandbox.path("project/.keyloan.toml");
    let before = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{before}STOLEN = \"local://pypi/token\"\n")).unwrap();
    sandbox.with_secrets(&SHOW).run().refused(125, "was changed after it was trusted");
    let kept = sandbox.path("project/question");
    sandbox.set_approver(approver::recording(&kept));
    sandbox.keyloan(&["trust"]).run().ok();
    let question: serde_json::Value = serde_json::from_slice(&std::fs::read(&kept).unwrap()).unwrap();
    let content: Vec<&str> = question["lines"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|line| line["label"] == "content")
        .map(|line| line["text"].as_str().unwrap())
        .collect();
    assert_eq!(content, ["+ STOLEN = \"local://pypi/token\""], "only the difference is shown");
    sandbox.with_secrets(&SHOW).run().ok();
    std::fs::write(&path, before).unwrap();
    sandbox.with_secrets(&SHOW).run().refused(125, "was changed after it was trusted");
    sandbox.keyloan(&["untrust"]).run().ok();
    sandbox.with_secrets(&SHOW).run().refused(125, "is not trusted");
}

#[test]
fn a_trusted_file_moved_elsewhere_is_not_trusted_there() {
    let sandbox = Sandbox::with_token(b"tok");
    let other = sandbox.make_directory("other");
    std::fs::copy(sandbox.path("project/.keyloan.toml"), other.join(".keyloan.toml")).unwrap();
    std::fs::set_permissions(
        other.join(".keyloan.toml"),
        std::os::unix::fs::PermissionsExt::from_mode(0o644),
    )
    .unwrap();
    sandbox.with_secrets(&SHOW).within(&other).run().refused(125, "is not trusted");
}

#[test]
fn a_strangers_clone_inside_a_trusted_directory_inherits_nothing() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.make_directory("project/clone");
    let inside = sandbox.make_directory("project/clone/tests");
    // Below the same directory, but in no repository of its own, the set is found.
    sandbox.with_secrets(&SHOW).within(&inside).run().ok();
    sandbox.make_directory("project/clone/.git");
    sandbox.with_secrets(&SHOW).within(&inside).run().refused(125, "nothing is set for this directory");
}

#[test]
fn a_directory_of_the_same_name_in_another_mount_namespace_is_refused() {
    let sandbox = Sandbox::with_token(b"tok");
    let work = sandbox.path("project");
    let hostile = sandbox.make_directory("hostile");
    std::fs::copy(work.join(".keyloan.toml"), hostile.join(".keyloan.toml")).unwrap();
    sandbox.write("hostile/marker", "");
    let line = format!(
        "mount --bind {} {} && cd {} && exec \"$@\"",
        hostile.display(),
        work.display(),
        work.display()
    );
    let inside = |command: &[&str]| {
        let mut all = Command::new(needed("unshare"));
        all.args(["-Urm", "sh", "-c", &line, "sh"]).args(command);
        sandbox.prepared(all).run()
    };
    // To a daemon that believes /proc/PID/cwd, this is the trusted directory; its content is the attacker's.
    let seen = inside(&["sh", "-c", "readlink /proc/$$/cwd; ls"]).ok().text();
    assert_eq!(seen, format!("{}\nmarker\n", work.display()));
    let lent = inside(&[bin().join("with-secrets").to_str().unwrap(), "--", "printenv", "TWINE_PASSWORD"]);
    assert!(lent.stdout.is_empty(), "{}", lent.text());
    assert_eq!(lent.status, 125, "{}", lent.stderr);
    assert!(sandbox.events("lent").is_empty());
}

#[test]
fn neither_a_file_nor_an_item_may_set_what_steers_a_command() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    // The undefended victim: whoever sets LD_PRELOAD or PATH decides what runs.
    sandbox.write_program("project/printenv", "#!/bin/sh\necho hijacked\n");
    let path = format!("{}:/usr/bin:/bin", sandbox.path("project").display());
    let hijacked = sandbox.command("/bin/sh", &["-c", "printenv X"]).env("PATH", &path).run().ok();
    assert_eq!(hijacked.text(), "hijacked\n");
    sandbox.write("project/.keyloan.toml", format!("[env]\nPATH = {{ value = \"{path}\" }}\n"));
    let refused = sandbox.keyloan(&["trust"]).run().refused(2, "it is not a per-directory file");
    assert!(refused.stderr.contains("line 2, column 1: PATH steers"), "{}", refused.stderr);
    std::fs::remove_file(sandbox.path("project/.keyloan.toml")).unwrap();
    let vars = format!("PATH={path}\nTOKEN=t\n");
    sandbox.keyloan(&["item", "set", "set", "vars"]).stdin(vars).run().ok();
    let shown = sandbox.with_secrets(&["-s", "set", "--", "sh", "-c", "printenv TOKEN PATH"]).run().ok();
    assert!(shown.text().starts_with("t\n") && !shown.text().contains(&path), "{}", shown.text());
    assert!(shown.stderr.contains("PATH of item 'set' is not lent"));
}

#[test]
fn an_item_or_a_whole_vault_put_back_to_an_older_state_is_noticed() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    sandbox.policy("item.write=allow");
    let set = |value: &str| sandbox.keyloan(&["item", "set", "pypi", "token"]).stdin(value).run().ok();
    set("old");
    sandbox.stop();
    let copy = sandbox.path("older-vault");
    let vault = sandbox.vault();
    let copied = Command::new(needed("cp")).arg("-a").arg(&vault).arg(&copy).status().unwrap();
    assert!(copied.success());
    sandbox.unlock().ok();
    set("new");
    sandbox.stop();
    std::fs::remove_dir_all(&vault).unwrap();
    std::fs::rename(&copy, &vault).unwrap();
    let refused = sandbox.unlock().refused(7, "the vault is older than its log");
    assert!(refused.stderr.contains("hint: if you put an older vault back yourself"), "{}", refused.stderr);
    sandbox
        .keyed(keyloan_e2e::PASSPHRASE, &["unlock", "--accept-rollback", "--passphrase-fd", "3"])
        .run()
        .ok();
    assert_eq!(sandbox.keyloan(&["item", "get", "pypi", "token"]).run().ok().text(), "old");
}

#[test]
fn a_directory_named_to_deceive_is_quoted_in_what_a_person_copies() {
    let sandbox = Sandbox::with_token(b"tok");
    let named = "project/a;touch stolen;\u{1b}[2J'$(touch stolen)'";
    let directory = sandbox.make_directory(named);
    sandbox.write(&format!("{named}/.keyloan.toml"), "[env]\nA = { value = \"a\" }\n");
    let refused = sandbox.with_secrets(&["--", "true"]).within(&directory).run();
    let hint = refused.stderr.lines().find_map(|line| line.strip_prefix("hint: look at it, then: ")).unwrap();
    assert!(!hint.contains('\u{1b}'), "{hint}");
    // What a person does with a hint. Bare, the directory's name is a command of its own.
    let bare = format!("echo {}", directory.display());
    for (line, stolen) in [(bare.as_str(), true), (hint, false)] {
        let _ = sandbox.command("/bin/sh", &["-c", line]).run();
        assert_eq!(std::fs::remove_file(sandbox.path("project/stolen")).is_ok(), stolen, "{line}");
    }
    let trusted = sandbox.keyloan(&["trust"]).within(&directory).run().ok();
    assert!(trusted.stderr.contains("is trusted as it is now") && !trusted.stderr.contains('\u{1b}'));
}
