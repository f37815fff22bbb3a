//! Keys in the vault: made there, listed, exported, bound to hosts; also while the vault is locked.

use keyloan_e2e::approver::{ALLOW, DENY};
use keyloan_e2e::programs::needed;
use keyloan_e2e::ssh::key_of;
use keyloan_e2e::{Sandbox, approver, eventually};
use std::fs;

#[test]
fn a_key_that_was_made_in_the_vault_is_exported_for_ssh() {
    let sandbox = Sandbox::with_approver(ALLOW);
    let types = [
        ("ed25519", "256 SHA256", "(ED25519)"),
        ("ecdsa-nistp256", "256 SHA256", "(ECDSA)"),
        ("ecdsa-nistp384", "384 SHA256", "(ECDSA)"),
        ("ecdsa-nistp521", "521 SHA256", "(ECDSA)"),
        ("rsa-3072", "3072 SHA256", "(RSA)"),
    ];
    for (name, bits, told) in types {
        let made = sandbox.keyloan(&["ssh", "generate", "--type", name, "--comment", "a b", name]).run();
        let made = made.ok().text();
        let file = sandbox.path("home").join(format!("{name}.pub"));
        let path = file.to_str().unwrap();
        sandbox.keyloan(&["ssh", "export", name, "-o", path]).run().ok();
        assert_eq!(fs::read_to_string(&file).unwrap(), made);
        let seen = sandbox.command(needed("ssh-keygen"), &["-l", "-f", path]).run().ok().text();
        assert!(seen.starts_with(bits) && seen.ends_with(&format!(" a b {told}\n")), "{seen}");
    }
    let own = sandbox.keyloan(&["ssh", "generate", "mine"]).run().ok().text();
    let comment = own.split_whitespace().nth(2).unwrap();
    assert!(comment.contains('@') && !comment.starts_with('@') && !comment.ends_with('@'), "{own}");
    sandbox.keyloan(&["ssh", "generate", "mine"]).run().refused(2, "there is an item 'mine' already");
    sandbox.keyloan(&["ssh", "generate", "--type", "dsa", "old"]).run().refused(2, "invalid value 'dsa'");
    // Another key's file is never overwritten, the same one's is left as it is.
    let taken = sandbox.path("home/ed25519.pub").display().to_string();
    sandbox.keyloan(&["ssh", "export", "ed25519", "-o", &taken]).run().ok();
    let other = sandbox.keyloan(&["ssh", "export", "mine", "-o", &taken]).run();
    other.refused(2, "is there already, and is not this key");
    sandbox.keyloan(&["ssh", "export", "no-such"]).run().refused(1, "there is no ssh key 'no-such'");
    let certificate = sandbox.keyloan(&["ssh", "export", "mine", "--certificate"]).run();
    certificate.refused(1, "the key 'mine' has no certificate");
    let directory = sandbox.make_directory("home/public").display().to_string();
    sandbox.keyloan(&["item", "mv", "mine", "work/mine"]).run().ok();
    sandbox.keyloan(&["ssh", "export", "--all", &directory]).run().ok();
    assert_eq!(fs::read_dir(&directory).unwrap().count(), types.len() + 1);
    assert_eq!(fs::read_to_string(sandbox.path("home/public/work_mine.pub")).unwrap(), own);
}

#[test]
fn public_halves_are_listed_while_the_vault_is_locked() {
    let sandbox = Sandbox::with_approver(ALLOW);
    let public = sandbox.keyloan(&["ssh", "generate", "key"]).run().ok().text();
    sandbox.keyloan(&["ssh", "set", "key", "--host", "*.example.org", "--confirm", "always"]).run().ok();
    let listed = sandbox.keyloan(&["ssh", "list"]).run().ok().text();
    let is_listed = || {
        assert_eq!(sandbox.keyloan(&["ssh", "list"]).run().ok().text(), listed);
        assert_eq!(sandbox.keyloan(&["ssh", "export", "key"]).run().ok().text(), public);
        let offered = sandbox.ssh_add(&sandbox.agent_socket(), &["-L"]).ok().text();
        assert_eq!(offered, public);
    };
    sandbox.keyloan(&["lock"]).run().ok();
    is_listed();
    // A daemon that has never seen the vault open reads them from the file beside it.
    sandbox.stop();
    is_listed();
    assert_eq!(sandbox.status()["vault"], "locked");
    sandbox.unlock().ok();
    is_listed();
    assert!(sandbox.events("public_keys_replaced").is_empty());
}

