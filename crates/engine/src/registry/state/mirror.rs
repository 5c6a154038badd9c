//! Two registries that decide about the same connections, each in the order in which it learns of them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rookery_runtime::Clock;

use super::*;

/// The longest that anything is on its way, in milliseconds.
const LAG: u64 = 200;
/// What a process takes to start again, at least.
const START: u64 = 300;
/// When an end notices by itself that the other is gone.
const IDLE: u64 = 30_000;

const LIMITS: SessionLimits = SessionLimits { inbound: 9, outbound: 9, ..SessionLimits::LOCAL };

/// What is done to the two: milliseconds since the step before, and what.
#[derive(Debug, Clone)]
enum Step {
    /// One end dials; the lags of its hello and of the answer, and whether a refusal overtakes the hello before it.
    Dial { from: usize, there: u64, back: u64, overtakes: bool },
    /// One end's process dies and starts again.
    Restart(usize),
}

fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let dial = (0_usize..2, 0..=LAG, 0..=LAG, any::<bool>())
        .prop_map(|(from, there, back, overtakes)| Step::Dial { from, there, back, overtakes });
    let step = prop_oneof![8 => dial, 1 => (0_usize..2).prop_map(Step::Restart)];
    proptest::collection::vec((0_u64..150, step), 1..40)
}

#[derive(Debug, Clone, Copy)]
struct Line {
    from: usize,
    attempt: u64,
    /// The processes at its ends; the accepting one's is known when the hello arrives.
    processes: [u64; 2],
    lags: [u64; 2],
    overtakes: bool,
}

#[derive(Debug)]
enum Event {
    Dial(Line),
    /// A hello arrives: this end decides.
    Hello(usize, usize),
    /// This end learns that the other has closed the connection.
    Closed(usize, usize),
    Down(usize),
    Up(usize),
    /// This end notices what is dead.
    Notice(usize),
}

struct End {
    state: RegistryState,
    process: u64,
    up: bool,
    dials: u64,
    held: BTreeMap<usize, Generation>,
    closed: BTreeSet<usize>,
    decided: BTreeSet<usize>,
}

impl End {
    fn new(number: usize, process: u64) -> Self {
        let state = RegistryState::new(LIMITS, PeerId::from_bytes(&[number as u8 + 1]));
        let (held, closed, decided) = Default::default();
        Self { state, process, up: true, dials: 0, held, closed, decided }
    }

    fn end(&mut self, line: usize, now: Instant) {
        self.closed.insert(line);
        if let Some(generation) = self.held.remove(&line) {
            let end = SessionEnd {
                generation,
                cause: CloseCause::PeerClosed,
                ledger: Ledger::default(),
                passage: None,
            };
            self.state.ended(end, now).expect("it was held");
        }
    }
}

struct World {
    began: Instant,
    events: BTreeMap<(u64, u64), Event>,
    scheduled: u64,
    lines: Vec<Line>,
    ends: [End; 2],
}

impl World {
    fn at(&mut self, ms: u64, event: Event) {
        self.scheduled += 1;
        self.events.insert((ms, self.scheduled), event);
    }

    fn run(&mut self) {
        while let Some(((ms, _), event)) = self.events.pop_first() {
            let now = self.began + Duration::from_millis(ms);
            match event {
                Event::Dial(line) => self.dial(line, ms),
                Event::Hello(line, end) => self.hello(line, end, ms, now),
                Event::Closed(line, end) => self.ends[end].end(line, now),
                Event::Down(end) => self.ends[end].up = false,
                Event::Up(end) => {
                    self.ends[end] = End::new(end, self.ends[end].process + 1);
                    self.at(ms + IDLE, Event::Notice(1 - end));
                }
                Event::Notice(end) => {
                    let process = self.ends[1 - end].process;
                    let lines = &self.lines;
                    let dead = |line: &usize| lines[*line].processes[1 - end] != process;
                    let dead: Vec<usize> = self.ends[end].held.keys().copied().filter(dead).collect();
                    dead.into_iter().for_each(|line| self.ends[end].end(line, now));
                }
            }
        }
    }

