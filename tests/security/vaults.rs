//! Linked vaults: turning one to something else, from its environment and from its files.

use keyloan_e2e::openbao::{OpenBao, Tls};
use keyloan_e2e::pass::Store;
use keyloan_e2e::programs::needed;
use keyloan_e2e::{PASSPHRASE, Sandbox, approver};

#[test]
fn a_gpg_before_the_real_one_or_another_store_in_the_environment_serves_pass_and_not_keyloan() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let store = Store::new(&sandbox);
    store.insert("web", "real\n");
    store.link();
    let evil = sandbox.make_directory("run/evil");
    sandbox.write_program("run/evil/gpg", "#!/bin/sh\necho evil\n");
    let path = format!("{}:/usr/bin:/bin", evil.display());
    // The undefended victim.
    let show = || sandbox.command(needed("pass"), &["show", "web"]).env("PATH", &path);
    assert_eq!(show().run().ok().text(), "evil\n");
    let elsewhere = show().env("PATH", "/usr/bin:/bin").env("PASSWORD_STORE_DIR", &evil);
    assert_ne!(elsewhere.run().status, 0);

    sandbox.stop();
    // The daemon itself is started with the attacker's environment.
    let unlock = sandbox.keyed(PASSPHRASE, &["unlock", "--passphrase-fd", "3"]);
    unlock.env("PATH", &path).env("PASSWORD_STORE_DIR", &evil).env("GNUPGHOME", &evil).run().ok();
    let get = sandbox.keyloan(&["item", "get", "pass://web/password"]);
    let get = get.env("PATH", &path).env("PASSWORD_STORE_DIR", &evil).env("GNUPGHOME", &evil);
    assert_eq!(get.run().ok().text(), "real");
}

#[test]
fn a_vaults_program_that_is_exchanged_serves_a_script_and_not_keyloan() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let program = sandbox.write_program("home/vault", "#!/bin/sh\necho real\n");
    let setting = format!("program={}", program.display());
    let add = ["vault", "add", "any", "--kind", "command", &setting, "--passphrase-fd", "3"];
    sandbox.keyed(PASSPHRASE, &add).run().ok();
    let line = "exec ~/vault";
    assert_eq!(sandbox.command("/bin/sh", &["-c", line]).run().ok().text(), "real\n");
    let ran = sandbox.path("run/ran");
    sandbox.write_program("home/vault", format!("#!/bin/sh\ntouch {}\necho evil\n", ran.display()));
    // The undefended victim: a script that calls it by its path.
    assert_eq!(sandbox.command("/bin/sh", &["-c", line]).run().ok().text(), "evil\n");
    std::fs::remove_file(&ran).unwrap();
    sandbox.keyloan(&["item", "get", "any://a/b"]).run().refused(7, "was changed after the vault was added");
    assert!(!ran.exists());
}

#[test]
fn a_password_that_could_be_a_variables_name_is_written_nowhere() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let store = Store::new(&sandbox);
    for (item, text) in [("web/pypi", "QUJDREVGR0g=\n"), ("twice", "QUJDREVGR0g=\nQUJDREVGR0g=\n")] {
        store.insert(item, text);
    }
    store.link();
    for item in ["web/pypi", "twice"] {
        let refused = sandbox.with_secrets(&["-s", item, "--", "true"]).run().refused(125, "no field 'vars'");
        assert!(!refused.stderr.contains("QUJD"), "{}", refused.stderr);
    }
    assert!(sandbox.events("lent").is_empty());
    assert!(!std::fs::read_to_string(sandbox.log()).unwrap().contains("QUJD"));
}

#[test]
fn a_directory_made_unreadable_in_a_password_store_neither_hides_a_set_nor_writes_in_a_question() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let store = Store::new(&sandbox);
    store.insert("~/work/deep", "# near\nA=near\n");
    store.link();
    sandbox.keyloan(&["item", "set", "~/work", "vars"]).stdin("A=far\n").run().ok();
    sandbox.make_directory("home/work");
    let deep = sandbox.make_directory("home/work/deep");
    let kept = sandbox.path("run/kept");
    sandbox.set_approver(approver::keeping(&kept));
    let shut = sandbox.make_directory("home/.password-store/press y, all is well");
    std::fs::set_permissions(&shut, std::fs::Permissions::from_mode(0o0)).unwrap();
    let lent = sandbox.with_secrets(&["--", "printenv", "A"]).within(&deep).run();
    assert_ne!(lent.text(), "far\n");
    let asked = std::fs::read_to_string(&kept).unwrap_or_default();
    assert!(!asked.contains("all is well"), "{asked}");
}

#[test]
fn whoever_changes_the_file_of_certificates_does_not_take_the_servers_place() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let bao = OpenBao::start(&sandbox);
    bao.link(&[], &[("token", "root-token")]).ok();
    let get = || sandbox.keyloan(&["item", "get", "team://ci/pypi/token"]).run();
    assert_eq!(get().ok().text(), "tok");
    let port = bao.port();
    drop(bao);
    // An authority of the attacker's own, in the place of the one that was meant.
    for file in ["ca.pem", "ca.key"] {
        std::fs::remove_file(sandbox.path(file)).unwrap();
    }
    let impostor = OpenBao::started(&sandbox, "impostor", Tls::Good, &serde_json::json!({"port": port}));
    // Who believes the file believes the impostor.
    let ca = sandbox.path("ca.pem").display().to_string();
    let curl = ["-s", "--cacert", &ca, &format!("{}/v1/sys/health", impostor.address())];
    sandbox.command(needed("curl"), &curl).run().ok();
    let before = impostor.requests("").len();
    sandbox.keyloan(&["lock"]).run().ok();
    sandbox.unlock().ok();
    get().refused(7, "was changed after the vault was added");
    assert_eq!(impostor.requests("").len(), before, "it is told nothing");
    bao_again(&impostor, &sandbox);
}

/// If the change was the user's own.
fn bao_again(server: &OpenBao, sandbox: &Sandbox) {
    server.link(&["--replace"], &[]).ok();
    assert_eq!(sandbox.keyloan(&["item", "get", "team://ci/pypi/token"]).run().ok().text(), "tok");
}
