//! The two ends of a body: bounded, with a deadline for each piece.

use bytes::{Bytes, BytesMut};
use rookery_runtime::Clock;
use rookery_transport::{ReadHalf, WriteHalf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{CHUNK, IDLE, RequestError, within};

/// Room for the first piece of a body: most are small, and what is longer earns its room by filling it.
const FIRST_ROOM: usize = 2 * 1024;

/// A body that comes in.
pub struct BodyReader {
    read: ReadHalf,
    clock: Clock,
    most: u64,
    left: u64,
    /// Room for the next piece.
    room: usize,
}

impl BodyReader {
    pub(super) const fn new(read: ReadHalf, clock: Clock, most: u64) -> Self {
        Self { read, clock, most, left: most, room: FIRST_ROOM }
    }

    /// The next piece, at most [`CHUNK`] bytes; `None` at the body's end. Not reading is how to hold the other side back.
    /// Cancel-safe.
    ///
    /// # Errors
    /// When the body is over its bound, its half was reset, or nothing came for [`IDLE`].
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, RequestError> {
        let mut piece = BytesMut::with_capacity(self.room);
        let reading = async { Ok(self.read.read_buf(&mut piece).await?) };
        let came = within(self.clock, IDLE, "the next piece of a body", reading).await?;
        if came == 0 {
            return Ok(None);
        }
        if came == self.room {
            self.room = CHUNK.min(2 * self.room);
        }
        self.left = self.left.checked_sub(came as u64).ok_or(RequestError::TooLarge(self.most))?;
        Ok(Some(piece.freeze()))
    }

    /// The whole body, as far as its bound; so only for bodies with a small one.
    ///
    /// # Errors
    /// As of [`BodyReader::chunk`].
    pub async fn all(&mut self) -> Result<Bytes, RequestError> {
        let mut whole = BytesMut::new();
        while let Some(piece) = self.chunk().await? {
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }
}

/// A body that goes out. Dropped before [`BodyWriter::finish`], it resets its half: the other side learns that the body
/// is not complete.
pub struct BodyWriter {
    write: WriteHalf,
    clock: Clock,
}

impl BodyWriter {
    pub(super) const fn new(write: WriteHalf, clock: Clock) -> Self {
        Self { write, clock }
    }

    /// Writes a head and the body's first bytes as one, so that what is small goes out in one packet.
    pub(super) async fn open(&mut self, head: &[u8], bytes: &[u8]) -> Result<(), RequestError> {
        let (first, rest) = bytes.split_at(bytes.len().min(CHUNK.saturating_sub(head.len())));
        self.write(&[head, first].concat()).await?;
        self.write(rest).await
    }

    /// Writes bytes, a piece at a time; waits while the other side does not read.
    ///
    /// # Errors
    /// When the other side has stopped the stream, or took nothing for [`IDLE`].
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), RequestError> {
        for piece in bytes.chunks(CHUNK) {
            let writing = async { Ok(self.write.write_all(piece).await?) };
            within(self.clock, IDLE, "writing a piece of a body", writing).await?;
        }
        Ok(())
    }

    /// Says that the body is complete.
    ///
    /// # Errors
    /// As of [`BodyWriter::write`].
    pub async fn finish(mut self) -> Result<(), RequestError> {
        let finishing = async { Ok(self.write.shutdown().await?) };
        within(self.clock, IDLE, "finishing a body", finishing).await
    }
}
