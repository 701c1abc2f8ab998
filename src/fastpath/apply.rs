//! Carries a plan out.

use std::os::fd::AsFd as _;

use super::Error;
use super::filters::Netlink;
use super::model::Hook;
use super::pins::Pins;
use super::plan::{Attachment, Plan, Turn};
use crate::outcome::Problem;

/// What was done, a line each, and what failed.
#[derive(Debug, Default)]
pub(super) struct Applied {
    pub(super) changes: Vec<String>,
    pub(super) problems: Vec<Problem>,
    /// Whether the generation is as planned.
    pub(super) is_turned: bool,
}

impl Applied {
    /// Keeps the error of a step, or what it did.
    fn note<T>(&mut self, result: Result<T, Error>, done: impl FnOnce() -> Option<String>) {
        match result {
            Ok(_) => self.changes.extend(done()),
            Err(error) => self.problems.push(Problem::from_error(&error)),
        }
    }
}

/// Tries every step. Entries end before filters go, and begin after they stand.
pub(super) async fn apply(pins: &Pins, plan: &Plan) -> Applied {
    let mut applied = Applied { is_turned: true, ..Applied::default() };
    if plan.turn == Turn::Off {
        turn(&mut applied, pins.switch_off());
    }
    if plan.changes_something() {
        match Netlink::open() {
            Ok(netlink) => change_filters(&netlink, pins, plan, &mut applied).await,
            Err(error) => applied.problems.push(Problem::from_error(&error)),
        }
        // A program stays while a filter holds it, so this is last.
        if applied.problems.is_empty() {
            remove_files(pins, plan, &mut applied);
        }
    }
    if plan.turn == Turn::Raise {
        turn(&mut applied, pins.raise_generation());
    }
    applied
}

fn turn(applied: &mut Applied, result: Result<(), Error>) {
    if let Err(error) = result {
        applied.is_turned = false;
        applied.problems.push(Problem::from_error(&error));
    }
}

async fn change_filters(netlink: &Netlink, pins: &Pins, plan: &Plan, applied: &mut Applied) {
    for filter in &plan.detach {
        let (link, hook) = (filter.link, filter.hook);
        let removed = netlink.detach(filter).await.map_err(|source| Error::Detach { link: link.0, hook, source });
        applied.note(removed, || Some(format!("{hook} of link {} detached", link.0)));
    }
    for &link in &plan.remove_qdiscs {
        let removed = netlink.remove_clsact(link).await.map_err(|source| Error::Qdisc { link: link.0, source });
        applied.note(removed.and_then(|()| pins.forget_qdisc(link)), || None);
    }
    for &link in &plan.forget_qdiscs {
        applied.note(pins.forget_qdisc(link), || None);
    }
    for &link in &plan.add_qdiscs {
        // Noted first: a note without a clsact is removed later, a clsact without a note would stay.
        let noted = pins.note_qdisc(link);
        let added = match noted {
            Ok(()) => netlink.add_clsact(link).await.map_err(|source| Error::Qdisc { link: link.0, source }),
            Err(error) => Err(error),
        };
        applied.note(added, || None);
    }
    for hook in Hook::ALL {
        let places: Vec<&Attachment> = plan.attach.iter().filter(|place| place.hook == hook).collect();
        if places.is_empty() {
            continue;
        }
        let program = match pins.program(hook) {
            Ok(program) => program,
            Err(error) => {
                applied.problems.push(Problem::from_error(&error));
                continue;
            }
        };
        for Attachment { link, name, hook } in places {
            let attached = match program.fd() {
                Ok(descriptor) => netlink
                    .attach(*link, *hook, descriptor.as_fd())
                    .await
                    .map_err(|source| Error::Attach { link: name.clone(), hook: *hook, source }),
                Err(source) => Err(pins.unusable_program(*hook, source)),
            };
            applied.note(attached, || Some(format!("attached to {hook} of {name}")));
        }
    }
}

fn remove_files(pins: &Pins, plan: &Plan, applied: &mut Applied) {
    for name in &plan.remove_versions {
        applied.note(pins.remove_version(name), || None);
    }
    if plan.remove_this_version {
        applied.note(pins.remove_this_version(), || Some("programs of the fast path removed".to_owned()));
    }
}