    fn dial(&mut self, mut line: Line, ms: u64) {
        let end = &mut self.ends[line.from];
        if end.up {
            end.dials += 1;
            line.attempt = end.dials;
            line.processes[line.from] = end.process;
            self.lines.push(line);
            self.at(ms + line.lags[0], Event::Hello(self.lines.len() - 1, 1 - line.from));
        }
    }

    fn hello(&mut self, number: usize, end: usize, ms: u64, now: Instant) {
        let accepts = self.lines[number].from != end;
        if accepts {
            self.lines[number].processes[end] = self.ends[end].process;
        }
        let line = self.lines[number];
        let own = &mut self.ends[end];
        if !own.up || own.process != line.processes[end] || own.closed.contains(&number) {
            return;
        }
        let candidate = Candidate {
            peer: PeerId::from_bytes(&[2 - end as u8]).unwrap(),
            addr: "20.7.0.1:1".parse().unwrap(),
            direction: if accepts { Direction::Inbound } else { Direction::Outbound },
            reserved: false,
            precedence: Precedence { incarnation: line.processes[1 - end], attempt: line.attempt },
        };
        own.decided.insert(number);
        let mut loses = Vec::new();
        match own.state.decide(&candidate, now) {
            Decision::Admit(leave) => {
                let generation = own.state.admit(candidate, &leave, now).unwrap();
                let beaten = own.held.iter().filter(|(_, generation)| leave.contains(generation));
                loses.extend(beaten.map(|(line, _)| *line));
                loses.iter().for_each(|line| own.end(*line, now));
                own.held.insert(number, generation);
                assert_eq!(own.held.len(), 1, "one identity, one session");
            }
            Decision::Refuse(CloseCause::Duplicate(_)) => {
                own.end(number, now);
                loses.push(number);
            }
            Decision::Refuse(cause) => panic!("{cause}"),
        }
        let back = ms + line.lags[1];
        if accepts && line.overtakes {
            loses.iter().for_each(|line| self.at(back, Event::Closed(*line, 1 - end)));
            self.at(back, Event::Hello(number, 1 - end));
        } else {
            if accepts {
                self.at(back, Event::Hello(number, 1 - end));
            }
            loses.iter().for_each(|line| self.at(back, Event::Closed(*line, 1 - end)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Rows 8, 19: whatever the lags and whoever dials or restarts when, both ends hold the same connection in the end, or
    /// none. They hold one if both of the processes of now have decided about one.
    #[test]
    fn two_registries_end_with_one_common_winner(steps in steps()) {
        let mut world = World {
            began: Clock::system().now(),
            events: BTreeMap::new(),
            scheduled: 0,
            lines: Vec::new(),
            ends: [End::new(0, 1), End::new(1, 1)],
        };
        let (mut ms, mut free) = (0, [0; 2]);
        for (gap, step) in steps {
            ms += gap;
            match step {
                Step::Dial { from, there, back, overtakes } => {
                    let line = Line { from, attempt: 0, processes: [0; 2], lags: [there, back], overtakes };
                    world.at(ms, Event::Dial(line));
                }
                Step::Restart(end) if free[end] <= ms => {
                    free[end] = ms + START + 1;
                    world.at(ms, Event::Down(end));
                    world.at(ms + START, Event::Up(end));
                }
                Step::Restart(_) => {}
            }
        }
        world.run();
        let held = world.ends.each_ref().map(|end| end.held.keys().copied().collect::<Vec<_>>());
        prop_assert_eq!(&held[0], &held[1]);
        prop_assert!(held[0].len() <= 1);
        let processes = world.ends.each_ref().map(|end| end.process);
        let both = world.ends[0].decided.intersection(&world.ends[1].decided);
        let whole = both.filter(|line| world.lines[**line].processes == processes).count();
        prop_assert_eq!(held[0].len(), usize::from(whole > 0), "{} whole connections", whole);
    }
}
