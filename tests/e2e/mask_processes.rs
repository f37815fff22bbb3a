//! The three processes of a masked command on a terminal: command, monitor, relay. What they hold, what is sent to
//! them, and what becomes of the others when one ends.

use crate::mask::{ALARMED, LISTENER, VALUE, sendable};
use crate::mask_terminal::{is_as_before, lending, open};
use keyloan_e2e::{Sandbox, eventually};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The command of a run that wrote its pid, its monitor and its relay.
fn processes(sandbox: &Sandbox) -> [i32; 3] {
    let pid = || fs::read_to_string(sandbox.path("project/pid")).unwrap_or_default();
    eventually("the command has written its pid", || pid().ends_with('\n'));
    let command = pid().trim().parse().unwrap();
    let parent = |of: i32| {
        let told = sandbox.command("/bin/ps", &["-o", "ppid=", "-p", &of.to_string()]).run().ok().text();
        told.trim().parse::<i32>().unwrap()
    };
    let monitor = parent(command);
    [command, monitor, parent(monitor)]
}

fn kill(pid: i32) {
    send(pid, nix::sys::signal::Signal::SIGKILL);
}

fn send(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
}

/// Writes its pid, and "hup" where it is told that its terminal is gone.
const WATCHFUL: &str = "with-secrets --mask -- sh -c 'trap \"echo hup >said; exit\" HUP; echo $$ >pid; while :; do sleep 0.05; done'";

#[test]
fn every_signal_sent_to_a_relay_on_a_terminal_reaches_the_command_and_ends_neither() {
    let sandbox = lending(VALUE);
    let terminal = open(&sandbox);
    sandbox.write("project/listener", LISTENER);
    terminal.run("with-secrets --mask -- sh -c 'echo $$ >pid; exec python3 ./listener'; echo ended $?");
    terminal.expect("\nready\n");
    let [_, monitor, relay] = processes(&sandbox);
    // SIGTSTP, SIGCONT and SIGWINCH mean the job and its terminal here.
    for signal in sendable().filter(|signal| ![18, 20, 28].contains(signal)) {
        // As pkill(1) does, which finds both by their name.
        let (relay, monitor) = (relay.to_string(), monitor.to_string());
        sandbox.command("/bin/kill", &["-s", &signal.to_string(), &relay, &monitor]).run().ok();
        terminal.expect(&format!("\nheard {signal}\n"));
    }
    kill(monitor);
    terminal.expect("ended 125");
    is_as_before(&terminal);
}

#[test]
fn an_alarm_that_was_set_before_reaches_the_command_on_a_terminal() {
    let sandbox = lending(VALUE);
    let terminal = open(&sandbox);
    sandbox.write("project/alarmed", ALARMED);
    terminal.run("python3 ./alarmed; echo ended $?");
    terminal.expect("\nheard\nended 3");
}

#[test]
fn an_interrupt_that_was_sent_is_the_commands_alone() {
    let sandbox = lending(VALUE);
    let terminal = open(&sandbox);
    let line = "with-secrets --mask -- sh -c 'echo $$ >pid; exec sleep 60'; echo reached $?";
    sandbox.write("project/script", line);
    for to in ["the command", "the relay"] {
        terminal.run("bash ./script");
        let [command, _, relay] = processes(&sandbox);
        send(if to == "the relay" { relay } else { command }, nix::sys::signal::Signal::SIGINT);
        terminal.expect("reached 130");
        fs::remove_file(sandbox.path("project/pid")).unwrap();
    }
    is_as_before(&terminal);
}

#[test]
fn a_command_that_is_killed_ends_with_secrets_so() {
    let sandbox = lending(VALUE);
    let terminal = open(&sandbox);
    terminal.run(&format!("{WATCHFUL}; echo ended $?"));
    let [command, ..] = processes(&sandbox);
    kill(command);
    terminal.expect("ended 137");
    for status in [0, 7] {
        terminal.run(&format!("with-secrets --mask -- sh -c 'exit {status}'; echo ended $?"));
        terminal.expect(&format!("ended {status}"));
    }
    is_as_before(&terminal);
}

