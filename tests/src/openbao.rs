//! A double of an OpenBao server, `tests/doubles/openbao.py`, behind real TLS with a certificate of a test's own CA.

use crate::programs::needed;
use crate::sandbox::{Output, PASSPHRASE, Run, Running};
use crate::{Sandbox, eventually};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const DOUBLE: &str = include_str!("../doubles/openbao.py");

/// What makes the certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    Good,
    Expired,
    OtherName,
    /// Signed by a CA that keyloan is not told of.
    OtherCa,
    /// No TLS at all.
    None,
}

pub struct OpenBao<'a> {
    sandbox: &'a Sandbox,
    name: String,
    tls: Tls,
    _server: Running,
}

impl<'a> OpenBao<'a> {
    pub fn start(sandbox: &'a Sandbox) -> Self {
        Self::started(sandbox, "bao", Tls::Good, &json!({}))
    }

    /// With settings of the double: `ttl`, `renewals`, `tokens`, `namespace`, `revoke`, `port`.
    pub fn started(sandbox: &'a Sandbox, name: &str, tls: Tls, settings: &Value) -> Self {
        sandbox.make_directory(name);
        sandbox.write(&format!("{name}/settings"), settings.to_string());
        let script = sandbox.write(&format!("{name}/openbao.py"), DOUBLE);
        if tls != Tls::None {
            certify(sandbox, name, tls);
        }
        let arguments = [script, sandbox.path(name)];
        let mut command = sandbox.command(needed("python3"), &arguments).into_command();
        command.stdin(Stdio::null());
        let server = Running(command.spawn().unwrap());
        let port = sandbox.path(&format!("{name}/port"));
        eventually("the double listens", || port.exists());
        Self { sandbox, name: name.to_owned(), tls, _server: server }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.sandbox.path(&format!("{}/{name}", self.name))
    }

    pub fn port(&self) -> u16 {
        fs::read_to_string(self.file("port")).unwrap().parse().unwrap()
    }

    pub fn address(&self) -> String {
        let scheme = if self.tls == Tls::None { "http" } else { "https" };
        format!("{scheme}://127.0.0.1:{}", self.port())
    }

    /// `keyloan vault add team` with these settings, and secrets by their names.
    pub fn link(&self, settings: &[&str], secrets: &[(&str, &str)]) -> Output {
        self.linking(settings, secrets).run()
    }

    pub fn linking(&self, settings: &[&str], secrets: &[(&str, &str)]) -> Run {
        let mut all = vec![format!("address={}", self.address())];
        if self.tls != Tls::None {
            all.push(format!("ca={}", self.sandbox.path("ca.pem").display()));
        }
        all.extend(settings.iter().map(ToString::to_string));
        linking(self.sandbox, &all, secrets)
    }

    /// From now on it does this instead of answering.
    pub fn mode(&self, mode: &Value) {
        let new = self.sandbox.write(&format!("{}/mode.new", self.name), mode.to_string());
        fs::rename(new, self.file("mode")).unwrap();
    }

    pub fn answers_again(&self) {
        let _ = fs::remove_file(self.file("mode"));
    }

    /// The requests so far whose path begins so.
    pub fn requests(&self, path: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.file("requests")).unwrap_or_default();
        let all = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        all.filter(|request| request["path"].as_str().unwrap().starts_with(path)).collect()
    }

    /// Live `leases`, or `tokens`.
    pub fn live(&self, what: &str) -> Vec<String> {
        let text = fs::read_to_string(self.file("state")).unwrap();
        let state: Value = serde_json::from_str(&text).unwrap();
        state[what].as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect()
    }
}

/// `keyloan vault add team --kind openbao`.
pub fn link(sandbox: &Sandbox, settings: &[String], secrets: &[(&str, &str)]) -> Output {
    linking(sandbox, settings, secrets).run()
}

fn linking(sandbox: &Sandbox, settings: &[String], secrets: &[(&str, &str)]) -> Run {
    let mut script = "exec 3<\"$1\"; shift; ".to_owned();
    let mut files = vec![sandbox.write("passphrase", PASSPHRASE)];
    let mut arguments = Vec::new();
    for (at, (name, value)) in secrets.iter().enumerate() {
        let descriptor = 5 + at;
        let _ = write!(script, "exec {descriptor}<\"$1\"; shift; ");
        files.push(sandbox.write(&format!("secret-{name}"), value));
        arguments.extend(["--secret-fd".to_owned(), format!("{name}={descriptor}")]);
    }
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &(script + "exec \"$@\""), "sh"]).args(files);
    command.arg(crate::programs::bin().join("keyloan"));
    command.args(["vault", "add", "team", "--kind", "openbao", "--passphrase-fd", "3"]);
    command.args(arguments).args(settings);
    sandbox.prepared(command)
}

/// A CA of the sandbox, and a certificate of the server's.
fn certify(sandbox: &Sandbox, name: &str, tls: Tls) {
    let script = r#"set -e
ca=$1 server=$2 subject=$3; shift 3
if [ ! -e "$ca.pem" ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=test CA" \
        -keyout "$ca.key" -out "$ca.pem" -addext "basicConstraints=critical,CA:TRUE" \
        -addext "keyUsage=critical,keyCertSign"
fi
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=server" \
    -keyout "$server/key.pem" -out "$server/request.pem"
printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\n' "$subject" >"$server/extensions"
"$@" openssl x509 -req -in "$server/request.pem" -CA "$ca.pem" -CAkey "$ca.key" -CAcreateserial -days 1 \
    -extfile "$server/extensions" -out "$server/cert.pem"
"#;
    let ca = sandbox.path(if tls == Tls::OtherCa { "other-ca" } else { "ca" });
    let subject = if tls == Tls::OtherName { "DNS:other.example" } else { "IP:127.0.0.1" };
    let mut arguments = vec!["-c".into(), script.into(), "sh".into(), ca.into_os_string()];
    arguments.extend([sandbox.path(name).into_os_string(), subject.into()]);
    if tls == Tls::Expired {
        arguments.extend([needed("faketime").into_os_string(), "2020-01-01".into()]);
    }
    sandbox.command("/bin/sh", &arguments).run().ok();
    if tls == Tls::OtherCa {
        // The one that keyloan is told of.
        let script = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
            -subj '/CN=test CA' -keyout \"$1.key\" -out \"$1.pem\"";
        let ca = sandbox.path("ca").into_os_string();
        sandbox.command("/bin/sh", &["-c".into(), script.into(), "sh".into(), ca]).run().ok();
    }
}
