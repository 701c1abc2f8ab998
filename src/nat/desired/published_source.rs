//! Forwards whose hosts see this server's own address as the source (`snat` of a forward): hosts that cannot answer by
//! this server, because they have another default route or none.
//!
//! As in [`super::translated`], the destination of before the translation and that of after it are looked up together.
//! Whether the source may use the forward was decided where it was translated.

use std::collections::BTreeSet;

use super::super::element::{Element, FieldValue};
use super::super::model::{Rule, Set, fields};
use super::super::statement::{
    address_by_link, concat, eq, field, l4proto, original_destination, original_port, set, snat,
};
use super::Scope;
use super::feature::{Feature, Slot};
use super::published::{forwards_at, is_one_of, is_translated, translates_ports};
use crate::config::IpProtocol;
use crate::site::PrivateLink;

/// Public port, public address, private address, protocol.
const PORTS: &str = "snat_ports";
/// Protocols without ports: public address, private address, protocol.
const PROTOCOLS: &str = "snat_protocols";

/// Sets of what these forwards lead where, and a rule for each of them. Nothing without such forwards.
pub(super) fn feature(scope: Scope<'_>) -> Feature {
    let Scope { config, site, .. } = scope;
    // What goes to a bridge of this server, the program that manages it translates.
    let links: Vec<&PrivateLink> = site.private.iter().filter(|link| !link.is_local).collect();
    let (mut of_ports, mut of_protocols, mut protocols) = (Vec::new(), Vec::new(), BTreeSet::<IpProtocol>::new());
    for (forward, addresses) in forwards_at(config, site).into_iter().filter(|(forward, _)| forward.snat) {
        for address in addresses.into_iter().map(FieldValue::address) {
            let to = || FieldValue::address(forward.to);
            for transport in forward.transports.each() {
                let protocol = FieldValue::protocol(transport.number());
                of_ports.push(Element::new([FieldValue::ports(forward.ports), address.clone(), to(), protocol]));
            }
            if let Some(protocol) = forward.transports.without_ports() {
                of_protocols.push(Element::new([address.clone(), to(), FieldValue::protocol(protocol.number())]));
                protocols.insert(protocol);
            }
        }
    }
    let own = || snat(address_by_link(links.iter().map(|link| (&link.interface, link.address))), false);
    let host = || field("ip", "daddr");
    let mut feature = Feature::default();
    let mut add = |set: Set, rule: Rule| {
        if !set.elements.is_empty() && !links.is_empty() {
            feature.sets.push(set);
            feature.rules.push((Slot::SourceNatForward, rule));
        }
    };
    let key = concat([original_port(), original_destination(), host(), l4proto()]);
    add(
        Set::ranges(PORTS, [fields::PORT, fields::V4, fields::V4, fields::PROTOCOL], of_ports),
        vec![is_translated(), translates_ports(config), eq(key, set(PORTS)), own()],
    );
    let key = concat([original_destination(), host(), l4proto()]);
    add(
        Set::exact(PROTOCOLS, [fields::V4, fields::V4, fields::PROTOCOL], of_protocols),
        vec![is_translated(), is_one_of(&protocols), eq(key, set(PROTOCOLS)), own()],
    );
    feature
}
