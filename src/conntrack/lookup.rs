//! Access lists that are looked up, not walked: a hundred thousand flows may meet ten thousand lines.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use prefix_trie::PrefixMap;

use super::model::{ICMP, TCP, Tuple, UDP};
use crate::config::{Acl, Ports, Protocol, Transports};

/// Addresses, as ranges in order and without overlaps.
#[derive(Debug, Default)]
pub(super) struct Ranges(Vec<(Ipv4Addr, Ipv4Addr)>);

impl Ranges {
    pub(super) fn of(ranges: &[Ipv4Net]) -> Self {
        let aggregated = Ipv4Net::aggregate(&ranges.to_vec());
        let mut ranges: Vec<_> = aggregated.iter().map(|range| (range.network(), range.broadcast())).collect();
        ranges.sort_unstable();
        Self(ranges)
    }

    pub(super) fn contain(&self, address: Ipv4Addr) -> bool {
        let next = self.0.partition_point(|&(first, _)| first <= address);
        next.checked_sub(1).is_some_and(|before| address <= self.0[before].1)
    }
}

/// Lines of an access list, found by the destinations that they name.
#[derive(Debug, Default)]
pub(super) struct Lines {
    lines: Vec<Line>,
    by_destination: PrefixMap<Ipv4Net, Vec<usize>>,
}

#[derive(Debug)]
struct Line {
    /// `None`: any.
    from: Option<Ranges>,
    protocol: Protocol,
    /// Empty: any.
    ports: Vec<Ports>,
}

impl Lines {
    pub(super) fn of(list: &[Acl]) -> Self {
        let mut lines = Self::default();
        for (place, acl) in list.iter().enumerate() {
            lines.lines.push(Line {
                from: (!acl.from.is_empty()).then(|| Ranges::of(&acl.from)),
                protocol: acl.protocol,
                ports: acl.ports.clone(),
            });
            let everywhere = [Ipv4Net::default()];
            for to in if acl.to.is_empty() { &everywhere[..] } else { &acl.to } {
                lines.by_destination.entry(to.trunc()).or_default().push(place);
            }
        }
        lines
    }

    /// Whether a line has a flow with this first packet.
    pub(super) fn have(&self, flow: &Tuple) -> bool {
        let mut places = self.by_destination.cover_values(&Ipv4Net::from(flow.destination)).flatten();
        places.any(|&place| self.lines[place].has(flow))
    }
}

impl Line {
    fn has(&self, flow: &Tuple) -> bool {
        let right_protocol = match self.protocol {
            // Ports mean those who have them.
            Protocol::Any => self.ports.is_empty() || matches!(flow.protocol, TCP | UDP),
            Protocol::Tcp => flow.protocol == TCP,
            Protocol::Udp => flow.protocol == UDP,
            Protocol::Icmp => flow.protocol == ICMP,
        };
        let right_port =
            || self.ports.is_empty() || flow.destination_port().is_some_and(|port| are_in(&self.ports, port));
        right_protocol && right_port() && self.from.as_ref().is_none_or(|from| from.contain(flow.source))
    }
}

/// Whether a port is in one of these.
pub(super) fn are_in(ports: &[Ports], port: u16) -> bool {
    ports.iter().any(|ports| ports.overlaps(Ports::single(port)))
}

/// Whether a protocol is among the transports.
pub(super) fn is_of(transports: Transports, protocol: u8) -> bool {
    transports.each().iter().any(|transport| transport.number() == protocol)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::super::model::Ends;
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
        let protocol = select(vec![Protocol::Any, Protocol::Tcp, Protocol::Udp, Protocol::Icmp]);
        let nets = || prop::collection::vec(net(), 0..3);
        (nets(), nets(), protocol, prop::collection::vec(ports(), 0..3)).prop_map(|(from, to, protocol, ports)| Acl {
            from,
            to,
            protocol,
            ports,
        })
    }

    fn flow() -> impl Strategy<Value = Tuple> {
        let ends = prop_oneof![
            (any::<u16>(), 0_u16..12).prop_map(|(source, destination)| Ends::Ports { source, destination }),
            Just(Ends::Icmp { id: 1, kind: 8, code: 0 }),
        ];
        (address(), address(), select(vec![ICMP, TCP, UDP, 47]), ends)
            .prop_map(|(source, destination, protocol, ends)| Tuple { source, destination, protocol, ends, zone: None })
    }

    /// What a list means, read line by line.
    fn means(list: &[Acl], flow: &Tuple) -> bool {
        let among = |nets: &[Ipv4Net], address| nets.is_empty() || nets.iter().any(|net| net.contains(&address));
        let protocol = |acl: &Acl| match acl.protocol {
            Protocol::Any => acl.ports.is_empty() || [6, 17].contains(&flow.protocol),
            Protocol::Tcp => flow.protocol == 6,
            Protocol::Udp => flow.protocol == 17,
            Protocol::Icmp => flow.protocol == 1,
        };
        let port = |acl: &Acl| match flow.ends {
            Ends::Ports { destination, .. } => {
                acl.ports.is_empty() || acl.ports.iter().any(|ports| (ports.first..=ports.last).contains(&destination))
            }
            _ => acl.ports.is_empty(),
        };
        list.iter()
            .any(|acl| among(&acl.from, flow.source) && among(&acl.to, flow.destination) && protocol(acl) && port(acl))
    }

    proptest! {
        #[test]
        fn a_list_that_is_looked_up_means_what_it_says(list in prop::collection::vec(acl(), 0..6), flow in flow()) {
            prop_assert_eq!(Lines::of(&list).have(&flow), means(&list, &flow));
        }

        #[test]
        fn ranges_contain_what_one_of_them_contains(nets in prop::collection::vec(net(), 0..5), address in address()) {
            prop_assert_eq!(Ranges::of(&nets).contain(address), nets.iter().any(|net| net.contains(&address)));
        }
    }
}
