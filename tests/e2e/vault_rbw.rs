//! Bitwarden by `rbw`, a double of it: a script that answers as `rbw` 1.15 does, and a socket in the place of its agent's.

use keyloan_e2e::sandbox::Output;
use keyloan_e2e::{PASSPHRASE, Sandbox, approver};
use serde_json::{Value, json};
use std::os::unix::net::UnixListener;

/// `rbw unlocked`, `rbw list --raw` and `rbw get --raw ID`, to what they print and how they end.
const DOUBLE: &str = r#"#!/bin/sh
run=$XDG_RUNTIME_DIR
echo "$*" >>"$run/asked"
env >"$run/environment"
[ ! -e "$run/hang" ] || sleep 1000
case "$*" in
unlocked) [ ! -e "$run/locked" ] ;;
"list --raw") [ ! -e "$run/garbage" ] || { echo s3cret; exit; }
    cat "$run/names" ;;
"get --raw "*)
    if [ -e "$run/garbage-item" ]; then echo s3cret
    elif [ -e "$run/locked-now" ]; then echo "rbw get: failed to decrypt: agent is locked" >&2; exit 1
    elif [ -e "$run/item-$3" ]; then cat "$run/item-$3"
    else echo "rbw get: couldn't find entry for '$3': no entry found" >&2; exit 1; fi ;;
*) echo "error: unrecognized subcommand" >&2; exit 2 ;;
esac
"#;

fn id(number: usize) -> String {
    format!("{number:08}-0000-4000-8000-000000000000")
}

struct Double {
    sandbox: Sandbox,
    agent: Option<UnixListener>,
}

impl Double {
    fn new(names: &[(usize, &str, Option<&str>)]) -> Self {
        let sandbox = Sandbox::with_approver(approver::ALLOW);
        let listed = |(number, name, folder): &(usize, &str, Option<&str>)| json!({ "id": id(*number), "name": name, "user": "me", "folder": folder, "uris": [], "type": "Login" });
        sandbox.write("run/names", names.iter().map(listed).collect::<Value>().to_string());
        sandbox.make_directory("run/rbw");
        sandbox.write_program("home/rbw", DOUBLE);
        let mut double = Self { sandbox, agent: None };
        double.start_agent();
        double
    }

    fn start_agent(&mut self) {
        let socket = self.sandbox.path("run/rbw/socket");
        let _ = std::fs::remove_file(&socket);
        self.agent = Some(UnixListener::bind(&socket).unwrap());
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(socket, open).unwrap();
    }

    fn item(&self, number: usize, json: &str) {
        self.sandbox.write(&format!("run/item-{}", id(number)), json);
    }

    fn link(&self) -> Output {
        let program = format!("rbw={}", self.sandbox.path("home/rbw").display());
        let runtime = format!("runtime={}", self.sandbox.path("run").display());
        let add = ["vault", "add", "rbw", "--kind", "rbw", &program, &runtime, "--passphrase-fd", "3"];
        self.sandbox.keyed(PASSPHRASE, &add).run()
    }

    fn get(&self, reference: &str) -> Output {
        self.sandbox.keyloan(&["item", "get", reference]).run()
    }

    fn state(&self) -> String {
        let tested = self.sandbox.keyloan(&["vault", "test", "rbw", "--json"]).run();
        let tested: Value = serde_json::from_slice(&tested.stdout).unwrap();
        tested[0]["state"].as_str().unwrap().to_owned()
    }

    fn asked(&self) -> Vec<String> {
        let asked = std::fs::read_to_string(self.sandbox.path("run/asked")).unwrap_or_default();
        let _ = std::fs::remove_file(self.sandbox.path("run/asked"));
        asked.lines().map(str::to_owned).collect()
    }
}

fn login(password: &str) -> String {
    json!({ "id": "x", "folder": null, "name": "x", "notes": null, "history": [],
        "data": { "username": "me", "password": password, "totp": null, "uris": [] },
        "fields": [{ "name": "api key", "value": "tok", "type": "hidden" }] })
    .to_string()
}

