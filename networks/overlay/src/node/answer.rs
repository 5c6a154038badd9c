//! Services that answer small questions, each with a function.

use std::sync::Arc;

use bytes::Bytes;
use rookery_base::PeerId;
use rookery_runtime::BoxFuture;

use crate::services::requests::{AnswerWriter, Handler, Incoming, RequestError};
use crate::wire::request::Status;

/// A whole request with a small body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Who asks, as the handshake has proven.
    pub from: PeerId,
    /// What for.
    pub header: Bytes,
    /// The body; its bound is the service's.
    pub body: Bytes,
}

/// A whole answer with a small body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// How it went. The caller of [`Handle::request`](super::Handle::request) gets anything but `Ok` as an error.
    pub status: Status,
    /// What the service says about it.
    pub header: Bytes,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// It went well; this is the body.
    pub fn ok(body: impl Into<Bytes>) -> Self {
        Self { status: Status::Ok, header: Bytes::new(), body: body.into() }
    }

    /// The service does not do that, for this reason.
    pub fn refused(why: impl Into<Bytes>) -> Self {
        Self { status: Status::Refused, header: why.into(), body: Bytes::new() }
    }

    /// Says this about it.
    #[must_use]
    pub fn with_header(self, header: impl Into<Bytes>) -> Self {
        Self { header: header.into(), ..self }
    }
}

struct Answering<F>(F);

impl<F, Fut> Handler for Answering<F>
where
    F: Fn(Question) -> Fut + Send + Sync,
    Fut: Future<Output = Reply> + Send,
{
    fn handle<'a>(
        &'a self,
        mut request: Incoming,
        answer: &'a mut AnswerWriter,
    ) -> BoxFuture<'a, Result<(), RequestError>> {
        Box::pin(async move {
            let body = request.body.all().await?;
            let question = Question { from: request.peer.facts.peer, header: request.header, body };
            let reply = (self.0)(question).await;
            answer.begin(reply.status, reply.header).await?;
            answer.write(&reply.body).await
        })
    }
}

/// A handler that reads a question whole, asks `answer`, and writes the reply whole. For bodies that are worth holding in
/// memory: the service's [`ServiceLimits`](crate::services::requests::ServiceLimits) say how large and how many. Larger
/// ones stream, through a [`Handler`] of the application's own.
pub fn answering<F, Fut>(answer: F) -> Arc<dyn Handler>
where
    F: Fn(Question) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Reply> + Send + 'static,
{
    Arc::new(Answering(answer))
}
