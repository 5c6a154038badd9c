//! TCP. Nagle's algorithm is off: we write whole messages, and waiting for more only delays a small one (a
//! reference client that leaves it on pays 50 ms per request).

use std::io;
use std::net::SocketAddr;

use rookery_base::id::canonical_addr;
use rookery_runtime::BoxFuture;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::{Arrival, Conn, Listener, StreamConn, Transport};

/// Connections the kernel holds until we accept them: enough for a burst of a thousand, and the kernel's own cap
/// (`net.core.somaxconn`, 4096 on Linux) applies below that.
const BACKLOG: u32 = 1024;

/// The TCP transport.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tcp;

struct Bound {
    listener: TcpListener,
    local: SocketAddr,
}

fn conn(stream: TcpStream) -> io::Result<Conn> {
    stream.set_nodelay(true)?;
    let (remote, local) = (canonical_addr(stream.peer_addr()?), canonical_addr(stream.local_addr()?));
    let (read, write) = stream.into_split();
    Ok(Conn::Stream(StreamConn { remote, local, read: Box::new(read), write: Box::new(write) }))
}

impl Transport for Tcp {
    fn listen(&self, at: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let socket = if at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            // A restart must not wait for the old sockets' TIME_WAIT.
            socket.set_reuseaddr(true)?;
            socket.bind(at)?;
            let listener = socket.listen(BACKLOG)?;
            let local = listener.local_addr()?;
            Ok(Box::new(Bound { listener, local }) as Box<dyn Listener>)
        })
    }

    fn dial(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Conn>> {
        Box::pin(async move { conn(TcpStream::connect(to).await?) })
    }
}

impl Listener for Bound {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Arrival>> {
        Box::pin(async move { conn(self.listener.accept().await?.0).map(Arrival::Ready) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn both_ends_agree_on_addresses_and_bytes_pass_until_the_close() {
        let mut listener = Tcp.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let at = listener.local_addr();
        let (dialled, accepted) = tokio::join!(Tcp.dial(at), listener.accept());
        let accepted = accepted.unwrap().connect().await.unwrap();
        let (mut a, mut b) = (dialled.unwrap().into_stream().unwrap(), accepted.into_stream().unwrap());
        assert_eq!((a.remote, a.local), (b.local, b.remote));
        a.write.write_all(b"hello").await.unwrap();
        drop(a);
        let mut got = Vec::new();
        b.read.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"hello");
    }

    #[tokio::test]
    async fn a_dial_to_nobody_fails() {
        let free = Tcp.listen("127.0.0.1:0".parse().unwrap()).await.unwrap().local_addr();
        assert!(Tcp.dial(free).await.is_err());
    }
}
