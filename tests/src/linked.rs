//! Linking vaults together with a secret that opens them.

use crate::PASSPHRASE;
use crate::programs::bin;
use crate::sandbox::{Run, Sandbox};
use std::process::Command;

/// `keyloan vault add`, with the vault's passphrase on descriptor 3 and a secret on descriptors 4 and 5.
pub fn add(sandbox: &Sandbox, secret: &str, arguments: &[&str]) -> Run {
    let passphrase = sandbox.write("passphrase", PASSPHRASE);
    let secret = sandbox.write("secret-of-a-vault", secret);
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "exec 3<\"$1\" 4<\"$2\" 5<\"$2\"; shift 2; exec \"$@\"", "sh"]);
    command.arg(passphrase).arg(secret).arg(bin().join("keyloan"));
    command.args(["vault", "add", "--passphrase-fd", "3"]).args(arguments);
    sandbox.prepared(command)
}
