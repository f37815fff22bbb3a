//! `with-secrets --mask` where no terminal is: what is hidden, and what stays as it was.

use keyloan_e2e::programs::needed;
use keyloan_e2e::sandbox::finished;
use keyloan_e2e::{Running, Sandbox, approver, eventually};
use std::io::{BufRead, BufReader, Read};

pub(crate) const VALUE: &str = "pypi-AgEIcHlwaS5vcmcCJDk?x/y=z";

/// Runs a shell line under `with-secrets --mask`.
fn masked(sandbox: &Sandbox, line: &str) -> keyloan_e2e::Output {
    sandbox.with_secrets(&["--mask", "--", "sh", "-c", line]).run()
}

#[test]
fn a_value_is_hidden_on_both_streams_and_shown_without_mask() {
    let sandbox = Sandbox::with_token(VALUE.as_bytes());
    let line = "echo \"[$TWINE_PASSWORD]\"; echo \"err $TWINE_PASSWORD\" >&2; echo \"$TWINE_USERNAME\"";
    let plain = sandbox.with_secrets(&["--", "sh", "-c", line]).run().ok();
    assert!(plain.text().contains(VALUE) && plain.stderr.contains(VALUE));
    let shown = masked(&sandbox, line).ok();
    assert_eq!(shown.text(), "[***]\n__token__\n", "a literal is no secret");
    assert_eq!(shown.stderr, "err ***\n");
}

#[test]
fn encoded_forms_are_hidden_too() {
    let sandbox = Sandbox::with_token(VALUE.as_bytes());
    let script = "import os,base64,urllib.parse as u\n\
        v=os.environ['TWINE_PASSWORD'].encode()\n\
        for before in b'',b'x',b'xy':\n\
        \x20for after in b'',b'1',b'12':\n\
        \x20\x20print(base64.b64encode(before+v+after).decode(), base64.urlsafe_b64encode(before+v+after).decode())\n\
        print(v.hex(), v.hex().upper(), u.quote(v,safe=''), u.quote(v), u.quote(v,safe='').replace('%3F','%3f').replace('%2F','%2f').replace('%3D','%3d'))\n";
    let arguments = ["--", "python3", "-c", script];
    let plain = sandbox.with_secrets(&arguments).run().ok().text();
    let shown = sandbox.with_secrets(&[&["--mask"], &arguments[..]].concat()).run().ok().text();
    for (plain, shown) in plain.split_whitespace().zip(shown.split_whitespace()) {
        assert!(shown.contains("***"), "{plain} became {shown}");
        // What is left around the mark encodes what stood around the value, and bits of its first and last byte.
        assert!(shown.len() <= 3 + 9, "{plain} became {shown}");
    }
    assert_eq!(plain.lines().count(), shown.lines().count());
}

#[test]
fn a_value_in_many_writes_is_hidden() {
    let sandbox = Sandbox::with_token(VALUE.as_bytes());
    let script = "import os,time\nfor c in 'a '+os.environ['TWINE_PASSWORD']+' b':\n os.write(1,c.encode()); time.sleep(0.002)\n";
    let shown = sandbox.with_secrets(&["--mask", "--", "python3", "-c", script]).run().ok();
    assert_eq!(shown.text(), "a *** b");
}

#[test]
fn a_value_that_trickles_shows_less_than_half_of_itself() {
    let sandbox = Sandbox::with_token(VALUE.as_bytes());
    let script = "import os,time\nfor c in os.environ['TWINE_PASSWORD']+'.':\n os.write(1,c.encode()); time.sleep(0.2)\n";
    let shown = sandbox.with_secrets(&["--mask", "--", "python3", "-c", script]).run().ok().text();
    let before = shown.strip_suffix("***.").unwrap_or_else(|| panic!("{shown}"));
    assert!(before.len() < VALUE.len().div_ceil(2) && VALUE.starts_with(before), "{shown}");
}

#[test]
fn a_value_within_the_beginning_of_another_is_hidden_in_a_silence_too() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let vars =
        "DBURL=postgres://user:hunter2hunter2@db.example.org:5432/a-name-that-is-long\nDBPW=hunter2hunter2\n";
    sandbox.keyloan(&["item", "set", "db", "vars"]).stdin(vars).run().ok();
    let print = "printf 'connecting to postgres://user:%s@' $DBPW; sleep 0.3; echo other";
    let shown = sandbox.with_secrets(&["--mask", "-s", "db", "--", "sh", "-c", print]).run().ok();
    assert_eq!(shown.text(), "connecting to postgres://user:***@other\n");
}

#[test]
fn the_commands_own_end_is_the_end_under_mask() {
    let sandbox = Sandbox::with_token(VALUE.as_bytes());
    for status in [0, 1, 7, 255] {
        assert_eq!(masked(&sandbox, &format!("exit {status}")).status, status);
    }
    for signal in [1, 2, 9, 13, 15, 34] {
        assert_eq!(masked(&sandbox, &format!("kill -{signal} $$")).signal, Some(signal));
    }
    let missing = sandbox.with_secrets(&["--mask", "--", "no-such-command"]).run();
    missing.refused(127, "cannot run no-such-command: command not found");
    sandbox.write_program("project/broken", "#!/no/such/interpreter\n");
    let broken = sandbox.with_secrets(&["--mask", "--", "./broken"]).run();
    broken.refused(127, "cannot run ./broken: command not found");
}

