//! Waiting for a descriptor.

use std::io;
use std::os::fd::OwnedFd;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor that is owned for as long as it is watched, which is what the unsafe constructor
/// that tokio offers instead would have its caller promise.
#[expect(
    deprecated,
    reason = "the newer constructor is an unsafe fn, and an OwnedFd keeps its promise by itself"
)]
pub(crate) fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(descriptor)
}
