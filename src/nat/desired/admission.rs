//! The last check of a new flow, on every path that accepts one: whether its source has or opens too many.
//!
//! The cost of these rules does not depend on how many flows a source has. How many it opens in a second the kernel
//! itself knows. How many it has, the daemon counts: the rules let some flows report their birth and their end, and
//! look up which sources have too many
//! ([decision 22](../../../docs/decisions/0022-flows-are-counted-by-samples.md)).

use super::super::model::{Chain, Meter, Rule};
use super::super::statement::{
    Value, accept, any_of, ct_status, eq, field, goto, iifname, interface, jump, limit, limit_over, ne, nfproto,
    number, random, set, set_ct_events, set_ct_mark, text, update_with,
};
use super::drops::{DropReason, drop_as};
use super::feature::{Feature, Section};
use super::{LimitedSource, Scope, comes_in_by, limited_sources};
use crate::inputs::{LIMITED_LINKS, LIMITED_RANGES, LIMITED4, LIMITED6, Sample, counts_flows, limits_sites};

/// The chain for flows of private hosts and peers.
const INSIDE: &str = "admit_inside";
/// The chain for flows of other sources.
const OUTSIDE: &str = "admit_outside";

/// The chains and their meters.
pub(super) fn feature(scope: Scope<'_>) -> Feature {
    let (egress, firewall) = (&scope.config.egress, &scope.config.firewall);
    let outside = ["outside_flows4", "outside_flows6"];
    let mut meters = vec![Meter { name: "inside_flows", limit: egress.new_flows_per_second }];
    meters.extend(outside.map(|name| Meter { name, limit: firewall.new_flows_per_second }));
    let mut chains = Vec::new();
    if limits_inside(scope) {
        chains.extend(inside_chains(scope));
    }
    if limits_outside(scope) {
        chains.extend(outside_chains(scope));
    }
    let chains = chains.into_iter().map(|chain| (Section::Admission, chain)).collect();
    Feature { meters, chains, ..Feature::default() }
}

/// The rule by which a flow of a private host or peer is checked; `None` without limits. It continues if there are not
/// too many.
pub(super) fn admit_inside(scope: Scope<'_>) -> Option<Rule> {
    limits_inside(scope).then(|| vec![jump(INSIDE)])
}

/// The rule by which a flow of another source is checked, likewise.
pub(super) fn admit_outside(scope: Scope<'_>) -> Option<Rule> {
    limits_outside(scope).then(|| vec![jump(OUTSIDE)])
}

/// The rules by which a flow of any source is checked, by the link that it comes in by.
pub(super) fn admit_any(scope: Scope<'_>) -> Vec<Rule> {
    let Some(public) = &scope.site.public else { return admit_inside(scope).into_iter().collect() };
    let from_public = || comes_in_by(&public.interface);
    let from_elsewhere = || ne(iifname(), interface(&public.interface));
    let outside = admit_outside(scope).map(|rule| [vec![from_public()], rule].concat());
    let inside = admit_inside(scope).map(|rule| [vec![from_elsewhere()], rule].concat());
    outside.into_iter().chain(inside).collect()
}

fn limits_inside(Scope { config, .. }: Scope<'_>) -> bool {
    let egress = &config.egress;
    egress.new_flows_per_second.or(egress.network_new_flows_per_second).is_some() || counts_flows(config)
}

fn limits_outside(Scope { config, .. }: Scope<'_>) -> bool {
    config.firewall.new_flows_per_second.is_some() || counts_flows(config)
}

/// The chain for flows from inside, and before it that for those whose source is below its own limits.
fn inside_chains(scope: Scope<'_>) -> [Chain; 2] {
    const WITHIN: &str = "admit_inside_within";
    let Scope { config, site, tunnel, .. } = scope;
    let source = || field("ip", "saddr");
    let mut rules = vec![is_known()];
    if counts_flows(config) {
        let limited = |name| vec![eq(source(), set(name)), drop_as(DropReason::Flows)];
        rules.extend([from_closed_link(), limited(LIMITED4)]);
        rules.extend(limits_sites(config, tunnel).then(|| limited(LIMITED_RANGES)));
    }
    if let Some(rate) = config.egress.new_flows_per_second {
        rules.extend(rate_rules("inside_flows", &source(), rate, WITHIN));
        // Guests of a bridge ask this server's DNS by IPv6 too.
        rules.push(vec![eq(nfproto(), text("ipv4")), drop_as(DropReason::NewFlows)]);
    }
    rules.push(vec![goto(WITHIN)]);
    let mut within = Vec::new();
    if let Some(rate) = config.egress.network_new_flows_per_second {
        let links = site.private.iter().map(|link| &link.interface);
        let links = links.chain(tunnel.map(|tunnel| &tunnel.interface));
        let over = || limit_over(rate, "second", rate.saturating_mul(2));
        within.extend(links.map(|link| vec![comes_in_by(link), over(), drop_as(DropReason::Network)]));
    }
    if counts_flows(config) {
        within.push(count(Sample::for_limit(config.egress.max_flows)));
    }
    [Chain::regular(WITHIN, within), Chain::regular(INSIDE, rules)]
}

/// The same for flows from outside.
fn outside_chains(scope: Scope<'_>) -> [Chain; 2] {
    const WITHIN: &str = "admit_outside_within";
    let config = scope.config;
    let mut rules = vec![is_known()];
    if counts_flows(config) {
        rules.push(from_closed_link());
        let limited = [LIMITED4, LIMITED6];
        rules.extend(
            limited_sources()
                .into_iter()
                .zip(limited)
                .map(|(LimitedSource { key, .. }, name)| vec![eq(key, set(name)), drop_as(DropReason::Flows)]),
        );
    }
    if let Some(rate) = config.firewall.new_flows_per_second {
        for LimitedSource { ending, key, .. } in limited_sources() {
            rules.extend(rate_rules(&format!("outside_flows{ending}"), &key, rate, WITHIN));
        }
        rules.push(vec![drop_as(DropReason::NewFlows)]);
    } else {
        rules.push(vec![goto(WITHIN)]);
    }
    let within = counts_flows(config).then(|| count(Sample::for_limit(config.firewall.max_flows)));
    [Chain::regular(WITHIN, within.into_iter().collect()), Chain::regular(OUTSIDE, rules)]
}

/// Goes on to `within` if a source opens no more than so many flows a second. A source for which the set has no room is
/// dropped: all others keep their limits. What is too fast continues.
fn rate_rules(meter: &str, source: &Value, rate: u32, within: &'static str) -> [Rule; 2] {
    let below = limit(rate, "second", rate.saturating_mul(2));
    [
        vec![update_with(meter, source, &below), goto(within)],
        vec![ne(source.clone(), set(meter.to_owned())), drop_as(DropReason::Full)],
    ]
}

/// A flow stays new until it is answered, and some never are: syslog, voice. Its first packet was checked already.
fn is_known() -> Rule {
    vec![any_of(ct_status(), text("confirmed")), accept()]
}

fn from_closed_link() -> Rule {
    vec![eq(iifname(), set(LIMITED_LINKS)), drop_as(DropReason::Network)]
}

/// Lets one of so many flows report its birth and its end, and marks it. The others report neither, since
/// `nf_conntrack_events` is 0: an event for each flow would make it much dearer (decision 22).
fn count(sample: Sample) -> Rule {
    let reports = vec![set_ct_events(&["new", "destroy"]), set_ct_mark(sample.mark())];
    match u16::try_from(sample.weight()) {
        Ok(1) | Err(_) => reports,
        Ok(weight) => [vec![eq(random(weight.into()), number(0))], reports].concat(),
    }
}
