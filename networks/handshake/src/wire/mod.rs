//! The Handshake wire: bytes to packets and back. No I/O, no clock, no rules of consensus.
//!
//! ```text
//! bytes -> Head (9 bytes) -> bounds of the kind -> payload -> Packet::decode -> Packet
//!          magic, kind, length     KINDS           Bytes      reads in place
//! ```
//!
//! Integers are little-endian; counts and lengths are compact-size integers in their shortest form; 64-bit numbers
//! end at 2^53 - 1, where hsd's do. Hashes are in natural byte order.
//!
//! **What it promises.** A packet encodes to bytes that decode to the same packet. No bytes make it panic. What it
//! allocates is at most sixteen times the payload: a count is believed only as far as the bytes present could hold
//! that many items, and what a peer could blow up (scripts, covenants, headers) stays in its payload. Decoding
//! `headers` costs the same for one as for two thousand.
//!
//! **What it refuses.** A payload shorter or longer than its kind's bounds; a truncated field; a count over its
//! limit; a number that is not in its shortest form or out of its range; a witness program, filter flag, fee or
//! airdrop place that cannot be. One byte missing at the end is always an error, except where the rest of the
//! payload is the field: a `proof`, down to its smallest size, and kinds that are not known.
//!
//! **What it lets pass, because hsd does.**
//!
//! | where | what |
//! |---|---|
//! | control, inventory, filter and request packets | up to 1,024 bytes behind the last field are dropped ([`Trailing`]) |
//! | services | the upper 32 bits are dropped |
//! | addresses | any type but 0 is the null address; the reserved bytes are dropped |
//! | `version` | a no-relay byte other than 1 is false |
//! | `inv` and kin, `reject`, covenants | unknown types, codes and kinds are kept |
//! | kinds 30 and above | kept unread as [`Packet::Unknown`] |
//!
//! So a payload that used such leeway does not encode to the same bytes again; every other one does.
//!
//! | module | packets |
//! |---|---|
//! | [`version`] | version, and the nonce of ping and pong |
//! | [`address`] | addr |
//! | [`inventory`] | inv, getdata, notfound, getblocks, getheaders |
//! | [`headers`] | headers |
//! | [`block`], [`tx`] | block, merkleblock, tx |
//! | [`compact`] | sendcmpct, cmpctblock, getblocktxn, blocktxn |
//! | [`filter`] | filterload, filteradd, feefilter |
//! | [`reject`] | reject |
//! | [`proof`] | getproof, proof, claim, airdrop |

pub mod address;
pub mod block;
pub mod body;
pub mod compact;
pub mod filter;
pub mod frame;
pub mod headers;
pub mod inventory;
pub mod kind;
pub mod packet;
pub mod proof;
pub mod reject;
pub mod text;
pub mod tx;
pub mod version;

pub use address::{NetAddress, Services};
pub use body::{Body, Wire};
pub use frame::{HEAD_LEN, Head, MAX_BODY, encode_frame};
pub use headers::{HEADER_LEN, Headers, MAX_HEADERS, RawHeader};
pub use inventory::{Inv, InvKind, Locator};
pub use kind::{KINDS, KindInfo, Trailing, kind_info};
pub use packet::Packet;
pub use text::Text;
pub use version::{Nonce, Version};
