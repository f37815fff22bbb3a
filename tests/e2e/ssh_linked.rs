//! ssh keys whose private half stays in a linked vault: KeePass databases made by the real `keepassxc-cli`, and programs
//! of the kind `command`, which are doubles: scripts of the test. The servers are real.

use keyloan_e2e::programs::{bin, needed};
use keyloan_e2e::sandbox::{Output, finished};
use keyloan_e2e::sshd::Ssh;
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{PASSPHRASE, Sandbox, approver, eventually};
use std::fs;

const HOST: &str = "git.example.org";
const PASSWORD: &str = "the database's password\n";

fn keepassxc(sandbox: &Sandbox, arguments: &[&str], input: &str) -> Output {
    let run = sandbox.command(needed("keepassxc-cli"), arguments).env("QT_QPA_PLATFORM", "offscreen");
    run.stdin(input).run()
}

/// A database, linked as `keys`.
fn database(sandbox: &Sandbox) -> String {
    let path = sandbox.path("home/keys.kdbx").display().to_string();
    keepassxc(sandbox, &["db-create", "-p", &path], &PASSWORD.repeat(2)).ok();
    let secret = sandbox.write("database-password", PASSWORD).display().to_string();
    let passphrase = sandbox.write("passphrase", PASSPHRASE).display().to_string();
    let line = format!("exec 3<{passphrase} 5<{secret}; exec \"$@\"");
    let keyloan = bin().join("keyloan").display().to_string();
    let setting = format!("database={path}");
    let add = ["-c", &line, "sh", &keyloan, "vault", "add", "keys", "--kind", "keepass", &setting];
    let rest = ["--passphrase-fd", "3", "--secret-fd", "password=5"];
    sandbox.command("/bin/sh", &[&add[..], &rest].concat()).run().ok();
    path
}

/// An entry with this password and these files.
fn entry(sandbox: &Sandbox, database: &str, name: &str, password: &str, files: &[(&str, &str)]) {
    keepassxc(sandbox, &["add", "-p", database, name], &format!("{PASSWORD}{password}\n")).ok();
    for (attachment, file) in files {
        attach(sandbox, database, name, attachment, file);
    }
}

fn attach(sandbox: &Sandbox, database: &str, name: &str, attachment: &str, file: &str) {
    keepassxc(sandbox, &["attachment-import", "-f", database, name, attachment, file], PASSWORD).ok();
}

/// A program as the vault `any`.
fn program(sandbox: &Sandbox, script: &str) {
    let program = sandbox.write_program("home/vault-program", format!("#!/bin/sh\n{script}\n"));
    let setting = format!("program={}", program.display());
    let arguments =
        ["vault", "add", "any", "--kind", "command", &setting, "seconds=60", "--passphrase-fd", "3"];
    sandbox.keyed(PASSPHRASE, &arguments).run().ok();
}

fn link(sandbox: &Sandbox, arguments: &[&str]) -> Output {
    sandbox.keyloan(&[&["ssh", "link"], arguments].concat()).run()
}

