//! From one private network to another, and to itself by a public address.

use super::super::model::Chain;
use super::super::statement::{accept, counter, goto};
use super::access_list::AccessList;
use super::admission::admit_inside;
use super::drops::{DropReason, drop_as};
use super::egress::not_to_metadata;
use super::feature::{Feature, ForwardPath, Section};
use super::published::{accept_translated, publishes};
use super::{Scope, answer_unknown_flows};

/// First packets of flows from one private network to another.
const TENANT_FLOWS: &str = "tenant_flows";
/// The chain that lets them pass, if their source has not too many.
const LET_THROUGH: &str = "tenant_let_through";

/// Private networks reach each other as far as `tenants.allow` says, and each reaches what is published by its public
/// address.
pub(super) fn feature(scope: Scope<'_>) -> Feature {
    let Scope { config, site, .. } = scope;
    let tenants = AccessList::of_pairs("tenants", &config.tenants);
    let mut feature = Feature { counters: vec![TENANT_FLOWS], ..Feature::default() };
    if site.public.is_some() {
        for to in &site.private {
            for from in &site.private {
                let is_allowed =
                    if from.interface == to.interface { publishes(config) } else { site.private.len() > 1 };
                if is_allowed && !to.is_local {
                    let (from, to) = (from.interface.clone(), to.interface.clone());
                    feature.paths.push((Section::Lateral, ForwardPath { from, to, chain: "lateral".into() }));
                }
            }
        }
    }
    if publishes(config) || site.private.len() > 1 {
        let mut rules = Vec::new();
        rules.extend(publishes(config).then(accept_translated));
        // A line of `tenants.allow` without a destination does not mean the metadata service, which answers by private
        // links as well.
        rules.push(not_to_metadata());
        rules.extend(tenants.rules(|| vec![goto(LET_THROUGH)]));
        rules.push(answer_unknown_flows());
        rules.push(vec![drop_as(DropReason::Tenant)]);
        let passing = admit_inside(scope).into_iter().chain([vec![counter(TENANT_FLOWS), accept()]]);
        feature.chains.push((Section::Lateral, Chain::regular(LET_THROUGH, passing.collect())));
        feature.chains.push((Section::Lateral, Chain::regular("lateral", rules)));
    }
    feature.sets.extend(tenants.into_sets());
    feature
}
