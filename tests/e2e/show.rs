//! The show: one terminal answers (`keyloan approve`) what two others ask, a push over ssh and a loan. What waits is
//! queued, what a grant covers is answered by it, what is revoked is asked again, and the log tells the same story.

use keyloan_e2e::sshd::Ssh;
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{PASSPHRASE, PIN, Sandbox, eventually};

const HOST: &str = "git.example.org";
const ON_BOARD: &str = "a allow, with the PIN";

/// Two branches pushed at once, and a third when somebody says so.
const RELEASE: &str = "git push -q origin one & git push -q origin two & wait; echo both are pushed\n\
                       while ! test -e ../go; do sleep 0.05; done; git push -q origin three\n";

fn repository(ssh: &Ssh<'_>) {
    let bare = ssh.sandbox.path("project/bare.git").display().to_string();
    let here = ssh.sandbox.make_directory("project/repository");
    let script = "git init -q --bare \"$1\" && git init -q -b one && git config user.name Ada && \
                  git config user.email ada@example.org && git commit -q --allow-empty -m one && \
                  git branch two && git branch three && git remote add origin \"$2:$1\"";
    ssh.client("sh", &["-ec", script, "sh", &bare, HOST]).within(&here).run().ok();
    ssh.sandbox.write("project/repository/release", RELEASE);
}

fn answer(board: &Terminal<'_>, typed: &str) {
    eventually("the PIN is wanted", || {
        board.type_text("a");
        board.screen().contains("PIN to allow, Enter alone goes back:")
    });
    board.press("C-u");
    board.type_text(typed);
    board.press("Enter");
}

#[track_caller]
fn tells_in_order(told: &str, parts: &[&str]) {
    let mut rest = told;
    for part in parts {
        let at =
            rest.find(part).unwrap_or_else(|| panic!("'{part}' is not there, or too early, in:\n{told}"));
        rest = &rest[at + part.len()..];
    }
}

#[test]
fn a_terminal_answers_a_push_and_a_loan_and_the_log_tells_the_story() {
    let sandbox = Sandbox::with_token(b"tok");
    let ssh = Ssh::of(&sandbox);
    ssh.key("work", &["ed25519"]);
    ssh.store("work", &[]);
    let server = ssh.server(HOST, &[ssh.public("work")]);
    repository(&ssh);
    sandbox.policy("approver.command=");
    sandbox.write("passphrase", PASSPHRASE);
    let board = Terminal::sized(&sandbox, "board", 110, 50);
    board.run("keyloan approve --passphrase-fd 3 3<../passphrase");
    board.expect("nothing is asked here");
    let [push, lend] = ["push", "lend"].map(|name| Terminal::sized(&sandbox, name, 120, 40));
    push.run(&format!("{}; cd repository; clear", ssh.exports()));

    // Two logins of one command, and a loan: one question, two that wait.
    push.run("sh release; echo ended $?");
    board.expect("1 more waits:");
    lend.run("with-secrets -- printenv TWINE_PASSWORD; echo ended $?");
    let shown = board.expect("2 more wait:");
    for part in [
        "\nkeyloan: log in with an ssh key\n",
        HOST,
        "git-receive-pack",
        "lend 2 variables to a command (pid ",
    ] {
        assert!(shown.contains(part), "'{part}' is not in:\n{shown}");
    }
    assert_eq!(sandbox.status()["pending"], 3);

    // The yes to the whole command answers the login that waits as well, before it has its turn.
    answer(&board, &format!("{PIN}+c"));
    push.expect("both are pushed");
    assert_eq!(server.accepted(), 2);
    let shown = board.expect("\nkeyloan: lend 2 variables to a command\n");
    assert!(shown.contains("nothing else waits") && shown.contains(" covered: grant 1"), "{shown}");
    assert!(!lend.screen().contains("\nended"), "{}", lend.screen());
    answer(&board, PIN);
    lend.expect("tok\nended 0");

    // What is revoked is asked again.
    let grants = sandbox.keyloan(&["grants"]).run().ok().text();
    assert!(
        grants.starts_with("1  ssh.login: ") && grants.contains(&format!("@{HOST} with work SHA256:")),
        "{grants}"
    );
    sandbox.keyloan(&["revoke", "1"]).run().ok();
    board.expect("grant 1 ended: revoked");
    sandbox.write("project/go", "");
    board.expect(ON_BOARD);
    eventually("it is denied", || {
        board.type_text("d");
        push.screen().contains("ended 128")
    });
    assert_eq!(server.accepted(), 2);

    let told = sandbox.keyloan(&["log"]).run().ok().text();
    tells_in_order(
        &told,
        &[
            "a terminal answers from now on",
            " asked: log in with an ssh key work SHA256:",
            " asked: log in with an ssh key work SHA256:",
            " asked: lend 2 variables to a command TWINE_PASSWORD",
            " approved (ssh.login=ask): PIN on pts/",
            " granted 1: ssh.login: ",
            " covered (ssh.login=ask): grant 1",
            " approved (env=ask): PIN on pts/",
            " lent: TWINE_PASSWORD",
            "grant 1 ended: revoked",
            " asked: log in with an ssh key work SHA256:",
            " declined (ssh.login=ask): it was declined",
        ],
    );
    assert_eq!(told.matches(" signed: ").count(), 2, "{told}");
    sandbox.keyloan(&["log", "--verify"]).run().ok();
}
