//! How much linked vaults may answer. The vaults are doubles: a script of the test's each.

use keyloan_e2e::{PASSPHRASE, Sandbox, approver};
use std::fs;

fn link(sandbox: &Sandbox, script: &str, more: &[&str]) {
    let program = sandbox.write_program("home/vault-program", format!("#!/bin/sh\n{script}\n"));
    let setting = format!("program={}", program.display());
    let add = ["vault", "add", "any", "--kind", "command", &setting, "--passphrase-fd", "3"];
    sandbox.keyed(PASSPHRASE, &[&add[..], more].concat()).run().ok();
}

#[test]
fn a_set_of_more_variables_than_one_loan_holds_is_read_no_further() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let vars = (0..120_000).map(|at| format!("A{at}=\n")).collect::<Vec<_>>().concat();
    assert!(vars.len() < 1024 * 1024);
    // Behind so many names not even a fault is found.
    let vars = sandbox.write("home/vars", format!("{vars}no variable"));
    let script = format!("[ $1 = list ] && echo big || cat {}", vars.display());
    link(&sandbox, &script, &["list=list", "--search"]);
    let run = sandbox.with_secrets(&["-s", "big", "--", "true"]).run();
    run.refused(125, "line 1025: more than 1024 variables");
    assert!(sandbox.events("lent").is_empty());
    let stored = sandbox.keyloan(&["item", "set", "own", "vars"]).stdin(fs::read(&vars).unwrap()).run();
    stored.ok();
    let run = sandbox.with_secrets(&["-s", "own", "--", "true"]).run();
    run.refused(125, "line 1025: more than 1024 variables");
}

#[test]
fn sets_of_more_variables_together_than_one_loan_holds_are_refused() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    // What steers is left out, and each time a sentence says so: they count as well.
    let script = "[ $1 != list ] || { seq 3; exit; }; echo OK$2=; seq -f \"PIP_X$1_%g=\" 500";
    link(&sandbox, script, &["list=list", "--search"]);
    let run = sandbox.with_secrets(&["-s", "1", "-s", "2", "-s", "3", "--", "true"]).run();
    run.refused(125, "one loan holds at most 1024");
    assert!(sandbox.events("lent").is_empty());
}

#[test]
fn values_that_are_too_much_together_are_refused_before_anything_is_lent() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    link(&sandbox, "head -c 1000000 /dev/zero", &[]);
    let lines = |item: &dyn Fn(usize) -> usize| {
        (0..8).map(|at| format!("F{at} = \"any://{}/f\"\n", item(at))).collect::<Vec<_>>().concat()
    };
    // Of eight items, and of one that is lent eight times.
    for lines in [lines(&|at| at), lines(&|_| 1)] {
        sandbox.write("project/.keyloan.toml", format!("[files]\n{lines}"));
        sandbox.keyloan(&["trust"]).run().ok();
        sandbox.with_secrets(&["--", "true"]).run().refused(125, "one loan holds at most 7340032");
    }
    assert_eq!((sandbox.events("lent").len(), sandbox.events("failed").len()), (0, 2));
}

#[test]
fn a_program_is_run_no_further_than_to_what_one_request_can_have() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let runs = sandbox.path("run/runs");
    link(&sandbox, &format!("echo run >>{}\nhead -c 1000000 /dev/zero", runs.display()), &[]);
    let lines = (0..40).map(|at| format!("F{at} = \"any://{at}/f\"\n")).collect::<Vec<_>>().concat();
    sandbox.write("project/.keyloan.toml", format!("[files]\n{lines}"));
    sandbox.keyloan(&["trust"]).run().ok();
    sandbox.with_secrets(&["--", "true"]).run().refused(125, "one request has at most 8388608");
    assert_eq!(fs::read_to_string(runs).unwrap().lines().count(), 12, "three rounds of four");
}

#[test]
fn an_item_of_more_fields_than_one_reply_holds_is_shown_whole() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    // A slash is three characters in a reference.
    let field =
        |at: usize| format!("<String><Key>{at:04}{}</Key><Value>x</Value></String>\n", "/".repeat(240));
    let fields = (0..1500).map(field).collect::<Vec<_>>().concat();
    let title = "<String><Key>Title</Key><Value>big</Value></String>";
    let entry = format!("<Entry><UUID>AAAAAAAAAAAAAAAAAAAABg==</UUID>{title}{fields}</Entry>\n");
    let database = keyloan_e2e::keepass::made(&sandbox, "keys.kdbx", &entry, "pw\n", &[]);
    keyloan_e2e::keepass::link(&sandbox, &database, "pw", &[]).ok();
    let shown = sandbox.keyloan(&["item", "show", "keys://big"]).run().ok().text();
    assert_eq!(shown.matches("%2F%2F\n").count(), 1500);
    assert_eq!(shown.matches("keys://big\n").count(), 1);
}

#[test]
fn a_vault_of_more_names_than_one_reply_holds_is_listed_whole() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    sandbox.make_directory("home/.password-store");
    let store = keyloan_e2e::pass::Store::new(&sandbox);
    // Quotes are two characters each in what is sent.
    let long = "\"".repeat(240);
    for at in 0..1500 {
        sandbox.write(&format!("home/.password-store/{at:04}{long}.gpg"), "");
    }
    store.link();
    let listed = sandbox.keyloan(&["item", "list", "--vault", "pass", "--references"]).run().ok().text();
    assert_eq!(listed.lines().count(), 3000);
    assert!(listed.lines().last().unwrap().starts_with("pass://1499\"\""));
}

#[test]
fn a_vault_that_is_named_often_is_tried_once_and_no_more_names_are_taken_than_there_can_be_vaults() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let runs = sandbox.path("run/runs");
    link(&sandbox, &format!("echo run >>{}", runs.display()), &["test=x"]);
    fs::remove_file(&runs).unwrap();
    let often = [&["vault", "test"][..], &["any"; 300], &["local"; 300]].concat();
    let tried = sandbox.keyloan(&often).run().ok().text();
    assert_eq!(fs::read_to_string(&runs).unwrap(), "run\n");
    assert_eq!(tried.lines().count(), 2, "{tried}");
    let names: Vec<String> = (0..18).map(|at| format!("v{at}")).collect();
    let many: Vec<&str> = ["vault", "test"].into_iter().chain(names.iter().map(String::as_str)).collect();
    sandbox.keyloan(&many).run().refused(2, "at most 17 vaults");
    sandbox.keyloan(&["vault", "test", "any", "none"]).run().refused(1, "there is no vault 'none'");
}
