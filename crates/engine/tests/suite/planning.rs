//! Whom the dialler leaves alone: peers that are connected already.

use std::time::Duration;

use rookery_engine::{DialPace, Limits};
use rookery_testkit::Switchboard;

use crate::common::{Build, Node};

const MINUTE: Duration = Duration::from_secs(60);

fn proven(identity: u8) -> Build {
    Build {
        mux: true,
        pace: DialPace::QUIC,
        limits: Limits::LOCAL,
        incarnation: Some(identity.into()),
        ..Build::new(identity)
    }
}

/// The node of the smaller identity has dialled the other one, which knows its address too.
async fn came_to(know: impl Fn(Build, std::net::SocketAddr) -> Build) -> (Switchboard, Node, Node) {
    let board = Switchboard::default();
    let (first, second) = (proven(1), proven(2));
    let at = second.at;
    let second = know(second, first.at).start(&board).await;
    let first = Build { connect: vec![at], ..first }.start(&board).await;
    first.pass(MINUTE).await;
    let live = second.engine.peers().await;
    assert_eq!((live.len(), live[0].direction), (1, "in"), "the smaller one's connection stays");
    (board, first, second)
}

/// A peer that has dialled us is not dialled where we know it, neither from the book nor because it is named: at most the one dial
/// is lost that finds out whose address it is. When it goes, it is dialled again.
#[tokio::test(start_paused = true)]
async fn a_peer_that_came_to_us_is_not_dialled_until_it_goes() {
    let stranger = |build, at| Build { seeds: vec![at], ..build };
    let named = |build, at| Build { connect: vec![at], ..build };
    for (what, know) in [("book", &stranger as &dyn Fn(Build, _) -> Build), ("named", &named)] {
        let (board, first, second) = came_to(know).await;
        let (before, ended) = (board.dials(first.at), second.metric("handshake_total", "duplicate"));
        assert!(before <= 3, "{what}: {before} dials");
        second.pass(30 * MINUTE).await;
        assert_eq!(board.dials(first.at), before, "{what}");
        assert_eq!(second.metric("handshake_total", "duplicate"), ended, "{what}");
        let at = first.at;
        first.stop().await;
        second.pass(15 * MINUTE).await;
        assert!(board.dials(at) > before, "{what}: it has gone, and is looked for");
        second.stop().await;
    }
}
