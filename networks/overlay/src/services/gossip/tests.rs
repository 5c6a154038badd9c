use super::state::State;
use super::*;
use crate::services::testing::{Gate, env, fault, frame, handle, mailbox, outbox};
use rand::{RngExt, SeedableRng};
use rookery_base::{Hash32, PeerFaultKind, Weight};
use rookery_engine::kinds::Verdict;
use rookery_engine::{Answer, Command, End, Flow, RequestKey};
use rookery_runtime::rng::ChaCha8Rng;
use rookery_runtime::{Clock, Env, Instant};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

fn item(nonce: u64) -> Item {
    Item { nonce, topic: topic("news"), payload: Bytes::from_static(b"payload") }
}

fn all(judgement: Judgement) -> Validator {
    Arc::new(move |_, _| judgement)
}

const A: Generation = Generation(1);
const B: Generation = Generation(2);
const C: Generation = Generation(3);

/// A state with a subscription to `news` and these neighbours, their first orders taken.
fn state(neighbours: &[Generation]) -> State {
    let mut state = State::default();
    assert!(state.subscribe(topic("news"), all(Judgement::Accept)));
    neighbours.iter().for_each(|session| state.up(*session));
    state.orders();
    state
}

fn inventory(ids: &[ItemId]) -> Inventory {
    Inventory::decode(&Inventory::encode(&topic("news"), ids)).unwrap()
}

fn orders(state: &mut State, now: Instant) -> Vec<(Generation, Order)> {
    state.tick(now);
    state.audit();
    let each =
        |(session, orders): (Generation, Vec<Order>)| orders.into_iter().map(move |order| (session, order));
    state.orders().into_iter().flat_map(each).collect()
}

fn give(state: &mut State, from: Generation, item: &Item, now: Instant) -> Option<Item> {
    state.answered(from, item.id(), Some((item.clone(), item.encode())), now)
}

#[test]
fn an_item_is_fetched_once_delivered_once_and_told_on_to_those_who_do_not_have_it() {
    let (now, mut state) = (Clock::system().now(), state(&[A, B, C]));
    let news = item(1);
    [A, B, C].iter().for_each(|session| state.topics(*session, vec![topic("news")]));
    state.announced(A, &inventory(&[news.id()]));
    state.announced(B, &inventory(&[news.id()]));
    assert_eq!(orders(&mut state, now), [(A, Order::Want(news.id()))], "one at a time");
    assert_eq!(give(&mut state, A, &news, now), Some(news.clone()));
    let told = orders(&mut state, now);
    assert!(told.contains(&(C, Order::Announce(topic("news"), vec![news.id()]))));
    assert!(!told.iter().any(|(session, order)| *session == A && matches!(order, Order::Announce(..))));
    assert_eq!(give(&mut state, A, &news, now), None, "not twice");
    state.announced(C, &inventory(&[news.id()]));
    assert_eq!(orders(&mut state, now), [], "seen");
}

#[test]
fn a_slow_announcer_is_overtaken_and_the_slowest_of_three_is_given_up() {
    let (now, mut state) = (Clock::system().now(), state(&[A, B, C]));
    let id = item(1).id();
    [A, B, C].iter().for_each(|session| state.announced(*session, &inventory(&[id])));
    assert_eq!(orders(&mut state, now), [(A, Order::Want(id))]);
    assert_eq!(orders(&mut state, now + HEDGE / 2), []);
    assert_eq!(state.due(), Some(now + HEDGE));
    assert_eq!(orders(&mut state, now + HEDGE), [(B, Order::Want(id))]);
    let third = orders(&mut state, now + HEDGE * 2);
    assert_eq!(third, [(A, Order::Cancel(id)), (C, Order::Want(id))]);
    assert_eq!(give(&mut state, A, &item(1), now), None, "who was given up is not heard");
    assert!(give(&mut state, B, &item(1), now).is_some());
    assert_eq!(orders(&mut state, now + HEDGE * 2), [(C, Order::Cancel(id))]);
}

