//! A peer's endpoint: an address, or a name that has to be resolved.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::syntax::decimal;

/// A peer's endpoint as it is configured. Its port is never 0.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndpointName {
    /// An address: `192.0.2.7:51820`, `[2001:db8::7]:51820`, `[fe80::7%2]:51820`.
    Address(SocketAddr),
    /// What the system's resolver has to find: a host's name, or a link-local address whose interface has a name
    /// (`[fe80::7%eth0]:51820`), since an interface's number may change.
    Name {
        /// The name, where a dot at its end keeps the resolver from trying search domains; or `fe80::7%eth0`.
        host: String,
        /// The UDP port, from 1.
        port: u16,
    },
}

/// The text is not an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an endpoint (like 192.0.2.7:51820, [2001:db8::7]:51820 or vpn.example.org:51820)")]
pub struct InvalidEndpoint(String);

impl FromStr for EndpointName {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidEndpoint(text.to_owned());
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 { Err(invalid()) } else { Ok(Self::Address(address)) };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        let port = decimal(port).filter(|&port| port > 0).ok_or_else(invalid)?;
        let scoped = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if let Some(host) = scoped.filter(|host| is_scoped_by_name(host)) {
            return Ok(Self::Name { host: host.to_owned(), port });
        }
        if is_host_name(host) { Ok(Self::Name { host: host.to_owned(), port }) } else { Err(invalid()) }
    }
}

/// `fe80::7%eth0`. The resolver finds an interface by its name for link-local addresses only.
fn is_scoped_by_name(text: &str) -> bool {
    /// An interface's name, less the byte of zero at its end (`IFNAMSIZ` in linux/if.h).
    const MAX_INTERFACE: usize = 15;
    let Some((address, interface)) = text.split_once('%') else { return false };
    address.parse().is_ok_and(|address: Ipv6Addr| address.is_unicast_link_local())
        && (1..=MAX_INTERFACE).contains(&interface.len())
        && interface.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b'%' | b'[' | b']'))
}

/// Labels of letters, digits and hyphens (RFC 1123 §2.1), and of underscores, which real names have too. What ends in
/// a number is meant to be an address, and is a wrong one.
fn is_host_name(text: &str) -> bool {
    /// A name's length on the wire, less its root (RFC 1035 §2.3.4).
    const MAX_NAME: usize = 253;
    const MAX_LABEL: usize = 63;
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= MAX_NAME && name.split('.').all(is_label) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

impl fmt::Display for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_are_distinguished_and_printed_as_written() {
        for text in ["192.95.5.67:1234", "[2607:5300:60:6b0::c05f:543]:2468", "[fe80::1%2]:51820"] {
            let endpoint = text.parse::<EndpointName>().unwrap();
            assert_eq!(endpoint, EndpointName::Address(text.parse().unwrap()));
            assert_eq!(endpoint.to_string(), text);
        }
        let longest = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
        for host in
            ["test.wireguard.com", "localhost", "example.org.", "xn--bcher-kva.example", "a_b", "3com.com", &longest]
        {
            let endpoint = format!("{host}:18981").parse::<EndpointName>().unwrap();
            assert_eq!(endpoint, EndpointName::Name { host: host.to_owned(), port: 18981 });
            assert_eq!(endpoint.to_string(), format!("{host}:18981"));
        }
    }

    #[test]
    fn a_link_local_address_may_name_its_interface() {
        let endpoint = "[fe80::1%eth0]:51820".parse::<EndpointName>().unwrap();
        assert_eq!(endpoint, EndpointName::Name { host: "fe80::1%eth0".to_owned(), port: 51820 });
        assert_eq!(endpoint.to_string(), "[fe80::1%eth0]:51820");
    }

    #[test]
    fn other_texts_are_no_endpoints() {
        let (long_label, long_name) = (format!("{}.org:1", "a".repeat(64)), format!("{}org:1", "abc.".repeat(63)));
        for text in [
            "",
            "example.org",
            "example.org:",
            "example.org:0",
            "example.org:+1",
            "example.org:65536",
            "192.0.2.1:0",
            "192.0.2.1:http",
            "[2001:db8::1]",
            "[2001:db8::1]:0",
            "[2001:db8::1:51820",
            "2001:db8::1:51820",
            "[example.org]:51820",
            "[2001:db8::1%eth0]:51820",
            "[fe80::1%]:51820",
            "[fe80::1%eth0]:0",
            "[fe80::1%a/b]:51820",
            "[fe80::1%sixteen-letters-]:51820",
            "fe80::1%eth0:51820",
            ":51820",
            "192.0.2.256:51820",
            "192.0.2:51820",
            "-a.org:1",
            "a-.org:1",
            "a..org:1",
            ".:1",
            "bücher.example:1",
            "a b:1",
            "http://example.org:1",
            &long_label,
            &long_name,
        ] {
            assert_eq!(text.parse::<EndpointName>(), Err(InvalidEndpoint(text.to_owned())));
        }
    }
}
