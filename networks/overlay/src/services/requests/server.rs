//! The side that is asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rookery_base::{CloseCause, PeerId};
use rookery_engine::{PeerHandle, StreamPeer, StreamService};
use rookery_runtime::{BoxFuture, Clock, OnPanic};
use rookery_transport::{MuxStream, WriteHalf};

use super::{BodyReader, BodyWriter, RequestError, read_head};
use crate::wire::request::{AnswerHead, RequestHead, ServiceName, Status};

/// What a service's requests may take.
#[derive(Debug, Clone, Copy)]
pub struct ServiceLimits {
    /// Requests served at a time, of all peers together. A peer has no more than half of what is free to it: one alone gets
    /// half of all, the next one half of the rest. More are told `busy`.
    pub at_once: usize,
    /// Bytes of a request's body.
    pub most_body: u64,
    /// Time for the whole: body, handler, answer. A handler that needs longer is dropped; an answer that it has not begun
    /// is `late`, one that it has begun is reset.
    pub within: Duration,
}

impl ServiceLimits {
    /// For small questions: 64 at once, a megabyte each, half a minute.
    pub const SMALL: Self = Self { at_once: 64, most_body: 1024 * 1024, within: Duration::from_secs(30) };
}

/// A request, as its handler gets it.
pub struct Incoming {
    /// Who asks.
    pub peer: StreamPeer,
    /// What for.
    pub header: Bytes,
    /// The request's body.
    pub body: BodyReader,
}

/// Serves the requests of one service.
pub trait Handler: Send + Sync {
    /// Answers a request. An error is told as a status, if the answer has not begun, and resets the stream otherwise.
    fn handle<'a>(
        &'a self,
        request: Incoming,
        answer: &'a mut AnswerWriter,
    ) -> BoxFuture<'a, Result<(), RequestError>>;
}

/// An answer on its way out.
pub struct AnswerWriter {
    stage: Stage,
    clock: Clock,
}

enum Stage {
    /// Nothing was said.
    Silent(WriteHalf),
    /// The head was sent.
    Begun(BodyWriter),
    /// All was said, or writing failed.
    Over,
}

impl AnswerWriter {
    const fn new(write: WriteHalf, clock: Clock) -> Self {
        Self { stage: Stage::Silent(write), clock }
    }

    /// Sends the answer's head. Once; a second one is ignored.
    ///
    /// # Errors
    /// When the header is too long (then the answer has not begun), or the stream does not take it.
    pub async fn begin(&mut self, status: Status, header: Bytes) -> Result<(), RequestError> {
        self.open(status, header, &[]).await
    }

    /// Sends the head, unless it was sent, together with the first bytes of the body.
    async fn open(&mut self, status: Status, header: Bytes, bytes: &[u8]) -> Result<(), RequestError> {
        let head = AnswerHead { status, header }.encode().ok_or(RequestError::HeaderTooLong)?;
        let Stage::Silent(write) = std::mem::replace(&mut self.stage, Stage::Over) else { return Ok(()) };
        let mut body = BodyWriter::new(write, self.clock);
        body.open(&head, bytes).await?;
        self.stage = Stage::Begun(body);
        Ok(())
    }

    /// Writes bytes of the body, after a head of [`Status::Ok`] if none was sent; waits while the peer does not read.
    ///
    /// # Errors
    /// When the stream does not take them.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), RequestError> {
        match &mut self.stage {
            Stage::Silent(_) => self.open(Status::Ok, Bytes::new(), bytes).await,
            Stage::Begun(body) => body.write(bytes).await,
            Stage::Over => Ok(()),
        }
    }

    /// Says that the answer is complete.
    async fn finish(&mut self) -> Result<(), RequestError> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Begun(body) => body.finish().await,
            Stage::Silent(_) | Stage::Over => Ok(()),
        }
    }

    /// Ends with this status, if nothing was said; otherwise the stream is reset, since what was begun cannot be completed.
    async fn fail(&mut self, status: Status) -> Result<(), RequestError> {
        if matches!(self.stage, Stage::Silent(_)) {
            self.begin(status, Bytes::new()).await?;
            return self.finish().await;
        }
        self.stage = Stage::Over;
        Ok(())
    }
}

struct Served {
    handler: Arc<dyn Handler>,
    limits: ServiceLimits,
    /// Requests that are served, by who has asked.
    places: Mutex<BTreeMap<PeerId, usize>>,
}

