//! The process of `bw serve`: how it is started, with one end of a pair of sockets as its standard input, and what became of
//! one that is gone.

use super::super::http::Server;
use super::super::runner::{Kept, Order};
use super::Fault;
use super::said;
use super::serve::How;
use std::cell::RefCell;
use std::os::unix::net::UnixStream as Pair;
use std::time::Duration;
use tokio::net::UnixStream;

/// Of `buildServeAllowedHosts`, in every version: without it each request is answered with 403.
const HOST: &str = "localhost:8087";

pub(super) async fn started(how: &How) -> Result<(Server, Process), Fault> {
    let broken = |error: std::io::Error| Fault::Broken(format!("no socket can be made: {error}"));
    let (ours, theirs) = Pair::pair().map_err(broken)?;
    ours.set_nonblocking(true).map_err(broken)?;
    let ours = UnixStream::from_std(ours).map_err(broken)?;
    let mut variables = vec![("BITWARDENCLI_APPDATA_DIR", how.appdata.clone().into_os_string())];
    if let Some(ca) = &how.ca {
        ca.text().await?;
        variables.push(("NODE_EXTRA_CA_CERTS", ca.path.clone().into_os_string()));
    }
    let order = Order {
        program: &how.program,
        arguments: ["serve", "--hostname", "fd+connected://0"].map(Into::into).to_vec(),
        variables,
        input: None,
        most: 0,
        deadline: Duration::ZERO,
    };
    let kept = order.keep(theirs.into()).await?;
    let shown = how.program.path.display().to_string();
    Ok((Server::given(ours, HOST, shown.clone()), Process { kept: RefCell::new(Some(kept)), shown }))
}

pub(super) struct Process {
    pub(super) kept: RefCell<Option<Kept>>,
    shown: String,
}

impl Process {
    pub(super) fn has_ended(&self) -> bool {
        self.kept.borrow_mut().as_mut().is_none_or(Kept::has_ended)
    }
}

/// What became of a process that does not answer.
pub(super) async fn lost(process: Process, fault: Fault) -> Fault {
    let kept = process.kept.into_inner();
    let ended = match (kept, &fault) {
        (Some(kept), Fault::Unreachable(_)) => kept.ended().await,
        _ => return fault,
    };
    let broken = |how: String| Fault::Broken(format!("{} {how}", process.shown));
    match ended {
        Some((None, _)) => broken("was killed".to_owned()),
        Some((Some(status), text)) => said::at_the_end(text.expose())
            .unwrap_or_else(|| broken(format!("ended with status {status} instead of serving"))),
        None => fault,
    }
}
