//! Rows 11 to 16c: the prompt.

use crate::attack;
use keyloan_e2e::programs::needed;
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{Sandbox, approver, wire};

const PROMPT: &str = "PIN to allow, Enter alone to decline:";

fn asked_on_terminals() -> Sandbox {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.policy("approver.command=");
    sandbox
}

#[test]
fn keys_pushed_into_the_terminal_do_not_approve() {
    let sandbox = asked_on_terminals();
    let terminal = Terminal::open(&sandbox);
    // The undefended victim: a prompt that takes y or Enter.
    for key in ["y", ""] {
        terminal.run("read -p 'allow? [Y/n] ' a; [ \"$a\" != n ] && echo approved-$((40+2))");
        terminal.expect("allow? [Y/n]");
        terminal.tmux(&["send-keys", key, "Enter"]).ok();
        terminal.expect("approved-42");
    }
    for keys in [vec!["y", "Enter"], vec!["Enter"], vec!["Y", "E", "S", "Enter", "Enter"]] {
        terminal.run("with-secrets -- printenv TWINE_PASSWORD; echo ended $?");
        terminal.expect(PROMPT);
        let mut all = vec!["send-keys"];
        all.extend(&keys);
        terminal.tmux(&all).ok();
        keyloan_e2e::eventually("it is declined", || {
            // After a wrong PIN the question stands; Enter alone ends it.
            terminal.press("Enter");
            terminal.screen().contains("ended 125")
        });
        // The passphrase ends the time for which it may not ask again.
        sandbox.unlock().ok();
    }
    assert!(sandbox.events("lent").is_empty());
}

#[test]
fn an_argument_padded_to_the_terminals_width_does_not_pass_for_a_line_of_the_question() {
    const FORGED: &str = "  asked by  /usr/bin/git  (seen)";
    let sandbox = asked_on_terminals();
    let terminal = Terminal::open(&sandbox);
    terminal.tmux(&["set-option", "-g", "window-size", "manual"]).ok();
    terminal.tmux(&["resize-window", "-x", "80", "-y", "40"]).ok();
    let rows = || {
        let screen = terminal.tmux(&["capture-pane", "-p"]).ok().text();
        screen.lines().map(|row| row.trim_end().to_owned()).collect::<Vec<_>>()
    };
    // `  command   echo '` has 18 columns. The undefended victim leaves the rest to the terminal.
    let script = format!(
        "argument=$(printf '%62s%-80s.' '' '{FORGED}')\n\
         case $1 in\n\
         victim) printf '  command   echo %s  (claimed)\\n' \"'$argument'\" ;;\n\
         *) with-secrets -- echo \"$argument\" ;;\n\
         esac\necho ended $?\n"
    );
    sandbox.write("project/forge", script);
    terminal.run("sh ./forge victim");
    terminal.expect("ended 0");
    assert!(rows().iter().any(|row| row == FORGED), "{:#?}", rows());
    terminal.run("sh ./forge");
    terminal.expect(PROMPT);
    let shown = rows();
    assert!(!shown.iter().any(|row| row == FORGED), "{shown:#?}");
    assert_eq!(shown.iter().filter(|row| row.starts_with("  asked by")).count(), 1, "{shown:#?}");
    terminal.press("Enter");
    terminal.expect("ended 125");
}

#[test]
fn what_is_typed_before_the_question_is_no_answer_to_it() {
    let sandbox = asked_on_terminals();
    let terminal = Terminal::open(&sandbox);
    // The undefended victim: typed ahead, read as the answer.
    terminal.run("sleep 0.5; read -p 'PIN: ' a; echo \"got <$a>\"");
    terminal.type_text("4711");
    terminal.press("Enter");
    terminal.expect("got <4711>");
    terminal.run("sleep 0.5; with-secrets -- printenv TWINE_PASSWORD; echo ended $?");
    terminal.type_text("4711");
    terminal.press("Enter");
    terminal.expect(PROMPT);
    terminal.press("Enter");
    terminal.expect("ended 125");
    assert!(sandbox.events("lent").is_empty());
}

