//! Sets in linked vaults: which vault's answer counts, and what happens where one does not answer. The vaults are doubles:
//! a script of the test's each.

use keyloan_e2e::sandbox::Output;
use keyloan_e2e::{PASSPHRASE, Sandbox, approver};
use std::path::{Path, PathBuf};

/// Links a vault that has these titles, each with this `vars`; where the file `run/NAME` is, its listing is done by
/// what that says.
fn link(sandbox: &Sandbox, name: &str, titles: &[&str], vars: &str) {
    let fails = sandbox.path(&format!("run/{name}"));
    let titles = titles.iter().map(|title| format!(" '{title}'")).collect::<Vec<_>>().concat();
    let script = format!(
        "#!/bin/sh\n[ \"$1\" != list ] || [ ! -e {0} ] || . {0}\n\
         case $1 in list) printf '%s\\n'{titles};; *) echo '{vars}';; esac\n",
        fails.display()
    );
    let program = sandbox.write_program(&format!("home/{name}"), script);
    let setting = format!("program={}", program.display());
    let add = ["vault", "add", name, "--kind", "command", "--search", &setting, "list=list"];
    sandbox.keyed(PASSPHRASE, &[&add[..], &["--passphrase-fd", "3"]].concat()).run().ok();
}

fn fail(sandbox: &Sandbox, name: &str, how: &str) {
    sandbox.write(&format!("run/{name}"), how);
}

/// `~/work/deep`.
fn below(sandbox: &Sandbox) -> PathBuf {
    sandbox.make_directory("home/work");
    sandbox.make_directory("home/work/deep")
}

fn lent(sandbox: &Sandbox, at: &Path, sets: &[&str]) -> Output {
    sandbox.with_secrets(&[sets, &["--", "printenv", "A"]].concat()).within(at).run()
}

#[test]
fn a_nearer_set_in_a_vault_that_does_not_answer_is_not_overruled_by_a_farther_one() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    link(&sandbox, "one", &["~/work/deep"], "A=near");
    sandbox.keyloan(&["item", "set", "~/work", "vars"]).stdin("A=far\n").run().ok();
    let deep = below(&sandbox);
    assert_eq!(lent(&sandbox, &deep, &[]).ok().text(), "near\n");
    fail(&sandbox, "one", "exit 3");
    let refused = lent(&sandbox, &deep, &[]).refused(125, "one: ");
    assert!(refused.stderr.contains("keyloan vault add --replace one --no-search"), "{}", refused.stderr);
    assert_eq!(sandbox.events("lent").len(), 1);
    // Its answer decides nothing where the directory itself has a set.
    assert_eq!(lent(&sandbox, &sandbox.path("home/work"), &[]).ok().text(), "far\n");
    let leave_out = ["vault", "add", "--replace", "one", "--no-search", "--passphrase-fd", "3"];
    sandbox.keyed(PASSPHRASE, &leave_out).run().ok();
    assert_eq!(lent(&sandbox, &deep, &[]).ok().text(), "far\n");
}

#[test]
fn a_set_of_a_vault_that_does_not_answer_is_not_taken_from_another_vault() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let deep = below(&sandbox);
    link(&sandbox, "one", &["~/work/deep", "set"], "A=1");
    link(&sandbox, "two", &["~/work/deep", "set", "other"], "A=2");
    fail(&sandbox, "one", "exit 3");
    lent(&sandbox, &deep, &[]).refused(125, "one: ");
    lent(&sandbox, &deep, &["-s", "set"]).refused(125, "one: ");
    lent(&sandbox, &deep, &["-s", "other"]).refused(125, "one: ");
    assert!(sandbox.events("lent").is_empty() && sandbox.events("decided").is_empty());
}

#[test]
fn a_vault_whose_answer_decides_nothing_neither_stops_a_loan_nor_is_mentioned() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let deep = below(&sandbox);
    link(&sandbox, "one", &["~/work/deep", "set"], "A=1");
    link(&sandbox, "two", &["~/work"], "A=2");
    for how in ["exit 3", "exec sleep 1000"] {
        fail(&sandbox, "two", how);
        for sets in [&[][..], &["-s", "set"]] {
            let lent = lent(&sandbox, &deep, sets).ok();
            assert_eq!(
                (lent.text().as_str(), lent.stderr.contains("two")),
                ("1\n", false),
                "{}",
                lent.stderr
            );
        }
    }
    lent(&sandbox, &deep, &["-s", "elsewhere"]).refused(125, "two: it did not answer in time");
}

#[test]
fn a_set_of_the_file_that_a_linked_vault_has_too_is_an_error_that_names_both() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    link(&sandbox, "one", &["staging", "~/coverage"], "A=1");
    sandbox.write("project/.keyloan.toml", "[sets.staging.env]\nA = { value = \"of the file\" }\n");
    sandbox.keyloan(&["trust"]).run().ok();
    let project = sandbox.path("project");
    let refused = lent(&sandbox, &project, &["-s", "staging"]).refused(125, "'staging' is a set of ");
    for named in [".keyloan.toml", "one"] {
        assert!(refused.stderr.contains(named), "{}", refused.stderr);
    }
    assert!(sandbox.events("lent").is_empty());
    // Without an answer the file counts, which somebody trusted. Of the vault no more is told than its name and how it is.
    fail(&sandbox, "one", "exit 3");
    let kept = sandbox.path("run/kept");
    sandbox.set_approver(approver::keeping(&kept));
    let lent = lent(&sandbox, &project, &["-s", "staging"]).ok();
    assert_eq!(lent.text(), "of the file\n");
    assert!(lent.stderr.contains("not searched: one (refused)\n"), "{}", lent.stderr);
    approver::questions(&kept)[0].says("note", "not searched: one (refused)", "verified");
}

#[test]
fn a_set_is_named_by_its_directory_as_a_shell_writes_that() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    link(&sandbox, "one", &["~/coverage"], "A=1");
    let whole = sandbox.path("home/coverage");
    let project = sandbox.path("project");
    assert_eq!(lent(&sandbox, &project, &["-s", whole.to_str().unwrap()]).ok().text(), "1\n");
}
