//! Yeses that cover more than one request: what they cover, for whom, until when, and what they never cover.

use keyloan_e2e::approver;
use keyloan_e2e::desktop::Desktop;
use keyloan_e2e::programs::{bin, needed};
use keyloan_e2e::sandbox::{Running, finished};
use keyloan_e2e::sshd::Ssh;
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{PASSPHRASE, PIN, Sandbox};
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout};

const PROMPT: &str = "PIN to allow, Enter alone to decline:";

/// The keys `work` and `other`, and an approver program whose yes covers this much.
fn with_keys<'a>(sandbox: &'a Sandbox, scope: &str, policy: &[&str]) -> Ssh<'a> {
    let ssh = Ssh::asked(sandbox, &[]);
    for name in ["work", "other"] {
        ssh.key(name, &["ed25519"]);
        ssh.store(name, &[]);
    }
    ssh.answered_by(approver::covering(&ssh.kept(), scope), policy);
    ssh
}

/// A repository of five commits, and the line that signs all of them.
fn five_commits(ssh: &Ssh<'_>) -> [String; 5] {
    ssh.sandbox.make_directory("project/repository");
    let key = format!("{}.pub", ssh.path("work").display());
    let script = "git init -q -b main && git config user.name Ada && git config user.email ada@example.org && \
                  git config gpg.format ssh && git config user.signingKey \"$1\" && \
                  for at in 1 2 3 4 5; do git commit -q --allow-empty -m \"commit $at\" || exit; done";
    let within = ssh.sandbox.path("project/repository");
    ssh.client("sh", &["-ec", script, "sh", &key]).within(&within).run().ok();
    ["rebase", "-q", "--root", "--force-rebase", "-S"].map(str::to_owned)
}

/// A shell that runs one line after the other: a command with what it starts.
struct Job {
    child: Running,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Job {
    fn start(ssh: &Ssh<'_>) -> Self {
        let script = "while read -r line; do eval \"$line\" >/dev/null 2>&1; echo $?; done";
        let mut child = ssh.client("sh", &["-c", script]).as_job().start();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child: Running(child), to, from }
    }

    #[track_caller]
    fn run(&mut self, line: &str) {
        writeln!(self.to, "{line}").unwrap();
        let mut status = String::new();
        self.from.read_line(&mut status).unwrap();
        assert_eq!(status.trim(), "0", "{line}");
    }
}

/// Signs with that key for a namespace.
fn signing(ssh: &Ssh<'_>, key: &str, namespace: &str) -> String {
    format!("echo text | ssh-keygen -Y sign -q -n {namespace} -f {}.pub", ssh.path(key).display())
}

fn listed(sandbox: &Sandbox) -> String {
    sandbox.keyloan(&["grants"]).run().ok().text()
}

#[test]
fn one_yes_of_an_approver_program_covers_a_rebase_and_ends_with_it() {
    let sandbox = Sandbox::with_vault();
    let ssh = with_keys(&sandbox, "command", &[]);
    let rebase = five_commits(&ssh);
    let within = sandbox.path("project/repository");
    let run =
        || ssh.client("git", &rebase.each_ref().map(String::as_str)).within(&within).as_job().run().ok();
    run();
    let [question] = &ssh.questions()[..] else { panic!("{:?}", ssh.questions()) };
    assert_eq!(question.scopes(), ["once", "command"]);
    assert_eq!(sandbox.events("signed").len(), 5);
    let granted = sandbox.events("granted").remove(0);
    let (covers, holder) = (granted["covers"].as_str().unwrap(), granted["holder"].as_str().unwrap());
    assert!(covers.starts_with("ssh.signature: namespace git with work SHA256:"), "{covers}");
    assert!(holder.starts_with("/usr/bin/git (pid "), "{holder}");
    let by: Vec<_> =
        sandbox.events("decided").iter().rev().take(4).map(|by| by["approver"].to_string()).collect();
    assert_eq!(by, ["\"grant 1\""; 4]);
    assert_eq!(listed(&sandbox), "");
    assert_eq!(sandbox.events("grant_ended").len(), 1);
    let told = sandbox.keyloan(&["log"]).run().ok().text();
    assert!(told.contains(&format!("granted 1: {covers} for {holder} (until that ends)")), "{told}");
    assert!(told.contains("grant 1 ended: its time, its uses or its holder came to an end"), "{told}");
    run();
    assert_eq!((ssh.questions().len(), sandbox.events("signed").len()), (2, 10));
}