#[test]
fn a_requester_cannot_approve_enrol_or_set_an_approver_over_the_socket() {
    let sandbox = asked_on_terminals();
    for body in [r#"{"approve":{"request":1}}"#, r#"{"decide":{"request":1,"decision":"allow"}}"#] {
        let answer =
            wire::exchange(&sandbox, &wire::frame(&format!(r#"{{"version":1,"body":{body}}}"#), b""));
        assert!(String::from_utf8_lossy(&answer).contains("unknown request"), "{body}");
    }
    let evil = sandbox.write_program("project/evil", approver::ALLOW).display().to_string();
    let setting = format!("approver.command={evil}");
    sandbox
        .keyed("guess", &["policy", "set", &setting, "--passphrase-fd", "3"])
        .run()
        .refused(6, "not the right one");
    sandbox.keyloan(&["policy", "set", &setting]).run().refused(6, "there is no way to ask");
    sandbox
        .keyloan(&["item", "set", "pypi", "token"])
        .stdin("evil")
        .run()
        .refused(6, "there is no way to ask");
}

#[test]
fn a_requester_that_names_its_own_terminal_or_display_changes_nothing() {
    let sandbox = asked_on_terminals();
    let own = sandbox.write_program("project/askpass", "#!/bin/sh\nexit 0\n").display().to_string();
    // The undefended victim: a program that believes SSH_ASKPASS of whoever asks.
    let naive =
        sandbox.command("/bin/sh", &["-c", "\"$SSH_ASKPASS\" && echo approved"]).env("SSH_ASKPASS", &own);
    assert_eq!(naive.run().text(), "approved\n");
    let run = sandbox.with_secrets(&["--", "true"]);
    let run = run
        .env("SSH_ASKPASS", &own)
        .env("SSH_TTY", "/dev/pts/0")
        .env("DISPLAY", ":9")
        .env("GPG_TTY", "/dev/pts/0");
    run.run().refused(125, "there is no way to ask");
}

#[test]
fn an_approver_program_that_was_changed_is_not_run() {
    let sandbox = Sandbox::with_token(b"tok");
    let path = sandbox.set_approver(approver::DENY);
    std::fs::write(&path, approver::ALLOW).unwrap();
    // By path, the changed program would run and say yes.
    let by_path = sandbox.command(&path, &[""; 0]).run().ok();
    assert!(by_path.text().contains("allow"));
    sandbox.with_secrets(&["--", "true"]).run().refused(125, "it was changed after it was set");
}

#[test]
fn an_approver_that_fails_hangs_or_babbles_is_no_yes() {
    let sandbox = Sandbox::with_token(b"tok");
    for (text, said) in [
        (approver::CRASH, "it ended without success"),
        (approver::GARBAGE, "its answer is not"),
        ("#!/bin/sh\nyes '{\"decision\":\"allow\"}' | head -c 10000000\n", "the approver program"),
        ("#!/bin/sh\necho '{\"decision\":\"allow\"} and more'\n", "its answer is not"),
        ("#!/bin/sh\nexit 0\n", "its answer is not"),
    ] {
        sandbox.set_approver(text);
        sandbox.with_secrets(&["--", "printenv", "TWINE_PASSWORD"]).run().refused(125, said);
    }
    assert!(sandbox.events("lent").is_empty());
}

#[test]
fn a_question_nobody_answers_ends_after_a_minute_and_takes_its_program_along() {
    let sandbox = Sandbox::with_token(b"tok");
    // Nobody else's sleep is as long, not in a test beside this one either.
    let sleep = format!("sleep {}", 1_000_000 + std::process::id());
    sandbox.set_approver(format!("#!/bin/sh\nexec {sleep}\n"));
    let started = std::time::Instant::now();
    sandbox.with_secrets(&["--", "true"]).run().refused(125, "nobody answered within 60 seconds");
    assert!(started.elapsed().as_secs() >= 59);
    let left = sandbox.command(needed("pgrep"), &["-f", &format!("^{sleep}$")]).run();
    assert_eq!(left.text(), "", "the approver's processes are gone");
}

#[test]
fn an_approver_finds_no_environment_but_an_empty_home() {
    let sandbox = Sandbox::with_token(b"tok");
    let seen = sandbox.path("project/seen").display().to_string();
    sandbox.set_approver(format!(
        "#!/bin/sh\ncat /proc/$$/environ >{seen}\npwd >>{seen}\necho '{{\"decision\":\"allow\"}}'\n"
    ));
    sandbox.with_secrets(&["--", "true"]).env("LD_PRELOAD", "").env("EVIL", "x").run().ok();
    assert_eq!(std::fs::read_to_string(&seen).unwrap(), "HOME=/\0/\n");
}

/// Reads a question and answers it wrongly, through the approver's own descriptors: by opening them, or by
/// taking them from the live process (`pidfd_getfd`(2)). Says which ways worked.
const MEDDLER: &str = r#"
import ctypes, os, sys
pid = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
def rewrite():
    with open(f"/proc/{pid}/fd/0", "r+b", 0) as question: return question.write(b"another question") > 0
def answer():
    with open(f"/proc/{pid}/fd/1", "wb", 0) as out: return out.write(b'{"decision":"allow"}') > 0
def take():
    return libc.syscall(438, libc.syscall(434, pid, 0), 0, 0) >= 0
def trace():
    worked = libc.ptrace(16, pid, 0, 0) == 0
    if worked: os.waitpid(pid, 0); libc.ptrace(17, pid, 0, 0)
    return worked
for name, way in {"rewrite": rewrite, "answer": answer, "take": take, "trace": trace}.items():
    try:
        if way(): print(name)
    except OSError: pass
"#;

fn meddled(sandbox: &Sandbox, pid: &str) -> Vec<String> {
    attack(sandbox, MEDDLER, &[pid]).ok().text().lines().map(str::to_owned).collect()
}

#[test]
fn neither_question_nor_answer_of_an_approver_can_be_written_by_another_program() {
    let sandbox = Sandbox::with_token(b"tok");
    // The undefended victim is asked and answers over pipes.
    let victim = "sleep 20 | (sh -c 'echo $PPID >victim'; exec sleep 20) | cat";
    let mut piped = sandbox.command("/bin/sh", &["-c", victim]).start();
    let victim = sandbox.path("project/victim");
    keyloan_e2e::eventually("the victim runs", || {
        std::fs::read_to_string(&victim).is_ok_and(|pid| pid.ends_with('\n'))
    });
    let victim = std::fs::read_to_string(&victim).unwrap().trim().to_owned();
    assert_eq!(meddled(&sandbox, &victim), ["rewrite", "answer", "take", "trace"]);
    sandbox.command("/bin/kill", &[&victim]).run().ok();
    piped.kill().unwrap();
    piped.wait().unwrap();
    let pid_file = sandbox.path("project/pid");
    sandbox.set_approver(format!("#!/bin/sh\necho $$ >{}\nexec sleep 20\n", pid_file.display()));
    let asking = sandbox.with_secrets(&["--", "true"]).start();
    keyloan_e2e::eventually("the approver runs", || {
        std::fs::read_to_string(&pid_file).is_ok_and(|pid| pid.ends_with('\n'))
    });
    let pid = std::fs::read_to_string(&pid_file).unwrap().trim().to_owned();
    assert_eq!(meddled(&sandbox, &pid), ["take", "trace"], "a script's interpreter can be traced");
    sandbox.command("/bin/kill", &[&pid]).run().ok();
    keyloan_e2e::sandbox::finished(asking).refused(125, "it ended without success");
}

#[test]
fn an_approver_that_is_a_binary_cannot_be_traced_and_its_descriptors_cannot_be_taken() {
    let sandbox = Sandbox::with_token(b"tok");
    let program = std::fs::read(env!("CARGO_BIN_EXE_patient-approver")).unwrap();
    // The undefended victim: the same program, started by its path as programs are.
    let victim = sandbox.write_program("victim", &program);
    let mut victim = sandbox.command(&victim, &[""; 0]).start();
    assert_eq!(meddled(&sandbox, &victim.id().to_string()), ["take", "trace"]);
    victim.kill().unwrap();
    victim.wait().unwrap();
    sandbox.set_approver(&program);
    let mut asking = sandbox.with_secrets(&["--", "true"]).start();
    let daemon = sandbox.daemon().unwrap().to_string();
    let child = || sandbox.command(needed("pgrep"), &["-P", &daemon]).run().text().trim().to_owned();
    keyloan_e2e::eventually("the approver runs", || {
        let pid = child();
        // Until it is the program it is a copy of the daemon.
        !pid.is_empty()
            && std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name != "keyloand\n")
    });
    assert_eq!(meddled(&sandbox, &child()), [""; 0]);
    asking.kill().unwrap();
    asking.wait().unwrap();
}

#[test]
fn a_flood_of_requests_leaves_one_question_and_a_bounded_queue() {
    const FULL: &str = "16 questions from there are waiting already";
    let sandbox = Sandbox::with_token(b"tok");
    let asked = sandbox.path("project/asked").display().to_string();
    sandbox.set_approver(format!("#!/bin/sh\necho x >>{asked}\nexec sleep 1000\n"));
    let mut flood: Vec<_> = (0..56).map(|_| sandbox.with_secrets(&["--", "true"]).start()).collect();
    let refused = || {
        let decided = sandbox.events("decided");
        let told = decided.iter().filter(|event| event["approver"] == FULL).count() as u64;
        let counted = sandbox.events("turned_away");
        told + counted.iter().filter_map(|event| event["count"].as_u64()).sum::<u64>()
    };
    keyloan_e2e::eventually("most are refused at once", || refused() == 39);
    assert_eq!(sandbox.status()["pending"], 17);
    assert_eq!(std::fs::read_to_string(&asked).unwrap(), "x\n", "one question at a time");
    for client in &mut flood {
        let _ = client.kill();
        client.wait().unwrap();
    }
    keyloan_e2e::eventually("their questions go with them", || sandbox.status()["pending"] == 0);
}
