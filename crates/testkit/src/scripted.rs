//! A peer by hand: it says exactly the bytes it is told to, and expects exactly what the test states. It speaks the
//! echo network's wire, see that crate's first page: a hello of 40 bytes, then `kind u8 | length u32 BE | body`.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::Wire;

/// The first bytes of an echo node's hello.
pub const ECHO_MAGIC: &[u8; 8] = b"ROOKECHO";
/// The longest body this reader takes: the echo network's own bound. A longer one fails the test before its memory
/// is allocated.
pub const MAX_BODY: usize = 64 * 1024;
/// The echo network's request.
pub const SAY: u8 = 1;
/// Its answer.
pub const SAID: u8 = 2;

/// The scripted peer. Its end of the connection is open to the test, to do anything with.
#[derive(Debug)]
pub struct Scripted {
    /// The connection.
    pub wire: Wire,
}

/// A framed message.
pub fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    [&head(kind, body.len() as u32)[..], body].concat()
}

/// A message's head alone, whatever follows it.
pub fn head(kind: u8, len: u32) -> [u8; 5] {
    let [a, b, c, d] = len.to_be_bytes();
    [kind, a, b, c, d]
}

/// The body of a `say` or `said`.
pub fn numbered(number: u64, text: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes()[..], text].concat()
}

impl Scripted {
    /// A peer that has said nothing yet.
    pub const fn new(wire: Wire) -> Self {
        Self { wire }
    }

    /// Shakes hands as an echo node with this identity; gives the node's identity.
    ///
    /// # Errors
    /// When the connection ends first, or what came is not an echo node's hello.
    pub async fn shake(&mut self, identity: [u8; 32]) -> io::Result<[u8; 32]> {
        self.wire.write_all(&[&ECHO_MAGIC[..], &identity].concat()).await?;
        let mut hello = [0; 40];
        self.wire.read_exact(&mut hello).await?;
        let (magic, theirs) = hello.split_at(ECHO_MAGIC.len());
        if magic != ECHO_MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the hello is not an echo node's"));
        }
        Ok(theirs.try_into().expect("a hello is the magic and 32 bytes"))
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.write_all(bytes).await
    }

    /// Sends a message.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn send(&mut self, kind: u8, body: &[u8]) -> io::Result<()> {
        self.bytes(&framed(kind, body)).await
    }

    /// The next message.
    ///
    /// # Errors
    /// When the connection ends first, or the message is over [`MAX_BODY`].
    pub async fn recv(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.wire.read_exact(&mut head).await?;
        let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if len > MAX_BODY {
            let detail = format!("a message of {len} bytes, the most is {MAX_BODY}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, detail));
        }
        let mut body = vec![0; len];
        self.wire.read_exact(&mut body).await?;
        Ok((head[0], body))
    }

    /// Reads to the end of the connection; gives the number of bytes that still came. A reset counts as an end.
    pub async fn until_closed(&mut self) -> usize {
        let (mut buf, mut all) = ([0; 4096], 0);
        while let Ok(n @ 1..) = self.wire.read(&mut buf).await {
            all += n;
        }
        all
    }

    /// Breaks the connection.
    pub fn reset(self) {
        self.wire.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_oversize_length_fails_before_its_body_is_allocated() {
        let at = |port| std::net::SocketAddr::from(([1, 1, 1, 1], port));
        let (a, b) = Wire::pair(at(1), at(2));
        let (mut a, mut b) = (Scripted::new(a), Scripted::new(b));
        a.bytes(&head(SAY, u32::MAX)).await.unwrap();
        assert_eq!(b.recv().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        a.send(SAID, b"12345678").await.unwrap();
        assert_eq!(b.recv().await.unwrap(), (SAID, b"12345678".to_vec()));
        drop(a);
        assert_eq!(b.until_closed().await, 0);
    }
}
