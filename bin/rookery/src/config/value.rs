//! The types of values: what they accept, and how they are written as TOML.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use rookery_overlay::wire::Topic;
use rookery_transport::tls::Keys;

use crate::network::Network;

/// A value as a layer gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Raw {
    /// Text from the environment or a flag: typed by the key that it is for.
    Word(String),
    /// A repeated flag.
    Words(Vec<String>),
    /// A TOML string.
    Text(String),
    /// A TOML integer, as it is written.
    Number(String),
    /// A TOML boolean.
    Switch(bool),
    /// A TOML array of strings.
    List(Vec<String>),
}

impl Raw {
    /// The value as text, where text is what it is.
    fn text(&self) -> Option<&str> {
        match self {
            Self::Word(text) | Self::Text(text) => Some(text),
            Self::Words(_) | Self::Number(_) | Self::Switch(_) | Self::List(_) => None,
        }
    }

    /// The value as a list. In the environment items are separated by commas.
    fn items(&self) -> Option<Vec<&str>> {
        match self {
            Self::Words(items) | Self::List(items) => Some(items.iter().map(String::as_str).collect()),
            Self::Word(word) => {
                Some(word.split(',').map(str::trim).filter(|item| !item.is_empty()).collect())
            }
            Self::Text(_) | Self::Number(_) | Self::Switch(_) => None,
        }
    }
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(text) | Self::Text(text) => write!(f, "{text:?}"),
            Self::Words(items) | Self::List(items) => write!(f, "{items:?}"),
            Self::Number(number) => f.write_str(number),
            Self::Switch(on) => write!(f, "{on}"),
        }
    }
}

/// A type of value.
pub trait Setting: Sized {
    /// What it accepts, to follow "expected".
    const EXPECTED: &'static str;
    /// The value, or `None` when it is not of this type.
    fn read(raw: &Raw) -> Option<Self>;
    /// The value as TOML.
    fn literal(&self) -> String;
}

/// Reads a value into its place, or says what was expected.
pub fn assign<T: Setting>(place: &mut T, raw: &Raw) -> Result<(), String> {
    *place = T::read(raw).ok_or_else(|| T::EXPECTED.to_owned())?;
    Ok(())
}

/// The same for a number with bounds.
pub fn assign_count(place: &mut u32, raw: &Raw, least: u32, most: u32) -> Result<(), String> {
    match u32::read(raw) {
        Some(count) if (least..=most).contains(&count) => *place = count,
        _ => return Err(format!("a whole number from {least} to {most}")),
    }
    Ok(())
}

/// The same for a log filter. The logger takes a word that is no level for a target, and a slip (`inof`) would
/// silence everything: here a list of levels and `target=level` is asked for.
pub fn assign_filter(place: &mut String, raw: &Raw) -> Result<(), String> {
    let text = raw.text().unwrap_or_default();
    let level = |part: &str| {
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
        !level.is_empty() && level.parse::<tracing_subscriber::filter::LevelFilter>().is_ok()
    };
    if !text.split(',').all(level) || tracing_subscriber::EnvFilter::try_new(text).is_err() {
        return Err("a level (error, warn, info, debug, trace, off) or a list of target=level".to_owned());
    }
    text.clone_into(place);
    Ok(())
}

/// Longest name of an overlay: it is also a directory's, above which a socket's path must keep short.
const MAX_NAME: usize = 32;

/// The same for the name of an overlay, which is also that of a directory.
pub fn assign_name(place: &mut String, raw: &Raw) -> Result<(), String> {
    let fits = |text: &&str| {
        (1..=MAX_NAME).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
    };
    let expected = || format!("a name of 1 to {MAX_NAME} characters a to z, 0 to 9, - and _");
    raw.text().filter(fits).ok_or_else(expected)?.clone_into(place);
    Ok(())
}