#[test]
fn signals_sent_to_with_secrets_reach_the_command() {
    let sandbox = Sandbox::with_token(VALUE.as_bytes());
    let line = "trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = sandbox.with_secrets(&["--mask", "--", "sh", "-c", line]).start();
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let ended = finished(child);
    assert_eq!((ended.status, ended.text().as_str()), (3, "caught\n"));
}

/// Says which signals it hears.
pub(crate) const LISTENER: &str = "import signal, sys, time\n\
    heard = [n for n in range(1, 65) if n not in (9, 19, 32, 33, 34)]\n\
    for n in heard: signal.signal(n, lambda n, frame: print('heard', n, flush=True))\n\
    print('ready', flush=True)\n\
    while True: time.sleep(0.05)\n";

/// What somebody may send: all but faults, what cannot be caught, and what the C library keeps for itself.
pub(crate) fn sendable() -> impl Iterator<Item = i32> {
    (1..=64).filter(|signal| ![4, 5, 7, 8, 9, 11, 13, 17, 19, 21, 22, 31, 32, 33, 34].contains(signal))
}

#[test]
fn every_signal_that_somebody_may_send_reaches_the_command() {
    let sandbox = Sandbox::with_token(VALUE.as_bytes());
    let mut child = sandbox.with_secrets(&["--mask", "--", "python3", "-c", LISTENER]).start();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "ready");
    let mut running = Running(child);
    for signal in sendable() {
        let number = signal.to_string();
        sandbox.command("/bin/kill", &["-s", &number, &running.0.id().to_string()]).run().ok();
        assert_eq!(lines.next(), Some(format!("heard {signal}")));
    }
    running.end();
}

/// Sets an alarm, which an exec keeps, and becomes a masked command that hears it or ends by itself.
pub(crate) const ALARMED: &str = "import os, signal; signal.alarm(3)\n\
    line = 'trap \"echo heard; exit 3\" ALRM; for i in $(seq 200); do sleep 0.05; done'\n\
    os.execvp('with-secrets', ['with-secrets', '--mask', '--', 'sh', '-c', line])";

#[test]
fn an_alarm_that_was_set_before_reaches_the_command() {
    let sandbox = Sandbox::with_token(VALUE.as_bytes());
    let ended = sandbox.command(needed("python3"), &["-c", ALARMED]).run();
    assert_eq!((ended.status, ended.text().as_str()), (3, "heard\n"), "{}", ended.stderr);
}

#[test]
fn a_command_in_a_pipe_is_stopped_with_what_stands_before_it() {
    let sandbox = Sandbox::with_token(VALUE.as_bytes());
    // A job of a shell: a process group that nobody watches over cannot be stopped (XBD 3.245).
    let line = "set -m; with-secrets --mask -- sh -c 'echo $$ >command; exec sleep 60' >out & \
                echo $! >relay; exec sleep 1000";
    let mut shell = Running(sandbox.command("/bin/bash", &["-c", line]).start());
    let pid = |name: &str| {
        let file = sandbox.path("project").join(name);
        let text = || std::fs::read_to_string(&file).unwrap_or_default();
        eventually("the pid is written", || text().ends_with('\n'));
        text().trim().parse::<u32>().unwrap()
    };
    let (relay, command) = (pid("relay"), pid("command"));
    let state = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(") ").next().unwrap()[..1].to_owned()
    };
    let send = |signal: &str| sandbox.command("/bin/kill", &[signal, &relay.to_string()]).run().ok();
    for _ in 0..2 {
        send("-TSTP");
        eventually("both are stopped", || state(relay) == "T" && state(command) == "T");
        send("-CONT");
        eventually("both go on", || state(relay) != "T" && state(command) != "T");
    }
    for pid in [relay, command] {
        let _ = sandbox.command("/bin/kill", &["-KILL", &pid.to_string()]).run();
    }
    shell.end();
}

#[test]
fn a_reader_that_goes_away_ends_the_command() {
    let sandbox = Sandbox::with_token(VALUE.as_bytes());
    let line = "with-secrets --mask -- yes | head -n 1; echo ${PIPESTATUS[0]}";
    let shown = sandbox.command("/bin/bash", &["-c", line]).run().ok();
    assert_eq!(shown.text(), "y\n141\n");
}

#[test]
fn output_that_is_lost_is_told() {
    let sandbox = Sandbox::with_token(VALUE.as_bytes());
    let line = "with-secrets --mask -- echo lost >/dev/full";
    sandbox.command("/bin/sh", &["-c", line]).run().refused(125, "No space left on device");
}

#[test]
fn what_the_command_leaves_running_keeps_nobody_waiting_and_its_last_words_arrive() {
    let sandbox = Sandbox::with_token(VALUE.as_bytes());
    let line = "sleep 1000 & echo $!; (sleep 0.1; echo \"late $TWINE_PASSWORD\") & exit 4";
    let ended = masked(&sandbox, line);
    assert_eq!(ended.status, 4);
    let text = ended.text();
    let (pid, rest) = text.split_once('\n').unwrap();
    assert_eq!(rest, "late ***\n");
    sandbox.command("/bin/kill", &[pid]).run().ok();
}

