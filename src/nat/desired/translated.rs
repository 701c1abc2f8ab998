//! Which translated flows pass: those that our own maps have translated.
//!
//! Other programs translate flows too, and `ct status dnat` does not say who did it. So the destination of before the
//! translation and that of after it are looked up together: a flow passes as one of a forward or of a static address
//! only if that is what leads it there. A mark would be cheaper to check, but other programs overwrite marks.
//!
//! nft 1.0.6 has five fields to a key at most. So single ports for some sources are looked up twice: the translation,
//! and the source.

use std::collections::BTreeSet;

use super::super::disjoint::Range;
use super::super::element::{Element, FieldValue};
use super::super::model::{Chain, Rule, Set, fields};
use super::super::statement::{
    RuleStatement, Value, accept, concat, counter, eq, field, goto, l4proto, original_destination, original_port, set,
};
use super::Scope;
use super::admission::admit_any;
use super::egress_address::usable_statics;
use super::feature::{Feature, Section};
use super::published::{
    PUBLISHED_FLOWS, forwards_at, is_one_of, open_statics, publishes, sources_of, translates_ports,
};
use crate::config::{Config, IpProtocol, Ports, StaticNat};

/// Single ports for everyone: public address, protocol and port, private address and port.
const TRANSLATED: &str = "translated";
/// Single ports for some sources, likewise.
const TRANSLATED_FROM: &str = "translated_from";
/// Their sources, and port ranges: port, public address, source, protocol, private address.
const TRANSLATED_SOURCES: &str = "translated_sources";
/// Protocols without ports: public address, source, protocol, private address.
const TRANSLATED_PROTOCOLS: &str = "translated_protocols";
/// The chain in which published flows pass.
pub(super) const LET_THROUGH: &str = "published_let_through";
/// Static addresses: public, private.
const STATIC_PAIRS: &str = "static_pairs";

/// The chain `translated`, to which translated flows go, and what it looks up.
pub(super) fn feature(scope: Scope<'_>) -> Feature {
    let Scope { config, site, .. } = scope;
    if !publishes(config) {
        return Feature::default();
    }
    let mut ports = TranslatedPorts::default();
    for (forward, addresses) in forwards_at(config, site) {
        let Ports { first, last } = forward.ports;
        let is_single = forward.ports.is_single();
        for address in addresses.into_iter().map(FieldValue::address) {
            let host = || FieldValue::address(forward.to);
            let from = sources_of(forward);
            let from = || from.iter().map(|source| FieldValue::addresses(Range::from_network(*source)));
            if let Some(protocol) = forward.transports.without_ports() {
                let number = || FieldValue::protocol(protocol.number());
                let key = |source: FieldValue| Element::new([address.clone(), source, number(), host()]);
                ports.without_ports.extend(from().map(key));
                ports.protocols.insert(protocol);
            }
            for transport in forward.transports.each().iter().map(|transport| transport.number()) {
                let transport = FieldValue::protocol(transport);
                if is_single {
                    let port = FieldValue::port(forward.to_port.unwrap_or(first));
                    let key = [address.clone(), transport.clone(), FieldValue::port(first), host(), port];
                    let list = if forward.from.is_empty() { &mut ports.open } else { &mut ports.restricted };
                    list.push(Element::new(key));
                }
                if is_single && forward.from.is_empty() {
                    continue;
                }
                for source in from() {
                    let port = FieldValue::Ports(first, last);
                    ports.sources.push(Element::new([port, address.clone(), source, transport.clone(), host()]));
                }
                ports.has_ranges |= !is_single;
            }
        }
    }
    let statics: Vec<&StaticNat> = usable_statics(config, site).collect();
    let mut rules = ports.rules(config);
    rules.extend(static_rules(&statics));
    let mut sets = ports.into_sets();
    if !statics.is_empty() {
        let pair =
            |entry: &&StaticNat| Element::new([FieldValue::address(entry.public), FieldValue::address(entry.private)]);
        sets.push(Set::exact(STATIC_PAIRS, [fields::V4, fields::V4], statics.iter().map(pair).collect()));
    }
    let chains = [let_through_chain(scope), Chain::regular("translated", rules)];
    Feature { sets, chains: chains.map(|chain| (Section::Translated, chain)).into(), ..Feature::default() }
}

/// What the forwards translate.
#[derive(Default)]
struct TranslatedPorts {
    open: Vec<Element>,
    restricted: Vec<Element>,
    sources: Vec<Element>,
    has_ranges: bool,
    without_ports: Vec<Element>,
    protocols: BTreeSet<IpProtocol>,
}

impl TranslatedPorts {
    fn rules(&self, config: &Config) -> Vec<Rule> {
        let translation =
            || concat([original_destination(), l4proto(), original_port(), field("ip", "daddr"), field("th", "dport")]);
        let source = |port: Value| {
            let key = [port, original_destination(), field("ip", "saddr"), l4proto(), field("ip", "daddr")];
            eq(concat(key), set(TRANSLATED_SOURCES))
        };
        let mut rules = Vec::new();
        if !self.open.is_empty() {
            rules.push(passing(vec![translates_ports(config), eq(translation(), set(TRANSLATED))]));
        }
        if !self.restricted.is_empty() {
            let key = eq(translation(), set(TRANSLATED_FROM));
            rules.push(passing(vec![translates_ports(config), key, source(original_port())]));
        }
        if self.has_ranges {
            // The port of before and that of after are both in the range.
            let both = [source(original_port()), source(field("th", "dport"))];
            rules.push(passing([vec![translates_ports(config)], both.into()].concat()));
        }
        if !self.without_ports.is_empty() {
            let key = [original_destination(), field("ip", "saddr"), l4proto(), field("ip", "daddr")];
            rules.push(passing(vec![is_one_of(&self.protocols), eq(concat(key), set(TRANSLATED_PROTOCOLS))]));
        }
        rules
    }

    fn into_sets(self) -> Vec<Set> {
        use fields::{PORT, PROTOCOL, V4};
        let translation = [V4, PROTOCOL, PORT, V4, PORT];
        let sets = [
            Set::exact(TRANSLATED, translation, self.open),
            Set::exact(TRANSLATED_FROM, translation, self.restricted),
            Set::ranges(TRANSLATED_SOURCES, [PORT, V4, V4, PROTOCOL, V4], self.sources),
            Set::ranges(TRANSLATED_PROTOCOLS, [V4, V4, PROTOCOL, V4], self.without_ports),
        ];
        sets.into_iter().filter(|set| !set.elements.is_empty()).collect()
    }
}

/// Flows to a host by its static address, where that is open.
fn static_rules(statics: &[&StaticNat]) -> Vec<Rule> {
    let pair = || eq(concat([original_destination(), field("ip", "daddr")]), set(STATIC_PAIRS));
    let rules = open_statics(statics).rules_at(&original_destination(), || passing(Vec::new()));
    rules.into_iter().map(|rule| [vec![pair()], rule].concat()).collect()
}

/// What these statements match passes, if its source has not too many flows.
fn passing(mut matches: Vec<RuleStatement>) -> Rule {
    matches.push(goto(LET_THROUGH));
    matches
}

/// The chain in which published flows pass.
pub(super) fn let_through_chain(scope: Scope<'_>) -> Chain {
    let rules = admit_any(scope).into_iter().chain([vec![counter(PUBLISHED_FLOWS), accept()]]);
    Chain::regular(LET_THROUGH, rules.collect())
}