fn causes(sandbox: &Sandbox) -> Vec<String> {
    let causes = sandbox.events("failed");
    causes.iter().map(|event| event["cause"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_key_in_keepass_logs_in_and_pushes_and_never_leaves_it() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &[]);
    let file = ssh.key("deploy", &["ed25519"]);
    let database = database(&sandbox);
    entry(&sandbox, &database, "deploy", "x", &[("id_ed25519", &file)]);
    let shown = link(&sandbox, &["keys://deploy/id_ed25519"]).ok().text();
    assert!(shown.contains("private half in keys://deploy/id_ed25519"), "{shown}");
    let [question] = &ssh.questions()[..] else { panic!("{:?}", ssh.questions()) };
    assert_eq!(question.title(), "link an ssh key that stays in another vault");
    question.says("item", "deploy", "verified");
    question.says("private", "half in keys://deploy/id_ed25519", "asked");
    assert_eq!(ssh.add(&["-L"]).ok().text().trim(), ssh.public("deploy"));
    let server = ssh.server(HOST, &[ssh.public("deploy")]);
    assert_eq!(ssh.ssh(&[HOST, "echo", "in"]).ok().text(), "in\n");
    let question = ssh.questions().pop().unwrap();
    question.says("key", "deploy", "verified");
    question.says("private", "half in keys://deploy/id_ed25519", "asked");
    let bare = sandbox.path("project/bare.git").display().to_string();
    let here = sandbox.make_directory("project/repository");
    let git = |arguments: &[&str]| ssh.client("git", arguments).within(&here).run().ok();
    git(&["init", "-q", "--bare", &bare]);
    git(&["init", "-q", "-b", "main"]);
    let who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"];
    git(&[&who[..], &["commit", "-q", "--allow-empty", "-m", "one"]].concat());
    git(&["push", "-q", &format!("{HOST}:{bare}"), "main"]);
    assert_eq!((server.accepted(), sandbox.events("signed").len()), (2, 2));
    let item = sandbox.keyloan(&["item", "show", "deploy"]).run().ok().text();
    assert!(!item.contains("private_key ") && item.contains("private_key_in"), "{item}");
    sandbox.keyloan(&["item", "get", "local://deploy/private_key"]).run().refused(1, "no field");
}

#[test]
fn keys_of_a_database_are_linked_with_one_yes_as_its_settings_have_them() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &["key.add=ask"]);
    let database = database(&sandbox);
    for name in ["plain", "chosen", "other", "forbidden"] {
        ssh.key(name, &["ed25519"]);
    }
    let locked = ssh.path("locked").display().to_string();
    let made = ["-q", "-t", "ed25519", "-N", "tök en", "-C", "locked", "-f", &locked];
    sandbox.command(needed("ssh-keygen"), &made).run().ok();
    let settings = |allowed: &str, name: &str| {
        let text = format!(
            "<?xml version=\"1.0\" encoding=\"utf-16\"?><EntrySettings><AllowUseOfSshKey>{allowed}</AllowUseOfSshKey>\
             <Location><SelectedType>attachment</SelectedType><AttachmentName>{name}</AttachmentName></Location>\
             </EntrySettings>"
        );
        let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        sandbox
            .write(&format!("ssh/settings-{name}"), [b"\xff\xfe", &bytes[..]].concat())
            .display()
            .to_string()
    };
    let path = |name: &str| ssh.path(name).display().to_string();
    entry(&sandbox, &database, "plain", "x", &[("id", &path("plain")), ("id.pub", &path("plain.pub"))]);
    let chosen = [("a", path("other")), ("b", path("chosen")), ("KeeAgent.settings", settings("true", "b"))];
    entry(&sandbox, &database, "chosen", "x", &chosen.each_ref().map(|(name, file)| (*name, file.as_str())));
    let forbidden = [("c", path("forbidden")), ("KeeAgent.settings", settings("false", "c"))];
    entry(
        &sandbox,
        &database,
        "forbidden",
        "x",
        &forbidden.each_ref().map(|(name, file)| (*name, file.as_str())),
    );
    entry(&sandbox, &database, "locked", "tök en", &[("id", &locked)]);
    entry(&sandbox, &database, "none", "x", &[]);
    link(&sandbox, &["--vault", "keys", "nowhere"]).refused(1, "there is no item 'nowhere'");
    link(&sandbox, &["--vault", "keys", "none"]).refused(1, "there is no item 'none'");
    assert!(ssh.questions().is_empty());
    link(&sandbox, &["--vault", "keys", "plain"]).ok();
    link(&sandbox, &["--vault", "keys"]).ok();
    let [first, second] = &ssh.questions()[..] else { panic!("{:?}", ssh.questions()) };
    assert!(first.0.to_string().contains(&ssh.fingerprint("plain")));
    let all = second.0.to_string();
    for name in ["chosen", "locked"] {
        assert!(all.contains(&ssh.fingerprint(name)), "{all}");
    }
    for name in ["plain", "other", "forbidden"] {
        assert!(!all.contains(&ssh.fingerprint(name)), "{all}");
    }
    assert!(all.contains("half in keys://locked/id, with the passphrase in keys://locked/password"), "{all}");
    assert_eq!(sandbox.ssh_keys().len(), 3);
    link(&sandbox, &["--vault", "keys"]).refused(2, "already");
    for name in ["plain", "chosen", "locked"] {
        let host = format!("{name}.example.org");
        let server = ssh.server(&host, &[ssh.public(name)]);
        ssh.ssh(&[&host, "true"]).ok();
        assert_eq!(server.accepted(), 1);
    }
}

