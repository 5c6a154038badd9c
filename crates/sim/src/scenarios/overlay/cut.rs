//! A connect that is cut off: after any number of polls of any task, by any of those who take part in it.
//!
//! Between two polls every task of both nodes is at one of its awaits: cut after each number of polls, a connect is cut at each
//! await of its path, from the first datagram to the session at both ends. Lines take no time, so that none is skipped.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use rookery_overlay::Builder;
use rookery_transport::quic::QuicLimits;

use super::overlay_world::{OverlayWorld, Seated, ghost_within};
use crate::chainworld::host;
use crate::fabric::Link;
use crate::scenarios::Scenario;
use crate::world::{Failure, Report, WorldConfig};

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "overlay-cut",
    about: "connects are cut off on their way, by either side: nothing of them stays, and the next ones get through",
    run: |seed| cut(seed, 53),
};

const SERVER: u32 = 0;
const DIALLER: u32 = 1;
/// Polls after which a moment passes, for what waits for its time: more than go by until nothing else is left to do.
const MOMENT: usize = 2_000;
/// A connect that has not ended after so many polls stands still.
const MOST_POLLS: usize = 50_000;
/// One that takes fewer has not been cut off on its way: at least as many tasks and flights take part in it.
const LEAST_POLLS: usize = 30;
/// Whoever is gone without a word is missed soon.
const LIMITS: QuicLimits = QuicLimits {
    idle: Duration::from_secs(2),
    keep_alive: Duration::from_millis(600),
    ..QuicLimits::DEFAULT
};
/// How long a ban lasts.
const BAN: Duration = Duration::from_secs(1);

/// Who cuts it off.
#[derive(Debug, Clone, Copy)]
enum Cutter {
    /// The application that has asked for it does not wait any more.
    Caller,
    /// The dialling node stops, and says so.
    Dialler,
    /// The dialling node is gone without a word.
    LostDialler,
    /// The server stops, and says so.
    Server,
    /// The server is gone without a word, and starts again.
    LostServer,
    /// The operator ends all sessions with the dialler's host.
    Operator,
    /// The operator bans the dialler's host, for a moment.
    Ban,
}

const CUTTERS: [Cutter; 7] = [
    Cutter::Caller,
    Cutter::Dialler,
    Cutter::LostDialler,
    Cutter::Server,
    Cutter::LostServer,
    Cutter::Operator,
    Cutter::Ban,
];

