//! Access lists as sets.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;

use super::super::disjoint::{HyperRect, Range, disjoint};
use super::super::element::{Element, FieldValue};
use super::super::model::{Name, Set, fields};
use super::super::statement::{RuleStatement, Value, concat, eq, field, l4proto, set};
use crate::config::{Acl, Protocol, Transport};

/// Destination, source, ports, protocol: the most selective first, as the kernel looks them up.
type Entry = HyperRect<4>;

const ALL_PORTS: Range = Range { first: 0, last: 65535 };
const ALL_PROTOCOLS: Range = Range { first: 0, last: 255 };
/// ICMP's number in the IP header (IANA, "Assigned Internet Protocol Numbers").
const ICMP: u32 = 1;

/// A list, as a set for each shape that its lines have. Whoever writes ten thousand hosts gets a hash, which is filled in a
/// seventh of the time that ranges take; and what has no ports costs no look-up for them.
pub(super) struct List {
    parts: Vec<Part>,
}

/// One of a list's sets.
struct Part {
    name: Name,
    fields: &'static [Field],
    exact: bool,
    elements: Vec<Element>,
    /// The set of its hosts, if a flow's is looked for there first.
    hosts: Option<Name>,
}

impl Part {
    /// Its set, and the one of its hosts.
    fn sets(self) -> impl Iterator<Item = Set> {
        let hosts = self.hosts.map(|name| {
            let hosts: BTreeSet<&FieldValue> = self.elements.iter().map(|element| &element.key[0]).collect();
            let element = |host: &FieldValue| Element::new([host.clone()]);
            Set::exact(name, [Field::To.kind()], hosts.into_iter().map(element).collect())
        });
        let key: Vec<&'static str> = self.fields.iter().map(|field| field.kind()).collect();
        let make = if self.exact { Set::exact } else { Set::ranges };
        hosts.into_iter().chain([make(self.name, key, self.elements)])
    }
}

/// A field of a list's keys.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    To,
    From,
    Ports,
    Protocol,
}

impl Field {
    fn kind(self) -> &'static str {
        match self {
            Self::To | Self::From => fields::V4,
            Self::Ports => fields::PORT,
            Self::Protocol => fields::PROTOCOL,
        }
    }

    fn value(self) -> Value {
        match self {
            Self::To => field("ip", "daddr"),
            Self::From => field("ip", "saddr"),
            Self::Ports => field("th", "dport"),
            Self::Protocol => l4proto(),
        }
    }

    /// The field's part of an entry.
    fn span(self, [to, from, ports, protocol]: &Entry) -> Range {
        *match self {
            Self::To => to,
            Self::From => from,
            Self::Ports => ports,
            Self::Protocol => protocol,
        }
    }

    fn atom(self, entry: &Entry) -> FieldValue {
        let span = self.span(entry);
        match self {
            Self::To | Self::From => FieldValue::addresses(span),
            Self::Ports => FieldValue::port_range(span),
            Self::Protocol => FieldValue::protocol_range(span),
        }
    }
}

