//! Services of the bastion itself, which `firewall.service` opens.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::super::disjoint::{Range, for_each_slab};
use super::super::element::{Element, FieldValue, ranges_by_family};
use super::super::model::{Chain, Meter, Set, fields};
use super::super::statement::{accept, concat, eq, field, goto, l4proto, set};
use super::feature::{Feature, Section, Slot};
use super::{LimitedSource, drop_excess_syns, limited_sources};
use crate::config::{Config, Ports, Transport};

/// Ports that are open for their sources, and a limit of new connections from each source.
pub(super) fn feature(config: &Config) -> Feature {
    let limit = config.firewall.syns_per_second;
    let meters = ["syns4", "syns6"].map(|name| Meter { name, limit }).into();
    if config.firewall.services.is_empty() {
        return Feature { meters, ..Feature::default() };
    }
    let rule = |LimitedSource { protocol, ending, .. }| {
        let key = concat([field("th", "dport"), field(protocol, "saddr"), l4proto()]);
        (Slot::InputServices, vec![eq(key, set(format!("services{ending}"))), goto("service")])
    };
    Feature {
        meters,
        sets: sets(config).into(),
        chains: vec![(Section::Input, chain(limit))],
        rules: limited_sources().map(rule).into(),
        ..Feature::default()
    }
}

/// A new flow to a service.
fn chain(syns_per_second: Option<u32>) -> Chain {
    let mut rules = Vec::new();
    if let Some(rate) = syns_per_second {
        let rule = |LimitedSource { ending, key, .. }| drop_excess_syns(rate, &format!("syns{ending}"), &key);
        rules.extend(limited_sources().map(rule));
    }
    rules.push(vec![accept()]);
    Chain::regular("service", rules)
}

fn sets(config: &Config) -> [Set; 2] {
    use fields::{PORT, PROTOCOL, V4, V6};
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for transport in [Transport::Tcp, Transport::Udp] {
        for (ports, sources) in open_ports(config, transport) {
            let (from4, from6) = ranges_by_family(&sources);
            let entry = |source: Element| {
                let key =
                    [FieldValue::ports(ports)].into_iter().chain(source.key).chain([FieldValue::transport(transport)]);
                Element { key: key.collect(), data: Vec::new() }
            };
            v4.extend(from4.into_iter().map(entry));
            v6.extend(from6.into_iter().map(entry));
        }
    }
    [Set::ranges("services4", [PORT, V4, PROTOCOL], v4), Set::ranges("services6", [PORT, V6, PROTOCOL], v6)]
}

/// Ports without overlaps, each range with all who may use it: services may share ports, an interval set's elements may
/// not.
fn open_ports(config: &Config, transport: Transport) -> Vec<(Ports, Vec<IpNet>)> {
    let everyone: [IpNet; 2] = [Ipv4Net::default().into(), Ipv6Net::default().into()];
    let mut wanted: Vec<(Range, &[IpNet])> = Vec::new();
    for service in config.firewall.services.iter().filter(|service| service.transports.each().contains(&transport)) {
        let from = if service.from.is_empty() { &everyone[..] } else { &service.from };
        wanted.extend(service.ports.iter().map(|ports| (Range::from_ports(*ports), from)));
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
