//! Rows 24 and 28: what is written down, and what is not.

use crate::attack;
use keyloan_e2e::Sandbox;
use std::fs;

fn rewrite(sandbox: &Sandbox, change: impl Fn(Vec<String>) -> Vec<String>) {
    let lines = fs::read_to_string(sandbox.log()).unwrap().lines().map(str::to_owned).collect();
    fs::write(sandbox.log(), change(lines).join("\n") + "\n").unwrap();
}

#[test]
fn an_edited_and_a_cut_log_are_found() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.with_secrets(&["--", "true"]).run().ok();
    sandbox.stop();
    let whole = fs::read_to_string(sandbox.log()).unwrap();
    // The undefended victim, any plain log: the edit leaves no trace in the file itself.
    rewrite(&sandbox, |lines| {
        lines.into_iter().map(|line| line.replace("TWINE_PASSWORD", "HARMLESS_NAME_")).collect()
    });
    assert!(!fs::read_to_string(sandbox.log()).unwrap().contains("TWINE_PASSWORD"));
    sandbox.unlock().ok();
    sandbox.keyloan(&["log", "--verify"]).run().refused(8, "was changed, or the record before it");
    sandbox.stop();

    fs::write(sandbox.log(), &whole).unwrap();
    rewrite(&sandbox, |lines| lines[..lines.len() - 3].to_vec());
    sandbox.unlock();
    let status = sandbox.status();
    let verified = sandbox.keyloan(&["log", "--verify"]).run();
    assert!(verified.status == 8 || status["vault"] == "locked", "{}{status}", verified.text());
}

/// Takes the last records away and puts as many of its own in their place: without the key, but each with a
/// chain value that is right for such a record.
const FORGER: &str = r#"
import hashlib, json, sys
path = sys.argv[1]
lines = open(path).read().splitlines()
kept = lines[:-4]
chain, last = bytes.fromhex(json.loads(kept[-1])["chain"]), json.loads(lines[-1])
for seq in range(len(kept) + 1, len(lines) + 1):
    body = json.dumps({"seq": seq, "time": last["time"], "counter": last["counter"], "keyed": False,
                       "event": "daemon_stopped"}, separators=(",", ":"))
    chain = hashlib.sha256(b"keyloan audit unkeyed v1" + chain + body.encode()).digest()
    kept.append(body[:-1] + ',"chain":"' + chain.hex() + '"}')
open(path, "w").write("\n".join(kept) + "\n")
"#;

#[test]
fn a_log_whose_end_was_replaced_by_as_many_records_is_found_and_stays_found() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.with_secrets(&["--", "true"]).run().ok();
    sandbox.stop();
    let lines = || fs::read_to_string(sandbox.log()).unwrap().lines().count();
    let before = lines();
    attack(&sandbox, FORGER, &[&sandbox.log().display().to_string()]).ok();
    // Whoever counts records sees nothing, and neither does whoever checks the chain without the vault.
    assert_eq!(lines(), before);
    sandbox.keyloan(&["log", "--verify"]).run().ok();
    sandbox.unlock().ok();
    let warned = || sandbox.status()["warnings"].to_string().contains("it was cut, replaced or put back");
    assert!(warned());
    let found = "says that the log before it was not what the vault remembered";
    // Locking writes the end of the log, as it is now, into the vault.
    sandbox.keyloan(&["lock"]).run().ok();
    sandbox.unlock().ok();
    assert!(warned());
    sandbox.stop();
    sandbox.unlock().ok();
    sandbox.keyloan(&["log", "--verify"]).run().refused(8, found);
    assert_eq!(sandbox.events("mismatched").len(), 1);
}

#[test]
fn a_log_that_cannot_be_written_means_that_nothing_is_lent() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.policy("env=allow");
    sandbox.with_secrets(&["--", "true"]).run().ok();
    sandbox.stop();
    // A limit on the size of files, as a full disk: a few records more, and the next does not fit.
    let blocks = (fs::metadata(sandbox.log()).unwrap().len() + 6 * 1024) / 512;
    let line = format!("ulimit -f {blocks}; exec keyloand run");
    let mut limited = sandbox.command("/bin/sh", &["-c", &line]).start();
    keyloan_e2e::eventually("the limited daemon listens", || sandbox.socket().exists());
    sandbox.unlock().ok();
    let lend = || sandbox.with_secrets(&["--", "printenv", "TWINE_PASSWORD"]).run();
    let mut lent = 0;
    let refused = loop {
        let done = lend();
        if done.status != 0 {
            break done;
        }
        lent += 1;
        assert!(lent < 100, "the log never filled up");
    };
    assert!(refused.stdout.is_empty());
    refused.refused(125, "without a record nothing is done");
    assert!(lend().stdout.is_empty(), "and it stays so");
    sandbox.keyloan(&["daemon", "stop"]).run();
    limited.wait().unwrap();
    sandbox.unlock().ok();
    assert_eq!(lend().ok().text(), "tok\n");
    sandbox.keyloan(&["log", "--verify"]).run().ok();
}

#[test]
fn every_loan_has_its_record_before_it() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.with_secrets(&["--", "true"]).run().ok();
    let text = fs::read_to_string(sandbox.log()).unwrap();
    let order: Vec<String> = text
        .lines()
        .filter_map(|line| {
            let record: serde_json::Value = serde_json::from_str(line).ok()?;
            Some(record["event"].as_str()?.to_owned())
        })
        .collect();
    let lent = order.iter().position(|event| event == "lent").unwrap();
    assert_eq!(order[lent - 3..=lent], ["requested", "decided", "approved", "lent"]);
}
