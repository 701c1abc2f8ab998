//! Elements of sets and maps.
//!
//! Our own types, not the `nftables` crate's expressions: a table has ten thousand of them, they are compared with those that
//! were sent before, and a crate's expression takes twenty times the memory and has no order. For the same reason they are
//! written as text at once: trees of JSON values for ten thousand would take most of a reload's time.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::boxes::Span;
use crate::config::{Ports, Transport};
use crate::net::InterfaceName;

/// One field of an element.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Atom {
    /// An address.
    Address(IpAddr),
    /// A range of addresses by its prefix.
    Network(IpNet),
    /// A range of IPv4 addresses, both ends in it, that is no prefix.
    Addresses(Ipv4Addr, Ipv4Addr),
    /// A port, or a range of ports.
    Ports(u16, u16),
    /// Protocols from one number to another.
    Protocols(u8, u8),
    /// An interface.
    Interface(InterfaceName),
}

/// An element of a set, or of a map with what it leads to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Element {
    /// Its key, field by field.
    pub key: Vec<Atom>,
    /// What a map holds for it; empty in a set.
    pub data: Vec<Atom>,
}

impl Atom {
    /// All addresses of a range, in the shortest form.
    pub(super) fn network(network: impl Into<IpNet>) -> Self {
        let network = network.into();
        if network.prefix_len() == network.max_prefix_len() {
            Self::Address(network.addr())
        } else {
            Self::Network(network)
        }
    }

    /// The IPv4 addresses of a span, in the shortest form.
    pub(super) fn addresses(span: Span) -> Self {
        let (first, last) = (Ipv4Addr::from(span.first), Ipv4Addr::from(span.last));
        let length = span.last - span.first;
        let bits = (u64::from(length) + 1).trailing_zeros();
        let aligned = (u64::from(length) + 1).is_power_of_two() && u64::from(span.first) & u64::from(length) == 0;
        match u8::try_from(32 - bits).ok().filter(|_| aligned).and_then(|prefix| Ipv4Net::new(first, prefix).ok()) {
            Some(network) => Self::network(network),
            None => Self::Addresses(first, last),
        }
    }

    pub(super) fn address(address: Ipv4Addr) -> Self {
        Self::Address(address.into())
    }

    pub(super) fn ports(ports: Ports) -> Self {
        Self::Ports(ports.first, ports.last)
    }

    pub(super) fn port(port: u16) -> Self {
        Self::Ports(port, port)
    }

    /// A span of ports.
    pub(super) fn port_span(span: Span) -> Self {
        let port = |bound: u32| u16::try_from(bound).unwrap_or(u16::MAX);
        Self::Ports(port(span.first), port(span.last))
    }

    /// A span of protocols.
    pub(super) fn protocol_span(span: Span) -> Self {
        let protocol = |bound: u32| u8::try_from(bound).unwrap_or(u8::MAX);
        Self::Protocols(protocol(span.first), protocol(span.last))
    }

    pub(super) fn transport(transport: Transport) -> Self {
        Self::Protocols(transport.number(), transport.number())
    }

    /// Writes it as nft's JSON has it. Nothing in it needs escaping: addresses, numbers, and names of interfaces, which are
    /// letters, digits, `.`, `_`, `-` and `@`.
    fn write(&self, out: &mut String) -> fmt::Result {
        match self {
            Self::Address(address) => write!(out, "\"{address}\""),
            Self::Network(network) => {
                write!(out, "{{\"prefix\":{{\"addr\":\"{}\",\"len\":{}}}}}", network.addr(), network.prefix_len())
            }
            Self::Addresses(first, last) => write!(out, "{{\"range\":[\"{first}\",\"{last}\"]}}"),
            Self::Ports(first, last) if first == last => write!(out, "{first}"),
            Self::Ports(first, last) => write!(out, "{{\"range\":[{first},{last}]}}"),
            Self::Protocols(1, 1) => out.write_str("\"icmp\""),
            Self::Protocols(6, 6) => out.write_str("\"tcp\""),
            Self::Protocols(17, 17) => out.write_str("\"udp\""),
            Self::Protocols(first, last) if first == last => write!(out, "{first}"),
            Self::Protocols(first, last) => write!(out, "{{\"range\":[{first},{last}]}}"),
            Self::Interface(name) => write!(out, "\"{name}\""),
        }
    }
}

impl Element {
    /// An element of a set.
    pub(super) fn of<const N: usize>(key: [Atom; N]) -> Self {
        Self { key: key.into(), data: Vec::new() }
    }

    /// An element of a map.
    pub(super) fn leads<const N: usize, const M: usize>(key: [Atom; N], data: [Atom; M]) -> Self {
        Self { key: key.into(), data: data.into() }
    }

    /// Writes it as nft's JSON has it: with what it leads to.
    pub(super) fn write(&self, out: &mut String) {
        if self.data.is_empty() {
            return self.write_key(out);
        }
        out.push('[');
        write_fields(&self.key, out);
        out.push(',');
        write_fields(&self.data, out);
        out.push(']');
    }

    /// Writes its key alone.
    pub(super) fn write_key(&self, out: &mut String) {
        write_fields(&self.key, out);
    }
}

fn write_fields(atoms: &[Atom], out: &mut String) {
    let written = match atoms {
        [single] => single.write(out),
        several => {
            out.push_str("{\"concat\":[");
            let written = several.iter().enumerate().try_for_each(|(index, atom)| {
                if index > 0 {
                    out.push(',');
                }
                atom.write(out)
            });
            out.push_str("]}");
            written
        }
    };
    written.expect("writing to a string does not fail");
}

/// Elements for whole ranges, without overlaps and joined where they touch: an interval set takes no others.
pub(super) fn ranges(networks: impl IntoIterator<Item = Ipv4Net>) -> Vec<Element> {
    let networks: Vec<Ipv4Net> = networks.into_iter().collect();
    Ipv4Net::aggregate(&networks).into_iter().map(|network| Element::of([Atom::network(network)])).collect()
}

/// The same for IPv6.
pub(super) fn ranges6(networks: impl IntoIterator<Item = ipnet::Ipv6Net>) -> Vec<Element> {
    let networks: Vec<ipnet::Ipv6Net> = networks.into_iter().collect();
    ipnet::Ipv6Net::aggregate(&networks).into_iter().map(|network| Element::of([Atom::network(network)])).collect()
}

/// The IPv4 and the IPv6 ranges of a list, as elements.
pub(super) fn of_both(networks: &[IpNet]) -> (Vec<Element>, Vec<Element>) {
    let v4 = networks.iter().filter_map(|network| if let IpNet::V4(v4) = network { Some(*v4) } else { None });
    let v6 = networks.iter().filter_map(|network| if let IpNet::V6(v6) = network { Some(*v6) } else { None });
    (ranges(v4), ranges6(v6))
}
