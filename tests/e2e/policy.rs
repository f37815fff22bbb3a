//! The policy: what is explained is what happens, what contradicts is refused, what loosens wants the passphrase.

use keyloan_e2e::approver;
use keyloan_e2e::programs::needed;
use keyloan_e2e::sshd::Ssh;
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{Output, PASSPHRASE, PIN, Sandbox};
use serde_json::Value;

const HOST: &str = "git.example.org";

/// The verdict of `policy explain` and the rule that made it.
#[track_caller]
fn explained(sandbox: &Sandbox, request: &str) -> (String, String) {
    let said = sandbox.keyloan(&["policy", "explain", "--json", request]).run().ok();
    let said: Value = serde_json::from_slice(&said.stdout).unwrap();
    (said["verdict"].as_str().unwrap().to_owned(), said["rule"].as_str().unwrap().to_owned())
}

/// Settings, then a request in words and the same in truth: both find the same rule, and the same becomes of them.
#[track_caller]
fn check(
    sandbox: &Sandbox,
    settings: &[&str],
    request: &str,
    real: &dyn Fn() -> Output,
    (verdict, rule): (&str, &str),
) {
    if !settings.is_empty() {
        sandbox.policies(settings);
    }
    assert_eq!(explained(sandbox, request), (verdict.to_owned(), rule.to_owned()), "{request}");
    let before = sandbox.events("decided").len();
    let output = real();
    let after = sandbox.events("decided");
    assert!(after.len() > before, "{request}: {output:?}");
    let decided = after.last().unwrap();
    let expected = match verdict {
        "ask" => "approved",
        "deny" => "denied",
        _ => "allowed",
    };
    assert_eq!((&decided["rule"], &decided["decision"]), (&rule.into(), &expected.into()), "{request}");
}

fn without_passphrase(sandbox: &Sandbox, settings: &[&str]) -> Output {
    sandbox.keyloan(&[&["policy", "set"], settings].concat()).run()
}

#[test]
fn what_is_explained_is_what_happens_when_something_is_lent_or_read() {
    let sandbox = Sandbox::with_token(b"tok");
    let repository = sandbox.make_directory("project/repository");
    sandbox.make_directory("project/repository/.git");
    sandbox.write("project/repository/.git/HEAD", "ref: refs/heads/main\n");
    sandbox.write("project/repository/.keyloan.toml", "[env]\nA = \"local://pypi/token\"\n");
    sandbox.keyloan(&["trust", "repository/.keyloan.toml"]).run().ok();
    sandbox.write("project/Makefile", "all:\n\twith-secrets --only TWINE_PASSWORD -- true\n");
    let lend = || sandbox.with_secrets(&["--only", "TWINE_PASSWORD", "--", "true"]).run();
    let there = || sandbox.with_secrets(&["--", "true"]).within(&repository).run();
    // A session of its own, so that all its programs can be seen.
    let make = || sandbox.command(needed("setsid"), &["-w", "make", "-s"]).run();
    let get = || sandbox.keyloan(&["item", "get", "pypi", "token"]).run();
    let (token, made) = ("env[item=pypi]", "env[item=pypi,program=/usr/bin/make]");
    let (twice, used_up) = ("env[item=pypi]=allow 2/1h", "env[item=pypi]=allow 2/1h, used up");
    check(&sandbox, &[], token, &lend, ("ask", "env=ask"));
    check(&sandbox, &["env[item=py*]=allow"], token, &lend, ("allow", "env[item=py*]=allow"));
    check(&sandbox, &["env[item=pypi]=ask"], token, &lend, ("ask", "env[item=pypi]=ask"));
    check(&sandbox, &[twice], token, &lend, ("allow 2/1h", twice));
    check(&sandbox, &[], token, &lend, ("allow 2/1h", twice));
    check(&sandbox, &[], token, &lend, ("ask", used_up));
    check(&sandbox, &["env[item=pypi]=allow"], token, &lend, ("allow", "env[item=pypi]=allow"));
    let rule = "env[program=/usr/bin/make]=ask";
    check(&sandbox, &[rule], made, &make, ("ask", rule));
    let here = repository.display();
    let rule = format!("env[repository={here}]=deny");
    let in_it = format!("env[item=pypi,repository={here}]");
    check(&sandbox, &[&rule], &in_it, &there, ("deny", &rule));
    check(&sandbox, &["env=deny"], token, &lend, ("deny", "env=deny"));
    let rule = "item.read[item=pypi]=deny";
    check(&sandbox, &[rule], "item.read[item=pypi]", &get, ("deny", rule));
}

