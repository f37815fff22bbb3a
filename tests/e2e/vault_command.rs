//! Any program as a linked vault, and everything that a vault's program can do wrong. The programs are doubles: scripts
//! of the test.

use keyloan_e2e::sandbox::Output;
use keyloan_e2e::{PASSPHRASE, Sandbox, approver, eventually};
use std::fs;

fn link(sandbox: &Sandbox, script: &str, more: &[&str]) -> Output {
    let program = sandbox.write_program("home/vault-program", format!("#!/bin/sh\n{script}\n"));
    let setting = format!("program={}", program.display());
    let arguments = ["vault", "add", "any", "--kind", "command", &setting, "--passphrase-fd", "3"];
    sandbox.keyed(PASSPHRASE, &[&arguments[..], more].concat()).run()
}

/// A vault whose program is this script.
fn with_script(script: &str, more: &[&str]) -> Sandbox {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    link(&sandbox, script, more).ok();
    sandbox
}

fn get(sandbox: &Sandbox, reference: &str) -> Output {
    sandbox.keyloan(&["item", "get", reference]).run()
}

#[test]
fn names_of_any_kind_reach_the_program_as_they_are() {
    let sandbox = with_script("printf '%s|%s\\n' \"$1\" \"$2\"", &[]);
    for item in ["web/x", "it's $HOME `id`", "\"q\"", "ü パス", "{field}"] {
        assert_eq!(get(&sandbox, &format!("any://{item}/a b")).ok().text(), format!("{item}|a b"));
    }
    get(&sandbox, "any://a\nb/c").refused(2, "control character");
    get(&sandbox, "any://--rm/c").refused(7, "would pass for an option");
}

#[test]
fn values_are_what_was_printed_to_the_byte() {
    let sandbox = with_script("printf '\\377\\000 x\\n\\n'", &[]);
    assert_eq!(get(&sandbox, "any://a/b").ok().stdout, b"\xff\0 x\n");
    sandbox.write("project/.keyloan.toml", "[env]\nA = \"any://a/b\"\n");
    sandbox.keyloan(&["trust"]).run().ok();
    sandbox.with_secrets(&["--", "true"]).run().refused(125, "NUL byte");
    assert!(sandbox.events("lent").is_empty());
    let sandbox = with_script("echo", &[]);
    assert_eq!(get(&sandbox, "any://a/b").ok().stdout, b"");
}

#[test]
fn programs_that_fail_in_every_way_are_told_apart_and_none_is_quoted() {
    for (script, status, said) in [
        ("echo s3cret; echo s3cret >&2; exit 3", 7, "ended with status 3"),
        ("true", 7, "printed nothing"),
        ("exit 9", 1, "there is no item 'a'"),
        ("echo s3cret; kill -9 $$", 7, "died of signal 9"),
        ("sleep 1000", 7, "did not answer within 1 s"),
        ("cat /dev/zero", 7, "printed more than 1024 KiB"),
        ("cat /dev/zero >&2", 7, "printed more than 256 KiB"),
    ] {
        let sandbox = with_script(script, &["missing=9", "seconds=1"]);
        let refused = get(&sandbox, "any://a/b").refused(status, said);
        assert!(!refused.stderr.contains("s3cret") && refused.stdout.is_empty(), "{}", refused.stderr);
        let log = fs::read_to_string(sandbox.log()).unwrap();
        assert!(!log.contains("s3cret") && sandbox.events("released").is_empty());
        assert_eq!(sandbox.events("failed").len(), 1);
    }
}

#[test]
fn a_gigabyte_of_output_ends_in_an_error_and_takes_no_memory() {
    let sandbox = with_script("head -c 1000000000 /dev/zero", &[]);
    get(&sandbox, "any://a/b").refused(7, "printed more than");
    let pid = sandbox.daemon().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 300_000, "{peak} kB");
}

