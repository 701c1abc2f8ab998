//! What a rule of another program matches, as far as it matters for packets between our links.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use ipnet::{Ipv4Net, Ipv4Subnets};
use serde_json::Value;

use super::super::paths::{ForwardPath, Packets};
use super::super::rule::{includes_interface, items, words};
use crate::net::{is_private, overlap};

/// The conditions of a rule, together with those of the rules that lead to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in super::super) struct Conditions {
    from: Names,
    to: Names,
    sources: Ranges,
    destinations: Ranges,
    /// `None`: any.
    states: Option<Vec<String>>,
    /// `None`: any.
    protocols: Option<Vec<String>>,
    /// Ports or the like, in an operator's words.
    ports: Option<String>,
    /// Whether there is another condition, which is not understood: it may match anything, or next to nothing.
    unknown: bool,
}

/// What a rule matches of one field of a packet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Matched<T> {
    /// `None`: any.
    only: Option<Vec<T>>,
    except: Vec<T>,
}

/// Interfaces that a rule names.
type Names = Matched<String>;
/// Addresses that a rule names.
type Ranges = Matched<Ipv4Net>;

/// How much of what our rules let pass on a path a rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum Extent {
    /// Single hosts, ports or destinations.
    Part,
    /// Everything, a whole protocol, or a whole subnet.
    Whole,
}

/// The addresses that packets have on one side of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Side {
    Internet,
    Inside(Vec<Ipv4Net>),
}

/// What is compared with the conditions.
pub(super) struct Passing<'a> {
    pub(super) path: &'a ForwardPath,
    pub(super) source: Side,
    pub(super) destination: Side,
    /// Whether the rule sees the interface by which packets leave.
    pub(super) knows_exit: bool,
}

impl Conditions {
    /// Adds one of nft's `match` statements.
    pub(super) fn add_match(&mut self, body: &Value) {
        let (left, right) = (&body["left"], &body["right"]);
        let negated = match body["op"].as_str() {
            Some("==" | "in") => false,
            Some("!=") => true,
            _ => return self.add_unknown(),
        };
        let meta = left["meta"]["key"].as_str();
        let payload = (left["payload"]["protocol"].as_str(), left["payload"]["field"].as_str());
        let understood = match (meta, payload, left["ct"]["key"].as_str()) {
            (Some("iifname" | "iif"), ..) => self.from.add(words(right), negated),
            (Some("oifname" | "oif"), ..) => self.to.add(words(right), negated),
            (_, (Some("ip"), Some("saddr")), _) => self.sources.add(ranges(right), negated),
            (_, (Some("ip"), Some("daddr")), _) => self.destinations.add(ranges(right), negated),
            (Some("l4proto"), ..) | (_, (Some("ip"), Some("protocol")), _) if !negated => {
                self.add_protocols(words(right))
            }
            (Some("nfproto"), ..) => (right == "ipv4") != negated,
            (Some("protocol"), ..) => (right == "ip") != negated,
            (.., Some("state")) if !negated && self.states.is_none() => {
                self.states = words(right);
                self.states.is_some()
            }
            (.., Some("direction")) if self.states.is_none() => {
                let is_original = (right == "original") != negated;
                self.states = Some(vec![if is_original { "new" } else { "established" }.to_owned()]);
                true
            }
            _ if is_syn(left, right) && !negated && self.states.is_none() => {
                self.states = Some(vec!["new".to_owned()]);
                self.add_protocols(Some(vec!["tcp".to_owned()]))
            }
            (_, (Some(protocol @ ("tcp" | "udp" | "th")), Some("dport" | "sport")), _) => {
                let known = protocol == "th" || self.add_protocols(Some(vec![protocol.to_owned()]));
                self.add_ports(&plain(right));
                known
            }
            (_, (Some("icmp"), Some("type")), _) => {
                self.add_ports(&plain(right));
                self.add_protocols(Some(vec!["icmp".to_owned()]))
            }
            _ => false,
        };
        self.unknown |= !understood;
    }

