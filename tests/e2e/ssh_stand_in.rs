//! `keyloan ssh agent` in the place of `ssh-agent`: what scripts read, end and run with it.

use keyloan_e2e::approver::ALLOW;
use keyloan_e2e::programs::bin;
use keyloan_e2e::sandbox::Running;
use keyloan_e2e::{Output, Sandbox, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::Path;

struct StandIn {
    socket: String,
    pid: i32,
}

impl StandIn {
    /// Takes apart what was printed, which has to be what `ssh-agent -s` prints.
    #[track_caller]
    fn read(printed: &str) -> Self {
        let part = |name: &str| {
            let rest = printed.split(&format!("{name}=")).nth(1).unwrap_or_else(|| panic!("{printed}"));
            rest.split(';').next().unwrap().to_owned()
        };
        let (socket, pid) = (part("SSH_AUTH_SOCK"), part("SSH_AGENT_PID"));
        let form = format!(
            "SSH_AUTH_SOCK={socket}; export SSH_AUTH_SOCK;\nSSH_AGENT_PID={pid}; export SSH_AGENT_PID;\n\
             echo Agent pid {pid};\n"
        );
        assert_eq!(printed, form);
        Self { socket, pid: pid.parse().unwrap() }
    }

    #[track_caller]
    fn start(sandbox: &Sandbox, arguments: &[&str]) -> Self {
        Self::read(&agent(sandbox, arguments).ok().text())
    }

    fn has_ended(&self) -> bool {
        !Path::new(&format!("/proc/{}", self.pid)).exists() && !Path::new(&self.socket).exists()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid), signal).unwrap();
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        // A test that failed leaves it; the socket tells that the pid is still its own.
        if Path::new(&self.socket).exists() {
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
    }
}

fn agent(sandbox: &Sandbox, arguments: &[&str]) -> Output {
    sandbox.keyloan(&[&["ssh", "agent"], arguments].concat()).run()
}

/// Comments of the keys that an agent lists.
fn listed(sandbox: &Sandbox, socket: &str) -> Vec<String> {
    let list = sandbox.ssh_add(socket, &["-L"]);
    // `ssh-add` says with 1 that there are none, with 2 that there is no agent.
    assert!(list.status < 2, "{}", list.stderr);
    let text = list.text();
    let lines = text.lines().filter(|line| line.starts_with("ssh-"));
    lines.filter_map(|line| line.split_whitespace().nth(2)).map(str::to_owned).collect()
}

#[test]
fn what_is_added_at_a_stand_in_stays_there_and_goes_with_it() {
    let sandbox = Sandbox::with_approver(ALLOW);
    let daemon = sandbox.daemon().unwrap();
    let key = sandbox.key_file("id", &[]).display().to_string();
    sandbox.keyloan(&["ssh", "generate", "vaults", "--comment", "vault"]).run().ok();
    let (one, two) = (StandIn::start(&sandbox, &["-s"]), StandIn::start(&sandbox, &["-s"]));
    let socket = fs::symlink_metadata(&one.socket).unwrap();
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    let directory = Path::new(&one.socket).parent().unwrap();
    assert_eq!(fs::metadata(directory).unwrap().permissions().mode() & 0o777, 0o700);
    assert_ne!(one.socket, two.socket);
    sandbox.ssh_add(&one.socket, &[&key]).ok();
    assert_eq!(listed(&sandbox, &one.socket), ["vault", "me@here"]);
    assert_eq!(listed(&sandbox, &two.socket), ["vault"]);
    assert_eq!(listed(&sandbox, &sandbox.agent_socket()), ["vault"]);
    sandbox.ssh_add(&two.socket, &[&key]).ok();
    sandbox.ssh_add(&one.socket, &["-D"]).ok();
    assert_eq!(listed(&sandbox, &two.socket), ["vault", "me@here"]);
    assert!(sandbox.keyloan(&["ssh", "list"]).run().ok().text().contains("(added)  ssh-ed25519 256"));
    let ended = sandbox.keyloan(&["ssh", "agent", "-k"]).env("SSH_AGENT_PID", two.pid.to_string()).run().ok();
    assert_eq!(
        ended.text(),
        format!("unset SSH_AUTH_SOCK;\nunset SSH_AGENT_PID;\necho Agent pid {} killed;\n", two.pid)
    );
    eventually("the stand-in ends", || two.has_ended());
    eventually("its keys go", || sandbox.ssh_keys().len() == 1);
    assert!(!one.has_ended());
    for (signal, stand_in) in [
        (Signal::SIGTERM, one),
        (Signal::SIGHUP, StandIn::start(&sandbox, &[])),
        (Signal::SIGINT, StandIn::start(&sandbox, &[])),
    ] {
        assert_eq!(listed(&sandbox, &stand_in.socket), ["vault"]);
        stand_in.signal(signal);
        eventually("the stand-in ends", || stand_in.has_ended());
    }
    assert_eq!(sandbox.daemon(), Some(daemon));
    assert!(sandbox.keyloan(&["log"]).run().ok().text().contains("added to the ssh agent: SHA256:"));
}