#[test]
fn a_forged_list_beside_the_locked_vault_is_noticed_when_it_opens() {
    let sandbox = Sandbox::with_approver(ALLOW);
    let public = sandbox.keyloan(&["ssh", "generate", "key"]).run().ok().text();
    let forged = sandbox.key_file("forged", &[]).with_extension("pub");
    let forged = fs::read_to_string(forged).unwrap();
    sandbox.stop();
    let list = sandbox.vault().join("public");
    let text = fs::read_to_string(&list).unwrap();
    assert!(text.contains(&key_of(&public)), "{text}");
    fs::write(&list, text.replace(&key_of(&public), &key_of(&forged))).unwrap();
    let offered = || sandbox.ssh_add(&sandbox.agent_socket(), &["-L"]).ok().text();
    sandbox.keyloan(&["daemon", "start"]).run().ok();
    assert_eq!(
        key_of(&offered()),
        key_of(&forged),
        "what is listed while it is locked is no more than a hint"
    );
    sandbox.unlock().ok();
    assert_eq!(offered(), public);
    eventually("the log tells of it", || sandbox.events("public_keys_replaced").len() == 1);
    let told = sandbox.keyloan(&["log"]).run().ok().text();
    assert!(told.contains("the list of public keys beside the vault was not the vault's"), "{told}");
    sandbox.stop();
    sandbox.keyloan(&["daemon", "start"]).run().ok();
    assert_eq!(offered(), public, "the file is the vault's again");
}

#[test]
fn hosts_and_confirmation_of_a_key_are_changed_after_a_yes() {
    let sandbox = Sandbox::with_approver(ALLOW);
    sandbox.keyloan(&["ssh", "generate", "key", "--comment", "before"]).run().ok();
    let set = |arguments: &[&str]| sandbox.keyloan(&[&["ssh", "set", "key"], arguments].concat()).run();
    let changed = set(&["--host", "github.com", "--host", "*.example.org", "--comment", "after"]).ok().text();
    assert!(
        changed.contains("for github.com *.example.org only") && changed.contains(" after\n"),
        "{changed}"
    );
    assert!(set(&["--confirm", "always"]).ok().text().contains("asked for at every signature"));
    let key = sandbox.ssh_keys().remove(0);
    assert_eq!(key["hosts"], serde_json::json!(["github.com", "*.example.org"]));
    assert_eq!((&key["confirm"], &key["from"]), (&"always".into(), &"vault".into()));
    set(&["--any-host", "--confirm", "session"]).ok();
    let key = sandbox.ssh_keys().remove(0);
    assert_eq!((key["hosts"].as_array().unwrap().len(), &key["confirm"]), (0, &"session".into()));
    assert!(key["public"].as_str().unwrap().ends_with(" after"));
    set(&[]).refused(2, "nothing is to be changed");
    set(&["--host", "a b"]).refused(2, "a key has at most 64 hosts");
    set(&["--any-host", "--host", "x"]).refused(2, "cannot be used with");
    sandbox.keyloan(&["ssh", "set", "none", "--any-host"]).run().refused(1, "there is no ssh key 'none'");
    sandbox.set_approver(DENY);
    set(&["--host", "elsewhere"]).refused(6, "declined");
    assert!(sandbox.ssh_keys()[0]["hosts"].as_array().unwrap().is_empty());
}

#[test]
fn what_limits_a_key_is_not_stored_so_that_it_would_not_limit_it() {
    let sandbox = Sandbox::with_approver(ALLOW);
    sandbox.keyloan(&["ssh", "generate", "key"]).run().ok();
    let set = |arguments: &[&str], value: &str| {
        sandbox.keyloan(&[&["item", "set"], arguments].concat()).stdin(value.as_bytes()).run()
    };
    set(&["key", "hosts"], "github.com").refused(2, "keyloan ssh set, or item set --public");
    set(&["key", "confirm"], "always").refused(2, "keyloan ssh set, or item set --public");
    set(&["--public", "key", "confirm"], "sometimes").refused(2, "is 'always' or 'session'");
    set(&["--public", "key", "hosts"], &"a ".repeat(65)).refused(2, "at most 64 hosts");
    set(&["--public", "key", "hosts"], "github.com").ok();
    assert_eq!(sandbox.ssh_keys()[0]["hosts"], serde_json::json!(["github.com"]));
    // An item that becomes a key only later is none while what limits it cannot be read beside the locked vault.
    set(&["later", "hosts"], "github.com").ok();
    let private = sandbox.keyloan(&["item", "get", "key", "private_key"]).run().ok().text();
    let public = sandbox.keyloan(&["item", "get", "key", "public_key"]).run().ok().text();
    set(&["later", "private_key"], &private).ok();
    set(&["--public", "later", "public_key"], &public).ok();
    assert_eq!(sandbox.ssh_keys().len(), 1);
    set(&["--public", "later", "hosts"], "github.com").ok();
    assert_eq!(sandbox.ssh_keys().len(), 2);
}

