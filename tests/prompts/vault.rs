//! Questions for what is lent, read and changed of the vault, and for its settings.

use crate::asked::Person;
use keyloan_e2e::programs::needed;
use keyloan_e2e::{Sandbox, approver};

/// A vault with a token, a service account's key and a kubeconfig, and files that name them.
fn filled() -> Sandbox {
    let sandbox = Sandbox::with_token(b"tok");
    sandbox.set_approver(approver::ALLOW);
    for (item, field, value) in [
        ("gcp", "key.json", "{}"),
        ("k8s", "config", "kind: Config"),
        ("web", "totp", "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"),
    ] {
        sandbox.keyloan(&["item", "set", item, field]).stdin(value).run().ok();
    }
    let env = "[env]\nTWINE_PASSWORD = \"local://pypi/token\"\n";
    let files = "[files]\nGOOGLE_APPLICATION_CREDENTIALS = \"local://gcp/key.json\"\nKUBECONFIG = { ref = \"local://k8s/config\", as = \"path\", name = \"config\" }\n";
    for (directory, text) in [("deploy", files.to_owned()), ("both", format!("{env}{files}"))] {
        sandbox.make_directory(&format!("project/{directory}"));
        sandbox.write(&format!("project/{directory}/.keyloan.toml"), text);
        sandbox.keyloan(&["trust", directory]).run().ok();
    }
    sandbox
}

#[test]
fn what_is_lent_to_a_command() {
    let sandbox = filled();
    let person = Person::of(&sandbox);
    person.says_yes("lend-env", "with-secrets -- printenv TWINE_USERNAME");
    person.says_yes("lend-env-again", "with-secrets -- printenv TWINE_USERNAME");
    person.says_yes("lend-files", "cd deploy; with-secrets --for 30m -- true");
    person.says_yes("lend-both", "cd ../both; with-secrets -- true");
    let tool = sandbox.path("project/both/tool");
    std::fs::copy(needed("true"), &tool).unwrap();
    sandbox.command(needed("chmod"), &["0777", sandbox.path("project/both").to_str().unwrap()]).run().ok();
    person.says_yes("lend-warnings", "PYTHONPATH=. with-secrets -- ./tool --publish");
    sandbox.policy("grants=command 10m 20x terminal-10m");
    person.says_yes("lend-offers", "cd ..; with-secrets -- printenv TWINE_PASSWORD");
}

#[test]
fn what_is_lent_to_a_shell() {
    let sandbox = filled();
    sandbox.make_directory("project/set");
    let set = "[sets.deploy.env]\nDEPLOY_TOKEN = \"local://pypi/token\"\n[sets.deploy.shell]\ntime = \"5m\"\nuntil-leaving = true\n";
    sandbox.write("project/set/.keyloan.toml", set);
    sandbox.keyloan(&["trust", "set"]).run().ok();
    let person = Person::of(&sandbox);
    person.runs("eval \"$(keyloan shell bash)\"");
    person.says_yes("lend-shell", "opvars");
    person.says_yes("lend-shell-leaving", "cd set; export PYTHONPATH=.; opvars deploy");
    sandbox.policy("grants=command 10m 20x terminal-10m");
    person.says_yes("lend-shell-offers", "unopvars; unset PYTHONPATH; opvars deploy");
}

#[test]
fn what_is_read() {
    let sandbox = filled();
    let person = Person::of(&sandbox);
    person.says_yes("item-get", "keyloan item get pypi token");
    person.says_yes("item-totp", "keyloan item totp web");
    person.says_yes("log-commands", "keyloan log --commands | tail -n1");
}

#[test]
fn what_is_changed() {
    let sandbox = filled();
    let person = Person::of(&sandbox);
    person.says_yes("item-set", "echo tok | keyloan item set npm token");
    person.says_yes("item-replace", "echo tok | keyloan item set npm token");
    person.says_yes("item-set-public", "echo me | keyloan item set --public npm user");
    person.says_yes("item-generate", "keyloan item generate wiki password");
    person.says_yes("item-expires", "keyloan item expires npm 2031-01-31");
    person.says_yes("item-mv", "keyloan item mv wiki wikipedia");
    person.says_yes("item-rm-field", "keyloan item rm npm user");
    person.says_yes("item-rm", "keyloan item rm wikipedia");
}

#[test]
fn what_is_trusted_and_ruled() {
    let sandbox = filled();
    sandbox.make_directory("project/fresh");
    sandbox.write("project/fresh/.keyloan.toml", "[env]\nTWINE_PASSWORD = \"local://pypi/token\"\n");
    sandbox.write("project/both/.keyloan.toml", "[env]\nTWINE_PASSWORD = \"local://npm/token\"\n");
    let person = Person::of(&sandbox);
    person.says_yes("trust", "keyloan trust fresh");
    person.says_yes("trust-changes", "keyloan trust both");
    person.says_yes("policy-loosen", "keyloan policy set item.read=allow deadline=2m");
    person.runs("keyloan policy set item.read=deny");
}
