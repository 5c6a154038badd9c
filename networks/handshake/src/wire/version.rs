//! The first packet of each side.
//!
//! ```text
//! version u32 | services u64 | time u64 | remote 88 | nonce 8 | agent u8 + bytes | height u32 | no-relay u8
//! ```

use super::address::{NetAddress, Services};
use super::body::{Body, Wire};
use super::text::Text;
use bytes::{BufMut, BytesMut};
use rookery_base::DecodeError;

/// Eight bytes that tell a ping's answer, or this node itself, from any other.
pub type Nonce = [u8; 8];

/// What a peer says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The protocol it speaks; hsd speaks 3 and accepts 1 and up.
    pub version: u32,
    /// What it offers.
    pub services: Services,
    /// Its clock, in seconds since 1970.
    pub time: u64,
    /// How it sees us.
    pub remote: NetAddress,
    /// Drawn anew for each connection; a node that meets its own nonce has dialled itself.
    pub nonce: Nonce,
    /// Its software.
    pub agent: Text,
    /// Height of its chain.
    pub height: u32,
    /// It wants no unconfirmed transactions. On the wire 1 is true and, as hsd reads it, any other byte false.
    pub no_relay: bool,
}

impl Wire for Version {
    const MIN: usize = 122;

    fn read(body: &mut Body<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            version: body.u32_le("protocol version")?,
            services: Services::read(body)?,
            time: body.integer("time")?,
            remote: NetAddress::read(body)?,
            nonce: body.array("nonce")?,
            agent: Text::read(body)?,
            height: body.u32_le("height")?,
            no_relay: body.u8("no-relay flag")? == 1,
        })
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u32_le(self.version);
        self.services.write(out);
        out.put_u64_le(self.time);
        self.remote.write(out);
        out.extend_from_slice(&self.nonce);
        self.agent.write(out);
        out.put_u32_le(self.height);
        out.put_u8(u8::from(self.no_relay));
    }
}
