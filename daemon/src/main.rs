//! keyloand: holds the keys to the vault and lends what is in it.
//!
//! Depends on no caller's environment but the XDG paths, no working directory and no umask. Undumpable
//! before anything else is done.
#![forbid(unsafe_code)]

mod approval;
mod audit;
mod binding;
mod broker;
mod clock;
mod config;
mod env_set;
mod generate;
mod git_buffer;
mod grant;
mod hosts;
mod journal;
mod loan;
#[cfg(target_os = "linux")]
mod logind;
mod patience;
mod policy;
mod readiness;
mod requester;
mod server;
mod signing;
mod socket;
mod ssh_agent;
mod totp;
mod trust;
mod vault;

use anyhow::Context as _;
use audit::sink::Sink;
use broker::Broker;
use config::Config;
use journal::Level;
use keyloan_platform::paths::Paths;
use keyloan_platform::private_file::Directory;
use keyloan_platform::process;
use keyloan_platform::service::{self, Manager};
use keyloan_platform::wiping::Wiping;
use socket::Sockets;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

#[global_allocator]
static HEAP: Wiping = Wiping;

const TICK: Duration = Duration::from_secs(5);
/// Under an allow rule a record is on disk within this time.
const SYNC: Duration = Duration::from_millis(900);

fn main() -> ExitCode {
    let protected = process::make_undumpable();
    keyloan_platform::memory::give_back_what_is_freed();
    match protected.context("cannot protect this process's memory").and_then(|()| run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            journal::write(&format!("keyloand: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    match (arguments.next().as_deref().and_then(|word| word.to_str()), arguments.next()) {
        (Some("run"), None) => {}
        // A child of a daemon's.
        (Some(vault::linked::OPEN_KEEPASS), None) => return Ok(vault::linked::open_keepass()?),
        (Some("--version"), None) => {
            journal::write(concat!("keyloand ", env!("CARGO_PKG_VERSION")));
            return Ok(());
        }
        _ => anyhow::bail!("usage: keyloand run (keyloan starts it by itself)"),
    }
    // Away from the terminal of whoever started it; under a shell's job control it stays there.
    let _ = nix::unistd::setsid();
    nix::unistd::chdir("/").context("cannot leave the working directory")?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    process::raise_descriptor_limit().context("cannot raise the limit on descriptors")?;
    process::bear_file_size_limit().context("cannot ignore SIGXFSZ")?;
    let paths = Paths::discover()?;
    let config = Config::load(&paths)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = LocalSet::new().block_on(&runtime, async {
        let Some(sockets) = socket::listen(&paths.runtime)? else {
            // Another daemon won the race; whoever started this one talks to that.
            return Ok(());
        };
        let state = Directory::open_or_create(&paths.state)?;
        // Another runtime directory makes another daemon, and the records of two would not make one chain.
        let _state_lock = state.lock().inspect_err(|_| sockets.close()).with_context(|| {
            format!(
                "cannot take the log's directory (this daemon's socket is in {})",
                paths.runtime.display()
            )
        })?;
        let broker = Rc::new(Broker::new(paths, config, Sink::open(state)?));
        broker.started()?;
        broker.remove_files_left();
        broker.remove_markers_left();
        serve(&sockets, &broker).await
    });
    // A thread that looks at a mount that does not answer is not waited for.
    runtime.shutdown_background();
    served
}

async fn serve(sockets: &Sockets, broker: &Rc<Broker>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // As OpenSSH's agent takes it: keys that were added go.
    let mut forget = signal(SignalKind::user_defined1())?;
    // The terminal it may have been started from can close.
    let _hang_up = signal(SignalKind::hangup())?;
    let manager = Manager::find();
    ready(manager.as_ref());
    let watchdog = service::watchdog().filter(|_| manager.is_some());
    // Without one, a time that never comes.
    let mut watched = tokio::time::interval(watchdog.unwrap_or(Duration::from_secs(365 * 86400)));
    let mut tick = tokio::time::interval(TICK);
    let mut sync = tokio::time::interval(SYNC);
    let serving = async {
        tokio::join!(server::serve(&sockets.control, broker), ssh_agent::serve(&sockets.agent, broker));
    };
    tokio::pin!(serving);
    #[cfg(target_os = "linux")]
    tokio::task::spawn_local(logind::obey(Rc::clone(broker)));
    tokio::task::spawn_local(Rc::clone(broker).end_leases());
    loop {
        tokio::select! {
            () = &mut serving => break,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = broker.stop.notified() => break,
            _ = forget.recv() => broker.forget_added_keys(),
            _ = tick.tick() => {
                broker.tick();
                let broker = Rc::clone(broker);
                tokio::task::spawn_local(async move { broker.look_for_holders().await });
            }
            _ = sync.tick() => {
                let broker = Rc::clone(broker);
                tokio::task::spawn_local(async move { broker.sync_log().await });
            }
            // Said from the loop that serves requests: while that stands still, so does this.
            _ = watched.tick() => tell(manager.as_ref(), "WATCHDOG=1"),
        }
    }
    tell(manager.as_ref(), "STOPPING=1");
    sockets.close();
    broker.stopped().await;
    journal::say(Level::Info, "stopped; nothing is unlocked any more");
    Ok(())
}

/// Tells whoever started this daemon that it listens: its standard error, a pipe, closes empty. A service manager
/// is told by its own way, and its journal stays open.
fn ready(manager: Option<&Manager>) {
    tell(manager, "READY=1");
    if journal::is_there() {
        journal::say(Level::Info, "listening");
    } else if let Ok(null) = std::fs::OpenOptions::new().write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stderr(null);
    }
}

fn tell(manager: Option<&Manager>, state: &str) {
    if let Some(manager) = manager {
        manager.tell(state);
    }
}
