//! Services of the bastion itself, which `firewall.service` opens.

use std::collections::BTreeMap;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::super::disjoint::{Range, for_each_slab};
use super::super::element::{Element, FieldValue, ranges_by_family};
use super::super::model::{Chain, Meter, Set, fields};
use super::super::statement::{accept, concat, eq, field, goto, l4proto, set};
use super::admission::admit_outside;
use super::feature::{Feature, Section, Slot};
use super::{LimitedSource, Scope, drop_excess_syns, limited_sources};
use crate::config::{Config, IpProtocol, Ports, Service, Transport};

/// What the names of the sets of protocols without ports begin with.
const WITHOUT_PORTS: &str = "services_without_ports";

/// What is open for its sources, and a limit of new connections from each source.
pub(super) fn feature(scope: Scope<'_>) -> Feature {
    let config = scope.config;
    let limit = config.firewall.syns_per_second;
    let meters = ["syns4", "syns6"].map(|name| Meter { name, limit }).into();
    if config.firewall.services.is_empty() {
        return Feature { meters, ..Feature::default() };
    }
    let rule = |LimitedSource { protocol, ending, .. }| {
        let key = concat([field("th", "dport"), field(protocol, "saddr"), l4proto()]);
        (Slot::InputServices, vec![eq(key, set(format!("services{ending}"))), goto("service")])
    };
    let rule_without_ports = |LimitedSource { protocol, ending, .. }| {
        let key = concat([field(protocol, "saddr"), l4proto()]);
        (Slot::InputServices, vec![eq(key, set(format!("{WITHOUT_PORTS}{ending}"))), goto("service")])
    };
    let (mut sets, mut rules) = (Vec::new(), Vec::new());
    if config.firewall.services.iter().any(|service| service.transports.without_ports().is_none()) {
        sets.extend(port_sets(config));
        rules.extend(limited_sources().map(rule));
    }
    if config.firewall.services.iter().any(|service| service.transports.without_ports().is_some()) {
        sets.extend(protocol_sets(config));
        rules.extend(limited_sources().map(rule_without_ports));
    }
    Feature { meters, sets, chains: vec![(Section::Input, chain(scope))], rules, ..Feature::default() }
}

/// A new flow to a service.
fn chain(scope: Scope<'_>) -> Chain {
    let mut rules = Vec::new();
    if let Some(rate) = scope.config.firewall.syns_per_second {
        let rule = |LimitedSource { ending, key, .. }| drop_excess_syns(rate, &format!("syns{ending}"), &key);
        rules.extend(limited_sources().map(rule));
    }
    rules.extend(admit_outside(scope));
    rules.push(vec![accept()]);
    Chain::regular("service", rules)
}

fn port_sets(config: &Config) -> [Set; 2] {
    use fields::{PORT, PROTOCOL, V4, V6};
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for transport in Transport::ALL {
        for (ports, sources) in open_ports(config, transport) {
            let (from4, from6) = ranges_by_family(&sources);
            let entry = |source: Element| {
                let key = [FieldValue::ports(ports)]
                    .into_iter()
                    .chain(source.key)
                    .chain([FieldValue::protocol(transport.number())]);
                Element { key: key.collect(), data: Vec::new() }
            };
            v4.extend(from4.into_iter().map(entry));
            v6.extend(from6.into_iter().map(entry));
        }
    }
    [Set::ranges("services4", [PORT, V4, PROTOCOL], v4), Set::ranges("services6", [PORT, V6, PROTOCOL], v6)]
}

/// Protocols without ports, each with all who may use it.
fn protocol_sets(config: &Config) -> [Set; 2] {
    use fields::{PROTOCOL, V4, V6};
    let mut open: BTreeMap<IpProtocol, Vec<IpNet>> = BTreeMap::new();
    for service in &config.firewall.services {
        let Some(protocol) = service.transports.without_ports() else { continue };
        open.entry(protocol).or_default().extend(sources_of(service));
    }
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for (protocol, sources) in open {
        let (from4, from6) = ranges_by_family(&sources);
        let entry = |source: Element| {
            let key = source.key.into_iter().chain([FieldValue::protocol(protocol.number())]);
            Element { key: key.collect(), data: Vec::new() }
        };
        v4.extend(from4.into_iter().map(entry));
        v6.extend(from6.into_iter().map(entry));
    }
    let named = |ending: &str| format!("{WITHOUT_PORTS}{ending}");
    [Set::ranges(named("4"), [V4, PROTOCOL], v4), Set::ranges(named("6"), [V6, PROTOCOL], v6)]
}

fn sources_of(service: &Service) -> Vec<IpNet> {
    if service.from.is_empty() {
        return vec![Ipv4Net::default().into(), Ipv6Net::default().into()];
    }
    service.from.clone()
}

/// Ports without overlaps, each range with all who may use it: services may share ports, an interval set's elements may
/// not.
fn open_ports(config: &Config, transport: Transport) -> Vec<(Ports, Vec<IpNet>)> {
    let mut wanted: Vec<(Range, Vec<IpNet>)> = Vec::new();
    for service in config.firewall.services.iter().filter(|service| service.transports.each().contains(&transport)) {
        wanted.extend(service.ports.iter().map(|ports| (Range::from_ports(*ports), sources_of(service))));
    }
    let mut open: Vec<(Range, Vec<IpNet>)> = Vec::new();
    for_each_slab(
        wanted,
        |(ports, _)| *ports,
        |slab, covering| {
            let sources = IpNet::aggregate(&covering.iter().flat_map(|(_, from)| from.iter().copied()).collect());
            match open.last_mut() {
                Some((before, same)) if before.is_followed_by(slab) && *same == sources => before.last = slab.last,
                _ => open.push((slab, sources)),
            }
        },
    );
    open.into_iter().map(|(range, sources)| (range.to_ports(), sources)).collect()
}