#[test]
fn a_script_for_ssh_agent_does_what_it_did() {
    let sandbox = Sandbox::with_approver(ALLOW);
    let key = sandbox.key_file("id", &[]).display().to_string();
    // A link of that name, first in the path, is all that the script sees.
    let directory = sandbox.make_directory("bin");
    symlink(bin().join("keyloan"), directory.join("ssh-agent")).unwrap();
    let script = "eval \"$(ssh-agent)\" && test -S \"$SSH_AUTH_SOCK\" && ssh-add -q \"$1\" && ssh-add -L \
                  && old=$SSH_AUTH_SOCK && eval \"$(ssh-agent -k)\" \
                  && echo \"${SSH_AUTH_SOCK-unset} ${SSH_AGENT_PID-unset}\" && echo \"$old\"";
    let path = format!("{}:/usr/bin:/bin", directory.display());
    let ran = sandbox.command("/bin/sh", &["-c", script, "sh", &key]).env("PATH", &path).run().ok();
    let lines: Vec<String> = ran.text().lines().map(str::to_owned).collect();
    assert!(lines[0].starts_with("Agent pid "), "{lines:?}");
    assert!(lines[1].ends_with(" me@here"), "{lines:?}");
    assert_eq!(lines[2], format!("{} killed", lines[0]));
    assert_eq!(lines[3], "unset unset");
    eventually("the socket is gone", || !Path::new(&lines[4]).exists());
    for arguments in [&["--no-such"][..], &["-x"], &["-s", "-c"], &["-d", "-D"], &["-k", "true"]] {
        let refused = sandbox.command(directory.join("ssh-agent"), arguments).run();
        refused.refused(1, "Usage: ssh-agent [-c | -s]");
    }
}

#[test]
fn csh_gets_its_own_lines() {
    let sandbox = Sandbox::with_vault();
    for (arguments, shell) in [(&["ssh", "agent", "-c"][..], "/bin/sh"), (&["ssh", "agent"], "/usr/bin/tcsh")]
    {
        let printed = sandbox.keyloan(arguments).env("SHELL", shell).run().ok().text();
        let words: Vec<&str> = printed.split([' ', ';', '\n']).filter(|word| !word.is_empty()).collect();
        let stand_in = StandIn { socket: words[2].to_owned(), pid: words[5].parse().unwrap() };
        let (socket, pid) = (&stand_in.socket, stand_in.pid);
        assert_eq!(
            printed,
            format!("setenv SSH_AUTH_SOCK {socket};\nsetenv SSH_AGENT_PID {pid};\necho Agent pid {pid};\n")
        );
        let end = sandbox.keyloan(&["ssh", "agent", "-c", "-k"]).env("SSH_AGENT_PID", pid.to_string());
        assert!(end.run().ok().text().starts_with("unsetenv SSH_AUTH_SOCK;\nunsetenv SSH_AGENT_PID;\n"));
        eventually("the stand-in ends", || stand_in.has_ended());
    }
}

