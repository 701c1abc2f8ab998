//! Guests of this server's own bridges: containers and virtual machines.
//!
//! The program that manages a bridge publishes its guests' ports by translating destinations, as Docker does. For a
//! bridge that the configuration serves, such flows to its guests pass. Who may use a port, that program decides.

use super::super::model::{Chain, Rule};
use super::super::statement::{accept, anonymous_set, eq, field, goto, iifname, interface, l4proto, number, text};
use super::drops::{DropReason, drop_as};
use super::feature::{Feature, ForwardPath, Section, Slot};
use super::published::accept_translated_by_anyone;
use super::{Scope, drop_excess_syns};
use crate::site::PrivateLink;

/// DNS, and the requests of DHCP clients: guests ask the program that manages their bridge (libvirt's and LXC's
/// dnsmasq).
const DNS: u16 = 53;
const DHCP_SERVER: u16 = 67;

/// The ways to guests, and their ways to this server.
pub(super) fn feature(Scope { config, site, .. }: Scope<'_>) -> Feature {
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
        for to in &local {
            feature.paths.push((Section::Local, path(&public.interface, to, "guests")));
            for from in &site.private {
                feature.paths.push((Section::Local, path(&from.interface, to, "guests_from_inside")));
            }
        }
        let limit = config.firewall.syns_per_second.map(|rate| drop_excess_syns(rate, "syns4", &field("ip", "saddr")));
        let mut rules: Vec<Rule> = limit.into_iter().collect();
        rules.extend([accept_translated_by_anyone(), vec![drop_as(DropReason::Forward)]]);
        feature.chains.push((Section::Local, Chain::regular("guests", rules)));
        // With one private link there are no lists between networks.
        let rest = if site.private.len() > 1 { goto("lateral") } else { drop_as(DropReason::Tenant) };
        let rules = vec![accept_translated_by_anyone(), vec![rest]];
        feature.chains.push((Section::Local, Chain::regular("guests_from_inside", rules)));
    }
    let links = || anonymous_set(local.iter().map(|link| interface(&link.interface)));
    let inside = || eq(iifname(), links());
    let udp = || anonymous_set([number(DNS), number(DHCP_SERVER)]);
    let rules = [
        vec![inside(), eq(l4proto(), text("udp")), eq(field("th", "dport"), udp()), accept()],
        vec![inside(), eq(field("tcp", "dport"), number(DNS)), accept()],
    ];
    feature.rules.extend(rules.map(|rule| (Slot::InputLocal, rule)));
    feature
}
