//! A real `sshd` on a high port of this machine, run by the sandbox's user, with keys of its own; and what its clients
//! need: keys, `known_hosts`, a configuration. Hosts go by names that no resolver knows (`HostKeyAlias`).

use crate::approver::{self, Question};
use crate::programs::needed;
use crate::sandbox::{Output, PASSPHRASE, Run, Running, Sandbox};
use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;

pub struct Ssh<'a> {
    pub sandbox: &'a Sandbox,
}

/// A server; it ends with the test.
pub struct Server {
    pub name: String,
    pub port: u16,
    log: PathBuf,
    _child: Running,
}

impl Server {
    /// What it wrote so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Logins that it let in.
    pub fn accepted(&self) -> usize {
        self.log().matches("Accepted publickey").count()
    }
}

impl<'a> Ssh<'a> {
    pub fn of(sandbox: &'a Sandbox) -> Self {
        sandbox.make_directory("home/.ssh");
        sandbox.make_directory("ssh");
        let ssh = Self { sandbox };
        // ssh knows its home directory by the user database, which is not the sandbox's.
        let hosts = ssh.known_hosts();
        let text = format!(
            "Host *\n  BatchMode yes\n  StrictHostKeyChecking yes\n  UpdateHostKeys no\n  IdentityFile none\n  \
             UserKnownHostsFile {}\n  GlobalKnownHostsFile /dev/null\n  LogLevel ERROR\n",
            hosts.display()
        );
        sandbox.write("ssh/config", text);
        sandbox.write("home/.ssh/known_hosts", "");
        ssh
    }

    /// With an approver program that allows and keeps every question, and this policy; keys may be put in.
    #[track_caller]
    pub fn asked(sandbox: &'a Sandbox, policy: &[&str]) -> Self {
        let ssh = Self::of(sandbox);
        ssh.answered_by(approver::keeping(&ssh.kept()), policy);
        ssh
    }

    #[track_caller]
    pub fn answered_by(&self, approver: impl AsRef<[u8]>, policy: &[&str]) {
        let program = self.sandbox.write_program("approver", approver);
        let program = format!("approver.command={}", program.display());
        let own = ["policy", "set", &program, "item.write=allow", "key.add=allow", "--passphrase-fd", "3"];
        self.sandbox.keyed(PASSPHRASE, &[&own, policy].concat()).run().ok();
    }

    /// The file of the questions that were asked.
    pub fn kept(&self) -> PathBuf {
        self.sandbox.path("run/questions")
    }

    pub fn questions(&self) -> Vec<Question> {
        approver::questions(&self.kept())
    }

    pub fn known_hosts(&self) -> PathBuf {
        self.sandbox.path("home/.ssh/known_hosts")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.sandbox.path("ssh").join(name)
    }

    /// The daemon's agent socket.
    pub fn socket(&self) -> String {
        self.sandbox.path("run/keyloan/agent.sock").display().to_string()
    }

    /// A key made by `ssh-keygen`; gives its path.
    pub fn key(&self, name: &str, kind: &[&str]) -> String {
        let path = self.path(name).display().to_string();
        let all = [&["-q", "-N", "", "-C", name, "-f", &path, "-t"], kind].concat();
        self.sandbox.command(needed("ssh-keygen"), &all).run().ok();
        path
    }