#[test]
fn what_is_no_stand_in_is_not_ended() {
    let sandbox = Sandbox::with_vault();
    agent(&sandbox, &["-k"]).refused(1, "SSH_AGENT_PID is not set");
    for (pid, said) in [("", "is no process"), ("-1", "is no process"), ("1", "is no process")] {
        let end = sandbox.keyloan(&["ssh", "agent", "-k"]).env("SSH_AGENT_PID", pid).run();
        end.refused(1, said);
    }
    let daemon = sandbox.daemon().unwrap();
    let end = sandbox.keyloan(&["ssh", "agent", "-k"]).env("SSH_AGENT_PID", daemon.to_string()).run();
    end.refused(1, "SSH_AGENT_PID is the daemon");
    assert_eq!(sandbox.daemon(), Some(daemon));
}

#[test]
fn added_keys_have_the_stand_ins_lifetime_unless_they_have_their_own() {
    let sandbox = Sandbox::with_approver(ALLOW);
    let (one, two) = (sandbox.key_file("one", &[]), sandbox.key_file("two", &[]));
    let hour = StandIn::start(
        &sandbox,
        &["-t", "1h30m", "-E", "SHA256", "-P", "/nowhere/*", "-O", "no-restrict-websafe"],
    );
    sandbox.ssh_add(&hour.socket, &[one.to_str().unwrap()]).ok();
    sandbox.ssh_add(&hour.socket, &["-t", "600", two.to_str().unwrap()]).ok();
    let left: Vec<u64> = sandbox.ssh_keys().iter().map(|key| key["expires"].as_u64().unwrap()).collect();
    assert!((601..=5400).contains(&left[0]) && left[1] <= 600, "{left:?}");
    let second = StandIn::start(&sandbox, &["-t", "1"]);
    sandbox.ssh_add(&second.socket, &[one.to_str().unwrap()]).ok();
    eventually("the key is forgotten", || listed(&sandbox, &second.socket).is_empty());
    assert_eq!(listed(&sandbox, &hour.socket).len(), 2);
    agent(&sandbox, &["-t", "soon"]).refused(2, "invalid lifetime");
    agent(&sandbox, &["-E", "crc"]).refused(2, "invalid value 'crc'");
    agent(&sandbox, &["-O", "else"]).refused(2, "invalid value 'else'");
    for stand_in in [hour, second] {
        stand_in.signal(Signal::SIGTERM);
        eventually("the stand-in ends", || stand_in.has_ended());
    }
}

#[test]
fn a_command_has_the_agent_for_as_long_as_it_runs() {
    let sandbox = Sandbox::with_vault();
    let script = "ssh-add -l; echo $$; \
                  echo \"SSH_AUTH_SOCK=$SSH_AUTH_SOCK; export SSH_AUTH_SOCK;\"; \
                  echo \"SSH_AGENT_PID=$SSH_AGENT_PID; export SSH_AGENT_PID;\"; \
                  echo \"Agent pid $SSH_AGENT_PID;\"; exec >&- 2>&-; read line; exit 7";
    let command = sandbox.keyloan(&["ssh", "agent", "sh", "-c", script]).env("SSH_AUTH_SOCK", "/nowhere");
    let mut running = Running(command.start());
    let mut printed = Vec::new();
    for line in BufReader::new(running.0.stdout.take().unwrap()).lines() {
        printed.push(line.unwrap());
    }
    assert_eq!(printed[0], "The agent has no identities.");
    assert_eq!(printed[1], running.0.id().to_string(), "keyloan became the command");
    let stand_in = StandIn::read(&format!("{}\n{}\necho {}\n", printed[2], printed[3], printed[4]));
    assert!(!stand_in.has_ended());
    // The command has no child that it did not start.
    let children = format!("/proc/{0}/task/{0}/children", running.0.id());
    assert_eq!(fs::read_to_string(children).unwrap(), "");
    drop(running.0.stdin.take());
    assert_eq!(running.0.wait().unwrap().code(), Some(7));
    eventually("the stand-in ends with its command", || stand_in.has_ended());
    let names = || fs::read_dir(sandbox.path("run/keyloan")).unwrap().count();
    let before = names();
    agent(&sandbox, &["no-such-command"]).refused(127, "command not found");
    agent(&sandbox, &["/etc/passwd"]).refused(126, "cannot run /etc/passwd");
    assert_eq!(names(), before);
    agent(&sandbox, &["sh", "-c", "kill -9 $$"]).signal.filter(|signal| *signal == 9).unwrap();
    eventually("no socket is left", || names() == before);
}

