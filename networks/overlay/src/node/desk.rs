//! Messages on their way to the application.

use std::collections::BTreeSet;
use std::sync::Arc;

use rookery_runtime::{Env, FairMailbox, LaneLimits, LaneOpener, OnPanic};
use tokio::sync::{mpsc, watch};

use crate::services::messages::{Mail, Received, Subscriptions};
use crate::wire::Topic;

/// Messages that wait for the application beside those in the peers' lanes: enough that it and the desk take turns rarely.
const INBOX: usize = 64;

/// Where messages come out.
pub(super) struct Desk {
    pub opener: LaneOpener<Mail>,
    pub inbox: mpsc::Receiver<Received>,
}

/// The topics that the application listens to.
#[derive(Clone)]
pub(super) struct Topics(Arc<watch::Sender<Arc<BTreeSet<Topic>>>>);

impl Topics {
    pub fn watch(&self) -> Subscriptions {
        self.0.subscribe()
    }

    pub fn change(&self, change: impl FnOnce(&mut BTreeSet<Topic>)) {
        self.0.send_modify(|topics| change(Arc::make_mut(topics)));
    }
}

/// Starts the desk: it takes from the peers' lanes in turns and waits for the application. While the application does not take,
/// the lanes fill, and each peer is held up or told so by its own.
pub(super) fn start(env: &Env, most_peers: usize) -> (Desk, Topics) {
    let mut mail =
        FairMailbox::new("messages", LaneLimits::PEER, most_peers, env.clock, Arc::clone(&env.metrics));
    let opener = mail.opener();
    let (tell, inbox) = mpsc::channel(INBOX);
    env.scope.spawn("desk", OnPanic::StopNode, async move {
        loop {
            // Who comes and who goes, the application learns from the registry.
            let Mail::Message(message) = mail.recv().await else { continue };
            // An application that let go of its node's messages wants none.
            let _ = tell.send(message).await;
        }
    });
    (Desk { opener, inbox }, Topics(Arc::new(watch::Sender::default())))
}