#[test]
fn an_announcer_that_comes_late_is_asked_when_the_first_has_had_its_time() {
    let (now, mut state) = (Clock::system().now(), state(&[A, B]));
    let id = item(1).id();
    state.announced(A, &inventory(&[id]));
    orders(&mut state, now);
    state.announced(B, &inventory(&[id]));
    assert_eq!(orders(&mut state, now), [], "not at once: the item is on its way");
    assert_eq!(orders(&mut state, now + HEDGE), [(B, Order::Want(id))]);
}

#[test]
fn who_fails_is_asked_last_and_who_goes_is_replaced() {
    let (now, mut state) = (Clock::system().now(), state(&[A, B]));
    let (first, second) = (item(1).id(), item(2).id());
    [A, B].iter().for_each(|session| state.announced(*session, &inventory(&[first])));
    assert_eq!(orders(&mut state, now), [(A, Order::Want(first))]);
    state.failed(A, first);
    assert_eq!(orders(&mut state, now), [(B, Order::Want(first))]);
    [A, B].iter().for_each(|session| state.announced(*session, &inventory(&[second])));
    assert_eq!(orders(&mut state, now), [(B, Order::Want(second))], "A has failed before");
    state.gone(B);
    assert_eq!(orders(&mut state, now), [(A, Order::Want(second))]);
    state.gone(A);
    assert_eq!(orders(&mut state, now), []);
    state.up(C);
    state.announced(C, &inventory(&[first]));
    let again = orders(&mut state, now);
    assert!(again.contains(&(C, Order::Want(first))), "what nobody had is taken from the next who has it");
}

#[test]
fn ids_of_nothing_fill_only_their_announcers_share() {
    let (now, mut state) = (Clock::system().now(), state(&[A, B]));
    for round in 0..100_u64 {
        let ids: Vec<ItemId> = (0..128).map(|n| item(round * 1000 + n).id()).collect();
        state.announced(A, &inventory(&ids));
    }
    let asked = orders(&mut state, now);
    assert_eq!(asked.len(), usize::from(OPEN_WANTS), "no more than may be open");
    let honest = item(u64::MAX);
    state.announced(B, &inventory(&[honest.id()]));
    assert_eq!(orders(&mut state, now), [(B, Order::Want(honest.id()))], "B's are not behind A's");
}

#[test]
fn an_item_is_served_once_to_each_and_bounded_in_count_bytes_and_time() {
    let (now, mut state) = (Clock::system().now(), state(&[A]));
    let large = |nonce| Item { payload: vec![0; wire::MAX_PAYLOAD].into(), ..item(nonce) };
    let first = large(0);
    assert_eq!(state.publish(&first, now), Some(first.id()));
    assert_eq!(state.publish(&first, now), None, "published before");
    for _ in 0..2 {
        state.wants(A, first.id());
    }
    let missing = wire::encode_missing(&first.id());
    assert_eq!(
        orders(&mut state, now),
        [(A, Order::Serve(first.encode())), (A, Order::Serve(missing.clone()))]
    );
    assert!((1..400).all(|nonce| state.publish(&large(nonce), now).is_some()));
    state.audit();
    state.up(B);
    state.wants(B, first.id());
    assert!(orders(&mut state, now).contains(&(B, Order::Serve(missing))), "made room for newer ones");
    assert!((0..2 * HELD as u64).all(|nonce| state.publish(&item(1000 + nonce), now).is_some()));
    state.audit();
    orders(&mut state, now + SEEN_FOR);
    assert_eq!(state.due(), None, "everything is forgotten in time");
}

