//! `.keyloan.toml` and what it refers to.

use keyloan_e2e::{Sandbox, approver};

fn refused(sandbox: &Sandbox, text: &str) -> String {
    sandbox.write("project/.keyloan.toml", text);
    sandbox.keyloan(&["trust"]).run().refused(2, ".keyloan.toml cannot be used").stderr
}

#[test]
fn faults_are_told_by_line_and_column_all_at_once_and_no_value_is_repeated() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    for (text, said) in [
        ("[env\n", vec!["line 1, column 5: not TOML"]),
        ("[env]\nA = \"x\"\nA = \"y\"\n", vec!["line 3, column 1: not TOML: duplicate key"]),
        ("[evn]\n", vec!["line 1, column 2: unknown key 'evn'; 'env'?"]),
        ("[sets.a.evn]\n", vec!["unknown key 'evn'; 'env'?"]),
        ("env = 1\n", vec!["line 1, column 7: env must be a table"]),
        (
            "[env]\n\"A-B\" = \"local://a/b\"\n1C = \"local://a/b\"\n",
            vec!["line 2, column 1", "line 3, column 1"],
        ),
        (
            "[env]\nA = \"hunter2\"\nB = { vaule = \"hunter2\" }\n",
            vec!["line 2, column 5", "'vaule'; 'value'?"],
        ),
        ("[env]\nA = { value = \"a\\u0000b\" }\n", vec!["no environment can carry a NUL"]),
        ("[files]\nA = \"hunter2\"\n", vec!["line 2, column 5: A: "]),
        ("[files]\nA = { value = \"hunter2\" }\n", vec!["as = \"path\" or as = \"dir\" is wanted"]),
        ("[files]\nLD_PRELOAD = \"local://a/b\"\n", vec!["no file may be lent in it"]),
    ] {
        let told = refused(&sandbox, text);
        for part in said {
            assert!(told.contains(part), "'{part}' is not in:\n{told}");
        }
        assert!(!told.contains("hunter2"), "{told}");
    }
    sandbox.write("project/.keyloan.toml", vec![b'#'; 65 * 1024]);
    sandbox.keyloan(&["trust"]).run().refused(2, "longer than 64 KiB");
    sandbox.write("project/.keyloan.toml", b"# \xff\n");
    sandbox.keyloan(&["trust"]).run().refused(2, "not UTF-8");
    assert!(sandbox.events("trust_changed").is_empty());
}

#[test]
fn references_that_lead_nowhere_are_all_told_at_once() {
    let sandbox = Sandbox::with_token(b"tok");
    let text = "[env]\nA = \"bw://a/b\"\nB = \"local://nowhere/b\"\nC = \"local://pypi/tokne\"\nD = \"local://pypi/token\"\n";
    sandbox.write("project/.keyloan.toml", text);
    sandbox.keyloan(&["trust"]).run().ok();
    let refused =
        sandbox.with_secrets(&["--", "true"]).run().refused(125, "not everything that is asked for");
    for part in [
        "A: bw://a/b: there is no vault 'bw' (there is: local)",
        "B: local://nowhere/b: there is no item 'nowhere'",
        "C: local://pypi/tokne: the item has no such field (it has: token)",
    ] {
        assert!(refused.stderr.contains(part), "'{part}' is not in:\n{}", refused.stderr);
    }
    assert!(sandbox.events("requested").iter().all(|event| event["names"][0] != "A"), "nobody is asked");
}

#[test]
fn a_vars_field_that_cannot_be_lent_says_which_line() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    for (vars, said) in [
        ("A=1\nhunter2\n", "line 2: there is no '='"),
        ("A=1\nA=2\n", "line 2: A is set twice"),
        ("a-b=hunter2\n", "line 1: a variable's name must be"),
        ("A=x\0y\n", "line 1: A holds a NUL"),
    ] {
        sandbox.keyloan(&["item", "set", "set", "vars"]).stdin(vars).run().ok();
        let refused = sandbox.with_secrets(&["-s", "set", "--", "true"]).run().refused(125, said);
        assert!(!refused.stderr.contains("hunter2"));
    }
}

#[test]
fn values_that_no_environment_can_carry_are_refused_by_name() {
    let sandbox = Sandbox::with_token(b"a\0b");
    sandbox.with_secrets(&["--", "true"]).run().refused(125, "not everything that is asked for can be lent");
    let failed = sandbox.events("failed");
    assert!(failed[0]["cause"].as_str().is_some());
    let big = vec![b'x'; 128 * 1024];
    sandbox.keyloan(&["item", "set", "pypi", "token"]).stdin(&big).run().ok();
    sandbox
        .with_secrets(&["--", "true"])
        .run()
        .refused(125, "the system passes at most 131056 in one variable");
    let most = vec![b'x'; 131_056];
    sandbox.keyloan(&["item", "set", "pypi", "token"]).stdin(&most).run().ok();
    let lent = sandbox.with_secrets(&["--", "sh", "-c", "printf %s \"$TWINE_PASSWORD\" | wc -c"]).run().ok();
    assert_eq!(lent.text(), "131056\n");
}