#[test]
fn what_is_explained_is_what_happens_to_signatures() {
    let sandbox = Sandbox::with_vault();
    let ssh = Ssh::asked(&sandbox, &[]);
    ssh.key("work", &["ed25519"]);
    ssh.store("work", &[]);
    let server = ssh.server(HOST, &[ssh.public("work")]);
    let login = || ssh.ssh(&[&server.name, "true"]);
    let line = |namespace: &str| {
        format!("echo x | ssh-keygen -Y sign -q -n {namespace} -f {}.pub", ssh.path("work").display())
    };
    let file = || ssh.client("sh", &["-c", &line("file")]).run();
    let git = || ssh.client("sh", &["-c", &line("git")]).run();
    let forwarded = || ssh.ssh(&["-A", HOST, &line("file")]);
    let host_key = ssh.fingerprint(&format!("host-{HOST}"));
    // known_hosts names the host, and that counts for nothing.
    let bound = format!("ssh.login[item=work,hostkey={host_key}]");
    let named = "ssh.login[host=git.example.org]=allow";
    check(&sandbox, &[named], &bound, &login, ("ask", "ssh.login=ask"));
    sandbox.keyloan(&["ssh", "hosts", "pin", HOST]).run().ok();
    let pinned = format!("ssh.login[item=work,host={HOST},hostkey={host_key}]");
    check(&sandbox, &[], &pinned, &login, ("allow", named));
    let rule = "ssh.signature[namespace=git]=allow";
    let of_file = "ssh.signature[item=work,namespace=file]";
    check(&sandbox, &[rule], of_file, &file, ("ask", "ssh.signature=ask"));
    check(&sandbox, &[], "ssh.signature[item=work,namespace=git]", &git, ("allow", rule));
    let always = "what another host forwards is always asked";
    let from_there = "ssh.signature[item=work,namespace=file,forwarded]";
    check(&sandbox, &["ssh.signature=allow"], from_there, &forwarded, ("ask", always));
    let rule = "ssh.signature[forwarded]=deny";
    check(&sandbox, &[rule], from_there, &forwarded, ("deny", rule));
    sandbox.keyloan(&["ssh", "set", "work", "--confirm", "always"]).run().ok();
    check(&sandbox, &[], &pinned, &login, ("ask", "the key is confirmed at every use"));
}

#[test]
fn an_explanation_names_every_rule_that_is_met_and_what_a_yes_may_cover() {
    let sandbox = Sandbox::with_vault();
    sandbox.policies(&[
        "env=allow",
        "env[item=prod*]=ask",
        "env[program=/usr/bin/make]=ask-pin",
        "grants=command 10m",
    ]);
    let explain = |request: &str| sandbox.keyloan(&["policy", "explain", request]).run();
    assert_eq!(
        explain("env[item=prod-db]").ok().text(),
        "ask: env[item=prod*]=ask\n  also met: env=allow\n  \
         a yes may also cover: command, 10m\n"
    );
    assert_eq!(
        explain("env[item=prod-db,program=/usr/bin/make]").ok().text(),
        "ask-pin: env[program=/usr/bin/make]=ask-pin\n  also met: env=allow\n  \
         also met: env[item=prod*]=ask\n"
    );
    assert_eq!(
        explain("ssh.login[item=work,host=github.com]").ok().text(),
        "ask: ssh.login=ask\n  a yes may also cover: command, 10m\n"
    );
    assert_eq!(explain("item.write[item=x]").ok().text(), "ask: item.write=ask\n");
    explain("env[item=a*]").refused(2, "a condition is NAME=TEXT");
    explain("env[host=a]").refused(2, "a request for env has no host, so the rule would never be met");
    explain("enw").refused(2, "env?");
    assert!(sandbox.events("requested").is_empty(), "nothing was asked for");
}

