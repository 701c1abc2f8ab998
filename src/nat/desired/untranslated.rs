//! Packets that would leave by the public link with a private source: what connection tracking does not see is not
//! translated, and neither is a flow that began while our rules were not there.
//!
//! Packets of established flows are not checked there: such a flow was answered, so it left with an address that
//! answers come back to. Another program's rule can still write a private source into any packet (`ip saddr set`),
//! before or after the translation and without connection tracking. While there is such a rule, the last chain of all,
//! `leaving`, looks at what really leaves. Without one it would cost every packet a tenth of its way (measured).

use std::collections::BTreeSet;

use nftables::types::{NfChainPolicy, NfHook};

use super::super::model::{Chain, Rule};
use super::super::statement::{
    RuleStatement, Value, and, anonymous_set, any_of, ct_state, ct_status, eq, field, flags, interface, number,
    oifname, prefix, set, source_first_byte, text,
};
use super::drops::{DropReason, drop_as};
use super::early::{NOT_FROM_OUTSIDE, not_from_outside};
use super::feature::{Feature, Section, Slot};
use super::forward::{INSIDE, first_bytes, inside};
use super::{LAST, Scope, filter};
use crate::net::InterfaceName;

/// Rules in `forward` for packets that are not translated, the last one of `postrouting` for those that no rule of it
/// translates, and the chain `leaving` while another program writes addresses.
pub(super) fn feature(scope: Scope<'_>) -> Feature {
    let Some(public) = &scope.site.public else { return Feature::default() };
    let out = || eq(oifname(), interface(&public.interface));
    let untracked = any_of(ct_state(), text("untracked"));
    // The first packet was translated when it left, or never will be. Later ones are new until the flow is answered.
    let is_known_untranslated = eq(and(ct_status(), flags(["confirmed", "snat"])), text("confirmed"));
    let mut rules = vec![
        (Slot::ForwardUntranslated, vec![out(), untracked, drop_as(DropReason::Untranslated)]),
        (Slot::ForwardUntranslated, vec![out(), is_known_untranslated, drop_as(DropReason::Untranslated)]),
    ];
    if let Some(from_inside) = from_inside(scope) {
        rules.push((Slot::SourceNatMissing, vec![out(), from_inside, drop_as(DropReason::Untranslated)]));
    }
    let leaving = || leaving_chain(scope, &public.interface);
    let chains = scope.machine.foreign_rewrites.then(leaving).flatten().map(|chain| (Section::Leaving, chain));
    Feature { rules, chains: chains.into_iter().collect(), ..Feature::default() }
}

/// Drops what leaves by the public link with a private source, which another program may have written there. Every
/// packet meets this rule; for most sources the first byte decides (see [`super::forward::inside_guard`]).
fn leaving_chain(scope: Scope<'_>, public: &InterfaceName) -> Option<Chain> {
    // The kernel itself refuses loopback and multicast sources. Packets without a source, and with a link-local one,
    // concern the link alone.
    let on_the_link = |byte: &u8| matches!(byte, 0 | 127 | 169 | 224..);
    let bytes: BTreeSet<u8> =
        not_from_outside(scope).into_iter().flat_map(first_bytes).filter(|byte| !on_the_link(byte)).collect();
    let rule = vec![
        eq(oifname(), interface(public)),
        eq(source_first_byte(), anonymous_set(bytes.iter().map(|byte| number((*byte).into())))),
        eq(field("ip", "saddr"), set(NOT_FROM_OUTSIDE)),
        drop_as(DropReason::Untranslated),
    ];
    let base = filter(NfHook::Postrouting, LAST, NfChainPolicy::Accept);
    (!bytes.is_empty()).then(|| Chain::base("leaving", base, vec![rule]))
}

/// The rule of the chain `output` for what the bastion itself sends with a private source.
pub(super) fn output_rule(scope: Scope<'_>) -> Option<Rule> {
    let public = scope.site.public.as_ref()?;
    let unseen = any_of(ct_state(), Value::List(["invalid", "untracked"].map(text).into()));
    Some(vec![
        eq(oifname(), interface(&public.interface)),
        from_inside(scope)?,
        unseen,
        drop_as(DropReason::Untranslated),
    ])
}

/// Matches packets with a source in a private network or in the tunnel.
fn from_inside(scope: Scope<'_>) -> Option<RuleStatement> {
    let ranges = match inside(scope).as_slice() {
        [] => return None,
        [single] => prefix((*single).into()),
        _ => set(INSIDE),
    };
    Some(eq(field("ip", "saddr"), ranges))
}