    pub(super) fn add_unknown(&mut self) {
        self.unknown = true;
    }

    pub(super) fn add_from(&mut self, name: String, negated: bool) {
        self.unknown |= !self.from.add(Some(vec![name]), negated);
    }

    pub(super) fn add_to(&mut self, name: String, negated: bool) {
        self.unknown |= !self.to.add(Some(vec![name]), negated);
    }

    /// Sources, or destinations: an address, a network, or a range with a dash.
    pub(super) fn add_addresses(&mut self, are_sources: bool, text: &str, negated: bool) {
        let side = if are_sources { &mut self.sources } else { &mut self.destinations };
        let ranges = match text.split_once('-') {
            Some((first, last)) => first
                .parse()
                .ok()
                .zip(last.parse().ok())
                .map(|(first, last)| Ipv4Subnets::new(first, last, 0).collect()),
            None => text.parse().ok().or_else(|| text.parse().ok().map(Ipv4Addr::into)).map(|range| vec![range]),
        };
        self.unknown |= !side.add(ranges, negated);
    }

    pub(super) fn add_states(&mut self, states: &str, negated: bool) {
        let states = states.split(',').map(str::to_ascii_lowercase).collect();
        self.unknown |= negated || self.states.replace(states).is_some();
    }

    /// Returns whether it is understood.
    pub(super) fn add_protocols(&mut self, protocols: Option<Vec<String>>) -> bool {
        match (&self.protocols, protocols) {
            (None, Some(protocols)) => self.protocols = Some(protocols),
            (Some(known), Some(protocols)) => return protocols.iter().all(|protocol| known.contains(protocol)),
            (_, None) => return false,
        }
        true
    }

    pub(super) fn add_ports(&mut self, ports: &str) {
        self.ports = Some(match self.ports.take() {
            Some(known) => format!("{known}, {ports}"),
            None => ports.to_owned(),
        });
    }

    /// These conditions and those of a rule that is reached by them.
    pub(super) fn and(&self, other: &Self) -> Self {
        let mut both = self.clone();
        both.unknown |= other.unknown
            || !both.from.and(&other.from)
            || !both.to.and(&other.to)
            || !both.sources.and(&other.sources)
            || !both.destinations.and(&other.destinations)
            || both.states.is_some() && other.states.is_some();
        both.states = both.states.or_else(|| other.states.clone());
        let protocols = other.protocols.clone();
        both.unknown |= protocols.is_some() && !both.add_protocols(protocols);
        if let Some(ports) = &other.ports {
            both.add_ports(ports);
        }
        both
    }

    /// How much of a path they match; `None`: nothing that is known.
    pub(super) fn extent(&self, passing: &Passing<'_>) -> Option<Extent> {
        let path = passing.path;
        let names_exit = self.to != Names::default();
        if self.unknown || !self.from.include(path.from.as_str()) || names_exit && !passing.knows_exit {
            return None;
        }
        let state = if path.packets == Packets::Answers { "established" } else { "new" };
        let in_state = self.states.as_ref().is_none_or(|states| states.iter().any(|known| known == state));
        if !in_state || names_exit && !self.to.include(path.to.as_str()) {
            return None;
        }
        let addresses = self.sources.extent(&passing.source)?.min(self.destinations.extent(&passing.destination)?);
        let is_usual = |protocol: &String| matches!(protocol.as_str(), "tcp" | "udp" | "icmp" | "all");
        let protocols = self.protocols.as_ref().is_none_or(|protocols| protocols.iter().any(is_usual));
        Some(if protocols && self.ports.is_none() { addresses } else { Extent::Part })
    }

    /// Whether they hold for every packet of a path, as far as they say so by interfaces alone.
    pub(super) fn include_path(&self, path: &ForwardPath) -> bool {
        let Self { from, to, sources, destinations, states, protocols, ports, unknown } = self;
        let is_about_interfaces = *sources == Ranges::default()
            && *destinations == Ranges::default()
            && (states, protocols, ports) == (&None, &None, &None)
            && !unknown;
        is_about_interfaces && from.include(path.from.as_str()) && to.include(path.to.as_str())
    }

