//! Lent files, copies of the vault, and loans that are recalled: what another program of the same user tries with
//! them.

use crate::attack;
use keyloan_e2e::programs::needed;
use keyloan_e2e::{PASSPHRASE, Running, Sandbox, approver, eventually};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// Puts other content into an open file of another process.
const REWRITE: &str = r"
import sys
try:
    with open(sys.argv[1], 'r+b') as file:
        file.write(b'changed')
    print('rewritten')
except OSError as error:
    print('refused', error.errno)
";

fn rewrite(sandbox: &Sandbox, path: &str) -> String {
    attack(sandbox, REWRITE, &[path]).ok().text()
}

fn with_file() -> Sandbox {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    sandbox.policy("item.write=allow");
    sandbox.policy("trust=allow");
    sandbox.keyloan(&["item", "set", "key", "json"]).stdin("original content").run().ok();
    sandbox
}

#[test]
fn a_lent_file_in_memory_is_changed_by_nobody() {
    let sandbox = with_file();
    // The victim keeps its credential open in an ordinary private file that it has unlinked.
    let victim = "import os, time; f = open('plain', 'w+'); f.write('original content'); f.flush(); \
                  os.chmod('plain', 0o600); os.unlink('plain'); open('ready', 'w').write(str(f.fileno())); \
                  time.sleep(1000)";
    let victim = Running(sandbox.command(needed("python3"), &["-c", victim]).start());
    let ready = sandbox.path("project/ready");
    eventually("the victim is ready", || std::fs::read_to_string(&ready).is_ok_and(|text| !text.is_empty()));
    let number = std::fs::read_to_string(&ready).unwrap();
    let path = format!("/proc/{}/fd/{number}", victim.0.id());
    assert_eq!(rewrite(&sandbox, &path), "rewritten\n");
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("changed"));

    sandbox.write("project/.keyloan.toml", "[files]\nF = \"local://key/json\"\n");
    sandbox.keyloan(&["trust"]).run().ok();
    let line = "printf %s \"$F\" >where; exec sleep 1000";
    let _holder = Running(sandbox.with_secrets(&["--", "sh", "-c", line]).start());
    let at = sandbox.path("project/where");
    eventually("it is lent", || std::fs::read_to_string(&at).is_ok_and(|text| !text.is_empty()));
    let path = std::fs::read_to_string(&at).unwrap();
    assert_eq!(rewrite(&sandbox, &path), "refused 13\n");
    // Opening it anew after a change of its mode does not help either: the seals are the content's.
    sandbox.command(needed("chmod"), &["600", &path]).run().ok();
    assert_eq!(rewrite(&sandbox, &path), "refused 1\n");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "original content");
}

#[test]
fn a_link_in_place_of_the_directory_of_lent_files_is_not_followed() {
    assert!(keyloan_e2e::sandbox::user().is_some(), "this test mounts a file system: run the tests as root");
    let sandbox = with_file();
    sandbox.stop();
    let run = sandbox.path("run");
    let (uid, gid) = keyloan_e2e::sandbox::user().unwrap();
    let options = format!("size=1m,mode=0700,uid={uid},gid={gid}");
    let mounted = Mounted::at(&run, &options);
    let elsewhere = sandbox.make_directory("home/elsewhere");
    // A program that makes its directory the usual way writes where the link leads.
    symlink(&elsewhere, run.join("victim")).unwrap();
    let line = "mkdir -p \"$1/victim/files\" && echo secret >\"$1/victim/files/key\"";
    sandbox.command(needed("sh"), &["-c", line, "sh", run.to_str().unwrap()]).run().ok();
    assert!(elsewhere.join("files/key").exists());

    sandbox.unlock().ok();
    let manifest = "[files]\nF = { ref = \"local://key/json\", as = \"path\" }\n";
    sandbox.write("project/.keyloan.toml", manifest);
    sandbox.keyloan(&["trust"]).run().ok();
    symlink(&elsewhere, run.join("keyloan/files")).unwrap();
    let show = ["--", "sh", "-c", "printf %s \"$F\""];
    sandbox.with_secrets(&show).run().refused(125, "is a symbolic link");
    std::fs::remove_file(run.join("keyloan/files")).unwrap();
    let path = sandbox.with_secrets(&show).run().ok().text();
    assert!(path.starts_with(run.join("keyloan/files").to_str().unwrap()), "{path}");
    sandbox.stop();
    drop(mounted);
}

struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn at(path: &'a Path, options: &str) -> Self {
        let mount =
            Command::new(needed("mount")).args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(path).status();
        assert!(mount.unwrap().success());
        Self(path)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new(needed("umount")).arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_backup_is_not_made_for_whoever_asks() {
    let sandbox = with_file();
    // Where credentials lie in files, any program packs them up.
    sandbox.write("home/.netrc", "password plain-secret");
    let archive = sandbox.path("project/a.tar").display().to_string();
    let netrc = sandbox.path("home/.netrc").display().to_string();
    sandbox.command(needed("tar"), &["-cf", &archive, &netrc]).run().ok();
    assert!(std::fs::read(&archive).unwrap().windows(12).any(|window| window == b"plain-secret"));

    let file = sandbox.path("project/b.age").display().to_string();
    let mine = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    // An approver that says yes to everything does not help: it is the passphrase that is wanted.
    sandbox.keyloan(&["backup", &file, "-r", mine]).run().refused(6, "there is no way to ask");
    sandbox.keyloan(&["recovery-key"]).run().refused(6, "there is no way to ask");
    sandbox.keyloan(&["rekey"]).run().refused(6, "there is no way to ask");
    assert!(!Path::new(&file).exists());
    assert!(sandbox.events("backed_up").is_empty());
}

#[test]
fn a_copy_that_was_tampered_with_is_not_merged() {
    let sandbox = with_file();
    let copy = |name: &str| {
        let to = sandbox.path(name);
        let from = sandbox.vault().display().to_string();
        assert!(Command::new(needed("cp")).args(["-a", &from]).arg(&to).status().unwrap().success());
        to
    };
    let before = copy("before");
    sandbox.keyloan(&["item", "set", "key", "json"]).stdin("rotated").run().ok();
    sandbox.keyloan(&["item", "set", "other", "v"]).stdin("x").run().ok();
    let after = copy("after");
    // Back to the state before, as another machine would be.
    sandbox.stop();
    std::fs::remove_dir_all(sandbox.vault()).unwrap();
    assert!(
        Command::new(needed("cp")).arg("-a").arg(&before).arg(sandbox.vault()).status().unwrap().success()
    );
    sandbox.keyed(PASSPHRASE, &["unlock", "--accept-rollback", "--passphrase-fd", "3"]).run().ok();
    let merge = || sandbox.keyloan(&["merge", after.to_str().unwrap()]).run();
    let items = after.join("items");
    let known: Vec<_> =
        std::fs::read_dir(before.join("items")).unwrap().map(|item| item.unwrap().file_name()).collect();
    let fresh: Vec<_> = std::fs::read_dir(&items)
        .unwrap()
        .map(|item| item.unwrap())
        .filter(|item| !known.contains(&item.file_name()))
        .map(|item| item.path())
        .collect();
    assert_eq!(fresh.len(), 2);
    let whole: Vec<Vec<u8>> = fresh.iter().map(|path| std::fs::read(path).unwrap()).collect();
    // Two items swapped, as files: each is a true one of this vault.
    std::fs::write(&fresh[0], &whole[1]).unwrap();
    std::fs::write(&fresh[1], &whole[0]).unwrap();
    merge().refused(7, "is not the one that was written");
    std::fs::write(&fresh[0], &whole[0]).unwrap();
    std::fs::write(&fresh[1], &whole[1]).unwrap();
    // A record taken out of the middle of the journal.
    let mut journal: Vec<_> =
        std::fs::read_dir(after.join("journal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    journal.sort();
    let middle = &journal[journal.len() - 2];
    let record = std::fs::read(middle).unwrap();
    std::fs::remove_file(middle).unwrap();
    merge().refused(7, "one was removed, swapped or put back");
    std::fs::write(middle, record).unwrap();
    std::fs::set_permissions(middle, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let (uid, gid) = keyloan_e2e::sandbox::user().unwrap();
    nix::unistd::chown(middle, Some(uid), Some(gid)).unwrap();
    assert!(merge().ok().stderr.contains("merged: 1 added, 1 updated"));
}

#[test]
fn a_recall_ends_who_holds_the_loan_and_nobody_who_only_claims_so() {
    let sandbox = Sandbox::with_token(b"tok");
    // In a process group of its own, as an interactive shell would start it.
    let line = ["-w", "with-secrets", "--", "sleep", "1000"];
    let mut holder = Running(sandbox.command(needed("setsid"), &line).start());
    eventually("it is lent", || sandbox.events("lent").len() == 1);
    // A program that kills by what a name says kills the bystander as well.
    let bystander = sandbox.command("/bin/sleep", &["1000"]).env("KEYLOAN_LOAN", "1-1-1");
    let mut bystander = Running(bystander.start());
    let line = "for p in /proc/[0-9]*; do grep -qs '^KEYLOAN_LOAN=1-' $p/environ && echo found; done";
    assert!(sandbox.command(needed("sh"), &["-c", line]).run().text().contains("found"));
    sandbox.keyloan(&["recall", "--all", "--kill"]).run().ok();
    assert!(!holder.0.wait().unwrap().success());
    assert!(bystander.0.try_wait().unwrap().is_none(), "it named a loan that is none");
}

#[test]
fn a_forged_identity_file_moves_no_question() {
    let sandbox = Sandbox::with_token(b"tok");
    let keygen = |name: &str| {
        let file = sandbox.path(name).display().to_string();
        sandbox.command("/usr/bin/age-keygen", &["-o", &file]).run().ok();
        let public = sandbox.command("/usr/bin/age-keygen", &["-y", &file]).run().ok().text();
        (file, public.trim().to_owned())
    };
    let ((mine, public), (any, _)) = (keygen("home/mine"), keygen("home/any"));
    let forged = sandbox.vault().join("identity/recovery.age").display().to_string();
    sandbox.command(needed("age"), &["-r", &public, "-o", &forged, &any]).run().ok();
    sandbox.command(needed("chmod"), &["600", &forged]).run().ok();
    // Nothing in the file says who wrote it: age opens it.
    let opened = sandbox.command(needed("age"), &["-d", "-i", &mine, &forged]).run().ok();
    assert!(opened.text().contains("AGE-SECRET-KEY-1"));
    let key = std::fs::read_to_string(&mine).unwrap();
    let key = key.lines().last().unwrap().to_owned();
    let unlock = ["unlock", "--here", "--passphrase-fd", "3"];
    sandbox.keyed(&key, &unlock).run().refused(6, "the passphrase was not the right one");
    assert!(sandbox.events("surface_moved").len() == 1, "only the true unlock moved it");
    assert_eq!(sandbox.events("unlock_failed").len(), 1);
    sandbox.keyed(PASSPHRASE, &unlock).run().ok();
    assert_eq!(sandbox.events("surface_moved").len(), 2);
}

#[test]
fn a_recall_where_the_holder_is_in_the_first_process_group_ends_nothing_else() {
    let (uid, gid) =
        keyloan_e2e::sandbox::user().expect("this test makes a pid namespace: run the tests as root");
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.stop();
    let passphrase = sandbox.write("passphrase", PASSPHRASE).display().to_string();
    // The first process of a pid namespace, as in a container: its group is 1, and to signal that is to signal all.
    let script = format!(
        "exec 3<{passphrase}; keyloan unlock --passphrase-fd 3 || exit 9\n\
         setsid sleep 1001 & other=$!\n\
         with-secrets -- sh -c 'echo $$ >holder; exec sleep 1002' & \n\
         until [ -s holder ]; do sleep 0.05; done\n\
         keyloan recall --all --kill\n\
         kill -0 \"$(cat holder)\" 2>/dev/null && echo holder lives\n\
         ps -eo args | grep -q '[s]leep 1001' && echo other lives\n\
         keyloan daemon stop\n"
    );
    let script = sandbox.write_program("project/first", &script).display().to_string();
    let mut command = Command::new(needed("unshare"));
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child", "setsid", "setpriv"]);
    command.args(["--reuid", &uid.to_string(), "--regid", &gid.to_string(), "--clear-groups", "sh", &script]);
    let mut command = sandbox.prepared(command).into_command();
    // unshare itself needs root.
    std::os::unix::process::CommandExt::uid(&mut command, 0);
    let out = command.output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("other lives\n") && !said.contains("holder lives"), "{said}");
}