#[test]
fn one_pin_with_a_c_covers_a_rebase_at_a_terminal() {
    let sandbox = Sandbox::with_vault();
    let ssh = with_keys(&sandbox, "command", &[]);
    let rebase = five_commits(&ssh);
    sandbox.policy("approver.command=");
    let terminal = Terminal::open(&sandbox);
    terminal.run(&format!("{}; cd repository", ssh.exports()));
    let line = format!("git rebase --abort; git {}; echo ended $?", rebase.join(" "));
    terminal.run(&line);
    let shown = terminal.expect(PROMPT);
    for part in [
        "may cover EVERY signature in this namespace with this key, for /usr/bin/git",
        "  PIN+c     covers that until it ends\n",
    ] {
        assert!(shown.contains(part), "{shown}");
    }
    terminal.type_text(&format!("{PIN}+c"));
    terminal.press("Enter");
    terminal.expect("ended 0");
    assert_eq!((sandbox.events("signed").len(), sandbox.events("granted").len()), (5, 1));
    // The next one is another command.
    terminal.run(&line);
    terminal.expect(PROMPT);
    terminal.press("Enter");
    terminal.expect("ended 1");
    assert_eq!(sandbox.events("signed").len(), 5);
    // What was not offered is a wrong PIN.
    terminal.run(&line);
    terminal.expect(PROMPT);
    terminal.type_text(&format!("{PIN}+20x"));
    terminal.press("Enter");
    terminal.expect("That is not the PIN.");
    terminal.press("Enter");
    terminal.expect("ended 1");
    assert_eq!(sandbox.events("granted").len(), 1);
}

#[test]
fn a_grant_ends_with_its_uses() {
    let sandbox = Sandbox::with_vault();
    let ssh = with_keys(&sandbox, "3x", &["grants=command 3x"]);
    let mut job = Job::start(&ssh);
    for asked in [1, 1, 1, 2, 2] {
        job.run(&signing(&ssh, "work", "file"));
        assert_eq!(ssh.questions().len(), asked);
    }
    assert!(listed(&sandbox).ends_with(", 1 times more\n"), "{}", listed(&sandbox));
    assert_eq!(sandbox.events("grant_ended").len(), 1);
}

#[test]
fn a_grant_covers_nothing_but_what_was_asked() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.keyloan(&["item", "set", "pypi", "other"]).stdin("o").run().ok();
    let ssh = with_keys(&sandbox, "command", &[]);
    let mut job = Job::start(&ssh);
    let get = |field: &str| format!("{} item get pypi {field}", bin().join("keyloan").display());
    let lend = |more: &str| format!("{} {more}", bin().join("with-secrets").display());
    let mut asked = 0;
    for (line, is_new) in [
        (signing(&ssh, "work", "file"), true),
        (signing(&ssh, "work", "file"), false),
        (signing(&ssh, "other", "file"), true),
        (signing(&ssh, "work", "git"), true),
        (signing(&ssh, "work", "fil"), true),
        (signing(&ssh, "other", "file"), false),
        (get("token"), true),
        (get("token"), false),
        (get("other"), true),
        (lend("-- printenv TWINE_PASSWORD"), true),
        // Not the command line, which anybody can claim.
        (lend("-- printenv TWINE_USERNAME"), false),
        (lend("--only TWINE_PASSWORD -- printenv TWINE_PASSWORD"), false),
        (lend("-- cat /dev/null"), true),
        (lend("--for 1h -- printenv TWINE_PASSWORD"), true),
        (lend("--for 2h -- printenv TWINE_PASSWORD"), true),
        (lend("--for 1h -- printenv TWINE_PASSWORD"), false),
    ] {
        job.run(&line);
        asked += usize::from(is_new);
        assert_eq!(ssh.questions().len(), asked, "{line}");
    }
}