    /// Its public line.
    pub fn public(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("{name}.pub"))).unwrap().trim().to_owned()
    }

    /// `SHA256:…`
    pub fn fingerprint(&self, name: &str) -> String {
        let path = self.path(&format!("{name}.pub")).display().to_string();
        let shown = self.sandbox.command(needed("ssh-keygen"), &["-lf", &path]).run().ok().text();
        shown.split(' ').nth(1).unwrap().to_owned()
    }

    /// Signs `name`'s public half: `-h -n host` or `-n user`.
    pub fn certify(&self, authority: &str, name: &str, arguments: &[&str]) -> String {
        let authority = self.path(authority).display().to_string();
        let public = self.path(&format!("{name}.pub")).display().to_string();
        let all = [&["-q", "-s", &authority, "-I", name], arguments, &[&public]].concat();
        self.sandbox.command(needed("ssh-keygen"), &all).run().ok();
        self.path(&format!("{name}-cert.pub")).display().to_string()
    }

    /// A key in the vault, as an item of its name.
    #[track_caller]
    pub fn store(&self, name: &str, public_fields: &[(&str, &str)]) {
        let private = fs::read(self.path(name)).unwrap();
        self.sandbox.keyloan(&["item", "set", name, "private_key"]).stdin(private).run().ok();
        let line = self.public(name);
        for (field, value) in [&[("public_key", line.as_str())], public_fields].concat() {
            let set = self.sandbox.keyloan(&["item", "set", "--public", name, field]);
            set.stdin(value).run().ok();
        }
    }

    /// A server that `known_hosts` and the configuration know, and that admits these public lines.
    pub fn server(&self, name: &str, admitted: &[String]) -> Server {
        self.key(&format!("host-{name}"), &["ed25519"]);
        let line = format!("{name} {}\n", self.public(&format!("host-{name}")));
        self.append("home/.ssh/known_hosts", &line);
        self.server_with(name, admitted, "")
    }

    /// A server with `host-NAME` as its key and more settings of `sshd_config`(5).
    pub fn server_with(&self, name: &str, admitted: &[String], settings: &str) -> Server {
        let keys = self.sandbox.write(&format!("ssh/admitted-{name}"), admitted.join("\n") + "\n");
        let log = self.sandbox.write(&format!("ssh/log-{name}"), "");
        // Between the look for a free port and its use another test may take it.
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let text = format!(
                "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\n\
                 StrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nLogLevel VERBOSE\n\
                 PrintMotd no\nPrintLastLog no\nSubsystem sftp internal-sftp\nMaxStartups 200\n{settings}\n",
                self.path(&format!("host-{name}")).display(),
                keys.display(),
            );
            let config = self.sandbox.write(&format!("ssh/sshd-{name}"), text).display().to_string();
            let mut command =
                self.sandbox.command(needed("sshd"), &["-D", "-e", "-f", &config]).into_command();
            command.stdin(Stdio::null()).stdout(Stdio::null());
            command.stderr(fs::OpenOptions::new().append(true).open(&log).unwrap());
            let mut child = Running(command.spawn().unwrap());
            let listens = || fs::read_to_string(&log).unwrap().contains(&format!("port {port}."));
            let mut ended = false;
            crate::eventually("sshd listens", || {
                ended = child.0.try_wait().unwrap().is_some();
                ended || listens()
            });
            if !ended {
                let host =
                    format!("Host {name}\n  HostName 127.0.0.1\n  Port {port}\n  HostKeyAlias {name}\n");
                self.append("ssh/config", &host);
                return Server { name: name.to_owned(), port, log, _child: child };
            }
        }
        panic!("sshd does not start: {}", fs::read_to_string(&log).unwrap());
    }

    pub fn append(&self, file: &str, text: &str) {
        let mut all = fs::read_to_string(self.sandbox.path(file)).unwrap();
        all.write_str(text).unwrap();
        self.sandbox.write(file, all);
    }

    /// A program that uses keyloan's agent.
    pub fn client(&self, program: &str, arguments: &[&str]) -> Run {
        self.client_of(&self.socket(), program, arguments)
    }

    /// A program that uses the agent at a socket. `ssh` is told of the configuration.
    pub fn client_of(&self, socket: &str, program: &str, arguments: &[&str]) -> Run {
        let config = self.path("config").display().to_string();
        let first: &[&str] = if program == "ssh" { &["-F", &config] } else { &[] };
        let run = self.sandbox.command(needed(program), &[first, arguments].concat());
        run.env("SSH_AUTH_SOCK", socket).env("GIT_SSH_COMMAND", format!("ssh -F {config}"))
    }

    pub fn ssh(&self, arguments: &[&str]) -> Output {
        self.client("ssh", arguments).run()
    }

    pub fn add(&self, arguments: &[&str]) -> Output {
        self.client("ssh-add", arguments).run()
    }

    /// What a shell on a terminal needs to use the agent.
    pub fn exports(&self) -> String {
        let config = self.path("config").display().to_string();
        format!("export SSH_AUTH_SOCK={} GIT_SSH_COMMAND='ssh -F {config}'", self.socket())
    }

    /// OpenSSH's own agent, at a socket of its own.
    pub fn plain_agent(&self) -> (Running, String) {
        self.plain_agent_at(&self.sandbox.path("run/plain.sock").display().to_string())
    }

    pub fn plain_agent_at(&self, socket: &str) -> (Running, String) {
        let _ = fs::remove_file(socket);
        let socket = socket.to_owned();
        let mut command = self.sandbox.command(needed("ssh-agent"), &["-D", "-a", &socket]).into_command();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = Running(command.spawn().unwrap());
        crate::eventually("ssh-agent listens", || {
            self.client_of(&socket, "ssh-add", &["-l"]).run().status == 1
        });
        (child, socket)
    }
}