#[test]
fn a_missing_program_and_one_that_others_can_change_are_not_linked() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let add = |program: &str| {
        let setting = format!("program={program}");
        let arguments = ["vault", "add", "any", "--kind", "command", &setting, "--passphrase-fd", "3"];
        sandbox.keyed(PASSPHRASE, &arguments).run()
    };
    add("/nowhere/at/all").refused(7, "there is no such program");
    add("vault-program").refused(2, "a whole path is wanted");
    let open = sandbox.write_program("home/open", "#!/bin/sh\n");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(&open, mode).unwrap();
    add(open.to_str().unwrap()).refused(7, "somebody else could change it");
    assert_eq!(sandbox.keyloan(&["vault", "list"]).run().ok().text(), "local  built in\n");
}

#[test]
fn a_program_that_was_changed_is_not_run_until_somebody_says_so() {
    let sandbox = with_script("echo right", &[]);
    assert_eq!(get(&sandbox, "any://a/b").ok().text(), "right");
    let ran = sandbox.path("run/ran");
    sandbox.write_program("home/vault-program", format!("#!/bin/sh\ntouch {}\necho evil\n", ran.display()));
    get(&sandbox, "any://a/b").refused(7, "was changed after the vault was added");
    sandbox.keyloan(&["vault", "test", "any"]).run().refused(7, "would not answer");
    assert!(!ran.exists());
    sandbox
        .keyed("wrong", &["vault", "add", "any", "--replace", "--passphrase-fd", "3"])
        .run()
        .refused(6, "passphrase");
    get(&sandbox, "any://a/b").refused(7, "was changed");
    sandbox.keyed(PASSPHRASE, &["vault", "add", "any", "--replace", "--passphrase-fd", "3"]).run().ok();
    assert_eq!(get(&sandbox, "any://a/b").ok().text(), "evil");
}

/// Links a program of the system's that is given a file of the user's to run, and changes that file.
fn with_changed_file(program: &str, settings: &[&str], text: &str) -> Sandbox {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    sandbox.write("home/read.sh", "echo right\n");
    let script = sandbox.write_program("home/script", text);
    let home = sandbox.path("home").display().to_string();
    let settings: Vec<String> = settings.iter().map(|setting| setting.replace('~', &home)).collect();
    let settings = settings.iter().map(String::as_str);
    let add = ["vault", "add", "any", "--kind", "command", program, "--passphrase-fd", "3"];
    sandbox.keyed(PASSPHRASE, &add.into_iter().chain(settings).collect::<Vec<_>>()).run().ok();
    assert_eq!(get(&sandbox, "any://a/b").ok().text(), "right");
    let listed = sandbox.keyloan(&["vault", "list", "--json"]).run().ok().text();
    assert!(listed.contains(script.to_str().unwrap()), "{listed}");
    sandbox.write_program("home/script", text.replace("right", "evil"));
    sandbox
}

#[test]
fn what_signs_certificates_is_pinned_like_what_reads() {
    let settings = ["read=~/read.sh", "certificate=~/script {role}"];
    let sandbox = with_changed_file("program=/bin/sh", &settings, "echo right\n");
    get(&sandbox, "any://a/b").refused(7, "was changed after the vault was added");
}

#[test]
fn a_file_that_any_program_is_given_to_run_is_pinned() {
    for (program, settings) in [
        ("program=/usr/bin/timeout", "read=5 ~/script {item} {field}"),
        ("program=/usr/bin/nice", "read=~/script {item}"),
        ("program=/usr/bin/nice", "read=/bin/sh ~/script {item}"),
    ] {
        let sandbox = with_changed_file(program, &[settings, "list=~"], "#!/bin/sh\necho right\n");
        get(&sandbox, "any://a/b").refused(7, "was changed after the vault was added");
    }
}

#[test]
fn a_program_gets_an_environment_of_its_own_and_no_terminal() {
    let sandbox =
        with_script("env; ps -o tty= -p $$; cut -d' ' -f6 /proc/$$/stat; echo $$", &["environment=MINE=1"]);
    sandbox.stop();
    let unlock = sandbox.keyed(PASSPHRASE, &["unlock", "--passphrase-fd", "3"]);
    unlock.env("OP_ACCOUNT", "evil").env("BW_SESSION", "evil").env("HTTPS_PROXY", "evil").run().ok();
    let run = sandbox.keyloan(&["item", "get", "any://a/b"]);
    let seen =
        run.env("HTTPS_PROXY", "evil").env("GNUPGHOME", "evil").env("OP_ACCOUNT", "evil").run().ok().text();
    assert!(!seen.contains("evil"), "{seen}");
    let mut names: Vec<&str> = seen.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    names.sort_unstable();
    assert_eq!(names, ["HOME", "LANG", "MINE", "PATH", "PWD", "PYTHONNOUSERSITE"], "{seen}");
    let rest: Vec<&str> = seen.lines().filter(|line| !line.contains('=')).collect();
    assert_eq!(rest[0].trim(), "?");
    assert_eq!(rest[1], rest[2], "a session of its own");
}

