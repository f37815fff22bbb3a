//! Rules and grants in the hands of a program that wants more. The undefended victims are a lender that reads its rules
//! from a file of the user, and OpenSSH's own agent, whose one yes is for everybody.

use keyloan_e2e::approver;
use keyloan_e2e::sshd::Ssh;
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{Output, PIN, Sandbox};
use std::io::{BufRead, BufReader, Write};

const RULES: &str = "env=ask\nitem.read=deny\n";

/// Gives out the token where its rules, a plain file, allow it.
const LENDER: &str = "#!/bin/sh\ngrep -qx 'item.read=allow' \"$HOME/rules\" && echo tok\n";

/// What the attacker runs, in words of a shell.
fn attack(sandbox: &Sandbox, line: &str) -> Output {
    sandbox.command("/bin/sh", &["-c", line]).run()
}

#[test]
fn no_program_gives_itself_a_rule() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.policies(&["item.read=deny", "env[item=pypi]=allow 2/1h", "approver.command="]);
    sandbox.write("home/rules", RULES);
    let lender = sandbox.write_program("lender", LENDER).display().to_string();
    assert_eq!(sandbox.command(&lender, &[] as &[&str]).run().text(), "");
    let edit = "sed -i s/item.read=deny/item.read=allow/ ~/rules";
    attack(&sandbox, edit).ok();
    assert_eq!(sandbox.command(&lender, &[] as &[&str]).run().text(), "tok\n", "the victim gives in");

    let get = || sandbox.keyloan(&["item", "get", "pypi", "token"]).run();
    let shown = || sandbox.keyloan(&["policy", "show"]).run().ok().text();
    let before = shown();
    for settings in [
        "item.read=allow",
        "item.read=",
        "item.read=ask",
        "item.read[item=pypi]=allow",
        "env=allow",
        "env[item=pypi]=allow",
        // Each of them one more count of two.
        "'env[item=pyp*]=allow 2/1h'",
        "'env[item=pypi]=allow 2/1m'",
        "trust=deny env=allow",
        // Whoever asks could call itself so.
        "'item.read[program=/usr/bin/git]=allow'",
        "'item.read[repository=/]=allow'",
        "approver.command=/bin/true",
        "ssh.upstream=/run/mine.sock",
        "grants=terminal-8h",
    ] {
        let tried = attack(&sandbox, &format!("keyloan policy set {settings}"));
        assert!([2, 6].contains(&tried.status), "{settings}: {tried:?}");
        // A guess is no passphrase.
        let guessed =
            attack(&sandbox, &format!("echo guess | keyloan policy set {settings} --passphrase-fd 0"));
        assert!([2, 6].contains(&guessed.status), "{settings}: {guessed:?}");
    }
    // In the file that it can write.
    let config = "mkdir -p ~/.config/keyloan && chmod 700 ~/.config/keyloan && \
                  printf '[policy]\\n\"item.read\" = \"allow\"\\n' >~/.config/keyloan/config.toml";
    attack(&sandbox, config).ok();
    assert_eq!(shown(), before);
    get().refused(5, "the policy forbids it (item.read=deny)");
    assert!(sandbox.events("released").is_empty());
}

#[test]
fn a_limit_is_not_begun_anew_by_making_it_lower() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.policies(&["env=allow 5/1h", "approver.command="]);
    let lend = || sandbox.with_secrets(&["--", "true"]).run();
    // Five uses, and never five and four and three.
    let mut lent = 0;
    for limit in [4, 3, 2, 1] {
        while lend().status == 0 {
            lent += 1;
        }
        attack(&sandbox, &format!("keyloan policy set 'env=allow {limit}/1h'")).ok();
    }
    assert_eq!(lent, 5);
    lend().refused(125, "there is no way to ask");
}

/// Signs with the key `work`, by whatever agent there is.
fn signing(ssh: &Ssh<'_>) -> String {
    format!("echo text | ssh-keygen -Y sign -q -n file -f {}.pub", ssh.path("work").display())
}

#[test]
fn whoever_joins_a_granted_commands_process_group_gets_nothing_of_it() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &[]);
    let key = ssh.key("work", &["ed25519"]);
    ssh.store("work", &[]);
    let (_agent, plain) = ssh.plain_agent();
    ssh.client_of(&plain, "ssh-add", &["-q", &key]).run().ok();
    ssh.answered_by(approver::covering(&ssh.kept(), "command"), &[]);
    let line = signing(&ssh);

    let script = "while read -r line; do eval \"$line\" >/dev/null 2>&1; echo $?; done";
    let mut victim = ssh.client("sh", &["-c", script]).as_job().start();
    let mut from = BufReader::new(victim.stdout.take().unwrap());
    let mut run = || {
        writeln!(victim.stdin.as_ref().unwrap(), "{line}").unwrap();
        let mut status = String::new();
        from.read_line(&mut status).unwrap();
        assert_eq!(status, "0\n");
    };
    run();
    run();
    assert_eq!((ssh.questions().len(), sandbox.events("granted").len()), (1, 1));

    let pid = victim.id().to_string();
    let join = "import os, sys; os.setpgid(0, int(sys.argv[1])); assert os.getpgrp() == int(sys.argv[1]); \
                os.execvp('sh', ['sh', '-c', sys.argv[2]])";
    let attack = |socket: &str| ssh.client_of(socket, "python3", &["-c", join, &pid, &line]).run();
    // The agent that asked for nothing more gives the joined process what it gives everybody.
    assert!(attack(&plain).ok().text().contains("BEGIN SSH SIGNATURE"));
    // Here it is asked for by itself, and named as itself.
    attack(&ssh.socket()).ok();
    assert_eq!(ssh.questions().len(), 2);
    let granted = sandbox.events("granted");
    let holder = granted.last().unwrap()["holder"].as_str().unwrap().to_owned();
    assert!(!holder.contains(&format!("(pid {pid})")), "{holder}");
    // The grant itself is as it was.
    run();
    assert_eq!(ssh.questions().len(), 2);
    let _ = victim.kill();
    let _ = victim.wait();
}

#[test]
fn whoever_asks_from_the_group_of_the_shell_is_offered_no_grant_for_the_shell() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &[]);
    ssh.key("work", &["ed25519"]);
    ssh.store("work", &[]);
    sandbox.policy("approver.command=");
    let terminal = Terminal::open(&sandbox);
    terminal.tmux(&["new-window", "exec env PS1='here> ' bash --norc -i"]).ok();
    terminal.expect("here>");
    terminal.run(&format!("{}; set +m", ssh.exports()));
    // What the shell starts stays in its group now, and there could have been brought by setpgid(2).
    let line = format!("{}; echo ended $?", signing(&ssh));
    let asked = || {
        terminal.run(&line);
        let shown = terminal.expect("PIN to allow").replace("\n          ⋮ ", "");
        assert!(shown.contains("with this key, for /usr/bin/ssh-keygen"), "{shown}");
        terminal.type_text(&format!("{PIN}+c"));
        terminal.press("Enter");
        terminal.expect("ended 0");
    };
    asked();
    asked();
}
