//! Elements of sets and maps.
//!
//! Our own types, not the `nftables` crate's expressions: a table has ten thousand of them, they are compared with
//! those that were sent before, and a crate's expression takes twenty times the memory and has no order. For the same
//! reason they write themselves as text: trees of JSON values for ten thousand would take most of a reload's time.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};

use super::disjoint::Range;
use crate::config::Ports;
use crate::net::InterfaceName;

/// The value of one field of an element.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum FieldValue {
    /// An address.
    Address(IpAddr),
    /// A range of addresses that is a prefix.
    Network(IpNet),
    /// A range of IPv4 addresses, both ends included, that is no prefix.
    Addresses(Ipv4Addr, Ipv4Addr),
    /// A range of ports, both ends included; a single port has the same ends.
    Ports(u16, u16),
    /// A range of protocol numbers, both ends included.
    Protocols(u8, u8),
    /// The name of an interface.
    Interface(InterfaceName),
    /// The chain that a map leads to; its name needs no escaping.
    Chain(Arc<str>),
}

/// An element of a set or of a map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Element {
    /// Its key, field by field.
    pub key: Vec<FieldValue>,
    /// The value that a map holds for the key, field by field; empty in a set.
    pub data: Vec<FieldValue>,
}

impl FieldValue {
    /// The addresses of a network: a whole-length prefix as a single address.
    pub(super) fn network(network: impl Into<IpNet>) -> Self {
        let network = network.into();
        if network.prefix_len() == network.max_prefix_len() {
            Self::Address(network.addr())
        } else {
            Self::Network(network)
        }
    }

    /// IPv4 addresses as a single address or a prefix where possible, else as a range.
    pub(super) fn addresses(range: Range) -> Self {
        let (first, last) = (Ipv4Addr::from(range.first), Ipv4Addr::from(range.last));
        let length = range.last - range.first;
        let bits = (u64::from(length) + 1).trailing_zeros();
        let aligned = (u64::from(length) + 1).is_power_of_two() && u64::from(range.first) & u64::from(length) == 0;
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

    /// Ports by their numbers; the bounds have to fit.
    pub(super) fn port_range(range: Range) -> Self {
        let port = |bound: u32| u16::try_from(bound).unwrap_or(u16::MAX);
        Self::Ports(port(range.first), port(range.last))
    }

    /// Protocols by their numbers; the bounds have to fit.
    pub(super) fn protocol_range(range: Range) -> Self {
        let protocol = |bound: u32| u8::try_from(bound).unwrap_or(u8::MAX);
        Self::Protocols(protocol(range.first), protocol(range.last))
    }

    /// A protocol by its number.
    pub(super) fn protocol(number: u8) -> Self {
        Self::Protocols(number, number)
    }

    /// Writes it as nft's JSON has it. Nothing in it needs escaping: addresses, numbers, and names of interfaces, which
    /// are letters, digits, `.`, `_`, `-` and `@`.
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
            Self::Chain(name) => write!(out, "{{\"goto\":{{\"target\":\"{name}\"}}}}"),
        }
    }
}

impl Element {
    /// An element of a set.
    pub(super) fn new<const N: usize>(key: [FieldValue; N]) -> Self {
        Self { key: key.into(), data: Vec::new() }
    }

    /// An element of a map.
    pub(super) fn mapping<const N: usize, const M: usize>(key: [FieldValue; N], data: [FieldValue; M]) -> Self {
        Self { key: key.into(), data: data.into() }
    }

    /// Writes it as nft's JSON has it.
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

fn write_fields(atoms: &[FieldValue], out: &mut String) {
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

/// Elements for IPv4 networks. They are joined where they overlap or touch: an interval set takes no others.
pub(super) fn ranges(networks: impl IntoIterator<Item = Ipv4Net>) -> Vec<Element> {
    let networks: Vec<Ipv4Net> = networks.into_iter().collect();
    Ipv4Net::aggregate(&networks).into_iter().map(|network| Element::new([FieldValue::network(network)])).collect()
}

/// Elements for IPv6 networks, likewise.
pub(super) fn ranges6(networks: impl IntoIterator<Item = ipnet::Ipv6Net>) -> Vec<Element> {
    let networks: Vec<ipnet::Ipv6Net> = networks.into_iter().collect();
    ipnet::Ipv6Net::aggregate(&networks)
        .into_iter()
        .map(|network| Element::new([FieldValue::network(network)]))
        .collect()
}

/// Elements for the IPv4 networks of a list, and for its IPv6 networks.
pub(super) fn ranges_by_family(networks: &[IpNet]) -> (Vec<Element>, Vec<Element>) {
    let v4 = networks.iter().filter_map(|network| if let IpNet::V4(v4) = network { Some(*v4) } else { None });
    let v6 = networks.iter().filter_map(|network| if let IpNet::V6(v6) = network { Some(*v6) } else { None });
    (ranges(v4), ranges6(v6))
}