/// The same for a topic, or nothing.
pub fn assign_topic(place: &mut String, raw: &Raw) -> Result<(), String> {
    let fits = |text: &&str| text.is_empty() || Topic::new(text).is_some();
    let expected = || "a topic of 1 to 64 printable ASCII characters, or \"\" for none".to_owned();
    raw.text().filter(fits).ok_or_else(expected)?.clone_into(place);
    Ok(())
}

/// A value as TOML.
pub fn literal<T: Setting>(value: &T) -> String {
    value.literal()
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn quoted_list<T: fmt::Display>(items: &[T]) -> String {
    let items: Vec<_> = items.iter().map(|item| quoted(&item.to_string())).collect();
    format!("[{}]", items.join(", "))
}

impl Setting for Network {
    const EXPECTED: &'static str =
        "handshake-main, handshake-testnet, handshake-regtest, handshake-simnet or overlay";
    fn read(raw: &Raw) -> Option<Self> {
        Self::by_name(raw.text()?)
    }
    fn literal(&self) -> String {
        quoted(self.name())
    }
}

impl Setting for PathBuf {
    const EXPECTED: &'static str = "a directory (~ is not expanded here)";
    fn read(raw: &Raw) -> Option<Self> {
        let text = raw.text()?;
        (!text.is_empty() && !text.starts_with('~')).then(|| Self::from(text))
    }
    fn literal(&self) -> String {
        quoted(&self.to_string_lossy())
    }
}

impl Setting for String {
    const EXPECTED: &'static str = "text";
    fn read(raw: &Raw) -> Option<Self> {
        raw.text().map(str::to_owned)
    }
    fn literal(&self) -> String {
        quoted(self)
    }
}

impl Setting for bool {
    const EXPECTED: &'static str = "true or false";
    fn read(raw: &Raw) -> Option<Self> {
        match raw {
            Raw::Switch(on) => Some(*on),
            Raw::Word(word) => word.parse().ok(),
            _ => None,
        }
    }
    fn literal(&self) -> String {
        self.to_string()
    }
}

impl Setting for u32 {
    const EXPECTED: &'static str = "a whole number";
    fn read(raw: &Raw) -> Option<Self> {
        match raw {
            Raw::Number(text) | Raw::Word(text) => text.replace('_', "").parse().ok(),
            _ => None,
        }
    }
    fn literal(&self) -> String {
        self.to_string()
    }
}

/// A peer: a name or an address, and the port unless it is the network's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddress {
    host: String,
    port: Option<u16>,
}

impl PeerAddress {
    /// Parses `HOST`, `HOST:PORT`, `IPv6`, `[IPv6]` or `[IPv6]:PORT`.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some((ip, port)) = parse_ip(text) {
            return Some(Self { host: ip.to_string(), port });
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(parse_port(port)?)),
            None => (text, None),
        };
        is_host_name(host).then(|| Self { host: host.to_owned(), port })
    }

    /// `host:port` with the network's port where none was given.
    pub fn with_port(&self, default: u16) -> String {
        Self { host: self.host.clone(), port: Some(self.port.unwrap_or(default)) }.to_string()
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.port, self.host.contains(':')) {
            (None, _) => f.write_str(&self.host),
            (Some(port), false) => write!(f, "{}:{port}", self.host),
            (Some(port), true) => write!(f, "[{}]:{port}", self.host),
        }
    }
}

/// An address of this machine, and the port unless it is the network's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenAddress {
    ip: IpAddr,
    port: Option<u16>,
}

impl ListenAddress {
    /// Every address of the machine, IPv4 too.
    pub const ANY: Self = Self { ip: IpAddr::V6(Ipv6Addr::UNSPECIFIED), port: None };

    /// With the network's port where none was given.
    pub fn with_port(&self, default: u16) -> SocketAddr {
        SocketAddr::new(self.ip, self.port.unwrap_or(default))
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.ip, port).fmt(f),
            None => self.ip.fmt(f),
        }
    }
}

/// An IP with or without port, IPv6 with or without brackets.
fn parse_ip(text: &str) -> Option<(IpAddr, Option<u16>)> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some((address.ip(), Some(address.port())));
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().map(|ip| (ip, None))
}