/// Lets so many polls of tasks go by, this future's among them; what became of it, if it has ended.
async fn polled<T>(ow: &OverlayWorld, future: impl Future<Output = T>, count: usize) -> Option<T> {
    let mut future = pin!(future);
    for poll in 1..=count {
        // Ready at once, and behind the one task that goes first.
        let mut looked = false;
        let step = poll_fn(|cx| {
            if let Poll::Ready(done) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            if std::mem::replace(&mut looked, true) {
                return Poll::Ready(None);
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        });
        if let Some(done) = step.await {
            return Some(done);
        }
        if poll % MOMENT == 0 {
            ow.world.pass(Duration::from_millis(1)).await;
        }
    }
    None
}

fn node(builder: Builder) -> Builder {
    builder.local().quic(LIMITS)
}

/// Starts a connect and cuts it off. Whether it had ended before.
async fn cut_off(ow: &OverlayWorld, cutter: Cutter, after: usize) -> Result<bool, String> {
    let server = ow.start(SERVER, node).await?;
    let dialler = ow.start(DIALLER, node).await?;
    let ended = polled(ow, dialler.connect(server.addr()), after).await;
    let ended = ended.transpose()?.is_some();
    let from = dialler.addr();
    match cutter {
        Cutter::Caller => {}
        Cutter::Dialler => ow.stop(DIALLER).await?,
        Cutter::LostDialler => ow.kill(DIALLER).await?,
        Cutter::Server => ow.stop(SERVER).await?,
        Cutter::LostServer => ow.kill(SERVER).await?,
        Cutter::Operator => drop(server.handle.engine().disconnect(from).await),
        Cutter::Ban => {
            server.handle.engine().ban(from.ip(), Some(BAN)).await;
        }
    }
    Ok(ended)
}

/// The node of a seat; a new one where none is left.
async fn again(ow: &OverlayWorld, seat: u32) -> Result<Seated, String> {
    match ow.up(seat) {
        Some(seated) => Ok(seated),
        None => ow.start(seat, node).await,
    }
}

/// Whoever is left has nothing of the other, or both have the same session.
async fn settled(ow: &OverlayWorld) -> Result<(), String> {
    let agreed = || {
        let quiet = |seat: u32| ow.up(seat).is_none_or(|up| up.handle.engine().accounts().shaking == 0);
        let sessions = [SERVER, DIALLER].map(|seat| ow.sessions(seat).len());
        let same = ow.one_session(SERVER, DIALLER).is_ok();
        quiet(SERVER) && quiet(DIALLER) && (same || sessions == [0, 0])
    };
    ow.world.until("both ends agree", ghost_within(LIMITS), agreed).await
}

/// Who stops says so, and whoever had a session with it has heard that, whatever its streams met first.
fn told(ow: &OverlayWorld, cutter: Cutter) -> Result<(), String> {
    let other = match cutter {
        Cutter::Dialler => SERVER,
        Cutter::Server => DIALLER,
        _ => return Ok(()),
    };
    let ended = ow.up(other).map(|up| up.handle.engine().accounts().ended).unwrap_or_default();
    if ended.keys().all(|why| *why == "closed_by_peer") {
        return Ok(());
    }
    Err(format!("seat {other} takes a goodbye for something else: {ended:?}"))
}

async fn round(ow: &OverlayWorld, cutter: Cutter, after: usize) -> Result<bool, String> {
    let ended = cut_off(ow, cutter, after).await?;
    settled(ow).await?;
    if matches!(cutter, Cutter::Ban) {
        ow.world.pass(BAN).await;
    }
    told(ow, cutter)?;
    let (server, dialler) = (again(ow, SERVER).await?, again(ow, DIALLER).await?);
    dialler.connect(server.addr()).await?;
    dialler.talk(server.id()).await?;
    server.talk(dialler.id()).await?;
    ow.one_session(SERVER, DIALLER)?;
    for end in [server, dialler] {
        let slots = end.handle.engine().audit().await.map(|audit| audit.slots);
        if slots != Some(1) {
            return Err(format!("node {} has {slots:?} slots taken for its one session", end.node.number));
        }
    }
    ow.stop(DIALLER).await?;
    ow.stop(SERVER).await?;
    Ok(ended)
}

/// Cuts connects off after every `stride`-th number of polls, and after each when that is 1.
///
/// # Errors
/// When anything of a connect stays that was cut off, or the next one does not get through.
pub fn cut(seed: u64, stride: usize) -> Result<Report, Box<Failure>> {
    let config = WorldConfig { limit: Duration::from_secs(30 * 86_400), turn: 1, ..WorldConfig::default() };
    let ow = OverlayWorld::patient(SCENARIO.name, seed, config, LIMITS);
    let first = usize::try_from(seed).unwrap_or_default() % stride;
    ow.run(async {
        for (from, to) in [(SERVER, DIALLER), (DIALLER, SERVER)] {
            ow.world.fabric().set_link(host(from), host(to), Link::new(Duration::ZERO));
        }
        for cutter in CUTTERS {
            let mut after = first;
            let context = |after, error| format!("{cutter:?} after {after} polls: {error}");
            while !round(&ow, cutter, after).await.map_err(|error| context(after, error))? {
                after += stride;
                if after > MOST_POLLS {
                    return Err(context(after, "the connect has not ended".into()));
                }
            }
            if after < LEAST_POLLS {
                return Err(context(after, "the connect has ended already".into()));
            }
            ow.world.say(format!("{cutter:?}: cut off after up to {after} polls, in steps of {stride}"));
        }
        Ok(())
    })
}