#[test]
fn a_link_in_place_of_the_file_is_refused() {
    let sandbox = Sandbox::with_token(b"tok");
    let real = sandbox.path("project/.keyloan.toml");
    let aside = sandbox.path("project/aside.toml");
    std::fs::rename(&real, &aside).unwrap();
    std::os::unix::fs::symlink(&aside, &real).unwrap();
    sandbox.with_secrets(&["--", "true"]).run().refused(125, "it is a symbolic link");
    sandbox.keyloan(&["trust"]).run().refused(2, "it is a symbolic link");
    sandbox.keyloan(&["trust", aside.to_str().unwrap()]).run().refused(2, "only a file named .keyloan.toml");
}

#[test]
fn a_change_too_long_to_be_shown_is_not_put_to_anybody() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let hidden = "# harmless\n".repeat(60) + "[env]\nSTOLEN = \"local://pypi/token\"\n";
    sandbox.write("project/.keyloan.toml", hidden);
    sandbox.keyloan(&["trust"]).run().refused(2, "more new lines than one question can show");
    assert!(sandbox.events("requested").is_empty());
}

#[test]
fn a_line_that_would_be_cut_in_the_middle_is_not_put_to_anybody() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let padding = "harmless ".repeat(50);
    let hidden = format!("[env]\nA = {{ value = \"{padding}\" }}\n# {padding}stolen{padding}\n");
    sandbox.write("project/.keyloan.toml", hidden);
    sandbox.keyloan(&["trust"]).run().refused(6, "'content' has more than 700 characters");
    sandbox.write("project/.keyloan.toml", "[env]\nA = { value = \"a\" }\n");
    sandbox.keyloan(&["trust"]).run().ok();
}

fn kept_lines(file: &std::path::Path) -> Vec<(String, String)> {
    let question: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let word = |line: &serde_json::Value, key: &str| line[key].as_str().unwrap().to_owned();
    question["lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| (word(line, "label"), word(line, "text")))
        .collect()
}

#[test]
fn every_variable_of_a_long_list_is_shown_with_its_origin_or_nobody_is_asked() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    for (item, count) in [("some", 40), ("many", 200)] {
        let vars: Vec<String> = (0..count).map(|number| format!("VARIABLE_{number}=x")).collect();
        sandbox.keyloan(&["item", "set", item, "vars"]).stdin(vars.join("\n")).run().ok();
    }
    let kept = sandbox.path("project/question");
    sandbox.set_approver(approver::recording(&kept));
    let show = ["--", "printenv", "VARIABLE_39"];
    assert_eq!(sandbox.with_secrets(&[&["-s", "some"], &show[..]].concat()).run().ok().text(), "x\n");
    let lines = kept_lines(&kept);
    for number in 0..40 {
        let text = format!("VARIABLE_{number}  from local://some/vars, item 'some'");
        assert!(lines.contains(&("lends".to_owned(), text)), "{lines:?}");
    }
    for label in ["to", "command", "asked by"] {
        assert!(lines.iter().any(|(held, _)| held == label), "{lines:?}");
    }
    std::fs::remove_file(&kept).unwrap();
    let refused = sandbox.with_secrets(&[&["-s", "many"], &show[..]].concat()).run();
    refused
        .refused(125, "not all that a yes would allow can be shown in one question")
        .refused(125, "--only");
    assert!(!kept.exists() && sandbox.events("decided").last().unwrap()["decision"] == "declined");
    let only = [&["-s", "many", "--only", "VARIABLE_39"], &show[..]].concat();
    assert_eq!(sandbox.with_secrets(&only).run().ok().text(), "x\n");
}

#[test]
fn a_set_that_is_named_again_and_again_is_told_once() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    sandbox.keyloan(&["item", "set", "web", "vars"]).stdin("A=1\nLD_PRELOAD=/x\n").run().ok();
    let kept = sandbox.path("project/question");
    sandbox.set_approver(approver::recording(&kept));
    let mut arguments = ["-s", "web"].repeat(60);
    arguments.extend(["--", "printenv", "A"]);
    sandbox.with_secrets(&arguments).run().ok();
    let lines = kept_lines(&kept);
    assert_eq!(lines.iter().filter(|(label, _)| label == "note").count(), 1, "{lines:?}");
    assert!(lines.iter().any(|(label, _)| label == "asked by"), "{lines:?}");
}
