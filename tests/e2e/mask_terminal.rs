//! `with-secrets --mask` on a real terminal: programs behave there as they do without it.

use crate::mask::VALUE;
use keyloan_e2e::Sandbox;
use keyloan_e2e::eventually;
use keyloan_e2e::terminal::Terminal;

/// A terminal whose size tests may change.
pub(crate) fn open(sandbox: &Sandbox) -> Terminal<'_> {
    let terminal = Terminal::open(sandbox);
    terminal.tmux(&["set-option", "-g", "window-size", "manual"]).ok();
    terminal.run("stty -a >before; echo kept");
    terminal.expect("\nkept\n");
    terminal
}

/// A token that is lent without a question.
pub(crate) fn lending(value: &str) -> Sandbox {
    let sandbox = Sandbox::with_token(value.as_bytes());
    sandbox.policy("env=allow");
    sandbox
}

/// Fails the test unless the terminal is as it was when it was opened.
#[track_caller]
pub(crate) fn is_as_before(terminal: &Terminal<'_>) {
    // Columns and rows may have been changed by the test itself.
    terminal.run("stty -a >after; diff <(sed 1d before) <(sed 1d after) && echo same settings");
    terminal.expect("\nsame settings");
}

fn resize(terminal: &Terminal<'_>, columns: u32, rows: u32) {
    terminal.tmux(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]).ok();
}

#[test]
fn a_value_on_a_terminal_is_hidden_and_without_mask_it_is_not() {
    let sandbox = lending(VALUE);
    let terminal = open(&sandbox);
    terminal.run("with-secrets -- printenv TWINE_PASSWORD");
    terminal.expect(VALUE);
    terminal.run("with-secrets --mask -- printenv TWINE_PASSWORD; echo ended $?");
    let shown = terminal.expect("ended 0");
    assert!(shown.contains("\n***\n") && !shown.contains(VALUE), "{shown}");
    is_as_before(&terminal);
}

#[test]
fn vim_draws_takes_keys_resizes_stops_continues_and_quits() {
    let sandbox = lending(VALUE);
    let terminal = open(&sandbox);
    terminal.run("with-secrets --mask -- vim -u NONE file");
    terminal.expect("\"file\" [New");
    terminal.type_text("ihello from vim");
    terminal.press("Escape");
    terminal.expect("hello from vim");
    resize(&terminal, 90, 20);
    terminal.type_text(":put =&columns.'x'.&lines");
    terminal.press("Enter");
    terminal.expect("90x20");
    terminal.press("C-z");
    let shown = terminal.expect("Stopped");
    assert!(!shown.contains("hello from vim"), "the editor has left the screen:\n{shown}");
    is_as_before(&terminal);
    resize(&terminal, 100, 30);
    terminal.run("fg");
    // vim draws once before it looks how large the terminal is now; it does so without keyloan, too.
    eventually("vim has drawn all lines", || terminal.screen().matches("\n~").count() > 25);
    terminal.type_text(":put =&columns.'x'.&lines");
    terminal.press("Enter");
    terminal.expect("100x30");
    terminal.type_text(":wq");
    terminal.press("Enter");
    terminal.expect("ready>");
    terminal.run("cat file; echo ended $?");
    terminal.expect("hello from vim\n90x20\n100x30\nended 0");
    is_as_before(&terminal);
}

#[test]
fn less_and_top_draw_take_keys_and_quit() {
    let sandbox = lending(VALUE);
    let terminal = open(&sandbox);
    terminal.run("seq 1000 >numbers; with-secrets --mask -- less numbers; echo ended $?");
    terminal.expect("\n48\n49\nnumbers");
    terminal.type_text("G");
    terminal.expect("\n1000\n(END)");
    resize(&terminal, 80, 10);
    terminal.type_text("g");
    terminal.expect("1\n2\n3\n4\n5\n6\n7\n8\n9\n");
    terminal.type_text("q");
    terminal.expect("ended 0");
    resize(&terminal, 150, 50);
    terminal.run("with-secrets --mask -- top; echo ended $?");
    terminal.expect("load average");
    terminal.type_text("q");
    terminal.expect("ended 0");
    is_as_before(&terminal);
}

#[test]
fn python_prompts_edits_lines_and_sees_a_terminal() {
    let sandbox = lending(VALUE);
    let terminal = open(&sandbox);
    terminal.run("with-secrets --mask -- /usr/bin/python3 -q; echo ended $?");
    terminal.expect(">>>");
    terminal
        .type_text("import os, sys; print([os.isatty(n) for n in range(3)], os.environ['TWINE_PASSWORD'])");
    terminal.press("Enter");
    let shown = terminal.expect("[True, True, True] ***");
    assert!(!shown.contains(VALUE));
    terminal.press("C-c");
    terminal.expect("KeyboardInterrupt");
    terminal.press("C-d");
    terminal.expect("ended 0");
    is_as_before(&terminal);
}

#[test]
fn a_prompt_that_begins_as_a_value_does_is_shown() {
    let sandbox = lending("token-0123456789");
    let terminal = open(&sandbox);
    terminal.run("with-secrets --mask -- /usr/bin/python3 -c 'print(\"read\", input(\"tok\"))'");
    terminal.expect("\ntok");
    terminal.type_text("yes");
    terminal.press("Enter");
    terminal.expect("\nread yes");
}

