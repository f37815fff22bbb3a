//! What other programs of the user put where a shell looks before a prompt.

use keyloan_e2e::programs::needed;
use keyloan_e2e::sandbox::PIN;
use keyloan_e2e::shell::{BASH, SHELLS, Shell, markers, with_sets};
use keyloan_e2e::{Sandbox, eventually};
use std::fs;
use std::path::PathBuf;

/// Gives up after a few seconds, with status 124.
fn timed(sandbox: &Sandbox, shell: &Shell, script: &str) -> keyloan_e2e::Output {
    let program = needed(shell.name).display().to_string();
    sandbox.command(needed("timeout"), &["5", &program, "-c", script]).run()
}

fn shells(sandbox: &Sandbox) -> PathBuf {
    sandbox.path("run/keyloan/shells")
}

#[test]
fn no_prompt_waits_for_what_somebody_put_there() {
    let sandbox = with_sets();
    let fifo = sandbox.path("project/fifo");
    sandbox.command(needed("mkfifo"), &[fifo.to_str().unwrap()]).run().ok();
    for shell in &SHELLS {
        assert_eq!(timed(&sandbox, shell, "read why <fifo").status, 124, "the attack itself does not work");
        let load = if shell.name == "fish" {
            "keyloan shell fish | source"
        } else {
            "eval \"$(keyloan shell NAME)\""
        };
        let at = shells(&sandbox).display().to_string();
        let plant = format!("sh -c 'for m in {at}/*.has; do mkfifo ${{m%.has}}.why; rm ${{m%.has}}; done'");
        let script =
            format!("{load}\nopvars\n{plant}\n__keyloan_hook\necho over\n").replace("NAME", shell.name);
        let output = timed(&sandbox, shell, &script);
        assert!(output.text().ends_with("over\n"), "{}: {output:?}", shell.name);
        assert!(output.stderr.contains("keyloan: removed: PLAIN TOKEN (the loan is over)"), "{output:?}");
        // The daemon does, too, since the shell has ended.
        for entry in fs::read_dir(shells(&sandbox)).unwrap() {
            let _ = fs::remove_file(entry.unwrap().path());
        }
    }
}

/// What a terminal does with it is seen by the title of the pane.
const TITLE: &str = "\x1b]2;owned\x07";

#[test]
fn no_prompt_shows_a_terminal_what_it_would_act_on() {
    let sandbox = with_sets();
    sandbox.make_directory(&format!("project/{TITLE}"));
    fs::write(sandbox.path("project/attack"), format!("{TITLE}more\n")).unwrap();
    for shell in &SHELLS {
        let setting = if shell.name == "fish" {
            "set -g KEYLOAN_TITLE 1; function fish_title; end"
        } else {
            "KEYLOAN_TITLE=1"
        };
        shell.set_up(&sandbox, "", setting);
        let terminal = shell.open(&sandbox);
        let title = || terminal.tmux(&["display-message", "-p", "#{pane_title}"]).ok().text();
        terminal.run("cat attack");
        eventually("the attack itself works", || title().trim() == "owned");
        terminal.run("opvars");
        terminal.expect("\nset: PLAIN TOKEN\n");
        eventually("it has another title", || title().trim() == "keyloan: PLAIN TOKEN");
        let marker = shells(&sandbox).join(&markers(&sandbox)[0]);
        let why = PathBuf::from(format!("{}.why", marker.display()));
        fs::copy(sandbox.path("project/attack"), why).unwrap();
        fs::remove_file(marker).unwrap();
        terminal.press("Enter");
        terminal.expect("keyloan: removed: PLAIN TOKEN (?]2;owned?more)");
        assert!(!title().contains("owned"), "{}", title());
        // And by the name of a directory: while there is a loan, and when it is over.
        terminal.run("opvars; cd ./*owned*; unopvars");
        terminal.expect("\nremoved: PLAIN TOKEN\n");
        terminal.run("echo over");
        terminal.expect("\nover\n");
        assert_ne!(title().trim(), "owned");
    }
}

/// The hooks say where a shell was, too.
#[test]
fn a_directory_that_was_left_is_shown_as_text() {
    let sandbox = with_sets();
    let odd = format!("project/{TITLE}");
    sandbox.make_directory(&odd);
    let set = "[env]\nHERE = { value = \"x\" }\n[shell]\nuntil-leaving = true\n";
    sandbox.write(&format!("{odd}/.keyloan.toml"), set);
    for shell in &SHELLS {
        let terminal = shell.opened(&sandbox);
        let title = || terminal.tmux(&["display-message", "-p", "#{pane_title}"]).ok().text();
        terminal.run("cd ./*owned*; keyloan trust; opvars; printf '\\033]2;mine\\007'; cd /");
        terminal.expect("keyloan: removed: HERE (this shell left ");
        terminal.run("echo over");
        terminal.expect("\nover\n");
        assert!(!title().contains("owned"), "{}: {}", shell.name, title());
    }
}

/// Asks for the set of that title on its own, as a program that says it is `claimed`; says what came back.
const ASKS: &str = r#"
import json, socket, struct, sys
path, title, claimed = sys.argv[1:]
values = [("program", claimed.encode()), ("argv", b"x\0")]
header = {"version": 1, "body": {"lend": {"sets": [title], "only": [], "dry_run": False}},
          "values": [{"name": name, "length": len(value)} for name, value in values]}
header = json.dumps(header).encode()
tail = b"".join(value for _, value in values)
s = socket.socket(socket.AF_UNIX)
s.connect(path)
s.sendall(struct.pack(">II", 4 + len(header) + len(tail), len(header)) + header + tail)
s.settimeout(3)
try:
    print("came back", b"canary-5f1e" in s.recv(65536))
except TimeoutError:
    print("is asked")
"#;

#[test]
fn a_program_that_calls_itself_the_shell_has_no_part_in_what_the_shell_was_granted() {
    let sandbox = with_sets();
    sandbox.keyloan(&["item", "set", "titled", "vars"]).stdin("TOKEN=canary-5f1e\n").run().ok();
    sandbox.policies(&["env=ask", "approver.command=", "grants=terminal-10m"]);
    sandbox.write("project/asks.py", ASKS);
    let terminal = BASH.opened(&sandbox);
    let granted = |line: &str| {
        terminal.run(line);
        terminal.expect("PIN to allow, Enter alone to decline:");
        terminal.type_text(&format!("{PIN}+t10m"));
        terminal.press("Enter");
    };
    let socket = sandbox.socket().display().to_string();
    let asks = |claimed: &str| {
        terminal.tmux(&["send-keys", "-R"]).ok();
        terminal.run(&format!("python3 asks.py {socket} titled {claimed}; echo en''ded $?"));
    };
    // What a grant for a program covers is whatever calls itself that program: there the attack works, as is said of it.
    granted("with-secrets -s titled -- printenv TOKEN");
    terminal.expect("\ncanary-5f1e\n");
    asks("/usr/bin/printenv");
    terminal.expect("came back True");
    // What a shell was granted is for a process that was seen.
    granted("opvars titled; unopvars");
    terminal.expect("\nremoved: TOKEN\n");
    asks("\"the shell /usr/bin/bash (pid $$), for at most 15m\"");
    terminal.expect("PIN to allow, Enter alone to decline:");
    terminal.expect("is asked\nended 0\n");
    // And the shell itself has it still.
    terminal.tmux(&["send-keys", "-R"]).ok();
    terminal.run("opvars titled; unopvars");
    assert!(!terminal.expect("\nremoved: TOKEN\n").contains("PIN"));
}
