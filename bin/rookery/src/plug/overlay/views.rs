//! From what the overlay tells to what is shown.

use std::collections::BTreeMap;

use rookery_base::PeerId;
use rookery_engine::Limits;
use rookery_overlay::Handle;
use rookery_runtime::Env;

use crate::node::view::{Hop, HopState, NodeStatus, NodeWhy, OverlayGlance, PeerRow};
use crate::plug::engine;

/// The identities behind live sessions, by the sessions' generations.
pub(super) type Sessions = BTreeMap<u64, PeerId>;

pub(super) async fn status(env: &Env, handle: &Handle, glance: &OverlayGlance) -> NodeStatus {
    let (known, confirmed) = handle.discovery().known().await;
    let glance =
        OverlayGlance { known_records: known as u64, confirmed_records: confirmed as u64, ..glance.clone() };
    NodeStatus { overlay: Some(glance), ..engine::status(env, handle.engine(), "overlay").await }
}

pub(super) async fn peers(handle: &Handle, sessions: &Sessions) -> Vec<PeerRow> {
    let views = handle.engine().peers().await;
    let id = |generation| sessions.get(&generation).map(ToString::to_string);
    views.iter().map(|view| PeerRow { peer_id: id(view.generation), ..engine::peer_row(view) }).collect()
}

pub(super) async fn why(handle: &Handle, limits: &Limits, peers: usize) -> NodeWhy {
    let mut hops = engine::hops(handle.engine(), limits).await;
    let (known, confirmed) = handle.discovery().known().await;
    hops.push(Hop {
        hop: "discovery".to_owned(),
        state: HopState::Ok,
        detail: format!(
            "{known} records of other nodes are known, {confirmed} of them confirmed by a session"
        ),
    });
    if peers > 0 {
        // Named peers that do not answer make nothing wait while others do.
        let met = if peers == 1 { "1 peer is".to_owned() } else { format!("{peers} peers are") };
        return NodeWhy { verdict: format!("{met} connected; what is published reaches them"), hops };
    }
    let found = handle.engine().dial().report().await;
    if found.known == 0 && found.waiting.is_empty() && found.out.is_empty() {
        let verdict = "nobody is known yet: name somebody with --bootstrap or --peer, or wait to be found";
        return NodeWhy { verdict: verdict.to_owned(), hops };
    }
    engine::waits(hops, || "no peer is connected".to_owned())
}