    /// The matched packets in an operator's words: `TCP packets of 10.0.0.0/24`
    pub(super) fn text(&self) -> String {
        let mut text = match &self.protocols {
            Some(protocols) => format!("{} packets", protocols.join(" and ").to_uppercase()),
            None => "packets".to_owned(),
        };
        for (word, ranges) in [("of", &self.sources), ("to", &self.destinations)] {
            if let Some(only) = &ranges.only {
                let only: Vec<String> = only.iter().map(ToString::to_string).collect();
                let _ = write!(text, " {word} {}", only.join(", "));
            }
        }
        if let Some(ports) = &self.ports {
            let _ = write!(text, " ({ports})");
        }
        text
    }
}

impl<T: Clone + PartialEq> Matched<T> {
    /// Adds what one condition names; whether it is understood.
    fn add(&mut self, named: Option<Vec<T>>, negated: bool) -> bool {
        match named {
            Some(named) if negated => self.except.extend(named),
            Some(named) if self.only.is_none() => self.only = Some(named),
            _ => return false,
        }
        true
    }

    /// Adds what another rule matches; whether both together are understood.
    fn and(&mut self, other: &Self) -> bool {
        self.except.extend(other.except.iter().cloned());
        other.only.is_none() || self.only == other.only || self.add(other.only.clone(), false)
    }
}

impl Names {
    fn include(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| includes_interface(only, name)) && !includes_interface(&self.except, name)
    }
}

impl Ranges {
    fn extent(&self, side: &Side) -> Option<Extent> {
        let is_host = |range: &Ipv4Net| range.prefix_len() == 32;
        match (side, &self.only) {
            (Side::Internet, None) => Some(Extent::Whole),
            (Side::Internet, Some(only)) => {
                let on_internet = only.iter().filter(|range| !is_private(**range));
                on_internet.map(|range| if range.prefix_len() <= 1 { Extent::Whole } else { Extent::Part }).max()
            }
            (Side::Inside(inside), only) => {
                let excepted = |range: &Ipv4Net| self.except.iter().any(|except| except.contains(range));
                let hit = inside.iter().filter(|range| !excepted(range)).filter_map(|range| match only {
                    None => Some(Extent::Whole),
                    Some(only) => {
                        let hit = only.iter().filter(|other| overlap(**other, *range));
                        hit.map(|other| if is_host(other) { Extent::Part } else { Extent::Whole }).max()
                    }
                });
                hit.max()
            }
        }
    }
}

/// Whether a match is for packets that open TCP flows: `tcp flags syn`, with or without a mask.
fn is_syn(left: &Value, right: &Value) -> bool {
    let field = if left["&"].is_array() { &left["&"][0] } else { left };
    field["payload"]["protocol"] == "tcp" && field["payload"]["field"] == "flags" && right == "syn"
}

/// Single addresses, prefixes and ranges.
fn ranges(right: &Value) -> Option<Vec<Ipv4Net>> {
    let mut all = Vec::new();
    for item in items(right) {
        let address = |value: &Value| value.as_str()?.parse().ok();
        if let Some(prefix) = item.get("prefix") {
            let length = u8::try_from(prefix["len"].as_u64()?).ok()?;
            all.push(Ipv4Net::new(address(&prefix["addr"])?, length).ok()?);
        } else if let Some(range) = item.get("range") {
            all.extend(Ipv4Subnets::new(address(&range[0])?, address(&range[1])?, 0));
        } else {
            all.push(address(item)?.into());
        }
    }
    Some(all)
}

/// `443`, `80, 443`, `1-1023`
fn plain(right: &Value) -> String {
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let text = |value: &Value| match value.get("range") {
        Some(range) => format!("{}-{}", word(&range[0]), word(&range[1])),
        None => word(value),
    };
    items(right).iter().map(text).collect::<Vec<_>>().join(", ")
}