#[test]
fn a_requester_that_goes_away_takes_the_program_with_it() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let pids = sandbox.path("run/pids");
    let script = format!("sleep 1000 & echo $$ $! >{0}.new; mv {0}.new {0}; wait", pids.display());
    link(&sandbox, &script, &["seconds=60"]).ok();
    let mut child = sandbox.keyloan(&["item", "get", "any://a/b"]).start();
    eventually("the program runs", || pids.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    let started = fs::read_to_string(&pids).unwrap();
    eventually("it and its own child are gone", || {
        started.split_whitespace().all(|pid| {
            fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
        })
    });
}

#[test]
fn twenty_references_cost_one_process_where_the_program_takes_batches() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let count = sandbox.path("run/count");
    let script = format!("echo run >>{}; xargs -0 -n 2 printf '+%s.%s\\0'", count.display());
    link(&sandbox, &script, &["batch=all"]).ok();
    let lines = (0..20).map(|at| format!("V{at} = \"any://item {at}/f\"\n")).collect::<Vec<_>>().concat();
    sandbox.write("project/.keyloan.toml", format!("[env]\n{lines}"));
    sandbox.keyloan(&["trust"]).run().ok();
    let lent = sandbox.with_secrets(&["--", "sh", "-c", "echo $V0 $V19"]).run().ok();
    assert_eq!(lent.text(), "item 0.f item 19.f\n");
    assert_eq!(fs::read_to_string(count).unwrap(), "run\n");
}

#[test]
fn a_batch_that_answers_less_or_something_else_is_refused_whole() {
    for script in
        ["printf '+a\\0'", "printf '+a\\0+b\\0+c\\0'", "printf 'a\\0b\\0'", "printf '+a\\0+b'", "true"]
    {
        let sandbox = with_script(script, &["batch=all"]);
        sandbox.write("project/.keyloan.toml", "[env]\nA = \"any://a/x\"\nB = \"any://b/x\"\n");
        sandbox.keyloan(&["trust"]).run().ok();
        sandbox.with_secrets(&["--", "true"]).run().refused(125, "does not answer as");
    }
    let sandbox = with_script("printf '+a\\0-\\0'", &["batch=all"]);
    sandbox.write("project/.keyloan.toml", "[env]\nA = \"any://a/x\"\nB = \"any://b/x\"\n");
    sandbox.keyloan(&["trust"]).run().ok();
    sandbox.with_secrets(&["--", "true"]).run().refused(125, "there is no item 'b'");
}

#[test]
fn a_vault_that_hangs_keeps_neither_another_nor_the_daemon_waiting() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let hangs = sandbox.path("run/hangs");
    let script = format!("[ ! -e {} ] || sleep 1000", hangs.display());
    link(&sandbox, &script, &["seconds=60", "test=x"]).ok();
    sandbox.write("run/hangs", "");
    let program = sandbox.write_program("home/other", "#!/bin/sh\necho fine\n");
    let setting = format!("program={}", program.display());
    let other = ["vault", "add", "other", "--kind", "command", &setting, "--passphrase-fd", "3"];
    sandbox.keyed(PASSPHRASE, &other).run().ok();
    let mut hanging = sandbox.keyloan(&["vault", "test"]).start();
    let mut told = std::io::BufReader::new(hanging.stdout.take().unwrap());
    let mut lines = String::new();
    while !lines.contains("other  ready") {
        assert!(std::io::BufRead::read_line(&mut told, &mut lines).unwrap() > 0, "{lines}");
    }
    assert_eq!(get(&sandbox, "other://a/b").ok().text(), "fine");
    hanging.kill().unwrap();
    hanging.wait().unwrap();
}
