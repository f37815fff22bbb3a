//! How long a shell keeps what it is lent, and what stands in the way of its being set or taken out.

use keyloan_e2e::shell::{BASH, CANARY, FISH, SHELLS, ZSH, markers, until_unmarked, with_sets};
use keyloan_e2e::{Running, Sandbox, eventually};

/// Of the only loan.
fn seconds_left(sandbox: &Sandbox) -> u64 {
    let loans = sandbox.keyloan(&["loans", "--json"]).run().ok();
    let loans: serde_json::Value = serde_json::from_slice(&loans.stdout).unwrap();
    assert_eq!(loans.as_array().unwrap().len(), 1, "{loans}");
    loans[0]["seconds_left"].as_u64().unwrap()
}

#[test]
fn a_set_that_says_no_time_is_not_lent_for_another_sets() {
    let sandbox = with_sets();
    let terminal = BASH.opened(&sandbox);
    for (ask, most) in [
        ("opvars long", 4 * 3600),
        ("opvars long second", 900),
        ("opvars second long", 900),
        ("opvars long '~/titled'", 900),
        ("opvars long second --for 3h", 3 * 3600),
    ] {
        terminal.run(&format!("{ask}; echo en''ded"));
        terminal.expect("\nended\n");
        let left = seconds_left(&sandbox);
        assert!((most - 100..=most).contains(&left), "{ask}: {left}");
        terminal.run("unopvars; echo ba''ck");
        terminal.expect("\nback\n");
        eventually("it is back", || {
            sandbox.keyloan(&["loans"]).run().ok().stderr.contains("nothing is lent")
        });
    }
}

#[test]
fn a_shell_that_follows_another_knows_the_directory_that_ends_its_loan() {
    for (from, to) in [(&BASH, &ZSH), (&ZSH, &FISH), (&FISH, &BASH)] {
        let sandbox = with_sets();
        to.set_up(&sandbox, "", "");
        let terminal = from.opened(&sandbox);
        terminal.run("opvars; opvars here");
        terminal.expect("\nset: HERE\nstill set: PLAIN TOKEN\n");
        // The one becomes the other, and that has a child.
        terminal.run(&format!("exec {}", to.command()));
        terminal.expect("ready>");
        terminal.run(&to.command());
        terminal.expect("ready>");
        terminal.run("printenv HERE");
        terminal.expect(&format!("\n{CANARY}\n"));
        for _ in 0..2 {
            terminal.run("cd /");
            terminal.expect("keyloan: removed: HERE (this shell left ");
            terminal.run("printenv HERE || printenv TOKEN");
            terminal.expect(&format!("\n{CANARY}\n"));
            terminal.run("exit");
        }
    }
}

#[test]
fn a_directory_whose_name_could_be_a_line_of_a_loan_ends_it_sooner_at_worst() {
    let sandbox = with_sets();
    let set = "[env]\nHERE = { value = \"x\" }\n[shell]\nuntil-leaving = true\n";
    for (at, stays) in [("tab\tname", true), ("line\nname", false)] {
        sandbox.make_directory(&format!("project/{at}"));
        sandbox.write(&format!("project/{at}/.keyloan.toml"), set);
        for shell in &SHELLS {
            shell.set_up(&sandbox, "", "");
            let terminal = shell.open(&sandbox);
            let typed = at.replace(['\t', '\n'], "*");
            terminal.run(&format!("cd {typed}; keyloan trust; opvars"));
            terminal.expect("\nset: HERE\n");
            terminal.run(&shell.command());
            terminal.expect("ready>");
            terminal.press("Enter");
            if !stays {
                terminal.expect("removed: HERE (this shell left");
            }
            terminal.run("echo \"<$HERE>\"");
            terminal.expect(if stays { "\n<x>\n" } else { "\n<>\n" });
        }
    }
}