#[test]
fn a_key_that_was_changed_in_the_vault_signs_nothing() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &[]);
    let (file, other) = (ssh.key("deploy", &["ed25519"]), ssh.key("other", &["ed25519"]));
    let database = database(&sandbox);
    entry(&sandbox, &database, "deploy", "x", &[("id", &file)]);
    link(&sandbox, &["keys://deploy/id"]).ok();
    let server = ssh.server(HOST, &[ssh.public("deploy"), ssh.public("other")]);
    attach(&sandbox, &database, "deploy", "id", &other);
    ssh.ssh(&[HOST, "true"]).refused(255, "Permission denied");
    let causes = causes(&sandbox);
    assert!(causes[0].contains("keys://deploy/id is another than the one that was linked"), "{causes:?}");
    assert_eq!((server.accepted(), sandbox.events("signed").len()), (0, 0));
    attach(&sandbox, &database, "deploy", "id", &file);
    ssh.ssh(&[HOST, "true"]).ok();
    assert_eq!(server.accepted(), 1);
}

#[test]
fn a_vault_that_hangs_or_refuses_holds_up_its_own_logins_alone() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &[]);
    let file = ssh.key("deploy", &["ed25519"]);
    ssh.key("work", &["ed25519"]);
    ssh.store("work", &[]);
    let (hangs, pids) = (sandbox.path("run/hangs"), sandbox.path("run/pids"));
    let script = format!(
        "[ ! -e {0} ] || {{ echo $$ >{1}.new; mv {1}.new {1}; exec sleep 1000; }}; [ ! -e {0}-refuses ] || exit 3\n\
         cat {file}; echo",
        hangs.display(),
        pids.display()
    );
    program(&sandbox, &script);
    let public = format!("{file}.pub");
    link(&sandbox, &["any://deploy/key", "deploy", "--public", &public]).ok();
    let server = ssh.server("deploy.example.org", &[ssh.public("deploy")]);
    let other = ssh.server(HOST, &[ssh.public("work")]);
    sandbox.write("run/hangs-refuses", "");
    ssh.ssh(&["deploy.example.org", "true"]).refused(255, "Permission denied");
    assert!(causes(&sandbox)[0].contains("ended with status 3"), "{:?}", causes(&sandbox));
    sandbox.write("run/hangs", "");
    let mut waiting = ssh.client("ssh", &["deploy.example.org", "true"]).start();
    eventually("the vault is asked", || pids.exists());
    ssh.ssh(&[HOST, "true"]).ok();
    assert_eq!((ssh.add(&["-L"]).ok().text().lines().count(), other.accepted()), (2, 1));
    let pid = fs::read_to_string(&pids).unwrap();
    waiting.kill().unwrap();
    waiting.wait().unwrap();
    eventually("what was asked ends with whoever asked", || {
        fs::read_to_string(format!("/proc/{}/stat", pid.trim())).map_or(true, |stat| stat.contains(") Z "))
    });
    fs::remove_file(&hangs).unwrap();
    fs::remove_file(sandbox.path("run/hangs-refuses")).unwrap();
    ssh.ssh(&["deploy.example.org", "true"]).ok();
    assert_eq!(server.accepted(), 1);
}