impl Served {
    /// A place for a request of this peer: as long as it has fewer than are left. So however many places a peer, or a crowd of
    /// them, has taken, there is one for whoever has none, until all are held by as many peers as halving takes.
    fn enter(&self, peer: PeerId) -> Option<Place<'_>> {
        let mut places = self.lock();
        let taken: usize = places.values().sum();
        let own = places.get(&peer).copied().unwrap_or(0);
        if own >= self.limits.at_once.saturating_sub(taken) {
            return None;
        }
        places.insert(peer, own + 1);
        drop(places);
        Some(Place { served: self, peer })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerId, usize>> {
        // Held for a look; nothing under it can panic.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request's place, until it is dropped.
struct Place<'a> {
    served: &'a Served,
    peer: PeerId,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut places = self.served.lock();
        if let Some(own) = places.get_mut(&self.peer) {
            *own -= 1;
            if *own == 0 {
                places.remove(&self.peer);
            }
        }
    }
}

/// The services of a node. Cloning gives another handle to the same table and the same places.
#[derive(Clone, Default)]
pub struct RequestServer {
    services: Arc<BTreeMap<ServiceName, Served>>,
}

impl RequestServer {
    /// Serves these; of two with one name the later.
    pub fn new(services: impl IntoIterator<Item = (ServiceName, ServiceLimits, Arc<dyn Handler>)>) -> Self {
        let served = services
            .into_iter()
            .map(|(name, limits, handler)| (name, Served { handler, limits, places: Mutex::default() }));
        Self { services: Arc::new(served.collect()) }
    }

    /// Serves one stream to its end. Dropping the future resets what has not been finished.
    ///
    /// # Errors
    /// Why it did not come to a good end; the peer was told, as far as it could be.
    pub async fn serve(&self, peer: StreamPeer, stream: MuxStream) -> Result<(), RequestError> {
        let MuxStream { mut read, write } = stream;
        let clock = peer.env.clock;
        let mut answer = AnswerWriter::new(write, clock);
        // A head that is none gets no answer: the stream is reset.
        let head = RequestHead::decode(&read_head(&mut read, clock).await?)?;
        let (served, _place) = match self.admit(&head.service, peer.facts.peer) {
            Ok(admitted) => admitted,
            Err(status) => return answer.fail(status).await,
        };
        let body = BodyReader::new(read, clock, served.limits.most_body);
        let request = Incoming { peer, header: head.header, body };
        let handled = clock.timeout(served.limits.within, served.handler.handle(request, &mut answer)).await;
        match handled {
            Some(Ok(())) if !matches!(answer.stage, Stage::Silent(_)) => answer.finish().await,
            Some(Ok(())) => answer.fail(Status::Failed).await,
            Some(Err(error)) => {
                let status = match &error {
                    RequestError::TooLarge(_) => Status::TooLarge,
                    RequestError::Late(..) => Status::Late,
                    RequestError::Answered(status, _) => *status,
                    _ => Status::Failed,
                };
                answer.fail(status).await?;
                Err(error)
            }
            None => {
                answer.fail(Status::Late).await?;
                Err(RequestError::Late("the service", served.limits.within.as_secs()))
            }
        }
    }

    fn admit(&self, name: &ServiceName, peer: PeerId) -> Result<(&Served, Place<'_>), Status> {
        let served = self.services.get(name).ok_or(Status::NoService)?;
        let place = served.enter(peer).ok_or(Status::Busy)?;
        Ok((served, place))
    }
}

/// Ends the session for a handler's panic, before its scope ends: else the peer would be told that the node stops.
struct Blame(PeerHandle);

impl Drop for Blame {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close(CloseCause::Panic);
        }
    }
}

impl StreamService for RequestServer {
    fn accept(&self, peer: &StreamPeer, stream: MuxStream) {
        let (server, peer) = (self.clone(), peer.clone());
        peer.env.scope.clone().spawn("request", OnPanic::EndScope, async move {
            let (env, session) = (peer.env.clone(), peer.handle.generation.0);
            let _blame = Blame(peer.handle.clone());
            let verdict = match server.serve(peer, stream).await {
                Ok(()) => "served",
                Err(RequestError::Broken(_)) => "broken",
                Err(RequestError::Late(..)) => "late",
                Err(RequestError::TooLarge(_)) => "too_large",
                Err(RequestError::Malformed(_)) => "malformed",
                Err(RequestError::HeaderTooLong | RequestError::Answered(..)) => "failed",
            };
            env.trace("request_stream", session, 0, 0, verdict);
        });
    }
}