#[test]
fn a_grant_is_its_commands_and_nobody_elses() {
    let sandbox = Sandbox::with_vault();
    let ssh = with_keys(&sandbox, "command", &[]);
    let line = signing(&ssh, "work", "file");
    let (mut job, mut beside) = (Job::start(&ssh), Job::start(&ssh));
    job.run(&line);
    job.run(&format!("sh -c '{line}; true'"));
    assert_eq!(ssh.questions().len(), 1);
    // The same program, from the same parent.
    beside.run(&line);
    assert_eq!(ssh.questions().len(), 2);
    // What the command left behind when it ended.
    job.run(&format!("(while ! test -e ended; do sleep 0.05; done; {line} && echo >left) & true"));
    job.child.end();
    sandbox.write("project/ended", "");
    keyloan_e2e::eventually("the child that was left has signed", || sandbox.path("project/left").exists());
    assert_eq!(ssh.questions().len(), 3);
}

#[test]
fn a_grant_ends_when_it_is_revoked_and_when_the_vault_is_locked_or_the_policy_changed() {
    let sandbox = Sandbox::with_vault();
    let ssh = with_keys(&sandbox, "command", &[]);
    let (mut job, line) = (Job::start(&ssh), signing(&ssh, "work", "file"));
    let mut asked = |count: usize| {
        job.run(&line);
        job.run(&line);
        assert_eq!(ssh.questions().len(), count);
    };
    asked(1);
    let shown = listed(&sandbox);
    assert!(shown.starts_with("1  ssh.signature: namespace file with work SHA256:"), "{shown}");
    assert!(shown.ends_with(", until that ends\n"), "{shown}");
    let grants = sandbox.keyloan(&["grants", "--json"]).run().ok();
    let grants: serde_json::Value = serde_json::from_slice(&grants.stdout).unwrap();
    assert_eq!((&grants[0]["grant"], &grants[1]), (&1.into(), &serde_json::Value::Null));
    sandbox.keyloan(&["revoke", "7"]).run().refused(1, "there is no grant '7'");
    assert!(sandbox.keyloan(&["revoke", "1"]).run().ok().stderr.contains("1 grant is revoked"));
    asked(2);
    sandbox.keyloan(&["revoke", "--all"]).run().ok();
    asked(3);
    sandbox.keyloan(&["lock"]).run().ok();
    sandbox.unlock().ok();
    asked(4);
    sandbox.keyloan(&["policy", "set", "loan.time=1h"]).run().ok();
    asked(5);
    let why: Vec<_> = sandbox.events("grant_ended").iter().map(|event| event["why"].to_string()).collect();
    let whys = ["revoked", "revoked", "the vault was locked", "the policy was changed"];
    assert_eq!(why, whys.map(|why| format!("\"{why}\"")));
}

#[test]
fn what_another_host_forwards_is_offered_no_grant_and_gets_none() {
    let sandbox = Sandbox::with_vault();
    let ssh = with_keys(&sandbox, "command", &["ssh.login=allow"]);
    let hop = ssh.server("hop.example.org", &[ssh.public("work")]);
    let line = signing(&ssh, "work", "file");
    ssh.client("ssh", &["-A", &hop.name, &format!("{line} && {line}")]).as_job().run().ok();
    let scopes: Vec<_> = ssh.questions().iter().map(|question| question.scopes().join(" ")).collect();
    assert_eq!(scopes, ["once", "once"]);
    // Nor does the grant of the very command that forwards.
    let mut job = Job::start(&ssh);
    job.run(&line);
    job.run(&line);
    assert_eq!(ssh.questions().len(), 3);
    let config = ssh.path("config").display().to_string();
    job.run(&format!("ssh -F {config} -A {} '{line}'", hop.name));
    assert_eq!(ssh.questions().len(), 4);
}

