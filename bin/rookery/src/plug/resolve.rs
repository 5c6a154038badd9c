//! Names and addresses that users give.

use std::net::SocketAddr;

use crate::exit::Report;

/// The first address of `host:port`.
pub(super) async fn resolve(peer: &str) -> Result<SocketAddr, Report> {
    let unknown = |why: String| {
        Report::usage(format!("cannot resolve {peer}: {why}"))
            .hint("give an IP address, or check the name and the resolver")
    };
    let mut found = tokio::net::lookup_host(peer).await.map_err(|error| unknown(error.to_string()))?;
    found.next().ok_or_else(|| unknown("the name has no address".into()))
}

/// The first address of each.
pub(super) async fn resolve_all(peers: &[String]) -> Result<Vec<SocketAddr>, Report> {
    let mut found = Vec::new();
    for peer in peers {
        found.push(resolve(peer).await?);
    }
    Ok(found)
}