#[test]
fn a_rejected_item_costs_its_relayer_and_is_not_fetched_again() {
    let now = Clock::system().now();
    for (judgement, faults) in [(Judgement::Reject, 1), (Judgement::Ignore, 0)] {
        let mut state = state(&[A, B]);
        state.subscribe(topic("news"), all(judgement));
        state.topics(B, vec![topic("news")]);
        orders(&mut state, now);
        state.announced(A, &inventory(&[item(1).id()]));
        orders(&mut state, now);
        assert_eq!(give(&mut state, A, &item(1), now), None);
        let after = orders(&mut state, now);
        assert_eq!(after.len(), faults, "{after:?}");
        assert!(after.iter().all(|(session, order)| {
            *session == A
                && matches!(order, Order::Fault(fault) if fault.weight == Weight::Score(REJECT_SCORE))
        }));
        state.announced(B, &inventory(&[item(1).id()]));
        assert_eq!(orders(&mut state, now), []);
    }
}

#[test]
fn an_item_under_another_topic_than_announced_is_its_relayers_fault() {
    let (now, mut state) = (Clock::system().now(), state(&[A]));
    let other = Item { topic: topic("other"), ..item(1) };
    state.announced(A, &inventory(&[other.id()]));
    orders(&mut state, now);
    assert_eq!(give(&mut state, A, &other, now), None);
    assert!(matches!(&orders(&mut state, now)[..], [(A, Order::Fault(_))]));
}

