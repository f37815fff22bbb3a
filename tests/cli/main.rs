//! Golden transcripts: what every command says, to the letter, and its exit status. With `KEYLOAN_BLESS=1`
//! they are written anew; what varies (times, pids, paths, hashes) stands as a placeholder.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::panic,
    reason = "a test fails where it panics"
)]

use keyloan_e2e::programs::bin;
use keyloan_e2e::{PASSPHRASE, PIN, Sandbox, approver};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

struct Transcript {
    sandbox: Sandbox,
    text: String,
}

impl Transcript {
    fn begin(sandbox: Sandbox) -> Self {
        sandbox.write("passphrase", PASSPHRASE);
        sandbox.write("wrong", "not the passphrase");
        sandbox.write("pin", PIN);
        Self { sandbox, text: String::new() }
    }

    /// Runs a line in `sh`, from the `project` directory.
    fn run(&mut self, line: &str) {
        let output = self.sandbox.command("/bin/sh", &["-c", line]).run();
        let _ = writeln!(self.text, "$ {line}");
        for shown in output.text().lines() {
            let _ = writeln!(self.text, "{}", self.steady(shown));
        }
        for shown in output.stderr.lines() {
            let _ = writeln!(self.text, "2| {}", self.steady(shown));
        }
        let _ = writeln!(self.text, "[{}]", output.status);
    }

    fn steady(&self, line: &str) -> String {
        let line = line.replace(self.sandbox.path("").to_str().unwrap().trim_end_matches('/'), "SANDBOX");
        let line = line.replace(bin().to_str().unwrap(), "BIN");
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        for at in 0..words.len() {
            let word = words[at].clone();
            let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
            let hex = bare.len() == 64 && bare.chars().all(|c| c.is_ascii_hexdigit());
            let time = bare.len() == 24 && bare.ends_with('Z') && bare.contains('T');
            let pid = at > 0 && words[at - 1].ends_with("pid") && bare.parse::<u32>().is_ok();
            let mark = if time {
                "TIME"
            } else if pid {
                "PID"
            } else {
                "HASH"
            };
            if let Some(print) = word.find("SHA256:").filter(|at| word.len() >= at + 50) {
                words[at] = word.replacen(&word[print..print + 50], "SHA256:PRINT", 1);
            } else if hex || time || pid {
                words[at] = word.replace(bare, mark);
            } else if let Some(hash) = word.strip_prefix("approver.sha256=") {
                words[at] = word.replace(hash, "HASH");
            }
        }
        words.join(" ")
    }

