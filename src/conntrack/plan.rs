//! Decides which live flows end when one policy replaces another. Pure.

use std::collections::BTreeMap;
use std::fmt;

use super::evaluator::PolicyEvaluator;
use super::model::{Flow, Permission, Status};
use super::policy::Policy;
use crate::component;
use crate::outcome::Problem;

/// Why a live flow ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndReason {
    /// Its port forward is gone, leads elsewhere, no longer allows its source, or translates the source differently
    /// while the host has not answered.
    Forward,
    /// Its static address is gone, belongs to another host, or is closed for it.
    Static,
    /// Its destination on the internet is no longer allowed.
    Egress,
    /// It is no longer allowed from one private network to the other.
    Tenant,
    /// Its peer is gone, or another peer has its address.
    Tunnel,
    /// The service of the bastion is gone, or no longer allows its source.
    Service,
    /// It bypasses a forward or a static address that was added after it began.
    Bypass,
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forward => "of port forwards",
            Self::Static => "of static addresses",
            Self::Egress => "to the internet",
            Self::Tenant => "between networks",
            Self::Tunnel => "of the tunnel",
            Self::Service => "to services of the bastion",
            Self::Bypass => "past a new forward or static address",
        })
    }
}

/// A number of flows for each reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FlowCounts(BTreeMap<EndReason, u64>);

impl FlowCounts {
    pub(super) fn add(&mut self, reason: EndReason) {
        *self.0.entry(reason).or_default() += 1;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// `2 of port forwards, 1 of the tunnel`.
impl fmt::Display for FlowCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<String> = self.0.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        f.write_str(&counts.join(", "))
    }
}

/// What is to be done about the live flows.
///
/// It does not list the flows: there may be a million. It holds the two policies, which decide about each flow, and how
/// many flows they end by the listing that was observed. [`apply`](super::Conntrack) lists the flows once more and
/// deletes each one for which [`end_reason`] gives a reason, so its counts differ by the flows that began or ended
/// between the two listings.
#[derive(Debug, PartialEq)]
pub struct Plan {
    pub(super) action: Action,
    /// What is nearly used up, and who does not answer.
    pub(super) problems: Vec<Problem>,
    /// Who may not answer, and is not known to have to.
    pub(super) hints: Vec<Problem>,
}

/// What a [`Plan`] does.
#[derive(Debug, PartialEq)]
pub(super) enum Action {
    /// Nothing yet: the public link has no address, so it is not known what is allowed.
    Wait,
    /// Nothing: the flows follow the present policy.
    Keep,
    /// End the flows that lose their permission, and remember the new policy.
    Follow(Box<PolicyChange>),
}

/// One policy in the place of another.
#[derive(Debug, PartialEq)]
pub(super) struct PolicyChange {
    /// The policy that the flows followed so far.
    pub(super) from: Policy,
    /// The policy that they are to follow.
    pub(super) to: Policy,
    /// The observed flows that end with the change.
    pub(super) ends: FlowCounts,
}

impl component::Plan for Plan {
    fn steps(&self) -> Vec<String> {
        match &self.action {
            Action::Follow(change) if !change.ends.is_empty() => vec![format!("end live flows: {}", change.ends)],
            Action::Wait | Action::Keep | Action::Follow(_) => Vec::new(),
        }
    }

    fn problems(&self) -> Vec<Problem> {
        self.problems.clone()
    }
}

/// Why a flow that began under the old policy ends under the new one; `None` if it continues.
///
/// Only a permission of the old policy can be withdrawn: a flow that it does not cover belongs to another program. SSH
/// to the bastion and the tunnel's own packets never end, so that no change locks the operator out.
pub(crate) fn end_reason(old: &PolicyEvaluator<'_>, new: &PolicyEvaluator<'_>, flow: &Flow) -> Option<EndReason> {
    if old.is_operator_access(flow) || new.is_operator_access(flow) {
        return None;
    }
    if !flow.is_redirected() && new.redirect_target(flow).is_some() && old.redirect_target(flow).is_none() {
        return Some(EndReason::Bypass);
    }
    let before = old.permission(flow);
    let reason = match before {
        Permission::Forward(..) | Permission::Guest(_) => EndReason::Forward,
        Permission::Static(_) => EndReason::Static,
        Permission::Egress => EndReason::Egress,
        Permission::Tenant => EndReason::Tenant,
        Permission::Tunnel(_) => EndReason::Tunnel,
        Permission::Service => EndReason::Service,
        Permission::Blocked(_) | Permission::Unknown => return None,
    };
    if old.peers_of(flow) != new.peers_of(flow) {
        // A peer may use a forward or a service: that still stands, but the peer does not.
        return Some(EndReason::Tunnel);
    }
    if new.permission(flow) != before {
        return Some(reason);
    }
    // A flow goes on as it began. But a client that never pauses would wait for ever for a host that cannot answer it
    // that way.
    let is_unanswered = matches!(before, Permission::Forward(..)) && !flow.status.has(Status::SEEN_REPLY);
    (is_unanswered && old.hides_source(flow) != new.hides_source(flow)).then_some(reason)
}
