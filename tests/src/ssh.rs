//! Keys made and read by the real programs of OpenSSH.

use crate::programs::needed;
use crate::sandbox::{Output, Sandbox};
use std::path::PathBuf;

impl Sandbox {
    /// A private key's file in the home, made by `ssh-keygen`, with its `.pub` beside it.
    #[track_caller]
    pub fn key_file(&self, name: &str, more: &[&str]) -> PathBuf {
        let path = self.path("home").join(name);
        let file = path.display().to_string();
        let mut arguments = vec!["-q", "-C", "me@here", "-f", file.as_str()];
        if !more.contains(&"-t") {
            arguments.extend(["-t", "ed25519"]);
        }
        if !more.contains(&"-N") {
            arguments.extend(["-N", ""]);
        }
        arguments.extend(more);
        self.command(needed("ssh-keygen"), &arguments).run().ok();
        path
    }

    /// `ssh-keygen` signs a key's public half with another key: a certificate for the user `git`, beside it.
    #[track_caller]
    pub fn certify(&self, authority: &str, name: &str) {
        let (authority, public) = (self.path("home").join(authority), self.path("home").join(name));
        let (authority, public) = (authority.display().to_string(), format!("{}.pub", public.display()));
        let arguments = ["-q", "-s", authority.as_str(), "-I", "the id", "-n", "git", public.as_str()];
        self.command(needed("ssh-keygen"), &arguments).run().ok();
    }

    /// `ssh-add` with the agent at that socket.
    pub fn ssh_add(&self, socket: &str, arguments: &[&str]) -> Output {
        self.command(needed("ssh-add"), arguments).env("SSH_AUTH_SOCK", socket).run()
    }

    pub fn agent_socket(&self) -> String {
        self.path("run/keyloan/agent.sock").display().to_string()
    }

    /// `keyloan ssh list --json`.
    #[track_caller]
    pub fn ssh_keys(&self) -> Vec<serde_json::Value> {
        serde_json::from_slice(&self.keyloan(&["ssh", "list", "--json"]).run().ok().stdout).unwrap()
    }
}

/// The type and the key of a line, without its comment.
pub fn key_of(line: &str) -> String {
    line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}
