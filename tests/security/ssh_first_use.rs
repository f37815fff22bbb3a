//! Row 18 where the first login to a host keeps its name with its key: what is kept is what was shown.

use keyloan_e2e::sandbox::finished;
use keyloan_e2e::sshd::Ssh;
use keyloan_e2e::{Sandbox, eventually};
use std::fs;
use std::os::unix::fs::PermissionsExt;

const HOST: &str = "git.example.org";

/// Asks, and says yes to both once a file is there.
fn asked(sandbox: &Sandbox) -> Ssh<'_> {
    let ssh = Ssh::of(sandbox);
    let approver = format!(
        "#!/bin/sh\n{{ cat; echo; }} >>{}\nwhile [ ! -e {} ]; do sleep 0.05; done\n\
         echo '{{\"decision\":\"allow\",\"scope\":\"pin\"}}'\n",
        ssh.kept().display(),
        sandbox.path("run/go").display()
    );
    ssh.answered_by(approver, &["deadline=2m"]);
    ssh.key("work", &["ed25519"]);
    ssh.store("work", &[]);
    ssh
}

fn said(sandbox: &Sandbox, ssh: &Ssh<'_>, change: impl FnOnce()) -> keyloan_e2e::Output {
    let _ = fs::remove_file(sandbox.path("run/go"));
    let before = ssh.questions().len();
    let login = ssh.client("ssh", &[HOST, "true"]).start();
    eventually("it is asked", || ssh.questions().len() > before);
    assert!(ssh.questions().pop().unwrap().scopes().contains(&"pin"));
    change();
    sandbox.write("run/go", "");
    finished(login)
}

fn pins(sandbox: &Sandbox) -> String {
    sandbox.keyloan(&["ssh", "hosts", "list"]).run().ok().text()
}

#[test]
fn a_name_that_is_changed_while_the_question_stands_is_not_kept_and_nobody_logs_in() {
    let sandbox = Sandbox::with_vault();
    let ssh = asked(&sandbox);
    let server = ssh.server(HOST, &[ssh.public("work")]);
    ssh.key("evil", &["ed25519"]);
    let (good, hosts) = (fs::read(ssh.known_hosts()).unwrap(), ssh.known_hosts().display().to_string());
    let evil = format!("{HOST} {}\n", ssh.public("evil"));
    // The undefended victim shows one thing and keeps what is there after the yes.
    let script = "ssh-keygen -F \"$1\" -f \"$2\" >shown; while [ ! -e \"$3\" ]; do sleep 0.05; done; \
                  ssh-keygen -F \"$1\" -f \"$2\" >kept";
    let go = sandbox.path("run/go").display().to_string();
    let victim = sandbox.command("/bin/sh", &["-c", script, "sh", HOST, &hosts, &go]).start();
    let written = |name: &str| fs::read_to_string(sandbox.path("project").join(name)).unwrap_or_default();
    let host_key = ssh.public(&format!("host-{HOST}"));
    let body = |line: &str| line.split(' ').nth(1).unwrap().to_owned();
    eventually("the victim shows it", || written("shown").contains(&body(&host_key)));
    sandbox.write("home/.ssh/known_hosts", &evil);
    sandbox.write("run/go", "");
    finished(victim).ok();
    assert!(written("kept").contains(&body(&ssh.public("evil"))));

    for changed in
        [evil.as_str(), "", &format!("other.example {host_key}\n"), &format!("@revoked {HOST} {host_key}\n")]
    {
        sandbox.write("home/.ssh/known_hosts", &good);
        // ssh itself reads it before it asks the agent.
        let refused = said(&sandbox, &ssh, || drop(sandbox.write("home/.ssh/known_hosts", changed)));
        refused.refused(255, "Permission denied");
        assert_eq!((pins(&sandbox).as_str(), server.accepted()), ("", 0), "{changed}");
    }
    assert!(sandbox.events("host_changed").is_empty() && sandbox.events("signed").is_empty());
    sandbox.write("home/.ssh/known_hosts", &good);
    said(&sandbox, &ssh, || ()).ok();
    assert!(pins(&sandbox).contains(HOST));
}

#[test]
fn a_policy_that_forbids_it_meanwhile_and_a_vault_that_cannot_keep_it_let_nobody_in() {
    let sandbox = Sandbox::with_vault();
    let ssh = asked(&sandbox);
    let server = ssh.server(HOST, &[ssh.public("work")]);
    let directories = [sandbox.vault(), sandbox.vault().join("items"), sandbox.vault().join("journal")];
    let modes = |mode: u32| {
        for directory in directories.iter().filter(|directory| directory.exists()) {
            fs::set_permissions(directory, fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    said(&sandbox, &ssh, || modes(0o500)).refused(255, "Permission denied");
    modes(0o700);
    assert_eq!((pins(&sandbox).as_str(), server.accepted()), ("", 0));
    assert_eq!(sandbox.events("failed").len(), 1);
    said(&sandbox, &ssh, || drop(sandbox.keyloan(&["policy", "set", "trust=deny"]).run().ok()))
        .refused(255, "Permission denied");
    assert_eq!((pins(&sandbox).as_str(), server.accepted()), ("", 0));
    assert!(sandbox.events("signed").is_empty());
}
