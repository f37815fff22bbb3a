//! A connection that hears no more than so many bytes in all. zbus takes messages of 128 MiB, and any program of the user
//! may answer with many of them; descriptors that come with one are dropped by the kernel, since nobody asks for them.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use zbus::connection::socket::{ReadHalf, Socket, Split};

/// What one request may be told: ten thousand items, and more than it can pass on. A message is parsed at once, and
/// nobody else is served meanwhile.
const MOST: usize = 16 * 1024 * 1024;

pub(super) struct Metered(pub(super) UnixStream);

pub(super) struct Reading {
    from: OwnedReadHalf,
    left: usize,
}

impl Socket for Metered {
    type ReadHalf = Reading;
    type WriteHalf = OwnedWriteHalf;

    fn split(self) -> Split<Reading, OwnedWriteHalf> {
        let (from, to) = self.0.into_split();
        Split::new(Reading { from, left: MOST }, to)
    }
}

type Received<'a> = Pin<Box<dyn Future<Output = io::Result<(usize, Vec<OwnedFd>)>> + Send + 'a>>;

impl ReadHalf for Reading {
    /// The buffer is what is left of one message.
    fn recvmsg<'life0, 'life1, 'async_trait>(
        &'life0 mut self,
        buffer: &'life1 mut [u8],
    ) -> Received<'async_trait>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            if buffer.len() > self.left {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            let read = self.from.read(buffer).await?;
            self.left -= read;
            Ok((read, Vec::new()))
        })
    }
}

impl fmt::Debug for Reading {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Reading").field("left", &self.left).finish_non_exhaustive()
    }
}