#[test]
fn values_too_short_to_hide_are_named_once_and_shown() {
    let sandbox = Sandbox::with_token(b"1234567");
    let vars = format!("SHORT=abc\nLONG={VALUE}\nNONE=\n");
    sandbox.keyloan(&["item", "set", "more", "vars"]).stdin(vars).run().ok();
    sandbox.write("project/.keyloan.toml", "[sets.pypi.env]\nTWINE_PASSWORD = \"local://pypi/token\"\n");
    sandbox.keyloan(&["trust"]).run().ok();
    let show = "echo $TWINE_PASSWORD $SHORT $LONG";
    let shown =
        sandbox.with_secrets(&["--mask", "-s", "pypi", "-s", "more", "--", "sh", "-c", show]).run().ok();
    assert_eq!(shown.text(), "1234567 abc ***\n");
    let note = "keyloan: too short to be hidden, with less than 8 bytes:";
    assert!(
        shown.stderr.starts_with(note) && shown.stderr.matches("keyloan:").count() == 1,
        "{}",
        shown.stderr
    );
    assert!(shown.stderr.contains("TWINE_PASSWORD") && shown.stderr.contains("SHORT"), "{}", shown.stderr);
    assert!(!shown.stderr.contains("NONE") && !shown.stderr.contains("LONG"), "{}", shown.stderr);
}

#[test]
fn large_output_and_input_pass_unchanged() {
    let sandbox = Sandbox::with_token(VALUE.as_bytes());
    let line = "head -c 30000000 /dev/urandom >data; \
        with-secrets --mask -- cat <data | cmp - data && with-secrets --mask -- cat data >copy && cmp data copy && \
        with-secrets --mask -- sh -c 'cat data; printf %s \"$TWINE_PASSWORD\"' | tail -c 4";
    let shown = sandbox.command("/bin/sh", &["-c", line]).run().ok();
    assert_eq!(&shown.stdout[1..], b"***");
}

#[test]
fn one_pipe_for_both_streams_keeps_their_order() {
    let sandbox = Sandbox::with_token(VALUE.as_bytes());
    let line = "with-secrets --mask -- sh -c 'for i in 1 2 3 4 5 6 7 8; do echo $i; echo $i >&2; done' 2>&1 | tr '\\n' ' '";
    let shown = sandbox.command("/bin/sh", &["-c", line]).run().ok();
    assert_eq!(shown.text(), "1 1 2 2 3 3 4 4 5 5 6 6 7 7 8 8 ");
}

#[test]
fn the_largest_values_are_hidden() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    let mut manifest = "[env]\n".to_owned();
    for (at, letter) in ["A", "B", "C", "D"].into_iter().enumerate() {
        let value = format!("{}{letter}", "0123456789abcdef\n".repeat(6000 + at));
        sandbox.keyloan(&["item", "set", "big", letter]).stdin(value).run().ok();
        manifest.extend([letter, " = \"local://big/", letter, "\"\n"]);
    }
    sandbox.write("project/.keyloan.toml", manifest);
    sandbox.keyloan(&["trust"]).run().ok();
    let line =
        "printf '%s|' \"$D\" \"$A\"; printf %s \"$B\" | base64 -w0; printf '|%s' \"$C\" | head -c 90000";
    let shown = masked(&sandbox, line).ok().text();
    assert!(shown.starts_with("***|***|***") && shown.len() > 90_000, "{}", &shown[..100]);
    assert_eq!(shown.matches("***").count(), 3);
}

/// What a command finds of itself, with and without keyloan before it.
fn process_state(sandbox: &Sandbox, before: &str, prefix: &str) -> String {
    let look =
        "grep -E '^Sig(Ign|Blk|Cgt)' /proc/self/status; ls /proc/self/fd | wc -l; umask; pwd; ulimit -c";
    let line = format!("{before} exec {prefix} sh -c \"{look}\"");
    sandbox.command("/bin/sh", &["-c", &line]).run().ok().text()
}

#[test]
fn the_masked_command_finds_signals_and_descriptors_as_without_keyloan() {
    let sandbox = Sandbox::with_token(VALUE.as_bytes());
    for before in ["", "trap '' PIPE;", "trap '' PIPE HUP INT CHLD USR1; umask 027;", "exec 7</dev/null;"] {
        let without = process_state(&sandbox, before, "");
        assert_eq!(process_state(&sandbox, before, "with-secrets --mask --"), without, "{before}");
    }
}

#[test]
fn the_loan_lasts_until_the_masked_command_ends() {
    let sandbox = Sandbox::with_token(VALUE.as_bytes());
    let mut child = sandbox.with_secrets(&["--mask", "--", "cat"]).start();
    eventually("the loan is out", || sandbox.status()["loans"] == 1);
    drop(child.stdin.take());
    finished(child);
    eventually("the loan has ended", || sandbox.status()["loans"] == 0);
}