#[test]
fn a_loan_that_the_shell_never_takes_ends() {
    let sandbox = with_sets();
    for (line, why) in [
        // What cannot be handed over.
        ("{ sleep 1; exec keyloan shell-lend; } | true; exec sleep 100", "the shell did not take it"),
        // Somebody killed the client or interrupted the shell in the middle.
        ("keyloan shell-lend | head -c 40 >/dev/null; exec sleep 100", "the shell did not take it"),
    ] {
        let mut shell = Running(sandbox.command("/bin/sh", &["-c", line]).start());
        eventually(why, || {
            sandbox.keyloan(&["loans"]).run();
            sandbox.events("loan_ended").iter().any(|event| event["why"] == why)
        });
        until_unmarked(&sandbox);
        shell.end();
    }
    for shell in &SHELLS {
        let terminal = shell.opened(&sandbox);
        terminal.run("opvars");
        terminal.expect("\nset: PLAIN TOKEN\n");
        let marker = format!("run/keyloan/shells/{}.has", markers(&sandbox)[0]);
        assert!(sandbox.path(&marker).exists(), "{marker}");
        drop(terminal);
        until_unmarked(&sandbox);
        eventually("nothing of it is left", || !sandbox.path(&marker).exists());
    }
}

#[test]
fn a_variable_that_has_become_read_only_is_not_said_to_be_removed() {
    for shell in [&BASH, &ZSH] {
        let sandbox = with_sets();
        let terminal = shell.opened(&sandbox);
        terminal.run("opvars; opvars second; readonly TOKEN SECOND");
        terminal.expect("\nset: SECOND\nstill set: PLAIN TOKEN\n");
        terminal.run("unopvars; echo en''ded $?");
        let shown = terminal.expect("\nended 1\n");
        assert!(shown.contains("keyloan: cannot remove TOKEN: it is read-only"), "{shown}");
        assert!(shown.contains("\nremoved: PLAIN\n"), "{shown}");
        terminal.run("printenv TOKEN KEYLOAN_PROMPT");
        terminal.expect(&format!("\n{CANARY}\n**\n"));
        assert_eq!(markers(&sandbox).len(), 2, "it has something of both");
        sandbox.keyloan(&["recall", "--all"]).run().ok();
        terminal.press("Enter");
        let shown = terminal.expect("keyloan: cannot remove SECOND: it is read-only");
        assert!(!shown.contains("removed: "), "{shown}");
        let told = sandbox.keyloan(&["loans"]).run().ok().text();
        assert!(told.contains(&format!("(/usr/bin/{})", shell.name)), "the shell has it still: {told}");
        // Once is enough.
        terminal.run("unopvars SECOND; echo en''ded $?");
        terminal.expect("\nended 1\n");
        terminal.run("true");
        assert!(!terminal.expect("ready>").contains("cannot remove"));
    }
}

#[test]
fn a_variable_of_a_function_that_runs_is_neither_set_nor_taken_for_what_was_lent() {
    let sandbox = with_sets();
    for (shell, function, other) in [
        (
            &ZSH,
            "f() { local TOKEN=mine; opvars; echo \"$? $TOKEN\"; }",
            "g() { local TOKEN=mine; unopvars; echo \"$? $TOKEN\"; }",
        ),
        (&FISH, "function f; set -l TOKEN mine; begin; opvars; echo $status $TOKEN; end; end", ""),
    ] {
        let output =
            shell.script(&sandbox, &format!("{function}\nf a b\nprintenv TOKEN\nopvars\nprintenv TOKEN\n"));
        assert!(output.stderr.contains("keyloan: cannot set TOKEN in this shell"), "{output:?}");
        assert_eq!(output.text(), format!("2 mine\nset: PLAIN TOKEN\n{CANARY}\n"));
        if !other.is_empty() {
            let output = shell.script(&sandbox, &format!("opvars\n{other}\ng\nprintenv TOKEN; unopvars"));
            assert!(output.stderr.contains("keyloan: cannot remove TOKEN: a function"), "{output:?}");
            let told = format!("set: PLAIN TOKEN\nremoved: PLAIN\n1 mine\n{CANARY}\nremoved: TOKEN\n");
            assert_eq!(output.text(), told);
        }
    }
}

