//! Peers that break the rules, on the real wire: scripts on simulated hosts.
//!
//! | [`Rogue`] | what it does |
//! |---|---|
//! | `Stage(n)` | never finishes the handshake: says nothing, half a version, a version alone, a verack alone |
//! | `Silent`, `Mute` | after the handshake nothing, not even a pong; or pongs and nothing else, claiming a height |
//! | `OneByOne`, `Trickle` | one header for each question; or full answers at some bytes a second |
//! | `LyingTip` | claims height 1,000,000 and serves what there is |
//! | `Unlinked`, `Orphans` | an answer with a gap; an answer that begins nowhere |
//! | `BadWork`, `BadBits`, `Future` | a header without work; with other bits; three hours ahead |
//! | `WrongClock` | an honest server whose clock is an hour ahead |
//! | `Forks`, `ShortForks` | one fork from genesis after the other, each valid, none with much work, without end; in full messages or almost |
//! | `Pings`, `Questions`, `Proofs`, `Invs`, `Addrs`, `ManyAddrs`, `Unknown`, `Garbage` | floods |
//! | `Late`, `Twice` | answers after the deadline; answers twice |
//! | `DropAt(n)` | closes at a step: at once, in the handshake, after it, at the first question, inside the answer |
//! | `Hasty` | connects, shakes hands, closes, and again |
//! | `Teller` | no rogue: serves well, and tells whoever asks of the world's first hundred hosts |
//! | `WrongMagic`, `Oversize` | another network's frames; a length that no packet has |

mod acts;
mod talk;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rookery_runtime::OnPanic;
use rookery_transport::Arrival;

use crate::chainworld::{ChainWorld, Line, PORT};
use crate::world::Node;

pub use acts::Script;
pub use talk::{Claims, Talk};

/// What a hostile peer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the table of the module's page says what each does")]
pub enum Rogue {
    Stage(u8),
    Silent,
    Mute,
    OneByOne,
    Trickle,
    LyingTip,
    Unlinked,
    Orphans,
    BadWork,
    BadBits,
    Future,
    WrongClock,
    Forks,
    ShortForks,
    Pings,
    Questions,
    Proofs,
    Invs,
    Addrs,
    ManyAddrs,
    Unknown,
    Garbage,
    Late,
    Twice,
    DropAt(u8),
    Hasty,
    WrongMagic,
    Oversize,
    Teller,
}

impl Rogue {
    /// Every kind that means harm.
    pub const ALL: &'static [Self] = &[
        Self::Stage(0),
        Self::Stage(1),
        Self::Stage(2),
        Self::Stage(3),
        Self::Silent,
        Self::Mute,
        Self::OneByOne,
        Self::Trickle,
        Self::LyingTip,
        Self::Unlinked,
        Self::Orphans,
        Self::BadWork,
        Self::BadBits,
        Self::Future,
        Self::WrongClock,
        Self::Forks,
        Self::ShortForks,
        Self::Pings,
        Self::Questions,
        Self::Proofs,
        Self::Invs,
        Self::Addrs,
        Self::ManyAddrs,
        Self::Unknown,
        Self::Garbage,
        Self::Late,
        Self::Twice,
        Self::DropAt(0),
        Self::DropAt(1),
        Self::DropAt(2),
        Self::DropAt(3),
        Self::DropAt(4),
        Self::Hasty,
        Self::WrongMagic,
        Self::Oversize,
    ];
}

/// How soon a rogue that was closed dials again.
const AGAIN: Duration = Duration::from_secs(2);

/// Starts a rogue on a host: it answers whoever dials it, and keeps dialling `victims`. It serves from `line` what it
/// serves at all.
pub fn start(world: &ChainWorld, ip: IpAddr, rogue: Rogue, line: &Arc<Line>, victims: &[IpAddr]) -> Node {
    let node = world.world.node(ip);
    let script = Script::new(rogue, Arc::clone(line));
    let (listening, answers) = (node.clone(), script.clone());
    node.env.scope.spawn("rogue", OnPanic::StopNode, async move {
        let Ok(mut listener) = listening.transport.listen(listening.at(PORT)).await else { return };
        while let Ok(Arrival::Ready(conn)) = listener.accept().await {
            let (script, env) = (answers.clone(), listening.env.clone());
            listening.env.scope.spawn("answer", OnPanic::StopNode, async move {
                // However it ends, the script is over.
                let _ = script.play(conn.into_stream().expect("the fabric brings pipes"), &env).await;
            });
        }
    });
    for victim in victims {
        let (dialling, script, to) = (node.clone(), script.clone(), SocketAddr::new(*victim, PORT));
        node.env.scope.spawn("rogue", OnPanic::StopNode, async move {
            loop {
                if let Ok(conn) = dialling.transport.dial(to).await {
                    let _ = script
                        .play(conn.into_stream().expect("the fabric brings pipes"), &dialling.env)
                        .await;
                }
                dialling.env.clock.sleep(AGAIN).await;
            }
        });
    }
    node
}
