//! Without keyloan: `docs/recovery.md`, followed with the stock `age` program.

use keyloan_e2e::programs::needed;
use keyloan_e2e::terminal::Terminal;
use keyloan_e2e::{PASSPHRASE, Sandbox, approver};
use std::path::Path;

/// The commands of a section of the page, as they stand there.
fn commands(section: &str) -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/recovery.md");
    let page = std::fs::read_to_string(page).unwrap();
    let section = page.split("\n## ").find(|text| text.starts_with(section)).unwrap();
    let lines = section.lines().filter_map(|line| line.strip_prefix("    "));
    lines.map(str::to_owned).collect()
}

#[test]
fn the_recovery_page_gives_a_value_back_with_age_alone() {
    needed("age");
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    sandbox.keyloan(&["item", "set", "pypi", "token"]).stdin("tok-to-recover").run().ok();
    sandbox.stop();
    let terminal = Terminal::open(&sandbox);
    for line in commands("With the passphrase") {
        terminal.run(&format!("{line}; echo step done"));
        if line.contains("passphrase.age") {
            terminal.expect("Enter passphrase");
            terminal.type_text(PASSPHRASE);
            terminal.press("Enter");
        }
        terminal.expect("step done");
    }
    let titles = terminal.screen();
    terminal.expect("tok-to-recover");
    drop(titles);
}

#[test]
fn a_further_recipient_opens_the_vault_with_an_ssh_key() {
    let sandbox = Sandbox::with_approver(approver::ALLOW);
    sandbox.keyloan(&["item", "set", "pypi", "token"]).stdin("tok-by-ssh").run().ok();
    let key = sandbox.path("home/key").display().to_string();
    sandbox.command(needed("ssh-keygen"), &["-q", "-t", "ed25519", "-N", "", "-f", &key]).run().ok();
    let public = std::fs::read_to_string(format!("{key}.pub")).unwrap();
    let add = ["recipient", "add", "laptop", public.trim(), "--passphrase-fd", "3"];
    sandbox.keyed("not it", &add).run().refused(6, "not the right one");
    sandbox.keyed(PASSPHRASE, &add).run().ok();
    assert!(sandbox.keyloan(&["recipient", "list"]).run().ok().text().starts_with("laptop  ssh-ed25519 "));
    let identity = sandbox.vault().join("identity/laptop.age").display().to_string();
    let opened = sandbox.command(needed("age"), &["-d", "-i", &key, &identity]).run().ok();
    assert!(opened.text().contains("AGE-SECRET-KEY-1"));
    let text = sandbox.write("home/identity.txt", opened.text()).display().to_string();
    let mut found = false;
    for item in std::fs::read_dir(sandbox.vault().join("items")).unwrap() {
        let item = item.unwrap().path().display().to_string();
        let plain = sandbox.command(needed("age"), &["-d", "-i", &text, &item]).run().ok().text();
        found |= plain.ends_with("tok-by-ssh");
    }
    assert!(found, "one of the items is the token");
    sandbox.keyed(PASSPHRASE, &["recipient", "rm", "laptop", "--passphrase-fd", "3"]).run().ok();
    assert!(!Path::new(&identity).exists());
    let nonsense = ["recipient", "add", "x", "age1yubikey1xyz", "--passphrase-fd", "3"];
    sandbox.keyed(PASSPHRASE, &nonsense).run().refused(2, "age plugin");
}
