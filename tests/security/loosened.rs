//! Rows 11, 16c and 20, and invariant 2: answering for oneself, and rules that come back behind one's back.

use crate::attack;
use keyloan_e2e::programs::needed;
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{PASSPHRASE, PIN, Running, Sandbox, approver, eventually, wire};

const PROMPT: &str = "PIN to allow, Enter alone to decline:";

/// Gives out the token where its rules, a plain file, allow it.
const LENDER: &str = "#!/bin/sh\ngrep -qx 'item.read=allow' \"$HOME/rules\" && echo tok\n";

#[test]
fn a_policy_of_an_older_day_is_not_taken_back() {
    let sandbox = Sandbox::with_token(b"tok");
    let get = || sandbox.keyloan(&["item", "get", "pypi", "token"]).run();
    let lender = sandbox.write_program("lender", LENDER);
    let lend = || sandbox.command(&lender, &[""; 0]).run().text();
    let shell = |line: &str| sandbox.command("/bin/sh", &["-c", line]).run().ok();
    sandbox.write("home/rules", "item.read=allow\n");
    sandbox.policies(&["item.read=allow", "approver.command="]);
    assert_eq!((get().text(), lend()), ("tok".to_owned(), "tok\n".to_owned()));
    // What the attacker keeps of that day.
    sandbox.keyloan(&["lock"]).run().ok();
    shell("cp -a ~/rules ~/rules.old && cp -a ~/.local/share/keyloan/vault ~/vault.old");
    sandbox.unlock().ok();
    sandbox.write("home/rules", "item.read=deny\n");
    sandbox.policies(&["item.read=deny"]);
    get().refused(5, "item.read=deny");
    assert_eq!(lend(), "");

    shell("cp -a ~/rules.old ~/rules");
    assert_eq!(lend(), "tok\n", "the victim takes it back");
    let vault = "~/.local/share/keyloan/vault";
    sandbox.stop();
    shell(&format!("mv {vault} ~/vault.new && cp -a ~/vault.old {vault}"));
    sandbox.unlock().refused(7, "the vault is older than its log");
    assert_ne!(get().text(), "tok");
    shell(&format!("rm -r {vault} && mv ~/vault.new {vault}"));
    // Those files alone that are named otherwise now: an old change, or an old revision, beside what came after it.
    shell(&format!("cp -an ~/vault.old/. {vault}/"));
    sandbox.unlock().ok();
    get().refused(5, "item.read=deny");
    // Whoever has it open goes by what it has read.
    shell(&format!("rm -r {vault} && cp -a ~/vault.old {vault}"));
    get().refused(5, "item.read=deny");
}

/// An agent that asks, and takes the answer from whoever connects and says it.
const AGENT: &str = r#"
import os, socket, sys, threading
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()
answered = threading.Event()
def serve(c):
    said = c.recv(100)
    if said.startswith(b"allow"): answered.set()
    elif said.startswith(b"lend"): answered.wait(); c.sendall(b"the token")
while True: threading.Thread(target=serve, args=(s.accept()[0],)).start()
"#;

const SAY: &str = r"
import socket, sys
s = socket.socket(socket.AF_UNIX); s.settimeout(20); s.connect(sys.argv[1]); s.sendall(sys.argv[2].encode())
print(s.recv(100).decode())
";