#[test]
fn a_new_subscriber_is_told_of_the_newest_and_orders_that_found_no_room_come_again() {
    let (now, mut state) = (Clock::system().now(), state(&[A]));
    let ids: Vec<ItemId> = (0..600).filter_map(|nonce| state.publish(&item(nonce), now)).collect();
    state.topics(A, vec![topic("news")]);
    let given = state.orders();
    let [(A, told)] = &given[..] else { panic!("{given:?}") };
    let told: Vec<ItemId> = told
        .iter()
        .flat_map(|order| match order {
            Order::Announce(_, ids) => ids.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, ids[600 - CATCH_UP..], "the newest, the oldest of them first");
    state.give_back(A, given[0].1.clone());
    assert_eq!(state.orders(), given);
    state.topics(A, vec![topic("news")]);
    assert_eq!(state.orders(), [], "nothing is told twice");
}

/// Nodes that hand each other their orders in a random order, over a random connected graph.
struct World {
    nodes: Vec<State>,
    /// By node: its sessions, and the node at each one's other end.
    links: Vec<BTreeMap<Generation, usize>>,
    got: Vec<BTreeSet<ItemId>>,
    mail: VecDeque<(usize, usize, Order)>,
    now: Instant,
    rng: ChaCha8Rng,
}

impl World {
    fn new(seed: u64, count: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut world = Self {
            nodes: (0..count).map(|_| state(&[])).collect(),
            links: vec![BTreeMap::new(); count],
            got: vec![BTreeSet::new(); count],
            mail: VecDeque::new(),
            now: Clock::system().now(),
            rng: rng.clone(),
        };
        for node in 1..count {
            world.link(node, rng.random_range(0..node));
            world.link(node, rng.random_range(0..node));
        }
        world
    }

    fn link(&mut self, a: usize, b: usize) {
        if self.links[a].values().any(|other| *other == b) || a == b {
            return;
        }
        for (here, there) in [(a, b), (b, a)] {
            self.links[here].insert(Generation(there as u64), there);
            self.nodes[here].up(Generation(there as u64));
        }
    }

    fn cut(&mut self, a: usize, b: usize) {
        for (here, there) in [(a, b), (b, a)] {
            if self.links[here].remove(&Generation(there as u64)).is_some() {
                self.nodes[here].gone(Generation(there as u64));
            }
        }
        self.mail.retain(|(from, to, _)| (*from, *to) != (a, b) && (*from, *to) != (b, a));
    }

    fn collect(&mut self) {
        for node in 0..self.nodes.len() {
            self.nodes[node].tick(self.now);
            for (session, orders) in self.nodes[node].orders() {
                let to = self.links[node][&session];
                self.mail.extend(orders.into_iter().map(|order| (node, to, order)));
            }
        }
    }

    /// Delivers in a random order. Some wants are lost with their deadline.
    fn deliver(&mut self, loss: f64) {
        let at = self.rng.random_range(0..self.mail.len());
        let Some((from, to, order)) = self.mail.remove(at) else { return };
        let (here, there) = (Generation(to as u64), Generation(from as u64));
        let now = self.now;
        match order {
            Order::Topics(body) => self.nodes[to].topics(there, wire::decode_topics(&body).unwrap()),
            Order::Announce(topic, ids) => {
                let inventory = Inventory::decode(&Inventory::encode(&topic, &ids)).unwrap();
                self.nodes[to].announced(there, &inventory);
            }
            Order::Want(id) if self.rng.random::<f64>() < loss => self.nodes[from].failed(here, id),
            Order::Want(id) => self.nodes[to].wants(there, id),
            Order::Serve(body) => {
                let (id, item) = wire::decode_item(&body).unwrap();
                let item = item.map(|item| (item, body));
                if self.nodes[to].answered(there, id, item, now).is_some() {
                    assert!(self.got[to].insert(id), "delivered twice");
                }
            }
            Order::Cancel(_) => {}
            Order::Fault(fault) => panic!("{fault}"),
        }
    }

    fn settle(&mut self, loss: f64) {
        loop {
            self.collect();
            if self.mail.is_empty() {
                return;
            }
            for _ in 0..self.rng.random_range(1..=self.mail.len()) {
                self.deliver(loss);
            }
        }
    }
}

#[test]
fn every_item_reaches_every_node_of_a_connected_graph() {
    for seed in 0..40 {
        let mut world = World::new(seed, 40);
        let mut ids = BTreeSet::new();
        for nonce in 0..20 {
            let by = world.rng.random_range(0..world.nodes.len());
            let id = world.nodes[by].publish(&item(nonce), world.now).unwrap();
            world.got[by].insert(id);
            ids.insert(id);
        }
        world.settle(0.0);
        assert!(world.got.iter().all(|got| *got == ids), "seed {seed}");
        world.nodes.iter().for_each(State::audit);
    }
}

#[test]
fn items_reach_everybody_though_neighbours_leave_and_wants_fail() {
    for seed in 0..40 {
        let mut world = World::new(seed, 30);
        let id = world.nodes[0].publish(&item(seed), world.now).unwrap();
        world.got[0].insert(id);
        for _ in 0..25 {
            world.collect();
            (0..20.min(world.mail.len())).for_each(|_| world.deliver(0.2));
            let (a, b) = (world.rng.random_range(1..30), world.rng.random_range(1..30));
            world.cut(a, b);
            let (c, d) = (world.rng.random_range(0..30), world.rng.random_range(0..30));
            world.link(c, d);
        }
        // What is connected in the end, and began anew: a chain through all.
        (1..30).for_each(|node| {
            world.cut(node - 1, node);
            world.link(node - 1, node);
        });
        world.settle(0.0);
        assert!(world.got.iter().all(|got| got.contains(&id)), "seed {seed}");
        world.nodes.iter().for_each(State::audit);
    }
}

struct Desk {
    env: Env,
    out: rookery_engine::Outbox,
    pipe: Box<dyn Pipe>,
    mail: rookery_runtime::FairMailbox<Mail>,
}

fn desk() -> Desk {
    let env = env();
    let mail = mailbox(&env);
    let service = GossipService { mail: mail.opener() };
    let facts = crate::services::testing::facts(rookery_base::Direction::Inbound);
    Desk { out: outbox(&env), pipe: service.pipe(&facts, handle()), env, mail }
}

impl Desk {
    fn obey(&mut self, orders: Vec<Order>) -> Flow {
        self.pipe.on_command(self.env.clock.now(), Command::new(orders), &mut self.out)
    }

    fn answer(&mut self, id: ItemId, end: End) -> Flow {
        let answer = Answer { key: RequestKey { kind: WANT, tag: id }, end };
        self.pipe.on_answer(self.env.clock.now(), answer, &mut self.out)
    }
}

#[test]
fn orders_become_messages_and_answers_become_mail() {
    let mut desk = desk();
    let news = item(1);
    let orders = vec![
        Order::Want(news.id()),
        Order::Announce(topic("news"), vec![Hash32::ZERO]),
        Order::Serve(wire::encode_missing(&Hash32::ZERO)),
    ];
    assert_eq!(desk.obey(orders), Flow::Continue);
    let kinds: Vec<_> = desk.out.sent().into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, [WANT, ITEM, INVENTORY], "by lane");
    assert_eq!(
        desk.answer(news.id(), End::Answered(frame(ITEM, news.encode()), Duration::ZERO)),
        Flow::Continue
    );
    assert!(
        matches!(desk.mail.try_recv(), Some(Mail::Answered(_, id, Some((got, _)))) if id == news.id() && got == news)
    );
    assert_eq!(desk.answer(news.id(), End::TimedOut), Flow::Continue);
    assert!(matches!(desk.mail.try_recv(), Some(Mail::Unanswered(..))));
}