    fn end(self, name: &str) {
        let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("cli/transcripts").join(name);
        if std::env::var_os("KEYLOAN_BLESS").is_some() {
            std::fs::write(&path, &self.text).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(golden == self.text, "{} differs from:\n{}", path.display(), self.text);
    }
}

fn with_token() -> Transcript {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.set_approver(approver::ALLOW);
    Transcript::begin(sandbox)
}

#[test]
fn making_opening_and_closing_a_vault() {
    let mut told = Transcript::begin(Sandbox::empty());
    told.run("keyloan status");
    told.run("keyloan unlock");
    told.run("keyloan init");
    told.run("keyloan init --passphrase-fd 3 --pin-fd 4 3<../passphrase 4<../pin");
    told.run("keyloan init --passphrase-fd 3 --pin-fd 4 3<../passphrase 4<../pin");
    told.run("keyloan status");
    told.run("keyloan lock");
    told.run("keyloan item list");
    told.run("keyloan unlock --passphrase-fd 3 3<../wrong");
    told.run("keyloan unlock --passphrase-fd 3 3<../passphrase");
    told.run("keyloan unlock --passphrase-fd 3 3<../passphrase");
    told.run("keyloan pin --passphrase-fd 3 --pin-fd 4 3<../passphrase 4<../pin");
    told.run("keyloan passwd --passphrase-fd 3 --new-passphrase-fd 4 3<../passphrase 4<../wrong");
    told.run("keyloan daemon stop");
    told.run("keyloan lock");
    told.end("vault.txt");
}

#[test]
fn items() {
    let mut told = with_token();
    told.run("printf tok | keyloan item set web/x token");
    told.run("echo tok | keyloan item set web/x token");
    told.run("printf __token__ | keyloan item set --public web/x user");
    told.run("keyloan item set web/x token </dev/null");
    told.run("keyloan item list");
    told.run("keyloan item list --references");
    told.run("keyloan item show web/x");
    told.run("keyloan item get web/x user");
    told.run("keyloan item get web/x no-such");
    told.run("keyloan item get no-such token");
    told.run("keyloan item mv web/x pypi");
    told.run("keyloan item mv web/x web");
    told.run("keyloan item rm web user");
    told.run("keyloan item rm web");
    told.run("keyloan item rm web");
    told.run("keyloan item frobnicate");
    told.end("items.txt");
}

#[test]
fn linked_vaults() {
    let mut told = with_token();
    told.sandbox.write_program("home/vault", "#!/bin/sh\n[ \"$1\" = a ] && echo tok || exit 9\n");
    told.run("keyloan vault list");
    told.run(
        "keyloan vault add any --kind command program=~/vault missing=9 --passphrase-fd 3 3<../passphrase",
    );
    told.run("keyloan vault add any --kind command program=~/vault --passphrase-fd 3 3<../passphrase");
    told.run("keyloan vault list");
    told.run("keyloan vault test");
    told.run("keyloan item get any://a/b");
    told.run("keyloan item get any://x/b");
    told.run("keyloan item set any://a/b </dev/null");
    told.run("echo x | keyloan item set any://a/b");
    told.run("keyloan item list --vault any");
    told.run("keyloan item get op://Work/x/y");
    told.run("keyloan item show any://a");
    told.run("keyloan item totp any://a/b");
    told.run("keyloan item copy any://a/b local://copied/b");
    told.run("keyloan item copy any://a/b local://copied/b");
    told.run("keyloan item copy any://a/b copied");
    told.run("keyloan item copy any://a/b any://c/d");
    told.run("keyloan policy set 'vault.cache[vault=any]=10m'");
    told.run("keyloan policy set 'vault.cache[vault=any]=10m' --passphrase-fd 3 3<../passphrase");
    told.run("keyloan policy set vault.cache=10m --passphrase-fd 3 3<../passphrase");
    told.run("keyloan item get any://a/b; keyloan vault list; keyloan status | sed -n '/^kept/p'");
    told.run("rm ~/vault; keyloan vault test any");
    told.run("keyloan vault remove any --passphrase-fd 3 3<../wrong");
    told.run("keyloan vault remove any --passphrase-fd 3 3<../passphrase");
    told.run("keyloan vault remove local");
    told.end("linked-vaults.txt");
}

#[test]
fn lending() {
    let mut told = with_token();
    told.run("with-secrets --dry-run -- printenv");
    told.run("with-secrets -- printenv TWINE_PASSWORD");
    told.run("with-secrets -- sh -c 'exit 7'");
    told.run("with-secrets -- no-such-command");
    told.run("with-secrets -- /etc/passwd");
    told.run("with-secrets -s nowhere -- true");
    told.run("with-secrets --only NOTHING -- true");
    told.run("with-secrets --no-such-flag -- true");
    told.run("with-secrets");
    told.run("cd /; with-secrets -- true");
    told.run("keyloan loans");
    told.run("echo '[evn]' >.keyloan.toml; with-secrets -- true");
    told.run("keyloan trust");
    told.run("rm .keyloan.toml; keyloan trust");
    told.run("keyloan untrust .");
    told.run("keyloan untrust .");
    told.run("keyloan lock; with-secrets -- true");
    told.end("lending.txt");
}

#[test]
fn policy_and_refusals() {
    let mut told = with_token();
    told.run("keyloan policy show");
    told.run("keyloan policy set item.read=allow --passphrase-fd 3 3<../wrong");
    told.run("keyloan policy set item.read=allow");
    told.run("keyloan policy set item.read=deny");
    told.run("keyloan item get pypi token");
    told.run("keyloan policy set item.raed=deny --passphrase-fd 3 3<../passphrase");
    told.run("keyloan policy set item.read=maybe --passphrase-fd 3 3<../passphrase");
    told.run("keyloan policy set secret --passphrase-fd 3 3<../passphrase");
    told.run("keyloan policy set approver.command= --passphrase-fd 3 3<../passphrase");
    told.run("with-secrets -- true");
    told.run("keyloan policy set trust=ask");
    told.run("keyloan policy set 'ssh.login[item=work]=allow 20/1h' --passphrase-fd 3 3<../passphrase");
    told.run("keyloan policy set 'ssh.login[host=github.com]=ask-pin'");
    told.run("keyloan policy set 'env[itme=a]=ask'");
    told.run("keyloan policy set 'env[program=/usr/bin/make]=allow'");
    told.run("keyloan policy explain 'ssh.login[item=work,host=github.com]'");
    told.run("keyloan policy explain 'ssh.login[item=work,host=github.com,forwarded]'");
    told.run("keyloan policy explain 'env[item=pypi]'");
    told.run("keyloan policy explain 'env[namespace=git]'");
    told.run("keyloan grants; keyloan grants --json");
    told.run("keyloan revoke 1");
    told.run("keyloan revoke --all");
    told.run("keyloan revoke");
    told.end("policy.txt");
}

#[test]
fn ten_requests_explained() {
    let mut told = with_token();
    told.run(
        "keyloan policy set 'item.read[item=recovery]=deny' 'ssh.login[item=work,host=github.com]=allow 20/1h' \
         'ssh.signature[namespace=git]=allow' 'ssh.signature[repository=/srv/strange*]=deny' \
         'env[program=/usr/bin/node]=ask-pin' 'grants=command 10m' --passphrase-fd 3 3<../passphrase",
    );
    for request in [
        "env[item=pypi]",
        "env[item=pypi,program=/usr/bin/node]",
        "item.read[item=pypi]",
        "item.read[item=recovery]",
        "ssh.login[item=work,host=github.com]",
        "ssh.login[item=work,host=github.com,forwarded]",
        "ssh.login[item=work]",
        "ssh.signature[item=work,namespace=git,repository=/home/ada/engine]",
        "ssh.signature[item=work,namespace=git,repository=/srv/strange/engine]",
        "ssh.other[item=work]",
    ] {
        told.run(&format!("keyloan policy explain '{request}'"));
    }
    told.end("explain.txt");
}

#[test]
fn the_log() {
    let mut told = with_token();
    told.run("with-secrets -- true");
    told.run("keyloan log | sed -n '/ lent: /p'");
    told.run("keyloan log --verify");
    told.run("cd ../home/.local/state/keyloan; sed s/TWINE_PASSWORD/ANOTHER/ audit.jsonl >edited; cat edited >audit.jsonl");
    told.run("keyloan log --verify");
    told.run("cd ../home/.local/state/keyloan; mv edited audit.jsonl; keyloan log --verify");
    told.run("with-secrets -- true");
    told.end("log.txt");
}

#[test]
fn keys_for_ssh() {
    let mut told = with_token();
    told.sandbox.key_file("id", &[]);
    told.sandbox.key_file("authority", &[]);
    told.run("keyloan ssh list");
    told.run("keyloan ssh add ../home/id");
    told.run("keyloan ssh add ../home/id");
    told.run("keyloan ssh add ../home/id.pub");
    told.run("keyloan ssh add ../home/none");
    told.run("keyloan ssh add ../passphrase");
    told.run("keyloan ssh add --name again ../home/id");
    told.run("keyloan ssh generate made --comment 'a comment' | cut -c-12");
    told.run("keyloan ssh set made --host github.com --host '*.example.org' --confirm always");
    told.run("keyloan ssh set made");
    told.run("keyloan ssh set none --any-host");
    told.run("keyloan ssh list");
    told.run("keyloan ssh export none");
    told.run("keyloan ssh export made --certificate");
    told.run("keyloan ssh export made -o ../home/id.pub");
    told.run("keyloan ssh export id -o ../home/id.pub");
    told.run("keyloan ssh hosts list");
    told.run("keyloan ssh hosts pin github.com");
    told.run("keyloan ssh hosts pin github.com --key \"$(keyloan ssh export made)\"");
    told.run("keyloan ssh hosts list");
    told.run("keyloan ssh hosts unpin github.com");
    told.run("keyloan ssh hosts unpin github.com");
    told.run("keyloan ssh link local://made/private_key");
    told.run("keyloan ssh link gone://made/private_key");
    told.run("keyloan ssh link made");
    told.run("keyloan ssh certify made --vault gone --role dev --host github.com");
    told.run("keyloan ssh certify made");
    told.run("keyloan ssh env --shell sh; keyloan ssh env --shell csh; keyloan ssh env --shell fish");
    told.run("keyloan ssh agent -k");
    told.run("keyloan ssh agent -x");
    told.run("keyloan ssh agent -s -c");
    told.run("keyloan ssh agent -t soon");
    told.run("keyloan ssh agent sh -c 'ssh-add -l; exit 7'");
    told.run("keyloan ssh add ../home/id --name third --remove-file; keyloan item rm id");
    told.run("keyloan ssh add ../home/id --remove-file; ls ../home");
    told.run("keyloan log | sed -n 's/^[^ ]*  //; /pinned: /p; /forgotten: /p'");
    told.run("keyloan ssh --help");
    told.run("keyloan ssh link --help");
    told.run("keyloan ssh certify --help");
    told.run("keyloan ssh agent --help");
    told.end("ssh.txt");
}

#[test]
fn an_unreachable_daemon() {
    let mut told = Transcript::begin(Sandbox::with_vault());
    told.sandbox.stop();
    told.run("chmod 755 ../run/keyloan; keyloan item list");
    told.run("with-secrets -- true");
    told.run("rmdir ../run/keyloan; ln -s /tmp ../run/keyloan; keyloan item list");
    told.end("unreachable.txt");
}