#[test]
fn in_the_foreground_it_stays_until_a_signal() {
    let sandbox = Sandbox::with_vault();
    for flag in ["-D", "-d"] {
        let mut running = Running(sandbox.keyloan(&["ssh", "agent", flag, "-a", "here.sock"]).start());
        let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
        let socket = sandbox.path("project/here.sock");
        let first = lines.next().unwrap().unwrap();
        assert_eq!(first, format!("SSH_AUTH_SOCK={}; export SSH_AUTH_SOCK;", socket.display()));
        assert_eq!(lines.next().unwrap().unwrap(), format!("echo Agent pid {};", running.0.id()));
        assert!(listed(&sandbox, socket.to_str().unwrap()).is_empty());
        agent(&sandbox, &["-a", "here.sock"]).refused(2, "here.sock: Address");
        assert!(socket.exists());
        kill(Pid::from_raw(running.0.id().cast_signed()), Signal::SIGTERM).unwrap();
        assert!(running.0.wait().unwrap().success());
        assert!(!socket.exists());
    }
}

#[test]
fn a_stand_in_outlives_the_daemon_and_calls_the_next_one() {
    let sandbox = Sandbox::with_approver(ALLOW);
    sandbox.keyloan(&["ssh", "generate", "vaults", "--comment", "vault"]).run().ok();
    let key = sandbox.key_file("id", &[]).display().to_string();
    let stand_in = StandIn::start(&sandbox, &["-s"]);
    for _ in 0..2 {
        sandbox.ssh_add(&stand_in.socket, &[&key]).ok();
        assert_eq!(listed(&sandbox, &stand_in.socket).len(), 2);
        let daemon = sandbox.daemon();
        sandbox.stop();
        // What was added went with the daemon; the vault's keys are listed, and so is nothing that is not served.
        assert_eq!(listed(&sandbox, &stand_in.socket), ["vault"]);
        assert_ne!(sandbox.daemon(), daemon);
        sandbox.unlock().ok();
    }
    sandbox.ssh_add(&stand_in.socket, &[&key]).ok();
    stand_in.signal(Signal::SIGUSR1);
    eventually("the added keys go", || listed(&sandbox, &stand_in.socket) == ["vault"]);
    stand_in.signal(Signal::SIGTERM);
    eventually("the stand-in ends", || stand_in.has_ended());
}

#[test]
fn a_runtime_directory_too_deep_for_a_socket_is_got_around() {
    let sandbox = Sandbox::with_vault();
    sandbox.stop();
    let deep = sandbox.make_directory(&format!("run/{}", "d".repeat(90)));
    let printed = sandbox.keyloan(&["ssh", "agent", "-s"]).env("XDG_RUNTIME_DIR", &deep).run().ok().text();
    let stand_in = StandIn::read(&printed);
    assert!(stand_in.socket.starts_with("/tmp/ssh-"), "{}", stand_in.socket);
    let directory = Path::new(&stand_in.socket).parent().unwrap().to_owned();
    assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(listed(&sandbox, &stand_in.socket).is_empty());
    stand_in.signal(Signal::SIGTERM);
    eventually("it is gone", || stand_in.has_ended() && !directory.exists());
    sandbox.keyloan(&["daemon", "stop"]).env("XDG_RUNTIME_DIR", &deep).run().ok();
}