#[test]
fn a_key_is_read_behind_a_yes_once_for_a_moment_and_no_more_when_its_vault_is_gone() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &[]);
    let file = ssh.key("deploy", &["ed25519"]);
    let count = sandbox.path("run/count");
    program(&sandbox, &format!("echo read >>{}; cat {file}; echo", count.display()));
    let reads = || fs::read_to_string(&count).unwrap_or_default().lines().count();
    let server = ssh.server(HOST, &[ssh.public("deploy")]);
    // The key is only read where its public half is not known, and only if somebody says yes to that.
    ssh.answered_by(approver::DENY, &[]);
    link(&sandbox, &["any://deploy/key"]).refused(6, "declined");
    assert_eq!(reads(), 0);
    ssh.answered_by(approver::keeping(&ssh.kept()), &[]);
    link(&sandbox, &["any://deploy/key", "--public", &format!("{file}.pub")]).ok();
    assert_eq!((reads(), ssh.add(&["-L"]).ok().text().trim().to_owned()), (0, ssh.public("deploy")));
    ssh.answered_by(approver::DENY, &[]);
    ssh.ssh(&[HOST, "true"]).refused(255, "Permission denied");
    assert_eq!(reads(), 0);
    ssh.answered_by(approver::keeping(&ssh.kept()), &[]);
    ssh.ssh(&[HOST, "true"]).ok();
    assert_eq!(reads(), 1);
    sandbox.keyloan(&["lock"]).run().ok();
    sandbox.unlock().ok();
    ssh.ssh(&[HOST, "true"]).ok();
    assert_eq!(reads(), 2);
    sandbox.keyed(PASSPHRASE, &["vault", "remove", "any", "--passphrase-fd", "3"]).run().ok();
    ssh.ssh(&[HOST, "true"]).refused(255, "Permission denied");
    assert!(causes(&sandbox).pop().unwrap().contains("there is no vault 'any'"));
    assert_eq!((reads(), server.accepted()), (2, 2));
}

#[test]
fn what_is_no_key_is_not_linked() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &[]);
    let file = ssh.key("deploy", &["ed25519"]);
    ssh.key("work", &["ed25519"]);
    ssh.store("work", &[]);
    let locked = ssh.path("locked").display().to_string();
    sandbox.command(needed("ssh-keygen"), &["-q", "-t", "ed25519", "-N", "secret", "-f", &locked]).run().ok();
    let script = format!(
        "case $1/$2 in key/pem) echo -----BEGIN PRIVATE KEY-----;; key/locked) cat {locked};; key/pass) echo secret;; \
         key/wrong) echo wrong;; key/work) cat {};; key/big) head -c 200000 /dev/zero;; *) cat {file};; esac",
        ssh.path("work").display()
    );
    program(&sandbox, &script);
    link(&sandbox, &["any://key/pem"]).refused(2, "any://key/pem: the key is in an older format");
    link(&sandbox, &["any://key/big"]).refused(2, "it is not a file of an ssh private key");
    link(&sandbox, &["any://key/locked"]).refused(2, "its passphrase is wanted");
    let wrong = ["any://key/locked", "--passphrase", "any://key/wrong"];
    link(&sandbox, &wrong).refused(2, "the passphrase is wrong");
    link(&sandbox, &["any://key/work"]).refused(2, "holds that key already, as 'work'");
    link(&sandbox, &["any://key/x", "work"]).refused(2, "there is an item 'work' already");
    link(&sandbox, &["local://key/x"]).refused(2, "the local vault has keys of its own");
    link(&sandbox, &["gone://key/x"]).refused(1, "there is no vault 'gone'");
    link(&sandbox, &["any://key/x", "a", "b"]).refused(2, "at most one name");
    link(&sandbox, &["--vault", "any"])
        .refused(1, "there is no ssh key that keyloan can use in the vault 'any'");
    assert_eq!(sandbox.ssh_keys().len(), 1);
    link(&sandbox, &["any://key/locked", "locked", "--passphrase", "any://key/pass"]).ok();
    // Where the private half is, nobody changes without the same yes as for a key.
    let set = |field: &str, value: &str| {
        sandbox.keyloan(&["item", "set", "--public", "locked", field]).stdin(value).run()
    };
    set("private_key_in", "local://work/private_key").refused(2, "with a linked vault's reference");
    sandbox.policy("key.add=deny");
    set("private_key_in", "any://key/x").refused(5, "the policy forbids it");
    link(&sandbox, &["any://key/x"]).refused(5, "the policy forbids it");
    sandbox.policies(&["key.add=allow", "item.read[item=any://key]=deny"]);
    link(&sandbox, &["any://key/x"]).refused(5, "the policy forbids it");
}

