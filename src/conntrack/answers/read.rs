//! Reads the unanswered flows, and the answered ones of the same forwards.

use std::collections::HashSet;
use std::ops::ControlFlow;

use tokio::time::Instant;

use super::super::model::{Flow, Status};
use super::super::observe::for_each_selected_flow;
use super::super::socket::Error;
use super::super::wire::Selection;
use super::redirects::{Redirects, Target};
use super::tracker::Tracker;

/// How many unanswered flows are looked at: a flood of connection requests to a host that is down makes more.
const UNANSWERED: usize = 50_000;
/// How many answered flows of one forward are looked at. One with more is in use, and nothing is said about it.
const ANSWERED: usize = 20_000;
/// Of how many forwards the answered flows are looked at in one read; the next one takes others.
const SUSPECTS: usize = 8;

/// One read. Blocks.
pub(super) fn read(tracker: &mut Tracker, redirects: &Redirects<'_>, now: Instant) -> Result<(), Error> {
    let mut unanswered = Vec::new();
    let selection = Selection { set: Status::DST_NAT, unset: Status::SEEN_REPLY, answers_from: None };
    visit(&selection, redirects, |flow, target| {
        unanswered.extend(flow.id.map(|id| (id, target)));
        unanswered.len() < UNANSWERED
    })?;
    tracker.note_unanswered(unanswered, now);
    for target in tracker.suspects().into_iter().take(SUSPECTS) {
        let Some((host, port)) = redirects.answers_from(target) else { continue };
        let set = Status::DST_NAT | Status::SEEN_REPLY;
        let answers_from = Some((host, target.protocol, port));
        let mut answered = HashSet::new();
        visit(&Selection { set, unset: Status::default(), answers_from }, redirects, |flow, found| {
            // Where many ports lead to a host, the flows of single ones speak for the others too.
            if (found.redirect, found.protocol) == (target.redirect, target.protocol) {
                answered.extend(flow.id);
            }
            answered.len() < ANSWERED
        })?;
        tracker.note_answered(target, (answered.len() < ANSWERED).then_some(answered), now);
    }
    Ok(())
}

/// Visits the flows of forwards and static addresses, until `visit` has had enough.
fn visit(
    selection: &Selection,
    redirects: &Redirects<'_>,
    mut visit: impl FnMut(&Flow, Target) -> bool,
) -> Result<(), Error> {
    for_each_selected_flow(selection, |flow| match redirects.target(flow) {
        Some(target) if !visit(flow, target) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    })
}