fn parse_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0)
}

/// Letters, digits, hyphens, underscores and dots: what can be looked up. A name of digits and dots is a broken
/// address, not a name.
fn is_host_name(text: &str) -> bool {
    // 253 is the longest name that DNS can carry.
    (1..=253).contains(&text.len())
        && text.split('.').all(|label| (1..=63).contains(&label.len()))
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
        && !text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

impl Setting for Vec<PeerAddress> {
    const EXPECTED: &'static str =
        "a list of HOST or HOST:PORT (a peer with a KEY@ cannot be dialled yet: name its plain port)";
    fn read(raw: &Raw) -> Option<Self> {
        raw.items()?.into_iter().map(PeerAddress::parse).collect()
    }
    fn literal(&self) -> String {
        quoted_list(self)
    }
}

impl Setting for Vec<ListenAddress> {
    const EXPECTED: &'static str = "a list of IP or IP:PORT";
    fn read(raw: &Raw) -> Option<Self> {
        let parse = |text| parse_ip(text).map(|(ip, port)| ListenAddress { ip, port });
        raw.items()?.into_iter().map(parse).collect()
    }
    fn literal(&self) -> String {
        quoted_list(self)
    }
}

impl Setting for Option<SocketAddr> {
    const EXPECTED: &'static str = "IP:PORT, or \"\" for nothing";
    fn read(raw: &Raw) -> Option<Self> {
        match raw.text()? {
            "" => Some(None),
            text => text.parse().ok().map(Some),
        }
    }
    fn literal(&self) -> String {
        quoted(&self.map_or_else(String::new, |address| address.to_string()))
    }
}

impl Setting for Option<PathBuf> {
    const EXPECTED: &'static str = "a file (~ is not expanded here), or \"\" for none";
    fn read(raw: &Raw) -> Option<Self> {
        match raw.text()? {
            "" => Some(None),
            _ => PathBuf::read(raw).map(Some),
        }
    }
    fn literal(&self) -> String {
        self.as_ref().map_or_else(|| quoted(""), PathBuf::literal)
    }
}

/// Units of time, greatest first, so that a duration is written with the greatest that divides it.
const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];

/// Parses a whole number with a unit: `12h`, `90m`, `45s`, `2d`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (unit, seconds) = UNITS.into_iter().find(|(unit, _)| text.ends_with(unit))?;
    let count: u64 = text.strip_suffix(unit)?.parse().ok()?;
    count.checked_mul(seconds).map(Duration::from_secs)
}

/// The shortest text that [`parse_duration`] reads as this many whole seconds.
pub fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (unit, each) =
        UNITS.into_iter().find(|(_, each)| seconds != 0 && seconds.is_multiple_of(*each)).unwrap_or(("s", 1));
    format!("{}{unit}", seconds / each)
}

impl Setting for Option<Duration> {
    const EXPECTED: &'static str = "a duration such as \"12h\", \"90m\" or \"45s\", or \"off\"";
    fn read(raw: &Raw) -> Option<Self> {
        match raw.text()? {
            "off" => Some(None),
            text => parse_duration(text).map(Some),
        }
    }
    fn literal(&self) -> String {
        quoted(&self.map_or_else(|| "off".to_owned(), show_duration))
    }
}

impl Setting for Keys {
    const EXPECTED: &'static str = "both, post-quantum or classic";
    fn read(raw: &Raw) -> Option<Self> {
        let text = raw.text()?;
        [Self::Both, Self::PostQuantum, Self::Classic].into_iter().find(|keys| name_of(*keys) == text)
    }
    fn literal(&self) -> String {
        quoted(name_of(*self))
    }
}

/// The name of these kinds of keys.
pub const fn name_of(keys: Keys) -> &'static str {
    match keys {
        Keys::Both => "both",
        Keys::PostQuantum => "post-quantum",
        Keys::Classic => "classic",
    }
}

