//! Doubles of 1Password: of its program `op`, and of a Connect server. Both show the same account, which a test writes.

use crate::PASSPHRASE;
use crate::programs::{bin, needed};
use crate::sandbox::{Output, Running, Sandbox};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

const OP: &str = include_str!("../doubles/op.py");
const CONNECT: &str = include_str!("../doubles/connect.py");

pub const SERVICE_TOKEN: &str = "ops_canary-token";
pub const CONNECT_TOKEN: &str = "eyJ.canary.token";

/// An account with the vaults `Work` and `Environment variables`.
pub struct Account<'a> {
    sandbox: &'a Sandbox,
    pub state: Value,
}

/// An id as 1Password makes them.
pub fn id(number: usize) -> String {
    format!("{number:x}{}", "z".repeat(26)).chars().take(26).collect()
}

pub fn field(label: &str, value: &str) -> Value {
    let mut field = json!({"id": label, "type": "CONCEALED", "label": label});
    if !value.is_empty() {
        field["value"] = value.into();
    }
    field
}

impl<'a> Account<'a> {
    pub fn new(sandbox: &'a Sandbox) -> Self {
        let vault = |number, name: &str| json!({"id": id(number), "name": name, "items": []});
        let account = json!({"url": "my.1password.com", "email": "me@example.org", "user_uuid": "U", "account_uuid": "A"});
        let state = json!({
            "accounts": [account], "vaults": [vault(1, "Work"), vault(2, "Environment variables")],
            "token": SERVICE_TOKEN,
        });
        sandbox.make_directory("home/op-double");
        sandbox.write_program("home/op", OP);
        let account = Self { sandbox, state };
        account.save();
        account
    }

    pub fn save(&self) {
        self.sandbox.write("home/op-double/state.json", self.state.to_string());
    }

    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.state[key] = value.into();
        self.save();
    }

    /// Adds an item, and says its id.
    pub fn item(&mut self, vault: usize, title: &str, fields: &[Value]) -> String {
        self.item_of("LOGIN", vault, title, fields)
    }

    pub fn item_of(&mut self, category: &str, vault: usize, title: &str, fields: &[Value]) -> String {
        let items = self.state["vaults"][vault]["items"].as_array_mut().unwrap();
        let id = id(100 * (vault + 1) + items.len());
        items.push(json!({"id": id, "title": title, "category": category, "fields": fields}));
        self.save();
        id
    }

    /// Links the double of `op` under the name `op`, with what else is given.
    pub fn link(&self, more: &[&str]) -> Output {
        let program = format!("op={}", self.sandbox.path("home/op").display());
        let arguments = ["vault", "add", "op", "--kind", "onepassword", &program, "--passphrase-fd", "3"];
        let linked = self.sandbox.keyed(PASSPHRASE, &[&arguments[..], more].concat()).run();
        self.forget();
        linked
    }

    /// As that of a service account.
    pub fn link_with_token(&self, token: &str) -> Output {
        let program = format!("op={}", self.sandbox.path("home/op").display());
        let words = ["vault", "add", "op", "--kind", "onepassword", &program];
        let linked = with_secret(self.sandbox, &words, "service-account-token", token);
        self.forget();
        linked
    }

    /// What the double of `op` was called with since the last `forget`.
    pub fn calls(&self) -> Vec<Value> {
        lines(self.sandbox, "calls.jsonl")
    }

    pub fn forget(&self) {
        let _ = fs::remove_file(self.sandbox.path("home/op-double/calls.jsonl"));
    }
}

fn lines(sandbox: &Sandbox, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(sandbox.path("home/op-double").join(name)).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Links a vault with a secret of its link on a descriptor, as a script does.
fn with_secret(sandbox: &Sandbox, words: &[&str], key: &str, secret: &str) -> Output {
    let (passphrase, secret) = (sandbox.write("passphrase", PASSPHRASE), sandbox.write("secret", secret));
    let mut line = vec!["-c".into(), "exec 3<\"$1\" 5<\"$2\"; shift 2; exec \"$@\"".into(), "sh".into()];
    line.extend([
        passphrase.into_os_string(),
        secret.into_os_string(),
        bin().join("keyloan").into_os_string(),
    ]);
    line.extend(words.iter().map(OsString::from));
    line.extend(["--passphrase-fd".into(), "3".into(), "--secret-fd".into(), format!("{key}=5").into()]);
    sandbox.command("/bin/sh", &line).run()
}

/// Certificates of an authority of the test's own, in the sandbox.
pub struct Authority<'a> {
    sandbox: &'a Sandbox,
}

