//! Asks the router for a port by PCP (RFC 6887), and by NAT-PMP (RFC 6886) where PCP is not spoken. The protocols are the
//! library `crab_nat`'s; which gateway is asked, and what its answers mean here, is ours.
//!
//! The gateway is the one that its owner names, or that of the default route: read from the kernel at each question, so
//! that a machine which moves to another network asks there. Answers are taken from the gateway's address alone (connected
//! sockets); PCP's also carry the node's token.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use crab_nat::pcp::{self, BaseMapRequest, Nonce};
use crab_nat::{
    GATEWAY_PORT, InternetProtocol, PortMapping, PortMappingOptions, PortMappingType, TimeoutConfig, natpmp,
};
use rookery_base::id::canonical_ip;
use rookery_runtime::BoxFuture;

use super::mapping::{Gateway, GatewayError, Mapping, Token, Wanted};

/// How long one protocol is tried: 0.25, 0.5, 1 and 2 s after each datagram, as RFC 6886 begins. A router is a hop away; one
/// that needs longer is asked again in half a minute.
const TRIES: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_millis(250),
    max_retries: 3,
    max_retry_timeout: Some(Duration::from_secs(2)),
};
/// The kernel's table of IPv4 routes.
const ROUTES: &str = "/proc/net/route";

/// The router, asked by PCP and NAT-PMP.
#[derive(Debug, Default)]
pub struct Router {
    /// Where it is, if that was said.
    named: Option<Ipv4Addr>,
    held: Option<PortMapping>,
}

impl Router {
    /// The router of the default route. Only Linux says which that is.
    pub fn of_default_route() -> Self {
        Self::default()
    }

    /// The router at this address.
    pub const fn at(gateway: Ipv4Addr) -> Self {
        Self { named: Some(gateway), held: None }
    }

    async fn ask(&mut self, Wanted { port, lifetime, token }: Wanted) -> Result<Mapping, GatewayError> {
        let by_route = || default_gateway(&std::fs::read_to_string(ROUTES).ok()?);
        let gateway = self.named.or_else(by_route).ok_or(GatewayError::Unknown)?;
        let kept = self.held.as_ref().filter(|held| IpAddr::from(held.gateway()) == gateway);
        let options = PortMappingOptions {
            // The port that others already know, else the one that they would guess.
            external_port: Some(kept.map_or(port, PortMapping::external_port)),
            lifetime_seconds: Some(u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX)),
            timeout_config: Some(TRIES),
        };
        let client = address_towards(gateway)?;
        let request = BaseMapRequest::new(gateway.into(), client, InternetProtocol::Udp, port);
        let granted = match pcp::port_mapping(request, Some(nonce(token)), None, options).await {
            Ok(granted) => granted,
            // The older protocol's routers say that, or nothing at all.
            Err(pcp::Failure::UnsupportedVersion(_) | pcp::Failure::Timeout) => {
                let asked = natpmp::port_mapping(gateway.into(), InternetProtocol::Udp, port, options).await;
                asked.map_err(|error| natpmp_error(gateway, error))?
            }
            Err(pcp::Failure::Socket(error)) => return Err(unheard(gateway, error)),
            Err(error) => return Err(refused(gateway, &error)),
        };
        let (kind, port) = (granted.mapping_type(), granted.external_port().get());
        let lifetime = Duration::from_secs(granted.lifetime().into());
        // Kept before the next await: what was granted can be given back.
        self.held = Some(granted);
        let ip = match kind {
            PortMappingType::Pcp { external_ip, .. } => canonical_ip(external_ip),
            PortMappingType::NatPmp => {
                let asked = natpmp::external_address(gateway.into(), Some(TRIES)).await;
                asked.map_err(|error| natpmp_error(gateway, error))?.into()
            }
        };
        Ok(Mapping { external: SocketAddr::new(ip, port), lifetime })
    }
}

