//! The rules for probes of private links. A probe that comes back by its link has a source outside of the network, so
//! it is told apart where unexpected sources are, and other packets meet no rule more.

use nftables::types::NfHook;

use super::super::model::{Chain, Rule};
use super::super::statement::{
    accept, address, dnat_to, drop, eq, field, goto, interface, limit, log, ne, number, oifname, prefix, snat,
};
use super::drops::{DropReason, drop_as};
use super::feature::{Feature, ForwardPath, Section, Slot};
use super::postrouting::egress_translation;
use super::probes::interface_of;
use super::{Scope, comes_in_by, nat};
use crate::inputs::{DESTINATIONS, LinkProbe, RETURN_PORT, RETURNED_GROUP, link_probes, target_ports};

/// Bytes of a returned probe that are logged: its headers and its token.
const SNAPLEN: u32 = 64;
/// How many returned probes are logged in a second; probes are a second apart.
const LOGGED_PER_SECOND: u32 = 20;

/// Where probes that come back by a private link go to, from the chain `unexpected`.
pub(super) fn returned_probes(scope: Scope<'_>) -> Option<(Rule, Chain)> {
    let probes = link_probes(scope.config, scope.site);
    if probes.is_empty() {
        return None;
    }
    let to_probe = eq(field("ip", "daddr"), prefix(DESTINATIONS.into()));
    let rules = probes.iter().flat_map(|probe| [continues(probe), ends(probe)]).flatten();
    let rules = rules.chain([vec![drop_as(DropReason::Bogon)]]).collect();
    Some((vec![to_probe, goto("returned_probes")], Chain::regular("returned_probes", rules)))
}

/// A probe of the whole path continues like a private host's packet.
fn continues(probe: &LinkProbe) -> Vec<Rule> {
    vec![vec![
        comes_in_by(&probe.interface),
        eq(field("ip", "saddr"), address(probe.source)),
        eq(field("ip", "daddr"), address(probe.destination)),
        accept(),
    ]]
}

/// Another one has proven what it can, and would be dropped by the kernel now: its source is this server's.
fn ends(probe: &LinkProbe) -> Vec<Rule> {
    let returned = || {
        vec![
            comes_in_by(&probe.interface),
            eq(field("ip", "saddr"), address(probe.own)),
            eq(field("ip", "daddr"), address(probe.destination)),
            eq(field("udp", "dport"), number(RETURN_PORT)),
        ]
    };
    let logged = log("bastiond returned_probe".to_owned(), RETURNED_GROUP, SNAPLEN);
    let within = limit(LOGGED_PER_SECOND, "second", LOGGED_PER_SECOND);
    vec![[returned(), vec![within, logged]].concat(), [returned(), vec![drop()]].concat()]
}

/// The way of a probe of the whole path: out by the private link under a source that is this link's probes' own, and,
/// once it is back, on to a target.
///
/// The other source makes it a flow of its own when it comes back: connection tracking would take it for the one that
/// went out, which is not translated.
pub(super) fn feature(scope: Scope<'_>) -> Feature {
    let Scope { config, site, .. } = scope;
    let Some(public) = &site.public else { return Feature::default() };
    let link_of = |probe: &LinkProbe| site.private.iter().find(|link| link.interface == probe.interface);
    let probes: Vec<_> =
        link_probes(config, site).into_iter().filter_map(|probe| Some((link_of(&probe)?, probe))).collect();
    if probes.is_empty() {
        return Feature::default();
    }
    let mut prerouting: Vec<Rule> = vec![vec![ne(field("ip", "daddr"), prefix(DESTINATIONS.into())), accept()]];
    let mut rules: Vec<(Slot, Rule)> = Vec::new();
    let mut paths = Vec::new();
    for (link, probe) in &probes {
        let from = interface_of(link);
        for (port, target) in target_ports(config) {
            prerouting.push(vec![
                comes_in_by(&probe.interface),
                eq(field("ip", "saddr"), address(probe.source)),
                eq(field("ip", "daddr"), address(probe.destination)),
                eq(field("udp", "dport"), number(port)),
                dnat_to(*target.ip(), target.port()),
            ]);
        }
        let towards_link = [comes_in_by(&from), eq(oifname(), interface(&probe.interface))];
        rules.push((Slot::SourceNatProbes, [&towards_link[..], &[snat(address(probe.source), false)]].concat()));
        let out = eq(oifname(), interface(&public.interface));
        let is_probe = eq(field("ip", "saddr"), address(probe.source));
        rules.push((Slot::SourceNatProbes, vec![out, is_probe, egress_translation(link, config, public)]));
        let to = probe.interface.clone();
        paths.push((Section::Egress, ForwardPath { from, to, chain: "probe_out".into() }));
    }
    let to_probe = eq(field("ip", "daddr"), prefix(DESTINATIONS.into()));
    let out = Chain::regular("probe_out", vec![vec![to_probe, accept()], vec![drop_as(DropReason::Forward)]]);
    let targets = Chain::base("probe_targets", nat(NfHook::Prerouting), prerouting);
    Feature { chains: vec![(Section::Prerouting, targets), (Section::Egress, out)], rules, paths, ..Feature::default() }
}
