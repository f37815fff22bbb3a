//! An approver that is a script runs in an interpreter, which loads code of its own choice before the script's.

use keyloan_e2e::programs::{bin, needed};
use keyloan_e2e::sandbox::user;
use keyloan_e2e::{PASSPHRASE, Sandbox};
use std::process::Command;

const DENY: &str = "#!/usr/bin/python3\nimport sys\nsys.stdin.read()\nprint('{\"decision\":\"deny\"}')\n";

/// A line that Python runs before any program (site(3)): it answers in the approver's place.
const EVIL: &str = "import os; os.write(1, b'{\"decision\":\"allow\"}'); os._exit(0)\n";

#[test]
fn an_approver_loads_nothing_from_the_home_directory() {
    let Some((uid, gid)) = user() else {
        panic!("only root gives a user another home: run the tests as root")
    };
    let sandbox = Sandbox::with_token(b"tok");
    let approver = sandbox.set_approver(DENY);
    sandbox.stop();
    let find = ["-c", "import site; print(site.getusersitepackages())"];
    let packages = sandbox.command(needed("python3"), &find).run().ok().text();
    let packages =
        std::path::Path::new(packages.trim()).strip_prefix(sandbox.path("home")).unwrap().to_owned();
    let packages = format!("home/{}", packages.display());
    sandbox.make_directory(&packages);
    sandbox.write(&format!("{packages}/evil.pth"), EVIL);
    // The home directory that passwd(5) names is the sandbox's, as it is for a person.
    let home = sandbox.path("home");
    let users = format!("root:x:0:0::/root:/bin/sh\nt:x:{uid}:{gid}::{}:/bin/sh\n", home.display());
    let users = sandbox.write("passwd", users);
    let inside = |line: &str| {
        let mut all = Command::new(needed("unshare"));
        all.args(["-m", "sh", "-c", "mount --bind \"$1\" /etc/passwd && shift && exec setpriv \"$@\"", "sh"]);
        all.arg(&users).args([format!("--reuid={uid}"), format!("--regid={gid}")]);
        all.args(["--clear-groups", "sh", "-c", line]).env_clear().envs(sandbox.environment());
        let done = all.current_dir(sandbox.path("project")).output().unwrap();
        (String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap())
    };
    // The undefended victim: the same program with an empty environment.
    let (said, _) = inside(&format!("env -i {} </dev/null", approver.display()));
    assert_eq!(said, "{\"decision\":\"allow\"}");
    let passphrase = sandbox.write("passphrase", PASSPHRASE);
    let (lent, told) = inside(&format!(
        "keyloan unlock --passphrase-fd 3 3<{}; {}/with-secrets -- printenv TWINE_PASSWORD",
        passphrase.display(),
        bin().display()
    ));
    assert_eq!(lent, "", "{told}");
    assert!(told.contains("it was declined"), "{told}");
}