#[test]
fn settings_of_a_linked_key_hold_as_those_of_any_other() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &["ssh.login=allow"]);
    let file = ssh.key("deploy", &["ed25519"]);
    ssh.key("authority", &["ed25519"]);
    program(&sandbox, &format!("cat {file}"));
    link(&sandbox, &["any://deploy/key"]).ok();
    let before = ssh.questions().len();
    let (server, other) =
        (ssh.server(HOST, &[ssh.public("deploy")]), ssh.server("other.example.org", &[ssh.public("deploy")]));
    sandbox.keyloan(&["ssh", "set", "deploy", "--host", HOST, "--confirm", "always"]).run().ok();
    ssh.ssh(&[HOST, "true"]).ok();
    ssh.ssh(&["other.example.org", "true"]).refused(255, "Permission denied");
    assert_eq!((server.accepted(), other.accepted(), ssh.questions().len() - before), (1, 0, 1));
    let certificate = ssh.certify("authority", "deploy", &["-n", "somebody"]);
    sandbox.keyloan(&["ssh", "add", &certificate]).run().ok();
    assert_eq!(ssh.add(&["-L"]).ok().text().lines().count(), 2);
    // The private half stays where it is through all of that.
    assert_eq!(sandbox.ssh_keys()[0]["private_in"], "any://deploy/key");
    sandbox.keyloan(&["ssh", "set", "deploy", "--any-host", "--confirm", "session"]).run().ok();
    ssh.ssh(&["other.example.org", "true"]).ok();
    assert_eq!(other.accepted(), 1);
}

#[test]
fn one_question_unlocks_the_local_vault_and_says_where_the_private_half_is() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &[]);
    let file = ssh.key("deploy", &["ed25519"]);
    program(&sandbox, &format!("cat {file}"));
    link(&sandbox, &["any://deploy/key"]).ok();
    let server = ssh.server(HOST, &[ssh.public("deploy")]);
    sandbox.policy("approver.command=");
    sandbox.stop();
    sandbox.keyloan(&["daemon", "start"]).run().ok();
    assert_eq!(ssh.add(&["-L"]).ok().text().trim(), ssh.public("deploy"));
    let terminal = Terminal::open(&sandbox);
    terminal.run(&ssh.exports());
    terminal.run(&format!("ssh -F {} {HOST} true; echo ended $?", ssh.path("config").display()));
    let shown = terminal.expect("Passphrase, Enter alone to decline:");
    assert!(shown.contains("half in any://deploy/key  (claimed)"), "{shown}");
    terminal.type_text(PASSPHRASE);
    terminal.press("Enter");
    terminal.expect("ended 0");
    assert_eq!(server.accepted(), 1);
    sandbox.set_approver(approver::ALLOW);
    // Whoever writes that list can say what it likes there, and nothing is read from there.
    sandbox.stop();
    let public = sandbox.vault().join("public");
    let text = fs::read_to_string(&public).unwrap();
    sandbox.write("home/.local/share/keyloan/vault/public", text.replace("any://deploy", "any://else"));
    sandbox.keyloan(&["daemon", "start"]).run().ok();
    let waiting = ssh.client("ssh", &[HOST, "true"]).start();
    eventually("the client waits", || server.log().matches("Postponed publickey").count() == 2);
    sandbox.unlock().ok();
    finished(waiting).ok();
    assert_eq!((server.accepted(), sandbox.events("public_keys_replaced").len()), (2, 1));
}
