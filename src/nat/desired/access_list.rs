//! Access lists as sets and rules.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;

use super::super::disjoint::{HyperRect, Range, disjoint};
use super::super::element::{Element, FieldValue};
use super::super::model::{Name, Rule, Set, fields};
use super::super::statement::{Value, concat, eq, field, l4proto, set};
use crate::config::{Acl, Protocol, Transport};

/// Destination, source, ports, protocol: the most selective first, as the kernel looks them up.
type Entry = HyperRect<4>;

/// A list, with a set for each shape that its lines have. A list of ten thousand single hosts becomes a hash, which is
/// filled in a seventh of the time that ranges take, and lines without ports cost no look-up of ports.
pub(super) struct AccessList {
    parts: Vec<Part>,
}

/// One of a list's sets. Without fields it is no set: its lines are for everything.
struct Part {
    name: Name,
    fields: &'static [Field],
    /// Whether all elements are single values.
    exact: bool,
    elements: Vec<Element>,
    /// The name of the set of its hosts, if destinations are looked up there first.
    hosts: Option<Name>,
}

impl Part {
    /// The set of its hosts, if any, and its own.
    fn into_sets(self) -> impl Iterator<Item = Set> {
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
    /// nft's name of what it holds.
    fn kind(self) -> &'static str {
        match self {
            Self::To | Self::From => fields::V4,
            Self::Ports => fields::PORT,
            Self::Protocol => fields::PROTOCOL,
        }
    }

    /// Where a packet has it; `to` and `from`: where it has those.
    fn expression(self, to: &Value, from: &Value) -> Value {
        match self {
            Self::To => to.clone(),
            Self::From => from.clone(),
            Self::Ports => field("th", "dport"),
            Self::Protocol => l4proto(),
        }
    }

    /// The field's part of an entry.
    fn range_of(self, [to, from, ports, protocol]: &Entry) -> Range {
        *match self {
            Self::To => to,
            Self::From => from,
            Self::Ports => ports,
            Self::Protocol => protocol,
        }
    }

    fn value_in(self, entry: &Entry) -> FieldValue {
        let range = self.range_of(entry);
        match self {
            Self::To | Self::From => FieldValue::addresses(range),
            Self::Ports => FieldValue::port_range(range),
            Self::Protocol => FieldValue::protocol_range(range),
        }
    }
}

/// The fields of lines with addresses only, with a protocol, and with ports.
type Shapes = [&'static [Field]; 3];
const DESTINATIONS: Shapes = [&[Field::To], &[Field::To, Field::Protocol], &[Field::To, Field::Ports, Field::Protocol]];
/// Lines for every destination have sets of their own: in one set with five thousand hosts, each host would cut each of
/// them.
const EVERYWHERE: Shapes = [&[], &[Field::Protocol], &[Field::Ports, Field::Protocol]];
const PAIRS: Shapes = [
    &[Field::To, Field::From],
    &[Field::To, Field::From, Field::Protocol],
    &[Field::To, Field::From, Field::Ports, Field::Protocol],
];

impl AccessList {
    /// A list of destinations that matches few flows. Before the ports and protocols of single hosts, the host alone is
    /// looked up: that costs half as much as the whole key, and a flow to one of the hosts pays for both (measured).
    pub(super) fn of_few_destinations(name: &str, lines: &[Acl]) -> Self {
        let mut list = Self::of_destinations(name, lines);
        for part in list.parts.iter_mut().filter(|part| part.exact && matches!(part.fields, [Field::To, _, ..])) {
            part.hosts = Some(format!("{}_hosts", part.name).into());
        }
        list
    }

    /// A list of destinations.
    pub(super) fn of_destinations(name: &str, lines: &[Acl]) -> Self {
        let (everywhere, some): (Vec<&Acl>, Vec<&Acl>) = lines.iter().partition(|line| is_everywhere(line));
        let mut parts = Self::parts_of(name, "_everywhere", EVERYWHERE, &everywhere);
        parts.extend(Self::parts_of(name, "", DESTINATIONS, &some));
        Self { parts }
    }

    /// A list of destinations and sources.
    pub(super) fn of_pairs(name: &str, lines: &[Acl]) -> Self {
        Self { parts: Self::parts_of(name, "", PAIRS, &lines.iter().collect::<Vec<_>>()) }
    }

    fn parts_of(name: &str, which: &str, shapes: Shapes, lines: &[&Acl]) -> Vec<Part> {
        let mut parts = Vec::new();
        for ((shape, fields), ending) in shapes.into_iter().enumerate().zip(["", "_protocols", "_ports"]) {
            let lines = lines.iter().copied().filter(|line| shape_of(line) == shape);
            let entries = disjoint(&lines.flat_map(entries_of).collect::<Vec<_>>());
            let is_exact = |entry: &&Entry| fields.iter().all(|field| field.range_of(entry).is_single());
            let (exact, wide): (Vec<&Entry>, Vec<&Entry>) = entries.iter().partition(is_exact);
            for (entries, exact, ending) in [(exact, true, format!("{ending}_exact")), (wide, false, ending.to_owned())]
            {
                let element = |entry: &Entry| Element {
                    key: fields.iter().map(|field| field.value_in(entry)).collect(),
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

    pub(super) fn into_sets(self) -> impl Iterator<Item = Set> {
        self.parts.into_iter().filter(|part| !part.fields.is_empty()).flat_map(Part::into_sets)
    }

    /// A rule for each set: packets that it contains get `verdict`.
    pub(super) fn rules(&self, verdict: impl Fn() -> Rule) -> Vec<Rule> {
        self.rules_at(&field("ip", "daddr"), verdict)
    }

    /// The same, with the destination somewhere else.
    pub(super) fn rules_at(&self, to: &Value, verdict: impl Fn() -> Rule) -> Vec<Rule> {
        self.rules_between(to, &field("ip", "saddr"), verdict)
    }

    /// The same, with the source somewhere else too.
    pub(super) fn rules_between(&self, to: &Value, from: &Value, verdict: impl Fn() -> Rule) -> Vec<Rule> {
        let rule = |part: &Part| {
            if part.fields.is_empty() {
                return verdict();
            }
            let key = concat(part.fields.iter().map(|field| field.expression(to, from)));
            let host = part.hosts.clone().map(|hosts| eq(to.clone(), set(hosts)));
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
fn shape_of(line: &Acl) -> usize {
    match (line.ports.is_empty(), line.protocol) {
        (false, _) => 2,
        (true, Protocol::Any) => 0,
        (true, _) => 1,
    }
}

/// The rectangles that an entry covers.
fn entries_of(line: &Acl) -> impl Iterator<Item = Entry> + '_ {
    let protocols: Vec<Range> = match line.protocol.number() {
        Some(number) => vec![Range::single(number.into())],
        None if line.ports.is_empty() => vec![Range::ALL_PROTOCOLS],
        None => Transport::ALL.map(|transport| Range::single(transport.number().into())).into(),
    };
    let (to, from) = (addresses_of(&line.to), addresses_of(&line.from));
    let mut ports: Vec<Range> = line.ports.iter().copied().map(Range::from_ports).collect();
    if ports.is_empty() {
        ports.push(Range::ALL_PORTS);
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

/// Every address if no network is named.
fn addresses_of(networks: &[Ipv4Net]) -> Vec<Range> {
    if networks.is_empty() {
        return vec![Range::ALL_ADDRESSES];
    }
    networks.iter().copied().map(Range::from_network).collect()
}