/// The fields of a list's lines: whole addresses, with a protocol, with ports.
type Shapes = [&'static [Field]; 3];
const OF_DESTINATIONS: Shapes =
    [&[Field::To], &[Field::To, Field::Protocol], &[Field::To, Field::Ports, Field::Protocol]];
/// Lines for every destination have sets of their own: in one with five thousand hosts, each host would cut each of them.
const EVERYWHERE: Shapes = [&[], &[Field::Protocol], &[Field::Ports, Field::Protocol]];
const OF_PAIRS: Shapes = [
    &[Field::To, Field::From],
    &[Field::To, Field::From, Field::Protocol],
    &[Field::To, Field::From, Field::Ports, Field::Protocol],
];

impl List {
    /// The list for destinations alone that nearly all flows are in no line of. Single hosts' ports and protocols are looked for by
    /// the host first: half the price of the whole key, which a flow to one of the hosts pays on top (measured).
    pub(super) fn of_few_destinations(name: &str, lines: &[Acl]) -> Self {
        let mut list = Self::of_destinations(name, lines);
        for part in list.parts.iter_mut().filter(|part| part.exact && matches!(part.fields, [Field::To, _, ..])) {
            part.hosts = Some(format!("{}_hosts", part.name).into());
        }
        list
    }

    /// The list for destinations alone.
    pub(super) fn of_destinations(name: &str, lines: &[Acl]) -> Self {
        let (everywhere, some): (Vec<&Acl>, Vec<&Acl>) = lines.iter().partition(|line| is_everywhere(line));
        let mut parts = Self::parts(name, "_everywhere", EVERYWHERE, &everywhere);
        parts.extend(Self::parts(name, "", OF_DESTINATIONS, &some));
        Self { parts }
    }

    /// The list for destinations and sources.
    pub(super) fn of_pairs(name: &str, lines: &[Acl]) -> Self {
        Self { parts: Self::parts(name, "", OF_PAIRS, &lines.iter().collect::<Vec<_>>()) }
    }

    fn parts(name: &str, which: &str, shapes: Shapes, lines: &[&Acl]) -> Vec<Part> {
        let mut parts = Vec::new();
        for ((shape, fields), ending) in shapes.into_iter().enumerate().zip(["", "_protocols", "_ports"]) {
            let lines = lines.iter().copied().filter(|line| self::shape(line) == shape);
            let entries = disjoint(&lines.flat_map(entries).collect::<Vec<_>>());
            let is_exact = |entry: &&Entry| fields.iter().all(|field| field.span(entry).is_single());
            let (exact, wide): (Vec<&Entry>, Vec<&Entry>) = entries.iter().partition(is_exact);
            for (entries, exact, ending) in [(exact, true, format!("{ending}_exact")), (wide, false, ending.to_owned())]
            {
                let element = |entry: &Entry| Element {
                    key: fields.iter().map(|field| field.atom(entry)).collect(),
                    data: Vec::new(),
                };
                let elements: Vec<Element> = entries.into_iter().map(element).collect();
                if !elements.is_empty() {
                    parts.push(Part {
                        name: format!("{name}{which}{ending}").into(),
                        fields,
                        exact,
                        elements,
                        hosts: None,
                    });
                }
            }
        }
        parts
    }

    /// The sets that have elements.
    pub(super) fn sets(self) -> impl Iterator<Item = Set> {
        self.parts.into_iter().filter(|part| !part.fields.is_empty()).flat_map(Part::sets)
    }

    /// A rule for each of the sets: what is in it meets `verdict`.
    pub(super) fn rules(&self, verdict: impl Fn() -> Vec<RuleStatement>) -> Vec<Vec<RuleStatement>> {
        let rule = |part: &Part| {
            if part.fields.is_empty() {
                return verdict();
            }
            let key = concat(part.fields.iter().map(|field| field.value()));
            let host = part.hosts.clone().map(|hosts| eq(Field::To.value(), set(hosts)));
            host.into_iter().chain([eq(key, set(part.name.clone()))]).chain(verdict()).collect()
        };
        self.parts.iter().map(rule).collect()
    }
}

/// Whether a line is for every destination.
fn is_everywhere(line: &Acl) -> bool {
    line.to.is_empty() || line.to.iter().any(|range| range.prefix_len() == 0)
}

/// Which of the [`Shapes`] a line has.
fn shape(line: &Acl) -> usize {
    match (line.ports.is_empty(), line.protocol) {
        (false, _) => 2,
        (true, Protocol::Any) => 0,
        (true, _) => 1,
    }
}

fn entries(line: &Acl) -> impl Iterator<Item = Entry> + '_ {
    let protocols: &[Range] = match line.protocol {
        Protocol::Any if line.ports.is_empty() => &[ALL_PROTOCOLS],
        // Ports mean those who have them.
        Protocol::Any => &[of(Transport::Tcp), of(Transport::Udp)],
        Protocol::Tcp => &[of(Transport::Tcp)],
        Protocol::Udp => &[of(Transport::Udp)],
        Protocol::Icmp => &[Range { first: ICMP, last: ICMP }],
    };
    let (to, from) = (addresses(&line.to), addresses(&line.from));
    let mut ports: Vec<Range> =
        line.ports.iter().map(|ports| Range { first: ports.first.into(), last: ports.last.into() }).collect();
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

const fn of(transport: Transport) -> Range {
    match transport {
        Transport::Tcp => Range { first: 6, last: 6 },
        Transport::Udp => Range { first: 17, last: 17 },
    }
}

fn addresses(networks: &[Ipv4Net]) -> Vec<Range> {
    if networks.is_empty() { vec![Range::EVERYWHERE] } else { networks.iter().copied().map(Range::of).collect() }
}