#[test]
fn what_changes_the_vault_is_offered_no_grant() {
    let sandbox = Sandbox::with_token(b"tok");
    let ssh = with_keys(&sandbox, "command", &["item.write=ask", "key.add=ask", "ssh.other=ask"]);
    sandbox.keyloan(&["item", "set", "pypi", "token"]).stdin("tok").run().ok();
    sandbox.keyloan(&["item", "rm", "pypi", "token"]).run().ok();
    sandbox.keyloan(&["ssh", "generate", "new"]).run().ok();
    ssh.add(&["-q", &ssh.key("added", &["ed25519"])]).ok();
    sandbox.write("project/.keyloan.toml", "[env]\nA = { value = \"a\" }\n");
    sandbox.keyloan(&["trust"]).run().ok();
    sandbox.keyloan(&["log", "--commands"]).run().ok();
    assert_eq!(ssh.questions().len(), 6);
    for question in ssh.questions() {
        assert_eq!(question.scopes(), ["once"], "{}", question.title());
    }
    assert!(sandbox.events("granted").is_empty());
}

#[test]
fn one_yes_for_make_covers_the_same_set_for_the_same_program_and_no_other() {
    let sandbox = Sandbox::with_token(b"tok");
    let kept = sandbox.path("run/questions");
    sandbox.set_approver(approver::covering(&kept, "command"));
    sandbox.write(
        "project/Makefile",
        "all:\n\twith-secrets -- printenv TWINE_PASSWORD\n\twith-secrets -- printenv TWINE_PASSWORD\n\
         more: all\n\twith-secrets --only TWINE_USERNAME -- printenv TWINE_USERNAME\n\
         \twith-secrets -- sh -c :\n",
    );
    let make = |target: &str| sandbox.command(needed("make"), &["-s", target]).as_job().run().ok().text();
    assert_eq!(make("all"), "tok\ntok\n");
    assert_eq!(approver::questions(&kept).len(), 1);
    assert_eq!(make("more"), "tok\ntok\n__token__\n");
    // Of the second make: the set, and another program; a part of the set is within it.
    assert_eq!(approver::questions(&kept).len(), 3);
    assert_eq!(sandbox.events("lent").len(), 6);
}

#[test]
fn a_yes_covers_what_waits_behind_it() {
    let sandbox = Sandbox::with_token(b"tok");
    let (kept, go) = (sandbox.path("run/questions"), sandbox.path("run/go"));
    let waiting = format!("#!/bin/sh\nwhile ! test -e {}; do sleep 0.05; done\n", go.display());
    sandbox.set_approver(approver::covering(&kept, "command").replacen("#!/bin/sh\n", &waiting, 1));
    let recipe = |name: &str| format!("{name}:\n\t@with-secrets -- printenv TWINE_PASSWORD\n");
    sandbox.write("project/Makefile", ["a", "b", "c"].map(recipe).concat());
    let make = sandbox.command(needed("make"), &["-s", "-j3", "a", "b", "c"]).as_job().start();
    keyloan_e2e::eventually("all three ask", || sandbox.status()["pending"] == 3);
    sandbox.write("run/go", "");
    assert_eq!(finished(make).ok().text(), "tok\ntok\ntok\n");
    assert_eq!(approver::questions(&kept).len(), 1);
    let decided = sandbox.events("decided");
    assert_eq!(decided.iter().filter(|event| event["decision"] == "covered").count(), 2);
}

