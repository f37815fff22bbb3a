//! Private keys' files on their way into the vault, and what becomes of the files.

use keyloan_e2e::approver::{ALLOW, DENY};
use keyloan_e2e::ssh::key_of;
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{PIN, Sandbox};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

#[test]
fn a_plain_key_is_stored_under_its_files_name_and_the_agent_offers_it() {
    let sandbox = Sandbox::with_approver(ALLOW);
    let file = sandbox.key_file("id_ed25519", &[]);
    let public = fs::read_to_string(file.with_extension("pub")).unwrap();
    let added = sandbox.keyloan(&["ssh".as_ref(), "add".as_ref(), file.as_os_str()]).run().ok();
    assert!(added.stderr.contains("stored as 'id_ed25519': ssh-ed25519 256 SHA256:"), "{}", added.stderr);
    assert!(added.stderr.contains("still holds the key"), "{}", added.stderr);
    assert!(file.exists(), "without a terminal nothing is removed");
    assert_eq!(sandbox.ssh_add(&sandbox.agent_socket(), &["-L"]).ok().text(), public);
    let listed = sandbox.keyloan(&["ssh", "list"]).run().ok().text();
    assert!(listed.starts_with("id_ed25519  ssh-ed25519 256 SHA256:"), "{listed}");
    assert!(listed.ends_with(" me@here\n"), "{listed}");
    // It is an item like others, and its private half a secret of it.
    sandbox.keyloan(&["item", "mv", "id_ed25519", "laptop"]).run().ok();
    assert_eq!(sandbox.ssh_keys()[0]["item"], "laptop");
    let fields = sandbox.keyloan(&["item", "show", "laptop"]).run().ok().text();
    assert!(fields.contains("private_key") && fields.contains(public.trim()), "{fields}");
    sandbox.keyloan(&["item", "rm", "laptop"]).run().ok();
    assert!(sandbox.ssh_keys().is_empty());
    assert!(sandbox.ssh_add(&sandbox.agent_socket(), &["-l"]).text().contains("no identities"));
}

#[test]
fn each_type_of_key_comes_in() {
    let sandbox = Sandbox::with_approver(ALLOW);
    for (name, more) in [
        ("p256", ["-t", "ecdsa", "-b", "256"]),
        ("p384", ["-t", "ecdsa", "-b", "384"]),
        ("p521", ["-t", "ecdsa", "-b", "521"]),
        ("rsa", ["-t", "rsa", "-b", "3072"]),
    ] {
        let file = sandbox.key_file(name, &more);
        sandbox.keyloan(&["ssh", "add", file.to_str().unwrap(), "--comment", "another comment"]).run().ok();
        let public = fs::read_to_string(file.with_extension("pub")).unwrap();
        let exported = sandbox.keyloan(&["ssh", "export", name]).run().ok().text();
        assert_eq!(exported, format!("{} another comment\n", key_of(&public)));
    }
    assert_eq!(sandbox.ssh_add(&sandbox.agent_socket(), &["-l"]).ok().text().lines().count(), 4);
}

#[test]
fn the_passphrase_of_an_encrypted_key_is_read_from_a_descriptor() {
    let sandbox = Sandbox::with_approver(ALLOW);
    let file = sandbox.key_file("work", &["-N", "the key's own"]);
    let add = ["ssh", "add", file.to_str().unwrap(), "--passphrase-fd", "3"];
    sandbox.keyed("another", &add).run().refused(6, "the passphrase is wrong");
    assert!(sandbox.ssh_keys().is_empty());
    sandbox.keyed("the key's own", &add).run().ok();
    assert_eq!(sandbox.ssh_keys()[0]["item"], "work");
    // The vault's copy needs it no more, and the file stays as it was.
    sandbox.keyed("the key's own", &add).run().refused(2, "there is an item 'work' already");
    let again = ["ssh", "add", file.to_str().unwrap(), "--name", "again", "--passphrase-fd", "3"];
    sandbox.keyed("the key's own", &again).run().refused(2, "the vault holds that key already, as 'work'");
}