impl Gateway for Router {
    fn map(&mut self, wanted: Wanted) -> BoxFuture<'_, Result<Mapping, GatewayError>> {
        Box::pin(self.ask(wanted))
    }

    fn release(&mut self) -> BoxFuture<'_, Result<(), GatewayError>> {
        Box::pin(async {
            let Some(held) = self.held.take() else { return Ok(()) };
            held.try_drop().await.map_err(|(error, held)| refused(held.gateway(), &error))
        })
    }
}

/// A token as PCP writes it.
fn nonce(token: Token) -> Nonce {
    let (words, _) = token.as_chunks::<4>();
    std::array::from_fn(|at| u32::from_be_bytes(words[at]))
}

/// Who has nothing on the port says so by ICMP, where its firewall lets it.
fn unheard(gateway: Ipv4Addr, error: io::Error) -> GatewayError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => GatewayError::Silent(gateway.into()),
        _ => GatewayError::System(error),
    }
}

fn natpmp_error(gateway: Ipv4Addr, error: natpmp::Failure) -> GatewayError {
    match error {
        natpmp::Failure::Timeout => GatewayError::Silent(gateway.into()),
        natpmp::Failure::Socket(error) => unheard(gateway, error),
        error => refused(gateway, &error),
    }
}

fn refused(gateway: impl Into<IpAddr>, error: &impl std::error::Error) -> GatewayError {
    GatewayError::Refused { gateway: gateway.into(), why: error.to_string() }
}

/// This machine's address as the gateway sees it: PCP refuses another one. Sends nothing.
fn address_towards(gateway: Ipv4Addr) -> io::Result<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((gateway, GATEWAY_PORT))?;
    Ok(socket.local_addr()?.ip())
}

/// The gateway of the default route with the least metric, from the kernel's table: a line for each route, with the
/// interface, destination, gateway, flags, two counters, metric and mask; addresses in hexadecimal, as the kernel's memory
/// has them.
fn default_gateway(routes: &str) -> Option<Ipv4Addr> {
    let gateway = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let &[_, destination, gateway, _, _, _, metric, mask, ..] = columns.as_slice() else { return None };
        let address = |text| u32::from_str_radix(text, 16).ok().map(u32::to_ne_bytes);
        let is_default = address(destination)? == [0; 4] && address(mask)? == [0; 4];
        let gateway = Ipv4Addr::from(address(gateway)?);
        (is_default && !gateway.is_unspecified()).then_some((metric.parse::<u32>().ok()?, gateway))
    };
    routes.lines().skip(1).filter_map(gateway).min().map(|(_, gateway)| gateway)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";

    /// An address as this machine's kernel shows it.
    fn hex(octets: [u8; 4]) -> String {
        format!("{:08X}", u32::from_ne_bytes(octets))
    }

    fn route(to: [u8; 4], by: [u8; 4], metric: u32, mask: [u8; 4]) -> String {
        format!("eth0\t{}\t{}\t0003\t0\t0\t{metric}\t{}\t0\t0\t0\n", hex(to), hex(by), hex(mask))
    }

    #[test]
    fn the_default_route_of_the_least_metric_names_the_gateway() {
        let none = [0; 4];
        let table = [
            HEAD.to_owned(),
            route([192, 168, 1, 0], none, 0, [255, 255, 255, 0]),
            route(none, [10, 0, 0, 1], 600, none),
            route(none, [192, 168, 1, 1], 100, none),
            route([10, 9, 0, 0], [192, 168, 1, 9], 0, [255, 255, 0, 0]),
        ];
        assert_eq!(default_gateway(&table.concat()), Some(Ipv4Addr::new(192, 168, 1, 1)));
    }

    #[test]
    fn a_table_without_a_gateway_names_none() {
        let tunnel = route([0; 4], [0; 4], 0, [0; 4]);
        for table in ["", HEAD, "x\n1 2 3\n", &[HEAD, &tunnel].concat()] {
            assert_eq!(default_gateway(table), None, "{table:?}");
        }
    }

    #[test]
    fn a_token_is_written_in_order() {
        assert_eq!(nonce([0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 1, 0]), [1, 2, 256]);
    }
}