#[test]
fn an_item_that_is_not_what_was_asked_for_ends_the_session() {
    let mut desk = desk();
    let mut body = item(1).encode().to_vec();
    body[0] ^= 1;
    let fault = fault(desk.answer(item(1).id(), End::Answered(frame(ITEM, body), Duration::ZERO)));
    assert_eq!(fault.kind, PeerFaultKind::Malformed);
    let mut gate = Gate::new(&desk.env);
    assert!(
        matches!(gate.check(ITEM, wire::MAX_ITEM_LEN, false), Verdict::Refuse(_)),
        "unasked, before it is read"
    );
    assert!(matches!(gate.check(ITEM, wire::MAX_ITEM_LEN, true), Verdict::Pass(_)));
    assert!(matches!(gate.check(INVENTORY, wire::MAX_INVENTORY_LEN + 1, false), Verdict::Refuse(_)));
    let inventories =
        (0..1000).take_while(|_| matches!(gate.check(INVENTORY, 34, false), Verdict::Pass(_))).count();
    assert_eq!(inventories, 200);
}

#[tokio::test(start_paused = true)]
async fn the_application_publishes_and_subscribes_within_its_bounds() {
    let env = env();
    let (_service, gossip) = Gossip::start(&env, 4);
    let mut deliveries = gossip.subscribe(topic("news"), all(Judgement::Accept)).await.unwrap();
    let first = gossip.publish(topic("news"), Bytes::from_static(b"x")).await.unwrap();
    assert_ne!(gossip.publish(topic("news"), Bytes::from_static(b"x")).await.unwrap(), first);
    assert!(deliveries.try_recv().is_err(), "a publisher is not told what it said");
    let long = vec![0; wire::MAX_PAYLOAD + 1].into();
    assert_eq!(gossip.publish(topic("news"), long).await, Err(PublishError::TooLong(wire::MAX_PAYLOAD + 1)));
    for n in 1..wire::MAX_TOPICS {
        assert!(gossip.subscribe(topic(&format!("t{n}")), all(Judgement::Accept)).await.is_ok());
    }
    let over = gossip.subscribe(topic("over"), all(Judgement::Accept)).await;
    assert_eq!(over.err(), Some(SubscribeError::TooMany));
    gossip.unsubscribe(topic("t1")).await;
    assert!(gossip.subscribe(topic("over"), all(Judgement::Accept)).await.is_ok());
    env.scope.close(Duration::from_secs(5)).await.unwrap();
    assert_eq!(gossip.publish(topic("news"), Bytes::new()).await, Err(PublishError::Stopped));
}
