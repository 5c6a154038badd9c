//! The caller's side.

use std::time::Duration;

use bytes::Bytes;
use rookery_runtime::Clock;
use rookery_transport::{MuxStream, ReadHalf};

use super::{BodyReader, BodyWriter, RequestError, read_head, within};
use crate::wire::request::{AnswerHead, RequestHead, Status};

/// An answer that has not begun.
pub struct Pending {
    read: ReadHalf,
    clock: Clock,
}

/// An answer that has begun.
pub struct Answer {
    /// How it went.
    pub status: Status,
    /// What the service says about it.
    pub header: Bytes,
    /// The body.
    pub body: BodyReader,
}

impl Pending {
    /// Waits up to `within` for the answer's head; then its body, of at most `most` bytes, can be read. Before the head
    /// has come a service may need its time: this deadline is the caller's to choose.
    ///
    /// # Errors
    /// When it does not come, or is none.
    pub async fn answer(mut self, deadline: Duration, most: u64) -> Result<Answer, RequestError> {
        let reading = async {
            let mut peeked = [0; 1];
            // The first byte may take as long as the service needs; the rest of a head comes with it.
            tokio::io::AsyncReadExt::read_exact(&mut self.read, &mut peeked).await?;
            Ok(peeked)
        };
        let first = within(self.clock, deadline, "an answer", reading).await?;
        let mut rest = tokio::io::AsyncReadExt::chain(&first[..], &mut self.read);
        let AnswerHead { status, header } = AnswerHead::decode(&read_head(&mut rest, self.clock).await?)?;
        Ok(Answer { status, header, body: BodyReader::new(self.read, self.clock, most) })
    }
}

/// Begins a request on a stream that was opened for it: sends the head. Body and answer go on side by side.
///
/// # Errors
/// When the header is too long, or the stream does not take the head.
pub async fn begin(
    stream: MuxStream,
    clock: Clock,
    head: &RequestHead,
) -> Result<(BodyWriter, Pending), RequestError> {
    let (head, (mut body, pending)) = (encoded(head)?, halves(stream, clock));
    body.write(&head).await?;
    Ok((body, pending))
}

fn encoded(head: &RequestHead) -> Result<Bytes, RequestError> {
    head.encode().ok_or(RequestError::HeaderTooLong)
}

fn halves(MuxStream { read, write }: MuxStream, clock: Clock) -> (BodyWriter, Pending) {
    (BodyWriter::new(write, clock), Pending { read, clock })
}

/// A whole exchange with small bodies: sends `body`, gives the answer's header and body, the latter of at most `most` bytes.
/// Ends within `deadline`, whatever the other side does.
///
/// # Errors
/// When it fails on the way, or the answer is anything but [`Status::Ok`].
pub async fn ask(
    stream: MuxStream,
    clock: Clock,
    head: &RequestHead,
    body: &[u8],
    deadline: Duration,
    most: u64,
) -> Result<(Bytes, Bytes), RequestError> {
    let exchange = async {
        let (head, (mut writer, pending)) = (encoded(head)?, halves(stream, clock));
        let sending = async {
            writer.open(&head, body).await?;
            writer.finish().await
        };
        let answering = async {
            let mut answer = pending.answer(deadline, most).await?;
            if answer.status != Status::Ok {
                return Err(RequestError::Answered(answer.status, answer.header));
            }
            Ok((answer.header, answer.body.all().await?))
        };
        tokio::pin!(sending);
        // A service may answer, and stop reading, before it has read everything: then how sending ended does not matter.
        let mut answering = std::pin::pin!(answering);
        tokio::select! {
            biased;
            answered = &mut answering => answered,
            _ = &mut sending => answering.await,
        }
    };
    within(clock, deadline, "the exchange", exchange).await
}
