//! Access lists as sets.

use ipnet::Ipv4Net;

use super::super::boxes::{Boxed, Span, disjoint};
use super::super::element::{Atom, Element};
use super::super::model::{Name, Set, fields};
use super::super::nft::{Phrase, Value, concat, field, is, l4proto, set};
use crate::config::{Acl, Protocol, Transport};

/// Destination, source, ports, protocol: the most selective first, as the kernel looks them up.
type Entry = Boxed<4>;

const ALL_PORTS: Span = Span { first: 0, last: 65535 };
const ALL_PROTOCOLS: Span = Span { first: 0, last: 255 };
/// ICMP's number in the IP header (IANA, "Assigned Internet Protocol Numbers").
const ICMP: u32 = 1;

/// A list as up to two sets: one with ports, and one for whole protocols, so that a list without ports costs no look-up for
/// them.
pub(super) struct List {
    name: Name,
    by_source: bool,
    with_ports: Vec<Element>,
    whole: Vec<Element>,
}

impl List {
    /// The list for destinations alone.
    pub(super) fn of_destinations(name: impl Into<Name>, lines: &[Acl]) -> Self {
        Self::new(name.into(), false, lines)
    }

    /// The list for destinations and sources.
    pub(super) fn of_pairs(name: impl Into<Name>, lines: &[Acl]) -> Self {
        Self::new(name.into(), true, lines)
    }

    fn new(name: Name, by_source: bool, lines: &[Acl]) -> Self {
        let (with_ports, whole): (Vec<&Acl>, Vec<&Acl>) = lines.iter().partition(|line| !line.ports.is_empty());
        let entries = |lines: Vec<&Acl>| disjoint(&lines.into_iter().flat_map(entries).collect::<Vec<_>>());
        let element = |entry: &Entry, ports: bool| {
            let [to, from, port, protocol] = *entry;
            let mut key = vec![Atom::addresses(to)];
            key.extend(by_source.then(|| Atom::addresses(from)));
            key.extend(ports.then(|| Atom::port_span(port)));
            key.push(Atom::protocol_span(protocol));
            Element { key, data: Vec::new() }
        };
        Self {
            name,
            by_source,
            with_ports: entries(with_ports).iter().map(|entry| element(entry, true)).collect(),
            whole: entries(whole).iter().map(|entry| element(entry, false)).collect(),
        }
    }

    /// The sets that have elements.
    pub(super) fn sets(self) -> impl Iterator<Item = Set> {
        use fields::{PORT, PROTOCOL, V4};
        let keys: [&'static [&'static str]; 2] = if self.by_source {
            [&[V4, V4, PORT, PROTOCOL], &[V4, V4, PROTOCOL]]
        } else {
            [&[V4, PORT, PROTOCOL], &[V4, PROTOCOL]]
        };
        let names = [format!("{}_ports", self.name), self.name.into_owned()];
        let sets = names.into_iter().zip(keys).zip([self.with_ports, self.whole]);
        sets.filter(|(_, elements)| !elements.is_empty())
            .map(|((name, key), elements)| Set::ranges(name, key, elements))
    }

    /// A rule for each of the sets: what is in it meets `verdict`.
    pub(super) fn rules(&self, verdict: impl Fn() -> Vec<Phrase>) -> Vec<Vec<Phrase>> {
        let address = |side| field("ip", side);
        let port = || field("th", "dport");
        let key = |ports: bool| -> Value {
            match (self.by_source, ports) {
                (true, true) => concat([address("daddr"), address("saddr"), port(), l4proto()]),
                (true, false) => concat([address("daddr"), address("saddr"), l4proto()]),
                (false, true) => concat([address("daddr"), port(), l4proto()]),
                (false, false) => concat([address("daddr"), l4proto()]),
            }
        };
        let mut rules = Vec::new();
        if !self.with_ports.is_empty() {
            rules.push((format!("{}_ports", self.name), key(true)));
        }
        if !self.whole.is_empty() {
            rules.push((self.name.to_string(), key(false)));
        }
        rules.into_iter().map(|(name, key)| [vec![is(key, set(name))], verdict()].concat()).collect()
    }
}

fn entries(line: &Acl) -> impl Iterator<Item = Entry> + '_ {
    let protocols: &[Span] = match line.protocol {
        Protocol::Any if line.ports.is_empty() => &[ALL_PROTOCOLS],
        // Ports mean those who have them.
        Protocol::Any => &[of(Transport::Tcp), of(Transport::Udp)],
        Protocol::Tcp => &[of(Transport::Tcp)],
        Protocol::Udp => &[of(Transport::Udp)],
        Protocol::Icmp => &[Span { first: ICMP, last: ICMP }],
    };
    let (to, from) = (addresses(&line.to), addresses(&line.from));
    let mut ports: Vec<Span> =
        line.ports.iter().map(|ports| Span { first: ports.first.into(), last: ports.last.into() }).collect();
    if ports.is_empty() {
        ports.push(ALL_PORTS);
    }
    let mut entries = Vec::with_capacity(to.len() * from.len() * ports.len() * protocols.len());
    for &to in &to {
        for &from in &from {
            for &ports in &ports {
                entries.extend(protocols.iter().map(|&protocol| [to, from, ports, protocol]));
            }
        }
    }
    entries.into_iter()
}

const fn of(transport: Transport) -> Span {
    match transport {
        Transport::Tcp => Span { first: 6, last: 6 },
        Transport::Udp => Span { first: 17, last: 17 },
    }
}

fn addresses(networks: &[Ipv4Net]) -> Vec<Span> {
    if networks.is_empty() { vec![Span::EVERYWHERE] } else { networks.iter().copied().map(Span::of).collect() }
}
