//! Packets that would leave by the public link with a private source: what connection tracking does not see is not
//! translated, and neither is a flow that began while our rules were not there.
//!
//! Packets of established flows are not checked: such a flow was answered, so it left with an address that answers come
//! back to.

use super::super::model::Rule;
use super::super::statement::{
    RuleStatement, Value, and, any_of, ct_state, ct_status, eq, field, flags, interface, oifname, prefix, set, text,
};
use super::Scope;
use super::drops::{DropReason, drop_as};
use super::feature::{Feature, Slot};
use super::forward::{INSIDE, inside};

/// Rules in `forward` for packets that are not translated, and the last one of `postrouting` for those that no rule of
/// it translates.
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
    Feature { rules, ..Feature::default() }
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