#[test]
fn control_c_ends_the_command_and_the_script_around_it() {
    let sandbox = lending(VALUE);
    let terminal = open(&sandbox);
    terminal.run("with-secrets --mask -- sh -c 'echo sleeps; exec sleep 1000'");
    terminal.expect("\nsleeps");
    terminal.press("C-c");
    terminal.expect("ready>");
    terminal.run("echo ended $?");
    terminal.expect("ended 130");
    sandbox.write(
        "project/script",
        "with-secrets --mask -- sh -c 'echo sleeps; exec sleep 1000'\necho not reached\n",
    );
    terminal.run("bash ./script");
    terminal.expect("\nsleeps");
    terminal.press("C-c");
    let shown = terminal.expect("ready>");
    assert!(!shown.contains("not reached"), "{shown}");
    is_as_before(&terminal);
}

#[test]
fn control_z_stops_fg_and_bg_continue_and_output_goes_on() {
    let sandbox = lending(VALUE);
    let terminal = open(&sandbox);
    let line = "with-secrets --mask -- sh -c 'while [ ! -e end ]; do echo $TWINE_PASSWORD on; sleep 0.1; done; exit 7'";
    terminal.run(line);
    terminal.expect("*** on\n*** on\n");
    terminal.press("C-z");
    terminal.expect("Stopped");
    is_as_before(&terminal);
    terminal.run("fg");
    terminal.expect("*** on\n*** on\n");
    terminal.press("C-z");
    terminal.expect("Stopped");
    terminal.run("bg");
    terminal.expect("*** on\n*** on\n");
    terminal.run("fg");
    terminal.expect("*** on\n*** on\n");
    sandbox.write("project/end", "");
    terminal.expect("ready>");
    terminal.run("echo ended $?");
    terminal.expect("ended 7");
    is_as_before(&terminal);
}

#[test]
fn a_job_in_the_background_prints_and_stops_when_it_reads_the_terminal() {
    let sandbox = lending(VALUE);
    let terminal = open(&sandbox);
    terminal.run("with-secrets --mask -- sh -c 'echo $TWINE_PASSWORD here; read -r line; echo got $line' &");
    terminal.expect("*** here");
    terminal.press("Enter");
    terminal.expect("Stopped");
    is_as_before(&terminal);
    terminal.run("fg");
    terminal.type_text("this");
    terminal.press("Enter");
    terminal.expect("\ngot this");
    is_as_before(&terminal);
}

#[test]
fn a_pipeline_shares_the_terminal_until_the_command_asks_for_it() {
    let sandbox = lending(VALUE);
    let terminal = open(&sandbox);
    terminal.run("with-secrets --mask -- seq 1000 | less; echo ended ${PIPESTATUS[0]}");
    terminal.expect("\n49\n:");
    terminal.type_text("G");
    terminal.expect("\n1000\n(END)");
    terminal.type_text("q");
    terminal.expect("ended 0");
    is_as_before(&terminal);
    let ask = "read -r line; echo \"$line\"; echo \"err $TWINE_PASSWORD\" >&2; stty -a </dev/tty >within";
    terminal.run(&format!("with-secrets --mask -- sh -c '{ask}' | cat; echo ended ${{PIPESTATUS[0]}}"));
    terminal.type_text("typed");
    terminal.press("Enter");
    let shown = terminal.expect("ended 0");
    assert!(shown.contains("\ntyped\n") && shown.contains("err ***\n"), "{shown}");
    is_as_before(&terminal);
}

#[test]
fn a_command_substitution_can_be_asked_on_the_terminal() {
    let sandbox = lending(VALUE);
    let terminal = open(&sandbox);
    let ask = "echo asks $TWINE_PASSWORD >&2; read -r line; echo \"$line\"";
    terminal.run(&format!("got=$(with-secrets --mask -- sh -c '{ask}'); echo got \"$got\""));
    terminal.expect("\nasks ***");
    terminal.type_text("an answer");
    terminal.press("Enter");
    terminal.expect("\ngot an answer");
    is_as_before(&terminal);
}

#[test]
fn a_file_for_one_stream_leaves_the_terminal_for_the_other() {
    let sandbox = lending(VALUE);
    let terminal = open(&sandbox);
    let line = "test -t 1 && echo out; test -t 2 && echo err $TWINE_PASSWORD >&2; echo file $TWINE_PASSWORD";
    terminal.run(&format!("with-secrets --mask -- sh -c '{line}' >kept; echo ended $?; cat kept"));
    let shown = terminal.expect("file ***\n");
    assert!(shown.contains("err ***\n") && !shown.contains("\nout\n") && !shown.contains(VALUE), "{shown}");
}

#[test]
fn without_a_terminal_of_its_own_the_command_leaves_the_keys_to_the_shell() {
    let sandbox = lending(VALUE);
    let terminal = open(&sandbox);
    let line = "echo in $TWINE_PASSWORD; while [ ! -e end ]; do sleep 0.05; done; echo over";
    terminal.run(&format!("setsid with-secrets --mask -- sh -c '{line}' &"));
    terminal.expect("in ***");
    terminal.run("echo typed $((40+2))");
    terminal.expect("\ntyped 42");
    is_as_before(&terminal);
    sandbox.write("project/end", "");
    terminal.expect("over");
}

#[test]
fn the_command_on_a_terminal_finds_signals_and_descriptors_as_without_keyloan() {
    let sandbox = lending(VALUE);
    let terminal = open(&sandbox);
    let look = "grep -E \"^Sig(Ign|Blk|Cgt)\" /proc/self/status; ls /proc/self/fd; umask; stty -a | sed 1d";
    for before in ["", "trap '' HUP USR1 PIPE; umask 027; exec 7</dev/null;"] {
        let found = ["", "with-secrets --mask --"].map(|prefix| {
            sandbox.write("project/script", format!("{before}\nexec {prefix} sh -c '{look}'\n"));
            terminal.run("sh ./script; echo ended $?");
            let shown = terminal.expect("\nended 0");
            shown.split_once('\n').unwrap().1.to_owned()
        });
        assert_eq!(found[0], found[1], "{before}");
    }
}