#[test]
fn items_of_rbw_are_named_by_title_folder_or_id_and_asked_for_by_id() {
    let forged = format!("two\n{}\tgit hub\t", id(1));
    let items = [
        (1, "it's \"ü\"/x", None),
        (2, "git", Some("Work")),
        (3, "git", Some("Home")),
        (4, "~/project", None),
        (5, "same", None),
        (6, "same", None),
        (7, &*forged, None),
    ];
    let double = Double::new(&items);
    for (number, ..) in items {
        double.item(number, &login(&format!("p{number}")));
    }
    double.item(
        4,
        r##"{"id":"x","name":"~/project","data":null,"fields":[],"notes":"# set\nA=1","history":[]}"##,
    );
    assert!(double.link().ok().stderr.contains("and it answers"));
    for (reference, value) in [
        ("rbw://it's \"ü\"/x/password", "p1"),
        ("rbw://it's \"ü\"/x/api key", "tok"),
        ("rbw://Work/git/username", "me"),
        ("rbw://Home/git/password", "p3"),
        ("rbw://~/project/vars", "# set\nA=1"),
        (&format!("rbw://{}/password", id(5)), "p5"),
        (&format!("rbw://{}/password", id(7)), "p7"),
    ] {
        assert_eq!(double.get(reference).ok().text(), value, "{reference}");
    }
    let several = double.get("rbw://git/password").refused(1, "more than one thing");
    assert!(several.stderr.contains("Work/git") && several.stderr.contains("Home/git"), "{}", several.stderr);
    double.get("rbw://git hub/password").refused(1, "there is no item 'git hub'");
    double.get("rbw://nowhere/password").refused(1, "there is no item 'nowhere'");
    double.get("rbw://Work/git/totp").refused(1, "there is no field 'totp'");
    double.get("rbw://Work/git/vars").refused(1, "there is no field 'vars'");
    let listed = double.sandbox.keyloan(&["item", "list", "--vault", "rbw"]).run().ok().text();
    assert_eq!(listed.lines().count(), 7, "{listed}");
}

#[test]
fn twenty_references_of_five_items_cost_a_process_an_item_and_two() {
    let names = ["item 0", "item 1", "item 2", "item 3", "item 4"];
    let items: Vec<_> = names.iter().enumerate().map(|(number, name)| (number, *name, None)).collect();
    let double = Double::new(&items);
    (0..5).for_each(|n| double.item(n, &login(&format!("p{n}"))));
    double.link().ok();
    let lines: String =
        (0..20).map(|n| format!("V{n} = \"rbw://item {}/password\"\n", n % 5)).collect::<Vec<_>>().concat();
    double.sandbox.write("project/.keyloan.toml", format!("[env]\n{lines}"));
    double.sandbox.keyloan(&["trust"]).run().ok();
    double.asked();
    let lent = double.sandbox.with_secrets(&["--", "sh", "-c", "echo $V0 $V19"]).run().ok();
    assert_eq!(lent.text(), "p0 p4\n");
    let asked = double.asked();
    assert_eq!(asked.len(), 7, "{asked:?}");
    assert_eq!(&asked[..2], ["unlocked", "list --raw"]);
}

#[test]
fn an_agent_that_is_locked_or_not_there_is_told_and_neither_asked_nor_started() {
    let mut double = Double::new(&[(1, "web", None)]);
    double.item(1, &login("p"));
    double.link().ok();
    assert_eq!(double.state(), "ready");
    double.sandbox.write("run/locked", "");
    assert_eq!(double.state(), "locked");
    double.asked();
    let refused = double.get("rbw://web/password").refused(7, "was not unlocked");
    assert!(refused.stderr.contains("/home/rbw unlock"), "{}", refused.stderr);
    assert_eq!(double.asked(), ["unlocked"]);
    std::fs::remove_file(double.sandbox.path("run/locked")).unwrap();
    double.agent = None;
    double.get("rbw://web/password").refused(7, "rbw's agent does not run");
    assert_eq!(double.asked(), [""; 0]);
    double.start_agent();
    assert_eq!(double.get("rbw://web/password").ok().text(), "p");
    let environment = std::fs::read_to_string(double.sandbox.path("run/environment")).unwrap();
    assert!(!environment.contains("SSH_") && !environment.contains("RBW_"), "{environment}");
}

#[test]
fn an_rbw_that_fails_is_told_apart_and_not_quoted() {
    let double = Double::new(&[(1, "web", None), (2, "gone", None)]);
    double.item(1, &login("p"));
    double.link().ok();
    for (wrong, said) in [
        ("garbage", "does not answer as rbw does"),
        ("garbage-item", "does not answer as rbw does"),
        ("locked-now", "was not unlocked"),
        ("hang", "did not answer within 10 s"),
    ] {
        let flag = double.sandbox.write(&format!("run/{wrong}"), "");
        let refused = double.get("rbw://web/password").refused(7, said);
        assert!(!refused.stderr.contains("s3cret"), "{}", refused.stderr);
        std::fs::remove_file(flag).unwrap();
    }
    double.get("rbw://gone/password").refused(7, "was removed meanwhile");
    assert_eq!(double.get("rbw://web/password").ok().text(), "p");
    double.sandbox.write_program("home/rbw", format!("{DOUBLE}# evil\n"));
    double.get("rbw://web/password").refused(7, "was changed after the vault was added");
}