#[test]
fn the_passphrase_is_typed_and_the_removal_of_the_file_answered_on_the_terminal() {
    let sandbox = Sandbox::with_vault();
    let file = sandbox.key_file("work", &["-N", "the key's own"]);
    fs::remove_file(file.with_extension("pub")).unwrap();
    let terminal = Terminal::open(&sandbox);
    let store = |name: &str| {
        terminal.run(&format!("keyloan ssh add --name {name} {}; echo ended $?", file.display()));
        let shown = terminal.expect("(not shown):");
        assert!(shown.contains("passphrase of the key's file"), "{shown}");
        terminal.type_text("the key's own");
        terminal.press("Enter");
        let shown = terminal.expect("PIN to allow, Enter alone to decline:");
        assert!(shown.contains("store an ssh key in the vault") && shown.contains("SHA256:"), "{shown}");
        assert!(!shown.contains("the key's own"), "{shown}");
    };
    // Not stored, so nothing is offered.
    store("work");
    terminal.press("Enter");
    let shown = terminal.expect("ended 6");
    assert!(!shown.contains("remove it?") && file.exists(), "{shown}");
    store("work");
    terminal.type_text(PIN);
    terminal.press("Enter");
    let shown = terminal.expect("[y/N]");
    assert!(shown.contains("keyloan backup makes another"), "{shown}");
    terminal.press("Enter");
    terminal.expect("ended 0");
    assert!(file.exists() && !file.with_extension("pub").exists(), "Enter alone is no");
    sandbox.set_approver(ALLOW);
    sandbox.keyloan(&["item", "rm", "work"]).run().ok();
    sandbox.policy("approver.command=");
    store("work");
    terminal.type_text(PIN);
    terminal.press("Enter");
    terminal.expect("[y/N]");
    terminal.type_text("y");
    terminal.press("Enter");
    terminal.expect("ended 0");
    assert!(!file.exists());
    let public = fs::read_to_string(file.with_extension("pub")).unwrap();
    assert_eq!(public, sandbox.keyloan(&["ssh", "export", "work"]).run().ok().text());
    let mode = fs::metadata(file.with_extension("pub")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
}

#[test]
fn a_file_is_removed_only_when_the_vault_has_its_key() {
    let sandbox = Sandbox::with_approver(DENY);
    let file = sandbox.key_file("id", &[]);
    let path = file.to_str().unwrap();
    sandbox.keyloan(&["ssh", "add", "--remove-file", path]).run().refused(6, "cannot store an ssh key");
    sandbox.set_approver(ALLOW);
    sandbox.keyloan(&["item", "set", "id", "field"]).stdin("taken").run().ok();
    sandbox.keyloan(&["ssh", "add", "--remove-file", path]).run().refused(2, "there is an item 'id' already");
    assert!(file.exists());
    // Through a link the file would stay where it is.
    symlink(&file, sandbox.path("home/link")).unwrap();
    let link = sandbox.path("home/link").display().to_string();
    let linked = sandbox.keyloan(&["ssh", "add", "--remove-file", &link]).run();
    linked.refused(2, "cannot remove the key's file: it is a symbolic link to ");
    assert!(file.exists() && sandbox.path("home/link").exists());
    sandbox.keyloan(&["item", "rm", "link"]).run().ok();
    fs::hard_link(&file, sandbox.path("home/other")).unwrap();
    let two = sandbox.keyloan(&["ssh", "add", "--name", "two", "--remove-file", path]).run();
    two.refused(2, "the file has another name, too");
    sandbox.keyloan(&["item", "rm", "two"]).run().ok();
    fs::remove_file(sandbox.path("home/other")).unwrap();
    sandbox.keyloan(&["ssh", "add", "--name", "kept", "--keep", path]).run().ok();
    assert!(file.exists());
    sandbox.keyloan(&["item", "rm", "kept"]).run().ok();
    let removed = sandbox.keyloan(&["ssh", "add", "--name", "three", "--remove-file", path]).run().ok();
    assert!(removed.stderr.contains("removed "), "{}", removed.stderr);
    assert!(!file.exists() && file.with_extension("pub").exists());
}

#[test]
fn what_is_no_private_key_is_refused_with_the_way_on() {
    let sandbox = Sandbox::with_approver(ALLOW);
    let file = sandbox.key_file("id", &[]);
    let old = sandbox.key_file("old", &["-t", "rsa", "-b", "2048", "-m", "PEM"]);
    let text = sandbox.write("home/text", "no key\n");
    let renamed = sandbox.write("home/renamed", fs::read(file.with_extension("pub")).unwrap());
    let public = file.with_extension("pub");
    for (path, said) in [
        (&public, "that is the public half; the private key's file is wanted"),
        (&renamed, "that is the public half"),
        (&old, "older format (PKCS #1); `ssh-keygen -p -f FILE` converts it"),
        (&text, "it is not a file of an ssh private key"),
        (&sandbox.path("home"), "is no file"),
    ] {
        let added = sandbox.keyloan(&["ssh", "add", "--remove-file", path.to_str().unwrap()]).run();
        added.refused(2, said);
        assert!(path.exists());
    }
    let gone = sandbox.path("home/gone").display().to_string();
    sandbox.keyloan(&["ssh", "add", &gone]).run().refused(1, "No such file");
    assert!(sandbox.ssh_keys().is_empty());
    let old = old.to_str().unwrap();
    sandbox.command("/usr/bin/ssh-keygen", &["-q", "-p", "-N", "", "-f", old]).run().ok();
    sandbox.keyloan(&["ssh", "add", old]).run().ok();
}

#[test]
fn a_certificate_beside_the_key_comes_with_it_and_a_later_one_takes_its_place() {
    let sandbox = Sandbox::with_approver(ALLOW);
    for name in ["authority", "id", "another"] {
        sandbox.key_file(name, &[]);
    }
    sandbox.certify("authority", "id");
    let file = sandbox.path("home/id").display().to_string();
    let first = fs::read_to_string(sandbox.path("home/id-cert.pub")).unwrap();
    let added = sandbox.keyloan(&["ssh", "add", &file]).run().ok();
    assert!(added.stderr.contains(", with a certificate"), "{}", added.stderr);
    let exported = || sandbox.keyloan(&["ssh", "export", "--certificate", "id"]).run().ok().text();
    assert_eq!(key_of(&exported()), key_of(&first));
    let offered = sandbox.ssh_add(&sandbox.agent_socket(), &["-l"]).ok().text();
    assert!(offered.contains("(ED25519-CERT)") && offered.contains("(ED25519)"), "{offered}");
    sandbox.certify("authority", "id");
    let second = fs::read_to_string(sandbox.path("home/id-cert.pub")).unwrap();
    assert_ne!(first, second);
    // The key that it is for is found by itself.
    let certificate = sandbox.path("home/id-cert.pub").display().to_string();
    sandbox.keyloan(&["ssh", "add", &certificate]).run().ok();
    assert_eq!(key_of(&exported()), key_of(&second));
    // One that lies beside a key and is another's is left out.
    sandbox.write("home/another-cert.pub", &second);
    let other = sandbox.path("home/another").display().to_string();
    let added = sandbox.keyloan(&["ssh", "add", &other]).run().ok();
    assert!(added.stderr.contains("is not for this key, and was left out"), "{}", added.stderr);
    let wrong = sandbox.keyloan(&["ssh", "add", &certificate, "--name", "another"]).run();
    wrong.refused(2, "the certificate is not for the key 'another'");
    sandbox.keyloan(&["item", "rm", "id"]).run().ok();
    sandbox.keyloan(&["ssh", "add", &certificate]).run().refused(1, "the vault has no key that it is for");
}