/// Which router is asked for a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapPort {
    /// None.
    Off,
    /// That of the default route.
    Auto,
    /// The one at this address.
    At(Ipv4Addr),
}

impl Setting for MapPort {
    const EXPECTED: &'static str = "off, auto, or the IPv4 address of a router";
    fn read(raw: &Raw) -> Option<Self> {
        match raw.text()? {
            "off" => Some(Self::Off),
            "auto" => Some(Self::Auto),
            text => text.parse().ok().map(Self::At),
        }
    }
    fn literal(&self) -> String {
        match self {
            Self::Off => quoted("off"),
            Self::Auto => quoted("auto"),
            Self::At(router) => quoted(&router.to_string()),
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Pretty on a terminal, plain elsewhere.
    Auto,
    /// Short and coloured.
    Pretty,
    /// One line with every field, no colour.
    Plain,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    const ALL: [(Self, &'static str); 4] =
        [(Self::Auto, "auto"), (Self::Pretty, "pretty"), (Self::Plain, "plain"), (Self::Json, "json")];
}

impl Setting for LogFormat {
    const EXPECTED: &'static str = "auto, pretty, plain or json";
    fn read(raw: &Raw) -> Option<Self> {
        let text = raw.text()?;
        Self::ALL.into_iter().find(|(_, name)| *name == text).map(|(format, _)| format)
    }
    fn literal(&self) -> String {
        let name = Self::ALL.into_iter().find(|(format, _)| format == self).map_or("auto", |(_, name)| name);
        quoted(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_read_in_every_spelling_and_written_back() {
        for (text, full) in [
            ("1.2.3.4", "1.2.3.4:7"),
            ("1.2.3.4:5", "1.2.3.4:5"),
            ("::1", "[::1]:7"),
            ("[::1]", "[::1]:7"),
            ("[::1]:5", "[::1]:5"),
            ("seed.example.org", "seed.example.org:7"),
            ("hsd:12038", "hsd:12038"),
        ] {
            let peer = PeerAddress::parse(text).unwrap();
            assert_eq!(peer.with_port(7), full);
            assert_eq!(PeerAddress::parse(&peer.to_string()), Some(peer));
        }
        for text in
            ["", "a b", "host:", "host:0", "host:99999", "1.2.3.4.5", "1.2.3", "key@host", "a..b", "a:b:c"]
        {
            assert_eq!(PeerAddress::parse(text), None, "{text}");
        }
    }

    #[test]
    fn durations_keep_their_value() {
        for (text, seconds) in [("45s", 45), ("90m", 5_400), ("12h", 43_200), ("2d", 172_800), ("0s", 0)] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(duration.as_secs(), seconds);
            assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
        }
        for text in ["", "s", "12", "-1s", "1.5h", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn routers_are_read_and_written_back() {
        for (text, expected) in
            [("off", MapPort::Off), ("auto", MapPort::Auto), ("10.0.0.1", MapPort::At([10, 0, 0, 1].into()))]
        {
            assert_eq!(MapPort::read(&Raw::Text(text.into())), Some(expected));
            assert_eq!(expected.literal(), format!("\"{text}\""));
        }
        for text in ["", "on", "::1", "10.0.0.1:5351", "router.local"] {
            assert_eq!(MapPort::read(&Raw::Word(text.into())), None, "{text}");
        }
    }

    #[test]
    fn a_file_s_types_are_strict_and_words_are_not() {
        assert_eq!(bool::read(&Raw::Text("true".into())), None);
        assert_eq!(bool::read(&Raw::Word("true".into())), Some(true));
        assert_eq!(u32::read(&Raw::Text("3".into())), None);
        assert_eq!(u32::read(&Raw::Number("1_000".into())), Some(1_000));
        assert_eq!(Vec::<PeerAddress>::read(&Raw::Text("a".into())), None);
        assert_eq!(Vec::<PeerAddress>::read(&Raw::Word("a, b,".into())).unwrap().len(), 2);
    }
}
