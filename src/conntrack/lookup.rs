//! Access lists and sets of addresses that are looked up instead of walked: a hundred thousand flows may meet ten
//! thousand lines.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use prefix_trie::{PrefixMap, PrefixSet};

use super::model::{SCTP, TCP, Tuple, UDP};
use crate::config::{Acl, Ports, Protocol, Transports};

/// A set of addresses, given as ranges that may overlap.
#[derive(Debug, Default)]
pub(super) struct AddressSet(PrefixSet<Ipv4Net>);

impl AddressSet {
    pub(super) fn from_ranges(ranges: &[Ipv4Net]) -> Self {
        Self(ranges.iter().map(Ipv4Net::trunc).collect())
    }

    pub(super) fn contains(&self, address: Ipv4Addr) -> bool {
        self.0.get_lpm(&Ipv4Net::from(address)).is_some()
    }
}

/// An access list, looked up by the destinations that its lines name.
#[derive(Debug, Default)]
pub(super) struct AccessList {
    lines: Vec<Line>,
    /// Indices into `lines`.
    by_destination: PrefixMap<Ipv4Net, Vec<usize>>,
}

/// A line of an access list, without its destinations.
#[derive(Debug)]
struct Line {
    /// `None`: any.
    from: Option<AddressSet>,
    protocol: Protocol,
    /// Empty: any.
    ports: Vec<Ports>,
}

impl AccessList {
    pub(super) fn new(acls: &[Acl]) -> Self {
        let mut list = Self::default();
        for (index, acl) in acls.iter().enumerate() {
            list.lines.push(Line {
                from: (!acl.from.is_empty()).then(|| AddressSet::from_ranges(&acl.from)),
                protocol: acl.protocol,
                ports: acl.ports.clone(),
            });
            let everywhere = [Ipv4Net::default()];
            for to in if acl.to.is_empty() { &everywhere[..] } else { &acl.to } {
                list.by_destination.entry(to.trunc()).or_default().push(index);
            }
        }
        list
    }

    /// Whether a line matches a flow with this first packet.
    pub(super) fn matches(&self, flow: &Tuple) -> bool {
        let mut indices = self.by_destination.cover_values(&Ipv4Net::from(flow.destination)).flatten();
        indices.any(|&index| self.lines[index].matches(flow))
    }
}

impl Line {
    fn matches(&self, flow: &Tuple) -> bool {
        let protocol_matches = match self.protocol.number() {
            Some(number) => flow.protocol == number,
            // A line with ports and no protocol is about the protocols that have ports.
            None => self.ports.is_empty() || matches!(flow.protocol, TCP | UDP | SCTP),
        };
        let port_matches =
            || self.ports.is_empty() || flow.destination_port().is_some_and(|port| contains_port(&self.ports, port));
        protocol_matches && port_matches() && self.from.as_ref().is_none_or(|from| from.contains(flow.source))
    }
}

/// Whether a port is in one of these ranges.
pub(super) fn contains_port(ports: &[Ports], port: u16) -> bool {
    ports.iter().any(|ports| ports.overlaps(Ports::single(port)))
}

/// Whether the transports include the protocol with this number in the IP header.
pub(super) fn includes_protocol(transports: Transports, protocol: u8) -> bool {
    transports.numbers().any(|number| number == protocol)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::super::model::{ICMP, Layer4};
    use super::*;

    fn net() -> impl Strategy<Value = Ipv4Net> {
        let nets =
            ["0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/16", "10.0.0.4/32", "10.0.0.5/32", "10.128.0.0/9", "203.0.113.0/24"];
        select(nets.map(|net| net.parse::<Ipv4Net>().unwrap()).to_vec())
    }

    fn address() -> impl Strategy<Value = Ipv4Addr> {
        let known =
            ["10.0.0.4", "10.0.0.5", "10.0.7.7", "10.127.255.255", "10.128.0.0", "203.0.113.255", "203.0.114.0"];
        prop_oneof![select(known.map(|address| address.parse::<Ipv4Addr>().unwrap()).to_vec()), any::<Ipv4Addr>()]
    }

    fn ports() -> impl Strategy<Value = Ports> {
        (1_u16..9, 0_u16..3).prop_map(|(first, more)| Ports { first, last: first + more })
    }

    fn acl() -> impl Strategy<Value = Acl> {
        let gre = serde_json::from_str("{\"other\":47}").unwrap();
        let protocol = select(vec![Protocol::Any, Protocol::Tcp, Protocol::Udp, Protocol::Icmp, Protocol::Sctp, gre]);
        let nets = || prop::collection::vec(net(), 0..3);
        (nets(), nets(), protocol, prop::collection::vec(ports(), 0..3)).prop_map(|(from, to, protocol, ports)| Acl {
            from,
            to,
            protocol,
            ports,
        })
    }

    fn flow() -> impl Strategy<Value = Tuple> {
        let layer4 = prop_oneof![
            (any::<u16>(), 0_u16..12).prop_map(|(source, destination)| Layer4::Ports { source, destination }),
            Just(Layer4::Icmp { id: 1, kind: 8, code: 0 }),
        ];
        (address(), address(), select(vec![ICMP, TCP, UDP, SCTP, 47]), layer4).prop_map(
            |(source, destination, protocol, layer4)| Tuple { source, destination, protocol, layer4, zone: None },
        )
    }

    /// Whether a line matches, by comparing with each of them.
    fn matches_by_walking(list: &[Acl], flow: &Tuple) -> bool {
        let among = |nets: &[Ipv4Net], address| nets.is_empty() || nets.iter().any(|net| net.contains(&address));
        let protocol = |acl: &Acl| match acl.protocol {
            Protocol::Any => acl.ports.is_empty() || [6, 17, 132].contains(&flow.protocol),
            Protocol::Tcp => flow.protocol == 6,
            Protocol::Udp => flow.protocol == 17,
            Protocol::Icmp => flow.protocol == 1,
            Protocol::Sctp => flow.protocol == 132,
            Protocol::Other(protocol) => flow.protocol == protocol.number(),
        };
        let port = |acl: &Acl| match flow.layer4 {
            Layer4::Ports { destination, .. } => {
                acl.ports.is_empty() || acl.ports.iter().any(|ports| (ports.first..=ports.last).contains(&destination))
            }
            _ => acl.ports.is_empty(),
        };
        list.iter()
            .any(|acl| among(&acl.from, flow.source) && among(&acl.to, flow.destination) && protocol(acl) && port(acl))
    }

    proptest! {
        #[test]
        fn a_lookup_in_a_list_finds_what_a_walk_over_its_lines_finds(
            list in prop::collection::vec(acl(), 0..6), flow in flow(),
        ) {
            prop_assert_eq!(AccessList::new(&list).matches(&flow), matches_by_walking(&list, &flow));
        }

        #[test]
        fn an_address_set_contains_what_one_of_its_ranges_contains(
            nets in prop::collection::vec(net(), 0..5), address in address(),
        ) {
            let expected = nets.iter().any(|net| net.contains(&address));
            prop_assert_eq!(AddressSet::from_ranges(&nets).contains(address), expected);
        }
    }
}
