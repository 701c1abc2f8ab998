//! Guests of this server's own bridges: containers and virtual machines.
//!
//! The program that manages a bridge publishes its guests' ports by translating destinations, as Docker does. For a
//! bridge that the configuration serves, such flows to its guests pass: from an address of this server to an address of
//! the bridge. Who may use a port, that program decides. What somebody translates from other addresses to a guest, such
//! as private hosts' requests to the internet, is no published port, and the lists decide about it.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::super::model::{Chain, Rule};
use super::super::statement::{
    accept, address, anonymous_set, eq, field, goto, iifname, interface, l4proto, number, original_destination, prefix,
    text,
};
use super::admission::admit_inside;
use super::drops::{DropReason, drop_as};
use super::feature::{Feature, ForwardPath, Section, Slot};
use super::published::{is_translated, publishes};
use super::translated::{LET_THROUGH, let_through_chain};
use super::{Scope, drop_excess_syns};
use crate::site::{PrivateLink, PublicLink, Site};

/// DNS, and the requests of DHCP clients: guests ask the program that manages their bridge (libvirt's and LXC's
/// dnsmasq).
const DNS: u16 = 53;
const DHCP_SERVER: u16 = 67;

/// The chain in which guests' flows to this server pass.
const TO_SERVER: &str = "guests_to_server";

/// The ways to guests, and their ways to this server.
pub(super) fn feature(scope: Scope<'_>) -> Feature {
    let Scope { config, site, .. } = scope;
    let local: Vec<&PrivateLink> = site.private.iter().filter(|link| link.is_local).collect();
    if local.is_empty() {
        return Feature::default();
    }
    let mut feature = Feature::default();
    let path = |from: &crate::net::InterfaceName, to: &PrivateLink, chain: &'static str| ForwardPath {
        from: from.clone(),
        to: to.interface.clone(),
        chain: chain.into(),
    };
    if let Some(public) = &site.public {
        if !publishes(config) {
            feature.chains.push((Section::Local, let_through_chain(scope)));
        }
        for to in &local {
            feature.paths.push((Section::Local, path(&public.interface, to, "guests")));
            for from in &site.private {
                feature.paths.push((Section::Local, path(&from.interface, to, "guests_from_inside")));
            }
        }
        let limit = config.firewall.syns_per_second.map(|rate| drop_excess_syns(rate, "syns4", &field("ip", "saddr")));
        let mut rules: Vec<Rule> = limit.into_iter().collect();
        rules.extend([accept_published(public, site), vec![drop_as(DropReason::Forward)]]);
        feature.chains.push((Section::Local, Chain::regular("guests", rules)));
        // With one private link there are no lists between networks.
        let rest = if site.private.len() > 1 { goto("lateral") } else { drop_as(DropReason::Tenant) };
        let rules = vec![accept_published(public, site), vec![rest]];
        feature.chains.push((Section::Local, Chain::regular("guests_from_inside", rules)));
    }
    let links = || anonymous_set(local.iter().map(|link| interface(&link.interface)));
    let inside = || eq(iifname(), links());
    let to_server = admit_inside(scope).into_iter().chain([vec![accept()]]).collect();
    feature.chains.push((Section::Local, Chain::regular(TO_SERVER, to_server)));
    let udp = || anonymous_set([number(DNS), number(DHCP_SERVER)]);
    let rules = [
        vec![inside(), eq(l4proto(), text("udp")), eq(field("th", "dport"), udp()), goto(TO_SERVER)],
        vec![inside(), eq(field("tcp", "dport"), number(DNS)), goto(TO_SERVER)],
    ];
    feature.rules.extend(rules.map(|rule| (Slot::InputLocal, rule)));
    feature
}

/// Flows to an address of this server that another program has translated to a guest of a bridge pass.
fn accept_published(public: &PublicLink, site: &Site) -> Rule {
    let of_link = |link: &PrivateLink| [link.address].into_iter().chain(link.aliases.clone()).collect::<Vec<_>>();
    let own: BTreeSet<Ipv4Addr> =
        public.addresses.iter().copied().chain(site.private.iter().flat_map(of_link)).collect();
    let bridges = site.private.iter().filter(|link| link.is_local);
    let guests = Ipv4Net::aggregate(&bridges.flat_map(PrivateLink::ranges).collect());
    vec![
        is_translated(),
        eq(original_destination(), anonymous_set(own.into_iter().map(address))),
        eq(field("ip", "daddr"), anonymous_set(guests.into_iter().map(|range| prefix(range.into())))),
        goto(LET_THROUGH),
    ]
}