#[test]
fn the_grant_of_a_terminal_covers_that_terminal_and_no_other() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.policies(&["approver.command=", "grants=terminal-10m"]);
    let terminal = Terminal::open(&sandbox);
    let line = "with-secrets -- printenv TWINE_PASSWORD; echo ended $?";
    terminal.run(line);
    let shown = terminal.expect(PROMPT);
    assert!(shown.contains("PIN+t10m  covers that for ANYTHING on pts/"), "{shown}");
    terminal.type_text(&format!("{PIN}+t10m"));
    terminal.press("Enter");
    terminal.expect("tok\nended 0");
    terminal.run(line);
    assert!(!terminal.expect("tok\nended 0").contains("PIN"));
    assert!(listed(&sandbox).contains("for pts/"), "{}", listed(&sandbox));
    terminal.tmux(&["new-window", "env PS1='second> ' bash --norc -i"]).ok();
    terminal.expect("second>");
    terminal.run(line);
    terminal.expect(PROMPT);
    terminal.press("Enter");
    terminal.expect("ended 125");
    // A program that leaves the terminal's session leaves its grant.
    terminal.tmux(&["previous-window"]).ok();
    terminal.run(&format!("setsid -w {line}"));
    terminal.expect("there is no way to ask");
    terminal.expect("ended 125");
    assert_eq!(sandbox.events("lent").len(), 2);
    // It ends with its terminal.
    terminal.run("exit");
    keyloan_e2e::eventually("the grant is over", || listed(&sandbox).is_empty());
}

#[test]
fn where_the_policy_wants_the_pin_nothing_is_offered_and_no_program_answers() {
    let sandbox = Sandbox::with_token(b"tok");
    let kept = sandbox.path("run/questions");
    sandbox.set_approver(approver::covering(&kept, "command"));
    sandbox.policy("env=ask-pin");
    let said = "the policy wants the PIN, which an approver program does not have";
    sandbox.with_secrets(&["--", "true"]).run().refused(125, said);
    let terminal = Terminal::open(&sandbox);
    for _ in 0..2 {
        terminal.run("with-secrets -- printenv TWINE_PASSWORD; echo ended $?");
        assert!(!terminal.expect(PROMPT).contains("PIN+"));
        terminal.type_text(&format!("{PIN}+c"));
        terminal.press("Enter");
        terminal.expect("That is not the PIN.");
        terminal.type_text(PIN);
        terminal.press("Enter");
        terminal.expect("tok\nended 0");
    }
    assert_eq!((approver::questions(&kept).len(), sandbox.events("granted").len()), (0, 0));
}

#[test]
fn a_window_shows_what_else_a_yes_may_cover_and_takes_it_behind_the_pin() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.policies(&[
        "approver.command=",
        "approver.pinentry=/usr/bin/pinentry-gtk-2",
        "grants=command 10m 20x terminal-1h",
    ]);
    sandbox.keyloan(&["lock"]).run().ok();
    let desktop = Desktop::open(&sandbox);
    let unlocking = desktop.on(sandbox.keyloan(&["unlock"])).start();
    desktop.window();
    desktop.answer(PASSPHRASE);
    finished(unlocking).ok();
    let three = "with-secrets --only TWINE_PASSWORD -- printenv TWINE_PASSWORD;".repeat(3);
    for (typed, scope) in [("c", "command"), ("10m", "10m"), ("20x", "20x")] {
        let asking = sandbox.command("/bin/sh", &["-c", &three]).as_job().start();
        let seen = desktop.window();
        if scope == "command" {
            crate::desktop::keep_picture(&desktop, &seen, "gtk-2-grants");
        }
        desktop.answer(&format!("{PIN}+{typed}"));
        assert_eq!(finished(asking).ok().text(), "tok\ntok\ntok\n");
        assert_eq!(sandbox.events("granted").last().unwrap()["scope"], scope);
    }
    assert_eq!(sandbox.events("granted").len(), 3);
}