#[test]
fn rules_that_contradict_each_other_are_refused_by_name_until_another_settles_it() {
    let sandbox = Sandbox::with_vault();
    let set = |settings: &[&str]| {
        sandbox.keyed(PASSPHRASE, &[&["policy", "set", "--passphrase-fd", "3"], settings].concat()).run()
    };
    set(&["ssh.login[item=work]=allow 20/1h"]).ok();
    let refused = set(&["ssh.login[host=github.com]=ask-pin"]);
    let refused = refused.refused(
        2,
        "'ssh.login[item=work]=allow 20/1h' and 'ssh.login[host=github.com]=ask-pin' say different things of the \
         same request",
    );
    assert!(refused.stderr.contains("hint: set a rule with the conditions of both"), "{}", refused.stderr);
    let shown = || sandbox.keyloan(&["policy", "show"]).run().ok().text();
    assert!(!shown().contains("github.com"));
    set(&["ssh.login[host=github.com]=ask-pin", "ssh.login[item=work,host=github.com]=ask"]).ok();
    assert!(shown().contains("\nssh.login[item=work,host=github.com]=ask\n"), "{}", shown());
    // Who takes away what settled it is told so, too.
    set(&["ssh.login[item=work,host=github.com]="]).refused(2, "say different things of the same request");
    // What only tightens contradicts nothing.
    set(&["ssh.login[program=/usr/bin/scp]=ask-pin", "ssh.login[host=evil.example.org]=deny"]).ok();
}

#[test]
fn what_only_tightens_wants_no_passphrase_and_everything_else_does() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.policies(&["env=allow", "env[item=prod]=deny", "item.read=allow 20/1h"]);
    for tighter in [
        "env[item=staging]=deny",
        "item.read=allow 10/1h",
        "deadline=30s",
        "loan.time=1h",
        "env=ask",
        "grants=",
    ] {
        without_passphrase(&sandbox, &[tighter]).ok();
    }
    let before = sandbox.keyloan(&["policy", "show"]).run().ok().text();
    let changes = sandbox.events("policy_changed").len();
    for looser in [
        "env=allow",
        "env[item=prod]=",
        "env[item=prod]=ask",
        "env[item=pypi]=allow 1/1h",
        "item.read=allow 11/1h",
        "item.read=allow 1/1m",
        "item.read[item=pypi]=allow 10/1h",
        "ssh.other=ask",
        "deadline=2m",
        "loan.time=2h",
        "loan.time=",
        "lock.idle=9h",
        "grants=command",
        "approver.command=",
        "approver.pinentry=/usr/bin/pinentry-qt",
        "ssh.upstream=/run/other.sock",
    ] {
        without_passphrase(&sandbox, &[looser]).refused(6, "there is no way to ask");
        // Nor among others that tighten.
        without_passphrase(&sandbox, &["trust=deny", looser]).refused(6, "there is no way to ask");
    }
    assert_eq!(sandbox.keyloan(&["policy", "show"]).run().ok().text(), before);
    assert_eq!(sandbox.events("policy_changed").len(), changes);
    sandbox.policies(&["env=allow"]);
}

