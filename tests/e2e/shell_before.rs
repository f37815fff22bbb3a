//! What a shell had before the line, or gets between a loan and its end.

use keyloan_e2e::shell::{BASH, FISH, SHELLS, ZSH, with_sets};

#[test]
fn an_alias_of_before_does_not_stand_in_for_a_function() {
    let aliases = "alias opvars='echo old' unopvars='echo old' deopvars='echo old'";
    let sandbox = with_sets();
    for (shell, before) in [
        (&BASH, aliases.to_owned()),
        (&ZSH, format!("{aliases}\nalias -g v='| cat' x='| cat'")),
        (&FISH, "alias opvars 'echo old'; alias unopvars 'echo old'".to_owned()),
    ] {
        shell.set_up(&sandbox, &before, "");
        let terminal = shell.open(&sandbox);
        terminal.run("opvars");
        terminal.expect("\nset: PLAIN TOKEN\n");
        terminal.run("deopvars");
        terminal.expect("\nremoved: PLAIN TOKEN\n");
    }
}

#[test]
fn a_prompt_command_that_nobody_can_change_is_told_before_anything_is_asked() {
    let sandbox = with_sets();
    BASH.set_up(&sandbox, "PROMPT_COMMAND=:; readonly PROMPT_COMMAND", "");
    let terminal = BASH.open(&sandbox);
    terminal.run("opvars; echo \"ended $? <${TOKEN-}>\"");
    let shown = terminal.expect("\nended 2 <>\n");
    assert!(shown.contains("its PROMPT_COMMAND is read-only"), "{shown}");
    assert!(sandbox.events("lent").is_empty());
}

#[test]
fn values_are_exact_or_not_lent_whatever_ifs_is() {
    let sandbox = with_sets();
    for ifs in ["$' \\t\\n'", "' '", "''"] {
        let script = format!("IFS={ifs}; readonly IFS; opvars odd; echo \"$? <${{ODD-}}>\"");
        let output = BASH.script(&sandbox, &script);
        assert_eq!(output.text(), "2 <>\n", "{output:?}");
        assert!(output.stderr.contains("its IFS is read-only"), "{output:?}");
    }
}

#[test]
fn how_a_variable_was_exported_comes_back_with_its_value() {
    let sandbox = with_sets();
    for (shell, script, told) in [
        (
            &BASH,
            "export TOKEN; opvars >/dev/null; unopvars >/dev/null; TOKEN=later; printenv TOKEN",
            "later\n",
        ),
        (
            &ZSH,
            "export TOKEN=old; opvars >/dev/null; unset TOKEN; unopvars >/dev/null; printenv TOKEN",
            "old\n",
        ),
        (&FISH, "set -gx --path TOKEN a b; opvars >/dev/null; unopvars >/dev/null; printenv TOKEN", "a:b\n"),
    ] {
        let output = shell.script(&sandbox, script);
        assert_eq!(output.text(), told, "{}: {output:?}", shell.name);
    }
}

#[test]
fn a_functions_own_variable_hides_nothing_that_stays() {
    let sandbox = with_sets();
    for functions in [
        "f() { local TOKEN=own; unopvars; }",
        "g() { local TOKEN; unopvars; }; f() { local TOKEN; g; }",
        // What a hostile environment names is not looked for without end.
        "f() { KEYLOAN_SHELL=$'/nope\\t/\\tz\\t_\\t\\n' __keyloan_inherit; unopvars; }",
    ] {
        let output =
            BASH.script(&sandbox, &format!("{functions}; opvars; f; echo \"<${{TOKEN-}}>\"; printenv TOKEN"));
        assert_eq!(output.text(), "set: PLAIN TOKEN\nremoved: PLAIN TOKEN\n<>\n", "{output:?}");
    }
}

#[test]
fn functions_that_came_by_the_environment_alone_lend_nothing() {
    let sandbox = with_sets();
    let script = "bash --norc -c 'opvars; echo $? \"<${TOKEN-}>\"'";
    let output = sandbox.command(
        keyloan_e2e::programs::needed("bash"),
        &["-c", &format!("set -a; eval \"$(keyloan shell bash)\"; {script}")],
    );
    let output = output.run();
    assert_eq!(output.text(), "2 <>\n", "{output:?}");
    assert!(output.stderr.contains("only a part of the integration"), "{output:?}");
}

#[test]
fn a_shell_in_a_directory_that_is_gone_shows_its_prompt() {
    let sandbox = with_sets();
    for shell in &SHELLS {
        sandbox.make_directory("project/gone");
        shell.set_up(
            &sandbox,
            "",
            if shell.name == "fish" { "set -g KEYLOAN_ANNOUNCE 1" } else { "KEYLOAN_ANNOUNCE=1" },
        );
        let terminal = shell.open(&sandbox);
        terminal.run("cd gone");
        terminal.run(&format!("rmdir ../gone; {}", shell.command()));
        terminal.expect("ready>");
        terminal.run("echo alive");
        terminal.expect("\nalive\n");
    }
}

#[test]
fn nothing_that_is_there_is_written_to_for_a_loan_of_the_environments() {
    let sandbox = with_sets();
    for shell in &SHELLS {
        let pid = if shell.name == "fish" { "$fish_pid" } else { "$$" };
        sandbox.write("project/precious", "kept");
        let load = if shell.name == "fish" {
            "keyloan shell fish | source"
        } else {
            "eval \"$(keyloan shell NAME)\""
        };
        let plant = match shell.name {
            "fish" => "set -gx KEYLOAN_SHELL $PWD/$fish_pid-x\\t/\\tz\\tFOO".to_owned(),
            _ => format!("export KEYLOAN_SHELL=\"$PWD/{pid}-x\"$'\\t/\\tz\\tFOO'"),
        };
        let script = format!("ln -sf precious {pid}-x.back\n{plant}\n{load}\n__keyloan_hook\necho over\n")
            .replace("NAME", shell.name);
        let output = sandbox.command(keyloan_e2e::programs::needed(shell.name), &["-c", &script]).run();
        assert!(output.text().ends_with("over\n"), "{}: {output:?}", shell.name);
        assert_eq!(
            std::fs::read_to_string(sandbox.path("project/precious")).unwrap(),
            "kept",
            "{}",
            shell.name
        );
    }
}
