use super::*;
use crate::services::testing::{Gate, env, facts, fault, frame, handle, mailbox, outbox, peer};
use rookery_base::{CloseCause, Direction, PeerFaultKind};
use rookery_engine::kinds::Verdict as Gated;
use rookery_runtime::{Env, FairMailbox};

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

struct Desk {
    env: Env,
    out: Outbox,
    pipe: Box<dyn Pipe>,
    mail: FairMailbox<Mail>,
    _topics: watch::Sender<Arc<BTreeSet<Topic>>>,
}

fn desk() -> Desk {
    let env = env();
    let mail = mailbox(&env);
    let (topics, listening) = watch::channel(Arc::new(BTreeSet::from([topic("chat")])));
    let service = Messages::new(listening, mail.opener());
    let pipe = service.pipe(&facts(Direction::Inbound), handle());
    Desk { out: outbox(&env), env, pipe, mail, _topics: topics }
}

impl Desk {
    fn hear(&mut self, number: u64, name: &str, payload: Vec<u8>) -> Flow {
        let body = Message { number, topic: topic(name), payload: payload.into() }.encode();
        self.pipe.on_frame(self.env.clock.now(), frame(MESSAGE, body), &mut self.out)
    }

    fn acks(&mut self) -> Vec<Ack> {
        self.out.sent().iter().map(|(_, body)| Ack::decode(body).unwrap()).collect()
    }

    fn post(&mut self) -> Result<Receipt, PostError> {
        let (queued, mut verdict) = oneshot::channel();
        let send = Send { topic: topic("chat"), payload: Bytes::from_static(b"hi"), queued };
        assert_eq!(
            self.pipe.on_command(self.env.clock.now(), Command::new(send), &mut self.out),
            Flow::Continue
        );
        verdict.try_recv().unwrap()
    }

    fn say(&mut self) -> (RequestKey, oneshot::Receiver<Sent>) {
        let Receipt(told) = self.post().unwrap();
        let number = self.out.sent().first().map_or(0, |(_, body)| Message::decode(body).unwrap().number);
        (RequestKey::number(MESSAGE, number), told)
    }

    fn end(&mut self, key: RequestKey, end: End) {
        let answer = Answer { key, end };
        assert_eq!(self.pipe.on_answer(self.env.clock.now(), answer, &mut self.out), Flow::Continue);
    }
}

#[test]
fn a_message_of_a_topic_somebody_listens_to_reaches_the_application_and_is_acknowledged() {
    let mut desk = desk();
    assert_eq!(desk.hear(5, "chat", b"hello".to_vec()), Flow::Continue);
    assert_eq!(desk.hear(6, "other", b"hello".to_vec()), Flow::Continue);
    let verdicts =
        [Ack { number: 5, verdict: Verdict::Accepted }, Ack { number: 6, verdict: Verdict::NoSubscriber }];
    assert_eq!(desk.acks(), verdicts);
    let Some(Mail::Message(got)) = desk.mail.try_recv() else { panic!("no message") };
    assert_eq!((got.from, &got.payload[..]), (peer(1), &b"hello"[..]));
    assert!(desk.mail.try_recv().is_none());
}

#[test]
fn a_full_lane_parks_then_answers_busy_and_takes_messages_again_when_there_is_room() {
    let mut desk = desk();
    let flows: Vec<Flow> = (0..8).map(|n| desk.hear(n, "chat", vec![])).collect();
    assert!(flows[..7].iter().all(|flow| *flow == Flow::Continue));
    assert_eq!(flows[7], Flow::Park(Until::Room), "reading stops before a message has to be refused");
    let due = desk.pipe.timer().unwrap();
    assert!(due <= desk.env.clock.now() + PATIENCE);
    assert!(PATIENCE < super::super::ping::SILENCE / 2, "a parked peer must not look dead");
    assert_eq!(desk.pipe.on_timer(due, &mut desk.out), Flow::Park(Until::Time(due)), "the wait is over");
    desk.acks();
    assert_eq!(desk.hear(8, "chat", vec![]), Flow::Continue);
    assert_eq!(desk.acks(), [Ack { number: 8, verdict: Verdict::Busy }]);
    while desk.mail.try_recv().is_some() {}
    assert_eq!(desk.hear(9, "chat", vec![]), Flow::Continue);
    assert_eq!(desk.acks(), [Ack { number: 9, verdict: Verdict::Accepted }]);
}

#[test]
fn every_message_sent_ends_once_and_says_how() {
    let ack = |number, verdict| {
        End::Answered(frame(ACK, Ack { number, verdict }.encode()), Duration::from_millis(9))
    };
    let cases = [
        (ack(1, Verdict::Accepted), Sent::Accepted(Duration::from_millis(9))),
        (ack(1, Verdict::NoSubscriber), Sent::NoSubscriber),
        (ack(1, Verdict::Busy), Sent::Busy),
        (End::TimedOut, Sent::TimedOut),
        (End::Gone(CloseCause::Shutdown), Sent::Gone),
    ];
    for (end, expected) in cases {
        let mut desk = desk();
        let (key, mut told) = desk.say();
        desk.end(key, end);
        assert_eq!(told.try_recv(), Ok(expected));
    }
}

#[test]
fn no_more_than_eight_messages_wait_for_a_peer() {
    let mut desk = desk();
    let open: Vec<_> = (0..OPEN).map(|_| desk.say()).collect();
    assert_eq!(desk.post().map(|_| ()), Err(PostError::QueueFull));
    drop(desk);
    for (_, mut told) in open {
        assert!(told.try_recv().is_err(), "who waits learns of the end by the channel's");
    }
}

#[test]
fn a_message_that_does_not_decode_and_one_that_is_too_large_end_the_session() {
    let mut desk = desk();
    let bad = frame(MESSAGE, vec![0, 0, 0, 0, 0, 0, 0, 1, 0, 0]);
    let fault = fault(desk.pipe.on_frame(desk.env.clock.now(), bad, &mut desk.out));
    assert_eq!(fault.kind, PeerFaultKind::Malformed);
    let mut gate = Gate::new(&desk.env);
    assert!(matches!(gate.check(MESSAGE, wire::MAX_LEN, false), Gated::Pass(_)));
    assert!(matches!(gate.check(MESSAGE, wire::MAX_LEN + 1, false), Gated::Refuse(_)), "before it is read");
    let waits = (0..1000).position(|_| matches!(gate.check(MESSAGE, 10, false), Gated::Wait(..)));
    assert_eq!(waits, Some(199), "one of the burst went to the large one");
}

#[tokio::test]
async fn a_session_that_is_gone_and_a_payload_that_is_too_long_are_told_at_once() {
    assert_eq!(send(&handle(), topic("chat"), Bytes::new()).await, Sent::Gone);
    let long = vec![0; wire::MAX_PAYLOAD + 1].into();
    assert!(matches!(send(&handle(), topic("chat"), long).await, Sent::NotSent(PostError::TooLong(_))));
}

#[test]
fn the_application_learns_who_comes_and_who_goes() {
    let mut desk = desk();
    assert_eq!(desk.pipe.on_start(desk.env.clock.now(), &mut desk.out), Flow::Continue);
    assert!(matches!(desk.mail.try_recv(), Some(Mail::Up(id, _)) if id == peer(1)));
    drop(desk.pipe);
    assert!(matches!(desk.mail.try_recv(), Some(Mail::Down(id, _)) if id == peer(1)));
}
