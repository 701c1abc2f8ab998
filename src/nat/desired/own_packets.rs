//! The chain `output`: what this server itself sends.
//!
//! All of it meets one look-up and no more: the metadata service is one of the destinations that are not routed on the
//! internet.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use nftables::types::{NfChainPolicy, NfHook};

use super::super::model::{Chain, Rule};
use super::super::statement::{
    Value, address, anonymous_set, any_of, ct_state, eq, field, interface, jump, ne, oifname, prefix, return_, set,
    skuid, text, user_id,
};
use super::drops::{DropReason, drop_as};
use super::feature::{Feature, Section};
use super::{FILTER, Scope, filter, untranslated};
use crate::hetzner::{METADATA_ADDRESS, METADATA_NETWORK, PUBLIC_GATEWAY};
use crate::site::PublicLink;

/// The chain for packets to the metadata service.
const TO_METADATA: &str = "to_metadata";
/// The chain for packets to destinations that are not routed on the internet.
const TO_UNROUTABLE: &str = "to_unroutable";
/// The user id of root.
const ROOT: u32 = 0;

/// Who may use the metadata service, and what does not leave by the public link.
pub(super) fn feature(scope: Scope<'_>) -> Feature {
    let Scope { config, site, machine, .. } = scope;
    let users = config.firewall.metadata_users.as_ref();
    let to_metadata = users.map(|_| vec![eq(field("ip", "daddr"), address(METADATA_ADDRESS)), jump(TO_METADATA)]);
    let mut chains: Vec<Chain> = Vec::new();
    chains.extend(users.map(|users| metadata_chain(users.iter().copied().chain([ROOT, machine.daemon]).collect())));
    let mut rules: Vec<Rule> = Vec::new();
    if config.egress.guard {
        let unroutable: Vec<Rule> = to_metadata.into_iter().chain(site.public.as_ref().map(guard)).collect();
        if !unroutable.is_empty() {
            rules.push(vec![eq(field("ip", "daddr"), set("unroutable")), jump(TO_UNROUTABLE)]);
            chains.push(Chain::regular(TO_UNROUTABLE, unroutable));
        }
    } else {
        rules.extend(to_metadata);
    }
    rules.extend(untranslated::output_rule(scope));
    chains.push(Chain::base("output", filter(NfHook::Output, FILTER, NfChainPolicy::Accept), rules));
    Feature { chains: chains.into_iter().map(|chain| (Section::Output, chain)).collect(), ..Feature::default() }
}

/// Lets these users' packets pass, by the user who made the socket. What a socket sends that its program has closed
/// already belongs to no user, but to a known flow.
fn metadata_chain(users: BTreeSet<u32>) -> Chain {
    let known = Value::List(["established", "related"].map(text).into());
    let rules = vec![
        vec![any_of(ct_state(), known), return_()],
        vec![eq(skuid(), anonymous_set(users.into_iter().map(user_id))), return_()],
        vec![drop_as(DropReason::Metadata)],
    ];
    Chain::regular(TO_METADATA, rules)
}

/// The guard of the bastion's own packets, as far as they go to hosts. Its neighbours and groups on the link are
/// exempt, and so is the cloud's gateway, which assigns addresses too.
fn guard(public: &PublicLink) -> Rule {
    let groups = Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 3);
    let neighbours = [prefix(METADATA_NETWORK.into()), address(PUBLIC_GATEWAY), prefix(groups.into())];
    vec![
        eq(oifname(), interface(&public.interface)),
        ne(field("ip", "daddr"), anonymous_set(neighbours)),
        drop_as(DropReason::Unroutable),
    ]
}