#[test]
fn a_relay_that_is_killed_hangs_up_on_the_command() {
    let sandbox = lending(VALUE);
    let terminal = open(&sandbox);
    terminal.run(WATCHFUL);
    let [command, monitor, relay] = processes(&sandbox);
    kill(relay);
    eventually("the command hears SIGHUP", || sandbox.path("project/said").exists());
    eventually("nothing is left", || {
        [command, monitor].iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists())
    });
}

#[test]
fn a_monitor_that_is_killed_leaves_the_terminal_as_it_was() {
    let sandbox = lending(VALUE);
    let terminal = open(&sandbox);
    terminal.run(&format!("{WATCHFUL}; echo ended $?"));
    let [_, monitor, _] = processes(&sandbox);
    kill(monitor);
    let shown = terminal.expect("ended 125");
    assert!(shown.contains("the process that watches the command was ended"), "{shown}");
    eventually("the command hears SIGHUP", || sandbox.path("project/said").exists());
    is_as_before(&terminal);
}

#[test]
fn a_closed_terminal_hangs_up_on_the_command() {
    let sandbox = lending(VALUE);
    let terminal = open(&sandbox);
    terminal.run(WATCHFUL);
    let all = processes(&sandbox);
    drop(terminal);
    eventually("the command hears SIGHUP", || sandbox.path("project/said").exists());
    eventually("nothing is left", || all.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()));
}

#[test]
fn relay_and_monitor_cannot_be_looked_into_and_the_command_is_as_ever() {
    let sandbox = lending(VALUE);
    let terminal = open(&sandbox);
    terminal.run(WATCHFUL);
    let owners = processes(&sandbox).map(|pid| {
        // The kernel gives what belongs to an undumpable process to root.
        std::os::unix::fs::MetadataExt::uid(&fs::metadata(format!("/proc/{pid}/environ")).unwrap())
    });
    let user = keyloan_e2e::sandbox::user().map_or_else(nix::unistd::Uid::current, |(uid, _)| uid).as_raw();
    assert_eq!(owners, [user, 0, 0]);
    terminal.press("C-c");
    terminal.expect("ready>");
}

#[test]
fn a_pipe_that_the_command_inherited_ends_when_the_command_closes_it() {
    let sandbox = lending(VALUE);
    let terminal = open(&sandbox);
    // On a terminal and off it; the command says that it is ready by closing descriptor 3.
    for out in ["/dev/tty", "out"] {
        let command = "exec 3>&-; while [ ! -e end ]; do sleep 0.05; done";
        terminal.run(&format!(
            "with-secrets --mask -- sh -c '{command}' 3>&1 >{out} 2>&1 | (cat; echo ready >/dev/tty)"
        ));
        terminal.expect("\nready\n");
        sandbox.write("project/end", "");
        terminal.expect("ready>");
        fs::remove_file(sandbox.path("project/end")).unwrap();
    }
}

#[test]
fn a_monitor_holds_no_value() {
    assert!(keyloan_e2e::sandbox::user().is_some(), "only root looks into it: run the tests as root");
    let sandbox = lending(VALUE);
    let terminal = open(&sandbox);
    terminal.run(WATCHFUL);
    let [command, monitor, relay] = processes(&sandbox);
    // The relay compares with it, and the command has it in its environment.
    assert_eq!([command, monitor, relay].map(|pid| holds(pid, VALUE)), [true, false, true]);
    kill(monitor);
}

/// Whether a text is in memory that a process can write to.
fn holds(pid: i32, text: &str) -> bool {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    maps.lines().filter(|line| line.contains(" rw")).any(|line| {
        let span = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [span.0, span.1].map(|at| u64::from_str_radix(at, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        memory.read_exact_at(&mut bytes, from).is_ok()
            && bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}