#[test]
fn a_rule_allows_as_often_as_it_says_and_then_asks() {
    let sandbox = Sandbox::with_token(b"tok");
    let kept = sandbox.path("run/questions");
    sandbox.set_approver(approver::keeping(&kept));
    sandbox.policies(&["item.read=allow 3/1h"]);
    let get = || sandbox.keyloan(&["item", "get", "pypi", "token"]).run().ok();
    let asked = || approver::questions(&kept).len();
    get();
    get();
    // A lower limit is no new count.
    without_passphrase(&sandbox, &["item.read=allow 2/1h"]).ok();
    get();
    assert_eq!(asked(), 1);
    get();
    assert_eq!(asked(), 2);
    let decided = sandbox.events("decided").pop().unwrap();
    assert_eq!(decided["rule"], "item.read=allow 2/1h, used up");
}

#[test]
fn a_rule_about_a_program_counts_for_what_that_starts_and_for_what_hides() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.policies(&["env=allow", "env[program=/usr/bin/make]=deny"]);
    let nest = "n=$1; if [ $n -gt 0 ]; then sh \"$0\" $((n-1)); exit $?; fi; with-secrets -- true; exit $?\n";
    sandbox.write("project/nest", nest);
    sandbox.write("project/Makefile", "all:\n\tsh nest 12\n");
    let run = |arguments: &[&str]| sandbox.command(needed("setsid"), &[&["-w"], arguments].concat()).run();
    run(&["sh", "nest", "12"]).ok();
    run(&["make"]).refused(2, "the policy forbids it (env[program=/usr/bin/make]=deny)");
    // A program that cannot be seen between the shell and the request may be that one: here root's.
    if nix::unistd::geteuid().is_root() {
        sandbox.with_secrets(&["--", "true"]).run().refused(125, "the policy forbids it");
    }
}

#[test]
fn the_policys_deadline_is_the_questions() {
    let sandbox = Sandbox::with_token(b"tok");
    let kept = sandbox.path("run/questions");
    let hanging = format!("#!/bin/sh\n{{ cat; echo; }} >>{}\nexec sleep 1000\n", kept.display());
    sandbox.set_approver(hanging);
    without_passphrase(&sandbox, &["deadline=10s"]).ok();
    sandbox.with_secrets(&["--", "true"]).run().refused(125, "nobody answered within 10 seconds");
    assert_eq!(approver::questions(&kept)[0].0["deadline_seconds"], 10);
    assert_eq!(sandbox.events("decided").last().unwrap()["approver"], "nobody answered within 10 seconds");
}

#[test]
fn a_policy_with_rules_is_there_after_a_restart() {
    let sandbox = Sandbox::with_vault();
    sandbox.policies(&[
        "ssh.login[item=work,host=[build.example.org]:2222]=allow 20/1h",
        "env[item=a b]=ask-pin",
        "grants=command 10m 20x terminal-1h",
        "deadline=30s",
    ]);
    let shown = sandbox.keyloan(&["policy", "show"]).run().ok().text();
    for line in [
        "ssh.login[item=work,host=[build.example.org]:2222]=allow 20/1h",
        "env[item=a b]=ask-pin",
        "grants=command 10m 20x terminal-1h",
        "deadline=30s",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{shown}");
    }
    sandbox.stop();
    sandbox.unlock().ok();
    assert_eq!(sandbox.keyloan(&["policy", "show"]).run().ok().text(), shown);
}

#[test]
fn loosening_at_a_terminal_shows_each_rule_and_wants_the_passphrase() {
    let sandbox = Sandbox::with_vault();
    let terminal = Terminal::open(&sandbox);
    terminal.run("keyloan policy set 'ssh.login[item=work]=allow 20/1h' env=ask-pin; echo ended $?");
    let shown = terminal.expect("Passphrase, Enter alone to decline:");
    for line in
        ["sets      ssh.login[item=work]=allow 20/1h  (verified)", "sets      env=ask-pin  (verified)"]
    {
        assert!(shown.contains(line), "{shown}");
    }
    terminal.type_text(PIN);
    terminal.press("Enter");
    terminal.expect("That is not the passphrase.");
    terminal.type_text(PASSPHRASE);
    terminal.press("Enter");
    terminal.expect("ended 0");
}
