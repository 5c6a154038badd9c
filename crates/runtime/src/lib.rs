//! What every task gets from its surroundings, so that a simulation can own it.
//!
//! | module | what it is for |
//! |---|---|
//! | [`mod@env`] | [`Env`]: clock, randomness, supervision, metrics, trace; one per node |
//! | [`clock`] | monotonic and calendar time, real or virtual |
//! | [`rng`] | randomness forked by label, from the system or from a seed |
//! | [`scope`] | the supervision tree: nothing is spawned outside one |
//! | [`worker`] | state with blocking work on its own thread; inline in simulation |
//! | [`fair`] | a mailbox with a lane per peer, of which the least served is served next |
//! | [`ticket`] | slots that come back by themselves when their holder ends, however it ends |
//! | [`limiter`], [`backoff`] | token bucket, seeded exponential backoff |

#[cfg(panic = "abort")]
compile_error!(
    "supervision needs unwinding: a panic must cost one peer, not the process (set panic = \"unwind\")"
);

pub mod backoff;
pub mod clock;
pub mod env;
pub mod fair;
pub mod limiter;
pub mod rng;
pub mod scope;
pub mod ticket;
pub mod worker;

pub use backoff::{Backoff, BackoffConfig};
pub use clock::Clock;
pub use env::Env;
pub use fair::{FairMailbox, Lane, LaneLimits, LaneOpener, Push};
pub use limiter::TokenBucket;
pub use rng::RngSource;
pub use scope::{OnPanic, Scope};
pub use ticket::{Returns, Ticket, TicketOffice};
pub use tokio::time::Instant;
pub use worker::{Worker, WorkerGone};

/// A boxed future that can move between threads, for the few `dyn` seams.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