#[test]
fn names_of_hosts_are_pinned_with_their_keys_and_forgotten() {
    let sandbox = Sandbox::with_vault();
    let asked = sandbox.path("run/asked");
    sandbox.set_approver(approver::recording(&asked));
    let key =
        |name: &str| key_of(&fs::read_to_string(sandbox.key_file(name, &[]).with_extension("pub")).unwrap());
    let (own, authority, known) = (key("own"), key("authority"), key("known"));
    let hosts = |arguments: &[&str]| sandbox.keyloan(&[&["ssh", "hosts"], arguments].concat()).run();
    assert!(hosts(&["list"]).ok().stderr.contains("no host is pinned"));
    hosts(&["pin", "Git.Example.org", "--key", &format!("{own} a comment")]).ok();
    let question = fs::read_to_string(&asked).unwrap();
    assert!(question.contains("git.example.org") && question.contains("SHA256:"), "{question}");
    hosts(&["pin", "build.example.org", "--authority", "--key", &authority]).ok();
    hosts(&["pin", "known.example.org"]).refused(1, "there is no key in known_hosts for the host");
    sandbox.make_directory("home/.ssh");
    sandbox.write("home/.ssh/known_hosts", format!("known.example.org {known}\n"));
    hosts(&["pin", "known.example.org"]).ok();
    let listed = hosts(&["list"]).ok().text();
    let lines: Vec<&str> = listed.lines().collect();
    assert!(lines[0].starts_with("git.example.org  ssh-ed25519 SHA256:"), "{listed}");
    assert!(
        lines[1].starts_with("build.example.org") && lines[1].ends_with("certifies its keys"),
        "{listed}"
    );
    let json: serde_json::Value = serde_json::from_slice(&hosts(&["list", "--json"]).ok().stdout).unwrap();
    assert_eq!((&json[2]["host"], &json[2]["key"]), (&"known.example.org".into(), &known.as_str().into()));
    hosts(&["pin", "*.example.org", "--key", &own]).refused(2, "a host is written host, [host]:port");
    hosts(&["pin", "x.example.org", "--key", "rubbish"]).refused(2, "no line of a public key");
    hosts(&["pin", "x.example.org", "--authority"]).refused(2, "--key");
    hosts(&["unpin", "git.example.org"]).ok();
    hosts(&["unpin", "git.example.org"]).refused(1, "there is no pinned host 'git.example.org'");
    assert_eq!(hosts(&["list"]).ok().text().lines().count(), 2);
    let told = sandbox.keyloan(&["log"]).run().ok().text();
    assert!(
        told.contains("pinned: git.example.org") && told.contains("forgotten: git.example.org"),
        "{told}"
    );
}

#[test]
fn the_line_for_a_start_up_file_is_the_shells_and_starts_the_daemon() {
    let sandbox = Sandbox::with_vault();
    sandbox.stop();
    let socket = sandbox.agent_socket();
    let list = format!("{} -l", needed("ssh-add").display());
    let line = format!("eval \"$(keyloan ssh env)\"; echo $SSH_AUTH_SOCK; {list}");
    let shown = sandbox.command("/bin/sh", &["-c", &line]).env("SHELL", "/bin/bash").run().text();
    assert_eq!(shown, format!("{socket}\nThe agent has no identities.\n"));
    let line = format!("keyloan ssh env | source; echo $SSH_AUTH_SOCK; {list}");
    let shown = sandbox.command(needed("fish"), &["-c", &line]).env("SHELL", "/usr/bin/fish").run().text();
    assert_eq!(shown, format!("{socket}\nThe agent has no identities.\n"));
    for (shell, said) in [
        ("bash", format!("SSH_AUTH_SOCK={socket}; export SSH_AUTH_SOCK;\n")),
        ("tcsh", format!("setenv SSH_AUTH_SOCK {socket};\n")),
        ("fish", format!("set -gx SSH_AUTH_SOCK {socket};\n")),
    ] {
        assert_eq!(sandbox.keyloan(&["ssh", "env", "--shell", shell]).run().ok().text(), said);
    }
    let odd = sandbox.make_directory("run/it's $(here)");
    let line =
        "eval \"$(keyloan ssh env --shell sh)\"; test -S \"$SSH_AUTH_SOCK\"; echo $?; keyloan daemon stop";
    let shown = sandbox.command("/bin/sh", &["-c", line]).env("XDG_RUNTIME_DIR", &odd);
    assert_eq!(shown.env("XDG_STATE_HOME", sandbox.path("run/state")).run().text(), "0\n");
}

#[test]
fn commits_are_signed_as_the_documentation_says() {
    let sandbox = Sandbox::with_approver(ALLOW);
    sandbox.make_directory("home/.ssh");
    let script = "keyloan ssh generate laptop && keyloan ssh export laptop -o ~/.ssh/laptop.pub \
        && git config --global user.email me@example.org && git config --global user.name Me \
        && git config --global gpg.format ssh && git config --global user.signingkey ~/.ssh/laptop.pub \
        && git config --global commit.gpgsign true \
        && echo \"$(git config user.email) namespaces=\\\"git\\\" $(keyloan ssh export laptop)\" >>~/.ssh/allowed_signers \
        && git config --global gpg.ssh.allowedSignersFile ~/.ssh/allowed_signers \
        && eval \"$(keyloan ssh env)\" && git init -q && git commit -q --allow-empty -m signed \
        && git log -1 --format='%G? %GS'";
    let ran = sandbox.command("/bin/sh", &["-c", script]).run().ok();
    assert!(ran.text().ends_with("G me@example.org\n"), "{}{}", ran.text(), ran.stderr);
    let told = sandbox.keyloan(&["log"]).run().ok().text();
    assert!(told.contains(" signed: namespace git with SHA256:"), "{told}");
}
