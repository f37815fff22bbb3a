//! One question for what many vaults have.

use crate::asked::Person;
use keyloan_e2e::bitwarden::{Bitwarden, MASTER};
use keyloan_e2e::keepass::{self, PASSWORD};
use keyloan_e2e::keyring::Keyring;
use keyloan_e2e::onepassword::{Account, field};
use keyloan_e2e::openbao::OpenBao;
use keyloan_e2e::pass::Store;
use keyloan_e2e::{PASSPHRASE, Sandbox, approver};
use serde_json::json;

#[test]
fn what_is_lent_of_every_kind_of_vault() {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.set_approver(approver::ALLOW);
    let store = Store::new(&sandbox);
    store.insert("web/pypi", "of pass\n");
    store.link();
    let database = keepass::made(&sandbox, "keys.kdbx", &keepass::entry("aws", "of KeePass"), PASSWORD, &[]);
    keepass::link(&sandbox, &database, PASSWORD, &[]).ok();
    let keyring = Keyring::open(&sandbox);
    keyring.store("npm", &["service", "npm"], "of the keyring");
    keyring.link(&[]).ok();
    let mut account = Account::new(&sandbox);
    account.item(0, "gcp", &[field("key", "of 1Password")]);
    account.link(&[]).ok();
    let login = json!({ "type": 1, "name": "azure", "login": { "password": "of Bitwarden" } });
    let bitwarden = Bitwarden::start(&sandbox, env!("CARGO_TARGET_TMPDIR"), &json!([login]), &json!([]));
    bitwarden.link("bw", "app", Some(MASTER), &[]).ok();
    let bao = OpenBao::start(&sandbox);
    bao.link(&[], &[("token", "root-token")]).ok();
    let program = sandbox.write_program("home/vault-program", "#!/bin/sh\necho \"of $1\"\n");
    let program = format!("program={}", program.display());
    let add = ["vault", "add", "any", "--kind", "command", &program, "--passphrase-fd", "3"];
    sandbox.keyed(PASSPHRASE, &add).run().ok();
    sandbox.make_directory("project/all");
    sandbox.write(
        "project/all/.keyloan.toml",
        "[env]\nTWINE_PASSWORD = \"local://pypi/token\"\nWEB = \"pass://web/pypi/password\"\n\
         AZURE = \"bw://azure/password\"\nAWS = \"keys://aws/password\"\nNPM_TOKEN = \"keyring://npm/password\"\nGCP = \"op://Work/gcp/key\"\n\
         DEPLOY = \"team://ci/pypi/token\"\nOTHER = \"any://a program/x\"\n",
    );
    sandbox.keyloan(&["trust", "all"]).run().ok();
    let person = Person::of(&sandbox);
    person.says_yes(
        "lend-every-kind",
        "cd all; with-secrets -- sh -c 'echo $TWINE_PASSWORD, $WEB, $AWS, $AZURE, $NPM_TOKEN, $GCP, $DEPLOY, $OTHER'",
    );
    person
        .terminal
        .expect("tok, of pass, of KeePass, of Bitwarden, of the keyring, of 1Password, tok, of a program");
    let tested = sandbox.keyloan(&["vault", "test"]).run().ok().text();
    assert_eq!(tested.lines().filter(|line| line.contains("ready")).count(), 8, "{tested}");
}
