//! What the tests and the checks need beside Rust, a C compiler and the programs of a base system: the
//! one list, with the reason of each. A missing program is a failure, never a skipped test.

use crate::process::{cargo, find, succeed, works};
use crate::{Failure, release};
use anyhow::{Context, Result, anyhow, bail};
use std::path::Path;
use std::process::Command;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Tests,
    Checks,
}

struct Requirement {
    /// The Debian package.
    package: &'static str,
    /// What proves that it is there: a program and arguments with which it ends with 0; without
    /// arguments the program only has to be found.
    proof: &'static [&'static str],
    purpose: Purpose,
    reason: &'static str,
}

const fn tests(package: &'static str, proof: &'static [&'static str], reason: &'static str) -> Requirement {
    Requirement { package, proof, purpose: Purpose::Tests, reason }
}

const fn checks(package: &'static str, proof: &'static [&'static str], reason: &'static str) -> Requirement {
    Requirement { package, proof, purpose: Purpose::Checks, reason }
}

const REQUIREMENTS: &[Requirement] = &[
    tests("age", &["age"], "docs/recovery.md is followed with the stock program"),
    tests("tmux", &["tmux"], "a real terminal that a test, or an attacker, types into"),
    tests("vim", &["vim"], "an editor on the pseudo terminal of `with-secrets --mask`"),
    tests("oathtool", &["oathtool"], "says what a one-time password must be"),
    tests("systemd", &["systemd-socket-activate"], "starts the daemon as its socket unit does"),
    tests("curl", &["curl"], "reads a lent netrc and a lent directory of settings; logs in by the agent"),
    tests(
        "nodejs",
        &["node"],
        "reads lent files, its children too; runs Bitwarden's bw, and the double of its server",
    ),
    tests("npm", &["npm"], "reads lent settings; installs Bitwarden's bw"),
    tests("awscli", &["aws"], "reads lent credentials"),
    tests("python3-pip", &["pip3"], "reads lent settings"),
    tests("git", &["git"], "reads lent settings and credentials; pushes, signs and verifies by the agent"),
    tests(
        "openssh-client",
        &["ssh-keygen"],
        "uses the agent; reads a lent private key; makes and judges ssh keys",
    ),
    tests("openssh-server", &["sshd"], "lets ssh keys in, or does not"),
    tests("putty-tools", &["plink"], "logs in by the agent without saying where"),
    tests(
        "python3-paramiko",
        &["/usr/bin/python3", "-c", "import paramiko"],
        "logs in by the agent without saying where",
    ),
    tests("openssh-client", &["ssh-agent"], "says where a key with destinations may be used"),
    tests("openssh-client", &["ssh-add"], "a client of the agent, in the place of every other"),
    tests("bash", &["bash"], "opvars and unopvars in it, with a real prompt"),
    tests("zsh", &["zsh"], "opvars and unopvars in it, with a real prompt"),
    tests("fish", &["fish"], "opvars and unopvars in it; takes the line that lets ssh find the agent"),
    tests("sudo", &["sudo"], "says what of a shell's environment it passes on"),
    tests("man-db", &["man"], "reads the manual pages"),
    tests("make", &["make"], "its recipes read a lent file"),
    tests("busybox-static", &["busybox"], "a static program that reads a lent file"),
    tests("less", &["less"], "a pager there, and one that reads the terminal beside it"),
    tests(
        "strace",
        &["strace"],
        "kills a program at each of its writes, holds its system calls up or makes them fail",
    ),
    // Debian's own interpreter: one in a home directory is out of reach for the unprivileged user of the tests.
    tests(
        "python3-venv",
        &["/usr/bin/python3", "-c", "import ensurepip, venv"],
        "twine and pypiserver live in an environment of their own",
    ),
    tests("util-linux", &["setpriv"], "runs attackers and victims as an unprivileged user"),
    tests("util-linux", &["setsid"], "a requester in a session of its own, without a terminal"),
    tests("util-linux", &["unshare"], "a mount namespace with a full or read-only file system"),
    tests("mount", &["mount"], "the file systems in it"),
    tests("passwd", &["useradd"], "makes that user"),
    tests("faketime", &["faketime"], "its library moves a daemon's wall clock"),
    tests("procps", &["ps"], "what other users of the machine see of a process"),
    tests("xvfb", &["Xvfb"], "a desktop without a screen"),
    tests("xauth", &["xauth"], "its cookie"),
    tests("xdotool", &["xdotool"], "types into its windows, as a person and as an attacker"),
    tests("imagemagick", &["import"], "pictures of the windows"),
    tests("dbus-daemon", &["dbus-daemon"], "a session bus of the desktop"),
    tests("dunst", &["dunst"], "shows notifications, and takes clicks from anybody"),
    tests("libnotify-bin", &["notify-send"], "the notifications"),
    tests("systemd", &["busctl"], "what is said on a bus"),
    tests(
        "python3-gi",
        &["/usr/bin/python3", "-c", "from gi.repository import Gio"],
        "a double of logind on a bus of its own",
    ),
    tests("util-linux", &["nsenter"], "shows that bus to the daemon alone"),
    tests("pinentry-gtk2", &["pinentry-gtk-2"], "questions in a window"),
    tests("pinentry-qt", &["pinentry-qt"], "questions in a window"),
    tests("pinentry-gnome3", &["pinentry-gnome3"], "questions in a window"),
    tests("pinentry-curses", &["pinentry-curses"], "a pinentry that must count as absent"),
    tests(
        "gcr",
        &["sh", "-c", "test -x /usr/libexec/gcr-prompter"],
        "the window that pinentry-gnome3 asks for",
    ),
    tests("pass", &["pass"], "makes the password stores that keyloan reads"),
    tests("gnupg", &["gpg"], "opens them"),
    tests(
        "gpg-agent",
        &["sh", "-c", "test -x /usr/lib/gnupg/gpg-preset-passphrase"],
        "stands in for a pinentry",
    ),
    tests(
        "keepassxc",
        &["keepassxc-cli"],
        "writes the databases that keyloan reads, and reads those it wrote",
    ),
    tests("openssl", &["openssl"], "a CA of the tests' own, and what it signs"),
    tests("gnome-keyring", &["gnome-keyring-daemon"], "the keyring of a desktop"),
    tests("libsecret-tools", &["secret-tool"], "writes what keyloan reads there, and reads what it wrote"),
    tests(
        "python3",
        &["/usr/bin/python3", "-c", "import http.server, ssl"],
        "runs doubles of vaults' servers",
    ),
    tests(
        "ssh-askpass-gnome",
        &["sh", "-c", "test -x /usr/lib/openssh/gnome-ssh-askpass"],
        "an askpass program, as ssh calls one",
    ),
    tests("sway", &["sway"], "a Wayland desktop without a screen, which lets any program type"),
    tests("wtype", &["wtype"], "types there, as a person and as an attacker"),
    tests(
        "mutter",
        &["mutter"],
        "a Wayland desktop as GNOME's, which lets any program type over the session bus",
    ),
    tests(
        "qtwayland5",
        &["sh", "-c", "ls /usr/lib/*/qt5/plugins/platforms/libqwayland-generic.so"],
        "windows of pinentry-qt on Wayland",
    ),
    tests(
        "python3",
        &["/usr/bin/python3", "-c", "import http.server, json, ssl"],
        "the doubles of op and of a Connect server",
    ),
    checks("g++", &["c++"], "compiles the fuzzer, which is written in C++"),
    checks("shellcheck", &["shellcheck"], "finds faults in the shell scripts"),
    checks("shfmt", &["shfmt"], "one layout for the shell scripts"),
];

/// Where tests look: the unprivileged user they run as has no other programs.
const SYSTEM: &[&str] = &["/usr/bin", "/bin", "/usr/sbin", "/sbin"];

/// The crates without C are also checked for this system.
const OTHER_TARGET: &str = "aarch64-apple-darwin";

const CARGO_DENY: &str = "0.20.2";

pub(crate) fn install_for_tests() -> Result<()> {
    install_packages(&[Purpose::Tests])
}

/// All that `.ci/run` uses.
pub(crate) fn install_all() -> Result<(), Failure> {
    install_packages(&[Purpose::Tests, Purpose::Checks])?;
    let (workspace, target) = release::directories()?;
    if !release::have_target(&workspace, OTHER_TARGET) {
        return Err(
            anyhow!("the target {OTHER_TARGET} could not be had: rustup target add {OTHER_TARGET}").into()
        );
    }
    install_cargo_deny(&target)?;
    Ok(())
}

fn is_there(requirement: &Requirement) -> bool {
    match requirement.proof {
        [] => false,
        [program] if requirement.purpose == Purpose::Tests => {
            SYSTEM.iter().any(|directory| Path::new(directory).join(program).exists())
        }
        [program] => find(program).is_some(),
        [program, arguments @ ..] => works(Command::new(program).args(arguments)),
    }
}

fn missing(purposes: &[Purpose]) -> Vec<&'static Requirement> {
    let wanted = REQUIREMENTS.iter().filter(|requirement| purposes.contains(&requirement.purpose));
    wanted.filter(|wanted| !is_there(wanted)).collect()
}

fn install_packages(purposes: &[Purpose]) -> Result<()> {
    let found_missing = missing(purposes);
    if found_missing.is_empty() {
        return Ok(());
    }
    for one in &found_missing {
        println!("missing: {} ({})", one.package, one.reason);
    }
    let mut packages: Vec<_> = found_missing.iter().map(|one| one.package).collect();
    packages.dedup();
    let names = packages.join(" ");
    if find("apt-get").is_none() {
        bail!("there is no apt-get here; install what these Debian packages hold: {names}");
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("only root can install them: apt-get install --yes --no-install-recommends {names}");
    }
    let mut install = apt_get();
    install.args(["install", "--quiet", "--yes", "--no-install-recommends"]).args(&packages);
    // A fresh machine has no package lists; one that has them is spared the wait.
    if !install.status().context("cannot start apt-get")?.success() {
        succeed(apt_get().arg("update"))?;
        succeed(&mut install)?;
    }
    let still = missing(purposes);
    if !still.is_empty() {
        let still: Vec<_> = still.iter().map(|one| one.proof.join(" ")).collect();
        bail!("installed, and yet these do not run: {}", still.join(", "));
    }
    Ok(())
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Into the target directory, which a machine that checks often keeps.
fn install_cargo_deny(target: &Path) -> Result<()> {
    let root = target.join("tools");
    if find("cargo-deny").is_some() || works(Command::new(root.join("bin/cargo-deny")).arg("--version")) {
        return Ok(());
    }
    println!("building cargo-deny {CARGO_DENY}");
    let mut install = cargo();
    install.args([
        "install",
        "--locked",
        "cargo-deny",
        "--version",
        CARGO_DENY,
        "--no-default-features",
        "--root",
    ]);
    succeed(install.arg(&root))
}
