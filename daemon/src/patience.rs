//! Looking at what somebody else chose. A file on a mount that does not answer, or a process whose memory
//! another process serves (userfaultfd(2)), keeps whoever looks waiting for ever; that must not be the daemon.

use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How long a look may take.
const LIMIT: Duration = Duration::from_secs(2);

/// Looks under way at once. One that never returns keeps its place, so that not every thread ends up in one.
static PLACES: Semaphore = Semaphore::const_new(32);

/// Looks off the event loop; `None` where that takes too long, which callers take for the worst.
pub(crate) async fn look<T: Send + 'static>(at: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let looking = async {
        let place = PLACES.acquire().await.ok()?;
        let looked = tokio::task::spawn_blocking(move || {
            let _place = place;
            at()
        });
        looked.await.ok()
    };
    timeout(LIMIT, looking).await.ok()?
}