#[test]
fn a_loan_for_a_directory_ends_though_another_one_goes_on() {
    let sandbox = with_sets();
    sandbox.make_directory("project/below");
    sandbox.make_directory("project/other");
    std::os::unix::fs::symlink(sandbox.path("project/other"), sandbox.path("home/link")).unwrap();
    let set = "[env]\nBELOW = { value = \"x\" }\n[shell]\nuntil-leaving = true\n";
    sandbox.write("project/below/.keyloan.toml", set);
    for shell in &SHELLS {
        let terminal = shell.opened(&sandbox);
        terminal.run("opvars here; cd below; keyloan trust; opvars");
        terminal.expect("\nset: BELOW\nstill set: HERE\n");
        // A link into the directory of the one, and not of the other.
        terminal.run("cd ~/link");
        terminal.expect("keyloan: removed: BELOW (this shell left ");
        terminal.run("printenv BELOW; printenv HERE");
        terminal.expect(&format!("HERE\n{CANARY}\n"));
        terminal.run("cd ..");
        terminal.expect("keyloan: removed: HERE (this shell left ");
    }
}

#[test]
fn bash_knows_names_by_their_case_whatever_it_compares_without() {
    let sandbox = with_sets();
    let set =
        "[env]\nName = { value = \"one\" }\nNAME = { value = \"two\" }\n[shell]\nuntil-leaving = true\n";
    sandbox.write("project/.keyloan.toml", set);
    sandbox.keyloan(&["trust"]).run().ok();
    let upper = sandbox.path("PROJECT");
    sandbox.make_directory("PROJECT");
    BASH.set_up(&sandbox, "shopt -s nocasematch", "");
    let terminal = BASH.open(&sandbox);
    terminal.run("opvars; printenv Name NAME");
    terminal.expect("\nset: NAME Name\none\ntwo\n");
    terminal.run("opvars --only Name; unopvars NAME; echo \"<$Name> <$NAME>\"; shopt nocasematch");
    let shown = terminal.expect("\nset: Name\nstill set: NAME\nremoved: NAME\n<one> <>\n");
    assert!(shown.contains("nocasematch    \ton") || shown.contains("on\n"), "{shown}");
    terminal.run(&format!("cd {}", upper.display()));
    terminal.expect("keyloan: removed: Name (this shell left ");
}

#[test]
fn what_a_shell_exports_of_itself_makes_no_loan_of_a_child() {
    let sandbox = with_sets();
    for (shell, all) in [(&BASH, "set -a"), (&ZSH, "setopt all_export")] {
        shell.set_up(&sandbox, all, "");
        let terminal = shell.open(&sandbox);
        terminal.run("opvars");
        terminal.expect("\nset: PLAIN TOKEN\n");
        terminal.run(&shell.command());
        let shown = terminal.expect("ready>");
        terminal.run("opvars second; unopvars");
        terminal.expect("\nset: SECOND\nstill set: PLAIN TOKEN\nremoved: PLAIN SECOND TOKEN\n");
        assert!(!shown.contains("removed"), "{shown}");
    }
}

#[test]
fn a_variable_of_two_sets_is_the_later_ones_and_gets_back_what_it_had_before_both() {
    let sandbox = with_sets();
    for shell in &SHELLS {
        let terminal = shell.opened(&sandbox);
        terminal.run(&shell.export("TOKEN", "before"));
        terminal.run("opvars; opvars again; printenv TOKEN");
        terminal.expect("\nset: TOKEN\nstill set: PLAIN\nzwei\n");
        let loans = sandbox.keyloan(&["loans", "--json"]).run().ok();
        let loans: serde_json::Value = serde_json::from_slice(&loans.stdout).unwrap();
        let ids = loans
            .as_array()
            .unwrap()
            .iter()
            .map(|loan| loan["loan"].as_u64().or(loan["id"].as_u64()).unwrap());
        sandbox.keyloan(&["recall", &ids.max().unwrap().to_string()]).run().ok();
        terminal.press("Enter");
        terminal.expect("keyloan: removed: TOKEN (recalled)");
        terminal.run("printenv TOKEN; unopvars");
        terminal.expect("\nbefore\nremoved: PLAIN\n");
    }
}
