//! Small network types that several modules use. Each value is validated when it is created.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

pub use bastiond_tunnel::interface::InterfaceName;
pub(crate) use bastiond_tunnel::interface::InvalidInterfaceName;

/// The number that marks our routes and addresses (`rtm_protocol`, `IFA_PROTO`). Numbers above 4 (`RTPROT_STATIC`) are
/// free for programs that make routes; iproute2's `etc/iproute2/rt_protos` does not assign 98. `ip route show proto 98`
/// lists our routes.
pub(crate) const ROUTE_PROTOCOL: u8 = 98;

/// The number that marks the routes of answers to probes, which exist as long as the probe's interface. It is free too.
pub(crate) const PROBE_ROUTE_PROTOCOL: u8 = 97;

/// A 48-bit Ethernet address. Hetzner's metadata identifies private interfaces by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

/// The text is not an Ethernet address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an Ethernet address (six hexadecimal bytes separated by colons)")]
pub struct InvalidMacAddress(String);

impl FromStr for MacAddress {
    type Err = InvalidMacAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidMacAddress(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(invalid)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
        }
        if parts.next().is_none() { Ok(Self(bytes)) } else { Err(invalid()) }
    }
}

impl TryFrom<String> for MacAddress {
    type Error = InvalidMacAddress;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> Self {
        mac.to_string()
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.map(|byte| format!("{byte:02x}"));
        f.write_str(&bytes.join(":"))
    }
}

/// The ID of a Hetzner Cloud server, 1 to 2^53-1 like all IDs of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServerId(pub u64);

/// The ID of a Hetzner Cloud network, 1 to 2^53-1 like all IDs of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NetworkId(pub u64);

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether the whole range is inside one of the private ranges of RFC 1918.
pub(crate) fn is_private(range: Ipv4Net) -> bool {
    let blocks =
        [(Ipv4Addr::new(10, 0, 0, 0), 8), (Ipv4Addr::new(172, 16, 0, 0), 12), (Ipv4Addr::new(192, 168, 0, 0), 16)];
    blocks.into_iter().any(|(address, prefix)| Ipv4Net::new_assert(address, prefix).contains(&range))
}

/// Whether two ranges share an address.
pub(crate) fn overlap(one: Ipv4Net, other: Ipv4Net) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

/// The ranges, sorted, without those that are inside another one.
pub(crate) fn without_nested(ranges: impl IntoIterator<Item = IpNet>) -> Vec<IpNet> {
    let mut ranges: Vec<IpNet> = ranges.into_iter().collect();
    // Wider ranges first: then only the last kept range can contain the next one.
    ranges.sort_by_key(|range| (range.network(), range.prefix_len()));
    let mut kept: Vec<IpNet> = Vec::with_capacity(ranges.len());
    for range in ranges {
        if !kept.last().is_some_and(|wider| wider.contains(&range)) {
            kept.push(range);
        }
    }
    kept
}

/// The IPv4 ranges among these.
pub fn v4(ranges: impl IntoIterator<Item = IpNet>) -> Vec<Ipv4Net> {
    ranges.into_iter().filter_map(|range| if let IpNet::V4(range) = range { Some(range) } else { None }).collect()
}

/// The IPv6 ranges among these.
pub(crate) fn v6(ranges: impl IntoIterator<Item = IpNet>) -> Vec<Ipv6Net> {
    ranges.into_iter().filter_map(|range| if let IpNet::V6(range) = range { Some(range) } else { None }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_inside_another_one_is_left_out() {
        let ranges = |texts: &[&str]| -> Vec<IpNet> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        let given = ["192.168.5.0/24", "10.0.0.0/8", "192.168.0.0/16", "fd00::/64", "10.0.0.0/16", "fd00::1/128"];
        assert_eq!(without_nested(ranges(&given)), ranges(&["10.0.0.0/8", "192.168.0.0/16", "fd00::/64"]));
    }

    #[test]
    fn an_ethernet_address_is_printed_as_it_was_parsed() {
        let mac: MacAddress = "86:00:00:2A:7d:e0".parse().unwrap();
        assert_eq!(mac, MacAddress([0x86, 0, 0, 0x2a, 0x7d, 0xe0]));
        assert_eq!(mac.to_string(), "86:00:00:2a:7d:e0");
        for bad in [
            "",
            "86:00:00:2a:7d",
            "86:00:00:2a:7d:e0:11",
            "86-00-00-2a-7d-e0",
            "8600:00:2a:7d:e0",
            "+6:00:00:2a:7d:e0 ",
        ] {
            assert!(bad.parse::<MacAddress>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ranges_overlap_if_one_contains_the_other() {
        let net = |text: &str| text.parse::<Ipv4Net>().unwrap();
        assert!(overlap(net("10.0.0.0/16"), net("10.0.5.0/24")));
        assert!(overlap(net("10.0.5.0/24"), net("10.0.0.0/16")));
        assert!(!overlap(net("10.0.0.0/16"), net("10.1.0.0/16")));
    }
}
