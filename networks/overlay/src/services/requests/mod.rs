//! Requests: a question and its answer on a stream of their own, each as long as it needs to be.
//!
//! ```text
//!  caller: begin ---- head, chunks ... finish --->  server: head -> handler(header, body, answer)
//!          Answer <--- head, chunks ... finish ----
//! ```
//!
//! Each half flows on its own: an answer may begin, and even end, before its request has. A writer waits while the other
//! side does not read (QUIC's flow control), so that neither side ever holds more than a chunk and its windows. A half that was
//! finished is complete; one that was dropped is reset, and the other side gets an error instead of an end. Every wait has a
//! deadline: [`HEAD_WITHIN`] for a head, [`IDLE`] for the next piece of a body.
//!
//! **Serving.** A table names the services of this node, each with its [`ServiceLimits`]; it does not change while the node
//! runs. A stream whose head is sound is handed to its service's handler, in a task of the peer's scope: what the peer
//! asked for ends with its session. A handler that panics costs that peer, and is counted. An answer that its handler does
//! not begin before it ends is `failed`; one that it does not finish is reset.
//!
//! | abuse | what stops it |
//! |---|---|
//! | streams without end | QUIC's limit on open streams of a peer; each service's bound on requests at a time, then `busy` |
//! | a stream that says nothing | [`HEAD_WITHIN`] |
//! | a body of one byte a second | [`IDLE`] for each piece, and the service's deadline for the whole |
//! | a body without end | the service's bound, counted as it comes; then `too large` |
//! | not reading the answer | [`IDLE`] for each piece written, then the stream is reset |
//! | a service that does not exist | an answer of six bytes |

mod body;
mod client;
mod server;
#[cfg(test)]
mod tests;

use std::io;
use std::time::Duration;

use bytes::Bytes;
use rookery_base::DecodeError;
use rookery_runtime::Clock;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::wire::request::{LEN_LEN, Status, head_len};

pub use body::{BodyReader, BodyWriter};
pub use client::{Answer, Pending, ask, begin};
pub use server::{AnswerWriter, Handler, Incoming, RequestServer, ServiceLimits};

/// Time for a head, once its stream is there: it is a few kilobytes at most.
pub const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// Time for the next piece of a body, in either direction. Long enough for a line that recovers from loss.
pub const IDLE: Duration = Duration::from_secs(30);
/// Largest piece that is read or written at a time, and so all that a stream holds besides QUIC's windows.
pub const CHUNK: usize = 64 * 1024;

/// Why an exchange did not come to its end. Only [`Malformed`](Self::Malformed) says that the other side broke a rule.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The other side reset the stream, or the connection ended.
    #[error("the stream broke: {0}")]
    Broken(#[from] io::Error),
    /// Nothing came, or nothing was taken, for so long.
    #[error("{0} took longer than {1} s")]
    Late(&'static str, u64),
    /// More than the bound.
    #[error("a body of more than {0} bytes")]
    TooLarge(u64),
    /// A head that is none.
    #[error("a head that does not decode: {0}")]
    Malformed(#[from] DecodeError),
    /// A header that is too long to be sent: our own mistake.
    #[error("a header over its bound was not sent")]
    HeaderTooLong,
    /// The other side answered, and not well.
    #[error("the service answered that {0}{words}", words = words(.1))]
    Answered(Status, Bytes),
}

/// Characters of an answer's header that are shown: a sentence.
const WORDS: usize = 256;

/// What a service says beside its status, as far as it is text.
fn words(header: &[u8]) -> String {
    let text = String::from_utf8_lossy(header);
    let shown: String = text.chars().filter(|c| !c.is_control()).take(WORDS).collect();
    if shown.is_empty() { shown } else { format!(": {shown}") }
}

/// Reads a head: its length, then that many bytes.
async fn read_head(read: &mut (impl AsyncRead + Unpin), clock: Clock) -> Result<Bytes, RequestError> {
    let reading = async {
        let mut len = [0; LEN_LEN];
        read.read_exact(&mut len).await?;
        let mut head = vec![0; head_len(len)?];
        read.read_exact(&mut head).await?;
        Ok(Bytes::from(head))
    };
    within(clock, HEAD_WITHIN, "a head", reading).await
}

async fn within<T>(
    clock: Clock,
    deadline: Duration,
    what: &'static str,
    work: impl Future<Output = Result<T, RequestError>>,
) -> Result<T, RequestError> {
    clock.timeout(deadline, work).await.unwrap_or(Err(RequestError::Late(what, deadline.as_secs())))
}
