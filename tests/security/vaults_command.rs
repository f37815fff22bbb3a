//! What a vault's program is told by files of the user, by whoever starts the daemon, and by names.

use keyloan_e2e::programs::needed;
use keyloan_e2e::{PASSPHRASE, Sandbox, approver, linked};

fn link(sandbox: &Sandbox, settings: &[&str]) -> keyloan_e2e::sandbox::Output {
    let arguments = ["vault", "add", "any", "--kind", "command", "--passphrase-fd", "3"];
    sandbox.keyed(PASSPHRASE, &[&arguments[..], settings].concat()).run()
}

fn get(sandbox: &Sandbox, reference: &str) -> keyloan_e2e::sandbox::Output {
    sandbox.keyloan(&["item", "get", reference]).run()
}

#[test]
fn a_program_whose_home_the_daemons_starter_chose_has_the_one_that_it_was_linked_with() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let program = sandbox.write_program("home/vault", "#!/bin/sh\necho $HOME\n");
    link(&sandbox, &[&format!("program={}", program.display())]).ok();
    let home = sandbox.path("home");
    assert_eq!(get(&sandbox, "any://a/b").ok().text(), home.display().to_string());
    sandbox.stop();
    let evil = sandbox.make_directory("run/evil");
    let kept = |name: &str| home.join(name).into_os_string();
    let unlock = sandbox.keyed(PASSPHRASE, &["unlock", "--passphrase-fd", "3"]).env("HOME", &evil);
    let unlock = unlock.env("XDG_CONFIG_HOME", kept(".config")).env("XDG_DATA_HOME", kept(".local/share"));
    unlock.env("XDG_STATE_HOME", kept(".local/state")).run().ok();
    assert_eq!(get(&sandbox, "any://a/b").ok().text(), home.display().to_string());
}

#[test]
fn a_pinned_script_of_pythons_loads_nothing_from_the_users_own_packages() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let python = needed("python3");
    let where_ = ["-c", "import site; print(site.getusersitepackages())"];
    let packages = sandbox.command(&python, &where_).run().ok().text();
    let packages = std::path::Path::new(packages.trim()).strip_prefix(sandbox.path("")).unwrap().to_owned();
    let packages = packages.to_str().unwrap();
    sandbox.make_directory(packages);
    let ran = sandbox.path("run/ran");
    let evil = format!("open({:?}, 'w')\n", ran.display().to_string());
    sandbox.write(&format!("{packages}/usercustomize.py"), evil);
    let program = sandbox.write_program("home/vault", format!("#!{}\nprint('value')\n", python.display()));
    // The undefended victim.
    sandbox.command(&program, &[] as &[&str]).run().ok();
    assert!(ran.exists());
    std::fs::remove_file(&ran).unwrap();
    link(&sandbox, &[&format!("program={}", program.display())]).ok();
    assert_eq!(get(&sandbox, "any://a/b").ok().text(), "value");
    assert!(!ran.exists());
}

#[test]
fn a_script_that_an_interpreter_is_linked_with_is_pinned_as_well() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let script = sandbox.write("home/get.py", "print('real')\n");
    let program = format!("program={}", needed("python3").display());
    let read = format!("read=-B {} {{item}}", script.display());
    link(&sandbox, &[&program, &read]).ok();
    assert_eq!(get(&sandbox, "any://a/b").ok().text(), "real");
    let listed = sandbox.keyloan(&["vault", "list"]).run().ok().text();
    assert!(listed.contains("get.py (sha256 "), "{listed}");
    sandbox.write("home/get.py", "print('evil')\n");
    get(&sandbox, "any://a/b").refused(7, "get.py was changed after the vault was added");
    let evil = sandbox.path("home/evil.py").display().to_string();
    link(&sandbox, &["--replace", &format!("read={evil}")]).refused(7, "there is no such program");
    std::os::unix::fs::symlink("/dev/full", &evil).unwrap();
    link(&sandbox, &["--replace", &format!("read={evil}")]).refused(7, "evil.py: ");
}

#[test]
fn a_name_does_not_become_an_option_by_what_stands_behind_it() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let program = sandbox.write_program("home/vault", "#!/bin/sh\nprintf '%s\\n' \"$2\"\n");
    let program = format!("program={}", program.display());
    link(&sandbox, &[&program, "read=show {item}/{field}"]).ok();
    assert_eq!(get(&sandbox, "any://web/x").ok().text(), "web/x");
    get(&sandbox, "any://--config=/home/u/evil/x").refused(7, "would pass for an option");
}

#[test]
fn what_a_program_is_opened_with_is_in_its_environment_and_nowhere_else() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let program = sandbox.write_program("home/vault", "#!/bin/sh\necho \"$TOKEN|$PLAIN\"\n");
    let program = format!("program={}", program.display());
    let settings = ["any", "--kind", "command", &program, "secrets=TOKEN", "environment=PLAIN=hidden"];
    let given = [&settings[..], &["--secret-fd", "TOKEN=5"]].concat();
    linked::add(&sandbox, "t0ken", &given).run().ok();
    assert_eq!(get(&sandbox, "any://a/b").ok().text(), "t0ken|hidden");
    for format in [&["vault", "list"][..], &["vault", "list", "--json"]] {
        let listed = sandbox.keyloan(format).run().ok().text();
        assert!(listed.contains("TOKEN") && listed.contains("PLAIN"), "{listed}");
        assert!(!listed.contains("t0ken") && !listed.contains("hidden"), "{listed}");
    }
    std::fs::remove_file(sandbox.path("secret-of-a-vault")).unwrap();
    let home = sandbox.path("home/.local");
    for word in ["t0ken", "hidden"] {
        let found = sandbox.command(needed("grep"), &["-rl", word, home.to_str().unwrap()]).run();
        assert_eq!(found.text(), "", "{word}");
    }
    // What is not given anew stays.
    let replaced = link(&sandbox, &["--replace", "environment=PLAIN=other"]);
    replaced.ok();
    assert_eq!(get(&sandbox, "any://a/b").ok().text(), "t0ken|other");
    linked::add(&sandbox, "x", &["any", "--replace", "--secret-fd", "OTHER=5"])
        .run()
        .refused(2, "has no secret 'OTHER'");
    link(&sandbox, &["--replace", "secrets=TOKEN MORE"]).refused(2, "MORE");
    for bad in ["LD_PRELOAD", "A-B", "HOME"] {
        let (names, given) = (format!("secrets={bad}"), format!("{bad}=5"));
        let replaced = linked::add(&sandbox, "x", &["any", "--replace", &names, "--secret-fd", &given]);
        replaced.run().refused(7, "secrets takes");
    }
}