impl<'a> Authority<'a> {
    pub fn new(sandbox: &'a Sandbox) -> Self {
        sandbox.make_directory("tls");
        let authority = Self { sandbox };
        authority.sign_itself("ca", true);
        authority
    }

    fn openssl(&self, arguments: &str) {
        let words: Vec<&str> = arguments.split(' ').collect();
        self.sandbox.command(needed("openssl"), &words).within(&self.sandbox.path("tls")).run().ok();
    }

    /// A certificate that nobody else signed: that of an authority, or of a server alone.
    pub fn sign_itself(&self, name: &str, is_authority: bool) {
        let is = if is_authority { "TRUE" } else { "FALSE" };
        self.openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.pem \
             -subj /CN={name} -days 2 -addext subjectAltName=IP:127.0.0.1 \
             -addext basicConstraints=critical,CA:{is}"
        ));
    }

    /// A server's certificate for this name (`IP:127.0.0.1`), or one that has expired.
    pub fn sign(&self, name: &str, for_name: &str, has_expired: bool) {
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr -subj /CN=server"
        ));
        self.sandbox.write(&format!("tls/{name}.ext"), format!("subjectAltName={for_name}\n"));
        let sign = format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 1 -extfile {name}.ext -out {name}.pem"
        );
        if has_expired {
            let openssl = needed("openssl").display().to_string();
            let words: Vec<&str> = ["-f", "-3d", &openssl].into_iter().chain(sign.split(' ')).collect();
            self.sandbox.command(needed("faketime"), &words).within(&self.sandbox.path("tls")).run().ok();
        } else {
            self.openssl(&sign);
        }
    }

    pub fn ca(&self) -> String {
        self.sandbox.path("tls/ca.pem").display().to_string()
    }
}

/// The double of a Connect server, with a certificate of the authority's, or in the clear.
pub struct Connect<'a> {
    sandbox: &'a Sandbox,
    _process: Running,
    pub port: u16,
}

impl<'a> Connect<'a> {
    pub fn start(sandbox: &'a Sandbox, certificate: Option<&str>) -> Self {
        let mut words =
            vec!["-c".to_owned(), CONNECT.to_owned(), sandbox.path("home/op-double").display().to_string()];
        for ending in certificate.map(|_| ["pem", "key"]).into_iter().flatten() {
            words.push(
                sandbox
                    .path(&format!("tls/{}.{ending}", certificate.unwrap_or_default()))
                    .display()
                    .to_string(),
            );
        }
        let mut command = sandbox.command("/usr/bin/python3", &words).into_command();
        let mut process = Running(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
        let mut port = String::new();
        BufReader::new(process.0.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Self { sandbox, _process: process, port: port.trim().parse().unwrap() }
    }

    /// Links it under the name `team`.
    pub fn link(&self, ca: Option<&str>, token: &str) -> Output {
        let scheme = if ca.is_some() { "https" } else { "http" };
        let address = format!("address={scheme}://127.0.0.1:{}", self.port);
        let ca = ca.map(|ca| format!("ca={ca}"));
        let mut words = vec!["vault", "add", "team", "--kind", "onepassword", &address];
        words.extend(ca.as_deref());
        let linked = with_secret(self.sandbox, &words, "token", token);
        self.forget();
        linked
    }

    /// `GET /v1/…`, and `connection` for each of those, since the last `forget`.
    pub fn requests(&self) -> Vec<String> {
        let lines = lines(self.sandbox, "requests.jsonl");
        let text = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
        lines
            .iter()
            .map(|line| format!("{} {}", text(line, "what"), text(line, "path")).trim().to_owned())
            .collect()
    }

    pub fn forget(&self) {
        let _ = fs::remove_file(self.sandbox.path("home/op-double/requests.jsonl"));
    }
}