#[test]
fn an_approver_that_nobody_enrolled_answers_nothing() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.policy("approver.command=");
    let agent = sandbox.path("run/agent").display().to_string();
    let _agent = Running(sandbox.command(needed("python3"), &["-c", AGENT, &agent]).start());
    eventually("the agent listens", || std::path::Path::new(&agent).exists());
    let victim = sandbox.command(needed("python3"), &["-c", SAY, &agent, "lend"]).start();
    attack(&sandbox, SAY, &[&agent, "allow 1"]);
    assert_eq!(keyloan_e2e::sandbox::finished(victim).ok().text(), "the token\n");

    let terminal = Terminal::open(&sandbox);
    terminal.run("with-secrets -- printenv TWINE_PASSWORD; echo ended $?");
    terminal.expect(PROMPT);
    for body in [
        r#"{"approve":{"request":1}}"#,
        r#"{"answer":{"request":1,"decision":"allow"}}"#,
        r#"{"decide":{"request":1,"decision":"allow","scope":"once"}}"#,
        r#"{"allow":1}"#,
        r#""approve""#,
        r#""enrolled""#,
    ] {
        wire::exchange(&sandbox, &wire::frame(&format!(r#"{{"version":1,"body":{body}}}"#), b""));
    }
    // What a reply of the daemon, or the PIN as a value, looks like.
    let header =
        format!(r#"{{"version":1,"body":"approve","values":[{{"name":"pin","length":{}}}]}}"#, PIN.len());
    wire::exchange(&sandbox, &wire::frame(&header, PIN.as_bytes()));
    assert_eq!(sandbox.status()["pending"], 1, "{}", terminal.screen());
    terminal.press("Enter");
    terminal.expect("ended 125");
    assert!(sandbox.events("lent").is_empty() && sandbox.events("approver_enrolled").is_empty());
}

#[test]
fn a_rule_that_is_set_while_another_change_is_looked_at_stays() {
    let sandbox = Sandbox::with_token(b"tok");
    // Long, so that its hash takes a while; what is behind `exit` nobody runs.
    let long = format!("{}exit 0\n{}", approver::ALLOW, "#".repeat(24 * 1024 * 1024));
    let path = sandbox.set_approver(long);
    let same = format!("approver.command={}", path.display());
    for round in 0..40 {
        let settings = [&same, &format!("env[item=j{round}]=deny")];
        let arguments = ["policy", "set", settings[0], settings[1], "--passphrase-fd", "3"];
        let setting = sandbox.keyed(PASSPHRASE, &arguments).start();
        std::thread::sleep(std::time::Duration::from_millis(5 * (1 + round % 20)));
        let rule = format!("env[item=i{round}]=deny");
        sandbox.policy(&rule);
        let set = keyloan_e2e::sandbox::finished(setting);
        let shown = sandbox.keyloan(&["policy", "show"]).run().ok().text();
        assert!(shown.contains(&rule), "it was taken back: {shown}");
        if set.status != 0 {
            set.refused(2, "the policy was changed meanwhile");
            return;
        }
    }
    panic!("never was one set while the other was looked at");
}

#[test]
fn what_waits_is_judged_by_the_rules_of_when_its_turn_comes() {
    let sandbox = Sandbox::with_token(b"tok");
    let go = sandbox.path("run/go");
    // The undefended victim asks by the rule of when the request came: here that of a patient program.
    sandbox.set_approver(approver::patient(&go));
    let first = sandbox.with_secrets(&["--", "true"]).start();
    eventually("one is asked", || sandbox.status()["pending"] == 1);
    let waiting = sandbox.with_secrets(&["--", "printenv", "TWINE_PASSWORD"]).start();
    eventually("the other waits", || sandbox.status()["pending"] == 2);
    sandbox.policy("env=deny");
    std::fs::write(&go, "").unwrap();
    keyloan_e2e::sandbox::finished(first).refused(125, "while the question stood");
    keyloan_e2e::sandbox::finished(waiting).refused(125, "env=deny");
    assert!(sandbox.events("lent").is_empty());
}

#[test]
fn a_program_that_answers_is_not_passed_by_with_a_stricter_rule() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.set_approver(approver::DENY);
    // Where no program is asked the PIN allows, and that may have been seen by whoever reads the keys.
    let stricter = ["policy", "set", "env=ask-pin"];
    sandbox.keyloan(&stricter).run().refused(6, "there is no way to ask");
    let particular = ["policy", "set", "env[item=pypi]=ask-pin"];
    sandbox.keyloan(&particular).run().refused(6, "there is no way to ask");
    sandbox.policy("approver.command=");
    sandbox.keyloan(&stricter).run().ok();
}

#[test]
fn a_question_that_stood_through_a_lock_or_a_tighter_policy_is_answered_by_nobody() {
    for meanwhile in [&["lock"][..], &["policy", "set", "grants="], &["policy", "set", "env=deny"]] {
        let sandbox = Sandbox::with_token(b"tok");
        sandbox.policies(&["approver.command=", "grants=command"]);
        let terminal = Terminal::open(&sandbox);
        terminal.run("sh -c 'with-secrets -- true; echo ended $?; sleep 1000'");
        terminal.expect(PROMPT);
        sandbox.keyloan(meanwhile).run().ok();
        terminal.type_text(&format!("{PIN}+c"));
        terminal.press("Enter");
        terminal.expect("ended 125");
        assert!(terminal.screen().contains("while the question stood"), "{}", terminal.screen());
        sandbox.unlock().ok();
        assert!(sandbox.events("lent").is_empty());
        assert_eq!(sandbox.keyloan(&["grants", "--json"]).run().ok().text().matches("holder").count(), 0);
        assert!(sandbox.events("granted").is_empty(), "{meanwhile:?}");
    }
}
