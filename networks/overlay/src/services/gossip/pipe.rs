//! One peer's half of gossip: bytes to mail, orders to bytes.

use std::task::{Context, Poll};

use rookery_base::{Frame, Generation};
use rookery_engine::{Answer, Command, End, Flow, Outbox, PeerHandle, Pipe, RequestKey, RequestRefused};
use rookery_runtime::{Instant, Lane};

use super::super::{Mailer, malformed};
use super::{Mail, Order, WANT_WITHIN};
use crate::wire::gossip::{self as wire, Inventory, ItemId};
use crate::wire::kind::{INVENTORY, ITEM, TOPICS, WANT};

pub(super) struct GossipPipe {
    mailer: Mailer<Mail>,
    session: Generation,
    /// The first mail, until the start.
    up: Option<PeerHandle>,
}

impl GossipPipe {
    pub fn new(lane: Option<Lane<Mail>>, handle: PeerHandle) -> Self {
        Self { mailer: Mailer::new(lane), session: handle.generation, up: Some(handle) }
    }

    fn obey(&mut self, order: Order, out: &mut Outbox) -> Flow {
        match order {
            Order::Topics(body) => out.send(TOPICS, body),
            Order::Announce(topic, ids) => out.send(INVENTORY, Inventory::encode(&topic, &ids)),
            Order::Serve(body) => out.send(ITEM, body),
            Order::Cancel(id) => out.cancel(&key_of(id)),
            Order::Fault(fault) => return out.fault(fault),
            Order::Want(id) => match out.request(key_of(id), id.as_bytes().to_vec(), WANT_WITHIN) {
                // An order of before is still open: its end is this one's.
                Ok(()) | Err(RequestRefused::AlreadyOpen) => {}
                Err(RequestRefused::TooMany | RequestRefused::OutboxFull) => {
                    return self.mailer.tell(Mail::Unanswered(self.session, id), 0);
                }
            },
        }
        Flow::Continue
    }
}

const fn key_of(id: ItemId) -> RequestKey {
    RequestKey { kind: WANT, tag: id }
}

impl Pipe for GossipPipe {
    fn on_start(&mut self, _now: Instant, _out: &mut Outbox) -> Flow {
        match self.up.take() {
            Some(handle) => self.mailer.tell(Mail::Up(handle), 0),
            None => Flow::Continue,
        }
    }

    fn key(&self, frame: &Frame) -> Option<RequestKey> {
        wire::answered_id(&frame.body).map(key_of)
    }

    fn on_frame(&mut self, _now: Instant, frame: Frame, out: &mut Outbox) -> Flow {
        let (kind, body, _charge) = frame.into_parts();
        let bytes = body.len();
        let mail = if kind == TOPICS {
            wire::decode_topics(&body).map(|topics| Mail::Topics(self.session, topics))
        } else if kind == INVENTORY {
            Inventory::decode(&body).map(|inventory| Mail::Announced(self.session, inventory))
        } else {
            let mut reader = rookery_base::Reader::new(&body);
            reader.hash("id").and_then(|id| reader.finish().map(|()| Mail::Wanted(self.session, id)))
        };
        match mail {
            Ok(mail) => self.mailer.tell(mail, bytes),
            Err(error) => malformed("gossip", error, out),
        }
    }

    fn on_answer(&mut self, _now: Instant, answer: Answer, out: &mut Outbox) -> Flow {
        let id = answer.key.tag;
        let End::Answered(frame, _) = answer.end else {
            return self.mailer.tell(Mail::Unanswered(self.session, id), 0);
        };
        let (_, body, _charge) = frame.into_parts();
        match wire::decode_item(&body) {
            Ok((id, item)) => {
                let bytes = body.len();
                let item = item.map(|item| (item, body));
                self.mailer.tell(Mail::Answered(self.session, id, item), bytes)
            }
            Err(error) => malformed("item", error, out),
        }
    }

    fn on_command(&mut self, _now: Instant, command: Command, out: &mut Outbox) -> Flow {
        let Some(orders) = command.take::<Vec<Order>>() else { return Flow::Continue };
        let mut flow = Flow::Continue;
        for order in orders {
            match self.obey(order, out) {
                Flow::Continue => {}
                Flow::Close(cause) => return Flow::Close(cause),
                park @ Flow::Park(_) => flow = park,
            }
        }
        flow
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.mailer.poll_room(cx)
    }
}
